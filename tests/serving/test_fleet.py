"""Several workers behind one port: they answer alike, switch at one moment, and are replaced when they end."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
import venv
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from gitmodel import endpoint
from tests import support
from tests.serving import production as place
from tests.serving.production import Production, Server, expected, infer, rows, said, tensors, until

INFER = "/v2/models/fraud/infer"
_JOINED = re.compile(r"worker (\d+) answers \(pid (\d+)\)")


@contextlib.contextmanager
def fleet(repo: Path, *options: str, workers: int = 2) -> Iterator[Server]:
    with place.serving(repo, "--workers", str(workers), *options) as server:
        yield server


def pids(server: Server) -> dict[int, int]:
    """The newest process of each worker."""
    found = [_JOINED.fullmatch(line) for line in list(server.lines)]
    return {int(match[1]): int(match[2]) for match in found if match}


def children(pid: int) -> list[int]:
    """Of all its threads, which may end meanwhile."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(OSError):
            found += map(int, (task / "children").read_text().split())
    return found


def joined(server: Server, before: dict[int, int]) -> None:
    """Waits until all that ended have been replaced."""
    until(lambda: not set(pids(server).values()) & set(before.values()))


def versions(server: Server) -> set[str | None]:
    """What connections of their own are answered from: enough of them to reach every worker."""
    return {server.ask("POST", INFER, infer(rows(1))).who[0] for _ in range(24)}


@dataclass
class Caller:
    """Asks one call after another, each on the next of several connections, and writes down who answered: whatever workers
    these lead to, what a later answer says can never be older."""

    server: Server
    seen: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    lost: int = 0

    def run(self, stop: threading.Event) -> None:
        body, connections = json.dumps(infer(rows(1))), [self.server.connect() for _ in range(8)]
        turn = 0
        while not stop.is_set():
            turn = (turn + 1) % len(connections)
            try:
                connections[turn].request("POST", INFER, body)
                answer = connections[turn].getresponse()
                told = json.loads(answer.read())
            except (OSError, http.client.HTTPException):
                self.lost += 1  # on the connections of a worker that was killed
                connections[turn].close()
                connections[turn] = self.server.connect()
                continue
            version = answer.headers["gitmodel-version"]
            if answer.status != 200 or told["model_version"] != version:
                self.failed.append(f"{answer.status} {version} {told}")
            self.seen.append(version)
        for connection in connections:
            connection.close()


@contextlib.contextmanager
def calling(server: Server, count: int = 2) -> Iterator[list[Caller]]:
    callers, stop = [Caller(server) for _ in range(count)], threading.Event()
    threads = [threading.Thread(target=caller.run, args=(stop,)) for caller in callers]
    for thread in threads:
        thread.start()
    try:
        yield callers
    finally:
        stop.set()
        for thread in threads:
            thread.join(place.PATIENCE)


def number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.removeprefix("v").split("."))


def check(callers: list[Caller]) -> None:
    for caller in callers:
        assert not caller.failed
        order = [number(version) for version in caller.seen]
        assert order == sorted(order), "a client saw a new version and then an old one"


# Answers


def test_all_workers_answer_alike_and_are_seen_as_one_server(production: Production) -> None:
    production.push(production.release("fraud@v1.0.0"))
    with fleet(production.bare, workers=3) as server:
        assert sorted(pids(server)) == [1, 2, 3]
        assert server.pid not in pids(server).values()
        want = expected(production, scale=1.0)
        for _ in range(12):
            answer = server.ask("POST", INFER, infer(rows(2)))
            assert np.allclose(place.array(tensors(answer)["scores"]), want)
        assert server.ask("POST", INFER, b"{").status == 400
        for path in ("/v2/health/ready", "/v2/models/fraud/ready", "/v2/models/fraud", "/v1/models/fraud", "/"):
            assert server.ask("GET", path).status == 200
        metrics = server.ask("GET", "/metrics").body.decode()
        assert 'gitmodel_requests_total{model="fraud",status="200",version="v1.0.0"} 12.0' in metrics
        assert 'gitmodel_errors_total{status="400"} 1.0' in metrics
        assert "gitmodel_workers 3.0" in metrics
        assert "<td" in server.ask("GET", "/").body.decode()
        refused = server.ask("POST", "/v2/repository/models/fraud/load", {})
        assert refused.status == 403
        told = endpoint.request(server.admin, "GET", "/v2/gitmodel/status", timeout=place.PATIENCE)
        assert told == server.ask("GET", "/v2/gitmodel/status").json


