"""Where servers of a repository listen for management, and how to speak to them: HTTP over a Unix socket of mode 0600, or
signed over the network."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import socket
import stat
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from msgspec import Struct
from msgspec.structs import asdict

from gitmodel.errors import ExitCode, GitmodelError
from gitmodel.signing import read_secrets, sign

_MAX_SOCKET_PATH = 100  # sun_path holds 108 bytes on Linux
_MAX_ANSWER = 16 << 20


class NoServer(GitmodelError):
    """Nobody answers."""

    code = "no-server"
    exit_code = ExitCode.INCOMPLETE


class Endpoint(Struct, frozen=True):
    """A running server: its process, its public URL and its management socket."""

    pid: int
    url: str
    admin: str


def socket_path(state_dir: Path) -> Path:
    """A new server's management socket: in the repository's own state, or, where that path is too long for a socket,
    in a private folder of the system's temporary one."""
    path = state_dir / "servers" / f"{os.getpid()}.sock"
    if len(os.fsencode(path)) <= _MAX_SOCKET_PATH:
        return path
    private = Path(tempfile.gettempdir()) / f"gitmodel-{os.getuid()}"
    private.mkdir(mode=0o700, exist_ok=True)
    found = private.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise NoServer(f"{private} is not private", hint="remove it, or name a socket with --admin")
    return private / f"{hashlib.sha256(os.fsencode(path)).hexdigest()[:16]}.sock"


def announce(state_dir: Path, endpoint: Endpoint) -> Path:
    """Lets hooks and ``gitmodel status`` find the server; returns the file to remove at the end."""
    folder = state_dir / "servers"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{endpoint.pid}.json"
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(asdict(endpoint)))
    temporary.replace(path)
    return path


def running(state_dir: Path) -> list[Endpoint]:
    """The servers announced here whose process lives; what a killed one left behind is swept away."""
    found = []
    for path in sorted((state_dir / "servers").glob("*.json")):
        try:
            endpoint = Endpoint(**json.loads(path.read_text()))
            os.kill(endpoint.pid, 0)
        except ProcessLookupError:
            for left in (path, Path(endpoint.admin)):
                with contextlib.suppress(OSError):
                    left.unlink()
        except PermissionError:
            found.append(endpoint)
        except (OSError, ValueError, TypeError, OverflowError):
            continue
        else:
            found.append(endpoint)
    return found


def request(admin: str, method: str, path: str, body: Any = None, *, timeout: float, secret: Path | None = None) -> Any:
    """Sends one management request and returns the JSON answer. ``admin`` is the path of a Unix socket, or a URL, for which
    the request is signed with ``secret``. ``timeout`` in seconds. Raises NoServer, BadSecret."""
    payload = b"" if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"}
    connection = _connection(admin, timeout)
    if not isinstance(connection, _UnixConnection):
        if secret is None:
            raise NoServer(
                f"{admin} wants signed requests, and git config gitmodel.secret names no file",
                hint="name the file of the secret: git config gitmodel.secret FILE",
            )
        headers |= sign(read_secrets(secret)[0], method, path, payload)
    try:
        connection.request(method, path, payload or None, headers)
        answer = connection.getresponse()
        value = json.loads(answer.read(_MAX_ANSWER) or b"null")
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = "no answer in time" if isinstance(error, TimeoutError) else str(error) or type(error).__name__
        raise NoServer(
            f"the server at {admin} does not answer ({reason})", hint="see 'gitmodel status'; is it running?"
        ) from error
    finally:
        connection.close()
    if answer.status >= 400:
        said = value.get("error", "") if isinstance(value, dict) else ""
        raise NoServer(f"the server refused ({answer.status}: {said})", hint="see the server's log")
    return value


def _connection(admin: str, timeout: float) -> http.client.HTTPConnection:
    """Raises NoServer."""
    if "://" not in admin:
        return _UnixConnection(admin, timeout)
    try:
        url = urlsplit(admin)
        kinds = {"http": http.client.HTTPConnection, "https": http.client.HTTPSConnection}
        kind: type[http.client.HTTPConnection] = kinds[url.scheme]
        if not url.hostname or url.path.strip("/") or url.query or "@" in url.netloc:
            raise ValueError
        return kind(url.hostname, url.port, timeout=timeout)
    except (KeyError, ValueError):
        raise NoServer(
            f"'{admin}' is no address of a server", hint="such as http://10.0.0.5:8001, or a socket's path"
        ) from None


class _UnixConnection(http.client.HTTPConnection):
    """http.client over a Unix socket; the standard library has everything but this."""

    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)
