"""gitmodel.serving.connection: what is answered where it was parsed reads like what uvicorn's own way gives, byte for byte."""

from __future__ import annotations

import contextlib
import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gitmodel.serving.connection import Connection
from gitmodel.serving.dataplane import Dataplane
from gitmodel.serving.guard import Guard
from gitmodel.serving.http import Answer
from gitmodel.serving.journal import Journal
from gitmodel.serving.plan import Plan
from gitmodel.serving.rest import App
from gitmodel.serving.servable import Servable, Serving
from gitmodel.serving.settings import Settings
from gitmodel.serving.traffic import Traffic
from gitmodel.serving.web import Server
from tests.serving import production as place
from tests.serving.production import infer, rows

INFER, PREDICT = "/v2/models/fraud/infer", "/v1/models/fraud:predict"
ROWS = json.dumps(infer(rows(2))).encode()
_MOST_BODY = 4000
_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)")


class Running:
    """A server on a thread of this process, so that a test sees its connections."""

    def __init__(self, servable: Servable, *, requests: bool = False) -> None:
        self.said: list[str] = []
        self.traffic = Traffic()
        plan = Plan.of(servable.signature)
        assert plan is not None
        servable.usual = plan.decode
        table = {"fraud": Serving(servable, {servable.version: servable})}
        journal = Journal(self.said.append, requests=requests)

        async def look(_: str) -> Answer:
            return 200, [], b"{}"

        class Nothing:
            def statuses(self, model: str = "") -> list[Any]:
                return []

            def ready(self) -> bool:
                return True

        app = App(
            Dataplane(lambda: table, lambda _: []), Nothing(), look, traffic=self.traffic, guard=Guard("127.0.0.1"),
            version="1", journal=journal, max_body=_MOST_BODY,
        )  # fmt: skip
        begun = threading.Event()
        self.server = Server(app, Settings(repo=Path()), begun.set)
        self.listener = socket.socket()
        self.listener.bind(("127.0.0.1", 0))
        self.listener.listen()
        self.thread = threading.Thread(target=self.server.run, kwargs={"sockets": [self.listener]})
        self.thread.start()
        assert begun.wait(place.PATIENCE)

    def connect(self) -> socket.socket:
        return socket.create_connection(self.listener.getsockname(), timeout=place.PATIENCE)

    @property
    def at_once(self) -> int:
        """Answers given at once on connections that are open."""
        return sum(each.answered for each in self.connections)

    @property
    def connections(self) -> list[Connection]:
        return [each for each in list(self.server.server_state.connections) if isinstance(each, Connection)]

    def stop(self) -> None:
        self.server.should_exit = True
        self.thread.join(place.PATIENCE)
        self.listener.close()


@pytest.fixture
def running(servable: Callable[..., Servable]) -> Iterator[Running]:
    made = Running(servable())
    try:
        with made.connect() as connection:  # from now on these paths are usual
            for path, body in ((INFER, ROWS), (PREDICT, b'{"instances":[{"x":[1,2,3,4]}]}')):
                assert exchange(connection, post(path, body)).startswith(b"HTTP/1.1 200 OK\r\n")
        place.until(lambda: not made.connections)
        yield made
    finally:
        made.stop()


def post(path: str, body: bytes, *more: str, version: str = "1.1", host: str = "127.0.0.1") -> bytes:
    lines = [f"POST {path} HTTP/{version}", f"Host: {host}", f"Content-Length: {len(body)}", *more, "", ""]
    return "\r\n".join(lines).encode() + body


def answers(connection: socket.socket, count: int) -> list[bytes]:
    """So many answers, or fewer when the other side closes."""
    found: list[bytes] = []
    data = b""
    while len(found) < count:
        head, end, rest = data.partition(b"\r\n\r\n")
        length = _LENGTH.search(head + b"\r\n")
        if end and length and len(rest) >= int(length[1]):
            size = len(head) + 4 + int(length[1])
            found.append(data[:size])
            data = data[size:]
            continue
        more = b""
        with contextlib.suppress(ConnectionError):
            more = connection.recv(1 << 16)
        if not more:
            break
        data += more
    return found


def exchange(connection: socket.socket, request: bytes) -> bytes:
    connection.sendall(request)
    (answer,) = answers(connection, 1)
    return answer


def both_ways(running: Running, request: bytes, *, refused: bool = False) -> tuple[bytes, bytes]:
    """The answers given at once and in uvicorn's own way, which a body in two pieces takes, unless it is ``refused`` before all of it
    is there; without their dates."""
    head, end, body = request.partition(b"\r\n\r\n")
    with running.connect() as connection:
        at_once = exchange(connection, request)
    before = running.server.server_state.total_requests
    with running.connect() as connection:
        connection.sendall(head + end + body[:1])
        if not refused:
            place.until(lambda: any(getattr(each.cycle, "more_body", False) for each in running.connections))
            connection.sendall(body[1:])
        (ordinary,) = answers(connection, 1)
    assert running.server.server_state.total_requests == before + 1
    return _undated(at_once), _undated(ordinary)