def test_on_the_management_socket_nobody_answers_calls(production: Production) -> None:
    production.push(production.release("fraud@v1.0.0"))
    with (
        fleet(production.bare) as server,
        contextlib.closing(endpoint._UnixConnection(server.admin, place.PATIENCE)) as connection,
    ):
        answer = place.ask(connection, "POST", INFER, infer(rows(1)))
        assert answer.status == 400
        assert "port for calls" in answer.error
        assert place.ask(connection, "GET", "/v2/models/fraud").json["inputs"][0]["name"] == "x"


def test_what_workers_refuse_is_in_the_servers_log(production: Production) -> None:
    with fleet(production.bare, "--log-requests") as server:
        answer = server.ask("GET", "/v2/models/none", headers={"x-request-id": "mine"})
        assert answer.status == 404
        assert server.wait_for(lambda line: "GET /v2/models/none 404 [mine]" in line)


def test_several_workers_record_into_one_folder(production: Production, tmp_path: Path) -> None:
    production.push(production.release("fraud@v1.0.0"))
    with fleet(production.bare, "--record", str(tmp_path / "record")) as server:
        for _ in range(20):
            server.ask("POST", INFER, infer(rows(1)))
        folder = tmp_path / "record" / "fraud" / "v1.0.0"
        until(lambda: len(list(folder.glob("test_data_set_*"))) == 20)
        assert not any("recording stopped" in line for line in server.lines)


# Switching


def test_no_client_sees_a_new_version_and_then_an_old_one(production: Production) -> None:
    production.push(production.release("fraud@v1.0.0"))
    with fleet(production.bare, workers=4) as server, calling(server) as callers:
        for minor in range(1, 9):
            production.push(production.release(f"fraud@v1.{minor}.0", scale=1.0 + minor))
            assert server.look("fraud")["serving"] == f"v1.{minor}.0"
        assert versions(server) == {"v1.8.0"}
    check(callers)
    assert sum(caller.lost for caller in callers) == 0
    assert all(len(set(caller.seen)) > 2 for caller in callers), "the callers were there when it switched"


def test_a_version_that_fails_changes_nothing_for_anybody(production: Production) -> None:
    production.push(production.release("fraud@v1.0.0"))
    with fleet(production.bare) as server:
        before = pids(server)
        production.push(production.release("fraud@v2.0.0", broken=True))
        told = server.look("fraud")
        assert told["serving"] == "v1.0.0"
        assert "4 of 4 golden cases fail" in told["versions"][-1]["reason"]
        assert versions(server) == {"v1.0.0"}
        assert server.ask("GET", "/v2/health/ready").json == {"ready": True}
        assert pids(server) == before


def test_a_push_tells_the_pusher_what_the_workers_did(production: Production) -> None:
    done = support.run("gitmodel", "hooks", "install", "--server", "--repo", production.bare)
    assert done.returncode == 0
    with fleet(production.bare) as server:
        told = said(production.push(production.release("fraud@v1.0.0")))
        assert any("fraud v1.0.0" in line for line in told), told
        assert versions(server) == {"v1.0.0"}


def test_large_weights_are_packed_for_all_of_them(production: Production) -> None:
    production.push(production.release("fraud@v1.0.0", model=wide()))
    with fleet(production.bare) as server:
        packed = production.bare / "gitmodel" / "prepacked"
        until(lambda: list(packed.glob("*/sha256.json")))
        place_of = next(packed.glob("*/sha256.json")).parent
        for pid in pids(server).values():
            until(lambda pid=pid: str(place_of) in Path(f"/proc/{pid}/maps").read_text())  # type: ignore[misc]
        before = pids(server)
        os.kill(before[1], signal.SIGKILL)
        until(lambda: pids(server)[1] != before[1])
        assert str(place_of) in Path(f"/proc/{pids(server)[1]}/maps").read_text(), "one that joins goes on with it, too"
        assert versions(server) == {"v1.0.0"}


