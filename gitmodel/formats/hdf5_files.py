"""HDF5 files as they are made here: in memory or on disk, with a pinned library version and no times."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gitmodel.formats.source import CannotWrite

#: HDF5 has no error of its own for a file system that takes no more (EFBIG, ENOSPC, EROFS, EDQUOT).
_REFUSED = re.compile(r"errno = (?:27|28|30|122), error message = '([^']+)'")


def file_access() -> Any:
    import h5py

    fapl = h5py.h5p.create(h5py.h5p.FILE_ACCESS)
    # The lower bound is what is written; the upper one lets a copy of what a newer library wrote stay as it is.
    fapl.set_libver_bounds(h5py.h5f.LIBVER_V110, h5py.h5f.LIBVER_LATEST)
    return fapl


def file_creation() -> Any:
    import h5py

    fcpl = h5py.h5p.create(h5py.h5p.FILE_CREATE)
    with contextlib.suppress(AttributeError):
        fcpl.set_obj_track_times(False)
    return fcpl


@contextlib.contextmanager
def memory_file() -> Iterator[Any]:
    """A file that is on no disk; ``image_of`` gives its bytes."""
    import uuid

    import h5py

    fapl = file_access()
    fapl.set_fapl_core(backing_store=False)
    # HDF5 tells open files apart by name, even those that are on no disk.
    name = uuid.uuid4().hex.encode()
    with h5py.File(h5py.h5f.create(name, h5py.h5f.ACC_TRUNC, fcpl=file_creation(), fapl=fapl)) as file:
        yield file


def image_of(file: Any) -> bytes:
    file.flush()
    image: bytes = file.id.get_file_image()
    return image


def write_copy(dataset: Any, name: str, path: Path) -> None:
    """A file with a copy of the dataset as it is: attributes, chunks, compression. Raises CannotWrite and what h5py
    raises."""
    import h5py

    try:
        created = h5py.h5f.create(bytes(path), h5py.h5f.ACC_TRUNC, fcpl=file_creation(), fapl=file_access())
        with h5py.File(created) as file:
            h5py.h5o.copy(dataset.id, b".", file.id, name.encode())
    except (OSError, RuntimeError) as error:
        if (refused := _REFUSED.search(str(error))) is None:
            raise
        raise CannotWrite(
            f"cannot write a temporary copy of '{dataset.name}' ({refused[1]})",
            hint="make room for temporary files, or set TMPDIR to a folder that has it",
        ) from None


class Image(io.RawIOBase):
    """The bytes of a file as a file, without a copy."""

    def __init__(self, data: bytes | memoryview) -> None:
        super().__init__()
        self._data, self._at = memoryview(data), 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: len(self._data)}[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        part = self._data[self._at : self._at + len(buffer)]
        buffer[: len(part)] = part
        self._at += len(part)
        return len(part)