def _undated(answer: bytes) -> bytes:
    assert re.search(rb"\r\ndate: [^\r]+ GMT\r\n", answer)
    return re.sub(rb"\r\ndate: [^\r]+", b"", answer)


BINARY_HEAD = json.dumps(
    {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32", "parameters": {"binary_data_size": 16}}]}
).encode()


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (post(INFER, ROWS), 200),
        (post(INFER, ROWS, "X-Request-Id: abc-1"), 200),
        (post(INFER, ROWS, "X-Request-Id: a b", "Accept: */*"), 200),
        (post(INFER, json.dumps(infer(rows(1), id="seven")).encode()), 200),
        (post(INFER, json.dumps({**infer(rows(1)), "outputs": [{"name": "scores"}]}).encode()), 200),
        (post(INFER, BINARY_HEAD + rows(1).tobytes(), f"Inference-Header-Content-Length: {len(BINARY_HEAD)}"), 200),
        (post(PREDICT, b'{"instances":[{"x":[1,2,3,4]}]}'), 200),
        (post(INFER, b"{nothing"), 400),
        (post(INFER, json.dumps(infer(rows(2)[:, :3])).encode()), 400),
        (post(INFER, b"12345", "Inference-Header-Content-Length: 6"), 400),
        (post(INFER, b"12345", "Inference-Header-Content-Length: six"), 400),
        (post(INFER, ROWS, "Origin: http://elsewhere.example"), 403),
        (post(INFER, ROWS, host="elsewhere.example"), 421),
        (post(INFER, b" " * (_MOST_BODY + 1)), 413),
    ],
)
def test_both_ways_give_the_same(running: Running, request_: bytes, status: int) -> None:
    at_once, ordinary = both_ways(running, request_, refused=status in (403, 421))
    named = re.compile(rb"x-request-id: (?!abc-1)[^\r]+")  # one of ours: another each time
    assert named.sub(b"", at_once) == named.sub(b"", ordinary)
    assert at_once.startswith(b"HTTP/1.1 %d " % status)


def test_the_usual_call_is_answered_at_once_and_counted(running: Running) -> None:
    before = running.traffic.of("fraud", "v1.0.0").statuses[200]
    with running.connect() as connection:
        for _ in range(5):
            assert exchange(connection, post(INFER, ROWS)).startswith(b"HTTP/1.1 200 ")
        assert running.at_once == 5
        assert exchange(connection, post(INFER, b"[]")).startswith(b"HTTP/1.1 400 ")
        assert running.at_once == 6
    assert running.traffic.of("fraud", "v1.0.0").statuses == {200: before + 5, 400: 1}
    assert running.traffic.errors == {400: 1}


@pytest.mark.parametrize(
    ("request_", "status", "closed"),
    [
        (post(INFER + "?a=1", ROWS), 200, False),
        (post("/v2/models/fraud/versions/v1.0.0/infer", ROWS), 200, False),
        (post("/v2/repository/index", b"{}"), 200, False),
        (post(INFER, ROWS).replace(b"POST", b"GET "), 405, False),
        (post(INFER, ROWS, version="1.0"), 200, True),
        (post(INFER, ROWS, "Connection: close"), 200, True),
        (post(INFER, ROWS, "Connection: upgrade", "Upgrade: websocket"), 400, False),  # the body is no longer HTTP
    ],
)
def test_what_is_not_usual_is_uvicorns(running: Running, request_: bytes, status: int, closed: bool) -> None:
    with running.connect() as connection:
        connection.sendall(request_)
        (answer,) = answers(connection, 1)
        assert answer.startswith(b"HTTP/1.1 %d " % status)
        assert running.at_once == 0
        assert not closed or connection.recv(1) == b""


def test_who_waits_to_be_told_to_go_on_is_told(running: Running) -> None:
    request = post(INFER, ROWS, "Expect: 100-continue")
    head = request[: request.index(b"\r\n\r\n") + 4]
    with running.connect() as connection:
        connection.sendall(head)
        assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(ROWS)
        (answer,) = answers(connection, 1)
        assert answer.startswith(b"HTTP/1.1 200 ")