def wide(scale: float = 1.0, sines: int = 0) -> onnx.ModelProto:
    """A model of 8 MB, linear or with so many ``sines`` in it, each of which takes milliseconds a row."""
    weights = np.random.default_rng(5).normal(size=(4, 400_000)).astype("float32")
    down = np.full((400_000, 1), 1e-4 * scale, "float32")
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h0"]),
        *(helper.make_node("Sin", [f"h{step}"], [f"h{step + 1}"]) for step in range(sines)),
        helper.make_node("MatMul", [f"h{sines}", "d"], ["scores"]),
    ]
    inputs, outputs = (
        [support.value_info("x", "float32", ["n", 4])],
        [support.value_info("scores", "float32", ["n", 1])],
    )
    made = support.model(nodes, inputs, outputs)
    for name, value in (("w", weights), ("d", down)):
        made.graph.initializer.append(
            helper.make_tensor(name, TensorProto.FLOAT, value.shape, value.tobytes(), raw=True)
        )
    return made


# Workers that end


def test_a_worker_that_is_killed_is_replaced_and_has_caught_up(production: Production) -> None:
    production.push(production.release("fraud@v1.0.0"))
    with fleet(production.bare) as server:
        production.push(production.release("fraud@v1.1.0", scale=2.0))
        server.look("fraud")
        counted = versions(server)
        before = pids(server)
        server.ask("GET", "/metrics")
        os.kill(before[2], signal.SIGKILL)
        until(lambda: pids(server)[2] != before[2])
        assert server.wait_for(lambda line: f"worker 2 (pid {before[2]}) ended with signal 9" in line)
        assert versions(server) == counted == {"v1.1.0"}
        metrics = server.ask("GET", "/metrics").body.decode()
        assert "gitmodel_worker_restarts_total 1.0" in metrics
        assert "gitmodel_workers 2.0" in metrics
        found = re.search(r'gitmodel_requests_total\{.*status="200",version="v1.1.0"\} (\d+)', metrics)
        assert found is not None
        assert int(found[1]) == 48, "what a killed worker counted stays counted"
        production.push(production.release("fraud@v1.2.0", scale=3.0))
        assert server.look("fraud")["serving"] == "v1.2.0"
        assert versions(server) == {"v1.2.0"}


def test_a_worker_that_ends_while_it_prepares_stops_the_switch(production: Production) -> None:
    production.push(production.release("fraud@v1.0.0", model=wide()))
    with fleet(production.bare, "--no-prepack", workers=3) as server, calling(server) as callers:
        before = pids(server)
        folders = production.bare / "gitmodel" / "store" / "versions"
        (old,) = folders.iterdir()
        os.kill(before[2], signal.SIGSTOP)  # it is asked, and does not answer
        production.push(production.release("fraud@v1.1.0", model=wide(2.0)))
        looked: list[str] = []
        looking = threading.Thread(target=lambda: looked.append(server.look("fraud")["serving"]))
        looking.start()

        def whole() -> set[Path]:
            return {path for path in folders.iterdir() if not path.name.startswith("building-")} - {old}

        until(whole)
        (new,) = whole()
        for number in (1, 3):
            until(lambda number=number: str(new) in Path(f"/proc/{before[number]}/maps").read_text())  # type: ignore[misc]
        assert "v1.1.0" not in {version for caller in callers for version in caller.seen}
        os.kill(before[2], signal.SIGKILL)
        looking.join(place.PATIENCE)
        assert looked == ["v1.0.0"], "the switch was called off"
        assert server.wait_for(lambda line: "v1.1.0 END: worker 2" in line and "signal 9" in line)
        until(lambda: pids(server)[2] != before[2])
        assert server.look("fraud")["serving"] == "v1.1.0", "and is made when the fleet is whole"
        assert versions(server) == {"v1.1.0"}
    check(callers)


