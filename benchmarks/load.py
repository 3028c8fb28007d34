"""Sends one prepared HTTP request over and over on keep-alive connections and reports how fast the answers came.

A process of its own, so that it takes nothing from the server's interpreter: raw sockets and epoll, the request's bytes
made once, an answer of the expected length taken as it is. It never sleeps, for waking a sleeper is work that the
server's writes would be charged with (half of an echo's rate, in a virtual machine): it needs a core of its own.
Prints one JSON object. Loopback only.
"""

from __future__ import annotations

import argparse
import json
import re
import select
import socket
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

_HEAD_END = b"\r\n\r\n"
_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)", re.IGNORECASE)


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
    options = parser.parse_args()
    request = options.request.read_bytes()
    expected = len(exchange(options.port, request))
    result = drive(options.port, request, expected, options.connections, options.seconds)
    ordered = sorted(result.latencies) or [0]
    result.p50_ms, result.p99_ms = (ordered[int((len(ordered) - 1) * share)] / 1e6 for share in (0.5, 0.99))
    result.latencies = []
    json.dump(asdict(result), sys.stdout)


def exchange(port: int, request: bytes) -> bytes:
    """One request on a connection of its own; returns the whole answer."""
    with connect(port) as connection:
        connection.settimeout(10)
        connection.sendall(request)
        answer = b""
        while missing(answer):
            chunk = connection.recv(1 << 16)
            if not chunk:
                break
            answer += chunk
        return answer


def connect(port: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port), timeout=10)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


def missing(answer: bytes) -> bool:
    """True while the answer is not whole."""
    end = answer.find(_HEAD_END)
    if end < 0:
        return True
    length = _LENGTH.search(answer, 0, end + 2)
    return len(answer) < end + len(_HEAD_END) + (int(length[1]) if length else 0)


def drive(port: int, request: bytes, expected: int, connections: int, seconds: float) -> Result:
    """Keeps one request in flight on every connection for ``seconds``."""
    result, clock = Result(), time.perf_counter_ns
    sockets = [connect(port) for _ in range(connections)]
    by_number = {connection.fileno(): connection for connection in sockets}
    sent, parts = dict.fromkeys(by_number, 0), dict.fromkeys(by_number, b"")
    poller = select.epoll()
    for number in by_number:
        poller.register(number, select.EPOLLIN)
    idle, start = 0, clock()
    end = start + int(seconds * 1e9)
    for number, connection in by_number.items():
        sent[number] = clock()
        connection.sendall(request)
    now = start
    while by_number and now < end:
        events, before = poller.poll(0), now
        now = clock()
        if not events:
            idle += now - before
        for number, _ in events:
            answer = receive(by_number[number])
            if len(answer) != expected or parts[number]:
                if not answer:  # the server closed it
                    result.failed += 1
                    poller.unregister(number)
                    del by_number[number]
                    continue
                answer = parts[number] = parts[number] + answer
                if missing(answer):
                    continue
                parts[number] = b""
            now = clock()
            result.latencies.append(now - sent[number])
            if answer.startswith(b"HTTP/1.1 200"):
                result.answers += 1
            else:
                result.failed += 1
            sent[number] = now
            by_number[number].send(request)
    result.seconds, result.busy = (now - start) / 1e9, 1 - idle / (now - start)
    for connection in sockets:
        connection.close()
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
