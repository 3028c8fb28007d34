"""Looks at stored objects one by one: lists them, reads their bytes afresh, puts good ones over damaged ones.

No memory of earlier hashes is used here, and no library's opinion: DVC trusts an object of mode 0444 for its mode.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from gitmodel.bundle.lock import FileEntry
from gitmodel.errors import GitmodelError
from gitmodel.storage.files import fsync_folder, storing
from gitmodel.storage.remote import Progress, Remote, RemoteFailed

_BLOCK = 1 << 20
_MODE = 0o444
_TEMPORARY = "tmp-gitmodel-"
_OID = re.compile(r"[0-9a-f]{32}(\.dir)?")
#: At most so many at once from a remote, each with a buffer of its own.
_REMOTE_JOBS, _REMOTE_BLOCK = 8, 4 << 20
#: Half-written files younger than this may belong to somebody at work.
ABANDONED = 3600.0

Blocks = Iterator[memoryview]


class NoCache(GitmodelError):
    """A folder was named as one with stored objects, and holds none."""

    code = "no-cache"


@dataclass(frozen=True)
class Stored:
    """A file of a place: its object's name ('' for what is no object), ``size`` in bytes (-1: unknown), when it was written
    (seconds; None: unknown), its permission bits (0: it has none) and where it is."""

    oid: str
    size: int
    modified: float | None
    mode: int
    path: str


@dataclass(frozen=True)
class Listing:
    """All files of a place: objects by name, half-written ones, and those that have no business there."""

    objects: dict[str, Stored]
    temporary: tuple[Stored, ...] = ()
    foreign: tuple[Stored, ...] = ()


@dataclass(frozen=True)
class Digest:
    """What was read; ``error`` is why it could not be."""

    md5: str = ""
    sha256: str = ""
    size: int = 0
    error: str = ""

    def fits(self, oid: str, entries: Iterable[FileEntry]) -> bool:
        """Whether these are the object's bytes: by name, and by all that locks say of it."""
        named = self.md5 == oid.removesuffix(".dir") and not self.error
        return named and all((self.sha256, self.size) == (entry.sha256, entry.size) for entry in entries)


class Depot(Protocol):
    """A place with objects in DVC's layout. ``name`` is how messages call it, ``jobs`` how many objects to read at once."""

    name: str
    jobs: int

    def list(self, named: Iterable[str]) -> Listing:
        """All that is there; a place that cannot be listed is asked for ``named`` alone. Raises RemoteFailed."""
        ...

    def find(self, oid: str) -> Stored | None: ...

    def blocks(self, path: str) -> Blocks:
        """The bytes of a file; a block is good until the next one. Raises FileNotFoundError, OSError, RemoteFailed."""
        ...

    def put(self, oid: str, source: Path) -> None:
        """Puts the bytes of a local file under a name, over what is there. Raises StorageFailed, RemoteFailed."""
        ...

    def remove(self, path: str) -> None: ...


def listing_of(files: Iterable[FileEntry]) -> tuple[str, bytes]:
    """Name and bytes of DVC's ``.dir`` object for these files."""
    listing = sorted(({"md5": f.md5, "relpath": f.path} for f in files), key=lambda item: item["relpath"])
    data = json.dumps(listing, sort_keys=True).encode()
    return f"{hashlib.md5(data, usedforsecurity=False).hexdigest()}.dir", data


def members_of(data: bytes) -> set[str] | None:
    """Names of the objects in a ``.dir`` object, or None when it is none."""
    try:
        return {str(item["md5"]) for item in json.loads(data)}
    except (ValueError, TypeError, KeyError):
        return None


def digest_of(blocks: Blocks) -> Digest:
    md5, sha256, size = hashlib.md5(usedforsecurity=False), hashlib.sha256(), 0
    for block in blocks:
        md5.update(block)
        sha256.update(block)
        size += len(block)
    return Digest(md5.hexdigest(), sha256.hexdigest(), size)


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
    pool = ThreadPoolExecutor(max_workers=depot.jobs, thread_name_prefix="audit")
    try:
        for done, (item, digest) in enumerate(pool.map(look, order), 1):
            if digest is not None:
                yield item, digest
            if progress:
                progress(done, len(order))
    finally:
        pool.shutdown(cancel_futures=True)


def bring(depot: Depot, path: str, oid: str, entries: Iterable[FileEntry], target: Folder) -> bool:
    """Copies an object into a folder if its bytes are the right ones, hashed on the way. Raises StorageFailed."""
    with storing(target.name), target.writing(oid) as (file, keep):
        md5, sha256, size = hashlib.md5(usedforsecurity=False), hashlib.sha256(), 0
        try:
            for block in depot.blocks(path):
                md5.update(block)
                sha256.update(block)
                size += len(block)
                file.write(block)
        except FileNotFoundError:
            return False
        if not Digest(md5.hexdigest(), sha256.hexdigest(), size).fits(oid, entries):
            return False
        keep()
        return True


