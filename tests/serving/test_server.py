"""gitmodel.serving.server: real processes that start, swap under load, are ended or killed, and come back."""

from __future__ import annotations

import contextlib
import signal
import socket
import stat
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from gitmodel import endpoint, runtime
from gitmodel.serving import listening
from gitmodel.serving.listening import CannotListen
from gitmodel.versions import Version
from tests import support
from tests.serving import production as place
from tests.serving.production import Production, Server, array, infer, rows, said, tensors

INFER = "/v2/models/fraud/infer"
Starts = Callable[..., Server]


@pytest.fixture
def start() -> Iterator[Starts]:
    """Starts servers, and ends by their own ids those a test leaves running."""
    running: list[Server] = []

    def begin(repo: Path, *options: str) -> Server:
        running.append(place.start(repo, *options))
        return running[-1]

    yield begin
    for server in running:
        server.stop()


def hooked(production: Production) -> Production:
    done = support.run("gitmodel", "hooks", "install", "--server", "--repo", production.bare)
    assert done.returncode == 0, done.stderr
    return production


def version_of(server: Server) -> str | None:
    """Which version answers a call, or None when none does."""
    answer = server.ask("POST", INFER, infer(rows(1)))
    return answer.who[0] if answer.status == 200 else None


def left_behind(repo: Path) -> list[str]:
    return sorted(path.name for path in (repo / "gitmodel" / "servers").iterdir())


# Starting and ending


def test_whoever_reads_the_url_may_connect_at_once(production: Production, start: Starts) -> None:
    server = start(production.bare)
    assert server.ask("GET", "/v2/health/live").status == 200
    assert server.pid == server.process.pid
    assert endpoint.request(server.admin, "GET", "/v2/health/live", timeout=place.PATIENCE) == {"live": True}


@pytest.fixture
def hangup() -> Iterator[Callable[[signal.Handlers], object]]:
    """Sets what becomes of SIGHUP here, and in what is started from here: under nohup it would be ignored."""
    before = signal.getsignal(signal.SIGHUP)
    yield lambda handler: signal.signal(signal.SIGHUP, handler)
    signal.signal(signal.SIGHUP, before)


def test_sigterm_sigint_and_sighup_end_it_well_and_leave_nothing(
    production: Production, start: Starts, hangup: Callable[[signal.Handlers], object]
) -> None:
    hangup(signal.SIG_DFL)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        server = start(production.bare)
        assert Path(server.admin).exists()
        (announced,) = endpoint.running(production.bare / "gitmodel")
        assert (announced.pid, announced.url, announced.admin) == (server.pid, server.url, server.admin)
        assert server.stop(number) == 0
        assert "stopped" in server.lines
        assert left_behind(production.bare) == []
        assert not Path(server.admin).exists()


def test_under_nohup_it_outlives_its_terminal(
    production: Production, start: Starts, hangup: Callable[[signal.Handlers], object]
) -> None:
    hangup(signal.SIG_IGN)
    server = start(production.bare)
    server.process.send_signal(signal.SIGHUP)
    time.sleep(0.2)
    assert server.ask("GET", "/v2/health/live").status == 200


def test_the_management_socket_is_for_this_user_alone(production: Production, start: Starts, tmp_path: Path) -> None:
    server = start(production.bare, "--admin", str(tmp_path / "here" / "admin.sock"))
    admin = Path(server.admin)
    assert admin == tmp_path / "here" / "admin.sock"
    assert stat.S_IMODE(admin.stat().st_mode) == 0o600
    assert stat.S_IMODE(admin.parent.stat().st_mode) == 0o700


def test_a_port_that_is_taken_is_exit_3_and_one_line(production: Production) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        done = support.gitmodel("serve", "--port", str(port), cwd=production.bare)
    assert done.returncode == 3
    assert done.stdout == ""
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"error[cannot-listen]: cannot listen on 127.0.0.1:{port} (")
    assert "--port" in line
    assert not list((production.bare / "gitmodel").glob("servers/*"))


def test_two_servers_never_share_a_port(production: Production, start: Starts) -> None:
    first = start(production.bare)
    with pytest.raises(CannotListen):
        listening.listen(*first.address)
    with listening.listen("127.0.0.1", 0) as listener, pytest.raises(CannotListen):
        listening.listen("127.0.0.1", listener.getsockname()[1])


