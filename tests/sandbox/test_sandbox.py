"""Real children: what they may, what they may not, and how their end reads."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from gitmodel.sandbox import forkserver, framing, jail, parent
from gitmodel.sandbox.failures import OutOfMemory, Refused, SandboxFailed
from gitmodel.sandbox.limits import Limits
from gitmodel.sandbox.parent import Child

DEEDS = "tests.sandbox.deeds"
ROOT = Path(__file__).parents[2]

Start = Callable[..., Child]


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a child that sees the tests; it is ended with the test."""
    children: list[Child] = []

    def start_(warm: str = "", **limits: object) -> Child:
        given = {"seconds": 30.0, **limits}
        given["readable"] = (str(ROOT), *given.get("readable", ()))  # type: ignore[misc]  # a tuple of texts
        children.append(Child.start(DEEDS, Limits(**given), warm))  # type: ignore[arg-type]  # the test's own
        return children[-1]

    yield start_
    for child in children:
        child.close()


@pytest.fixture(autouse=True)
def _found_by_children(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))


def test_this_machine_has_every_layer(start: Start) -> None:
    """The tests below hold only where it does."""
    assert start().missing == ()


def test_values_and_arrays_come_back_as_they_went(start: Start) -> None:
    value = {
        "numbers": np.arange(6, dtype="float32").reshape(2, 3).T,
        "empty": np.zeros((0, 4), "int64"),
        "scalar": np.array(True),
        "words": np.array([["a", "ä"]], dtype=object),
        "plain": [1, 2.5, None, "text", {"inner": [np.array([1 + 2j])]}],
        "map": [{1: 0.25, 2: 0.75}],
    }
    found = start().ask("same", value=value)
    assert found["plain"][:4] == [1, 2.5, None, "text"]
    assert found["map"] == [{1: 0.25, 2: 0.75}]
    assert found["plain"][4]["inner"][0].tolist() == [1 + 2j]
    for name in ("numbers", "empty", "scalar", "words"):
        assert (found[name].dtype, found[name].shape) == (value[name].dtype, value[name].shape)  # type: ignore[attr-defined]  # arrays
        assert found[name].tolist() == value[name].tolist()  # type: ignore[attr-defined]  # ditto


def test_it_makes_ready_before_it_is_asked(start: Start) -> None:
    assert start("warm").ask("tried") == ["prepare", "warm"]
    assert start().ask("tried") == ["prepare"], "each is a process of its own"


