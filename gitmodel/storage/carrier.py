"""Carries whole objects to and from one DVC remote: many at a time, and never waiting for ever.

An object never stands under its own name by half: the file systems of DVC see to that, and where one does not, this does.
What the bytes are is not looked at here.
"""

from __future__ import annotations

import contextlib
import copy
import logging
import os
import secrets
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol, TypeVar

from gitmodel.files import copy_range, fsync_folder

#: Called with how many bytes of one object have moved so far.
Told = Callable[[int], None]
Result = TypeVar("Result")

#: Seconds a remote has for its first answer, unless the user set its ``timeout`` or ``read_timeout`` in DVC. Over SSH, a
#: person may have to type a passphrase first.
_PATIENCE = {"ssh": 60.0}
_USUAL_PATIENCE = 30.0
#: Objects on their way at once, unless the user set ``jobs`` in DVC: whatever is halfway when the connection is cut has to
#: begin anew, so it is fewer than DVC's.
_JOBS = 8
#: DVC's settings, where the user has set none: the libraries' own would wait for minutes, over and over.
_OPTIONS: Mapping[str, Mapping[str, Any]] = {
    "s3": {"connect_timeout": 10, "read_timeout": 60},
    "http": {"connect_timeout": 10.0},
    "https": {"connect_timeout": 10.0},
}
#: What DVC has no settings for: how often S3's library tries again; that SSH notices when the other side is gone, and lends
#: nobody the user's keys (DVC's plugin forwards the agent to whatever host a repository names).
_ARGUMENTS: Mapping[str, Mapping[str, Any]] = {
    "s3": {"config_kwargs": {"retries": {"mode": "standard", "total_max_attempts": 3}}},
    "ssh": {"keepalive_interval": 15, "agent_forwarding": False},
}
#: What a file system's own calls take. S3's would read up to 100 MB into memory for each of the objects under way.
_PUT = {"s3": {"chunksize": 8 << 20, "max_concurrency": 2}}
_GET = {"s3": {"max_concurrency": 1}}
#: How many questions may be open at once: each is small, and what they cost is the way there and back.
_QUESTIONS = 16
#: Seconds those under way have for tidying up after an interrupt.
_GRACE = 1.0
_NOTHING: Mapping[str, Any] = MappingProxyType({})


def file_system(fs_class: Any, options: Mapping[str, Any]) -> Any:
    """DVC's file system for a remote, told to give up sooner than its library would by itself."""
    fs = fs_class(**{**_OPTIONS.get(fs_class.protocol, {}), **options})
    for name, value in copy.deepcopy(_ARGUMENTS.get(fs.protocol, {})).items():  # botocore writes into what it is given
        fs.fs_args[name] = {**value, **fs.fs_args.get(name, {})} if isinstance(value, dict) else value
    if fs.protocol.startswith("http"):
        logging.getLogger("aiohttp_retry").setLevel(logging.ERROR)  # it complains about how fsspec says good-bye
    return fs


def carrier_of(odb: Any, options: Mapping[str, Any]) -> Carrier:
    """How objects get to and from this ``ObjectDB`` of DVC's; ``options`` are what the user set for it."""
    if odb.fs.protocol == "local":
        return FolderCarrier(odb)
    patience = options.get("timeout") or options.get("read_timeout") or _PATIENCE.get(odb.fs.protocol, _USUAL_PATIENCE)
    return FileSystemCarrier(odb, float(patience), int(options.get("jobs") or min(odb.fs.jobs, _JOBS)))


class Carrier(Protocol):
    """The objects of one remote, by name."""

    def sizes(self, oids: Collection[str]) -> dict[str, int | None]:
        """The size in bytes of each that is there, None where the remote does not tell."""
        ...

    def get(self, oid: str, target: Path, told: Told) -> None:
        """Writes the object over the file ``target``."""
        ...

    def put(self, source: Path, oid: str, told: Told) -> None: ...

    def reached(self) -> bool:
        """Whether there is anything at all where the objects should be."""
        ...

    jobs: int


class FolderCarrier:
    """A remote that is a folder: copied inside the kernel, and on the disk before it has its name."""

    jobs = 2

    def __init__(self, odb: Any) -> None:
        self._odb = odb

    def _path(self, oid: str) -> Path:
        return Path(self._odb.oid_to_path(oid))

    def sizes(self, oids: Collection[str]) -> dict[str, int | None]:
        found: dict[str, int | None] = {}
        for oid in oids:
            with contextlib.suppress(FileNotFoundError):
                found[oid] = self._path(oid).stat().st_size
        return found

    def get(self, oid: str, target: Path, told: Told) -> None:
        told(_copy(self._path(oid), target))

    def put(self, source: Path, oid: str, told: Told) -> None:
        target = self._path(oid)
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = target.with_name(f".{secrets.token_hex(8)}.tmp")
        try:
            size = _copy(source, temporary)
            temporary.chmod(0o444)
            temporary.replace(target)
            fsync_folder(target.parent)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        told(size)

    def reached(self) -> bool:
        return Path(self._odb.path).is_dir()


