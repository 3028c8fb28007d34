"""What every format gives: a model's tensors, mapped rather than loaded, and its graph. Also: mapping, and telling files
apart."""

from __future__ import annotations

import hashlib
import mmap
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from gitmodel.errors import GitmodelError
from gitmodel.files import StorageFailed
from gitmodel.formats.mapping import let_go, mapped

if TYPE_CHECKING:
    from gitmodel.bundle.golden import GoldenCase
    from gitmodel.bundle.signature import Signature

#: Tensors of at least this many bytes get a file of their own; smaller ones live inside the views.
TENSOR_FILE_BYTES = 64 << 10

_ALIGNMENT = 64

_POINTERS = (
    (re.compile(rb"version https://git-lfs"), "Git LFS pointer", "run 'git lfs pull' to get the model itself"),
    (re.compile(rb"outs:\s*\n\s*-\s"), "DVC pointer", "run 'dvc pull' to get the model itself"),
)


class InvalidModel(GitmodelError):
    """A file that is not the model it is said to be."""

    code = "invalid-model"


class UnsafeModel(InvalidModel):
    """A file that holds what a model from elsewhere must not: ways to other files, code, more bytes than it has."""

    code = "unsafe-model"


class OtherBytes(InvalidModel):
    """A stored file, ``path`` below its folder, that is not what its lock says."""

    def __init__(self, path: str, where: Path) -> None:
        super().__init__(
            f"{where} has other bytes than weights.lock says", hint="run 'gitmodel checkout' on the version"
        )
        self.path = path


class UnsafePart(ValueError):
    """What makes a file an unsafe one, where its name is not known."""


@dataclass(frozen=True, eq=False)
class Seal:
    """What a stored file, ``path`` below ``folder``, must be: its sha256. ``begin`` is where in it a tensor's bytes begin."""

    folder: Path
    path: str
    sha256: str
    begin: int = 0

    def check(self) -> None:
        """Reads the file. Raises OtherBytes, InvalidModel."""
        hashed = hashlib.sha256()
        for block in blocks(map_file(self.folder / self.path)):
            hashed.update(block)
            let_go(block)
        self.compare(hashed.hexdigest())

    def compare(self, sha256: str) -> None:
        """Raises OtherBytes unless that is the file's."""
        if sha256 != self.sha256:
            raise OtherBytes(self.path, self.folder / self.path)

    def around(self, size: int) -> tuple[bytes, bytes]:
        """What stands before and after the tensor of so many bytes. Raises InvalidModel."""
        image = map_file(self.folder / self.path)
        return bytes(image[: self.begin]), bytes(image[self.begin + size :])


@dataclass(frozen=True)
class Description:
    """What a model file says of itself; a checkpoint without a graph has no signature."""

    format: str
    framework: str
    signature: Signature | None


@dataclass(frozen=True, eq=False)
class TensorData:
    """One tensor. ``data`` holds its little-endian row-major bytes (a view of a mapped file where that is possible);
    ``stored`` is set when its file must be kept as it is (attributes, chunks, compression) and holds that file. Whoever
    writes ``data`` elsewhere holds them against the ``seal``."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    data: memoryview
    stored: bytes | memoryview | None = None
    seal: Seal | None = None


@dataclass(frozen=True, eq=False)
class NamedGraph:
    """One more way to call a model: an ``onnx.ModelProto``, its signature, and which tensors of the source it uses, under
    which initializer's name."""

    graph: Any
    signature: Signature
    bound_names: Mapping[str, str]


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
    #: What the file says of itself in words (safetensors' ``__metadata__``).
    metadata: Mapping[str, str] = field(default_factory=dict)
    #: Further graphs over the same tensors, by the name of their signature.
    named: Mapping[str, NamedGraph] = field(default_factory=dict)
    #: Every file that was read for it.
    files: tuple[Path, ...] = ()
    #: What the library that the graph was converted from gives; the graph has to give it, too (``frameworks.check``).
    cases: tuple[GoldenCase, ...] = ()
    #: What whoever gave the files may not have meant, in words.
    notes: tuple[str, ...] = ()

    def close(self) -> None:
        """Lets go of the user's file; what is mapped of it stays readable."""
        if self.groups is not None:
            self.groups.close()


