"""``checkout``: to and fro between versions, only what differs rewritten, and no work lost."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from gitmodel.errors import GitmodelError
from gitmodel.registry import UnknownModel, UnknownVersion
from gitmodel.storage.workspace import MissingWeights, WouldLose
from gitmodel.workflows import transfer
from gitmodel.workflows.checkout import checkout
from gitmodel.workflows.save import save
from tests import support
from tests.workflows import state

CLEAN = "Data and pipelines are up to date.\n"


@pytest.fixture
def versions(repo: Path, tmp_path: Path) -> Path:
    """``fraud`` at v1.0.0 and v1.1.0, which differ in one of two large tensors; v1.1.0 is checked out."""
    model = support.wide_model()
    for number, version in enumerate(("v1.0.0", "v1.1.0")):
        model.graph.initializer[0].CopyFrom(support.wide_model(scale=1.0 + number).graph.initializer[0])
        path = state.write(model, tmp_path / f"{version}.onnx")
        save("fraud", [path], repo=repo, metrics={"accuracy": 0.9 + number / 100}, message=version)
        support.git(repo, "tag", "-a", "-m", version, f"fraud@{version}")
    return repo


def weights(repo: Path) -> dict[str, tuple[int, str]]:
    return state.files(repo / "models" / "fraud" / "weights")


def test_a_version_is_the_whole_folder_and_the_branch_stays(versions: Path) -> None:
    head = support.git(versions, "rev-parse", "HEAD")
    (versions / "notes.txt").write_text("mine")
    done = checkout("fraud@v1.0.0", repo=versions)
    assert done.commit == support.git(versions, "rev-parse", "fraud@v1.0.0^{commit}")
    assert support.git(versions, "diff", "--name-only", "fraud@v1.0.0", "--", "models/fraud") == ""
    assert support.git(versions, "rev-parse", "HEAD") == head
    assert support.git(versions, "branch", "--show-current") == "main"
    assert (versions / "notes.txt").read_text() == "mine"
    assert support.run("dvc", "status", cwd=versions).stdout == CLEAN


def test_only_the_files_that_differ_are_rewritten(versions: Path) -> None:
    folder = versions / "models" / "fraud" / "weights"
    before = {path: support.identity(path) for path in folder.rglob("*") if path.is_file()}
    assert checkout("fraud@v1.0.0", repo=versions).files == 1
    rewritten = [path.name for path, stat in before.items() if support.identity(path) != stat]
    assert rewritten == ["layer0%2Fweight.h5"]


def test_there_and_back_again(versions: Path) -> None:
    newest = weights(versions)
    checkout("fraud@v1.0.0", repo=versions)
    oldest = weights(versions)
    assert oldest != newest
    checkout("fraud@latest", repo=versions)
    assert weights(versions) == newest
    assert support.git(versions, "status", "--porcelain") == ""
    checkout("fraud@1.0", repo=versions)
    assert weights(versions) == oldest
    checkout("fraud@HEAD", repo=versions)
    assert weights(versions) == newest
    assert support.git(versions, "status", "--porcelain") == ""


def test_a_file_a_version_lacks_goes(versions: Path) -> None:
    save("fraud", [versions.parent / "v1.1.0.onnx"], repo=versions, params={"depth": 3}, message="params")
    checkout("fraud@v1.0.0", repo=versions)
    assert not (versions / "models" / "fraud" / "params.yaml").exists()
    assert (versions / "models" / "fraud" / "metrics.yaml").exists()


@pytest.mark.parametrize("edited", ["metrics.yaml", "model.yaml", "weights.lock"])
@pytest.mark.parametrize("staged", [True, False])
def test_changes_that_are_not_committed_are_not_lost(versions: Path, edited: str, staged: bool) -> None:
    path = versions / "models" / "fraud" / edited
    path.write_text(f"{path.read_text()}# mine\n")
    if staged:
        support.git(versions, "add", ".")
    before = state.whole(versions)
    with pytest.raises(WouldLose, match=edited):
        checkout("fraud@v1.0.0", repo=versions)
    assert state.whole(versions) == before


@pytest.mark.parametrize("reference", ["fraud@v1.0.0", "fraud@HEAD", "fraud"])
@pytest.mark.parametrize("name", ["mine.onnx", "model.onnx"])
def test_weights_that_were_never_saved_are_not_lost(versions: Path, name: str, reference: str) -> None:
    (versions / "models" / "fraud" / "weights" / name).write_bytes(b"by hand")
    before = state.whole(versions)
    with pytest.raises(WouldLose, match=name):
        checkout(reference, repo=versions)
    assert state.whole(versions) == before


def test_a_saved_but_uncommitted_model_is_not_lost(versions: Path, tmp_path: Path) -> None:
    save("fraud", [state.write(support.linear_model(), tmp_path / "linear.onnx")], repo=versions)
    before = state.whole(versions)
    with pytest.raises(WouldLose):
        checkout("fraud@v1.0.0", repo=versions)
    assert state.whole(versions) == before


def test_work_on_a_branch_that_lacks_the_model_is_not_lost(versions: Path, tmp_path: Path) -> None:
    support.git(versions, "checkout", "-q", "-b", "other", "HEAD~2")
    shutil.rmtree(versions / "models")
    save("fraud", [state.write(support.linear_model(), tmp_path / "linear.onnx")], repo=versions)
    before = state.whole(versions)
    with pytest.raises(WouldLose):
        checkout("fraud@v1.0.0", repo=versions)
    assert state.whole(versions) == before


def test_a_branch_without_the_model_can_have_it(versions: Path) -> None:
    support.git(versions, "checkout", "-q", "-b", "other", "HEAD~2")
    assert checkout("fraud@v1.0.0", repo=versions).files == 1
    assert support.git(versions, "diff", "--name-only", "fraud@v1.0.0", "--", "models/fraud") == ""


def test_the_models_own_name_lays_its_weights_out_again(versions: Path) -> None:
    before = state.whole(versions)
    shutil.rmtree(versions / "models" / "fraud" / "weights")
    assert checkout("fraud", repo=versions).files == 4
    assert state.whole(versions) == before


def test_what_the_cache_lacks_comes_from_the_remote(versions: Path, tmp_path: Path) -> None:
    transfer.push(repo=versions)
    copy = state.clone(versions, tmp_path / "clone")
    assert checkout("fraud@v1.0.0", repo=copy).files == 4
    assert support.run("dvc", "status", cwd=copy).stdout == CLEAN


def test_nothing_is_touched_when_weights_cannot_be_had(versions: Path, tmp_path: Path) -> None:
    copy = state.clone(versions, tmp_path / "clone")
    before = state.whole(copy)
    with pytest.raises(GitmodelError, match="cannot be reached, or holds nothing"):
        checkout("fraud@v1.0.0", repo=copy)
    assert state.whole(copy) == before


def test_a_damaged_object_is_refused_and_the_folder_stays(versions: Path) -> None:
    lock = support.git(versions, "show", "fraud@v1.0.0:models/fraud/weights.lock").splitlines()
    md5 = next(line.split()[-1] for line in lock if line.startswith("file tensors/layer0%2Fweight.h5 "))
    state.damage(state.object_path(versions / ".dvc" / "cache", md5))
    before = state.whole(versions)
    with pytest.raises(MissingWeights, match=r"other bytes for tensors/layer0%2Fweight\.h5"):
        checkout("fraud@v1.0.0", repo=versions)
    assert state.whole(versions) == before


def test_what_is_not_in_the_repository_is_refused(versions: Path, tmp_path: Path) -> None:
    foreign = tmp_path / "fraud"
    shutil.copytree(versions / "models" / "fraud", foreign, ignore=shutil.ignore_patterns("weights"))
    before = state.whole(versions)
    for reference in (str(foreign), str(tmp_path / "v1.0.0.onnx")):
        with pytest.raises(GitmodelError):
            checkout(reference, repo=versions)
    with pytest.raises(UnknownModel, match="models here: fraud"):
        checkout("nothing", repo=versions)
    with pytest.raises(UnknownVersion, match=r"versions: v1\.0\.0, v1\.1\.0"):
        checkout("fraud@v9.0.0", repo=versions)
    assert state.whole(versions) == before


def test_other_models_stay(versions: Path, save_model: Callable[..., object]) -> None:
    save_model("churn")
    (versions / "models" / "churn" / "metrics.yaml").write_text("being: edited\n")
    before = state.files(versions / "models" / "churn")
    checkout("fraud@v1.0.0", repo=versions)
    assert state.files(versions / "models" / "churn") == before
