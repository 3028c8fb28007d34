"""Sends one prepared HTTP request over and over on keep-alive connections and reports how fast the answers came.

A process of its own, so that it takes nothing from the server's interpreter: raw sockets and epoll, the request's bytes
made once, an answer counted and not kept. It never sleeps, for waking a sleeper is work that the server's writes would be
charged with (half of an echo's rate, in a virtual machine): it needs a core of its own. Prints one JSON object. Loopback only.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import select
import socket
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

#: Seconds of sleep at most, where it sleeps.
_NAP = 0.05
_HEAD_END = b"\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)", re.IGNORECASE)
_GOOD = b"HTTP/1.1 200"
#: Bytes received at a time, and of them at most those in which a head ends.
_MOST, _MOST_HEAD = 1 << 20, 16 << 10


@dataclass
class Result:
    """``latencies`` in nanoseconds; ``busy`` is the share of time in which there was something to do: near 1, this
    process and not the server would be what is measured."""

    answers: int = 0
    failed: int = 0
    seconds: float = 0.0
    busy: float = 0.0
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    latencies: list[int] = field(default_factory=list)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("port", type=int)
    parser.add_argument("request", type=Path, help="a file with the request's bytes, head and body")
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--sleeping", action="store_true", help="leave the core to others while there is nothing to do")
    options = parser.parse_args()
    request = options.request.read_bytes()
    exchange(options.port, request)
    result = drive(options.port, request, options.connections, options.seconds, sleeping=options.sleeping)
    ordered = sorted(result.latencies) or [0]
    result.p50_ms, result.p99_ms = (ordered[int((len(ordered) - 1) * share)] / 1e6 for share in (0.5, 0.99))
    result.latencies = []
    json.dump(asdict(result), sys.stdout)


def exchange(port: int, request: bytes) -> bytes:
    """One request on a connection of its own; returns the whole answer."""
    with connect(port) as connection:
        connection.settimeout(10)
        connection.sendall(request)
        answer = bytearray()
        while missing(answer):
            chunk = connection.recv(_MOST)
            if not chunk:
                break
            answer += chunk
        return bytes(answer)


def connect(port: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=10)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def missing(answer: bytes | bytearray) -> bool:
    """True while the answer is not whole."""
    size = whole_size(answer)
    return size is None or len(answer) < size


def whole_size(answer: bytes | bytearray) -> int | None:
    """How many bytes an answer has, head and body; None while its head is not whole."""
    end = answer.find(_HEAD_END)
    if end < 0:
        return None
    length = _LENGTH.search(answer, 0, end + 2)
    return end + len(_HEAD_END) + (int(length[1]) if length else 0)


class Caller:
    """A connection on which one request after the other is sent, each when the answer to the last is there."""

    __slots__ = ("_connection", "_got", "_head", "_request", "_unsent", "_whole", "good", "sent")

    def __init__(self, connection: socket.socket, request: bytes) -> None:
        connection.setblocking(False)
        self._connection, self._request = connection, memoryview(request)
        self._unsent = self._request[:0]
        #: Of the answer that is on its way: its beginning, its bytes so far, how many it will have once that is known.
        self._head, self._got, self._whole = b"", 0, 0
        self.sent, self.good = 0, False

    def ask(self, now: int) -> bool:
        """Sends the request. False when not all of it has been taken: ``go_on`` is to be called once there is room."""
        self.sent, self._unsent = now, self._request
        return self.go_on()

    def go_on(self) -> bool:
        with contextlib.suppress(BlockingIOError):
            self._unsent = self._unsent[self._connection.send(self._unsent) :]
        return not self._unsent

    def take(self, buffer: memoryview) -> bool:
        """Receives what there is. True when the answer is whole, and then ``good`` says whether it is a 200. Raises
        ConnectionError when the server is gone, or answered before it was asked."""
        size = self._connection.recv_into(buffer)
        if not size or self._unsent:
            raise ConnectionResetError
        self._got += size
        if not self._whole:
            self._head += buffer[: min(size, _MOST_HEAD)]
            self._whole = whole_size(self._head) or 0
        if not self._whole or self._got < self._whole:
            return False
        self.good = self._head.startswith(_GOOD)
        self._head, self._got, self._whole = b"", 0, 0
        return True

    def close(self) -> None:
        self._connection.close()


def drive(port: int, request: bytes, connections: int, seconds: float, *, sleeping: bool = False) -> Result:
    """Keeps one request in flight on every connection for ``seconds``."""
    result, clock, buffer = Result(), time.perf_counter_ns, memoryview(bytearray(_MOST))
    sockets = [connect(port) for _ in range(connections)]
    callers = {connection.fileno(): Caller(connection, request) for connection in sockets}
    working = dict(callers)
    poller = select.epoll()
    reading, both = select.EPOLLIN, select.EPOLLIN | select.EPOLLOUT
    idle, now = 0, clock()
    start, end = now, now + int(seconds * 1e9)
    for number, caller in callers.items():
        poller.register(number, reading if caller.ask(clock()) else both)
    while working and now < end:
        events, before = poller.poll(_NAP if sleeping else 0), now
        now = clock()
        if not events:
            idle += now - before
        for number, event in events:
            caller = working[number]
            try:
                if event & select.EPOLLOUT and caller.go_on():
                    poller.modify(number, reading)
                if not event & ~select.EPOLLOUT or not caller.take(buffer):
                    continue
                now = clock()
                result.latencies.append(now - caller.sent)
                result.answers += caller.good
                result.failed += not caller.good
                if not caller.ask(now):
                    poller.modify(number, both)
            except ConnectionError:
                result.failed += 1
                poller.unregister(number)
                del working[number]
    result.seconds, result.busy = (now - start) / 1e9, 1 - idle / (now - start)
    for caller in callers.values():
        caller.close()
    poller.close()
    return result


def receive(connection: socket.socket) -> bytes:
    """What there is; nothing when the server is gone."""
    try:
        return connection.recv(1 << 16)
    except ConnectionError:
        return b""


if __name__ == "__main__":
    main()
