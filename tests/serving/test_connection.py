"""gitmodel.serving.connection: what is answered where it was parsed reads like what uvicorn's own way gives, byte for byte."""

from __future__ import annotations

import contextlib
import gc
import gzip
import json
import re
import socket
import threading
import time
import weakref
from collections.abc import Callable, Iterator, Sequence
from functools import partial
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
_MOST_BODY = 40_000
_LENGTH = re.compile(rb"\r\ncontent-length: (\d+)")


class Running:
    """A server on a thread of this process, so that a test sees its connections."""

    def __init__(
        self, servable: Servable, *, requests: bool = False, most: int = _MOST_BODY, body_seconds: float = 30.0
    ) -> None:
        self.said: list[str] = []
        #: Answers that were given at once.
        self.at_once = 0
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

            def standing(self) -> dict[str, dict[str, str]]:
                return {}

            def ready(self) -> bool:
                return True

        running = self

        class Counting(App):
            def at_once(self, scope: dict[str, Any], pieces: Sequence[bytes]) -> Answer | None:
                answer = super().at_once(scope, pieces)
                running.at_once += answer is not None
                return answer

        app = self.app = Counting(
            Dataplane(lambda: table, lambda _: []), Nothing(), look, traffic=self.traffic, guard=Guard("127.0.0.1"),
            version="1", journal=journal, max_body=most, body_seconds=body_seconds,
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
    def connections(self) -> list[Connection]:
        return [each for each in list(self.server.server_state.connections) if isinstance(each, Connection)]

    def on_loop(self, function: Callable[[], object]) -> None:
        """Called between turns of the event loop, which waits for it."""
        self.connections[0].loop.call_soon_threadsafe(function)

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
        made.at_once = 0
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


def exchange_all(connection: socket.socket, request: bytes, count: int) -> bool:
    """Sends it so many times before an answer is read; whether each is answered."""
    sending = threading.Thread(target=connection.sendall, args=(request * count,))
    sending.start()
    found = answers(connection, count)
    sending.join(place.PATIENCE)
    return len(found) == count


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
        (post(INFER, ROWS, "Content-Encoding: identity"), 200),
        (post(INFER, b"{nothing"), 400),
        (post(INFER, json.dumps(infer(rows(2)[:, :3])).encode()), 400),
        (post(INFER, b"12345", "Inference-Header-Content-Length: 6"), 400),
        (post(INFER, b"12345", "Inference-Header-Content-Length: six"), 400),
        (post(INFER, ROWS, "Origin: http://elsewhere.example"), 403),
        (post(INFER, ROWS, host="elsewhere.example"), 421),
        (post(INFER, b" " * (_MOST_BODY + 1)), 413),
        (post(INFER, gzip.compress(ROWS), "Content-Encoding: gzip"), 415),
        (post(INFER, gzip.compress(ROWS), "Content-Encoding: GZIP", "Inference-Header-Content-Length: 100"), 415),
        (post(PREDICT, gzip.compress(b'{"instances":[{"x":[1,2,3,4]}]}'), "Content-Encoding: deflate"), 415),
    ],
)
def test_both_ways_give_the_same(running: Running, request_: bytes, status: int) -> None:
    at_once, ordinary = both_ways(running, request_, refused=status in (403, 415, 421))
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


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
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


#: A body that comes in several reads: uvloop's are of 256 kB at most.
LARGE_ROWS = rows(40_000)
LARGE_HEAD = json.dumps(
    {
        "inputs": [
            {
                "name": "x", "shape": [40_000, 4], "datatype": "FP32",
                "parameters": {"binary_data_size": LARGE_ROWS.nbytes},
            }
        ],
        "parameters": {"binary_data_output": True},
    }
).encode()  # fmt: skip
LARGE = post(INFER, LARGE_HEAD + LARGE_ROWS.tobytes(), f"Inference-Header-Content-Length: {len(LARGE_HEAD)}")


@pytest.fixture
def roomy(servable: Callable[..., Servable]) -> Iterator[Running]:
    """Takes large bodies, for a second each."""
    made = Running(servable(), most=1 << 20, body_seconds=1.0)
    try:
        with made.connect() as connection:
            assert exchange(connection, LARGE).startswith(b"HTTP/1.1 200 OK\r\n")
        place.until(lambda: not made.connections)
        made.at_once = 0
        yield made
    finally:
        made.stop()


def held(running: Running) -> int:
    """Bytes of bodies that are not whole yet."""
    return running.app.bodies._reading


