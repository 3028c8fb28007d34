"""Writing an exported file: whole or not there at all, block by block, so that memory stays flat."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from gitmodel.formats.mapping import let_go
from gitmodel.formats.source import CannotWrite, blocks


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file that takes the place of ``path`` when the block ends well: temp, fsync, rename. Raises CannotWrite."""
    with writing(str(path)):
        descriptor, temporary = tempfile.mkstemp(prefix=".gitmodel-", suffix=".tmp", dir=path.parent)
        try:
            with os.fdopen(descriptor, "w+b") as file:
                yield file
                file.flush()
                os.fchmod(descriptor, 0o644)
                os.fsync(descriptor)
            Path(temporary).replace(path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise
        _fsync_folder(path.parent)


@contextlib.contextmanager
def writing(what: str) -> Iterator[None]:
    """Turns an operating system's refusal into one line that names ``what`` was being written."""
    try:
        yield
    except OSError as error:
        raise CannotWrite(
            f"cannot write {what} ({error.strerror or error})", hint="make room or rights and run again"
        ) from error


def pour(file: IO[bytes], data: memoryview) -> None:
    """Writes ``data``; what is mapped of it leaves memory as it is written."""
    for block in blocks(data):
        file.write(block)
        let_go(block)


def _fsync_folder(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
