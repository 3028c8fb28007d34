"""Maps a file without keeping it open: until 3.13 Python's own mmap holds a descriptor, and a model may have more tensor
files than a process may have open."""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import time
from functools import cache
from typing import Any
from weakref import WeakValueDictionary, finalize

_FAILED = ctypes.c_void_p(-1).value
#: What is mapped here, by its id.
_ours: WeakValueDictionary[int, Any] = WeakValueDictionary()
#: Seconds in which a process that is about to end has ended.
_ENDING = 1.0
#: Handlers of signals: the kernel knows them by their address alone.
_kept: list[object] = []


def mapped(descriptor: int, size: int) -> memoryview:
    """The first ``size`` bytes of an open file, read-only, for as long as a view of them lives. Raises OSError."""
    address = _libc().mmap(None, size, mmap.PROT_READ, mmap.MAP_SHARED, descriptor, 0)
    if address == _FAILED:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    whole = (ctypes.c_ubyte * size).from_address(address)
    _ours[id(whole)] = whole
    finalize(whole, _libc().munmap, address, size).atexit = False  # views may outlive this at the end of the process
    return memoryview(whole).cast("B").toreadonly()


def let_go(view: memoryview) -> None:
    """Tells the kernel that the pages under this part of a shared mapping are not needed soon. They stay in the file and
    come back when they are read; the process's memory stays flat. Does nothing for bytes that are not mapped."""
    is_mapped = isinstance(view.obj, mmap.mmap) or _ours.get(id(view.obj)) is view.obj
    if not view.nbytes or not is_mapped:
        return
    start = address_of(view)
    first = start - start % mmap.PAGESIZE
    _libc().madvise(first, start + view.nbytes - first, mmap.MADV_DONTNEED)


class _Buffer(ctypes.Structure):
    """Py_buffer of Python's C API (Buffer Protocol)."""

    _fields_ = (
        ("buf", ctypes.c_void_p), ("obj", ctypes.py_object), ("len", ctypes.c_ssize_t), ("itemsize", ctypes.c_ssize_t),
        ("readonly", ctypes.c_int), ("ndim", ctypes.c_int), ("format", ctypes.c_char_p), ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p), ("suboffsets", ctypes.c_void_p), ("internal", ctypes.c_void_p),
    )  # fmt: skip


def address_of(view: memoryview) -> int:
    """Where its bytes begin. NumPy would tell, too, and takes longer to import than a model to compare."""
    found = _Buffer()
    ctypes.pythonapi.PyObject_GetBuffer(ctypes.py_object(view), ctypes.byref(found), 0)
    try:
        return int(found.buf or 0)
    finally:
        ctypes.pythonapi.PyBuffer_Release(ctypes.byref(found))


@cache
def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    number = ctypes.c_int
    libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, number, number, number, ctypes.c_long)
    libc.mmap.restype = ctypes.c_void_p
    libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
    libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    return libc


def end_when_cut(message: str, code: int) -> None:
    """From now on this process says ``message`` and ends with ``code`` when it reads a part of a mapped file that is not there any
    more, because somebody has cut the file short, or the disk fails. The kernel sends SIGBUS then (mmap(2)), in the middle of
    whatever reads, and by itself the process would end without a word. For a process that may end at any point."""
    unsaid = [message.encode()]

    def end(_: int) -> None:
        try:
            text = unsaid.pop()
        except IndexError:  # another thread has met it, too, and says it
            time.sleep(_ENDING)
            return
        os.write(2, text)
        os._exit(code)

    handler = ctypes.CFUNCTYPE(None, ctypes.c_int)(end)
    _kept.append(handler)
    libc = _libc()
    libc.signal.argtypes = (ctypes.c_int, ctypes.c_void_p)
    libc.signal(signal.SIGBUS, ctypes.cast(handler, ctypes.c_void_p))
