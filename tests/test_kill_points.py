"""The harness of scripts/kill-points: a handful of its points for real, and that it would see each kind of loss."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parent.parent / "scripts"
sys.path.insert(0, str(SCRIPTS))

from kill_points import invariants, order, points, stages, tracing, trial  # noqa: E402  # found once the path is known
from kill_points.crowd import CROWDS, run  # noqa: E402
from kill_points.invariants import Sight, State  # noqa: E402
from kill_points.place import Done, Place  # noqa: E402
from kill_points.points import Point  # noqa: E402

MISSING = points.missing_tool()
striking = pytest.mark.skipif(bool(MISSING), reason=f"nothing can be struck here: {MISSING}")


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """Never changed, only copied: ``fraud`` released, staged and pushed."""
    return stages.prepare(tmp_path_factory.mktemp("places"), {"released"})["released"]


@pytest.fixture(scope="module")
def before(released: Place) -> State:
    return State.of(released)


@pytest.fixture
def place(released: Place, tmp_path: Path) -> Place:
    return released.copy(tmp_path / "place")


def harness(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "kill_points", *args],
        env={**os.environ, "PYTHONPATH": str(SCRIPTS)}, capture_output=True, text=True, check=False,
    )  # fmt: skip


@striking
def test_a_save_struck_at_a_handful_of_points_loses_nothing() -> None:
    done = harness("--command", "save", "--most", "6", "--no-crowd")
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.splitlines()[-1].startswith("in all: 6 points")
    assert "0 losses, 0 unclear, 6 again ok" in done.stdout


@striking
def test_a_point_is_struck_again_by_its_name() -> None:
    done = harness("--only", "save:gitmodel:kill:rename:1", "--no-crowd")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "in all: 1 points, 1 hit" in done.stdout


def test_a_wrong_point_is_refused_in_a_line() -> None:
    done = harness("--only", "save:nobody:kill:rename:1")
    assert done.returncode == 2
    assert "is no point" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_crowd_of_saves_leaves_what_each_of_them_saved(released: Place, tmp_path: Path) -> None:
    found = run(CROWDS[0], released, tmp_path / "crowd")
    assert found.lost == []
    assert found.done + len(found.said) == 8


# That a loss would be seen ---------------------------------------------------------------------------------------------


def an_object(place: Place) -> Path:
    return invariants.object_path(place.cache, next(name for name in invariants.names(place.cache) if "." not in name))


def damage(path: Path) -> None:
    data = path.read_bytes()
    path.chmod(0o644)
    path.write_bytes(bytes([data[0] ^ 0xFF]) + data[1:])


def lose_an_object_everywhere(place: Place) -> None:
    name = an_object(place).relative_to(place.cache)
    for root in (place.cache, place.storage):
        (root / name).unlink()


def lose_an_object_of_the_remote(place: Place) -> None:
    (place.storage / an_object(place).relative_to(place.cache)).unlink()


def break_an_object_of_git(place: Place) -> None:
    victim = next(path for path in sorted((place.repo / ".git" / "objects").glob("??/*")) if path.is_file())
    damage(victim)


DAMAGES: list[tuple[str, Callable[[Place], object]]] = [
    ("git_is_whole", break_an_object_of_git),
    ("git_is_whole", lambda place: (place.repo / ".git" / "index").write_bytes(b"DIRC half")),
    ("versions_have_their_bytes", lose_an_object_everywhere),
    ("pushed_versions_have_their_bytes", lose_an_object_of_the_remote),
    ("nothing_went_back", lambda place: place.git("tag", "-d", "fraud@v1.0.0")),
    ("nothing_went_back", lambda place: place.git("tag", "fraud@v9.0.0")),
    ("nothing_went_back", lambda place: place.git("update-ref", "HEAD", "HEAD~1")),
    ("own_files_are_intact", lambda place: damage(place.files / "two.onnx")),
    ("own_files_are_intact", lambda place: (place.files / "one.onnx").unlink()),
    ("objects_are_what_they_are_named", lambda place: damage(an_object(place))),
    ("listings_are_complete", lose_an_object_of_the_remote),
    ("no_file_is_torn", lambda place: (place.repo / "models" / "fraud" / "model.yaml").write_text("name: fr")),
    ("no_file_is_torn", lambda place: (place.repo / "models" / "fraud" / "weights.dvc").unlink()),
    ("the_working_lock_has_its_bytes", lose_an_object_everywhere),
]


@pytest.mark.parametrize(("rule", "harm"), DAMAGES, ids=[f"{rule}-{n}" for n, (rule, _) in enumerate(DAMAGES)])
def test_each_rule_sees_the_loss_it_is_for(
    place: Place, before: State, rule: str, harm: Callable[[Place], object]
) -> None:
    harm(place)
    assert rule in {line.partition(":")[0] for line in invariants.losses(Sight(place, before, before))}


def test_nothing_is_found_where_nothing_is_wrong(released: Place, before: State) -> None:
    assert invariants.losses(Sight(released, before, before)) == []


def test_every_rule_is_shown_to_see_something() -> None:
    assert {rule.__name__ for rule in invariants.RULES} == {rule for rule, _ in DAMAGES}


def test_a_temporary_file_is_no_loss(place: Place, before: State) -> None:
    (place.cache / "files" / "md5" / "tmp-gitmodel-abc").write_bytes(b"half an object")
    (place.repo / "models" / "fraud" / ".weights.lock.x.tmp").write_bytes(b"# git")
    assert invariants.losses(Sight(place, before, before)) == []
    assert len(invariants.left_over(place)) == 2


def test_another_end_than_an_undisturbed_one_is_told(place: Place, before: State) -> None:
    assert list(before.differences(State.of(place))) == []
    place.git("commit", "-q", "--allow-empty", "-m", "Else")
    an_object(place).unlink()
    told = " ".join(before.differences(State.of(place)))
    assert "log: ['Else']" in told
    assert "1 objects are missing" in told


@pytest.mark.parametrize(
    ("done", "right"),
    [
        (Done(3, "", "error[storage-failed]: cannot write x (No space left on device): make room\n"), True),
        (Done(0, "saved", ""), True),
        (Done(1, "", "Traceback (most recent call last):\nOSError: no\n"), False),
        (Done(3, "", "error[internal]: OSError: no: this is a bug\n"), False),
        (Done(3, "", ""), False),
        (Done(3, "", "error[a]: x\nerror[b]: y\n"), False),
        (Done(-9, "", "", hung=True), False),
    ],
)
def test_an_end_without_one_clear_line_is_told(done: Done, right: bool) -> None:
    point = Point("save", points.OWN, 0, points.NO_SPACE, "write", 1)
    assert (trial.unclear(done, point) == []) == right


# How the log of strace is read -----------------------------------------------------------------------------------------

LOG = """\
10 openat(AT_FDCWD</p/repo>, "/usr/lib/x.py", O_RDONLY) = 3</usr/lib/x.py>
10 openat(AT_FDCWD</p/repo>, "/p/repo/a", O_RDWR|O_CREAT, 0600) = 3</p/repo/a>
11 write(4</p/repo/b>, ""..., 5 <unfinished ...>
10 write(3</p/repo/a>, ""..., 5) = 5
11 <... write resumed>) = 5
10 mkdir("/p/repo", 0777) = -1 EEXIST (File exists)
10 clone3({flags=CLONE_VM|CLONE_THREAD}, 88) = 12
10 vfork() = 13
10 write(2<pipe:[7]>, ""..., 5) = 5
10 rename("/p/home/x", "/p/home/y") = 0
"""


def test_calls_are_counted_per_thread_and_name_as_strace_does() -> None:
    calls = tracing.read(LOG.splitlines())
    assert [(c.thread, c.name, c.nth) for c in calls[:4]] == [
        (10, "openat", 1), (10, "openat", 2), (11, "write", 1), (10, "write", 1),
    ]  # fmt: skip
    assert [(c.thread, c.name) for c in tracing.first_hits(calls) if c.name == "write"] == [
        (11, "write"),
        (10, "write"),
    ]


def test_only_calls_that_change_the_place_matter() -> None:
    calls = tracing.read(LOG.splitlines())
    assert [(c.name, c.nth) for c in calls if tracing.matters(c, Path("/p"))] == [
        ("openat", 2), ("write", 1), ("write", 1), ("vfork", 1),
    ]  # fmt: skip


def test_a_point_has_a_name_that_leads_back_to_it() -> None:
    for name in ("save:gitmodel:kill:fsync:4", "release-push:both15:nospace:write:12", "gc:git7:eio:read:26"):
        assert Point.parse(name).name == name


OBJECT = "files/md5/aa/" + "b" * 30
ORDERED = f"""\
1 write(3</p/cache/files/md5/tmp-1>, ""..., 5) = 5
1 fsync(3</p/cache/files/md5/tmp-1>) = 0
1 rename("/p/cache/files/md5/tmp-1", "/p/cache/{OBJECT}") = 0
1 fsync(4</p/cache/files/md5/aa>) = 0
1 write(5</p/repo/.lock.tmp>, ""..., 5) = 5
1 fsync(5</p/repo/.lock.tmp>) = 0
1 rename("/p/repo/.lock.tmp", "/p/repo/models/fraud/weights.lock") = 0
"""


def test_the_order_that_survives_a_power_cut_is_asked_for() -> None:
    lines = ORDERED.splitlines()
    assert order.violations(tracing.read(lines), Path("/p")) == []
    for left_out, told in ((1, "before its bytes"), (3, "before the names in"), (5, "before its bytes")):
        calls = tracing.read(line for number, line in enumerate(lines) if number != left_out)
        (violation,) = order.violations(calls, Path("/p"))
        assert told in violation