@pytest.mark.parametrize("host", ["nowhere.invalid", "192.0.2.1", "::ffff", "a b"])
def test_an_address_that_is_not_here_is_named(host: str) -> None:
    with pytest.raises(CannotListen) as caught:
        listening.listen(host, 0)
    assert caught.value.message.startswith(f"cannot listen on {host}:0 (")
    assert caught.value.exit_code == 3


def test_ipv6_is_written_with_brackets(production: Production, start: Starts) -> None:
    try:
        with socket.socket(socket.AF_INET6) as probe:
            probe.bind(("::1", 0))
    except OSError:
        pytest.skip("no IPv6 here")
    server = start(production.bare, "--host", "::1")
    assert server.url.startswith("http://[::1]:")
    assert server.ask("GET", "/v2/health/live").status == 200


def test_a_management_socket_never_takes_somebodys_place(production: Production, start: Starts, tmp_path: Path) -> None:
    file = tmp_path / "notes.txt"
    file.write_text("mine")
    link = tmp_path / "link"
    link.symlink_to(file)
    other = start(production.bare)
    for taken in (file, link, tmp_path, Path(other.admin), tmp_path / ("x" * 150), file / "below"):
        with pytest.raises(CannotListen) as caught, listening.listen_unix(taken):
            pass
        assert str(taken) in caught.value.message
        assert "None" not in caught.value.message
        assert "--admin" in caught.value.hint
    assert file.read_text() == "mine"
    assert link.is_symlink()
    assert endpoint.request(other.admin, "GET", "/v2/health/live", timeout=place.PATIENCE) == {"live": True}


def test_the_socket_of_a_dead_server_is_taken_over(production: Production, start: Starts, tmp_path: Path) -> None:
    admin = str(tmp_path / "admin.sock")
    assert start(production.bare, "--admin", admin).kill() == -signal.SIGKILL
    assert Path(admin).exists()
    again = start(production.bare, "--admin", admin)
    assert endpoint.request(again.admin, "GET", "/v2/health/live", timeout=place.PATIENCE) == {"live": True}


def test_a_repository_whose_path_is_too_long_for_a_socket_gets_a_private_one(tmp_path: Path, start: Starts) -> None:
    deep = tmp_path / ("d" * 100)
    deep.mkdir()
    server = start(Production.make(deep).bare)
    assert not Path(server.admin).is_relative_to(deep)
    assert stat.S_IMODE(Path(server.admin).parent.stat().st_mode) == 0o700
    assert endpoint.request(server.admin, "GET", "/v2/health/live", timeout=place.PATIENCE) == {"live": True}


# What is served


def test_without_a_hint_new_versions_are_found_by_looking(production: Production, start: Starts) -> None:
    server = start(production.bare, "--poll", "0.1")
    production.push(production.release("fraud@v1.0.0"))
    line = server.wait_for(lambda text: "fraud v1.0.0 AVAILABLE" in text)
    assert line.endswith(" s, 4/4 golden cases")
    assert version_of(server) == "v1.0.0"


def test_a_working_repository_is_served_too(production: Production, start: Starts) -> None:
    production.release("fraud@v1.0.0")
    server = start(production.author)
    server.look()
    assert version_of(server) == "v1.0.0"


def test_one_model_of_several_or_one_stage_may_be_served(production: Production, start: Starts) -> None:
    tags = [production.release("fraud@v1.0.0"), production.release("spam@v1.0.0")]
    stage = production.tag("fraud#canary#1", "fraud@v1.0.0^{}")
    tags.append(production.release("fraud@v1.1.0", scale=2.0))
    production.push(*tags, stage)
    server = start(production.bare, "--model", "fraud", "--follow", "canary", "--remote", str(production.storage))
    server.look()
    assert version_of(server) == "v1.0.0"
    assert server.ask("GET", "/v2/models/spam").status == 404
    assert server.ask("GET", "/v2/health/ready").status == 200


