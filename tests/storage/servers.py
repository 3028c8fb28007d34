"""Real servers of the kinds DVC speaks to, each a process of its own on loopback, and a wire to them that can be cut.

``python -m tests.storage.servers KIND FOLDER`` is one of them; it prints a line of JSON once it answers.
"""

from __future__ import annotations

import contextlib
import json
import select
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent.parent
USER, PASSWORD, BUCKET = "ada", "correct horse", "weights"
#: A folder of every server that nobody may write to.
READ_ONLY = "read-only"
#: Asks the kernel to end the process when its parent dies, then becomes the command (prctl(2), PR_SET_PDEATHSIG).
_WITH_PARENT = "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, 15); os.execv(sys.argv[1], sys.argv[1:])"


@dataclass(frozen=True)
class Server:
    """One that runs: where it listens, who may use it, and the folder it shows (not for S3, which has none)."""

    kind: str
    port: int
    user: str
    password: str
    folder: Path

    @classmethod
    @contextlib.contextmanager
    def running(cls, kind: str, folder: Path) -> Iterator[Server]:
        """The folder stands for a server of its own when the kind is ``folder``: DVC writes to it directly."""
        (folder / READ_ONLY).mkdir(parents=True)
        if kind == "folder":
            yield cls(kind, 0, "", "", folder)
            return
        command = [sys.executable, "-c", _WITH_PARENT, sys.executable, "-m", "tests.storage.servers", kind, str(folder)]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert process.stdout is not None
        with process.stdout as told:
            try:
                server = cls(kind=kind, folder=folder, **json.loads(told.readline()))
                yield server
                if "_client" in vars(server):
                    server._client.close()
            finally:
                process.terminate()
                process.wait()

    def url(self, place: str, port: int = 0) -> str:
        if self.kind == "folder":
            return str(self.folder / place)
        return f"s3://{BUCKET}/{place}" if self.kind == "s3" else f"{self.kind}://127.0.0.1:{port or self.port}/{place}"

    def config(self, place: str, *, port: int = 0, password: str | None = None, **options: Any) -> str:
        """DVC's configuration with this as the default remote, by way of another port, or with another password."""
        lines = {"url": self.url(place, port), **options}
        secret = self.password if password is None else password
        if self.kind == "s3":
            lines |= {"endpointurl": f"http://127.0.0.1:{port or self.port}", "region": "us-east-1"}
            lines |= {"access_key_id": self.user, "secret_access_key": secret}
        elif self.user:
            lines |= {"user": self.user, "password": secret}
            if self.kind == "http":
                lines["auth"] = "basic"
        written = "".join(f"    {key} = {value}\n" for key, value in lines.items())
        return f"[core]\n    remote = storage\n['remote \"storage\"']\n{written}"

    def make(self, place: str) -> None:
        """An empty place; WebDAV is used below a collection that exists."""
        if self.kind != "s3":
            (self.folder / place).mkdir(parents=True, exist_ok=True)

    def read(self, place: str, oid: str) -> bytes | None:
        """An object as the server has it."""
        if self.kind != "s3":
            path = self._path(place, oid)
            return path.read_bytes() if path.exists() else None
        try:
            return bytes(self._client.get_object(Bucket=BUCKET, Key=self._key(place, oid))["Body"].read())
        except self._client.exceptions.NoSuchKey:
            return None

    def write(self, place: str, oid: str, data: bytes) -> None:
        if self.kind != "s3":
            path = self._path(place, oid)
            path.unlink(missing_ok=True)
            path.write_bytes(data)
            return
        self._client.put_object(Bucket=BUCKET, Key=self._key(place, oid), Body=data)

    def _path(self, place: str, oid: str) -> Path:
        return self.folder / self._key(place, oid)

    def _key(self, place: str, oid: str) -> str:
        return f"{place}/files/md5/{oid[:2]}/{oid[2:]}"

    @cached_property
    def _client(self) -> Any:
        return _s3(f"http://127.0.0.1:{self.port}", self.user, self.password)