def test_a_large_body_that_comes_quickly_is_answered_at_once_and_as_ever(roomy: Running) -> None:
    with roomy.connect() as connection:
        place.until(lambda: len(roomy.connections) == 1)
        (served,) = roomy.connections
        # Reads as a machine with time to spare has them; a socket's may be smaller.
        for start in range(0, len(LARGE), 256 << 10):
            roomy.on_loop(partial(served.data_received, LARGE[start : start + (256 << 10)]))
        (at_once,) = answers(connection, 1)
        assert roomy.at_once == 1
        roomy.app._usual.clear()
        ordinary = exchange(connection, LARGE)
    assert roomy.at_once == 1
    assert _undated(at_once) == _undated(ordinary)
    assert held(roomy) == 0


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=25)
@given(st.lists(st.integers(1, 2 * len(LARGE) - 1), max_size=4, unique=True))
def test_wherever_a_large_body_is_cut_the_answers_are_the_same(roomy: Running, cuts: list[int]) -> None:
    sent = LARGE * 2
    found: list[bytes] = []
    with roomy.connect() as connection:
        reading = threading.Thread(target=lambda: found.extend(answers(connection, 2)))
        reading.start()
        for start, end in zip([0, *sorted(cuts)], [*sorted(cuts), len(sent)], strict=True):
            connection.sendall(sent[start:end])
            time.sleep(0.0005)
        reading.join(place.PATIENCE)
    first, second = (answer.partition(b"\r\n\r\n")[2] for answer in found)
    assert first == second
    assert len(first) > 40_000 * 3 * 4
    assert held(roomy) == 0


