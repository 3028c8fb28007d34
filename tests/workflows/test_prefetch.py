"""The judge's first calls, made while the version is saved: the verdict is what it is without, whatever goes wrong."""

from __future__ import annotations

import itertools
import shutil
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from gitmodel import registry, runtime
from gitmodel.bundle.bundle import ONNX_VIEW
from gitmodel.compat.sessions import Prefetched, Sessions
from gitmodel.compat.side_by_side import Arrays
from gitmodel.compat.verdict import Report
from gitmodel.git import Repository
from gitmodel.registry import resolve
from gitmodel.workflows import calibrate, prefetch
from gitmodel.workflows.prefetch import Prefetch
from gitmodel.workflows.release import GateRefused, NothingChanged, release
from gitmodel.workflows.save import save
from gitmodel.workflows.workspace import Workspace
from tests import support

OLD = support.wide_model()


def two_rows() -> onnx.ModelProto:
    """A model whose rows go together: each drawn case is a call of its own."""
    weights = {"w": np.full((200, 200), 1 / 200, "float32")}
    ends = [support.value_info(name, "float32", [2, 200]) for name in ("x", "y")]
    return support.model([helper.make_node("MatMul", ["x", "w"], ["y"])], ends[:1], ends[1:], weights)


def refusing() -> onnx.ModelProto:
    """As OLD by its signature, but it answers calls of 28 rows alone, which is what all drawn rows are together."""
    model = support.wide_model()
    model.graph.node[-1].output[0] = "before"
    model.graph.initializer.append(numpy_helper.from_array(np.array([28, 200], "int64"), "rows"))
    model.graph.node.append(helper.make_node("Reshape", ["before", "rows"], ["h1"]))
    return model


def renamed() -> onnx.ModelProto:
    model = support.wide_model(scale=1.5)
    model.graph.input[0].name = model.graph.node[0].input[0] = "features"
    return model


@pytest.fixture(autouse=True)
def _everything_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prefetch, "_LARGE", 1)


@pytest.fixture
def put(repo: Path, tmp_path: Path) -> Callable[..., Any]:
    """``put(model)`` saves and commits it as ``fraud``; other keywords go to save."""

    def saved(model: onnx.ModelProto, place: Workspace | Path = repo, **options: Any) -> Any:
        path = tmp_path / "given.onnx"
        path.write_bytes(model.SerializeToString())
        return save("fraud", [path], repo=place, message="change", **options)

    return saved


def prefetched(repo: Path, put: Callable[..., Any], model: onnx.ModelProto) -> tuple[Report, Prefetch]:
    """What a release told of a version that was saved with threads at work."""
    place = Workspace.open(repo)
    with place.repo.lock(), Prefetch(place, "fraud") as sessions:
        place.sessions = sessions
        put(model, place)
        return told(place), sessions


def told(place: Workspace | Path) -> Report:
    """The report on the version that is released, or refused."""
    try:
        report = release("fraud", repo=place).report
    except GateRefused as refused:
        report = refused.report
    assert report is not None
    return report


def digest(repo: Path, reference: str = "fraud@v1.0.0") -> str:
    return resolve(Repository.open(repo), reference).lock.digest


@pytest.fixture
def ran(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, int]]:
    """The thread and the rows of every call that any model runs from here on."""
    calls: list[tuple[str, int]] = []
    run = runtime.Session.run

    def watched(self: runtime.Session, inputs: Arrays, outputs: Any = None) -> dict[str, np.ndarray]:
        calls.append((threading.current_thread().name.partition("_")[0], len(next(iter(inputs.values())))))
        return run(self, inputs, outputs)

    monkeypatch.setattr(runtime.Session, "run", watched)
    return calls


@pytest.fixture
def released(repo: Path, put: Callable[..., Any]) -> Path:
    """OLD, without golden cases, is ``fraud@v1.0.0``."""
    put(OLD)
    release("fraud", repo=repo)
    return repo


NEW: dict[str, Callable[[], onnx.ModelProto]] = {
    "tuned": lambda: support.wide_model(scale=1.001),
    "far": lambda: support.wide_model(scale=3.0),
    "deeper": lambda: support.wide_model(tensors=3),
    "another width": lambda: support.wide_model(size=220),
    "renamed": renamed,
    "refusing": refusing,
    "of two rows": two_rows,
}


@pytest.mark.parametrize("new", NEW)
def test_the_verdict_is_what_it_is_without(released: Path, put: Callable[..., Any], tmp_path: Path, new: str) -> None:
    other = Path(shutil.copytree(released, tmp_path / "twin"))
    put(NEW[new](), other)
    report, sessions = prefetched(released, put, NEW[new]())
    assert report == told(other)
    assert isinstance(sessions.find(digest(released), ONNX_VIEW), Prefetched)


