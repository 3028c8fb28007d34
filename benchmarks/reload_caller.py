"""Asks a server the same thing at a steady rate and keeps all that came back: what a caller sees of a reload.

A process of its own. Open loop: a request is due when its time has come, whatever became of those before it, and its wait
counts from then on; so a server that stands still for a moment shows it in every request that was due meanwhile.
Run as a program it asks until its standard input ends. Loopback only.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import select
import socket
import subprocess
import sys
import time
from array import array
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import load

_VERSION = b"\r\ngitmodel-version: "
#: Seconds an answer may be out when asking ends; then it has failed.
_PATIENCE = 30.0
_KEPT_ERRORS = 5


@dataclass
class Asked:
    """``due`` in nanoseconds of the monotonic clock, ``waits`` in nanoseconds, one of each per answer. ``seen`` counts the
    different bodies under each version header; ``changes`` are the times at which another version answered than before,
    exact with one connection. ``late`` is the longest this process itself overslept, or was away from its
    connections, in nanoseconds."""

    sent: int = 0
    failed: int = 0
    late: int = 0
    errors: list[str] = field(default_factory=list)
    changes: list[tuple[int, str]] = field(default_factory=list)
    seen: dict[tuple[str, str], int] = field(default_factory=dict)
    due: array[int] = field(default_factory=lambda: array("q"))
    waits: array[int] = field(default_factory=lambda: array("q"))

    def worst(self, windows: list[tuple[int, int]] | None = None) -> float:
        """The longest wait in milliseconds, of all requests or of those due in a window."""
        return max(self._within(windows), default=0) / 1e6

    def p99(self) -> float:
        ordered = sorted(self.waits) or [0]
        return ordered[int((len(ordered) - 1) * 0.99)] / 1e6

    def _within(self, windows: list[tuple[int, int]] | None) -> Iterator[int]:
        for due, wait in zip(self.due, self.waits, strict=True):
            if windows is None or any(start <= due <= end for start, end in windows):
                yield wait

    @property
    def versions(self) -> list[str]:
        """Which versions answered, in order: one that comes again stands there again."""
        return [version for _, version in self.changes]


class Caller:
    """A steady caller in a process of its own, from ``with`` on until ``end``."""

    def __init__(self, port: int, request: Path, rate: float, connections: int) -> None:
        self._out = request.with_suffix(".asked")
        argv = [sys.executable, __file__, str(port), str(request), str(self._out), f"--rate={rate}"]
        self._process = subprocess.Popen(
            [*argv, f"--connections={connections}"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )

    def __enter__(self) -> Caller:
        assert self._process.stdout is not None
        self._process.stdout.readline()  # it asks from now on
        return self

    def end(self) -> Asked:
        told, _ = self._process.communicate(timeout=_PATIENCE + 30)
        value: dict[str, Any] = json.loads(told)
        seen = {(version, body): count for version, body, count in value.pop("seen")}
        changes = [(when, version) for when, version in value.pop("changes")]
        asked = Asked(**value, seen=seen, changes=changes)
        with self._out.open("rb") as file:
            for numbers in (asked.due, asked.waits):
                numbers.fromfile(file, self._out.stat().st_size // 2 // numbers.itemsize)
        self._out.unlink()
        return asked

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("port", type=int)
    parser.add_argument("request", type=Path, help="a file with the request's bytes, head and body")
    parser.add_argument("out", type=Path, help="takes the times, as 64-bit integers")
    parser.add_argument("--rate", type=float, default=100.0, help="requests per second")
    parser.add_argument("--connections", type=int, default=16)
    options = parser.parse_args()
    # Callers are other machines: what keeps this one's processors busy does not keep them.
    with contextlib.suppress(OSError):
        Path("/proc/self/autogroup").write_text("-15")
    with contextlib.suppress(OSError):
        os.nice(-10)
    # Linux likes to put who is woken over the loopback beside who woke it, on one processor, however idle the others are.
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    asked = drive(options.port, options.request.read_bytes(), options.rate, options.connections)
    with options.out.open("wb") as file:
        asked.due.tofile(file)
        asked.waits.tofile(file)
    seen = [[version, body, count] for (version, body), count in asked.seen.items()]
    told = {key: getattr(asked, key) for key in ("sent", "failed", "late", "errors", "changes")}
    print(json.dumps({**told, "seen": seen}))


def drive(port: int, request: bytes, rate: float, connections: int) -> Asked:
    asked, clock, step = Asked(), time.monotonic_ns, int(1e9 / rate)
    #: None is a connection that is yet to be made.
    idle: list[socket.socket | None] = [load.connect(port) for _ in range(connections)]
    out: dict[socket.socket, int] = {}
    parts: dict[socket.socket, bytes] = {}
    print("asking", flush=True)
    due, end, came_back = clock() + step, 0, clock()
    while not end or (out and clock() < end):
        while not end and due <= clock() and idle:
            if (connection := _send(idle.pop(), port, request, asked)) is None:
                idle.append(None)
            else:
                out[connection] = due
            due += step
        waited_for, wait = due, 1.0
        if idle and not end:
            wait = max(0.0, (due - clock()) / 1e9)
        # select() alone of its kin sleeps for less than a millisecond.
        asked.late = max(asked.late, clock() - came_back)
        ready, _, _ = select.select([*out] if end else [sys.stdin, *out], [], [], wait)
        came_back = clock()
        if idle and not ready and not end:
            asked.late = max(asked.late, came_back - waited_for)
        if sys.stdin in ready:
            end = clock() + int(_PATIENCE * 1e9)
        for connection in [each for each in ready if each in out]:
            chunk = load.receive(connection)
            answer = parts.pop(connection, b"") + chunk
            if chunk and load.missing(answer):
                parts[connection] = answer
                continue
            now, began = clock(), out.pop(connection)
            asked.due.append(began)
            asked.waits.append(now - began)
            _take(asked, answer if chunk else b"", now)
            idle.append(connection if chunk else None)
    asked.failed += len(out)
    asked.errors += [f"{len(out)} requests were never answered"] * bool(out)
    return asked


def _send(connection: socket.socket | None, port: int, request: bytes, asked: Asked) -> socket.socket | None:
    asked.sent += 1
    try:
        connection = connection or load.connect(port)
        connection.sendall(request)
    except OSError as error:
        _fail(asked, str(error))
        return None
    return connection


def _take(asked: Asked, answer: bytes, now: int) -> None:
    if not answer.startswith(b"HTTP/1.1 200"):
        _fail(asked, answer[-300:].decode(errors="replace") or "the connection was closed")
        return
    head, _, body = answer.partition(b"\r\n\r\n")
    start = head.find(_VERSION) + len(_VERSION)
    end = head.find(b"\r", start)
    version = head[start : end if end >= 0 else len(head)].decode()
    key = (version, body.decode())
    asked.seen[key] = asked.seen.get(key, 0) + 1
    if not asked.changes or asked.changes[-1][1] != version:
        asked.changes.append((now, version))


def _fail(asked: Asked, reason: str) -> None:
    asked.failed += 1
    if len(asked.errors) < _KEPT_ERRORS:
        asked.errors.append(reason)


if __name__ == "__main__":
    main()