def test_a_large_body_that_stops_coming_is_refused_in_time_and_forgotten(
    roomy: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gitmodel.serving.patience._LOOK_EVERY", 0.05)
    time.sleep(1.1)  # until it looks that often
    with roomy.connect() as connection:
        connection.sendall(LARGE[:-1])
        place.until(lambda: held(roomy) > 0)
        begun = time.monotonic()
        (answer,) = answers(connection, 1)
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert time.monotonic() - begun < 20
    place.until(lambda: held(roomy) == 0)


def test_of_a_large_body_whose_client_goes_away_nothing_stays(roomy: Running) -> None:
    with roomy.connect() as connection:
        connection.sendall(LARGE[:-1])
        place.until(lambda: held(roomy) > 0)
    place.until(lambda: held(roomy) == 0 and not roomy.connections)
    assert roomy.traffic.errors == {400: 1}


def test_large_bodies_that_nobody_has_room_for_are_not_waited_for_here(
    roomy: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(roomy.app.bodies, "_reading", 8 << 20)
    with roomy.connect() as connection:
        assert exchange(connection, LARGE).startswith(b"HTTP/1.1 503 ")
    assert roomy.at_once == 0


def test_a_body_that_is_too_large_is_refused_however_it_comes(servable: Callable[..., Servable]) -> None:
    running = Running(servable(), most=300_000)
    try:
        with running.connect() as connection:
            exchange(connection, post(INFER, ROWS))
            assert exchange(connection, LARGE).startswith(b"HTTP/1.1 413 ")
        assert held(running) == 0
    finally:
        running.stop()


def test_a_client_that_reads_no_answers_gets_no_more_of_them(running: Running) -> None:
    """And all of them when it reads again."""
    count, request = 20_000, post(INFER, ROWS)
    with running.connect() as connection:
        sending = threading.Thread(target=connection.sendall, args=(request * count,))
        sending.start()
        place.until(lambda: any(each.flow.write_paused for each in running.connections))
        (theirs,) = running.connections
        assert len(theirs.pipeline) <= 1024
        assert theirs.transport.get_write_buffer_size() < 1 << 20
        found = answers(connection, count)
        sending.join(place.PATIENCE)
    assert len(found) == count
    assert {answer.partition(b"\r\n\r\n")[2] for answer in found} == {found[0].partition(b"\r\n\r\n")[2]}


def test_whoever_may_not_ask_is_cut_off_and_what_follows_is_not_run(running: Running) -> None:
    before = running.traffic.of("fraud", "v1.0.0").statuses[200]
    with running.connect() as connection:
        connection.sendall(
            post(INFER, ROWS, host="elsewhere.example") + post(INFER, ROWS) * 3 + post(INFER + "?a=1", ROWS)
        )
        found = answers(connection, 5)
    assert [answer[:12] for answer in found] == [b"HTTP/1.1 421"]
    assert running.traffic.of("fraud", "v1.0.0").statuses[200] == before
    assert running.server.server_state.total_requests == 2 + 1
    with running.connect() as connection:  # by when what was begun would have ended
        exchange(connection, post(INFER, ROWS))
    assert running.traffic.errors == {421: 1}


def test_in_one_turn_of_the_event_loop_a_client_gets_a_few_answers(running: Running) -> None:
    """However much of it is there: reads that come back full are followed by others in the same turn."""
    request = post(INFER, ROWS[:-1] + b" " * (32_000 - len(post(INFER, ROWS)) - 2) + b"}")
    assert 256_000 % len(request) == 0
    most, before, count = 0, 0, 128
    with running.connect() as connection:
        assert exchange_all(connection, request, count)  # from now on the kernel takes much
        running.at_once = 0

        def turn() -> None:
            nonlocal most, before
            most, before = max(most, running.at_once - before), running.at_once
            if running.at_once < count:
                loop.call_soon(turn)

        loop = running.connections[0].loop
        running.on_loop(lambda: time.sleep(0.5))  # meanwhile all of it comes
        running.on_loop(turn)
        assert exchange_all(connection, request, count)
    assert running.at_once > 8
    assert most <= 8


@pytest.mark.parametrize(
    ("begin", "more"),
    [
        (b"POST / HTTP/1.1\r\nX-Long: ", b"a" * 65536),
        (b"POST / HTTP/1.1\r\n", b"X-Many: of them\r\n" * 4000),
        (
            f"POST {INFER} HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n{{\r\n0\r\n".encode(),
            b"X-Trailer: of them\r\n" * 4000,
        ),
        (f"POST {INFER} HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n1;e=".encode(), b"a" * 65536),
    ],
)
def test_what_is_no_body_is_bounded(running: Running, begin: bytes, more: bytes) -> None:
    with running.connect() as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(begin)
            for _ in range(1000):  # 64 MB
                connection.sendall(more)
            pytest.fail("it was taken")
        with contextlib.suppress(ConnectionError):
            assert not (answer := connection.recv(1 << 16)) or answer.startswith(b"HTTP/1.1 431 ")


CHUNKED = "Transfer-Encoding: chunked\r\n"


@pytest.mark.parametrize(
    ("request_", "says", "noted"),
    [
        (post("/" + "a" * 70_000, ROWS), "url is too long", "POST /aaa"),
        (post(INFER, ROWS, CHUNKED.strip()), "Transfer-Encoding can't be present with Content-Length", f"POST {INFER} 400"),
        (f"POST {INFER} HTTP/1.1\r\nHost: 127.0.0.1\r\n{CHUNKED}\r\nx\r\n".encode(), "chunk size", f"POST {INFER} 400"),
        (f"POST {INFER}?a=1 HTTP/1.1\r\nHost: 127.0.0.1\r\n{CHUNKED}\r\nx\r\n".encode(), "chunk size", f"POST {INFER} 400"),
        (b"hello\r\n\r\n", "method", "- - 400"),
        (post(INFER, ROWS) + b"\x16\x03\x01", "method", "- - 400"),
        (b"GET / HTTP/1.1\r\nHost: a\x00b\r\n\r\n", "Invalid header value", "GET / 400"),
    ],
    ids=["URL", "two lengths", "chunk", "chunk elsewhere", "words", "TLS after a request", "header"],
)  # fmt: skip
def test_what_is_no_http_is_told_so_in_the_form_of_all_errors(
    servable: Callable[..., Servable], request_: bytes, says: str, noted: str
) -> None:
    running = Running(servable(), requests=True)
    try:
        with running.connect() as connection:
            exchange(connection, post(INFER, ROWS))
            connection.sendall(request_)
            answer = answers(connection, 2)[-1]
            assert connection.recv(1) == b""
        head, _, body = answer.partition(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 400 ")
        assert b"\r\ncontent-type: application/json\r\nconnection: close\r\n" in head
        error = json.loads(body)["error"]
        assert error.startswith("this is no valid HTTP request: ")
        assert says.lower() in error.lower()
        assert running.traffic.errors[400] >= 1
        name = re.search(rb"x-request-id: (\S+)", head)
        assert name is not None
        (line,) = (line for line in running.said if name[1].decode() in line)
        assert noted in line
        assert error in line
        with running.connect() as connection:
            assert exchange(connection, post(INFER, ROWS)).startswith(b"HTTP/1.1 200 ")
    finally:
        running.stop()


def test_what_is_no_http_spoils_no_answer_that_is_on_its_way(running: Running) -> None:
    with running.connect() as connection:
        connection.sendall(post(INFER + "?a=1", ROWS) + b"hello\r\n\r\n")
        with contextlib.suppress(ConnectionError):
            assert connection.recv(1) == b"", "the first one's answer, or none"


def test_a_body_in_the_smallest_chunks_is_none_too_many(running: Running) -> None:
    body = b"".join(b"1\r\n \r\n" for _ in range(_MOST_BODY - len(ROWS)))
    body += b"%x\r\n%s\r\n0\r\n\r\n" % (len(ROWS), ROWS)
    with running.connect() as connection:
        for _ in range(3):
            connection.sendall(
                f"POST {INFER} HTTP/1.1\r\nHost: 127.0.0.1\r\nTransfer-Encoding: chunked\r\n\r\n".encode()
            )
            assert exchange(connection, body).startswith(b"HTTP/1.1 200 ")


def test_a_client_that_sends_thousands_of_requests_before_it_reads_one_answer_is_let_go_of(running: Running) -> None:
    with running.connect() as connection:
        with contextlib.suppress(ConnectionError):
            connection.sendall(b"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" * 100_000)
        place.until(lambda: not running.connections)


def test_what_follows_a_body_is_no_header(running: Running) -> None:
    head = f"POST {INFER} HTTP/1.1\r\nHost: {{}}\r\nTransfer-Encoding: chunked\r\n\r\n"
    body = b"%x\r\n%s\r\n0\r\n" % (len(ROWS), ROWS)
    with running.connect() as connection:
        late = b"Expect: 100-continue\r\nX-Request-Id: late\r\nOrigin: http://elsewhere.example\r\n\r\n"
        answer = exchange(connection, head.format("127.0.0.1").encode() + body + late)
        assert answer.startswith(b"HTTP/1.1 200 ")
        assert b"late" not in answer
        assert exchange(connection, post(INFER, ROWS)).startswith(b"HTTP/1.1 200 ")
        assert running.at_once == 2
        answer = exchange(connection, head.format("elsewhere.example").encode() + body + b"Host: 127.0.0.1\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 421 ")
    with running.connect() as connection:
        answer = exchange(connection, head.format("127.0.0.1").encode() + body + b"Connection: close\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 200 ")
        connection.settimeout(20)
        assert connection.recv(1) == b"", "that is of the connection, wherever it stands"


def test_a_request_cannot_hide_behind_one_that_asks_for_an_upgrade(running: Running) -> None:
    hidden = post("/v2/repository/index", b"{}")
    request = post(INFER, hidden, "Connection: Upgrade", "Upgrade: h2c")
    size = len(request) - len(hidden)
    with running.connect() as connection:
        connection.sendall(request[:size])
        with contextlib.suppress(ConnectionError):
            time.sleep(0.05)
            connection.sendall(request[size:])
        assert len(answers(connection, 2)) == 1


def test_each_path_is_known_by_one_spelling_and_the_newest_of_them(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = "/v2/models/fraud/versions/v1.0.0/infer"
    with running.connect() as connection:
        for spelling in ("/v2/models/%66raud/infer", "/v2/models/frau%64/infer"):
            for _ in range(2):
                assert exchange(connection, post(spelling, ROWS)).startswith(b"HTTP/1.1 200 ")
        assert running.at_once == 0
        monkeypatch.setattr("gitmodel.serving.rest._MOST_USUAL", 2)
        exchange(connection, post(other, ROWS))
        for path in (INFER, other, PREDICT):
            assert running.app.is_usual(path.encode()) is (path != INFER)


def test_a_client_that_is_gone_leaves_nothing_behind(running: Running, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gitmodel.serving.patience._LOOK_EVERY", 0.01)
    time.sleep(1.1)  # until it looks that often
    with running.connect() as connection:
        exchange(connection, post(INFER, ROWS))
        (left,) = (weakref.ref(each) for each in running.connections)
        time.sleep(0.05)
    place.until(lambda: gc.collect() is not None and left() is None)


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


def test_an_accident_while_an_answer_is_finished_is_nobody_elses_either(
    running: Running, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as context, running.connect() as connection:
        context.setattr(App, "_finished", lambda *_: 1 / 0)
        answer = exchange(connection, post(INFER, ROWS))
        assert answer.startswith(b"HTTP/1.1 500 ")
        assert connection.recv(1) == b""
    with running.connect() as connection:
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
