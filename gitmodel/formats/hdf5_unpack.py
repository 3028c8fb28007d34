"""What an HDF5 file does not keep as a tensor's plain bytes goes to disk and not to memory: values slab by slab, and
copies of whole files."""

from __future__ import annotations

import io
import itertools
import math
import mmap
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from gitmodel.files import StorageFailed, storing
from gitmodel.formats.hdf5_walk import naming_damage
from gitmodel.formats.hdf5_writing import file_access, file_creation
from gitmodel.formats.mapping import let_go

_SLAB_BYTES = 16 << 20
_ALIGNMENT = 64
#: HDF5 has no error of its own for a file system that takes no more (EFBIG, ENOSPC, EROFS, EDQUOT).
_REFUSED = re.compile(r"errno = (?:27|28|30|122), error message = '([^']+)'")


def unpack(dataset: Any, room: memoryview) -> None:
    """Writes the dataset's little-endian row-major bytes into ``room``. Raises what h5py raises."""
    import numpy as np

    values = np.ndarray(dataset.shape, dataset.dtype.newbyteorder("<"), room)
    for slab in _slabs(dataset.shape, dataset.chunks, dataset.dtype.itemsize):
        values[slab] = dataset[slab]
        let_go(room)


def shelved(writers: Iterable[Callable[[Path], None]]) -> list[memoryview]:
    """The files that these write, mapped; all stand in one temp file without a name. Raises StorageFailed."""
    spans = []
    with (
        storing("temporary files"),
        tempfile.TemporaryDirectory(prefix="gitmodel-") as folder,
        tempfile.TemporaryFile(prefix="gitmodel-") as shelf,
    ):
        path, end = Path(folder) / "file", 0
        for write in writers:
            write(path)
            begin = end + -end % _ALIGNMENT
            end = begin + _append(path, shelf.fileno(), begin)
            spans.append((begin, end))
            path.unlink()
        whole = memoryview(mmap.mmap(shelf.fileno(), 0, access=mmap.ACCESS_READ) if end else b"")
    return [whole[begin:end] for begin, end in spans]


def write_copy(dataset: Any, name: str, path: Path) -> None:
    """A file with a copy of the dataset as it is: attributes, chunks, compression. Raises InvalidModel, StorageFailed."""
    import h5py

    with naming_damage(dataset.file.filename):
        try:
            created = h5py.h5f.create(bytes(path), h5py.h5f.ACC_TRUNC, fcpl=file_creation(), fapl=file_access())
            with h5py.File(created) as file:
                h5py.h5o.copy(dataset.id, b".", file.id, name.encode())
        except (OSError, RuntimeError) as error:
            if (refused := _REFUSED.search(str(error))) is None:
                raise
            raise StorageFailed(
                f"cannot write a temporary copy of '{dataset.name}' ({refused[1]})",
                hint="make room for temporary files, or set TMPDIR to a folder that has it",
            ) from None


def _append(path: Path, target: int, begin: int) -> int:
    """Copies the file to this place in another one, inside the kernel; returns its size."""
    os.lseek(target, begin, os.SEEK_SET)
    with path.open("rb") as file:
        size = os.fstat(file.fileno()).st_size
        done = 0
        while done < size:
            done += os.sendfile(target, file.fileno(), done, size - done)
    return size


def _slabs(shape: tuple[int, ...], chunks: tuple[int, ...] | None, itemsize: int) -> Iterator[tuple[slice, ...]]:
    """Parts that together are the whole: whole chunks, as many at once as memory should hold."""
    if 0 in shape:
        return
    sides = list(chunks or (1,) * len(shape))
    for axis in reversed(range(len(shape))):
        sides[axis] = min(shape[axis], sides[axis] * max(1, _SLAB_BYTES // (math.prod(sides) * itemsize)))
        if sides[axis] < shape[axis]:
            break
    steps = [range(0, size, side) for size, side in zip(shape, sides, strict=True)]
    for corner in itertools.product(*steps):
        yield tuple(slice(begin, begin + side) for begin, side in zip(corner, sides, strict=True))


class Image(io.RawIOBase):
    """The bytes of a file as a file, without a copy."""

    def __init__(self, data: bytes | memoryview) -> None:
        super().__init__()
        self._data, self._at = memoryview(data), 0

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: len(self._data)}[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        part = self._data[self._at : self._at + len(buffer)]
        buffer[: len(part)] = part
        self._at += len(part)
        return len(part)
