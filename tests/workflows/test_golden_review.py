"""Recorded outputs give way only to a decision with a reason; what waits for one is never committed, and a kill loses nothing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper

from gitmodel.bundle import acceptance
from gitmodel.files import StorageFailed
from gitmodel.git import GitFailed
from gitmodel.workflows import check, golden_outputs, listing, save
from gitmodel.workflows.golden import CaseRefused, NoSuchCase, cases_of
from gitmodel.workflows.golden_review import ChangedUnderReview, NoReason, accept, accept_named, begin, end, reject
from tests import support

FOLDER = Path("models/fraud/golden/cases")


@pytest.fixture
def drifted(repo: Path, change: Callable[..., object], save_model: Callable[..., object]) -> Path:
    """``fraud`` with 16 golden cases, all of which the weights committed after them fail."""
    change(1.0)
    save_model(scale=1.01)
    return repo


def pending(repo: Path) -> set[str]:
    """The cases with outputs that wait for a decision."""
    return {path.parent.name.rpartition("_")[2] for path in (repo / FOLDER).rglob("*.new")}


def failing(repo: Path) -> list[str]:
    groups = cases_of("fraud", repo=repo, check=True)
    return [row.name for group in groups for row in group.rows if row.wrong]


def reasons(repo: Path) -> list[tuple[tuple[int, ...], str]]:
    path = repo / FOLDER / acceptance.ACCEPTED
    entries = acceptance.read(path.read_bytes(), "a") if path.exists() else ()
    return [(entry.cases, entry.reason) for entry in entries]


# Beginning


def test_what_fails_is_laid_beside_what_is_recorded(drifted: Path) -> None:
    review = begin("fraud", repo=drifted)
    assert (review.cases, len(review.failing), review.rejected) == (16, 16, 0)
    assert pending(drifted) == {str(i) for i in range(16)}
    case = review.failing[0]
    assert (case.name, case.rows, case.outputs[0].output) == ("cases/0", 1, "scores")
    new = onnx.TensorProto.FromString((drifted / FOLDER / "test_data_set_0/output_0.pb.new").read_bytes())
    assert case.given is not None
    np.testing.assert_array_equal(onnx.numpy_helper.to_array(new), case.given["scores"])
    old = onnx.TensorProto.FromString((drifted / FOLDER / "test_data_set_0/output_0.pb").read_bytes())
    gap = np.abs(onnx.numpy_helper.to_array(new).astype("float64") - onnx.numpy_helper.to_array(old)).max()
    assert case.outputs[0].max_abs == gap


def test_what_waits_is_nobodys_promise(drifted: Path, save_model: Callable[..., object]) -> None:
    before = check.check_compat("fraud@HEAD", "fraud", repo=drifted)
    begin("fraud", repo=drifted)
    assert support.git(drifted, "status", "--porcelain") == ""
    assert check.check_compat("fraud@HEAD", "fraud", repo=drifted) == before
    assert listing.show("fraud", drifted)["golden_cases"] == 16
    assert [len(group.rows) for group in cases_of("fraud", repo=drifted)] == [16]
    head = support.git(drifted, "rev-parse", "HEAD")
    save_model(scale=1.01)
    assert support.git(drifted, "rev-parse", "HEAD") == head, "there is nothing to commit"
    save_model(scale=1.02)
    assert support.git(drifted, "ls-files", "*.new") == ""
    support.git(drifted, "add", "models/fraud")
    assert support.git(drifted, "ls-files", "*.new") == ""


def test_what_waits_is_not_committed_though_git_were_told_to_see_it(
    drifted: Path, save_model: Callable[..., object]
) -> None:
    begin("fraud", repo=drifted)
    (drifted / ".git/info/exclude").write_text("")
    save_model(scale=1.02)
    assert support.git(drifted, "ls-files", "*.new") == ""


def test_git_is_told_once_and_keeps_what_stood_there(drifted: Path) -> None:
    path = drifted / ".git/info/exclude"
    path.write_text("mine")
    begin("fraud", repo=drifted)
    begin("fraud", repo=drifted)
    assert path.read_text() == "mine\n/models/*/golden/*/test_data_set_*/output_*.pb.new\n"


def test_a_model_that_keeps_its_word_has_nothing_to_review(repo: Path, change: Callable[..., object]) -> None:
    change(1.0)
    review = begin("fraud", repo=repo)
    assert (review.cases, review.failing) == (16, ())
    assert pending(repo) == set()


def test_what_waited_goes_when_the_model_is_mended(drifted: Path, save_model: Callable[..., object]) -> None:
    begin("fraud", repo=drifted)
    save_model(scale=1.0)
    assert begin("fraud", repo=drifted).failing == ()
    assert pending(drifted) == set()


# Deciding


def test_accepted_outputs_take_the_place_of_the_old_with_their_reason(drifted: Path) -> None:
    review = begin("fraud", repo=drifted)
    new = (drifted / FOLDER / "test_data_set_3/output_0.pb.new").read_bytes()
    accept(review, [review.failing[3]], "  Trained on June ", repo=drifted)
    assert (drifted / FOLDER / "test_data_set_3/output_0.pb").read_bytes() == new
    assert "3" not in pending(drifted)
    assert "cases/3" not in failing(drifted)
    (entry,) = acceptance.read((drifted / FOLDER / acceptance.ACCEPTED).read_bytes(), "a")
    assert (entry.cases, entry.reason, entry.by) == ((3,), "Trained on June", "Ada <ada@example.org>")
    assert entry.weights == f"sha256:{review.weights}"
    (group,) = cases_of("fraud", repo=drifted)
    assert [row.name for row in group.rows if row.accepted] == ["cases/3"]


def test_accepting_all_makes_the_model_keep_its_word(drifted: Path) -> None:
    review = begin("fraud", repo=drifted)
    accept(review, review.failing, "All meant", repo=drifted)
    assert (failing(drifted), pending(drifted)) == ([], set())
    assert reasons(drifted) == [(tuple(range(16)), "All meant")]


@pytest.mark.parametrize("reason", ["", " \n"])
def test_nothing_is_accepted_without_a_reason(drifted: Path, reason: str) -> None:
    review = begin("fraud", repo=drifted)
    with pytest.raises(NoReason):
        accept(review, review.failing, reason, repo=drifted)
    assert len(failing(drifted)) == 16


def test_a_review_goes_on_after_a_kill(drifted: Path) -> None:
    review = begin("fraud", repo=drifted)
    accept(review, review.failing[:2], "Meant", repo=drifted)
    reject(review, review.failing[2], repo=drifted)
    assert pending(drifted) == {str(i) for i in range(3, 16)}
    again = begin("fraud", repo=drifted)
    assert [case.name for case in again.failing] == [f"cases/{i}" for i in range(3, 16)]
    assert again.rejected == 1


def test_when_a_review_is_over_the_next_asks_about_what_was_rejected(drifted: Path) -> None:
    review = begin("fraud", repo=drifted)
    reject(review, review.failing[2], repo=drifted)
    end(review, repo=drifted)
    assert len(begin("fraud", repo=drifted).failing) == 16


def test_another_answer_to_a_rejected_case_is_asked_about(drifted: Path, save_model: Callable[..., object]) -> None:
    review = begin("fraud", repo=drifted)
    reject(review, review.failing[2], repo=drifted)
    save_model(scale=1.02)
    assert len(begin("fraud", repo=drifted).failing) == 16


def test_a_damaged_note_of_what_was_rejected_is_as_good_as_none(drifted: Path) -> None:
    review = begin("fraud", repo=drifted)
    reject(review, review.failing[2], repo=drifted)
    for damaged in ("{", "7", "[]"):
        (drifted / ".git/gitmodel/reviews/fraud.json").write_text(damaged)
        assert len(begin("fraud", repo=drifted).failing) == 16


def test_a_kill_between_reason_and_outputs_leaves_the_case_to_be_decided(
    drifted: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    review = begin("fraud", repo=drifted)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(golden_outputs, "replace_outputs", killed)
        with pytest.raises(KeyboardInterrupt):
            accept(review, review.failing[:2], "Meant", repo=drifted)
    assert reasons(drifted) == [((0, 1), "Meant")]
    again = begin("fraud", repo=drifted)
    assert len(again.failing) == 16
    reject(again, again.failing[0], repo=drifted)
    assert reasons(drifted) == [((1,), "Meant")]
    reject(again, again.failing[1], repo=drifted)
    assert not (drifted / FOLDER / acceptance.ACCEPTED).exists()


def test_what_was_reviewed_is_what_is_accepted(drifted: Path, save_model: Callable[..., object]) -> None:
    review = begin("fraud", repo=drifted)
    path = drifted / FOLDER / "test_data_set_0/output_0.pb"
    path.write_bytes(path.read_bytes().replace(b"scores", b"scorez"))
    with pytest.raises(ChangedUnderReview, match="golden case cases/0 was changed meanwhile"):
        accept(review, review.failing, "Meant", repo=drifted)
    save_model(scale=1.02)
    with pytest.raises(ChangedUnderReview, match="fraud was saved meanwhile"):
        accept(review, review.failing, "Meant", repo=drifted)
    assert reasons(drifted) == []


def test_git_must_know_who_accepts(drifted: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(tmp_path / "none"))
    support.git(drifted, "config", "user.useConfigOnly", "true")
    with pytest.raises(GitFailed, match="Git does not know your name"):
        accept_named("fraud", [], "Meant", repo=drifted)
    assert len(failing(drifted)) == 16


# By name


def test_cases_and_groups_are_accepted_by_name(drifted: Path) -> None:
    done = accept_named("fraud", ["cases/3", "cases/5"], "June", repo=drifted)
    assert (done.names, done.held) == (("cases/3", "cases/5"), 0)
    done = accept_named("fraud", ["cases/3", "cases/4"], "July", repo=drifted)
    assert (done.names, done.held) == (("cases/4",), 1)
    done = accept_named("fraud", ["cases"], "All", repo=drifted)
    assert (len(done.names), done.held) == (13, 3)
    assert [cases for cases, _ in reasons(drifted)][:2] == [(3, 5), (4,)]
    assert accept_named("fraud", [], "Again", repo=drifted).names == ()
    assert "Again" not in (drifted / FOLDER / acceptance.ACCEPTED).read_text()


def test_an_unknown_case_accepts_nothing(drifted: Path) -> None:
    with pytest.raises(NoSuchCase):
        accept_named("fraud", ["cases/3", "cases/99"], "June", repo=drifted)
    assert len(failing(drifted)) == 16


def test_accepting_by_name_leaves_nothing_waiting(drifted: Path) -> None:
    begin("fraud", repo=drifted)
    accept_named("fraud", ["cases/3"], "June", repo=drifted)
    assert pending(drifted) == {str(i) for i in range(16)} - {"3"}


def test_a_save_with_new_cases_leaves_neither_reasons_nor_what_waited(
    drifted: Path, change: Callable[..., object]
) -> None:
    begin("fraud", repo=drifted)
    accept_named("fraud", ["cases/3"], "June", repo=drifted)
    (drifted / FOLDER / "slice.yaml").write_text("slice: country=DE\n")
    change(1.02)
    kept = {path.name for path in (drifted / FOLDER).rglob("*") if path.is_file()}
    assert kept == {"input_0.pb", "output_0.pb", "slice.yaml"}


# Models whose outputs change


def _two(second: str = "b", shift: float = 0.0) -> onnx.ModelProto:
    nodes = [helper.make_node("Mul", ["x", "two"], ["a"]), helper.make_node("Add", ["x", "shift"], [second])]
    x, a, b = (support.value_info(name, "float32", ["n", 2]) for name in ("x", "a", second))
    weights = {"two": np.array(2, "float32"), "shift": np.array(shift, "float32")}
    return support.model(nodes, [x], [a, b], weights)


def _save(repo: Path, model: Any, **options: Any) -> None:
    save.save("fraud", model, repo=repo, message="change", **options)


@pytest.fixture
def two(repo: Path, tmp_path: Path) -> Path:
    """``fraud`` with two outputs and two cases."""
    np.savez(tmp_path / "cases.npz", x=np.arange(4, dtype="float32").reshape(2, 2))
    _save(repo, _two(), golden=tmp_path / "cases.npz")
    return repo


def outputs(repo: Path, number: int = 0) -> list[str]:
    paths = sorted((repo / FOLDER / f"test_data_set_{number}").glob("output_*.pb"))
    return [onnx.TensorProto.FromString(path.read_bytes()).name for path in paths]


def test_an_output_that_is_no_more_goes_with_the_acceptance(two: Path) -> None:
    _save(two, _two("c"))
    review = begin("fraud", repo=two)
    assert [(c.output, c.apart) for c in review.failing[0].outputs] == [
        ("a", ""),
        ("b", "the model has no such output"),
    ]
    accept(review, review.failing, "b is c now", repo=two)
    assert outputs(two) == ["a"]
    assert failing(two) == []


def test_only_outputs_that_were_recorded_are_recorded(two: Path) -> None:
    for number in range(2):
        (two / FOLDER / f"test_data_set_{number}/output_0.pb").unlink()
    _save(two, _two(shift=1.0))
    review = begin("fraud", repo=two)
    assert len(review.failing) == 2
    accept(review, review.failing, "Shifted", repo=two)
    assert outputs(two) == ["b"]
    assert failing(two) == []


def test_a_case_without_outputs_gets_all_of_them(two: Path) -> None:
    for path in (two / FOLDER / "test_data_set_1").glob("output_*"):
        path.unlink()
    review = begin("fraud", repo=two)
    assert [case.name for case in review.failing] == ["cases/1"]
    assert [c.apart for c in review.failing[0].outputs] == ["it was not recorded"] * 2
    accept(review, review.failing, "Lost", repo=two)
    assert outputs(two, 1) == ["a", "b"]


def test_a_case_the_model_refuses_cannot_be_accepted(two: Path) -> None:
    (two / FOLDER / "test_data_set_1/input_0.pb").write_bytes(
        onnx.numpy_helper.from_array(np.zeros((1, 3), "float32"), "x").SerializeToString()
    )
    _save(two, _two(shift=1.0))
    review = begin("fraud", repo=two)
    refused = review.failing[1]
    assert (refused.given, refused.outputs) == (None, ())
    assert "index: 1 Got: 3 Expected: 2" in refused.wrong
    assert pending(two) == {"0"}
    with pytest.raises(CaseRefused, match="the model refuses golden case cases/1"):
        accept(review, review.failing, "All", repo=two)
    assert len(failing(two)) == 2
    reject(review, refused, repo=two)
    assert [case.name for case in begin("fraud", repo=two).failing] == ["cases/0"]


def test_a_disk_that_refuses_is_one_line(drifted: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    review = begin("fraud", repo=drifted)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tempfile.mkstemp", full)
    with pytest.raises(StorageFailed, match="No space left"):
        accept(review, review.failing, "Meant", repo=drifted)
    monkeypatch.undo()
    assert len(failing(drifted)) == 16