@pytest.mark.parametrize("old", ["refusing", "of two rows"])
def test_so_it_is_for_an_old_version_that_refuses_or_has_no_rows(
    repo: Path, put: Callable[..., Any], tmp_path: Path, old: str
) -> None:
    put(NEW[old]())
    release("fraud", repo=repo)
    other = Path(shutil.copytree(repo, tmp_path / "twin"))
    put(OLD, other)
    assert prefetched(repo, put, OLD)[0] == told(other)


def test_each_side_runs_the_first_calls_once_and_beside_the_save(
    released: Path, put: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, ran: list[tuple[str, int]]
) -> None:
    monkeypatch.setattr(calibrate, "SMALL", 0)  # a large model is run for nothing else
    report, _ = prefetched(released, put, NEW["tuned"]())
    assert report.cases_run == 16
    assert ran == [("prefetch", 28), ("prefetch", 28)]


def test_the_old_version_is_the_latest_release_whatever_was_saved_since(
    released: Path, put: Callable[..., Any], tmp_path: Path
) -> None:
    put(NEW["far"]())
    between = digest(released, "fraud")
    other = Path(shutil.copytree(released, tmp_path / "twin"))
    put(NEW["tuned"](), other)
    report, sessions = prefetched(released, put, NEW["tuned"]())
    assert report == told(other)
    assert isinstance(sessions.find(digest(released), ONNX_VIEW), Prefetched)
    assert sessions.find(between, ONNX_VIEW) is None


