"""Wires source, manager, loader and front ends into one process, and ends it in order."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import stat
from collections.abc import Callable, Collection, Iterator
from functools import partial
from importlib.metadata import version
from pathlib import Path

import uvicorn
from msgspec import Struct

from gitmodel.endpoint import Endpoint, announce, socket_path
from gitmodel.errors import ExitCode, GitmodelError
from gitmodel.git import Repository
from gitmodel.serving.dataplane import Dataplane
from gitmodel.serving.last_good import LastGood
from gitmodel.serving.loader import Loader
from gitmodel.serving.manager import Manager, Told
from gitmodel.serving.policy import VersionPolicy
from gitmodel.serving.recording import Recorder, RecordingDataplane
from gitmodel.serving.rest import App
from gitmodel.serving.servable import VersionStatus
from gitmodel.serving.source import Source
from gitmodel.serving.traffic import Traffic

_BACKLOG = 2048


class CannotListen(GitmodelError):
    """The address is not to be had."""

    code = "cannot-listen"
    exit_code = ExitCode.INCOMPLETE


class Settings(Struct, frozen=True):
    """``poll`` in seconds between looks at the refs without a hint; ``threads`` per call; ``max_body`` in bytes. ``record`` is a
    folder for every ``record_every``-th answered request, ``record_limit`` of each version at most."""

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


def serve(
    settings: Settings,
    *,
    started: Callable[[Endpoint, list[str]], None] = lambda *_: None,
    told: Told = lambda _: None,
    warned: Callable[[str], None] = lambda _: None,
) -> None:
    """Serves until SIGTERM or SIGINT, then lets what is in flight end. ``started`` is told where it listens, and which
    of the models asked for have no version yet; ``warned`` of what goes wrong beside the serving.

    Raises NotARepository, CannotListen, CannotRecord.
    """
    repo = Repository.open(settings.repo)
    state_dir = repo.state_dir
    repo.close()
    loader = Loader(settings.repo, store=settings.store, remote_url=settings.remote_url, threads=settings.threads)
    traffic = Traffic()

    def heard(status: VersionStatus) -> None:
        traffic.told(status)
        told(status)

    manager = Manager(loader.load, heard, LastGood(state_dir / "serving.json"))
    policy = VersionPolicy(settings.follow)
    source = Source(settings.repo, manager.aspire, models=settings.models, policy=policy, poll=settings.poll)
    recorder = _recorder(settings, warned)
    kind = Dataplane if recorder is None else partial(RecordingDataplane, recorder)
    dataplane = kind(lambda: manager.table, manager.statuses)
    app = App(dataplane, manager, source, traffic=traffic, version=version("gitmodel"), max_body=settings.max_body)
    config = uvicorn.Config(
        app, loop="uvloop", http="httptools", lifespan="off", log_level="warning", access_log=False, server_header=False,
        proxy_headers=False, timeout_keep_alive=75, timeout_graceful_shutdown=10,
    )  # fmt: skip
    server = uvicorn.Server(config)
    # A signal asks, it never interrupts: an exception raised anywhere could be swallowed anywhere. uvicorn puts its own
    # handlers in these places while it runs, and raises the signal again when it has drained.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: setattr(server, "should_exit", True))
    with contextlib.ExitStack() as stack:
        if recorder is not None:
            stack.callback(recorder.stop)
        public = stack.enter_context(_listen(settings.host, settings.port))
        host, port = public.getsockname()[:2]
        with_brackets = f"[{host}]" if ":" in host else host
        admin_path = settings.admin or socket_path(state_dir)
        admin = stack.enter_context(_listen_unix(admin_path))
        endpoint = Endpoint(os.getpid(), f"http://{with_brackets}:{port}", str(admin_path))
        announced = announce(state_dir, endpoint)
        stack.callback(announced.unlink, missing_ok=True)
        manager.start()
        stack.callback(manager.stop)
        started(endpoint, source.missing())
        source.look()
        source.start()
        stack.callback(source.stop)
        server.run(sockets=[public, admin])


def _recorder(settings: Settings, warned: Callable[[str], None]) -> Recorder | None:
    """Raises CannotRecord."""
    if settings.record is None:
        return None
    return Recorder(settings.record, every=settings.record_every, limit=settings.record_limit, warned=warned)


def _listen(host: str, port: int) -> socket.socket:
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
            f"cannot listen on {host}:{port} ({reason})", hint="choose another with --port (0: any free one)"
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
