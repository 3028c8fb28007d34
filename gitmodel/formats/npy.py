"""The npy member of an npz: its header, and its array as little-endian row-major bytes.

The format is numpy's own (``numpy.lib.format``), and numpy reads and writes the header; nothing is ever unpickled.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from gitmodel.bundle.signature import DTYPES
from gitmodel.formats import declared
from gitmodel.formats.dtypes import is_native, storage
from gitmodel.formats.mapping import let_go
from gitmodel.formats.source import UnsafePart, first_line

if TYPE_CHECKING:
    import numpy as np

_MAGIC_BYTES, _LONGEST_HEADER = 12, 1 << 16
#: What is turned over in one go; pages of both sides are let go of in between.
_TILE_BYTES = 4 << 20
#: Texts are turned into others in memory.
MAX_TEXT_BYTES = 64 << 20


class Array(Struct, frozen=True):
    """An array as it stands in a member: ``body`` are its bytes, ``fortran`` their order."""

    dtype: Any
    shape: tuple[int, ...]
    fortran: bool
    body: memoryview

    @property
    def is_text(self) -> bool:
        return bool(self.dtype.kind in "US")

    @property
    def is_plain(self) -> bool:
        """Whether ``body`` is what a tensor holds."""
        flat = not self.fortran or sum(dim > 1 for dim in self.shape) < 2
        return not self.body or bool(flat and self.dtype.newbyteorder("<") == self.dtype)


def parse(member: memoryview) -> Array:
    """Raises ValueError for what is no array of numbers or texts."""
    from numpy.lib import format as npy

    file = io.BytesIO(member[: _MAGIC_BYTES + _LONGEST_HEADER])
    readers = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}
    version = npy.read_magic(file)
    if version not in readers:
        raise ValueError(f"it is of version {version[0]}.{version[1]}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python 2 wrote its long integers in another way
            found, fortran, dtype = readers[version](file)
    except Exception as error:  # numpy has Python parse it, whose errors share no other base
        raise ValueError(f"its header is none ({first_line(error)[:80]})") from None
    if dtype.hasobject:
        raise UnsafePart("it holds Python objects, which are never unpickled")
    shape = declared.shape(found)
    body = member[file.tell() :]
    if not (dtype.itemsize if dtype.kind in "US" else _is_number(dtype)):
        raise ValueError(f"it has the type {str(dtype)[:60]}")
    if len(body) != math.prod((dtype.itemsize, *shape)):
        raise ValueError(f"it has {len(body)} bytes, {dtype}{list(shape)} needs {math.prod((dtype.itemsize, *shape))}")
    return Array(dtype, shape, fortran, body)


def write_header(file: Any, dtype: Any, shape: tuple[int, ...]) -> None:
    """The header of a row-major array."""
    from numpy.lib import format as npy

    npy.write_array_header_1_0(file, {"descr": dtype.str, "fortran_order": False, "shape": shape})


def reorder(array: Array, room: memoryview) -> memoryview:
    """The array's bytes in a tensor's order, in ``room``."""
    import numpy as np

    into = np.ndarray(array.shape, array.dtype.newbyteorder("<"), room)
    values = np.ndarray(array.shape, array.dtype, array.body, order="F" if array.fortran else "C")
    for tile in _tiles(array.shape, array.dtype.itemsize, turned=array.fortran):
        into[tile] = values[tile]
        let_go(room)
        let_go(array.body)
    return room.toreadonly()


def _tiles(shape: tuple[int, ...], itemsize: int, *, turned: bool) -> Iterator[tuple[slice, ...]]:
    """Parts that need few pages at a time: halves of the first axis or, where one side stands in rows and the other in
    columns, of the longest."""
    todo = [tuple(slice(0, dim) for dim in shape)]
    while todo:
        tile = todo.pop()
        sides = [part.stop - part.start for part in tile]
        if math.prod(sides) * itemsize <= _TILE_BYTES:
            yield tile
            continue
        axis = sides.index(max(sides)) if turned else next(axis for axis, side in enumerate(sides) if side > 1)
        middle = (tile[axis].start + tile[axis].stop) // 2
        for half in (slice(middle, tile[axis].stop), slice(tile[axis].start, middle)):
            todo.append((*tile[:axis], half, *tile[axis + 1 :]))


def texts(array: Array) -> memoryview:
    """Texts joined by NUL, as tensors keep them. Raises ValueError when there are too many to do so in memory."""
    import numpy as np

    if len(array.body) > MAX_TEXT_BYTES:
        raise ValueError(f"it has {len(array.body)} bytes of text, at most {MAX_TEXT_BYTES} are read")
    values = np.ndarray(array.shape, array.dtype, array.body, order="F" if array.fortran else "C")
    try:
        listed = values.ravel(order="C").tolist()
    except SystemError:  # what Python says of a code point beyond the last
        raise ValueError("it holds what is no character") from None
    encoded = (text if isinstance(text, bytes) else text.encode() for text in listed)
    # A text's own NUL stands as in Java's modified UTF-8: HDF5 ends a text at the first one.
    return memoryview(b"\0".join(text.replace(b"\0", b"\xc0\x80") for text in encoded))


def text_array(data: memoryview, shape: tuple[int, ...]) -> np.ndarray | None:
    """numpy's array of the texts, or None where numpy cannot hold them: no UTF-8, a NUL at the end, beyond all memory."""
    import numpy as np

    if not math.prod(shape):
        return np.zeros(shape, "<U1")
    if len(data) > MAX_TEXT_BYTES:
        return None
    try:
        listed = [text.replace(b"\xc0\x80", b"\0").decode() for text in data.tobytes().split(b"\0")]
    except UnicodeDecodeError:
        return None
    if max(map(len, listed)) * len(listed) * 4 > MAX_TEXT_BYTES or any(text.endswith("\0") for text in listed):
        return None
    return np.array(listed, dtype="<U").reshape(shape)


def _is_number(dtype: Any) -> bool:
    return dtype.name in DTYPES and is_native(dtype.name) and storage(dtype.name, ())[0] == dtype.newbyteorder("<")