def test_a_stage_moves_what_is_served_and_back(production: Production, start: Starts) -> None:
    production.push(production.release("fraud@v1.0.0"), production.release("fraud@v1.1.0", scale=2.0))
    server = start(production.bare)
    server.look()
    assert version_of(server) == "v1.1.0"
    for move, commit, version in ((1, "fraud@v1.0.0^{}", "v1.0.0"), (2, "fraud@v1.1.0^{}", "v1.1.0")):
        production.push(production.tag(f"fraud#prod#{move}", commit))
        server.look()
        assert version_of(server) == version
        (row,) = [row for row in server.look("fraud")["versions"] if row["stages"]]
        assert (row["version"], row["stages"]) == (version, ["prod"])


def test_a_withdrawn_version_goes_and_the_one_before_it_comes(production: Production, start: Starts) -> None:
    production.push(production.release("fraud@v1.0.0"), production.release("fraud@v1.1.0", scale=2.0))
    server = start(production.bare)
    server.look()
    production.push(production.tag("fraud@v1.1.0!"))
    server.look()
    assert version_of(server) == "v1.0.0"
    production.push(production.tag("fraud@v1.0.0!"))
    server.look()
    assert version_of(server) is None
    gone = server.ask("GET", "/v2/models/fraud")
    assert gone.status == 503
    assert "no longer served" in gone.error
    assert server.ask("GET", "/v2/health/ready").status == 200


def test_a_broken_version_leaves_the_old_one_serving(production: Production, start: Starts) -> None:
    production.push(production.release("fraud@v1.0.0"))
    server = start(production.bare)
    server.look()
    production.push(production.release("fraud@v1.1.0", scale=2.0, broken=True))
    server.look()
    assert version_of(server) == "v1.0.0"
    assert server.ask("GET", "/v2/health/ready").status == 200
    refused = server.ask("GET", "/v2/models/fraud/versions/v1.1.0")
    assert refused.status == 503
    assert "golden cases fail" in refused.error


# Coming back


def test_a_killed_server_leaves_no_trace_when_the_next_one_starts(production: Production, start: Starts) -> None:
    production.push(production.release("fraud@v1.0.0"))
    first = start(production.bare)
    first.look()
    assert first.kill() == -signal.SIGKILL
    assert left_behind(production.bare) != []
    second = start(production.bare)
    second.look()
    assert version_of(second) == "v1.0.0"
    assert [found.pid for found in endpoint.running(production.bare / "gitmodel")] == [second.pid]
    assert left_behind(production.bare) == sorted(
        {f"{second.pid}.json", Path(second.admin).name} & set(left_behind(production.bare))
    )


def test_a_restart_needs_no_remote(production: Production, start: Starts) -> None:
    production.push(production.release("fraud@v1.0.0"))
    first = start(production.bare)
    first.look()
    first.kill()
    production.lose_remote()
    second = start(production.bare)
    second.look()
    assert version_of(second) == "v1.0.0"


@pytest.mark.parametrize("end", [Server.stop, Server.kill], ids=["stopped", "killed"])
def test_a_restart_finds_the_last_good_version(
    production: Production, start: Starts, end: Callable[[Server], int]
) -> None:
    production.push(production.release("fraud@v1.0.0"))
    first = start(production.bare)
    first.look()
    production.push(production.release("fraud@v1.1.0", scale=2.0, broken=True))
    first.look()
    assert version_of(first) == "v1.0.0"
    end(first)
    second = start(production.bare)
    second.look()
    assert version_of(second) == "v1.0.0"
    assert second.ask("GET", "/v2/health/ready").status == 200
    assert "golden cases fail" in second.ask("GET", "/v2/models/fraud/versions/v1.1.0").error
    production.push(production.release("fraud@v1.2.0", scale=3.0))
    second.look()
    assert version_of(second) == "v1.2.0"


def test_a_last_good_version_that_was_withdrawn_does_not_come_back(production: Production, start: Starts) -> None:
    production.push(production.release("fraud@v1.0.0"))
    first = start(production.bare)
    first.look()
    first.stop()
    production.push(production.release("fraud@v1.1.0", scale=2.0, broken=True), production.tag("fraud@v1.0.0!"))
    second = start(production.bare)
    second.look()
    assert version_of(second) is None
    assert second.ask("GET", "/v2/health/ready").status == 400


