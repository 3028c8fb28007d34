"""What every format gives: a model's tensors, mapped rather than loaded, and its graph. Also: telling files apart."""

from __future__ import annotations

import mmap
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from gitmodel.errors import GitmodelError

if TYPE_CHECKING:
    from gitmodel.bundle.signature import Signature

#: Tensors of at least this many bytes get a file of their own; smaller ones live inside the views.
TENSOR_FILE_BYTES = 64 << 10

_POINTERS = (
    (re.compile(rb"version https://git-lfs"), "Git LFS pointer", "run 'git lfs pull' to get the model itself"),
    (re.compile(rb"outs:\s*\n\s*-\s"), "DVC pointer", "run 'dvc pull' to get the model itself"),
)


class InvalidModel(GitmodelError):
    """A file that is not the model it is said to be."""

    code = "invalid-model"


@dataclass(frozen=True, eq=False)
class TensorData:
    """One tensor. ``data`` holds its little-endian row-major bytes (a view of a mapped file where that is possible);
    ``stored`` is set when its file must be kept as it is (attributes, chunks, compression) and holds that file."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    data: memoryview
    stored: bytes | None = None


@dataclass(frozen=True, eq=False)
class Source:
    """A model as read from the user's files.

    ``graph`` is an ``onnx.ModelProto`` whose large initializers are cut out and found in ``tensors``;
    ``groups`` the HDF5 file whose groups and attributes the HDF5 view keeps; either may be None.
    """

    format: str
    framework: str
    tensors: tuple[TensorData, ...]
    signature: Signature | None = None
    graph: Any = None
    groups: Any = None
    #: Tensor name to initializer name, where an ONNX graph calls it otherwise.
    bound_names: Mapping[str, str] = field(default_factory=dict)

    def close(self) -> None:
        """Lets go of the user's file; what is mapped of it stays readable."""
        if self.groups is not None:
            self.groups.close()


class Format(Protocol):
    """One module per format; see the table in this package."""

    def read(self, path: Path) -> Source:
        """Raises InvalidModel."""
        ...


def map_file(path: Path) -> memoryview:
    """The file's bytes without reading them. Raises InvalidModel for an empty file, a pointer or no file at all."""
    try:
        size = path.stat().st_size
        if not path.is_file():
            raise InvalidModel(f"{path} is not a file", hint="name the model file itself")
        with path.open("rb") as file:
            head = file.read(512)
            if size == 0:
                raise InvalidModel(f"{path} is empty", hint="export the model again")
            for pattern, what, mend in _POINTERS:
                if pattern.match(head):
                    raise InvalidModel(f"{path} is a {what}, not a model", hint=mend)
            return memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except FileNotFoundError:
        raise InvalidModel(f"there is no file {path}", hint="check the path") from None
    except OSError as error:
        raise InvalidModel(f"{path} cannot be read ({error.strerror})", hint="check its permissions") from error


def first_line(error: Exception) -> str:
    """What a library said, short enough for a message of one line."""
    return (str(error).splitlines() or [type(error).__name__])[0]
