"""Writing files so that a crash leaves the old one or the new one, never half of either. It knows no models."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from gitmodel.errors import ExitCode, GitmodelError

_BACK_NS = 3_000_000_000
#: What the kernel is asked to copy at once; see ``blocks`` for why it is little.
_PIECE = 256 << 10
#: Seconds after which what another process has not touched is nobody's any more.
ABANDONED = 3600.0


class StorageFailed(GitmodelError):
    """The file system refused: full, read-only, no permission."""

    code = "storage-failed"
    exit_code = ExitCode.INCOMPLETE


@contextlib.contextmanager
def storing(what: str) -> Iterator[None]:
    """Turns an operating system's refusal into one line that names ``what`` was being written."""
    try:
        yield
    except OSError as error:
        raise StorageFailed(
            f"cannot write {what} ({error.strerror or error})",
            hint="nothing was lost; make room or rights and run again",
        ) from error


@contextlib.contextmanager
def aside(folder: Path, prefix: str, suffix: str = "") -> Iterator[tuple[int, Path]]:
    """An open file in ``folder``, to be renamed into its place when it is whole; what is left of it at the end is removed."""
    descriptor, name = tempfile.mkstemp(prefix=prefix[:60], suffix=suffix, dir=folder)
    try:
        yield descriptor, Path(name)
    finally:
        Path(name).unlink(missing_ok=True)
        os.close(descriptor)


def write_all(descriptor: int, data: memoryview | bytes) -> None:
    """``os.write`` until all of it is written. Raises OSError."""
    left = memoryview(data)
    while left:
        left = left[os.write(descriptor, left) :]


def replace_file(path: Path, data: bytes, mode: int = 0o644) -> bool:
    """Puts ``data`` at ``path`` by temp, fsync and rename. Returns False, touching nothing, when it is there already."""
    with contextlib.suppress(OSError):
        if not path.is_symlink() and path.read_bytes() == data:
            return False
    with storing(str(path)):
        path.parent.mkdir(parents=True, exist_ok=True)
        with aside(path.parent, f".{path.name}.", ".tmp") as (descriptor, temporary):
            write_all(descriptor, data)
            os.fchmod(descriptor, mode)
            os.fsync(descriptor)
            temporary.replace(path)
    return True


def copy_file(source: Path, target: Path, mode: int) -> os.stat_result:
    """Copies inside the kernel (sharing blocks where the file system can), then renames into place; returns the copy's state.

    Its time of change is set a little back, so that any change after this shows, however coarse the clock.
    """
    with storing(str(target)):
        target.parent.mkdir(parents=True, exist_ok=True)
        with source.open("rb") as reader, aside(target.parent, f".{target.name}.", ".tmp") as (descriptor, temporary):
            copy_range(reader.fileno(), descriptor)
            return _put(descriptor, temporary, target, mode)


def move_file(source: Path, target: Path, mode: int) -> os.stat_result:
    """As ``copy_file``, but the source goes: nothing is copied where both are on one file system."""
    with storing(str(target)):
        target.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(source, os.O_RDONLY)
        try:
            return _put(descriptor, source, target, mode)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
        finally:
            os.close(descriptor)
    return copy_file(source, target, mode)


def _put(descriptor: int, temporary: Path, target: Path, mode: int) -> os.stat_result:
    os.fchmod(descriptor, mode)
    now = time.time_ns()
    os.utime(descriptor, ns=(now, now - _BACK_NS))
    temporary.replace(target)
    return os.fstat(descriptor)


def copy_range(source: int, target: int) -> None:
    """Copies what is left of one open file to another, inside the kernel where it can."""
    remaining = os.fstat(source).st_size
    try:
        while remaining > 0:
            copied = os.copy_file_range(source, target, min(remaining, _PIECE))
            if copied == 0:
                break
            remaining -= copied
    except OSError as error:
        if error.errno == errno.ENOSPC:  # ENOSPC is final; anything else means "not between these"
            raise
        os.lseek(source, 0, os.SEEK_SET)
        os.lseek(target, 0, os.SEEK_SET)
        with open(source, "rb", closefd=False) as reader, open(target, "wb", closefd=False) as writer:
            shutil.copyfileobj(reader, writer, 1 << 20)


def fsync_folder(path: Path) -> None:
    """Makes the names in a folder durable, after renames into it."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sweep(left_over: Iterable[Path]) -> None:
    """Removes files and folders that a killed process left. Another one may be writing there, so only what has not been
    touched for an hour goes."""
    for path in left_over:
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > ABANDONED:
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
