"""gitmodel.endpoint: servers announced, found, swept away when they are dead, and spoken to over a real Unix socket."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import stat
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from gitmodel import endpoint
from gitmodel.endpoint import Endpoint, NoServer
from tests.serving.production import read_request

OK = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s"


def dead_pid() -> int:
    """The id of a process that has been and gone."""
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


@contextlib.contextmanager
def answering(path: Path, answer: bytes) -> Iterator[list[bytes]]:
    """A socket that gives one answer, whatever it is asked; what it was asked is kept."""
    asked: list[bytes] = []
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()

        def run() -> None:
            connection, _ = listener.accept()
            with connection:
                asked.append(read_request(connection))
                connection.sendall(answer)

        thread = threading.Thread(target=run)
        thread.start()
        yield asked
        thread.join(30)


@pytest.fixture
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Short enough for a socket, whatever the test is called."""
    return tmp_path_factory.mktemp("s") / "s"


def test_a_server_that_is_announced_is_found_until_it_is_taken_back(tmp_path: Path) -> None:
    assert endpoint.running(tmp_path) == []
    here = Endpoint(os.getpid(), "http://127.0.0.1:1", "/run/admin.sock")
    announced = endpoint.announce(tmp_path, here)
    assert endpoint.running(tmp_path) == [here]
    assert [found.name for found in (tmp_path / "servers").iterdir()] == [f"{here.pid}.json"]
    announced.unlink()
    assert endpoint.running(tmp_path) == []


def test_what_a_dead_server_left_is_swept_away(tmp_path: Path) -> None:
    socket_file = tmp_path / "servers" / "admin.sock"
    announced = endpoint.announce(tmp_path, Endpoint(dead_pid(), "http://127.0.0.1:1", str(socket_file)))
    socket_file.touch()
    assert endpoint.running(tmp_path) == []
    assert not announced.exists()
    assert not socket_file.exists()
    announced = endpoint.announce(tmp_path, Endpoint(dead_pid(), "http://127.0.0.1:1", str(socket_file)))
    assert endpoint.running(tmp_path) == []
    assert not announced.exists()


def test_another_users_server_counts_as_running(tmp_path: Path) -> None:
    if os.getuid() == 0:
        pytest.skip("root may signal every process")
    here = Endpoint(1, "http://127.0.0.1:1", "/run/admin.sock")
    endpoint.announce(tmp_path, here)
    assert endpoint.running(tmp_path) == [here]


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "7",
        "{}",
        '{"pid": 1}',
        '{"pid": "1", "url": "u", "admin": "a"}',
        '{"pid": 1180591620717411303424, "url": "u", "admin": "a"}',
        '{"pid": 1, "url": "u", "admin": "a", "more": 1}',
    ],
)
def test_an_announcement_that_says_nothing_is_passed_over(tmp_path: Path, text: str) -> None:
    here = Endpoint(os.getpid(), "http://127.0.0.1:1", "/run/admin.sock")
    endpoint.announce(tmp_path, here)
    (tmp_path / "servers" / "0.json").write_text(text)
    assert endpoint.running(tmp_path) == [here]


def test_the_socket_lies_in_the_repositorys_own_state_where_its_path_is_short_enough() -> None:
    state = Path("/srv/models.git/gitmodel")
    assert endpoint.socket_path(state) == state / "servers" / f"{os.getpid()}.sock"


def test_else_it_lies_in_a_folder_for_this_user_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    state = Path("/srv") / ("x" * 100)
    first = endpoint.socket_path(state)
    assert first == endpoint.socket_path(state)
    assert first != endpoint.socket_path(state / "other")
    assert first.parent.parent == tmp_path
    assert stat.S_IMODE(first.parent.stat().st_mode) == 0o700
    assert len(os.fsencode(first.name)) < 40


def test_a_folder_others_may_enter_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    private = tmp_path / f"gitmodel-{os.getuid()}"
    private.mkdir()
    private.chmod(0o755)
    with pytest.raises(NoServer, match="is not private") as caught:
        endpoint.socket_path(Path("/srv") / ("x" * 100))
    assert "--admin" in caught.value.hint


def test_a_link_to_a_folder_is_refused_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir(mode=0o700)
    (tmp_path / f"gitmodel-{os.getuid()}").symlink_to(elsewhere)
    with pytest.raises(NoServer, match="is not private"):
        endpoint.socket_path(Path("/srv") / ("x" * 100))


def test_a_request_carries_json_both_ways(path: Path) -> None:
    with answering(path, OK % (10, b'{"a": [1]}')) as asked:
        assert endpoint.request(str(path), "POST", "/v2/x", {"b": "ü"}, timeout=30) == {"a": [1]}
    head, _, body = asked[0].partition(b"\r\n\r\n")
    assert head.startswith(b"POST /v2/x HTTP/1.1\r\n")
    assert b"Content-Type: application/json" in head
    assert json.loads(body) == {"b": "ü"}


def test_an_empty_answer_is_nothing(path: Path) -> None:
    with answering(path, OK % (0, b"")):
        assert endpoint.request(str(path), "GET", "/", timeout=30) is None


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (b"HTTP/1.1 500 No\r\nContent-Length: 16\r\n\r\n" + b'{"error": "full"}'[:16], "does not answer"),
        (b"HTTP/1.1 500 No\r\nContent-Length: 17\r\n\r\n" + b'{"error": "full"}', "refused (500: full)"),
        (b"HTTP/1.1 403 No\r\nContent-Length: 2\r\n\r\n[]", "refused (403: )"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n{{{", "does not answer"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "does not answer"),
        (b"", "does not answer"),
    ],
)
def test_an_answer_that_is_none_is_said_in_words(path: Path, answer: bytes, says: str) -> None:
    with answering(path, answer), pytest.raises(NoServer) as caught:
        endpoint.request(str(path), "GET", "/", timeout=30)
    assert says in caught.value.message
    assert "gitmodel status" in caught.value.hint or "log" in caught.value.hint


def test_a_server_that_says_nothing_is_not_waited_for(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        with pytest.raises(NoServer, match="no answer in time"):
            endpoint.request(str(path), "GET", "/", timeout=0.05)


def test_nobody_at_the_socket_is_said_with_its_path(path: Path) -> None:
    with pytest.raises(NoServer, match=str(path)):
        endpoint.request(str(path), "GET", "/", timeout=30)
    with pytest.raises(NoServer, match="does not answer"):
        endpoint.request("/" + "x" * 200, "GET", "/", timeout=30)
