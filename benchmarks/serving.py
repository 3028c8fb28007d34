"""Measures requests per second of `gitmodel serve` on a small model, against the same app without gitmodel's layers.

One server process, one-row JSON requests, 16 keep-alive connections. The servers take turns (bare_app.py with the model,
bare_app.py as an echo, gitmodel), round by round, and a ratio is that of one round.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import load
import measure
import numpy as np
import small_model

HERE = Path(__file__).resolve().parent
_URL = re.compile(r" on http://127\.0\.0\.1:(\d+)")
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Server:
    """A running server: its process and port, and the request it is asked with."""

    name: str
    process: subprocess.Popen[str]
    port: int
    request: Path


@dataclass(frozen=True)
class Round:
    """One server under load: ``cpu`` is its processor time per answer in microseconds, ``busy`` the client's share of a core."""

    rate: float
    p50: float
    p99: float
    cpu: float
    busy: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=5, help="turns each server has")
    parser.add_argument("--seconds", type=float, default=3.0, help="length of a turn")
    parser.add_argument("--connections", type=int, default=16)
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder, env = stack.enter_context(measure.isolated())
        title, rows = small_model.write_model(folder / "model.onnx")
        name, output = ask(folder / "model.onnx", rows)
        prepare_repository(folder, name, rows, env)
        request = write_requests(folder, name, rows[0])
        app = [sys.executable, str(HERE / "bare_app.py")]
        serve = ["gitmodel", "serve", "--repo", str(folder / "repo"), "--port", "0"]
        commands = {
            "gitmodel serve": serve,
            "bare app": [*app, str(folder / "model.onnx")],
            "bare echo": [*app, "--echo"],
        }
        servers = [stack.enter_context(started(key, argv, request[key], env)) for key, argv in commands.items()]
        for server in servers[:2]:
            check(server, output)
        print(f"{title}; {options.connections} connections; {measure.load()}", flush=True)
        rounds: list[dict[str, Round]] = []
        for number in range(options.rounds + 1):
            seconds = options.seconds if number else 1.0  # the first one warms up
            turn = {server.name: drive(server, options.connections, seconds, env) for server in servers}
            if number:
                rounds.append(turn)
                rates = ", ".join(f"{name} {done.rate:,.0f}/s" for name, done in turn.items())
                print(f"round {number} of {options.rounds}: {rates}", flush=True)
        report(rounds)


def ask(path: Path, rows: np.ndarray) -> tuple[str, list[np.ndarray]]:
    """The model's input name and what ONNX Runtime answers to the first row, from which every server is checked."""
    import onnxruntime as ort

    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    name: str = session.get_inputs()[0].name
    return name, session.run(None, {name: rows[:1]})


def prepare_repository(folder: Path, name: str, rows: np.ndarray, env: Mapping[str, str]) -> None:
    np.savez(folder / "cases.npz", **{name: rows})  # type: ignore[arg-type]  # numpy's stubs take the names for its options
    script = (
        "git init -q repo && cd repo && gitmodel init && git commit -qm start && "
        "gitmodel save digits ../model.onnx --golden ../cases.npz -m one --release auto"
    )
    measure.shell(script, folder, env)


def write_requests(folder: Path, name: str, row: np.ndarray) -> dict[str, Path]:
    """The bytes each server is sent: the same body, and gitmodel's own path."""
    tensor = {"name": name, "shape": [1, len(row)], "datatype": "FP32", "data": row.tolist()}
    body = json.dumps({"inputs": [tensor]}).encode()
    requests = {}
    for server, path in (("gitmodel serve", "/v2/models/digits/infer"), ("bare app", "/"), ("bare echo", "/")):
        head = (
            f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
        )
        requests[server] = folder / f"{server}.request"
        requests[server].write_bytes(head.encode() + b"\r\n\r\n" + body)
    return requests


@contextlib.contextmanager
def started(name: str, argv: list[str], request: Path, env: Mapping[str, str]) -> Iterator[Server]:
    """A server that answers; ended by its own process id, whatever happens."""
    process = subprocess.Popen(
        argv, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    timer = threading.Timer(60, process.kill)  # one that says nothing must not keep us waiting
    timer.start()
    try:
        port, ready, said = 0, False, ""
        while not (port and ready):
            assert process.stdout is not None
            line = process.stdout.readline()
            if not line:
                raise measure.Failed(f"{name} ended before it served: {said[-2000:]}")
            said += line
            if found := _URL.search(line):
                port = int(found[1])
            ready = ready or " AVAILABLE" in line or argv[0] == sys.executable
        timer.cancel()
        yield Server(name, process, port, request)
    finally:
        timer.cancel()
        process.terminate()
        try:
            process.communicate(timeout=20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()


def check(server: Server, expected: list[np.ndarray]) -> None:
    """Raises Failed unless the server gives what the runtime gives."""
    head, _, body = load.exchange(server.port, server.request.read_bytes()).partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        raise measure.Failed(f"{server.name} answers {head[:100]!r} {body[:500]!r}")
    outputs: list[dict[str, Any]] = json.loads(body)["outputs"]
    for output, value in zip(outputs, expected, strict=True):
        if not np.allclose(np.array(output["data"]).reshape(output["shape"]), value, rtol=1e-4, atol=1e-6):
            raise measure.Failed(f"{server.name} gives {output}, the runtime {value}")


def drive(server: Server, connections: int, seconds: float, env: Mapping[str, str]) -> Round:
    """One turn of load.py against a server. Raises Failed when a request failed."""
    argv = [sys.executable, str(HERE / "load.py"), str(server.port), str(server.request)]
    options = [f"--connections={connections}", f"--seconds={seconds}"]
    before = processor_time(server.process.pid)
    done = subprocess.run([*argv, *options], env=env, capture_output=True, text=True, check=True, timeout=seconds + 60)
    result = load.Result(**json.loads(done.stdout))
    if result.failed or not result.answers:
        raise measure.Failed(f"{server.name}: {result.failed} requests failed, {result.answers} were answered")
    cpu = (processor_time(server.process.pid) - before) / result.answers * 1e6
    return Round(result.answers / result.seconds, result.p50_ms, result.p99_ms, cpu, result.busy)


def processor_time(pid: int) -> float:
    """Seconds of user and system time a process has used (proc(5), fields 14 and 15)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def report(rounds: list[dict[str, Round]]) -> None:
    rows = []
    for name in rounds[0]:
        turns = [turn[name] for turn in rounds]
        p50, p99, cpu, busy = (
            measure.median([getattr(turn, key) for turn in turns]) for key in ("p50", "p99", "cpu", "busy")
        )
        rates = measure.spread([turn.rate for turn in turns], 0)
        app, echo = (
            measure.spread([turn[name].rate / turn[other].rate for turn in rounds])
            for other in ("bare app", "bare echo")
        )
        rows.append([name, rates, f"{p50:.2f} / {p99:.2f} ms", f"{cpu:.0f} us", app, echo, f"{busy:.0%}"])
    header = [
        "server",
        "requests/s",
        "p50 / p99",
        "CPU per request",
        "ratio to bare app",
        "ratio to bare echo",
        "client busy",
    ]
    print(f"\n{len(rounds)} rounds in one run; medians (smallest-largest); {measure.load()}")
    print(measure.table(header, rows))


if __name__ == "__main__":
    main()
