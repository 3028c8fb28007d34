"""Sockets that a server listens on: ports for calls and for notices, and one for whoever manages it."""

from __future__ import annotations

import contextlib
import os
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

from gitmodel.errors import ExitCode, GitmodelError

BACKLOG = 2048


class CannotListen(GitmodelError):
    """The address is not to be had."""

    code = "cannot-listen"
    exit_code = ExitCode.INCOMPLETE


def named(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def listen_for_notices(address: str, public: socket.socket) -> socket.socket:
    """On ``HOST:PORT``, another port than that for calls, by which the two are told apart. Raises CannotListen."""
    host, _, port = address.rpartition(":")
    if not host or not port.isascii() or not port.isdigit():
        raise CannotListen(f"'{address}' is no address", hint="such as --notify 10.0.0.5:8001")
    listener = listen(host.strip("[]"), int(port), option="--notify")
    if listener.getsockname()[1] == public.getsockname()[1]:
        listener.close()
        raise CannotListen("calls and notices need ports of their own", hint="choose another with --notify")
    return listener


def listen(host: str, port: int, option: str = "--port") -> socket.socket:
    """A socket that accepts from now on: whoever reads where the server listens may connect at once."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except (OSError, OverflowError) as error:
        listener.close()
        reason = getattr(error, "strerror", None) or str(error)
        raise CannotListen(
            f"cannot listen on {host}:{port} ({reason})", hint=f"choose another with {option} (0: any free one)"
        ) from error
    return listener


@contextlib.contextmanager
def listen_unix(path: Path) -> Iterator[socket.socket]:
    """A socket only this user may open, made so before its name appears; removed at the end."""
    _make_way(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    mask = os.umask(0o177)
    try:
        listener.bind(str(path))
        listener.listen(BACKLOG)
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