class Wire:
    """A relay to a port, on a port of its own. Cut, it resets what goes through it and whoever tries anew."""

    def __init__(self, target: int) -> None:
        self._target = target
        self._left: int | None = None
        self._lock = threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.port = int(self._listener.getsockname()[1])
        self.moved = 0
        self._silent, self.used_up = False, threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self.cut_after(0)
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def cut_after(self, size: int, *, silently: bool = False) -> None:
        """Cuts it once so many more bytes have gone through, both ways together; ``silently`` lets nothing through from
        then on and tells nobody."""
        with self._lock:
            self._left, self._silent = size, silently
            self.used_up.clear()

    def mend(self) -> None:
        with self._lock:
            self._left, self.moved = None, 0

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._relay, args=(near,), daemon=True).start()

    def _relay(self, near: socket.socket) -> None:
        with near, contextlib.suppress(OSError):
            if self._is_over():
                _reset(near)
                return
            with socket.create_connection(("127.0.0.1", self._target)) as far:
                others = {near: far, far: near}
                while True:
                    # Looks up now and then: another connection may have used up what was left.
                    ready, _, _ = select.select([near, far], [], [], 0.05)
                    for one in ready:
                        data = one.recv(1 << 14)
                        if not data:
                            return
                        data = data[: self._take(len(data))]
                        others[one].sendall(data)
                    if self._is_over():
                        _reset(near)
                        return

    def _is_over(self) -> bool:
        """Whether it is cut; keeps whoever asks while it is so silently."""
        while self._left == 0:
            self.used_up.set()
            if not self._silent:
                return True
            time.sleep(0.02)
        return False

    def _take(self, size: int) -> int:
        with self._lock:
            allowed = size if self._left is None else min(size, self._left)
            self.moved += allowed
            if self._left is not None:
                self._left -= allowed
            return allowed


@contextlib.contextmanager
def silence() -> Iterator[int]:
    """A port that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        yield int(listener.getsockname()[1])


def _reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


# What runs in a process of its own ----------------------------------------------------------------------------------


def _answer(port: int, user: str = USER, password: str = PASSWORD) -> None:
    sys.stdout.write(json.dumps({"port": port, "user": user, "password": password}) + "\n")
    sys.stdout.flush()


def _s3(endpoint: str, user: str, password: str, service: str = "s3") -> Any:
    import boto3

    return boto3.client(
        service, endpoint_url=endpoint, aws_access_key_id=user, aws_secret_access_key=password, region_name="us-east-1"
    )


def serve_s3(_: str) -> None:
    """moto's server, which from a point on asks for a key and a signature it knows."""
    from moto import settings
    from moto.moto_server.threaded_moto_server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    port = server.get_host_and_port()[1]
    endpoint = f"http://127.0.0.1:{port}"
    _s3(endpoint, "any", "any").create_bucket(Bucket=BUCKET)
    iam = _s3(endpoint, "any", "any", "iam")
    iam.create_user(UserName=USER)
    key = iam.create_access_key(UserName=USER)["AccessKey"]
    everything = {"Version": "2012-10-17", "Statement": [{"Effect": "Allow", "Action": "*", "Resource": "*"}]}
    iam.put_user_policy(UserName=USER, PolicyName="all", PolicyDocument=json.dumps(everything))
    settings.INITIAL_NO_AUTH_ACTION_COUNT = 0.0
    _answer(port, key["AccessKeyId"], key["SecretAccessKey"])
    threading.Event().wait()


def serve_ssh(folder: str) -> None:
    """asyncssh's own SFTP server."""
    import asyncio

    import asyncssh

    class Login(asyncssh.SSHServer):
        def password_auth_supported(self) -> bool:
            return True

        def validate_password(self, username: str, password: str) -> bool:
            return (username, password) == (USER, PASSWORD)

    class Files(asyncssh.SFTPServer):
        def mkdir(self, path: bytes, attrs: asyncssh.SFTPAttrs) -> Any:
            if READ_ONLY.encode() in path:
                raise asyncssh.SFTPPermissionDenied("this part may only be read")
            return super().mkdir(path, attrs)

    async def main() -> None:
        listening = await asyncssh.listen(
            "127.0.0.1", 0, server_factory=Login, server_host_keys=[asyncssh.generate_private_key("ssh-ed25519")],
            sftp_factory=lambda channel: Files(channel, chroot=folder.encode()),
        )  # fmt: skip
        _answer(listening.get_port())
        await asyncio.Event().wait()

    asyncio.run(main())


def serve_webdav(folder: str) -> None:
    from cheroot import wsgi
    from wsgidav.wsgidav_app import WsgiDAVApp

    read_only = {"root": f"{folder}/{READ_ONLY}", "readonly": True}
    app = WsgiDAVApp(
        {
            "provider_mapping": {"/": folder, f"/{READ_ONLY}": read_only},
            "simple_dc": {"user_mapping": {"*": {USER: {"password": PASSWORD}}}},
            "http_authenticator": {"accept_digest": False, "default_to_digest": False},
            "logging": {"enable": False},
        }
    )
    server = wsgi.Server(("127.0.0.1", 0), app, numthreads=8)
    server.prepare()
    _answer(server.bind_addr[1])
    server.serve()


def serve_http(folder: str) -> None:
    from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(SimpleHTTPRequestHandler, directory=folder))
    _answer(server.server_address[1], "", "")
    server.serve_forever()


if __name__ == "__main__":
    kinds: dict[str, Callable[[str], None]] = {
        "s3": serve_s3,
        "ssh": serve_ssh,
        "webdav": serve_webdav,
        "http": serve_http,
    }
    kinds[sys.argv[1]](sys.argv[2])