class Format(Protocol):
    """One module per format; see the table in this package."""

    def read(self, path: Path) -> Source:
        """Raises InvalidModel."""
        ...


class Writer(Protocol):
    """One module per format that ``export`` gives; see the table in this package."""

    def write(self, source: Source, path: Path) -> tuple[Path, ...]:
        """The files written. Raises InvalidModel when the format cannot express the source, StorageFailed."""
        ...


def join(sources: Sequence[Source]) -> Source:
    """One checkpoint of several files, as large ones are sharded. Of metadata that differ the first file's count.
    Raises InvalidModel when they do not make one."""
    if any(source.graph is not None or source.groups is not None for source in sources):
        raise InvalidModel("only shards without a graph or groups make one checkpoint", hint="give safetensors or npz")
    if len(kinds := {source.format for source in sources}) != 1:
        raise InvalidModel(f"files of {' and '.join(sorted(kinds))} make no checkpoint", hint="give all shards alike")
    seen: set[str] = set()
    for tensor in (tensor for source in sources for tensor in source.tensors):
        if tensor.name in seen:
            raise InvalidModel(f"'{tensor.name}' stands in two of the files", hint="give each shard once")
        seen.add(tensor.name)
    tensors = tuple(tensor for source in sources for tensor in source.tensors)
    metadata: dict[str, str] = {}
    for key, text in (item for source in sources for item in source.metadata.items()):
        metadata.setdefault(key, text)
    framework = next((source.framework for source in sources if source.framework), "")
    files = tuple(file for source in sources for file in source.files)
    return Source(kinds.pop(), framework, tensors, metadata=metadata, files=files)


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
            return mapped(file.fileno(), os.fstat(file.fileno()).st_size)
    except FileNotFoundError:
        raise InvalidModel(f"there is no file {path}", hint="check the path") from None
    except OSError as error:
        raise InvalidModel(f"{path} cannot be read ({error.strerror})", hint="check its permissions") from error


def scratch(size: int) -> memoryview:
    """Room for bytes that have to be unpacked: a writable mapping of a temp file without a name, so that they stand on
    disk and not in memory. Each one holds a file open: ask for the room of many tensors at once. Raises StorageFailed."""
    import tempfile

    if not size:
        return memoryview(bytearray())
    try:
        with tempfile.TemporaryFile(prefix="gitmodel-") as file:
            # Reserved first: a write into a mapping of a full disk would end the process.
            os.posix_fallocate(file.fileno(), 0, size)
            return memoryview(mmap.mmap(file.fileno(), size))
    except (OSError, OverflowError) as error:
        raise StorageFailed(
            f"cannot unpack {size} bytes to disk ({getattr(error, 'strerror', None) or error})",
            hint="make room for temporary files, or set TMPDIR to a folder that has it",
        ) from None


def rooms(sizes: Sequence[int]) -> list[memoryview]:
    """``scratch`` for bytes of these sizes, all in one file. Raises StorageFailed."""
    begins = [0]
    for size in sizes:
        begins.append(begins[-1] + size + -size % _ALIGNMENT)
    whole = scratch(begins[-1])
    return [whole[begin : begin + size] for begin, size in zip(begins, sizes, strict=False)]


def blocks(data: memoryview, size: int = 4 << 20) -> Iterator[memoryview]:
    """The bytes in pieces of at most ``size``."""
    for start in range(0, len(data), size):
        yield data[start : start + size]


def first_line(error: Exception) -> str:
    """What a library said, short enough for a message of one line."""
    return (str(error).splitlines() or [type(error).__name__])[0]