class FileSystemCarrier:
    """Any other remote, through the file system DVC has for it."""

    def __init__(self, odb: Any, patience: float, jobs: int) -> None:
        self._odb, self._fs, self._patience, self.jobs = odb, odb.fs, patience, jobs
        self._kind = str(odb.fs.protocol)
        if self._kind.startswith("webdav"):
            weakref.finalize(self, lambda fs: fs.fs.client.http.close(), odb.fs)  # the other libraries do so themselves

    def sizes(self, oids: Collection[str]) -> dict[str, int | None]:
        if not oids:
            return {}
        # The first answer shows that there is somebody: later ones are left to the library's own patience.
        first, *others = oids
        found = {first: within(self._patience, lambda: self._size(first))}

        def ask(oid: str) -> None:
            found[oid] = self._size(oid)

        each(_QUESTIONS, [partial(ask, oid) for oid in others], threading.Event())
        return {oid: size for oid, size in found.items() if size is None or size >= 0}

    def _size(self, oid: str) -> int | None:
        """-1 when there is no such object."""
        try:
            info = self._fs.info(self._odb.oid_to_path(oid))
        except FileNotFoundError:
            return -1
        size = info.get("size")
        return -1 if info.get("type") == "directory" else None if size is None else int(size)

    def get(self, oid: str, target: Path, told: Told) -> None:
        self._fs.get_file(
            self._odb.oid_to_path(oid), str(target), callback=_callback(told), **_GET.get(self._kind, _NOTHING)
        )

    def put(self, source: Path, oid: str, told: Told) -> None:
        path, options = self._odb.oid_to_path(oid), {"callback": _callback(told), **_PUT.get(self._kind, _NOTHING)}
        if not self._kind.startswith("webdav"):
            self._fs.put_file(str(source), path, **options)
            return
        # A WebDAV server may keep what has come when the connection is cut.
        temporary = f"{path}.{secrets.token_hex(8)}.tmp"
        try:
            self._fs.put_file(str(source), temporary, **options)
            self._fs.fs.client.move(temporary, path, overwrite=True)
        except BaseException:
            with contextlib.suppress(Exception):
                self._fs.rm_file(temporary)
            raise

    def reached(self) -> bool:
        try:
            return bool(self._fs.exists(self._odb.path))
        except Exception:  # any file system library may raise anything here
            return False


def within(seconds: float, ask: Callable[[], Result]) -> Result:
    """What ``ask`` returns or raises; TimeoutError when it does neither in time. It is then left to itself."""
    answer: list[Result] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            answer.append(ask())
        except BaseException as error:
            failure.append(error)

    thread = threading.Thread(target=run, name="ask-first", daemon=True)
    thread.start()
    thread.join(seconds)
    if failure:
        raise failure[0]
    if not answer:
        raise TimeoutError(f"no answer within {seconds:.0f} seconds")
    return answer[0]


def each(jobs: int, tasks: Sequence[Callable[[], None]], stopped: threading.Event) -> None:
    """Runs them ``jobs`` at a time. After the first failure, which is raised, none is begun any more; those under way
    end, for what has nearly arrived is not thrown away. An interrupt sets ``stopped``, so that they give up, and waits for
    none that hangs."""
    waiting, failures = deque(tasks), deque[BaseException]()

    def work() -> None:
        while not failures and not stopped.is_set():
            try:
                task = waiting.popleft()
            except IndexError:
                return
            try:
                task()
            except BaseException as error:
                failures.append(error)

    # Threads of an executor would keep the process from ending.
    threads = [threading.Thread(target=work, name="carry", daemon=True) for _ in range(min(jobs, len(tasks)))]
    try:
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    except BaseException:
        stopped.set()
        until = time.monotonic() + _GRACE
        for thread in threads:
            if thread.is_alive():
                thread.join(max(0.0, until - time.monotonic()))
        raise
    if failures:
        raise failures[0]


def _copy(source: Path, target: Path) -> int:
    """Copies over ``target``, durably; returns the size."""
    with source.open("rb") as reader, target.open("wb") as writer:
        copy_range(reader.fileno(), writer.fileno())
        os.fsync(writer.fileno())
        return os.fstat(writer.fileno()).st_size


def _callback(told: Told) -> Any:
    from fsspec.callbacks import Callback

    class _Telling(Callback):  # type: ignore[misc]  # fsspec is untyped
        def call(self, *_: Any, **__: Any) -> None:
            told(self.value)

    return _Telling()