class Folder:
    """A local folder of objects: a cache, or a remote that is a folder."""

    jobs = 2

    def __init__(self, objects: Path, name: str) -> None:
        self.objects, self.name = objects, name

    def list(self, named: Iterable[str] = ()) -> Listing:
        objects: dict[str, Stored] = {}
        temporary, foreign = [], []
        for entry in _scan(self.objects):
            below = entry.is_dir(follow_symlinks=False) and re.fullmatch("[0-9a-f]{2}", entry.name)
            for file in _scan(Path(entry.path)) if below else [entry]:
                oid = f"{entry.name}{file.name}" if below else ""
                found = self._stored(oid if _OID.fullmatch(oid) else "", Path(file.path))
                if found is None:
                    continue
                if found.oid and file.is_file(follow_symlinks=False):
                    objects[oid] = found
                elif file.name.startswith(_TEMPORARY) or file.name.endswith(".tmp"):
                    temporary.append(found)
                else:
                    foreign.append(found)
        return Listing(objects, tuple(temporary), tuple(foreign))

    def find(self, oid: str) -> Stored | None:
        found = self._stored(oid, self.path(oid))
        return found if found and self.path(oid).is_file() else None

    def path(self, oid: str) -> Path:
        return self.objects / oid[:2] / oid[2:]

    def _stored(self, oid: str, path: Path) -> Stored | None:
        try:
            info = path.lstat()
        except FileNotFoundError:
            return None
        return Stored(oid, info.st_size, info.st_mtime, stat.S_IMODE(info.st_mode), str(path))

    def blocks(self, path: str) -> Blocks:
        # A link leads elsewhere and a pipe never ends: neither is opened.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise OSError(errno.EINVAL, "no plain file")
            # What the kernel remembers of the file is not what the disk holds.
            os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
            buffer = memoryview(bytearray(_BLOCK))
            while count := os.readv(descriptor, [buffer]):
                yield buffer[:count]
        finally:
            os.close(descriptor)

    @contextlib.contextmanager
    def writing(self, oid: str) -> Iterator[tuple[Any, Callable[[], None]]]:
        """A temporary file and what makes it the object; without that call it goes away again."""
        target = self.path(oid)
        self.objects.mkdir(parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(prefix=_TEMPORARY, dir=self.objects)
        with os.fdopen(descriptor, "wb") as file:

            def keep() -> None:
                file.flush()
                os.fchmod(file.fileno(), _MODE)
                os.fsync(file.fileno())
                target.parent.mkdir(exist_ok=True)
                Path(temporary).replace(target)
                fsync_folder(target.parent)

            try:
                yield file, keep
            finally:
                Path(temporary).unlink(missing_ok=True)

    def put(self, oid: str, source: Path) -> None:
        with storing(self.name), self.writing(oid) as (file, keep):
            for block in self.blocks(str(source)):
                file.write(block)
            keep()

    def remove(self, path: str) -> None:
        with storing(self.name):
            Path(path).unlink(missing_ok=True)


class Elsewhere:
    """A DVC remote that is no folder, by way of its own file system library."""

    jobs = _REMOTE_JOBS

    def __init__(self, odb: Any, name: str) -> None:
        self._odb, self._fs, self.name = odb, odb.fs, name

    def list(self, named: Iterable[str]) -> Listing:
        with self._reaching():
            if not self._fs.CAN_TRAVERSE:
                found = [self._odb.oid_to_path(oid) for oid in named]
                there = [path for path, exists in zip(found, self._fs.exists(found), strict=True) if exists]
                return self._sort((path, {}) for path in there)
            self._fs.fs.invalidate_cache()
            try:
                return self._sort(self._fs.fs.find(self._odb.path, detail=True).items())
            except FileNotFoundError:
                return Listing({})

    def _sort(self, found: Iterable[tuple[str, dict[str, Any]]]) -> Listing:
        objects: dict[str, Stored] = {}
        foreign = []
        for path, info in found:
            try:
                oid = self._odb.path_to_oid(path)
            except ValueError:
                oid = ""
            size = info.get("size")
            item = Stored(oid, -1 if size is None else int(size), _modified(info), 0, path)
            if _OID.fullmatch(oid):
                objects[oid] = item
            else:
                foreign.append(item)
        return Listing(objects, (), tuple(foreign))

    def find(self, oid: str) -> Stored | None:
        path = self._odb.oid_to_path(oid)
        with self._reaching():
            return Stored(oid, -1, None, 0, path) if self._fs.exists(path) else None

    def blocks(self, path: str) -> Blocks:
        with self._reaching(), self._fs.open(path, mode="rb", block_size=_REMOTE_BLOCK) as file:
            while block := file.read(_BLOCK):
                yield memoryview(block)

    def put(self, oid: str, source: Path) -> None:
        with self._reaching():
            self._fs.put_file(str(source), self._odb.oid_to_path(oid))

    def remove(self, path: str) -> None:
        with self._reaching(), contextlib.suppress(FileNotFoundError):
            self._fs.fs.rm_file(path)

    @contextlib.contextmanager
    def _reaching(self) -> Iterator[None]:
        try:
            yield
        except (GitmodelError, FileNotFoundError, GeneratorExit):
            raise
        except Exception as error:  # any file system library may raise anything here
            reason = (str(error).splitlines() or [""])[0][:200] or type(error).__name__
            raise RemoteFailed(f"{self.name} failed ({reason})", hint="check that it can be reached and run again") from error