def test_a_damaged_memory_of_the_last_good_version_is_in_nobodys_way(production: Production, start: Starts) -> None:
    production.push(production.release("fraud@v1.0.0"))
    memory = production.bare / "gitmodel" / "serving.json"
    memory.parent.mkdir()
    memory.write_text('[{"model": "fraud", "version": 1}]')
    server = start(production.bare)
    server.look()
    assert version_of(server) == "v1.0.0"


# Under load


@dataclass
class Client:
    """One connection that asks all the time, and what was wrong with its answers."""

    server: Server
    expected: dict[str, np.ndarray]
    versions: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def run(self, enough: threading.Event, begun: threading.Semaphore) -> None:
        """Every few milliseconds until it is enough; then once more, so that what serves last is seen for sure."""
        body = infer(rows(2))
        with contextlib.closing(self.server.connect()) as connection:
            last = False
            while not last:
                last = enough.wait(0.004)
                try:
                    answer = place.ask(connection, "POST", INFER, body)
                except OSError as error:
                    self.wrong.append(repr(error))
                    return
                self._judge(answer)
                if len(self.versions) == 1:
                    begun.release()

    def _judge(self, answer: place.Answer) -> None:
        if answer.status != 200:
            self.wrong.append(f"{answer.status}: {answer.body[:200]!r}")
            return
        version = str(answer.who[0])
        if answer.json["model_version"] != version:
            self.wrong.append(f"header {version}, body {answer.json['model_version']}")
        if not np.array_equal(array(tensors(answer)["scores"]), self.expected[version]):
            self.wrong.append(f"the answer of {version} is another version's")
        if self.versions and Version.parse(version) < Version.parse(self.versions[-1]):
            self.wrong.append(f"{version} after {self.versions[-1]}")
        self.versions.append(version)


def test_no_request_fails_while_ten_versions_are_pushed(production: Production, start: Starts, tmp_path: Path) -> None:
    versions = [f"v1.{minor}.0" for minor in range(11)]
    expected = {}
    for number, version in enumerate(versions):
        scale = 1.0 + number
        production.release(f"fraud@{version}", scale=scale)
        path = tmp_path / "expected.onnx"
        path.write_bytes(support.linear_model(scale=scale).SerializeToString())
        expected[version] = runtime.open_session(path).run({"x": rows(2)})["scores"]
    hooked(production)
    server = start(production.bare)
    production.push("fraud@v1.0.0")
    clients = [Client(server, expected) for _ in range(3)]
    enough, begun = threading.Event(), threading.Semaphore(0)
    threads = [threading.Thread(target=client.run, args=(enough, begun)) for client in clients]
    for thread in threads:
        thread.start()
    try:
        for _ in threads:
            assert begun.acquire(timeout=place.PATIENCE)
        for version in versions[1:]:
            (line,) = said(production.push(f"fraud@{version}"))
            assert line.startswith(f"fraud {version} AVAILABLE in ")
    finally:
        enough.set()
        for thread in threads:
            thread.join(place.PATIENCE)
    for client in clients:
        assert client.wrong == []
        assert client.versions[0] == "v1.0.0"
        assert client.versions[-1] == "v1.10.0"
    assert {version for client in clients for version in client.versions} == set(versions)


def test_a_request_in_flight_is_answered_when_the_server_is_asked_to_stop(
    production: Production, start: Starts
) -> None:
    production.push(production.release("fraud@v1.0.0"))
    server = start(production.bare)
    server.look()
    body = b'{"inputs":[{"name":"x","shape":[1,4],"datatype":"FP32","data":[1,2,3,4]}]}'
    with socket.create_connection(server.address, timeout=place.PATIENCE) as connection:
        head = f"POST {INFER} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n\r\n".encode()
        connection.sendall(head + body[:10])
        # Another request on a connection of its own shows that the server has read the first half.
        assert server.ask("GET", "/v2/health/live").status == 200
        stopping = threading.Thread(target=server.stop)
        stopping.start()
        connection.sendall(body[10:])
        assert connection.recv(4096).startswith(b"HTTP/1.1 200")
    stopping.join(place.PATIENCE)
    assert server.stop() == 0
