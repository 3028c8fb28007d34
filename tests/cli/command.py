"""Runs the command line inside the test process, as the entry point does: quicker than a process of its own."""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from gitmodel import cli


@dataclass(frozen=True)
class Outcome:
    """What a process would have left: exit code, stdout, stderr."""

    code: int
    out: str
    err: str

    def __bool__(self) -> bool:
        return self.code == 0


class Command:
    """``command("list", "--format", "json")`` runs in ``folder``."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, capture: pytest.CaptureFixture[str]) -> None:
        self.folder, self._monkeypatch, self._capture = folder, monkeypatch, capture

    def __call__(self, *args: str | Path) -> Outcome:
        self._capture.readouterr()
        before = Path.cwd()
        self._monkeypatch.setattr(sys, "argv", ["gitmodel", *map(str, args)])
        os.chdir(self.folder)
        try:
            cli.main()
            code = 0
        except SystemExit as exit_:
            code = exit_.code if isinstance(exit_.code, int) else int(exit_.code is not None)
        finally:
            os.chdir(before)
        said = self._capture.readouterr()
        return Outcome(code, said.out, said.err)
