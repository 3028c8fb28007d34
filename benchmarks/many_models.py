"""Saves every ONNX file of a folder as a model of the repository it is run in, in one process: what many.py starts with."""

from __future__ import annotations

import sys
from pathlib import Path

import gitmodel


def main() -> None:
    for file in sorted(Path(sys.argv[1]).glob("*.onnx")):
        gitmodel.save(file.stem, file)


if __name__ == "__main__":
    main()