def test_it_reads_what_it_may_and_nothing_else(start: Start, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a").write_text("open")
    (tmp_path / "secret").write_text("shut")
    (tmp_path / "in" / "link").symlink_to(tmp_path / "secret")
    child = start(readable=(str(tmp_path / "in"),))
    assert child.ask("read", path=str(tmp_path / "in" / "a")) == "open"
    for hidden in (tmp_path / "secret", tmp_path / "in" / "link", Path("/etc/passwd"), Path("/proc/1/environ")):
        with pytest.raises(Refused, match="PermissionError"):
            child.ask("read", path=str(hidden))


def test_it_writes_nowhere(start: Start, tmp_path: Path) -> None:
    child = start(readable=(str(tmp_path),))
    with pytest.raises(Refused, match="PermissionError"):
        child.ask("write", path=str(tmp_path / "a"), size=1)
    assert list(tmp_path.iterdir()) == []


def test_with_a_scratch_folder_it_writes_there_alone_and_not_much(start: Start, tmp_path: Path) -> None:
    child = start(writable=(str(tmp_path),), file_bytes=1000)
    assert child.ask("unpack", size=1000) == str(tmp_path)
    with pytest.raises(Refused, match="File too large"):
        child.ask("unpack", size=1001)
    with pytest.raises(Refused, match="PermissionError"):
        child.ask("write", path="/tmp/elsewhere", size=1)


def test_it_reaches_neither_the_network_nor_its_parent_nor_a_program(start: Start) -> None:
    child = start()
    with closing(socket.create_server(("127.0.0.1", 0))) as server, pytest.raises(Refused, match="Error"):
        child.ask("connect", port=server.getsockname()[1])
    with pytest.raises(Refused, match="PermissionError"):
        child.ask("kill", process=os.getpid())
    with pytest.raises(Refused, match="PermissionError"):
        child.ask("execute", path="/bin/true")


def test_it_knows_nothing_of_the_environment(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET_TOKEN", "hush")
    found = start().ask("environment")
    assert "SECRET_TOKEN" not in found
    assert "HOME" not in found


def test_it_holds_few_files_and_no_more_memory_than_it_may(start: Start) -> None:
    child = start(files=64, memory=1 << 30)
    assert child.ask("open_many", count=32) == 32
    with pytest.raises(Refused, match="Too many open files"):
        child.ask("open_many", count=64)
    assert child.ask("take", size=1 << 20) == 1 << 20
    child.label = "big.onnx"
    with pytest.raises(OutOfMemory, match=r"big.onnx needs more than 1.1 GB of memory") as caught:
        child.ask("take", size=2 << 30)
    assert "--memory-limit" in caught.value.hint
    assert child.ask("take", size=1) == 1, "it goes on"


def test_who_starts_children_knows_no_threads_and_is_one_for_all(start: Start) -> None:
    first, second = start(), start()
    assert first.ask("parent") == second.ask("parent") == forkserver.server(DEEDS).process
    assert len(list(Path(f"/proc/{first.ask('parent')}/task").iterdir())) == 1


def test_one_that_is_killed_is_started_anew(start: Start) -> None:
    child = start()
    before = child.ask("parent")
    os.kill(before, signal.SIGKILL)
    with pytest.raises(SandboxFailed, match="could not be opened in a sandbox"):
        child.ask("sleep", seconds=20)
    until_gone(before)
    assert start().ask("parent") not in (before, os.getpid())


def test_several_that_find_it_gone_start_one(start: Start) -> None:
    before = start().ask("parent")
    os.kill(before, signal.SIGKILL)
    until_gone(before)
    with ThreadPoolExecutor(4) as pool:
        parents = list(pool.map(lambda _: start().ask("parent"), range(4)))
    assert len({*parents}) == 1
    assert before not in parents


def test_who_ignores_its_children_hears_of_these_all_the_same() -> None:
    done = alone(
        "signal.signal(signal.SIGCHLD, signal.SIG_IGN); child = start(); child.ask('process'); child.close(); print('done')"
    )
    assert (done.stdout, done.returncode) == ("done\n", 0), done.stderr


def test_one_that_stands_still_is_given_up(monkeypatch: pytest.MonkeyPatch, start: Start) -> None:
    monkeypatch.setattr(forkserver, "_PATIENCE", 0.2)
    child = start()
    os.kill(child.ask("parent"), signal.SIGSTOP)
    child.close()
    assert start().ask("same", value=1) == 1


def test_a_copy_of_the_parent_keeps_nobody_waiting() -> None:
    """A process that the parent forked holds its end of the line, and has children of its own."""
    begun = time.monotonic()
    done = alone(
        "child = start(); before = child.ask('parent')\n"
        "if not os.fork():\n"
        "    child.close(); print(start().ask('parent') != before, flush=True); time.sleep(20); os._exit(0)\n"
        "time.sleep(1); print(child.ask('same', value=1))"
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == ["True", "1"]
    assert time.monotonic() - begun < 15


def test_an_interrupted_question_is_not_answered_with_the_next(start: Start) -> None:
    child = start()
    child.ask("same", value=0)
    with pytest.raises(KeyboardInterrupt):
        interrupted(lambda: child.ask("sleep", seconds=20))
    with pytest.raises(SandboxFailed, match="interrupted"):
        child.ask("same", value=1)


def interrupted(function: Callable[[], object]) -> None:
    """Calls the function, with a signal in the middle of it."""

    def strike(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, strike)
    signal.setitimer(signal.ITIMER_REAL, 0.3)
    try:
        function()
    finally:
        signal.signal(signal.SIGALRM, before)


def test_what_a_child_started_ends_with_it(start: Start) -> None:
    child = start()
    started = child.ask("start_another")
    assert _runs(started)
    child.close()
    until_gone(started)


def test_no_folder_to_be_in_is_no_obstacle(start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert start().ask("same", value=1) == 1


def test_want_of_memory_before_there_is_a_question_has_its_name(start: Start) -> None:
    child = start(memory=300 << 20)
    with pytest.raises(SandboxFailed, match=r"needs more than 0.3 GB of memory"):
        child.ask("same", value=np.zeros(400 << 20, "u1"))


def test_a_child_cannot_have_others_started(start: Start) -> None:
    """The way to who starts children is closed in them: only their own channel is left, and what the tests hold."""
    kinds = start().ask("descriptors")
    assert [kind for kind in kinds if kind.startswith("socket")] == kinds[3:4]
    assert len(kinds) == 4


def test_an_answer_that_is_too_large_for_whoever_asked_is_want_of_memory(start: Start) -> None:
    child = start(memory=1 << 30)
    with pytest.raises(OutOfMemory, match=r"gives more than 0\.3 GB at once"):
        child.ask("give", size=(1 << 28) + 1)
    assert child.ask("give", size=1 << 20).nbytes == 1 << 20


def test_more_text_than_a_message_holds_is_want_of_memory_both_ways(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(framing, "MAX_TEXT", 1 << 16)
    monkeypatch.setattr(parent, "MAX_TEXT", 1 << 16)
    child = start()
    with pytest.raises(OutOfMemory, match=r"cannot be asked with more than 0\.0 GB of texts"):
        child.ask("hear", texts=np.array(["x" * (1 << 16)], dtype=object))
    assert child.ask("hear", texts=np.array(["x"], dtype=object)) == 1


def test_an_answer_with_too_much_text_is_want_of_memory(start: Start) -> None:
    child = start(memory=8 << 30)
    with pytest.raises(OutOfMemory, match=r"or 0\.1 GB of texts"):
        child.ask("give_texts", size=framing.MAX_TEXT + 1)
    assert child.ask("give_texts", size=3).tolist() == ["xxx"]


def test_what_never_ends_is_ended(start: Start) -> None:
    child = start(seconds=1.0)
    child.label = "loop.onnx"
    with pytest.raises(SandboxFailed, match=r"loop.onnx took more than 1 s") as caught:
        child.ask("spin")
    assert "--time-limit" in caught.value.hint
    with pytest.raises(SandboxFailed, match="took more than"):
        child.ask("same", value=1)
    assert child.failure is caught.value


def test_time_is_counted_for_each_request(start: Start) -> None:
    child = start(seconds=1.0)
    for _ in range(3):
        child.ask("take", size=1 << 20)
    assert child.failure is None


def test_who_sleeps_is_given_up_by_the_clock(start: Start) -> None:
    child = start(seconds=0.2)
    with pytest.raises(SandboxFailed, match="took more than"):
        child.ask("sleep", seconds=60)


def test_a_crash_is_an_error_with_its_signal(start: Start) -> None:
    child = start()
    child.label = "bad.h5"
    with pytest.raises(SandboxFailed, match=r"bad.h5 crashed the process that opened it \(SIGSEGV\)"):
        child.ask("crash", number=int(signal.SIGSEGV))


def test_one_that_leaves_or_babbles_is_an_error(start: Start) -> None:
    with pytest.raises(SandboxFailed, match="exit code 7"):
        start().ask("leave")
    child = start()
    with pytest.raises(SandboxFailed, match="could not be opened in a sandbox"):
        child.ask("babble")
    with pytest.raises(SandboxFailed, match="signal 40"):
        start().ask("crash", number=40)


def test_what_the_function_raises_comes_back_as_what_it_was(start: Start) -> None:
    child = start()
    with pytest.raises(Refused) as ours:
        child.ask("refuse")
    assert (ours.value.code, ours.value.message, ours.value.hint) == ("storage-failed", "there is no room", "make some")
    with pytest.raises(Refused) as theirs:
        child.ask("stumble")
    assert (theirs.value.code, theirs.value.message) == ("", "KeyError: 'what a library raises'")


def test_an_interpreter_that_is_not_there_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/nowhere/python")
    monkeypatch.setattr(forkserver, "_SERVERS", {})
    with pytest.raises(SandboxFailed, match="no child can be started"):
        Child.start(DEEDS, Limits())


def alone(code: str) -> subprocess.CompletedProcess[str]:
    """A Python process of its own that runs the code; ``start()`` starts a child there."""
    given = (
        "import os, signal, time; from gitmodel.sandbox.parent import Child; from gitmodel.sandbox.limits import Limits\n"
        f"def start(): return Child.start({DEEDS!r}, Limits(readable=({str(ROOT)!r},)))\n"
    )
    with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
        # Files, not pipes: what the process leaves running would keep those open.
        done = subprocess.run([sys.executable, "-c", given + code], cwd=ROOT, stdout=out, stderr=err, check=False)
        out.seek(0)
        err.seek(0)
        return subprocess.CompletedProcess(done.args, done.returncode, out.read(), err.read())


def test_a_child_ends_with_its_parent() -> None:
    done = alone(
        "child = start(); process = child.ask('process')\n"
        "child._channel.send({'call': 'spin', 'args': {}}); print(process, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert done.returncode == -signal.SIGKILL, done.stderr
    until_gone(int(done.stdout))


def until_gone(process: int) -> None:
    until = time.monotonic() + 20
    while _runs(process):
        assert time.monotonic() < until, "it is still there"
        time.sleep(0.01)


def _runs(process: int) -> bool:
    try:
        return "Z" not in Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("layer", ["_alone", "_limit", "_unplug", "_wall_in"])
def test_a_layer_that_cannot_be_had_is_named(layer: str, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[str] = []

    def refuse(_: Limits) -> None:
        raise OSError(38, "Function not implemented")

    for name in ("_alone", "_limit", "_unplug", "_wall_in"):
        monkeypatch.setattr(jail, name, refuse if name == layer else lambda _, name=name: taken.append(name))
    assert len(jail.enter(Limits())) == 1
    assert len(taken) == 3