def test_answers_of_another_version_are_not_used(
    released: Path, put: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(NEW["far"]())
    release("fraud", repo=released)
    newest = digest(released, "fraud@latest")
    other = Path(shutil.copytree(released, tmp_path / "twin"))
    put(NEW["tuned"](), other)
    usual = told(other)
    # As if the newest version had been tagged between the thread's look at the tags and the release's own.
    known = registry.versions(Repository.open(released), "fraud")
    looks = itertools.chain([registry.Versions(known.releases[:1], known.taken)], itertools.repeat(known))
    monkeypatch.setattr(registry, "versions", lambda *_: next(looks))
    report, sessions = prefetched(released, put, NEW["tuned"]())
    assert report == usual
    assert sessions.find(digest(released), ONNX_VIEW) is not None
    assert sessions.find(newest, ONNX_VIEW) is None


def lose(repo: Path) -> None:
    """The tensor files of OLD are nowhere."""
    for entry in resolve(Repository.open(repo), "fraud@v1.0.0").lock.files:
        Workspace.open(repo).cache.path(entry.md5).unlink()


def damage(repo: Path) -> None:
    entry = resolve(Repository.open(repo), "fraud@v1.0.0").lock.file(ONNX_VIEW)
    assert entry is not None
    path = Workspace.open(repo).cache.path(entry.md5)
    path.chmod(0o644)
    path.write_bytes(bytes(entry.size))


@pytest.mark.parametrize("harm", [lose, damage], ids=lambda harm: harm.__name__)
def test_an_old_version_that_is_not_to_be_had_is_told_of_by_the_judge(
    released: Path, put: Callable[..., Any], tmp_path: Path, harm: Callable[[Path], None]
) -> None:
    put(two_rows())  # or the working tree would have the last good copies
    other = Path(shutil.copytree(released, tmp_path / "twin"))
    for folder in (released, other):
        harm(folder)
    put(NEW["another width"](), other)
    report, sessions = prefetched(released, put, NEW["another width"]())
    usual = told(other)
    assert report.unjudged.replace(str(released), "") == usual.unjudged.replace(str(other), "") != ""
    assert sessions.find(digest(released), ONNX_VIEW) is None


def test_an_old_version_that_does_not_load_is_told_of_by_the_judge(
    released: Path, put: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Path(shutil.copytree(released, tmp_path / "twin"))
    open_session = runtime.open_session

    def refuse(path: Path, *, label: str = "", **options: Any) -> runtime.Session:
        if label == "fraud@v1.0.0":
            raise runtime.LoadFailed(f"does not load {label}")
        return open_session(path, label=label, **options)

    monkeypatch.setattr(runtime, "open_session", refuse)
    put(NEW["tuned"](), other)
    report, _ = prefetched(released, put, NEW["tuned"]())
    assert report == told(other)
    assert report.unjudged == "does not load fraud@v1.0.0"


def test_a_mistake_in_a_thread_is_raised_once_and_after_the_commit(
    released: Path, put: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object) -> None:
        raise ZeroDivisionError("a mistake of ours")

    monkeypatch.setattr(prefetch, "_answers", broken)
    head = support.git(released, "rev-parse", "HEAD")
    with pytest.raises(ZeroDivisionError):
        prefetched(released, put, NEW["tuned"]())
    assert support.git(released, "rev-parse", "HEAD~1") == head
    assert support.git(released, "tag", "--list") == "fraud@v1.0.0"


_DIES = """
import os, sys, threading
from pathlib import Path
from gitmodel import runtime
from gitmodel.workflows import prefetch
from gitmodel.workflows.release import release
from gitmodel.workflows.save import save
from gitmodel.workflows.workspace import Workspace
prefetch._LARGE = 1
run, of_new = runtime.Session.run, prefetch.Prefetch._answers_of_new
who = threading.local()
def answers_of_new(*args):
    who.runs = "new"
    return of_new(*args)
def dying(self, inputs, outputs=None):
    if threading.current_thread().name.startswith("prefetch") and getattr(who, "runs", "old") == sys.argv[3]:
        os._exit(42)
    return run(self, inputs, outputs)
prefetch.Prefetch._answers_of_new = answers_of_new
runtime.Session.run = dying
place = Workspace.open(Path(sys.argv[1]))
with place.repo.lock(), prefetch.Prefetch(place, "fraud") as place.sessions:
    save("fraud", [sys.argv[2]], repo=place, message="change")
    print(release("fraud", repo=place).tag)
"""


@pytest.mark.parametrize("side", ["old", "new"])
def test_a_model_that_brings_the_runtime_down_keeps_nobody_from_committing(
    released: Path, tmp_path: Path, side: str
) -> None:
    path = tmp_path / "new.onnx"
    path.write_bytes(NEW["tuned"]().SerializeToString())
    state_of = Repository.open(released).state_dir
    dies = ["python", "-c", _DIES, str(released), str(path), side]
    assert support.run(*dies).returncode == 42
    marks = {path.name for path in (state_of / "prefetch").iterdir()}
    assert digest(released) in marks if side == "old" else marks - {digest(released)}
    # What it ended with is left alone: OLD, so that there is nothing to ask NEW; or NEW, after OLD.
    again = support.run(*dies)
    assert (again.returncode, again.stdout.strip()) == (0, "fraud@v1.1.0"), again.stderr
    assert not (state_of / "prefetch").exists()


def test_nothing_is_left_of_what_was_prefetched(released: Path, put: Callable[..., Any]) -> None:
    state_of = Repository.open(released).state_dir
    prefetched(released, put, NEW["tuned"]())
    assert not list((state_of / "staged").iterdir())
    assert not (state_of / "prefetch").exists()


def test_a_save_that_fails_says_its_own_word_and_leaves_nothing(released: Path, put: Callable[..., Any]) -> None:
    unknown = support.wide_model(scale=2.0)
    unknown.graph.node[-1].op_type = "NoSuchOperator"
    place = Workspace.open(released)
    with pytest.raises(runtime.LoadFailed, match="NoSuchOperator"), Prefetch(place, "fraud") as place.sessions:
        put(unknown, place)
    assert not list((place.repo.state_dir / "staged").iterdir())


def test_where_the_judge_asks_something_else_nothing_is_run(
    repo: Path, put: Callable[..., Any], tmp_path: Path, ran: list[tuple[str, int]]
) -> None:
    put(OLD, golden=support.cases_npz(tmp_path / "cases.npz", width=200))
    release("fraud", repo=repo)
    ran.clear()
    _, sessions = prefetched(repo, put, NEW["tuned"]())
    assert "prefetch" not in {thread for thread, _ in ran}
    assert sessions.find(digest(repo), ONNX_VIEW) is None


def test_budgets_are_measured_in_children_alone(
    released: Path, put: Callable[..., Any], ran: list[tuple[str, int]]
) -> None:
    card = released / "models" / "fraud" / "model.yaml"
    card.write_text(f"{card.read_text()}budgets:\n  latency: 1.5\n")
    support.git(released, "commit", "-qam", "A budget")
    release("fraud", repo=released)
    ran.clear()
    _, sessions = prefetched(released, put, NEW["tuned"]())
    assert not ran
    assert sessions.find(digest(released), ONNX_VIEW) is None


def test_a_model_without_a_release_and_a_small_one_need_no_threads(
    repo: Path, put: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, ran: list[tuple[str, int]]
) -> None:
    prefetched(repo, put, OLD)
    assert not ran
    monkeypatch.setattr(prefetch, "_LARGE", 1 << 40)
    prefetched(repo, put, NEW["tuned"]())
    assert "prefetch" not in {thread for thread, _ in ran}


def test_the_same_files_again_are_not_asked_anything(
    released: Path, put: Callable[..., Any], ran: list[tuple[str, int]]
) -> None:
    with pytest.raises(NothingChanged):
        prefetched(released, put, OLD)
    assert len(ran) <= 1  # OLD was, before it was known that nothing has changed


def test_files_that_would_have_to_be_hashed_first_are_left_to_the_judge(released: Path) -> None:
    lock = resolve(Repository.open(released), "fraud").lock
    (Repository.open(released).state_dir / "digests.sqlite").unlink()
    with Prefetch(Workspace.open(released), "fraud") as sessions:
        sessions.expect(lock)
        assert sessions.find(lock.digest, ONNX_VIEW) is None


def test_a_place_of_its_own_has_sessions_that_ask_nothing(released: Path) -> None:
    assert type(Workspace.open(released).sessions) is Sessions