def test_a_version_that_ends_who_opens_it_costs_one_worker_once(production: Production) -> None:
    production.push(production.release("fraud@v1.0.0", model=wide()))
    with fleet(production.bare, "--no-prepack") as server:
        folders = production.bare / "gitmodel" / "store" / "versions"
        (old,) = folders.iterdir()
        ended, stop = [], threading.Event()

        def end_who_opens_it() -> None:
            while not stop.wait(0.002):
                for process in children(server.pid):
                    with contextlib.suppress(OSError):
                        if re.search(rf"{folders}/(?!{old.name})\w+/", Path(f"/proc/{process}/maps").read_text()):
                            os.kill(process, signal.SIGKILL)
                            ended.append(process)

        watching = threading.Thread(target=end_who_opens_it)
        watching.start()
        # Its golden cases take so long that nobody has opened it before it is seen, however busy the machine is.
        production.push(production.release("fraud@v1.1.0", model=wide(2.0, sines=150)))
        try:
            for turn in range(3):
                assert server.look("fraud")["serving"] == "v1.0.0"
                until(lambda turn=turn: len(set(ended)) > turn)  # type: ignore[misc]
                assert server.ask("POST", INFER, infer(rows(1))).who[0] == "v1.0.0"
        finally:
            stop.set()
            watching.join(place.PATIENCE)
        joined(server, {1: ended[0]})
        metrics = server.ask("GET", "/metrics").body.decode()
        assert "gitmodel_worker_restarts_total 1.0" in metrics, "the others were no workers"
        assert server.wait_for(lambda line: "v1.1.0 END: a process apart (pid" in line and "signal 9" in line)
        assert server.look("fraud")["serving"] == "v1.1.0", "and it is served as soon as it can be opened"
        assert versions(server) == {"v1.1.0"}


def test_a_worker_that_hangs_is_ended_and_replaced(production: Production) -> None:
    production.push(production.release("fraud@v1.0.0"))
    with fleet(production.bare) as server:
        before = pids(server)
        os.kill(before[2], signal.SIGSTOP)
        production.push(production.release("fraud@v1.1.0", scale=2.0))
        assert server.look("fraud")["serving"] == "v1.0.0"
        until(lambda: pids(server)[2] != before[2])
        assert not alive(before[2])
        assert server.look("fraud")["serving"] == "v1.1.0"
        assert versions(server) == {"v1.1.0"}


def test_a_worker_killed_after_the_switch_comes_back_on_the_new_version(production: Production) -> None:
    production.push(production.release("fraud@v1.0.0"))
    with fleet(production.bare, workers=4) as server, calling(server) as callers:
        for minor in (1, 2, 3):
            before = pids(server)
            production.push(production.release(f"fraud@v1.{minor}.0", scale=1.0 + minor))
            assert server.look("fraud")["serving"] == f"v1.{minor}.0"
            os.kill(before[minor], signal.SIGKILL)
            until(lambda before=before, minor=minor: pids(server)[minor] != before[minor])  # type: ignore[misc]
            assert versions(server) == {f"v1.{minor}.0"}
    check(callers)


def test_a_worker_without_a_sign_of_life_is_replaced_unasked(production: Production) -> None:
    production.push(production.release("fraud@v1.0.0"))
    with fleet(production.bare) as server:
        before = pids(server)
        os.kill(before[1], signal.SIGSTOP)
        assert server.wait_for(lambda line: f"worker 1 (pid {before[1]}) gives no sign of life" in line)
        until(lambda: pids(server)[1] != before[1])
        assert versions(server) == {"v1.0.0"}
        assert "gitmodel_workers 2.0" in server.ask("GET", "/metrics").body.decode()


def test_files_that_went_missing_since_are_fetched_again_for_the_next_worker(production: Production) -> None:
    production.push(production.release("fraud@v1.0.0"))
    with fleet(production.bare) as server:
        before = pids(server)
        store = production.bare / "gitmodel" / "store"
        shutil.rmtree(store / "versions")
        for path in (store / "files").rglob("*"):
            if path.is_file():
                path.unlink()
        os.kill(before[1], signal.SIGKILL)
        until(lambda: pids(server)[1] != before[1])
        assert versions(server) == {"v1.0.0"}
        assert list((store / "versions").iterdir())


