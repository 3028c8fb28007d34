"""``save`` killed at any point: nothing is lost, and the same command again finishes the work. Two at once take turns."""

from __future__ import annotations

import contextlib
import fcntl
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

import gitmodel
from gitmodel.git import Repository
from gitmodel.workflows import transfer
from gitmodel.workflows.save import save
from tests import support
from tests.workflows import state

#: Runs gitmodel and kills it (SIGKILL) just before the nth change it makes to the file system or the nth process it
#: starts; with 0 it counts them.
DRIVER = """
import os, signal, sys
import gitmodel.cli
stop, seen = int(sys.argv.pop(1)), 0
WATCHED = {"os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.chmod", "os.link", "subprocess.Popen"}

def watch(event, args):
    global seen
    if event in WATCHED:
        seen += 1
        if seen == stop:
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(watch)
try:
    gitmodel.cli.main()
finally:
    print("seen", seen)
"""
POINTS = 12
CLEAN = "Data and pipelines are up to date.\n"
X = np.linspace(-1, 1, 400, dtype="float32").reshape(2, 200)


class Place:
    """A repository with ``fraud`` committed, and a second model to save over it: other weights, params, golden cases."""

    def __init__(self, folder: Path) -> None:
        self.repo = folder / "repo"
        self.files = [folder / "one.onnx", folder / "two.onnx"]
        self.command = [
            "save", "fraud", str(self.files[1]), "--params", str(folder / "params.yaml"), "--golden", str(folder / "cases.npz"),
            "-m", "two", "--repo", str(self.repo),
        ]  # fmt: skip
        self.digests = [state.digest(path) for path in self.files]

    @classmethod
    def make(cls, folder: Path) -> Place:
        repo = state.model_repository(folder)
        for name, scale in (("one", 1.0), ("two", 1.5)):
            state.write(support.wide_model(scale=scale, tensors=3), folder / f"{name}.onnx")
        (folder / "params.yaml").write_text("depth: 4\n")
        cases = support.cases_npz(folder / "cases.npz", width=200, rows=2)
        save("fraud", [folder / "one.onnx"], repo=repo, params={"depth": 3}, golden=cases, message="one")
        return cls(folder)

    def run(self, stop: int, *command: str) -> subprocess.CompletedProcess[str]:
        """Runs the save, or another command, until its ``stop``th change."""
        argv = [*command, "--repo", str(self.repo)] if command else self.command
        return support.run("python", "-B", "-c", DRIVER, str(stop), *argv)

    def predicts(self, reference: str) -> int:
        """Which of the two models answers at a reference."""
        got = gitmodel.load(reference, repo=self.repo).predict({"x": X})["h2"]
        for number, path in enumerate(self.files):
            expected = onnxruntime.InferenceSession(str(path)).run(None, {"x": X})[0]
            if np.allclose(got, expected, rtol=1e-4, atol=1e-6):
                return number
        raise AssertionError("it answers as neither model does")


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder every test gets a copy of."""
    folder = tmp_path_factory.mktemp("template")
    Place.make(folder)
    return folder


@pytest.fixture
def place(template: Path, tmp_path: Path) -> Place:
    shutil.copytree(template, tmp_path / "place", symlinks=True)
    return Place(tmp_path / "place")


@pytest.fixture(scope="module")
def total(template: Path, tmp_path_factory: pytest.TempPathFactory) -> int:
    """How many points there are."""
    folder = tmp_path_factory.mktemp("count") / "place"
    shutil.copytree(template, folder, symlinks=True)
    done = Place(folder).run(0)
    assert done.returncode == 0, done.stderr
    return int(done.stdout.split()[-1])


@pytest.mark.parametrize("part", range(POINTS))
def test_a_save_that_is_killed_loses_nothing_and_can_be_run_again(place: Place, total: int, part: int) -> None:
    stop = 1 + part * (total - 1) // (POINTS - 1)
    assert place.run(stop).returncode == -signal.SIGKILL
    assert [state.digest(path) for path in place.files] == place.digests, "the user's own files"
    assert support.run("git", "fsck", "--strict", cwd=place.repo).returncode == 0
    message = support.git(place.repo, "log", "-1", "--format=%s")
    assert place.predicts("fraud@HEAD") == ["one", "two"].index(message)

    again = support.run("gitmodel", *place.command)
    assert again.returncode == 0, again.stderr
    assert support.git(place.repo, "log", "--format=%s").splitlines() == ["two", "one", "Set up"]
    assert place.predicts("fraud@HEAD") == place.predicts("fraud") == 1
    assert support.git(place.repo, "status", "--porcelain", "--untracked-files=all") == ""
    assert support.run("dvc", "status", cwd=place.repo).stdout == CLEAN
    assert [name for name in support.git(place.repo, "ls-files").splitlines() if name.endswith(".tmp")] == []
    assert [name for name in state.files(place.repo) if name.endswith(".tmp")] == []


@pytest.mark.parametrize("command", [("pull",), ("checkout", "fraud@HEAD~1")], ids=lambda command: command[0])
@pytest.mark.parametrize("stop", [4, 14, 24])
def test_weights_killed_on_their_way_arrive_the_next_time(place: Place, command: tuple[str, ...], stop: int) -> None:
    save("fraud", [place.files[1]], repo=place.repo, message="two")
    transfer.push(["fraud", "fraud@HEAD~1"], repo=place.repo)
    place.repo = state.clone(place.repo, place.repo.parent / "clone")
    assert place.run(stop, *command).returncode == -signal.SIGKILL
    again = support.run("gitmodel", *command, cwd=place.repo)
    assert again.returncode == 0, again.stderr
    assert support.run("dvc", "status", cwd=place.repo).stdout == CLEAN
    assert place.predicts("fraud") == (1 if command[0] == "pull" else 0)


def test_what_a_kill_left_in_the_cache_is_no_trouble_to_dvc(place: Place) -> None:
    objects = place.repo / ".dvc" / "cache" / "files" / "md5"
    (objects / "tmp-gitmodel-x1y2z3").write_bytes(b"half an obj")
    for command in (["push", "-q"], ["status", "-c"], ["gc", "-w", "-f", "-q"], ["status"]):
        done = support.run("dvc", *command, cwd=place.repo)
        assert done.returncode == 0, done.stderr
    copy = state.clone(place.repo, place.repo.parent / "clone")
    assert support.run("dvc", "pull", "-q", cwd=copy).returncode == 0
    assert support.run("dvc", "status", cwd=copy).stdout == CLEAN


def test_a_kill_amid_the_commit_asks_for_the_stale_lock_to_go(place: Place) -> None:
    hook = place.repo / ".git" / "hooks" / "pre-commit"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\nkill -9 0\n")
    hook.chmod(0o755)
    done = support.run("gitmodel", *place.command, start_new_session=True)
    assert done.returncode == -signal.SIGKILL
    hook.unlink()
    lock = place.repo / ".git" / "index.lock"
    assert lock.exists()
    assert place.predicts("fraud@HEAD") == 0

    refused = support.run("gitmodel", *place.command)
    assert refused.returncode == 3
    assert "remove a stale .git/index.lock" in refused.stderr
    lock.unlink()
    again = support.run("gitmodel", *place.command)
    assert again.returncode == 0, again.stderr
    assert place.predicts("fraud@HEAD") == 1
    assert support.git(place.repo, "status", "--porcelain", "--untracked-files=all") == ""
    assert support.run("dvc", "status", cwd=place.repo).stdout == CLEAN


def test_a_failing_hook_of_the_users_stops_the_commit_and_nothing_else(place: Place) -> None:
    hook = place.repo / ".git" / "hooks" / "pre-commit"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\necho 'no commits on Fridays' >&2\nexit 1\n")
    hook.chmod(0o755)
    refused = support.run("gitmodel", *place.command)
    assert refused.returncode == 3
    assert "no commits on Fridays" in refused.stderr
    hook.unlink()
    again = support.run("gitmodel", *place.command)
    assert again.returncode == 0, again.stderr
    assert place.predicts("fraud@HEAD") == 1


@contextlib.contextmanager
def waiting(place: Place) -> Iterator[subprocess.Popen[str]]:
    """A save that is seen waiting, in the kernel's own table, for the lock held here; the lock is let go at the end."""
    with (place.repo / ".git" / "gitmodel" / "lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        child = subprocess.Popen(
            [sys.executable, "-m", "gitmodel", *place.command],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            _wait_until_blocked(child)
            yield child
        except BaseException:
            child.kill()
            raise


def test_a_save_waits_for_the_one_before_it(place: Place) -> None:
    head = support.git(place.repo, "rev-parse", "HEAD")
    with waiting(place) as child:
        assert support.git(place.repo, "rev-parse", "HEAD") == head
    _, said = child.communicate(timeout=60)
    assert child.returncode == 0, said
    assert place.predicts("fraud@HEAD") == 1


def test_an_interrupt_ends_the_waiting_in_one_line(place: Place) -> None:
    before = state.whole(place.repo)
    with waiting(place) as child:
        child.send_signal(signal.SIGINT)
        out, said = child.communicate(timeout=60)
    assert (child.returncode, out) == (130, "")
    assert "Traceback" not in said
    assert len(said.splitlines()) <= 1
    assert state.whole(place.repo) == before


def _wait_until_blocked(child: subprocess.Popen[str]) -> None:
    """Returns when the kernel lists the process as a waiter (``->``) for a lock."""
    table = Path("/proc/locks")
    if not table.exists():
        pytest.skip("needs the kernel's table of locks")
    while child.poll() is None:
        if any("->" in line and str(child.pid) in line.split() for line in table.read_text().splitlines()):
            return
        time.sleep(0.01)
    raise AssertionError("the child did not wait")


def test_two_saves_at_once_both_arrive(place: Place, tmp_path: Path) -> None:
    other = state.write(support.linear_model(), tmp_path / "other.onnx")
    commands = [place.command, ["save", "churn", str(other), "-m", "three", "--repo", str(place.repo)]]
    children = [
        subprocess.Popen([sys.executable, "-m", "gitmodel", *command], stderr=subprocess.PIPE) for command in commands
    ]
    for child in children:
        _, said = child.communicate(timeout=120)
        assert child.returncode == 0, said
    assert set(support.git(place.repo, "log", "--format=%s").splitlines()) == {"Set up", "one", "two", "three"}
    assert support.git(place.repo, "status", "--porcelain", "--untracked-files=all") == ""
    assert support.run("dvc", "status", cwd=place.repo).stdout == CLEAN
    assert place.predicts("fraud") == 1


def test_the_lock_ends_with_its_holder(place: Place) -> None:
    program = (
        "import os, sys; from pathlib import Path; from gitmodel.git import Repository\n"
        "with Repository.open(Path(sys.argv[1])).lock(): os.kill(os.getpid(), 9)"
    )
    assert support.run("python", "-c", program, str(place.repo)).returncode == -signal.SIGKILL
    with Repository.open(place.repo).lock():
        pass


def test_no_room_is_one_line_and_leaves_the_repository_as_it_was(place: Place, tmp_path: Path) -> None:
    # Tensors that stay inside the views, which then are larger than a file may be here.
    model = state.write(support.wide_model(tensors=20, size=100), tmp_path / "large.onnx")
    before = state.whole(place.repo)
    limited = ["sh", "-c", 'ulimit -f 100; exec "$@"', "sh", str(support.BIN / "gitmodel")]
    done = support.run(*limited, "save", "large", model, "-m", "three", "--repo", place.repo)
    assert done.returncode == 3
    assert done.stderr.startswith("error[storage-failed]: "), done.stderr
    assert done.stderr.count("\n") == 1
    assert state.whole(place.repo) == before
