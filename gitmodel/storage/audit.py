"""Reads stored objects afresh, both digests in one pass, and copies the good ones. No memory of earlier hashes is used."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from msgspec import Struct

from gitmodel.bundle.lock import FileEntry
from gitmodel.files import storing
from gitmodel.storage.depot import Blocks, Depot, Folder, Stored
from gitmodel.storage.remote import Progress

_NAMES = re.compile(r"(?<![0-9a-f])[0-9a-f]{32}(?:\.dir)?(?![0-9a-f])")


class Digest(Struct, frozen=True):
    """What was read; ``error`` is why it could not be."""

    md5: str = ""
    sha256: str = ""
    size: int = 0
    error: str = ""

    def fits(self, oid: str, entries: Iterable[FileEntry]) -> bool:
        """Whether these are the object's bytes: by name, and by all that locks say of it."""
        named = self.md5 == oid.removesuffix(".dir") and not self.error
        return named and all((self.sha256, self.size) == (entry.sha256, entry.size) for entry in entries)


def names_in(data: bytes) -> set[str]:
    """Names of objects wherever they stand in a pointer: so what DVC writes tomorrow, or a merge left broken, counts, too."""
    return set(_NAMES.findall(data.decode(errors="replace")))


def expand(named: Iterable[str], depots: Sequence[Depot]) -> tuple[set[str], set[str]]:
    """These names with those of all that is in the folders among them; and the folders whose listing no depot has whole."""
    found, lost = set(named), set()
    for oid in sorted(name for name in found if name.endswith(".dir")):
        members = next((known for depot in depots if (known := _members(depot, oid)) is not None), None)
        if members is None:
            lost.add(oid)
        else:
            found |= members
    return found, lost


def _members(depot: Depot, oid: str) -> set[str] | None:
    if (stored := depot.find(oid)) is None:
        return None
    try:
        data = b"".join(map(bytes, depot.blocks(stored.path)))
    except OSError:
        return None
    if not digest_of(iter([memoryview(data)])).fits(oid, ()):
        return None
    try:
        return {str(item["md5"]) for item in json.loads(data)}
    except (ValueError, TypeError, KeyError):
        return None


def run_cache_names(root: Path) -> set[str]:
    """Names in DVC's memory of earlier pipeline runs, which lies in the cache folder ``root``."""
    found: set[str] = set()
    for path in (root / "runs").rglob("*"):
        if path.is_file():
            found |= names_in(path.read_bytes())
    return found


class Reading:
    """Both digests of bytes that come block by block."""

    def __init__(self) -> None:
        self._md5, self._sha256, self._size = hashlib.md5(usedforsecurity=False), hashlib.sha256(), 0

    def add(self, block: memoryview) -> None:
        self._md5.update(block)  # the block stays in the processor's cache for both
        self._sha256.update(block)
        self._size += len(block)

    def digest(self) -> Digest:
        return Digest(self._md5.hexdigest(), self._sha256.hexdigest(), self._size)


def digest_of(blocks: Blocks) -> Digest:
    read = Reading()
    for block in blocks:
        read.add(block)
    return read.digest()


def digest_at(depot: Depot, path: str) -> Digest:
    """Reads a file; what the disk refuses to give is an ``error``. Raises FileNotFoundError, RemoteFailed."""
    try:
        return digest_of(depot.blocks(path))
    except FileNotFoundError:
        raise
    except OSError as error:
        return Digest(error=error.strerror or type(error).__name__)


def digest_all(
    depot: Depot, stored: Iterable[Stored], progress: Progress | None = None
) -> Iterator[tuple[Stored, Digest]]:
    """Reads many, several at once, the largest first; one that vanishes meanwhile is passed over. Raises RemoteFailed."""

    def look(item: Stored) -> tuple[Stored, Digest | None]:
        try:
            return item, digest_at(depot, item.path)
        except FileNotFoundError:
            return item, None

    order = sorted(stored, key=lambda item: -item.size)
    size, read = sum(max(item.size, 0) for item in order), 0
    pool = ThreadPoolExecutor(max_workers=depot.jobs, thread_name_prefix="audit")
    try:
        for done, (item, digest) in enumerate(pool.map(look, order), 1):
            read += max(item.size, 0)
            if progress:
                progress(done, len(order), read, size)
            if digest is not None:
                yield item, digest
    finally:
        pool.shutdown(cancel_futures=True)


def bring(depot: Depot, path: str, oid: str, entries: Iterable[FileEntry], target: Folder) -> bool:
    """Copies an object into a folder if its bytes are the right ones, hashed on the way. Raises StorageFailed, RemoteFailed."""
    with storing(target.name), target.writing(oid) as (file, keep):
        blocks, read = depot.blocks(path), Reading()
        while True:
            try:
                block = next(blocks, None)
            except OSError:
                return False
            if block is None:
                break
            read.add(block)
            file.write(block)
        if not read.digest().fits(oid, entries):
            return False
        keep()
        return True
