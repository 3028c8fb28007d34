"""A production to test against: an author's repository, a bare one, a DVC remote folder, and real servers over them."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from gitmodel import endpoint
from gitmodel.serving.fetching import Fetcher
from gitmodel.serving.opening import Opener
from gitmodel.serving.policy import AspiredVersion
from gitmodel.serving.servable import Servable
from gitmodel.workflows import init, save, transfer
from tests import support

PATIENCE = 120.0
#: Far longer than any test, so that what a test sees came from a hint and not from a look that happened to be due.
NEVER = "3600"
#: Asks the kernel to end the process when its parent dies, then becomes the command (prctl(2), PR_SET_PDEATHSIG): a test
#: run that is killed leaves no server behind.
_WITH_PARENT = "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, 15); os.execv(sys.argv[1], sys.argv[1:])"
_STARTED = re.compile(r"serving .* on (?P<url>http://\S+) \(management: (?P<admin>.+), pid (?P<pid>\d+)\)")
_JSON_STARTED = re.compile(r'.*"started".*"url": "(?P<url>[^"]+)", "admin": "(?P<admin>[^"]+)", "pid": (?P<pid>\d+)}')


@dataclass(frozen=True)
class Production:
    """``author`` is a working model repository, ``bare`` the one it pushes to, ``storage`` their DVC remote."""

    author: Path
    bare: Path
    storage: Path

    @classmethod
    def make(cls, folder: Path) -> Production:
        place = cls(folder / "author", folder / "prod.git", folder / "storage")
        subprocess.run(["git", "init", "-q", str(place.author)], check=True)
        subprocess.run(["git", "init", "-q", "--bare", str(place.bare)], check=True)
        place.storage.mkdir()
        init.init(place.author, remote=str(place.storage))
        support.git(place.author, "commit", "-qm", "Set up")
        support.git(place.author, "remote", "add", "production", str(place.bare))
        return place

    def save(
        self,
        model: onnx.ModelProto,
        name: str = "fraud",
        *,
        golden: Mapping[str, np.ndarray] | None = None,
        labels: Path | None = None,
    ) -> str:
        """Saves and commits a model, sends its weights to the remote, returns the commit."""
        path = self.author.parent / f"{name}.onnx"
        path.write_bytes(model.SerializeToString())
        cases = None
        if golden is not None:
            cases = self.author.parent / "cases.npz"
            np.savez(cases, **golden)  # type: ignore[arg-type]  # numpy's stub takes the names for its own options
        save.save(name, [path], repo=self.author, message=f"Change {name}", golden=cases, labels=labels)
        transfer.push([name], repo=self.author)
        return support.git(self.author, "rev-parse", "HEAD")

    def tag(self, name: str, commit: str = "HEAD") -> str:
        support.git(self.author, "tag", "-a", "-m", name, "--", name, commit)
        return name

    def release(
        self, tag: str, *, scale: float = 1.0, model: onnx.ModelProto | None = None, broken: bool = False
    ) -> str:
        """A version of a linear model with 4 golden cases, which fail when it is ``broken``; returns the tag."""
        golden: dict[str, np.ndarray] = {"x": rows(4)}
        if broken:
            golden["scores"] = np.full((4, 3), 7, "float32")
        self.save(model or support.linear_model(scale=scale), tag.partition("@")[0], golden=golden)
        return self.tag(tag)

    def push(self, *refs: str) -> str:
        """Pushes the branch and these refs; returns what the pusher reads."""
        done = self.try_push(*refs)
        assert done.returncode == 0, done.stderr
        return done.stderr

    def try_push(self, *refs: str) -> subprocess.CompletedProcess[str]:
        command = ["git", "-C", str(self.author), "push", "--porcelain", "production", "HEAD", *refs]
        return subprocess.run(command, capture_output=True, text=True, check=False)

    def lose_remote(self) -> None:
        shutil.rmtree(self.storage)


@dataclass(frozen=True)
class Loader:
    """Does in this process what a server and one of its workers do between them."""

    fetcher: Fetcher
    opener: Opener = field(default_factory=Opener)

    def load(self, wanted: AspiredVersion) -> Servable:
        return self.opener.open(self.fetcher.fetch(wanted))


def rows(count: int, seed: int = 2) -> np.ndarray:
    """Inputs of a linear model."""
    return np.random.default_rng(seed).normal(size=(count, 4)).astype("float32")


def expected(production: Production, *, scale: float) -> np.ndarray:
    """What a released version of this scale gives for ``rows(2)``."""
    from gitmodel import runtime

    path = production.author.parent / "expected.onnx"
    path.write_bytes(support.linear_model(scale=scale).SerializeToString())
    return runtime.open_session(path).run({"x": rows(2)})["scores"]


def said(pushed: str, *, waiting: bool = False) -> list[str]:
    """gitmodel's own lines in what a pusher read; those that tell that it goes on, as on a busy machine, with ``waiting``."""
    found = (re.match(r"remote: gitmodel: (.*)", line) for line in pushed.splitlines())
    lines = [match[1].rstrip() for match in found if match]
    return lines if waiting else [line for line in lines if not line.startswith("waiting for ")]


@dataclass(frozen=True)
class Answer:
    """What came back. Header names are in small letters."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> str:
        """The text of an error, which is all an error's body has."""
        assert self.headers["content-type"] == "application/json"
        value = self.json
        assert list(value) == ["error"]
        assert isinstance(value["error"], str)
        assert value["error"]
        return str(value["error"])

    @property
    def who(self) -> tuple[str | None, str | None, str | None]:
        """Version, commit and weights that the headers name."""
        return tuple(self.headers.get(f"gitmodel-{key}") for key in ("version", "commit", "weights"))  # type: ignore[return-value]  # three keys


