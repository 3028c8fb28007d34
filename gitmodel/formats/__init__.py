"""File formats: one module each, named in one table. ``read`` and ``write`` pick the module by the file's ending."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import NamedTuple

from gitmodel.formats.source import Format, InvalidModel, Source, Writer, map_file


class Modules(NamedTuple):
    """The modules of one ending; ``writer`` is '' where that is only read."""

    reader: str
    writer: str


FORMATS = {
    ".onnx": Modules("gitmodel.formats.onnx", "gitmodel.formats.onnx_export"),
    ".h5": Modules("gitmodel.formats.hdf5", "gitmodel.formats.hdf5_export"),
    ".hdf5": Modules("gitmodel.formats.hdf5", "gitmodel.formats.hdf5_export"),
    ".safetensors": Modules("gitmodel.formats.safetensors", "gitmodel.formats.safetensors"),
    ".npz": Modules("gitmodel.formats.npz", "gitmodel.formats.npz"),
    ".safetensors.index.json": Modules("gitmodel.formats.safetensors", ""),
}


def ending(path: Path) -> str:
    """The ending of the table that ``path`` has, or ''."""
    return next((known for known in FORMATS if path.name.lower().endswith(known)), "")


def read(path: Path) -> Source:
    """Reads a model file of any known format. Raises InvalidModel."""
    if not (known := ending(path)):
        map_file(path)  # a missing file or a pointer is the better message
        raise InvalidModel(f"{path} has an unknown ending", hint=f"known: {', '.join(FORMATS)}")
    module: Format = import_module(FORMATS[known].reader)
    return module.read(path)


def write(source: Source, path: Path) -> tuple[Path, ...]:
    """Writes the model in the format of the ending; returns the files. Raises InvalidModel, StorageFailed."""
    known = ending(path)
    if not known or not FORMATS[known].writer:
        written = [ending for ending, modules in FORMATS.items() if modules.writer]
        raise InvalidModel(f"{path} has an ending that is not written", hint=f"known: {', '.join(written)}")
    module: Writer = import_module(FORMATS[known].writer)
    return module.write(source, path)
