"""Writing an exported file: whole or not there at all, block by block, so that memory stays flat."""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from gitmodel.files import aside, fsync_folder, storing
from gitmodel.formats.mapping import let_go
from gitmodel.formats.source import Seal, blocks


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file that takes the place of ``path`` when the block ends well: temp, fsync, rename. Raises StorageFailed."""
    with storing(str(path)):
        with aside(path.parent, ".gitmodel-", ".tmp") as (descriptor, temporary):
            with os.fdopen(descriptor, "w+b", closefd=False) as file:
                yield file
            os.fchmod(descriptor, 0o644)
            os.fsync(descriptor)
            temporary.replace(path)
        fsync_folder(path.parent)


def pour(file: IO[bytes], data: memoryview, seal: Seal | None = None) -> None:
    """Writes ``data``; what is mapped of it leaves memory as it is written. Raises OtherBytes when what was written is not
    what the ``seal`` says: it is hashed on the way."""
    before, after = seal.around(len(data)) if seal else (b"", b"")
    hashed = hashlib.sha256(before)
    for block in blocks(data):
        file.write(block)
        if seal:
            hashed.update(block)
        let_go(block)
    if seal:
        hashed.update(after)
        seal.compare(hashed.hexdigest())
