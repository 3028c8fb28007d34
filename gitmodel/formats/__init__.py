"""File formats: one module each, named in one table. ``read`` picks the module by the file's ending."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from gitmodel.formats.source import InvalidModel, Source, map_file

FORMATS = {
    ".onnx": "gitmodel.formats.onnx",
    ".h5": "gitmodel.formats.hdf5",
    ".hdf5": "gitmodel.formats.hdf5",
}


def read(path: Path) -> Source:
    """Reads a model file of any known format. Raises InvalidModel."""
    module = FORMATS.get(path.suffix.lower())
    if module is None:
        map_file(path)  # a missing file or a pointer is the better message
        raise InvalidModel(f"{path} has an unknown ending", hint=f"known: {', '.join(FORMATS)}")
    source: Source = import_module(module).read(path)
    return source
