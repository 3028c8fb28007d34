"""A production to reload in: an author's repository, the bare one it pushes to, a DVC remote, and servers."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import measure
import numpy as np
from served import tree_time

T = TypeVar("T")
PATIENCE = 120.0
#: Far longer than any run: what is swapped was swapped for a notice.
NEVER = "3600"
#: Asks the kernel to end the process when its parent dies (prctl(2), PR_SET_PDEATHSIG): a run that is killed leaves no
#: server behind.
_WITH_PARENT = "import ctypes, os, sys; ctypes.CDLL(None).prctl(1, 15); os.execv(sys.argv[1], sys.argv[1:])"
_JOINED = re.compile(r"worker (\d+) answers \(pid (\d+)\)")
_STARTED = re.compile(r"serving .* on http://127\.0\.0\.1:(?P<port>\d+) \(management: (?P<admin>.+), pid \d+\)")


def until(look: Callable[[], T], what: str, patience: float = PATIENCE, pause: float = 0.002) -> T:
    """What ``look`` gives as soon as that is true. Raises Failed."""
    deadline = time.monotonic() + patience
    while not (found := look()):
        if time.monotonic() > deadline:
            raise measure.Failed(f"waited {patience:.0f} s for {what}")
        time.sleep(pause)
    return found


@dataclass(frozen=True)
class Place:
    """``author`` is a working model repository, ``bare`` the one it pushes to, ``storage`` their DVC remote."""

    folder: Path

    @property
    def author(self) -> Path:
        return self.folder / "author"

    @property
    def bare(self) -> Path:
        return self.folder / "prod.git"

    @property
    def storage(self) -> Path:
        return self.folder / "storage"

    @classmethod
    def make(cls, folder: Path) -> Place:
        from gitmodel.workflows import init

        place = cls(folder)
        place.storage.mkdir(parents=True)
        subprocess.run(["git", "init", "-q", str(place.author)], check=True)
        subprocess.run(["git", "init", "-q", "--bare", str(place.bare)], check=True)
        init.init(place.author, remote=str(place.storage))
        place.git("commit", "-qm", "Set up")
        place.git("remote", "add", "production", str(place.bare))
        place.git("push", "-q", "production", "HEAD")
        place.hooks()
        return place

    def git(self, *args: str) -> str:
        return subprocess.run(
            ["git", "-C", str(self.author), *args], check=True, capture_output=True, text=True
        ).stdout.strip()

    def hooks(self, verb: str = "install") -> None:
        """The real ones, where a push is received; ``uninstall`` makes it a repository that tells nobody."""
        server = ["--server"] if verb == "install" else []
        argv = [sys.executable, "-m", "gitmodel", "hooks", verb, *server, "--repo", str(self.bare)]
        subprocess.run(argv, check=True, capture_output=True)

    def save(self, name: str, model: Path, rows: np.ndarray) -> str:
        """Saves and commits a model with a golden case per row, sends its weights; returns the commit."""
        from gitmodel.workflows import save, transfer

        cases = self.folder / "cases.npz"
        np.savez(cases, x=rows)
        save.save(name, [model], repo=self.author, message=f"Change {name}", golden=cases)
        transfer.push([name], repo=self.author)
        return self.git("rev-parse", "HEAD")

    def tag(self, name: str, commit: str = "HEAD") -> str:
        self.git("tag", "-a", "-m", name, "--", name, commit)
        return name

    def push(self, *refs: str) -> str:
        """Returns what the pusher reads, when it is done."""
        return end_push(self.begin_push(*refs))

    def begin_push(self, *refs: str) -> subprocess.Popen[str]:
        argv = ["git", "-C", str(self.author), "push", "production", *refs]
        return subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def release(self, name: str, commit: str = "HEAD") -> str:
        """Tags and pushes."""
        return self.push(self.tag(name, commit))

    def weights(self, name: str, commit: str) -> list[list[str]]:
        """path, size, sha256 and md5 of each file of a model."""
        lines = self.git("show", f"{commit}:models/{name}/weights.lock").splitlines()
        return [line.split(" ")[1:] for line in lines if line.startswith("file ")]


def end_push(process: subprocess.Popen[str]) -> str:
    """What the pusher read."""
    said, _ = process.communicate(timeout=PATIENCE)
    if process.returncode:
        raise measure.Failed(f"a push ended with {process.returncode}: {said[-2000:]}")
    return said


@dataclass
class Server:
    """A ``gitmodel serve`` in a process of its own; what it says goes to ``log``."""

    process: subprocess.Popen[bytes]
    log: Path
    port: int = 0
    admin: str = ""
    _read: int = field(default=0, repr=False)

    def lines(self) -> list[str]:
        return self.log.read_text(errors="replace").splitlines()

    def count(self, words: str) -> int:
        """How many lines end so: ``tiny v1.0.1 LOADING``."""
        return sum(line.endswith(words) for line in self.lines())

    def wait_for(self, words: str, patience: float = PATIENCE, pause: float = 0.002) -> None:
        """Waits for a line with these words in it."""
        until(lambda: self.alive() and words in self.log.read_text(errors="replace"), words, patience, pause)

    def alive(self) -> bool:
        if self.process.poll() is not None:
            raise measure.Failed(f"the server ended: {self.lines()[-5:]}")
        return True

    def get(self, path: str, method: str = "GET", body: object = None) -> tuple[int, Any]:
        """On the public port."""
        with contextlib.closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)) as connection:
            connection.request(method, path, None if body is None else json.dumps(body))
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read())

    def statuses(self, model: str) -> dict[str, dict[str, Any]]:
        """Rows of ``/v2/gitmodel/status`` by version."""
        rows = self.get("/v2/gitmodel/status")[1]["versions"]
        return {row["version"]: row for row in rows if row["model"] == model}

    def look(self, model: str = "any") -> Any:
        """Makes it look at the refs and waits until it has dealt with them."""
        from gitmodel import endpoint

        path = f"/v2/repository/models/{model}/load"
        return endpoint.request(self.admin, "POST", path, {"parameters": {"wait": PATIENCE}}, timeout=PATIENCE + 10)

    def workers(self) -> dict[int, int]:
        """The newest process of each of its workers; none where it answers calls itself."""
        found = [_JOINED.search(line) for line in self.lines()]
        return {int(match[1]): int(match[2]) for match in found if match}

    def processes(self) -> list[int]:
        return [self.process.pid, *self.workers().values()]

    def memory(self) -> dict[str, int]:
        """Rss, Pss and its kin in bytes, of all its processes together (proc(5), smaps_rollup)."""
        total: Counter[str] = Counter()
        for pid in self.processes():
            text = Path(f"/proc/{pid}/smaps_rollup").read_text()
            total.update({key: int(size) * 1024 for key, size in re.findall(r"(?m)^(\w+): +(\d+) kB$", text)})
        return dict(total)

    def peak(self) -> int:
        """The most its processes ever had resident, in bytes (proc(5), status: VmHWM)."""
        said = [Path(f"/proc/{pid}/status").read_text() for pid in self.processes()]
        return sum(int(status.partition("VmHWM:")[2].split()[0]) * 1024 for status in said)

    def busy(self) -> float:
        """Seconds of a processor that event loops, the first threads of what answers calls, have had (schedstat, first field)."""
        answering = list(self.workers().values()) or [self.process.pid]
        return sum(int(Path(f"/proc/{pid}/task/{pid}/schedstat").read_text().split()[0]) / 1e9 for pid in answering)

    def stop(self) -> None:
        """Ends this very process."""
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.kill()

    def kill(self) -> None:
        """SIGKILL: it has no chance to clean up."""
        self.process.kill()
        self.process.wait()


#: Options that every server is started with.
ALWAYS: list[str] = []


def begin(place: Place, *options: str) -> Server:
    """A server that may not have said yet where it listens."""
    number = len(list(place.folder.glob("serve-*.log")))
    log = place.folder / f"serve-{number}.log"
    argv = [sys.executable, "-S", "-c", _WITH_PARENT, sys.executable, "-m", "gitmodel", "serve"]
    options = (*options, *([] if "--workers" in options else ALWAYS))
    argv += ["--repo", str(place.bare), "--port", "0", *([] if "--poll" in options else ["--poll", NEVER]), *options]
    with log.open("wb") as file:
        # In a session of its own, as a service is: Linux shares processors out among sessions (sched(7), autogroup), and
        # this one's is busy with what in earnest other machines do.
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True)
    return Server(process, log)


def listening(server: Server) -> Server:
    """Waits until it has said where."""
    found = until(
        lambda: server.alive() and _STARTED.search(server.log.read_text(errors="replace")), "a server to listen"
    )
    assert isinstance(found, re.Match)
    server.port, server.admin = int(found["port"]), found["admin"]
    return server


@contextlib.contextmanager
def serving(place: Place, *options: str) -> Iterator[Server]:
    """A server that has dealt with the refs as they are; ended by its own process id, whatever happens."""
    server = begin(place, *options)
    try:
        listening(server).look()
        yield server
    finally:
        server.stop()


def forget(place: Place, name: str, commit: str, but: str = "") -> None:
    """Takes a version's files out of the server's store, so that it has to fetch them again: those that the commit ``but``
    does not have, too."""
    store = place.bare / "gitmodel" / "store"
    kept = {md5 for _, _, _, md5 in place.weights(name, but)} if but else set()
    for md5 in {md5 for _, _, _, md5 in place.weights(name, commit)} - kept:
        (store / "files" / "md5" / md5[:2] / md5[2:]).unlink(missing_ok=True)
    lock = place.git("show", f"{commit}:models/{name}/weights.lock") + "\n"
    shutil.rmtree(store / "versions" / hashlib.sha256(lock.encode()).hexdigest(), ignore_errors=True)


class Others:
    """What everybody else has of the processors from now on: who is neither this process nor below it."""

    def __init__(self) -> None:
        self._start = self._now()

    def _now(self) -> tuple[float, float, float]:
        # What is idle is exact, what is busy is sampled (proc(5), stat: the fourth field, and the fifth).
        idle = sum(map(int, Path("/proc/stat").read_text().split("\n", 1)[0].split()[4:6])) / os.sysconf("SC_CLK_TCK")
        return time.monotonic(), idle, tree_time(os.getpid())

    def share(self) -> float:
        seconds, idle, own = (now - before for now, before in zip(self._now(), self._start, strict=True))
        count = os.cpu_count() or 1
        return max(0.0, seconds * count - idle - own) / (seconds * count)


@dataclass(frozen=True)
class Row:
    """One figure of a scenario. ``kept`` is None where nothing was promised."""

    scenario: str
    counted: str
    figure: str
    limit: str = "-"
    kept: bool | None = None

    @classmethod
    def at_most(cls, scenario: str, counted: str, value: float, limit: float, unit: str = "") -> Row:
        return cls(scenario, counted, f"{value:.4g}{unit}", f"{limit:g}{unit}", value <= limit)

    def cells(self) -> Sequence[str]:
        kept = "-" if self.kept is None else "yes" if self.kept else "NO"
        return [self.scenario, self.counted, self.figure, self.limit, kept]
