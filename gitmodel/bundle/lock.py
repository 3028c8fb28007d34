"""``weights.lock``: the trusted list of tensors and files of a bundle, one sorted line each, made to be read in a diff.

    # gitmodel weights.lock v1
    tensor <name> <dtype> <shape> <sha256> <file>
    file <path> <size> <sha256> <md5>

White space, control characters and backslashes in names stand as ``\\uXXXX``. Paths are relative to ``weights/``. A tensor's sha256
names its values whatever file they stand in: from 64 KiB on it is that of the tensor file they have, or would have if
they were not kept compressed, so one hash serves both lines; below, and for texts, that of the bytes themselves. md5 is only the
address under which DVC keeps the file; sha256 and size are what is believed.
"""

from __future__ import annotations

import hashlib
import math
import re
from collections.abc import Iterable
from functools import cached_property

from msgspec import Struct

from gitmodel.bundle.signature import DTYPES
from gitmodel.errors import GitmodelError

HEADER = "# gitmodel weights.lock v1"
MAX_BYTES = 64 << 20
_SHA256 = re.compile(r"[0-9a-f]{64}")
_MD5 = re.compile(r"[0-9a-f]{32}")
_UNSAFE = re.compile(r"[\s\\\x00-\x20\x7f-\x9f]")
_ESCAPED = re.compile(r"\\u((?!d[89a-f])[0-9a-f]{4})")  # half a surrogate pair is no text
_NUMBER = re.compile(r"[0-9]{1,19}")


#: How many fields follow a line's kind.
_FIELDS = {"tensor": 5, "file": 4}


class InvalidLock(GitmodelError):
    """A ``weights.lock`` that was not written by gitmodel, or was damaged since."""

    code = "invalid-lock"


#: What graphs compute with while they are loaded (shapes, axes, texts) has to stand in the graph itself.
_INLINE = frozenset({"bool", "int32", "int64", "string"})
_SHARED_ELEMENTS = 256


def is_shared(dtype: str, shape: tuple[int, ...]) -> bool:
    """Whether a tensor too small for a file of its own is read by the graphs from the HDF5 view, so that it is stored once;
    smaller ones, and those a graph needs while it is loaded, stand in both."""
    return dtype not in _INLINE and math.prod(shape) >= _SHARED_ELEMENTS


class TensorEntry(Struct, frozen=True, order=True):
    """``shape`` in elements; ``file`` is where its bytes stand, relative to ``weights/``."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    sha256: str
    file: str

    def line(self) -> str:
        shape = "x".join(map(str, self.shape)) or "scalar"
        return f"tensor {_escape(self.name)} {self.dtype} {shape} {self.sha256} {_escape(self.file)}"


class FileEntry(Struct, frozen=True, order=True):
    """``size`` in bytes."""

    path: str
    size: int
    sha256: str
    md5: str

    def line(self) -> str:
        return f"file {_escape(self.path)} {self.size} {self.sha256} {self.md5}"


class Lock(Struct, frozen=True, dict=True):
    """Entries sorted by name and path; see the module for the format."""

    tensors: tuple[TensorEntry, ...]
    files: tuple[FileEntry, ...]

    @classmethod
    def of(cls, tensors: Iterable[TensorEntry], files: Iterable[FileEntry]) -> Lock:
        return cls(tuple(sorted(tensors)), tuple(sorted(files)))

    @cached_property
    def digest(self) -> str:
        """sha256 of the lock's own text: one name for exactly these files."""
        return hashlib.sha256(self.to_text().encode()).hexdigest()

    @property
    def size(self) -> int:
        """Bytes of all files together."""
        return sum(entry.size for entry in self.files)

    def file(self, path: str) -> FileEntry | None:
        return next((entry for entry in self.files if entry.path == path), None)

    def to_text(self) -> str:
        return "\n".join([HEADER, *(t.line() for t in self.tensors), *(f.line() for f in self.files)]) + "\n"

    @classmethod
    def from_text(cls, data: bytes | str, where: str) -> Lock:
        """Raises InvalidLock; a path that leaves ``weights/`` is refused here, before anybody can open it."""
        if len(data) > MAX_BYTES:
            raise InvalidLock(f"{where} has {len(data)} bytes", hint=f"at most {MAX_BYTES} are read")
        try:
            lines = (data if isinstance(data, str) else data.decode()).splitlines()
        except UnicodeDecodeError:
            raise InvalidLock(f"{where} is not text", hint="restore it from Git") from None
        if not lines or lines[0] != HEADER:
            raise InvalidLock(f"{where} does not begin with '{HEADER}'", hint="restore it from Git or save again")
        tensors, files = [], []
        for number, line in enumerate(lines[1:], 2):
            try:
                kind, *fields = line.split(" ")
                if kind not in _FIELDS:
                    raise ValueError(f"unknown kind '{kind[:20]}'")
                if len(fields) != _FIELDS[kind]:
                    more = len(fields) > _FIELDS[kind]
                    raise ValueError("there is more than belongs there" if more else "it is not whole")
                if kind == "tensor":
                    tensors.append(_tensor(*fields))
                else:
                    files.append(_file(*fields))
            except ValueError as error:
                raise InvalidLock(f"{where} line {number}: {error}", hint="restore it from Git or save again") from None
        if len({entry.path for entry in files}) != len(files) or len({entry.name for entry in tensors}) != len(tensors):
            raise InvalidLock(f"{where} names a file twice, or a tensor", hint="restore it from Git or save again")
        return cls.of(tensors, files)


def _tensor(name: str, dtype: str, shape: str, sha256: str, file: str) -> TensorEntry:
    dims = () if shape == "scalar" else tuple(_number(dim) for dim in shape.split("x"))
    if dtype not in DTYPES or not _SHA256.fullmatch(sha256):
        raise ValueError("bad dtype or digest")
    return TensorEntry(_unescape(name), dtype, dims, sha256, inside(_unescape(file)))


def _file(path: str, size: str, sha256: str, md5: str) -> FileEntry:
    if not _SHA256.fullmatch(sha256) or not _MD5.fullmatch(md5):
        raise ValueError("bad digest")
    return FileEntry(inside(_unescape(path)), _number(size), sha256, md5)


def _number(text: str) -> int:
    if not _NUMBER.fullmatch(text):
        raise ValueError(f"'{text[:20]}' is no size")
    return int(text)


def _escape(text: str) -> str:
    # An empty name would vanish between two spaces.
    return _UNSAFE.sub(lambda found: f"\\u{ord(found[0]):04x}", text) or "\\u"


def _unescape(text: str) -> str:
    return "" if text == "\\u" else _ESCAPED.sub(lambda found: chr(int(found[1], 16)), text)


def inside(path: str) -> str:
    """Returns ``path`` if it stays below the folder it is relative to, in its one spelling. Raises ValueError."""
    if "\\" in path or "\0" in path or any(part in ("", ".", "..") for part in path.split("/")):
        raise ValueError(f"path '{path[:80]}' leaves its folder or has a simpler spelling")
    return path
