"""Wires source, manager, loader and front ends into one process, and ends it in order."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import resource
import signal
import socket
import stat
import sys
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from functools import partial
from importlib.metadata import version
from pathlib import Path

import uvicorn
from msgspec import Struct

from gitmodel.endpoint import Endpoint, announce, socket_path
from gitmodel.errors import ExitCode, GitmodelError
from gitmodel.git import Repository
from gitmodel.serving.batching import Batcher
from gitmodel.serving.dataplane import Dataplane
from gitmodel.serving.guard import Guard, Notices
from gitmodel.serving.journal import Journal
from gitmodel.serving.last_good import LastGood
from gitmodel.serving.loader import Loader
from gitmodel.serving.manager import Manager
from gitmodel.serving.patience import end_the_slow
from gitmodel.serving.policy import VersionPolicy
from gitmodel.serving.prepacking import Prepacker
from gitmodel.serving.recording import Recorder, RecordingDataplane
from gitmodel.serving.rest import App
from gitmodel.serving.servable import VersionStatus
from gitmodel.serving.source import Source
from gitmodel.serving.traffic import Traffic
from gitmodel.signing import Verifier, read_secrets

_BACKLOG = 2048
#: Seconds that a connection may stay without a request.
_KEEP_ALIVE = 75
_SAME_AGAIN = 60.0
_SWITCH = 0.005
#: Threads for calls that are not run on the event loop: as many as run at once, or as may wait to be run together.
_RUNNING, _WAITING = 2, 64


class CannotListen(GitmodelError):
    """The address is not to be had."""

    code = "cannot-listen"
    exit_code = ExitCode.INCOMPLETE


class Settings(Struct, frozen=True):
    """``poll`` in seconds between looks at the refs without a hint; ``threads`` per call; ``max_body`` in bytes. ``record`` is a
    folder for every ``record_every``-th answered request, ``record_limit`` of each version at most. ``hosts`` are the names
    the server goes by: see ``Guard``. ``notify`` is HOST:PORT, where notices signed with a ``secret`` are taken. ``prepack``
    packs large weights beside the serving. ``batch_rows`` says, by model, how many rows of different calls are run together
    ('': of any model), ``batch_wait`` how many seconds a batch stays open. ``connections`` at a time; ``body_seconds`` for a
    client to send a body."""

    repo: Path
    models: Collection[str] = ()
    follow: str = "auto"
    host: str = "127.0.0.1"
    port: int = 8000
    admin: Path | None = None
    remote_url: str = ""
    store: Path | None = None
    poll: float = 5.0
    threads: int = 1
    max_body: int = 64 << 20
    record: Path | None = None
    record_every: int = 1
    record_limit: int = 256
    hosts: Collection[str] = ()
    notify: str = ""
    secret: Path | None = None
    connections: int = 1000
    prepack: bool = True
    batch_rows: Mapping[str, int] = {}
    batch_wait: float = 0.0
    body_seconds: float = 30.0


def serve(settings: Settings, journal: Journal) -> None:
    """Serves until SIGTERM or SIGINT, then lets what is in flight end.

    Raises NotARepository, CannotListen, CannotRecord, BadSecret.
    """
    logging.getLogger("uvicorn").addHandler(_Said(journal))
    keys = read_secrets(settings.secret) if settings.secret else ()
    repo = Repository.open(settings.repo)
    state_dir = repo.state_dir
    repo.close()
    loader = Loader(
        settings.repo, store=settings.store, remote_url=settings.remote_url, threads=settings.threads,
        batch_rows=settings.batch_rows, warned=journal.warned,
    )  # fmt: skip
    traffic = Traffic()

    def heard(status: VersionStatus) -> None:
        traffic.told(status)
        journal.told(status)

    packer = Prepacker(state_dir / "prepacked", threads=settings.threads, warned=journal.warned)
    manager = Manager(
        loader.load, heard, LastGood(state_dir / "serving.json"), packer.take if settings.prepack else None
    )
    packer.wake = manager.wake
    policy = VersionPolicy(settings.follow)
    source = Source(settings.repo, manager.aspire, models=settings.models, policy=policy, poll=settings.poll)
    recorder = _recorder(settings, journal.warned)
    kind = Dataplane if recorder is None else partial(RecordingDataplane, recorder)
    batcher = Batcher(settings.batch_wait) if settings.batch_rows else None
    dataplane = kind(lambda: manager.table, manager.statuses, batcher)
    with contextlib.ExitStack() as stack:
        if recorder is not None:
            stack.callback(recorder.stop)
        public = stack.enter_context(_listen(settings.host, settings.port))
        admin_path = settings.admin or socket_path(state_dir)
        sockets = [public, stack.enter_context(_listen_unix(admin_path))]
        notices = None
        if settings.notify:
            sockets.append(stack.enter_context(_listen_for_notices(settings.notify, public)))
            notices = Notices(sockets[-1].getsockname()[1], Verifier(keys))
        app = App(
            dataplane, manager, source, traffic=traffic, guard=Guard(settings.host, settings.hosts), notices=notices,
            journal=journal, version=version("gitmodel"), max_body=settings.max_body,
            crowded=lambda: len(server.server_state.connections) > settings.connections,
            threads=_WAITING if batcher else _RUNNING,
        )  # fmt: skip
        server = _Server(app, settings)
        # A signal asks, it never interrupts: an exception raised anywhere could be swallowed anywhere. uvicorn puts its own
        # handlers in these places while it runs, and raises the signal again when it has drained.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: setattr(server, "should_exit", True))
        endpoint = Endpoint(os.getpid(), f"http://{_named(public)}", str(admin_path))
        announced = announce(state_dir, endpoint)
        stack.callback(announced.unlink, missing_ok=True)
        manager.start()
        stack.callback(packer.stop)
        stack.callback(manager.stop)
        journal.started(settings.repo.resolve(), endpoint, source.missing())
        if notices is not None:
            journal.listening(f"http://{_named(sockets[-1])}")
        source.look()
        source.start()
        stack.callback(source.stop)
        _settle_down()
        server.run(sockets=sockets)


def _settle_down() -> None:
    """For a process that answers calls: what was imported is no garbage and is not searched for any, and the event loop keeps
    the interpreter for Python's usual time, though threads that load a model would like to have it sooner."""
    sys.setswitchinterval(_SWITCH)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # a descriptor per connection, and some for models
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    gc.collect()
    gc.freeze()


