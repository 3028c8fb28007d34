"""Bytes in blocks: written and hashed in one pass, compared without a hash, and let go of, so that memory stays flat."""

from __future__ import annotations

import ctypes
import hashlib
import mmap
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

from msgspec import Struct

from gitmodel.bundle.lock import FileEntry
from gitmodel.files import write_all
from gitmodel.formats.mapping import address_of, let_go

#: What is read, hashed and written at once: small enough for the processor's cache, and for the kernel to find room among pages
#: that are in use, which in a virtual machine is far cheaper than to ask for large new ones; large enough that threads
#: which hash seldom wait for the one that holds the interpreter's lock.
_BLOCK = 1 << 20
#: What is compared at once: with less, threads that compare would ask for the interpreter's lock so often that imports beside
#: them take half as long again.
_SEGMENT = 8 << 20
#: From here on one tensor may be most of a model: its two digests are made side by side.
_HUGE = 64 << 20


class Hashed(Struct, frozen=True):
    """What was written: the digests of all of it, and its ``size`` in bytes."""

    md5: str
    sha256: str
    size: int

    def entry(self, path: str) -> FileEntry:
        return FileEntry(path, self.size, self.sha256, self.md5)


def write_hashed(
    descriptor: int, header: bytes, body: memoryview, also: Callable[[memoryview | bytes], None] | None = None
) -> Hashed:
    """Writes ``header`` and ``body`` to an open file, and tells ``also`` what was written, piece by piece. Every byte is
    read once: somebody may be writing the user's file, and what is stored has to be what was hashed. Raises OSError."""
    md5, sha256 = hashlib.md5(header, usedforsecurity=False), hashlib.sha256(header)
    write_all(descriptor, header)
    if also:
        also(header)
    buffer = memoryview(bytearray(min(_BLOCK, len(body))))
    for start in range(0, len(body), _BLOCK):
        block = buffer[: min(_BLOCK, len(body) - start)]
        block[:] = body[start : start + _BLOCK]
        let_go(body[start : start + _BLOCK])
        other = _hashers().submit(sha256.update, block) if len(body) >= _HUGE else None
        if other is None:
            sha256.update(block)
        md5.update(block)
        write_all(descriptor, block)
        if also:
            also(block)
        if other is not None:
            other.result()
    return Hashed(md5.hexdigest(), sha256.hexdigest(), len(header) + len(body))


def equal(path: Path, header: bytes, body: memoryview) -> bool:
    """Whether the file holds exactly ``header`` and then ``body``. Raises OSError."""
    size = len(header) + len(body)
    with path.open("rb") as file:
        if file.read(len(header)) != header:
            return False
    return ends_with(path, size, body)


def ends_with(path: Path, size: int, body: memoryview) -> bool:
    """Whether it is a file of ``size`` bytes, of which these are the last. Raises OSError."""
    with path.open("rb") as file:
        if os.fstat(file.fileno()).st_size != size or size < len(body):
            return False
        if not len(body):
            return True
        stored = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))[size - len(body) :]
    for start in range(0, len(body), _SEGMENT):
        ours, theirs = body[start : start + _SEGMENT], stored[start : start + _SEGMENT]
        if not _same(ours, theirs):
            return False
        let_go(ours)
        let_go(theirs)
    return True


def _same(one: memoryview, other: memoryview) -> bool:
    """memcmp, which lets other threads run meanwhile; comparing memoryviews goes byte by byte."""
    return _memcmp()(address_of(one), address_of(other), len(one)) == 0


@cache
def _memcmp() -> Callable[[int, int, int], int]:
    function = ctypes.CDLL(None).memcmp
    function.argtypes = (ctypes.c_void_p, ctypes.c_void_p, ctypes.c_size_t)
    function.restype = ctypes.c_int
    return function


@cache
def _hashers() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(max_workers=2, thread_name_prefix="hash")
