"""``push`` and ``pull``: only what is missing moves, all of it verified, and a stranger's clone cannot make us write elsewhere."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from gitmodel.errors import GitmodelError
from gitmodel.registry import UnknownModel
from gitmodel.storage.remote import NoRemote, RemoteFailed
from gitmodel.storage.setup import NotInitialised
from gitmodel.storage.workspace import MissingWeights, WouldLose
from gitmodel.workflows.init import init
from gitmodel.workflows.save import save
from gitmodel.workflows.transfer import pull, push
from tests import support
from tests.workflows import state


@pytest.fixture
def origin(repo: Path, tmp_path: Path) -> Path:
    """Two versions of ``fraud`` that share one of their two large tensors."""
    model = support.wide_model()
    for number, version in enumerate(("v1.0.0", "v1.1.0")):
        model.graph.initializer[0].CopyFrom(support.wide_model(scale=1.0 + number).graph.initializer[0])
        save("fraud", [state.write(model, tmp_path / f"{version}.onnx")], repo=repo, message=version)
        support.git(repo, "tag", "-a", "-m", version, f"fraud@{version}")
    return repo


@pytest.fixture
def copy(origin: Path, tmp_path: Path) -> Path:
    """A clone whose remote has everything."""
    push(repo=origin)
    return state.clone(origin, tmp_path / "clone")


def weights(repo: Path) -> Path:
    return repo / "models" / "fraud" / "weights"


def md5_of(repo: Path, path: str, name: str = "fraud") -> str:
    lines = (repo / "models" / name / "weights.lock").read_text().splitlines()
    return next(line.split()[-1] for line in lines if line.startswith(f"file {path} "))


def test_every_version_goes_and_shared_tensors_go_once(origin: Path, tmp_path: Path) -> None:
    storage = tmp_path / "storage"
    moved = push(["fraud@v1.0.0"], repo=origin)
    assert (moved.bundles, moved.objects, moved.remote) == (1, 5, "storage")
    assert push(repo=origin).objects == 2, "one tensor and one listing"
    assert {p.relative_to(storage / "files" / "md5").as_posix() for p in storage.rglob("*") if p.is_file()} == (
        state.objects(origin)
    )
    assert push(repo=origin).objects == 0


def test_the_working_trees_models_come_and_are_laid_out(origin: Path, copy: Path) -> None:
    moved = pull(repo=copy)
    assert (moved.bundles, moved.objects) == (1, 4)
    assert state.files(weights(copy)) == state.files(weights(origin))
    assert pull(repo=copy).objects == 0
    assert support.git(copy, "status", "--porcelain") == ""


def test_a_version_comes_into_the_cache_alone(copy: Path) -> None:
    assert pull(["fraud@v1.0.0"], repo=copy).objects == 4
    assert not weights(copy).exists()
    assert pull(repo=copy).objects == 1


def test_a_remote_may_be_named(origin: Path, copy: Path, tmp_path: Path) -> None:
    for place in (origin, copy):
        support.run("dvc", "remote", "add", "mirror", str(tmp_path / "mirror"), cwd=place)
    assert push(repo=origin, remote="mirror").remote == "mirror"
    shutil.rmtree(tmp_path / "storage")
    assert pull(repo=copy, remote="mirror").objects == 4
    with pytest.raises(NoRemote, match="'nowhere'"):
        push(repo=origin, remote="nowhere")


def test_progress_is_told(copy: Path) -> None:
    told: list[tuple[int, ...]] = []
    moved = pull(repo=copy, progress=lambda *counts: told.append(counts))
    assert told[-1] == (4, 4, moved.size, moved.size)


def test_without_a_remote_nothing_can_go(git_repo: Path, tmp_path: Path) -> None:
    init(git_repo)
    save("fraud", [state.write(support.linear_model(), tmp_path / "linear.onnx")], repo=git_repo, message="one")
    with pytest.raises(NoRemote, match="no DVC remote is set"):
        push(repo=git_repo)
    assert pull(repo=git_repo).objects == 0, "what is here needs no remote"
    shutil.rmtree(git_repo / ".dvc" / "cache")
    with pytest.raises(NoRemote, match="no DVC remote is set"):
        pull(repo=git_repo)


def test_weights_that_are_there_need_not_be_here(copy: Path) -> None:
    assert push(repo=copy).objects == 0


def test_weights_that_are_in_neither_place_cannot_go(copy: Path, tmp_path: Path) -> None:
    state.object_path(tmp_path / "storage", md5_of(copy, "tensors/layer0%2Fweight.h5")).unlink()
    with pytest.raises(MissingWeights, match=r"1 file .* is not in the DVC cache"):
        push(repo=copy)


def test_a_push_that_was_cut_short_goes_on_where_it_ended(origin: Path, tmp_path: Path) -> None:
    push(repo=origin)
    storage = tmp_path / "storage"
    state.object_path(storage, md5_of(origin, "model.onnx")).unlink()
    whole = state.object_path(storage, md5_of(origin, "weights.h5"))
    whole.chmod(0o644)
    whole.write_bytes(whole.read_bytes()[:100])
    moved = push(repo=origin)
    size = sum((weights(origin) / name).stat().st_size for name in ("model.onnx", "weights.h5"))
    assert (moved.objects, moved.size) == (2, size)
    assert pull(repo=state.clone(origin, tmp_path / "clone")).objects == 4


@pytest.mark.parametrize("harm", [Path.unlink, state.rot])
def test_versions_that_are_whole_go_and_the_one_that_is_not_is_named(
    origin: Path, tmp_path: Path, harm: Callable[[Path], None]
) -> None:
    path = "tensors/layer0%2Fweight.h5"
    lock = support.git(origin, "show", "fraud@v1.0.0:models/fraud/weights.lock")
    harm(state.object_path(origin / ".dvc" / "cache", lock.split(f"file {path} ")[1].splitlines()[0].split()[-1]))
    with pytest.raises(MissingWeights, match=r"^fraud@v1\.0\.0 not sent \(.*\); everything else is there: run"):
        push(repo=origin)
    assert pull(["fraud@v1.1.0"], repo=state.clone(origin, tmp_path / "clone")).objects == 4
    with pytest.raises(RemoteFailed, match="does not have"):
        pull(["fraud@v1.0.0"], repo=tmp_path / "clone")
    assert len(list((tmp_path / "storage").rglob("*.dir"))) == 1, "DVC is told of whole versions alone"


def test_of_many_versions_that_are_not_whole_the_first_are_named(origin: Path, tmp_path: Path) -> None:
    for number in range(4):
        path = state.write(support.linear_model(scale=1.0 + number), tmp_path / f"{number}.onnx")
        save(f"small{number}", [path], repo=origin, message="small")
        md5 = md5_of(origin, "model.onnx", f"small{number}")
        state.object_path(origin / ".dvc" / "cache", md5).unlink()
    with pytest.raises(MissingWeights, match=r"^small0, small1, small2 and 1 more not sent \("):
        push(["fraud", *(f"small{number}" for number in range(4))], repo=origin)


def without_lock(lock: Path) -> None:
    lock.unlink()


def cut_lock(lock: Path) -> None:
    lock.write_bytes(lock.read_bytes()[:100])


@pytest.mark.parametrize("harm", [without_lock, cut_lock])
def test_a_version_whose_lock_was_committed_damaged_keeps_no_other_from_going(
    origin: Path, tmp_path: Path, harm: Callable[[Path], None]
) -> None:
    harm(origin / "models" / "fraud" / "weights.lock")
    support.git(origin, "commit", "-qam", "harm")
    support.git(origin, "tag", "-a", "-m", "harmed", "fraud@v1.9.0")
    support.git(origin, "revert", "--no-edit", "HEAD")
    said = r"^fraud@v1\.9\.0 not sent \(fraud@v1\.9\.0.*weights\.lock.*\); everything else is there: withdraw it: git tag -a"
    with pytest.raises(MissingWeights, match=said):
        push(repo=origin)
    assert pull(["fraud@v1.1.0"], repo=state.clone(origin, tmp_path / "clone")).objects == 4
    support.git(origin, "tag", "-a", "-m", "its lock is damaged", "fraud@v1.9.0!", "fraud@v1.9.0")
    assert push(repo=origin).objects == 0


def test_a_damaged_lock_of_the_working_tree_keeps_no_version_from_going(origin: Path, tmp_path: Path) -> None:
    cut_lock(origin / "models" / "fraud" / "weights.lock")
    with pytest.raises(MissingWeights, match=r"^fraud not sent .*: restore it: git checkout HEAD -- models/fraud$"):
        push(repo=origin)
    assert pull(["fraud@v1.1.0"], repo=state.clone(origin, tmp_path / "clone")).objects == 4


def test_only_what_leaves_is_read(origin: Path) -> None:
    push(repo=origin)
    state.rot(state.object_path(origin / ".dvc" / "cache", md5_of(origin, "model.onnx")))
    assert push(repo=origin).objects == 0


def test_models_that_share_files_send_and_bring_them_once(origin: Path, tmp_path: Path) -> None:
    save("twin", [tmp_path / "v1.1.0.onnx"], repo=origin, message="twin")
    assert push(["fraud", "twin"], repo=origin).objects == 5
    moved = pull(repo=state.clone(origin, tmp_path / "clone"))
    assert (moved.bundles, moved.objects) == (2, 4)


@pytest.mark.parametrize("harm", [state.damage, state.rot])
@pytest.mark.parametrize("path", ["model.onnx", "tensors/layer0%2Fweight.h5", "weights.h5"])
def test_a_damaged_object_does_not_leave(origin: Path, tmp_path: Path, path: str, harm: Callable[[Path], None]) -> None:
    md5 = md5_of(origin, path)
    harm(state.object_path(origin / ".dvc" / "cache", md5))
    with pytest.raises(MissingWeights, match=f"^the DVC cache has other bytes for {path}"):
        push(["fraud"], repo=origin)
    assert not state.object_path(tmp_path / "storage", md5).exists()


@pytest.mark.parametrize("writable", [True, False])
def test_a_damaged_object_of_the_remote_is_not_laid_out(copy: Path, tmp_path: Path, writable: bool) -> None:
    md5 = md5_of(copy, "tensors/layer0%2Fweight.h5")
    stored = state.object_path(tmp_path / "storage", md5)
    state.damage(stored)
    if writable:
        stored.chmod(0o644)
    with pytest.raises(RemoteFailed, match=r"tensors/layer0%2Fweight\.h5"):
        pull(repo=copy)
    assert not weights(copy).exists()
    assert not state.object_path(copy / ".dvc" / "cache", md5).exists()


def test_a_damaged_object_of_the_cache_is_not_laid_out(copy: Path) -> None:
    pull(repo=copy)
    shutil.rmtree(weights(copy))
    md5 = md5_of(copy, "tensors/layer0%2Fweight.h5")
    stored = state.object_path(copy / ".dvc" / "cache", md5)
    state.damage(stored)
    with pytest.raises(MissingWeights, match=r"other bytes for tensors/layer0%2Fweight\.h5"):
        pull(repo=copy)
    assert not weights(copy).exists()
    stored.unlink()  # the mend the message names
    assert pull(repo=copy).objects == 1
    assert support.run("dvc", "status", cwd=copy).stdout == "Data and pipelines are up to date.\n"


def test_a_missing_object_of_the_remote_is_named(copy: Path, tmp_path: Path) -> None:
    state.object_path(tmp_path / "storage", md5_of(copy, "tensors/layer1%2Fweight.h5")).unlink()
    with pytest.raises(RemoteFailed, match=r"does not have tensors/layer1%2Fweight\.h5"):
        pull(repo=copy)
    assert not weights(copy).exists()


def test_a_remote_that_is_gone_is_said_to_be_so(copy: Path, tmp_path: Path) -> None:
    (tmp_path / "storage").rename(tmp_path / "unmounted")
    with pytest.raises(RemoteFailed, match="cannot be reached, or holds nothing"):
        pull(repo=copy)
    assert not weights(copy).exists()
    assert not (tmp_path / "storage").exists(), "looking does not make it"


@pytest.mark.parametrize("name", ["mine.onnx", "model.onnx"])
def test_work_in_the_weights_folder_is_not_lost(copy: Path, name: str) -> None:
    pull(repo=copy)
    (weights(copy) / name).write_bytes(b"by hand")
    before = state.whole(copy)
    with pytest.raises(WouldLose, match=name):
        pull(repo=copy)
    assert state.whole(copy) == before


@pytest.mark.parametrize("link", ["models/fraud/weights", "models/fraud/weights/tensors", "models/fraud", "models"])
def test_a_strangers_link_leads_nowhere(copy: Path, tmp_path: Path, link: str) -> None:
    victim = tmp_path / "victim"
    if link in ("models", "models/fraud"):
        (copy / link).rename(victim)
    else:
        victim.mkdir()
    (victim / "precious").write_text("keep")
    before = state.files(victim)
    (copy / link).parent.mkdir(exist_ok=True)
    (copy / link).symlink_to(victim)
    support.git(copy, "add", "-A", "-f")
    support.git(copy, "commit", "-qm", "link")
    with pytest.raises(GitmodelError):
        pull(["fraud"], repo=copy)
    assert state.files(victim) == before


def test_a_strangers_lock_names_no_path_outside(copy: Path) -> None:
    lock = copy / "models" / "fraud" / "weights.lock"
    lock.write_text(lock.read_text().replace("file model.onnx ", "file ../../../escaped "))
    with pytest.raises(GitmodelError, match="leaves its folder"):
        pull(repo=copy)
    assert not (copy / "escaped").exists()


def test_what_is_no_bundle_of_the_repository_is_refused(origin: Path, git_repo: Path, tmp_path: Path) -> None:
    for verb in (push, pull):
        with pytest.raises(UnknownModel, match="models here: fraud"):
            verb(["nothing"], repo=origin)
        with pytest.raises(GitmodelError, match=r"v1\.0\.0\.onnx"):
            verb([str(tmp_path / "v1.0.0.onnx")], repo=origin)


def test_the_place_must_be_a_model_repository(git_repo: Path) -> None:
    for verb in (push, pull):
        with pytest.raises(NotInitialised):
            verb(repo=git_repo)


def test_a_repository_without_models_has_nothing_to_move(repo: Path) -> None:
    assert (push(repo=repo).bundles, pull(repo=repo).bundles) == (0, 0)


def test_a_tag_on_a_commit_without_its_model_is_passed_over(origin: Path) -> None:
    support.git(origin, "tag", "-a", "-m", "stray", "ghost@v1.0.0")
    support.git(origin, "tag", "-a", "-m", "stray", "fraud@v9.0.0", "HEAD~2")
    assert push(repo=origin).bundles == 2
