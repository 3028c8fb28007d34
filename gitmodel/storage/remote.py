"""DVC remotes of any kind: what is missing there is sent, what is missing here is brought, and nothing that arrives has a
name in the cache before its size, sha256 and md5 are right."""

from __future__ import annotations

import errno
import hashlib
import os
import re
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from gitmodel.bundle.lock import FileEntry
from gitmodel.errors import ExitCode, GitmodelError
from gitmodel.files import fsync_folder
from gitmodel.storage.cache import Cache
from gitmodel.storage.carrier import Carrier, Told, carrier_of, each, file_system

#: What only the cache's own disk answers while something is brought.
_HERE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG}
_REFUSED = re.compile(
    r"\b40[13]\b|denied|forbidden|unauthori[sz]ed|credentials|InvalidAccessKey|SignatureDoesNotMatch", re.I
)
_TAKES_NONE = re.compile(r"\b(?:405|501)\b")
#: DVC's plugins that pyproject.toml has an extra for.
_EXTRAS = {"s3", "gs", "azure", "ssh", "webdav"}
_BLOCK = 1 << 20
#: What a configuration calls a remote that was given as a URL; messages call it by that.
BY_URL = "named-by-its-url"


class Progress(Protocol):
    """Called with files done, files in all, bytes done, bytes in all (where bytes are counted); never by two threads at
    once."""

    def __call__(self, done: int, total: int, moved: int = 0, size: int = 0, /) -> None: ...


class NoRemote(GitmodelError):
    """No place to send weights to or bring them from."""

    code = "no-remote"


class NoRemoteSet(NoRemote):
    """DVC's configuration names no remote."""


class RemoteFailed(GitmodelError):
    """The remote cannot be reached, or lacks what is asked of it."""

    code = "remote-failed"
    exit_code = ExitCode.INCOMPLETE


class Remote:
    """A DVC remote by name; without one, the default. ``config`` is what ``settings`` gives."""

    def __init__(self, config: Any, name: str = "") -> None:
        section = name or config["core"].get("remote", "")
        if not section:
            raise NoRemoteSet(
                "no DVC remote is set", hint="run 'gitmodel init --remote URL' (or 'dvc remote add -d NAME URL')"
            )
        self._is_default = section == config["core"].get("remote")
        self.name = _without_password(str(config["remote"][BY_URL]["url"])) if section == BY_URL else section
        self._odb, self._carrier = _open(config, section, self.name)
        self.url = _without_password(str(config["remote"][section.lower()]["url"]))
        self._label = f"the remote '{self.name}'" + (f" ({self.url})" if self.name != self.url else "")

    def lacks(self, entries: Sequence[FileEntry]) -> list[FileEntry]:
        """The entries whose objects are not there, or not whole. Raises RemoteFailed."""
        there = self._sizes(entries)
        return [entry for entry in entries if there.get(entry.md5, -1) not in (None, entry.size)]

    def push(
        self,
        cache: Cache,
        files: Sequence[FileEntry],
        listings: Sequence[FileEntry] = (),
        progress: Progress | None = None,
    ) -> None:
        """Sends these objects of the cache; listings of folders go when all files have arrived. Raises RemoteFailed."""
        tally = _Tally([*files, *listings], progress)
        for entries in (_distinct(files), _distinct(listings)):
            self._carry(entries, lambda entry, told: self._carrier.put(cache.path(entry.md5), entry.md5, told), tally)

    def pull(self, cache: Cache, entries: Sequence[FileEntry], progress: Progress | None = None) -> int:
        """Brings what the cache lacks and returns how many objects that were.

        Raises RemoteFailed, and StorageFailed when there is no room here. What arrived whole before that stays.
        """
        wanted = _distinct([entry for entry in entries if not cache.has(entry)])
        if not wanted:
            return 0
        there = self._sizes(wanted)
        for entry in wanted:
            if there.get(entry.md5, -1) not in (None, entry.size):
                raise self._missing(entry)
        self._carry(wanted, partial(self._receive, cache), _Tally(wanted, progress))
        fsync_folder(cache.objects)
        return len(wanted)

    def _sizes(self, entries: Sequence[FileEntry]) -> dict[str, int | None]:
        try:
            return self._carrier.sizes(list({entry.md5 for entry in entries}))
        except Exception as error:  # any file system library may raise anything here
            raise self._failed(error) from error

    def _carry(self, entries: Sequence[FileEntry], carry: Callable[[FileEntry, Told], None], tally: _Tally) -> None:
        def one(entry: FileEntry) -> None:
            carry(entry, tally.told(entry))
            tally.done(entry)

        try:
            each(self._carrier.jobs, [partial(one, entry) for entry in entries], tally.stopped)
        except GitmodelError:
            raise
        except Exception as error:
            raise self._failed(error) from error

    def _receive(self, cache: Cache, entry: FileEntry, told: Told) -> None:
        with cache.aside() as (_, temporary):
            try:
                self._carrier.get(entry.md5, temporary, told)
            except OSError as error:
                if error.errno in _HERE:
                    raise
                raise self._failed(error) from error
            if _identity(temporary) != (entry.size, entry.sha256, entry.md5):
                raise self._wrong(entry)
            temporary.chmod(0o444)
            descriptor = os.open(temporary, os.O_RDONLY)
            try:
                os.fsync(descriptor)
                target = cache.path(entry.md5)
                target.parent.mkdir(exist_ok=True)
                temporary.replace(target)
                cache.digests.note(os.fstat(descriptor), entry.sha256)
            finally:
                os.close(descriptor)
            fsync_folder(target.parent)

    def _missing(self, entry: FileEntry) -> RemoteFailed:
        if not self._carrier.reached():
            return RemoteFailed(
                f"{self._label} cannot be reached, or holds nothing",
                hint="check the URL and the way there; 'gitmodel push' where the model was saved fills it",
            )
        return RemoteFailed(
            f"{self._label} does not have {entry.path}, or not whole",
            hint="run 'gitmodel push' where it was saved",
        )

    def _wrong(self, entry: FileEntry) -> RemoteFailed:
        which = "" if self._is_default and self.name != self.url else f"-name {self.name}"
        return RemoteFailed(
            f"{self._label} has other bytes for {entry.path} than weights.lock says",
            hint=f"run 'gitmodel fsck --remote{which} --repair' where it was saved",
        )

    def _failed(self, error: Exception) -> RemoteFailed:
        reason = (str(error).strip().splitlines() or [""])[0][:200] or type(error).__name__
        hint = "check that it can be reached and run again: what arrived stays"
        if isinstance(error, EOFError):
            reason, hint = "it asks for a password, and nobody is there to type one", "set one with 'dvc remote modify'"
        elif isinstance(error, PermissionError) or _REFUSED.search(reason):
            hint = "check the credentials DVC has for it, and the rights there"
        elif isinstance(error, FileNotFoundError):
            hint = "make the bucket or folder it names"
        elif _TAKES_NONE.search(reason):
            hint = "it takes no uploads: name another with --remote"
        elif isinstance(error, OSError) and error.errno in _HERE:
            hint = "make room or rights there and run again: what arrived stays"
        return RemoteFailed(f"{self._label} failed ({reason})", hint=hint)


