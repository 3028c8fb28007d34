"""Servers under load: started, asked until they answer, driven by load.py, and ended with all the processes they began."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import load
import measure

HERE = Path(__file__).resolve().parent
#: What a server of ours says when it has chosen a port.
_URL = re.compile(r" on http://127\.0\.0\.1:(\d+)")
_TICKS = os.sysconf("SC_CLK_TCK")
_PATIENCE = 90.0


@dataclass(frozen=True)
class Server:
    """A running server: its process and port, and the request it is asked with."""

    name: str
    process: subprocess.Popen[bytes]
    port: int
    request: Path


@dataclass(frozen=True)
class Round:
    """One server under load: ``cpu`` is the processor time of all its processes per answer in microseconds, ``busy`` the
    client's share of a core."""

    rate: float
    p50: float
    p99: float
    cpu: float
    busy: float


@contextlib.contextmanager
def started(
    name: str, argv: Sequence[str], request: Path, env: Mapping[str, str], *, port: int = 0
) -> Iterator[Server]:
    """A server that answers; it says its port unless that was chosen for it. Raises measure.Failed. It leads a process group
    of its own, which is ended by its id, whatever happens."""
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            argv, env=env, stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT, start_new_session=True
        )
        try:
            yield Server(name, process, _wait(name, process, said.fileno(), request, port), request)
        finally:
            _end(process)


def _wait(name: str, process: subprocess.Popen[bytes], said: int, request: Path, port: int) -> int:
    """The server's port, once it answers there with 200."""
    end, answer = time.monotonic() + _PATIENCE, b"nothing"
    while time.monotonic() < end and process.poll() is None:
        words = os.pread(said, 1 << 20, 0).decode(errors="replace")
        found = _URL.search(words)
        port = port or (int(found[1]) if found else 0)
        if port:
            with contextlib.suppress(OSError):  # nobody listens there yet
                answer = load.exchange(port, request.read_bytes())
            if answer.startswith(b"HTTP/1.1 200"):
                return port
        time.sleep(0.05)
    words = os.pread(said, 1 << 20, 0).decode(errors="replace")
    state = "ended before it served" if process.poll() is not None else f"does not serve after {_PATIENCE:.0f} s"
    raise measure.Failed(f"{name} {state}; it answers {answer[:500]!r} and says: {words[-2000:]}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """In order if it can, and then whatever is left of its group: some leave their children behind."""
    process.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=20)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def drive(server: Server, connections: int, seconds: float, env: Mapping[str, str], *, sleeping: bool = False) -> Round:
    """One turn of load.py against a server; ``sleeping`` leaves the client's core to the server in between. Raises
    measure.Failed when a request failed."""
    argv = [sys.executable, str(HERE / "load.py"), str(server.port), str(server.request)]
    options = [f"--connections={connections}", f"--seconds={seconds}", *(["--sleeping"] if sleeping else [])]
    before = tree_time(server.process.pid)
    done = subprocess.run([*argv, *options], env=env, capture_output=True, text=True, check=True, timeout=seconds + 60)
    result = load.Result(**json.loads(done.stdout))
    if result.failed or not result.answers:
        raise measure.Failed(f"{server.name}: {result.failed} requests failed, {result.answers} were answered")
    cpu = (tree_time(server.process.pid) - before) / result.answers * 1e6
    return Round(result.answers / result.seconds, result.p50_ms, result.p99_ms, cpu, result.busy)


def medians(turns: Sequence[Round]) -> tuple[float, float, float, float]:
    """p50 and p99 in milliseconds, processor time per answer in microseconds, and the client's share of a core."""
    p50, p99, cpu, busy = (
        measure.median([getattr(turn, key) for turn in turns]) for key in ("p50", "p99", "cpu", "busy")
    )
    return p50, p99, cpu, busy


def tree_time(pid: int) -> float:
    """Seconds of user and system time that a process and all below it have used, those included that have ended."""
    # The last two are of children that ended and were waited for.
    return sum(sum(map(int, fields[11:15])) for fields in _tree(pid).values()) / _TICKS


def maps(pid: int, words: str) -> bool:
    """Whether a process or one below it has a file mapped whose path has these words in it."""
    found = False
    for each in _tree(pid):
        with contextlib.suppress(OSError):  # it has ended in this moment
            found |= words in Path(f"/proc/{each}/maps").read_text()
    return found


def _tree(pid: int) -> dict[int, list[str]]:
    """A process and all below it, and what proc(5) says of each."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has ended in this moment
                found[int(entry.name)] = _fields(int(entry.name))
    tree = {pid}
    while more := {child for child, fields in found.items() if int(fields[1]) in tree} - tree:
        tree |= more
    return {each: found[each] for each in tree}


def _fields(pid: int) -> list[str]:
    """What proc(5) says of a process, from the third field on: a name may have blanks and brackets."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
