"""Places with stored objects in DVC's layout, a folder or any remote: listed file by file, read, written, cleared.

No library's opinion is asked here: DVC trusts an object of mode 0444 for its mode.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from pathlib import Path
from typing import IO, Any, Protocol

from msgspec import Struct
from msgspec.structs import replace

from gitmodel.errors import GitmodelError
from gitmodel.files import StorageFailed, aside, fsync_folder, storing
from gitmodel.storage import setup
from gitmodel.storage.remote import Remote

_BLOCK = 1 << 20
_MODE = 0o444
_TEMPORARY = "tmp-gitmodel-"
_NOBODY = "0" * 32
_OID = re.compile(r"[0-9a-f]{32}(\.dir)?")
#: At most so many at once from a remote, each with a buffer of its own.
_REMOTE_JOBS, _REMOTE_BLOCK = 8, 4 << 20

Blocks = Iterator[memoryview]


class NoCache(GitmodelError):
    """A folder was named as one with stored objects, and holds none."""

    code = "no-cache"


class Stored(Struct, frozen=True):
    """A file of a place: its object's name ('' for what is no object), ``size`` in bytes (-1: unknown), when it was written
    (seconds; None: unknown), its permission bits (0: it has none) and where it is."""

    oid: str
    size: int
    modified: float | None
    mode: int
    path: str


class Listing(Struct, frozen=True):
    """All files of a place: objects by name, half-written ones, and those that have no business there."""

    objects: dict[str, Stored]
    temporary: tuple[Stored, ...] = ()
    foreign: tuple[Stored, ...] = ()


class Depot(Protocol):
    """A place with objects in DVC's layout. ``name`` is how messages call it, ``jobs`` how many objects to read at once,
    ``lists_all`` whether it tells all that it holds."""

    name: str
    jobs: int
    lists_all: bool

    def contents(self, named: Iterable[str]) -> Listing:
        """All that is there; a place that cannot be listed is asked for ``named`` alone. Raises RemoteFailed."""
        ...

    def find(self, oid: str) -> Stored | None:
        """One object, if it is there. Raises RemoteFailed."""
        ...

    def blocks(self, path: str) -> Blocks:
        """The bytes of a file; a block is good until the next one. Raises FileNotFoundError, OSError, RemoteFailed."""
        ...

    def put(self, oid: str, source: Path) -> None:
        """Puts the bytes of a local file under a name, over what is there. Raises StorageFailed, RemoteFailed."""
        ...

    def remove(self, path: str) -> None:
        """Removes a file; one that is gone already is no error. Raises StorageFailed, RemoteFailed."""
        ...


class Folder:
    """A local folder of objects: a cache, or a remote that is a folder."""

    jobs, lists_all = 2, True

    def __init__(self, objects: Path, name: str) -> None:
        self.objects, self.name = objects, name

    def contents(self, named: Iterable[str] = ()) -> Listing:  # noqa: ARG002  # the contract's
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
    def writing(self, oid: str) -> Iterator[tuple[IO[bytes], Callable[[], None]]]:
        """A temporary file and what makes it the object; without that call it goes away again."""
        target = self.path(oid)
        self.objects.mkdir(parents=True, exist_ok=True)
        with (
            aside(self.objects, _TEMPORARY) as (descriptor, temporary),
            os.fdopen(descriptor, "wb", closefd=False) as file,
        ):

            def keep() -> None:
                file.flush()
                os.fchmod(file.fileno(), _MODE)
                os.fsync(file.fileno())
                target.parent.mkdir(exist_ok=True)
                temporary.replace(target)
                fsync_folder(target.parent)

            yield file, keep

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

    def __init__(self, remote: Remote) -> None:
        self._remote, self._odb, self._carrier = remote, remote._odb, remote._carrier
        self._fs = remote._odb.fs
        self.name = f"the remote '{remote.name}'"
        self.jobs, self.lists_all = min(self._carrier.jobs, _REMOTE_JOBS), bool(self._fs.CAN_TRAVERSE)

    def contents(self, named: Iterable[str]) -> Listing:
        with self._reaching():
            if not self.lists_all:
                there = self._carrier.sizes(list(named))
                return Listing({oid: self._stored(oid, {"size": size}) for oid, size in there.items()})
            self._carrier.sizes([_NOBODY])  # which waits for a first answer, and not for ever
            self._fs.fs.invalidate_cache()
            try:
                found = self._fs.fs.find(self._odb.path, detail=True)
            except FileNotFoundError:
                found = {}
            return self._sorted(found)

    def _sorted(self, found: dict[str, dict[str, Any]]) -> Listing:
        objects: dict[str, Stored] = {}
        foreign, root = [], self._odb.path.strip("/").split("/")
        for path, info in found.items():
            parts = path.strip("/").split("/")
            *base, folder, name = parts if len(parts) > 1 else ["", *parts]
            if base == root and len(folder) == 2 and _OID.fullmatch(folder + name):
                objects[folder + name] = self._stored(folder + name, info)
            else:
                foreign.append(replace(self._stored("", info), path=path))
        return Listing(objects, (), tuple(foreign))

    def _stored(self, oid: str, info: dict[str, Any]) -> Stored:
        size = info.get("size")
        return Stored(
            oid, -1 if size is None else int(size), _modified(info), 0, self._odb.oid_to_path(oid) if oid else ""
        )

    def find(self, oid: str) -> Stored | None:
        with self._reaching():
            there = self._carrier.sizes([oid])
        return self._stored(oid, {"size": there[oid]}) if oid in there else None

    def blocks(self, path: str) -> Blocks:
        with self._reaching(), self._fs.open(path, mode="rb", block_size=_REMOTE_BLOCK) as file:
            while block := file.read(_BLOCK):
                yield memoryview(block)

    def put(self, oid: str, source: Path) -> None:
        with self._reaching():
            self._carrier.put(source, oid, lambda _: None)

    def remove(self, path: str) -> None:
        with self._reaching(), contextlib.suppress(FileNotFoundError):
            self._fs.fs.rm_file(path)

    @contextlib.contextmanager
    def _reaching(self) -> Iterator[None]:
        try:
            yield
        except (GitmodelError, FileNotFoundError):
            raise
        except Exception as error:  # any file system library may raise anything here
            raise self._remote._failed(error) from error


def folder_at(path: Path) -> Folder:
    """The objects of another place on this machine: a clone with its cache, a cache, a remote that is a folder. Raises
    NoCache."""
    cache = setup.open_cache(path).root if setup.is_initialised(path) else path
    for objects in (cache / "files" / "md5", cache):
        if objects.parts[-2:] == ("files", "md5") and objects.is_dir():
            return Folder(objects, str(path))
    raise NoCache(f"{path} has no stored objects", hint="name a clone, a DVC cache or a folder that is a DVC remote")


def depot_of(remote: Remote) -> Depot:
    """The objects of a remote. A folder is read as one: DVC itself removes there what it takes for damaged."""
    if remote._odb.fs.protocol == "local":
        return Folder(Path(remote._odb.path), f"the remote '{remote.name}'")
    return Elsewhere(remote)


def _scan(folder: Path) -> list[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise StorageFailed(f"cannot read {folder} ({error.strerror})", hint="you need the right to read it") from error


def _modified(info: dict[str, Any]) -> float | None:
    """When a file was written, by whatever name its file system library has for that."""
    for key in ("mtime", "LastModified", "last_modified", "modified", "updated"):
        if isinstance(when := info.get(key), datetime):
            return when.timestamp()
        if isinstance(when, int | float):
            return float(when)
    return None