@dataclass
class Server:
    """A ``gitmodel serve`` in a process of its own."""

    process: subprocess.Popen[str]
    lines: list[str] = field(default_factory=list)
    url: str = ""
    admin: str = ""
    pid: int = 0

    def __post_init__(self) -> None:
        self._heard = threading.Condition()
        self._ended = self._ending = False
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            with self._heard:
                self.lines.append(line.rstrip("\n"))
                self._heard.notify_all()
        with self._heard:
            self._ended = True
            self._heard.notify_all()

    def wait_for(self, fits: Callable[[str], object]) -> str:
        """The first line the server writes, or has written, that ``fits``."""

        def found() -> str | None:
            return next((line for line in self.lines if fits(line)), None)

        with self._heard:
            self._heard.wait_for(lambda: found() or self._ended, PATIENCE)
            line = found()
        assert line is not None, "\n".join(["the server said only:", *self.lines])
        return line

    @property
    def address(self) -> tuple[str, int]:
        host, _, port = self.url.removeprefix("http://").rpartition(":")
        return host.strip("[]"), int(port)

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(*self.address, timeout=PATIENCE)

    def ask(
        self, method: str, path: str, body: Any = None, *, headers: Mapping[str, str] | None = None, length: int = -1
    ) -> Answer:
        """One request on a connection of its own; ``length`` is the Inference-Header-Content-Length."""
        with contextlib.closing(self.connect()) as connection:
            return ask(connection, method, path, body, headers=headers, length=length)

    def look(self, model: str = "any", wait: float = PATIENCE) -> Any:
        """Makes the server look at the refs and waits until it has dealt with them."""
        path = f"/v2/repository/models/{model}/load"
        return endpoint.request(self.admin, "POST", path, {"parameters": {"wait": wait}}, timeout=wait + 10)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Ends this very process, once; returns its exit code."""
        if self.process.poll() is None and not self._ending:
            self._ending = True
            self.process.send_signal(number)
        return self._reap()

    def kill(self) -> int:
        """SIGKILL: the server has no chance to clean up."""
        self.process.kill()
        return self._reap()

    def _reap(self) -> int:
        try:
            code = self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        self._reader.join(PATIENCE)
        if self.process.stderr is not None:
            self.process.stderr.close()
        return code


def ask(
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    body: Any = None,
    *,
    headers: Mapping[str, str] | None = None,
    length: int = -1,
) -> Answer:
    """One request on a connection that stays open. What is no bytes goes as JSON."""
    data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
    sent = dict(headers or {}) | ({"Inference-Header-Content-Length": str(length)} if length >= 0 else {})
    connection.request(method, path, data, sent)
    answer = connection.getresponse()
    return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())


def read_request(connection: socket.socket) -> bytes:
    """A whole HTTP request, head and body, as a stand-in for a server receives it."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += _some(connection)
    head, _, body = data.partition(b"\r\n\r\n")
    length = re.search(rb"(?i)content-length: (\d+)", head)
    while len(body) < (int(length[1]) if length else 0):
        body += _some(connection)
    return head + b"\r\n\r\n" + body


def _some(connection: socket.socket) -> bytes:
    data = connection.recv(65536)
    if not data:
        raise ConnectionError("the client went away")
    return data


def start(repo: Path, *options: str, json_log: bool = False) -> Server:
    """Starts ``gitmodel serve`` and waits for the line with its URL."""
    command = [sys.executable, "-S", "-c", _WITH_PARENT]
    command += [str(support.BIN / "gitmodel"), "serve", "--repo", str(repo), *options]
    for name, value in (("--port", "0"), ("--poll", NEVER)):
        command += [] if name in options else [name, value]
    server = Server(subprocess.Popen(command, stderr=subprocess.PIPE, text=True))
    try:
        started = _JSON_STARTED if json_log else _STARTED
        match = started.fullmatch(server.wait_for(started.fullmatch))
        assert match is not None
        server.url, server.admin, server.pid = match["url"], match["admin"], int(match["pid"])
    except BaseException:
        server.kill()
        raise
    return server


@contextlib.contextmanager
def serving(repo: Path, *options: str) -> Iterator[Server]:
    """A server that has dealt with the refs as they are, ended by its process id."""
    server = start(repo, *options)
    try:
        server.look()
        yield server
    finally:
        server.stop()


def until(fits: Callable[[], object]) -> None:
    """Waits for what tells nobody that it happened, such as a file of another process."""
    pause, deadline = threading.Event(), time.monotonic() + PATIENCE
    while not fits():
        assert time.monotonic() < deadline
        pause.wait(0.01)


def infer(values: np.ndarray, name: str = "x", datatype: str = "FP32", **more: Any) -> dict[str, Any]:
    """A call with one input in JSON."""
    tensor = {"name": name, "shape": list(values.shape), "datatype": datatype, "data": values.reshape(-1).tolist()}
    return {"inputs": [tensor], **more}


def array(tensor: Mapping[str, Any], dtype: str = "float32") -> np.ndarray:
    """A tensor of an answer."""
    return np.array(tensor["data"], dtype).reshape(tensor["shape"])


def tensors(answer: Answer) -> dict[str, Mapping[str, Any]]:
    """The outputs of an answer by name."""
    outputs: Sequence[Mapping[str, Any]] = answer.json["outputs"]
    return {str(tensor["name"]): tensor for tensor in outputs}