def test_requests_sent_in_a_row_are_answered_in_that_row_whichever_way_each_takes(running: Running) -> None:
    """More than are answered at once of one read, some in chunks, some whose body needs a look, some that fail."""
    bodies = [json.dumps(infer(rows(1), id=f"n{number}")).encode() for number in range(60)]
    sent = b""
    for number, body in enumerate(bodies):
        if number % 7 == 3:
            chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body)
            sent += f"POST {INFER} HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
            sent += chunks + b"0\r\n\r\n"
        elif number % 7 == 5:
            sent += b"GET /v2/health/live HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n"
        else:
            sent += post(INFER, body if number % 7 else b"?")
    with running.connect() as connection:
        connection.sendall(sent)
        found = answers(connection, len(bodies))
        assert 0 < running.at_once < len(bodies)
    assert len(found) == len(bodies)
    for number, answer in enumerate(found):
        head, _, body = answer.partition(b"\r\n\r\n")
        value = json.loads(body)
        if number % 7 == 5:
            assert value == {"live": True}
        elif number % 7:
            assert value["id"] == f"n{number}"
        else:
            assert head.startswith(b"HTTP/1.1 400 ")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
@given(st.lists(st.integers(1, 2 * len(post(INFER, ROWS)) - 1), max_size=4, unique=True))
def test_wherever_reads_are_cut_the_answers_are_the_same(running: Running, cuts: list[int]) -> None:
    sent = post(INFER, ROWS) * 2
    with running.connect() as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for start, end in zip([0, *sorted(cuts)], [*sorted(cuts), len(sent)], strict=True):
            connection.sendall(sent[start:end])
            time.sleep(0.0005)  # as often as not a read of its own
        first, second = answers(connection, 2)
    assert first.partition(b"\r\n\r\n")[2] == second.partition(b"\r\n\r\n")[2]
    scores = json.loads(first.partition(b"\r\n\r\n")[2])["outputs"][0]["data"]
    assert np.isfinite(scores).all()


def test_a_client_that_reads_no_answers_gets_no_more_of_them(running: Running) -> None:
    """And all of them when it reads again."""
    count, request = 20_000, post(INFER, ROWS)
    with running.connect() as connection:
        sending = threading.Thread(target=connection.sendall, args=(request * count,))
        sending.start()
        place.until(lambda: any(each.flow.write_paused for each in running.connections))
        (theirs,) = running.connections
        assert theirs.transport.get_write_buffer_size() < 1 << 20
        found = answers(connection, count)
        sending.join(place.PATIENCE)
    assert len(found) == count
    assert {answer.partition(b"\r\n\r\n")[2] for answer in found} == {found[0].partition(b"\r\n\r\n")[2]}


def test_whoever_may_not_ask_is_cut_off_as_ever(running: Running) -> None:
    with running.connect() as connection:
        connection.sendall(post(INFER, ROWS, host="elsewhere.example") * 3)
        found = answers(connection, 3)
    assert [answer[:12] for answer in found] == [b"HTTP/1.1 421"]


def test_requests_are_noted_where_that_is_asked_for(servable: Callable[..., Servable]) -> None:
    running = Running(servable(), requests=True)
    try:
        with running.connect() as connection:
            first = exchange(connection, post(INFER, ROWS))
            second = exchange(connection, post(INFER, ROWS, "X-Request-Id: mine"))
            assert running.at_once == 1
        assert b"x-request-id: mine" in second
        assert b"x-request-id: " in first
        assert [re.sub(r"^\S+ ", "", line) for line in running.said][1:] == [f"POST {INFER} 200 [mine]"]
    finally:
        running.stop()


def test_an_accident_is_told_and_the_connection_goes_on(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    with running.connect() as connection:
        with monkeypatch.context() as context:
            context.setattr(Traffic, "answered", lambda *_: 1 / 0)
            answer = exchange(connection, post(INFER, ROWS))
        assert answer.startswith(b"HTTP/1.1 500 ")
        assert json.loads(answer.partition(b"\r\n\r\n")[2]) == {"error": "ZeroDivisionError: division by zero"}
        assert any("ZeroDivisionError" in line for line in running.said)
        assert exchange(connection, post(INFER, ROWS)).startswith(b"HTTP/1.1 200 ")


def test_a_server_that_ends_leaves_no_answer_half_sent(servable: Callable[..., Servable]) -> None:
    running = Running(servable())
    with running.connect() as connection:
        exchange(connection, post(INFER, ROWS))
        count, whole = 0, True
        threading.Timer(0.2, lambda: setattr(running.server, "should_exit", True)).start()
        with contextlib.suppress(ConnectionError, ValueError):
            while whole:
                answer = exchange(connection, post(INFER, ROWS))
                whole = answer.startswith(b"HTTP/1.1 200 ")
                count += whole
    running.stop()
    assert whole
    assert count > 10