def test_a_worker_that_cannot_be_started_is_tried_again(production: Production, tmp_path: Path) -> None:
    """As while the environment is upgraded; what was counted stays as it is."""
    production.push(production.release("fraud@v1.0.0"))
    venv.create(tmp_path / "env", with_pip=False)
    (packages,) = (tmp_path / "env" / "lib").glob("python3*/site-packages")
    (packages / "all.pth").write_text(f"{Path(onnx.__file__).parent.parent}\n{Path(support.__file__).parent.parent}\n")
    python = tmp_path / "env" / "bin" / "python"
    command = [str(python), "-m", "gitmodel", "serve", "--repo", str(production.bare), "--port", "0", "--workers", "2"]
    server = Server(subprocess.Popen([*command, "--poll", place.NEVER], stderr=subprocess.PIPE, text=True))
    try:
        said = place._STARTED.fullmatch(server.wait_for(place._STARTED.fullmatch))
        assert said is not None
        server.url, server.admin, server.pid = said["url"], said["admin"], int(said["pid"])
        server.look()
        before = pids(server)
        assert versions(server) == {"v1.0.0"}
        server.ask("GET", "/metrics")
        python.rename(python.with_name("gone"))
        os.kill(before[1], signal.SIGKILL)
        server.wait_for(lambda line: "worker 1 cannot be started" in line)
        python.with_name("gone").rename(python)
        until(lambda: pids(server)[1] != before[1])
        metrics = server.ask("GET", "/metrics").body.decode()
        assert "gitmodel_worker_restarts_total 1.0" in metrics
        assert 'gitmodel_requests_total{model="fraud",status="200",version="v1.0.0"} 24.0' in metrics
    finally:
        server.stop()


def test_when_all_workers_are_killed_callers_wait_for_the_next(production: Production) -> None:
    production.push(production.release("fraud@v1.0.0"))
    with fleet(production.bare) as server:
        before = pids(server)
        for pid in before.values():
            os.kill(pid, signal.SIGKILL)
        assert server.ask("POST", INFER, infer(rows(1))).who[0] == "v1.0.0"
        joined(server, before)
        until(lambda: "gitmodel_worker_restarts_total 2.0" in server.ask("GET", "/metrics").body.decode())


# The whole server


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_it_ends_with_all_its_workers(production: Production, number: signal.Signals) -> None:
    server = place.start(production.bare, "--workers", "2")
    workers = pids(server)
    assert server.stop(number) == 0
    assert "stopped" in server.lines
    warned = [line for line in server.lines if "warning" in line or "Traceback" in line]
    assert warned == ["warning: there is no version of any model here yet"]
    assert not [pid for pid in workers.values() if alive(pid)]
    assert not list((production.bare / "gitmodel" / "servers").iterdir())


def test_what_is_in_flight_is_answered_when_it_ends(production: Production) -> None:
    production.push(production.release("fraud@v1.0.0"))
    server = place.start(production.bare, "--workers", "2")
    server.look()
    connections = [server.connect() for _ in range(8)]
    body = json.dumps(infer(rows(1))).encode()
    for connection in connections:  # begun, and not whole
        connection.putrequest("POST", INFER)
        connection.putheader("content-length", str(len(body)))
        connection.endheaders(body[:10])
    time.sleep(0.3)
    ending = threading.Thread(target=server.stop)
    ending.start()
    time.sleep(0.3)
    for connection in connections:
        connection.send(body[10:])
        assert connection.getresponse().status == 200
        connection.close()
    ending.join(place.PATIENCE)


def test_workers_do_not_outlive_a_server_that_is_killed(production: Production) -> None:
    server = place.start(production.bare, "--workers", "2")
    workers = pids(server)
    host, port = server.address
    server.kill()
    until(lambda: not any(alive(pid) for pid in workers.values()))
    again = place.start(production.bare, "--workers", "2", "--port", str(port))
    assert again.address == (host, port)
    again.stop()


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"


def test_a_worker_imports_nothing_of_git_and_dvc() -> None:
    script = "import sys, gitmodel.serving.worker; print(*sorted({m.partition('.')[0] for m in sys.modules}))"
    names = set(support.run(sys.executable, "-c", script).stdout.split())
    assert not names & {"git", "dvc", "dvc_data", "onnx", "h5py", "prometheus_client"}


def test_workers_share_processors_with_their_server_and_not_its_terminal(production: Production) -> None:
    """Niceness counts within a session; a key like Ctrl-C reaches a group of processes."""
    with fleet(production.bare) as server:
        for worker in pids(server).values():
            assert os.getsid(worker) == os.getsid(server.pid)
            assert os.getpgid(worker) == worker