class _Said(logging.Handler):
    """What uvicorn logs, in the journal; the same words, which many clients may cause, once a minute."""

    def __init__(self, journal: Journal) -> None:
        super().__init__(logging.WARNING)
        self._journal, self._last = journal, ("", 0.0)

    def emit(self, record: logging.LogRecord) -> None:
        text, now = record.getMessage(), time.monotonic()
        if text != self._last[0] or now - self._last[1] > _SAME_AGAIN:
            self._last = (text, now)
            self._journal.warned(text)


class _Server(uvicorn.Server):
    """uvicorn, that lets nobody stay connected who asks nothing, sends for ever or never reads. Its own limit of connections
    would lock out who manages the server, too: the app and the watch see to that."""

    def __init__(self, app: App, settings: Settings) -> None:
        config = uvicorn.Config(
            app, loop="uvloop", http="httptools", ws="none", lifespan="off", log_config=None, log_level="warning",
            access_log=False, server_header=False, proxy_headers=False, timeout_keep_alive=_KEEP_ALIVE,
            timeout_graceful_shutdown=10,
        )  # fmt: skip
        super().__init__(config)
        self._body_seconds, self._most = settings.body_seconds, settings.connections

    async def main_loop(self) -> None:
        watch = end_the_slow(
            self.server_state.connections, silent=_KEEP_ALIVE, body=self._body_seconds, most=self._most
        )
        watching = asyncio.create_task(watch)
        try:
            await super().main_loop()
        finally:
            watching.cancel()


def _named(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _listen_for_notices(address: str, public: socket.socket) -> socket.socket:
    """On ``HOST:PORT``, another port than that for calls, by which the two are told apart. Raises CannotListen."""
    host, _, port = address.rpartition(":")
    if not host or not port.isascii() or not port.isdigit():
        raise CannotListen(f"'{address}' is no address", hint="such as --notify 10.0.0.5:8001")
    listener = _listen(host.strip("[]"), int(port), option="--notify")
    if listener.getsockname()[1] == public.getsockname()[1]:
        listener.close()
        raise CannotListen("calls and notices need ports of their own", hint="choose another with --notify")
    return listener


def _recorder(settings: Settings, warned: Callable[[str], None]) -> Recorder | None:
    """Raises CannotRecord."""
    if settings.record is None:
        return None
    return Recorder(settings.record, every=settings.record_every, limit=settings.record_limit, warned=warned)


def _listen(host: str, port: int, option: str = "--port") -> socket.socket:
    """A socket that accepts from now on: whoever reads where the server listens may connect at once."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(_BACKLOG)
    except (OSError, OverflowError) as error:
        listener.close()
        reason = getattr(error, "strerror", None) or str(error)
        raise CannotListen(
            f"cannot listen on {host}:{port} ({reason})", hint=f"choose another with {option} (0: any free one)"
        ) from error
    return listener


@contextlib.contextmanager
def _listen_unix(path: Path) -> Iterator[socket.socket]:
    """A socket only this user may open, made so before its name appears; removed at the end."""
    _make_way(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o177)
    try:
        listener.bind(str(path))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        reason = error.strerror or str(error)
        raise CannotListen(f"cannot listen on {path} ({reason})", hint="name another socket with --admin") from error
    finally:
        os.umask(mask)
    try:
        yield listener
    finally:
        listener.close()
        path.unlink(missing_ok=True)


def _make_way(path: Path) -> None:
    """Removes the socket of a server that is gone; anything else at that path is somebody's."""
    in_the_way = CannotListen(f"{path} is in the way", hint="name another socket with --admin")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not path.exists() and not path.is_symlink():
            return
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise in_the_way
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            probe.connect(str(path))
    except ConnectionRefusedError:
        path.unlink()
    except OSError as error:
        raise CannotListen(
            f"cannot use {path} ({error.strerror or error})", hint="name another socket with --admin"
        ) from error
    else:
        raise in_the_way