@dataclass
class _Tally:
    """Counts what many threads move. ``stopped`` makes those under way give up."""

    entries: Sequence[FileEntry]
    progress: Progress | None

    def __post_init__(self) -> None:
        self.stopped = threading.Event()
        self._lock = threading.Lock()
        self._bytes: dict[str, int] = {}
        self._done = self._moved = 0
        distinct = _distinct(self.entries)
        self._all = (len(distinct), sum(entry.size for entry in distinct))
        self._report()

    def told(self, entry: FileEntry) -> Told:
        def told(size: int) -> None:
            if self.stopped.is_set():
                raise InterruptedError("stopped")
            self._count(entry, min(size, entry.size))

        return told

    def done(self, entry: FileEntry) -> None:
        self._count(entry, entry.size, 1)

    def _count(self, entry: FileEntry, size: int, done: int = 0) -> None:
        with self._lock:
            self._moved += size - self._bytes.get(entry.md5, 0)
            self._bytes[entry.md5] = size
            self._done += done
            self._report()

    def _report(self) -> None:
        if self.progress is not None:
            self.progress(self._done, self._all[0], self._moved, self._all[1])


def _distinct(entries: Sequence[FileEntry]) -> list[FileEntry]:
    return list({entry.md5: entry for entry in entries}.values())


def _open(config: Any, section: str, name: str) -> tuple[Any, Carrier]:
    from dvc.config import ConfigError
    from dvc.fs import get_cloud_fs
    from dvc_data.hashfile.db import get_odb
    from dvc_objects.fs.errors import AuthError, RemoteMissingDepsError
    from dvc_objects.fs.errors import ConfigError as WrongOptions

    try:
        fs_class, options, path = get_cloud_fs(config, name=section)
        if options.get("version_aware") or options.get("worktree"):
            raise NoRemote(
                f"the remote '{name}' keeps versions in the cloud's own way (version_aware or worktree)",
                hint="name one without: weights are addressed by their content",
            )
        fs = file_system(fs_class, options)
        odb = get_odb(fs, fs.join(path, "files", "md5"), hash_name="md5", **options)
        return odb, carrier_of(odb, options)
    except (ConfigError, WrongOptions, AuthError, KeyError) as error:
        raise NoRemote(
            f"DVC knows no usable remote '{name}' ({error})", hint="'dvc remote list' shows what there is"
        ) from error
    except (RemoteMissingDepsError, ImportError) as error:
        kind = urlsplit(config["remote"][section.lower()]["url"]).scheme.replace("webdavs", "webdav")
        raise NoRemote(
            f"the remote '{name}' needs a plugin ({error})",
            hint=f"run: pip install 'gitmodel[{kind}]'" if kind in _EXTRAS else "install it",
        ) from error


def _identity(path: Path) -> tuple[int, str, str]:
    """(size, sha256, md5) of a file, read once."""
    sha256, md5 = hashlib.sha256(), hashlib.md5(usedforsecurity=False)
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            sha256.update(block)
            md5.update(block)
        return file.tell(), sha256.hexdigest(), md5.hexdigest()


def _without_password(url: str) -> str:
    password = urlsplit(url).password if "://" in url else ""
    return url.replace(f":{password}@", "@", 1) if password else url
