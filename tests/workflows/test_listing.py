"""``list``, ``log``, ``show``: read from Git alone, in a working tree as in a bare repository, whatever tags there are."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from gitmodel.errors import GitmodelError
from gitmodel.git import NotARepository
from gitmodel.registry import UnknownModel
from gitmodel.versions import InvalidName
from gitmodel.workflows.listing import left_out, list_models, log, read_trailers, show
from gitmodel.workflows.release import promote, release
from gitmodel.workflows.save import save
from tests import support
from tests.workflows import state
from tests.workflows.conftest import Change

Save = Callable[..., object]


@pytest.fixture
def history(repo: Path, save_model: Save, change: Change) -> Path:
    """``fraud`` at v1.0.0 (prod) and v1.1.0; ``churn`` saved and not released."""
    change(1.0, params={"depth": 3}, metrics={"accuracy": 0.9})
    release("fraud", repo=repo)
    change(1.01, metrics={"accuracy": 0.95})
    release("fraud", repo=repo)
    promote("fraud@v1.0.0", "prod", repo=repo)
    save_model("churn")
    return repo


def test_every_model_has_its_row(history: Path) -> None:
    churn, fraud = list_models(history)
    assert (churn.name, churn.latest, churn.stages, churn.unreleased) == ("churn", "", {}, True)
    assert (fraud.name, fraud.latest, fraud.stages, fraud.unreleased) == ("fraud", "v1.1.0", {"prod": "v1.0.0"}, False)
    assert fraud.size == sum(p.stat().st_size for p in (history / "models/fraud/weights").rglob("*") if p.is_file())
    assert fraud.date is not None
    assert f"{fraud.date:%Y-%m-%d}" == support.git(history, "log", "-1", "--format=%ad", "--date=format-local:%Y-%m-%d")


def test_a_change_since_the_release_shows(history: Path) -> None:
    (history / "models" / "fraud" / "metrics.yaml").write_text("accuracy: 1.0\n")
    assert next(row for row in list_models(history) if row.name == "fraud").unreleased
    support.git(history, "commit", "-qam", "better")
    assert next(row for row in list_models(history) if row.name == "fraud").unreleased


def test_a_bare_repository_lists_its_last_commit(history: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare.git"
    subprocess.run(["git", "clone", "-q", "--bare", str(history), str(bare)], check=True)
    assert [(row.name, row.latest, row.stages) for row in list_models(bare)] == [
        ("churn", "", {}),
        ("fraud", "v1.1.0", {"prod": "v1.0.0"}),
    ]
    assert [entry.version for entry in log("fraud", bare)] == ["v1.1.0", "v1.0.0"]
    assert show("fraud", bare)["commit"] == support.git(history, "rev-parse", "HEAD")


def test_a_shallow_clone_says_that_versions_may_be_left_out(history: Path, tmp_path: Path) -> None:
    copy = state.shallow_clone(history, tmp_path / "shallow", "fraud@v1.1.0")
    assert [(entry.version, entry.changed) for entry in log("fraud", copy)] == [("v1.1.0", "")]
    assert left_out(copy) == (
        "this clone is shallow, versions may be left out: 'git fetch --unshallow --tags' brings all there is"
    )
    assert left_out(history) == ""
    support.git(copy, "fetch", "-q", "--depth", "1", "origin", "tag", "fraud@v1.0.0")
    assert [(entry.version, bool(entry.changed)) for entry in log("fraud", copy)] == [
        ("v1.1.0", True),
        ("v1.0.0", False),
    ]


def test_a_repository_without_models_or_commits_lists_nothing(git_repo: Path, tmp_path: Path) -> None:
    assert list_models(git_repo) == []
    bare = tmp_path / "bare.git"
    subprocess.run(["git", "init", "-q", "--bare", str(bare)], check=True)
    assert list_models(bare) == []


def test_a_model_before_its_first_commit_has_no_date(git_repo: Path, tmp_path: Path) -> None:
    from gitmodel.workflows.init import init

    init(git_repo)
    save("fraud", [state.write(support.linear_model(), tmp_path / "m.onnx")], repo=git_repo)
    (row,) = list_models(git_repo)
    assert (row.date, row.latest, row.unreleased) == (None, "", True)


def test_a_log_says_what_each_version_changed_and_added(history: Path) -> None:
    newest, first = log("fraud", history)
    assert (first.version, first.changed, first.verdict, first.stages) == (
        "v1.0.0",
        "first version",
        "compatible",
        ("prod",),
    )
    assert first.stored == first.size
    assert (newest.version, newest.changed) == ("v1.1.0", "1 of 2 tensors, metrics")
    assert newest.verdict == "compatible, minor"
    assert newest.author == "Ada"
    assert newest.annotated
    assert newest.digest != first.digest


def test_a_log_goes_on_past_a_version_whose_lock_is_damaged(history: Path, tmp_path: Path) -> None:
    before = log("fraud", history)
    (history / "models" / "fraud" / "weights.lock").unlink()
    support.git(history, "commit", "-qam", "harm")
    support.git(history, "tag", "-a", "-m", "harmed", "fraud@v1.2.0")
    support.git(history, "revert", "--no-edit", "HEAD")
    support.git(history, "tag", "-a", "-m", "mended", "fraud@v1.3.0")
    mended, harmed, *rest = log("fraud", history)
    assert rest == before
    assert (harmed.version, harmed.digest, harmed.stored) == ("v1.2.0", "", 0)
    assert harmed.changed == "fraud@v1.2.0 has no weights.lock"
    assert (mended.stored, mended.changed) == (0, "nothing that counts")  # against the last one that can be read


def test_the_bytes_a_version_added_leave_out_what_it_shares(repo: Path, tmp_path: Path) -> None:
    model = support.wide_model()
    save("fraud", [state.write(model, tmp_path / "1.onnx")], repo=repo, message="one")
    release("fraud", repo=repo)
    model.graph.initializer[0].CopyFrom(support.wide_model(scale=1.5).graph.initializer[0])
    save("fraud", [state.write(model, tmp_path / "2.onnx")], repo=repo, message="two")
    release("fraud", repo=repo)
    newest = log("fraud", repo)[0]
    assert 160_000 < newest.stored < 165_000 < newest.size


def test_signature_params_and_labels_show_as_changes(history: Path, tmp_path: Path) -> None:
    labels = tmp_path / "labels.txt"
    labels.write_text("a\nb\nc\n")
    path = state.write(support.linear_model(output_name="out"), tmp_path / "out.onnx")
    golden = support.cases_npz(tmp_path / "again.npz", rows=2)
    save("fraud", [path], repo=history, params={"depth": 4}, labels=labels, golden=golden, message="all")
    release("fraud", "major", repo=history)
    assert log("fraud", history)[0].changed.split(", ")[-3:] == ["signature", "params", "labels"]


def test_nothing_that_counts_is_said_to_be_so(history: Path) -> None:
    card = history / "models" / "fraud" / "model.yaml"
    card.write_text(f"{card.read_text()}licence: MIT\n")
    support.git(history, "commit", "-qam", "licence")
    release("fraud", "patch", repo=history)
    assert log("fraud", history)[0].changed == "nothing that counts"


def test_strange_tags_never_break_a_listing(history: Path) -> None:
    root = support.git(history, "rev-list", "--max-parents=0", "HEAD")
    for name in (
        "fraud@v1;id",
        "fraud@",
        "fraud@v1",
        "v9",
        "fraud#",
        "fraud#prod;x",
        "fraud@v01.0.0",
        "fraud@deprecated",
    ):
        subprocess.run(["git", "-C", str(history), "tag", "-a", "-m", "x", name], capture_output=True, check=False)
    support.git(history, "tag", "-a", "-m", "stray", "fraud@v9.0.0", root)
    support.git(history, "tag", "-a", "-m", "stray", "ghost@v1.0.0", root)
    support.git(history, "tag", "blob@v1.0.0", support.git(history, "rev-parse", "HEAD:.gitattributes"))
    support.git(history, "tag", "-a", "-m", "stray", "fraud#canary#1", root)
    assert [row.name for row in list_models(history)] == ["churn", "fraud"]
    assert [entry.version for entry in log("fraud", history)] == ["v1.1.0", "v1.0.0"]
    assert show("fraud@latest", history)["reference"] == "fraud@v1.1.0"


def test_versions_are_ordered_as_numbers(repo: Path, save_model: Save) -> None:
    for number, version in enumerate(("v10.0.0", "v9.0.0", "v9.10.0", "v9.9.0", "v9.0.0-rc.2", "v9.0.0-rc.10")):
        save_model(scale=1 + number / 10)
        support.git(repo, "tag", "-a", "-m", version, f"fraud@{version}")
    assert [entry.version for entry in log("fraud", repo)] == [
        "v10.0.0", "v9.10.0", "v9.9.0", "v9.0.0", "v9.0.0-rc.10", "v9.0.0-rc.2",
    ]  # fmt: skip


def test_a_lightweight_tag_counts_and_is_marked(history: Path, change: Change) -> None:
    change(1.02)
    support.git(history, "tag", "fraud@v1.2.0")
    newest = log("fraud", history)[0]
    assert (newest.version, newest.annotated, newest.verdict) == ("v1.2.0", False, "")
    assert newest.author == "Ada"


def test_a_model_without_versions_has_an_empty_log(history: Path) -> None:
    assert log("churn", history) == []
    with pytest.raises(UnknownModel, match="models here: churn, fraud"):
        log("nothing", history)
    with pytest.raises(InvalidName):
        log("../x", history)


def test_a_bundle_is_shown_whole(history: Path) -> None:
    body = show("fraud@v1.0.0", history)
    assert body["reference"] == "fraud@v1.0.0"
    assert body["commit"] == support.git(history, "rev-parse", "fraud@v1.0.0^{}")
    assert (body["params"], body["metrics"], body["golden_cases"]) == ({"depth": 3}, {"accuracy": 0.9}, 16)
    assert body["signatures"]["default"]["inputs"] == [{"name": "x", "dtype": "float32", "shape": ["batch", 4]}]
    lock = subprocess.run(
        ["git", "-C", str(history), "show", "fraud@v1.0.0:models/fraud/weights.lock"], capture_output=True, check=True
    ).stdout
    assert body["weights"]["digest"] == f"sha256:{hashlib.sha256(lock).hexdigest()}"
    assert show("fraud", history)["commit"] is None


def test_a_model_file_is_shown_without_any_repository(tmp_path: Path) -> None:
    path = state.write(support.linear_model(), tmp_path / "model.onnx")
    body = show(str(path), tmp_path)
    assert (body["name"], body["format"], body["framework"]) == ("model", "onnx", "tests")
    assert "weights" not in body
    with pytest.raises(UnknownModel, match="no model file"):
        show("fraud", tmp_path)
    with pytest.raises(NotARepository):
        list_models(tmp_path)


def test_a_bundle_folder_is_shown_as_it_lies(history: Path, tmp_path: Path) -> None:
    shutil.copytree(history / "models" / "fraud", tmp_path / "copied")
    body = show(str(tmp_path / "copied"), tmp_path)
    assert body["metrics"] == {"accuracy": 0.95}


def test_a_damaged_bundle_is_one_error(history: Path) -> None:
    lock = history / "models" / "fraud" / "weights.lock"
    lock.write_text("not a lock\n")
    with pytest.raises(GitmodelError, match=r"fraud: weights\.lock"):
        show("fraud", history)
    with pytest.raises(GitmodelError, match=r"fraud: weights\.lock"):
        list_models(history)
    lock.unlink()
    assert next(row for row in list_models(history) if row.name == "fraud").size is None


def test_trailers_are_the_last_paragraph_alone() -> None:
    assert read_trailers("subject\n\nA: no\n\nB: yes\nwithout mark\nC: d: e\n") == {"B": "yes", "C": "d: e"}
    assert read_trailers("") == {}


def test_a_card_that_is_no_file_makes_no_model_of_a_bare_repository(history: Path, tmp_path: Path) -> None:
    for name in ("folder", "link"):
        (history / "models" / name).mkdir()
    (history / "models" / "folder" / "model.yaml").mkdir()
    (history / "models" / "folder" / "model.yaml" / "inner").write_text("x")
    (history / "models" / "link" / "model.yaml").symlink_to("../fraud/model.yaml")
    support.git(history, "add", "models")
    support.git(history, "commit", "-qm", "Odd")
    bare = tmp_path / "bare.git"
    subprocess.run(["git", "clone", "-q", "--bare", str(history), str(bare)], check=True)
    assert [row.name for row in list_models(bare)] == ["churn", "fraud"]
