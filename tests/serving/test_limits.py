"""A server under clients that are slow, many, or sent by another site: they are told off, and nobody else notices."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import support
from tests.serving import production as place
from tests.serving.production import Answer, Production, Server, infer, rows

FRAUD = "/v2/models/fraud/infer"


@pytest.fixture(scope="module")
def production(tmp_path_factory: pytest.TempPathFactory) -> Production:
    made = Production.make(tmp_path_factory.mktemp("limits"))
    made.push(made.release("fraud@v1.0.0"))
    return made


@pytest.fixture(scope="module")
def server(production: Production) -> Iterator[Server]:
    options = ("--body-timeout", "1", "--connections", "20", "--log", "json", "--log-requests")
    process = place.start(production.bare, *options, json_log=True)
    try:
        process.look()
        yield process
    finally:
        process.stop()


def connect(server: Server) -> socket.socket:
    return socket.create_connection(server.address, timeout=place.PATIENCE)


def everything(connection: socket.socket) -> bytes:
    """All that comes until the other side closes."""
    found = b""
    with contextlib.suppress(ConnectionError):
        while data := connection.recv(1 << 16):
            found += data
    return found


def head(server: Server, length: int, *more: str) -> bytes:
    host, port = server.address
    lines = [f"POST {FRAUD} HTTP/1.1", f"Host: {host}:{port}", f"Content-Length: {length}", *more, "", ""]
    return "\r\n".join(lines).encode()


def asks(server: Server) -> Answer:
    return server.ask("POST", FRAUD, infer(rows(1)))


def test_a_body_that_comes_drop_by_drop_is_given_up_on_and_nobody_waits_for_it(server: Server) -> None:
    slow = [connect(server) for _ in range(5)]
    for connection in slow:
        connection.sendall(head(server, 1000))
    ended = threading.Event()

    def drip() -> None:
        while not ended.wait(0.05):
            for connection in slow:
                with contextlib.suppress(OSError):
                    connection.sendall(b" ")

    thread = threading.Thread(target=drip)
    thread.start()
    start = time.monotonic()
    try:
        assert asks(server).status == 200
        answers = [everything(connection) for connection in slow]
    finally:
        ended.set()
        thread.join()
    assert time.monotonic() - start < 30
    for answer in answers:
        assert answer.startswith(b"HTTP/1.1 408 ")
        assert b"the body took too long to come" in answer
    assert asks(server).status == 200
    for connection in slow:
        connection.close()


def test_a_body_that_stops_coming_is_408_in_time_for_client_metrics_and_log_alike(server: Server) -> None:
    counted = b'gitmodel_errors_total{status="%d"} '
    before = server.ask("GET", "/metrics").body
    with contextlib.closing(connect(server)) as connection:
        start = time.monotonic()
        connection.sendall(head(server, 500, "X-Request-Id: stops-coming") + b"{")
        answer = everything(connection)
        took = time.monotonic() - start
    assert 0.99 < took < 1.9  # timers count in whole milliseconds
    said, _, body = answer.partition(b"\r\n\r\n")
    assert said.startswith(b"HTTP/1.1 408 ")
    assert b"\r\nx-request-id: stops-coming\r\n" in said
    assert json.loads(body) == {"error": "the body took too long to come: send all of it within 1 s"}
    after = server.ask("GET", "/metrics").body

    def count(page: bytes, status: int) -> float:
        line = next((line for line in page.splitlines() if line.startswith(counted % status)), b"0")
        return float(line.rpartition(b" ")[2])

    assert (count(after, 408) - count(before, 408), count(after, 400) - count(before, 400)) == (1, 0)
    noted = json.loads(server.wait_for(lambda line: "stops-coming" in line))
    assert (noted["status"], noted["reason"]) == (408, json.loads(body)["error"])


def test_one_connection_too_many_is_told_so_and_the_others_go_on(server: Server) -> None:
    first = connect(server)
    first.sendall(head(server, 3))
    held = [connect(server) for _ in range(25)]
    last = connect(server)
    last.sendall(f"GET /v2/health/live HTTP/1.1\r\nHost: {server.address[0]}\r\nConnection: close\r\n\r\n".encode())
    assert everything(last).startswith(b"HTTP/1.1 503 ")
    first.sendall(b"{}\n")
    assert first.recv(100).startswith(b"HTTP/1.1 400 ")
    for connection in (*held, last, first):
        connection.close()
    place.until(lambda: asks(server).status == 200)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "evil.example"}, 421),
        ({"Origin": "http://evil.example"}, 403),
        ({"Origin": "null"}, 403),
    ],
)
def test_another_sites_page_gets_nothing(server: Server, headers: dict[str, str], status: int) -> None:
    for method, path, body in (("POST", FRAUD, infer(rows(1))), ("GET", "/", b""), ("GET", "/metrics", b"")):
        answer = server.ask(method, path, body, headers=headers)
        assert answer.status == status
        assert answer.error


def test_an_answer_has_the_id_that_the_log_has(server: Server) -> None:
    own = server.ask("POST", FRAUD, infer(rows(1)), headers={"X-Request-Id": "trace-7"})
    other = server.ask("GET", "/nothing")
    assert own.headers["x-request-id"] == "trace-7"
    name = other.headers["x-request-id"]
    assert name
    server.wait_for(lambda line: name in line)
    noted = [json.loads(line) for line in server.lines]
    by_id = {value["id"]: value for value in noted if value["event"] == "request"}
    assert (by_id["trace-7"]["status"], by_id["trace-7"]["path"]) == (200, FRAUD)
    assert (by_id[name]["status"], by_id[name]["reason"]) == (404, "there is nothing at /nothing; see /v2")
    started = next(value for value in noted if value["event"] == "started")
    assert started["url"] == server.url
    assert {value["event"] for value in noted} >= {"started", "version", "request"}


def test_notices_need_both_options_and_a_private_secret(production: Production, tmp_path: Path) -> None:
    half = support.gitmodel("serve", "--notify", "127.0.0.1:0", cwd=production.bare)
    assert half.returncode == 2
    (tmp_path / "s").write_text("x" * 40)
    (tmp_path / "s").chmod(0o644)
    secret = ("--notify-secret", str(tmp_path / "s"))
    open_ = support.gitmodel("serve", "--notify", "127.0.0.1:0", *secret, cwd=production.bare)
    assert open_.returncode == 3
    assert "chmod 600" in open_.stderr
    (tmp_path / "s").chmod(0o600)
    for address in ("127.0.0.1", ":8001", "127.0.0.1:x"):
        wrong = support.gitmodel("serve", "--port", "0", "--notify", address, *secret, cwd=production.bare)
        assert wrong.returncode == 3
        assert wrong.stderr.startswith("error[cannot-listen]: ")
    port = free_port()
    both = ("--port", port, "--host", "127.0.0.1", "--notify", f"127.0.0.2:{port}")
    same = support.gitmodel("serve", *both, *secret, cwd=production.bare)
    assert same.returncode == 3
    assert "ports of their own" in same.stderr


def free_port() -> str:
    """One that is free now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])
