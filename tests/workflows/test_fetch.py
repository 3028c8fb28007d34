"""``fetch``: whole versions, single tensors and views into the cache alone; from bare repositories and shallow clones, too."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from gitmodel.bundle.bundle import NotServable
from gitmodel.git import UnknownRevision
from gitmodel.registry import UnknownVersion
from gitmodel.serving.fetching import Fetcher
from gitmodel.serving.policy import AspiredVersion
from gitmodel.storage.remote import NoRemote, RemoteFailed
from gitmodel.storage.setup import NotInitialised
from gitmodel.storage.workspace import MissingWeights
from gitmodel.workflows import listing
from gitmodel.workflows.check import check_changed, check_compat
from gitmodel.workflows.export import export
from gitmodel.workflows.load import load
from gitmodel.workflows.release import promote, release
from gitmodel.workflows.save import save
from gitmodel.workflows.transfer import UnknownTensor, UnknownView, fetch, pull, push
from tests import support
from tests.serving.production import Loader
from tests.workflows import state

INPUT = {"x": np.ones((1, 200), "float32")}


@pytest.fixture
def origin(repo: Path, tmp_path: Path) -> Path:
    """Two versions of ``fraud`` that share one of their two large tensors, all of it in the remote."""
    model = support.wide_model()
    for number, version in enumerate(("v1.0.0", "v2.0.0")):
        model.graph.initializer[0].CopyFrom(support.wide_model(scale=1.0 + number).graph.initializer[0])
        save("fraud", [state.write(model, tmp_path / "model.onnx")], repo=repo, message=version)
        support.git(repo, "tag", "-a", "-m", version, f"fraud@{version}")
    push(repo=repo)
    return repo


@pytest.fixture
def copy(origin: Path, tmp_path: Path) -> Path:
    return state.clone(origin, tmp_path / "clone")


@pytest.fixture
def bare(origin: Path, tmp_path: Path) -> Path:
    subprocess.run(["git", "clone", "-q", "--bare", str(origin), str(tmp_path / "bare.git")], check=True)
    return tmp_path / "bare.git"


def shallow(origin: Path, target: Path, *options: str) -> Path:
    command = ["git", "-c", "advice.detachedHead=false", "clone", "-q", "--depth", "1", *options]
    subprocess.run([*command, f"file://{origin}", str(target)], check=True)
    return target


def lock_lines(repo: Path) -> list[list[str]]:
    return [line.split() for line in (repo / "models" / "fraud" / "weights.lock").read_text().splitlines()]


def md5_of(repo: Path, path: str) -> str:
    return next(line[-1] for line in lock_lines(repo) if line[:2] == ["file", path])


def stored(cache: Path) -> set[str]:
    """Names of the objects below a cache."""
    base = cache / "files" / "md5"
    return {path.parent.name + path.name for path in base.rglob("*") if path.is_file()}


def lose(storage: Path) -> None:
    """The remote is gone: whoever still answers has the bytes at hand."""
    storage.rename(storage.with_name("lost"))


# Into the cache of a clone ------------------------------------------------------------------------------------------


def test_the_working_trees_models_come_into_the_cache_and_nowhere_else(copy: Path) -> None:
    before = {path: content for path, content in state.files(copy).items() if ".dvc/cache" not in path}
    moved = fetch(repo=copy)
    size = sum(int(line[2]) for line in lock_lines(copy) if line[0] == "file")
    assert (moved.bundles, moved.objects, moved.size) == (1, 4, size)
    assert {path: content for path, content in state.files(copy).items() if ".dvc/cache" not in path} == before
    assert support.git(copy, "status", "--porcelain") == ""
    assert (fetch(repo=copy).objects, pull(repo=copy).objects) == (0, 0)


def test_versions_that_share_tensors_bring_them_once(copy: Path) -> None:
    moved = fetch(["fraud@v1.0.0", "fraud@v2.0.0"], repo=copy)
    assert (moved.bundles, moved.objects) == (2, 5)


def test_a_tensor_comes_alone(copy: Path) -> None:
    moved = fetch(["fraud@v2.0.0"], repo=copy, tensors=["layer0/weight"])
    md5 = md5_of(copy, "tensors/layer0%2Fweight.h5")
    assert (moved.objects, stored(copy / ".dvc" / "cache")) == (1, {md5})
    assert fetch(repo=copy, tensors=["layer0/weight", "layer1/weight"]).objects == 1
    assert fetch(repo=copy).objects == 2


def test_a_small_tensor_comes_with_the_view_it_stands_in(repo: Path, tmp_path: Path) -> None:
    save("small", [state.write(support.linear_model(), tmp_path / "linear.onnx")], repo=repo, message="small")
    push(repo=repo)
    copy = state.clone(repo, tmp_path / "clone")
    assert fetch(repo=copy, tensors=["bias"]).objects == 1
    assert fetch(repo=copy, tensors=["weight"]).objects == 0


def test_the_graphs_view_is_all_a_session_needs(copy: Path, tmp_path: Path) -> None:
    assert fetch(["fraud@v2.0.0"], repo=copy, view="onnx").objects == 3
    assert md5_of(copy, "weights.h5") not in stored(copy / ".dvc" / "cache")
    lose(tmp_path / "storage")
    assert load("fraud@v2.0.0", repo=copy).predict(INPUT)["h1"].shape == (1, 200)
    with pytest.raises(MissingWeights):
        push(repo=copy, remote=str(tmp_path / "empty"))


def test_the_hdf5_view_comes_without_the_graph(copy: Path) -> None:
    assert fetch(repo=copy, view="hdf5").objects == 3
    assert md5_of(copy, "model.onnx") not in stored(copy / ".dvc" / "cache")


def test_what_a_part_is_may_be_said_in_several_ways(copy: Path) -> None:
    assert fetch(repo=copy, view="hdf5", tensors=["layer0/weight"]).objects == 3


def test_a_part_of_a_damaged_cache_is_not_taken_for_good(copy: Path) -> None:
    fetch(repo=copy)
    state.damage(state.object_path(copy / ".dvc" / "cache", md5_of(copy, "tensors/layer0%2Fweight.h5")))
    with pytest.raises(MissingWeights, match=r"other bytes for tensors/layer0%2Fweight\.h5"):
        fetch(repo=copy, tensors=["layer0/weight"])
    assert fetch(repo=copy, tensors=["layer1/weight"]).objects == 0


def test_a_tensor_that_is_not_there_is_said_with_what_is_near(copy: Path) -> None:
    with pytest.raises(UnknownTensor, match=r"no tensor 'layer0/wieght' in fraud@v2\.0\.0: near it: layer0/weight"):
        fetch(["fraud@v2.0.0"], repo=copy, tensors=["layer0/wieght"])
    assert not stored(copy / ".dvc" / "cache")


def test_there_are_two_views(copy: Path) -> None:
    with pytest.raises(UnknownView, match="no view 'torch': name one of onnx, hdf5"):
        fetch(repo=copy, view="torch")


def test_a_checkpoint_has_no_graph_to_fetch(repo: Path, tmp_path: Path) -> None:
    import h5py

    with h5py.File(tmp_path / "weights.h5", "w") as file:
        file["weight"] = np.zeros(3, "float32")
    save("steps", [tmp_path / "weights.h5"], repo=repo, message="steps")
    with pytest.raises(NotServable, match="without a graph"):
        fetch(repo=repo, view="onnx")


def test_another_remote_may_be_named_by_url(copy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "storage").rename(tmp_path / "moved")
    with pytest.raises(RemoteFailed, match="cannot be reached"):
        fetch(repo=copy)
    assert fetch(repo=copy, remote=str(tmp_path / "moved"), tensors=["layer0/weight"]).objects == 1
    monkeypatch.chdir(copy)
    assert fetch(repo=copy, remote="../moved").objects == 3


def test_the_place_must_be_a_model_repository(git_repo: Path) -> None:
    with pytest.raises(NotInitialised):
        fetch(repo=git_repo)


# In a bare repository -----------------------------------------------------------------------------------------------


def test_a_bare_repository_reads_everything_from_the_remote_its_commits_name(bare: Path, tmp_path: Path) -> None:
    assert [row.latest for row in listing.list_models(bare)] == ["v2.0.0"]
    assert [entry.version for entry in listing.log("fraud", bare)] == ["v2.0.0", "v1.0.0"]
    assert listing.show("fraud@v1.0.0", bare)["weights"]["tensors"] == 2
    assert fetch(["fraud@v1.0.0"], repo=bare, view="onnx").objects == 3
    assert fetch(repo=bare).objects == 2, "HEAD's models, where there is no working tree"
    whole = {name for name in stored(tmp_path / "storage") if not name.endswith(".dir")}
    assert stored(bare / "gitmodel" / "store") == whole
    lose(tmp_path / "storage")
    assert load("fraud@v1.0.0", repo=bare).predict(INPUT)["h1"].shape == (1, 200)
    assert check_compat("fraud@v1.0.0", "fraud@v2.0.0", repo=bare).required_bump
    assert export("fraud@v1.0.0", tmp_path / "one.onnx", repo=bare).tensors == 2
    assert load(str(tmp_path / "one.onnx")).predict(INPUT)["h1"].shape == (1, 200)
    assert load("fraud@v2.0.0", repo=bare).weights["layer0/weight"].shape == (200, 200)


def test_a_model_is_loaded_in_a_bare_repository_without_a_fetch(bare: Path) -> None:
    assert load("fraud@v2.0.0", repo=bare).predict(INPUT)["h1"].shape == (1, 200)
    assert len(stored(bare / "gitmodel" / "store")) == 3


def test_what_was_fetched_is_what_a_server_there_serves(bare: Path, tmp_path: Path) -> None:
    fetch(["fraud@v1.0.0"], repo=bare, view="onnx")
    lose(tmp_path / "storage")
    commit = support.git(bare, "rev-parse", "fraud@v1.0.0^{}")
    assert Loader(Fetcher(bare)).load(AspiredVersion("fraud", "v1.0.0", commit, 1)).version == "v1.0.0"


def test_an_empty_bare_repository_has_nothing_to_fetch(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", "--bare", str(tmp_path / "empty.git")], check=True)
    assert fetch(repo=tmp_path / "empty.git").bundles == 0


def test_a_relative_remote_is_to_be_named_by_url(origin: Path, tmp_path: Path) -> None:
    config = origin / ".dvc" / "config"
    config.write_text(config.read_text().replace(str(tmp_path), "../.."))
    support.git(origin, "commit", "-qam", "relative")
    subprocess.run(["git", "clone", "-q", "--bare", str(origin), str(tmp_path / "bare.git")], check=True)
    bare = tmp_path / "bare.git"
    for use in (lambda: fetch(["fraud"], repo=bare), lambda: load("fraud", repo=bare).session):
        with pytest.raises(NoRemote, match=r"'\.\./\.\./storage' is relative.*--remote URL.*gitmodel fetch"):
            use()
    assert fetch(["fraud"], repo=bare, remote=str(tmp_path / "storage")).objects == 4
    assert load("fraud", repo=bare).predict(INPUT)["h1"].shape == (1, 200), "what was fetched needs no remote"


def test_a_commit_without_dvcs_configuration_takes_heads(origin: Path, tmp_path: Path) -> None:
    """The version was made before anybody had thought of where weights go."""
    config = (origin / ".dvc" / "config").read_bytes()
    support.git(origin, "rm", "-q", "--cached", ".dvc/config")
    support.git(origin, "commit", "-qm", "without")
    support.git(origin, "tag", "-a", "-m", "three", "fraud@v3.0.0")
    assert (origin / ".dvc" / "config").read_bytes() == config
    bare = tmp_path / "bare.git"
    subprocess.run(["git", "clone", "-q", "--bare", str(origin), str(bare)], check=True)
    with pytest.raises(NoRemote, match=r"no \.dvc/config"):
        fetch(["fraud@v3.0.0"], repo=bare)
    support.git(origin, "add", "-f", ".dvc/config")
    support.git(origin, "commit", "-qm", "with")
    support.git(origin, "push", "-q", str(bare), "main")
    assert fetch(["fraud@v3.0.0"], repo=bare).objects == 4


def test_a_remote_of_the_commit_may_be_named(origin: Path, tmp_path: Path) -> None:
    support.run("dvc", "remote", "add", "mirror", str(tmp_path / "mirror"), cwd=origin)
    support.git(origin, "commit", "-qam", "mirror")
    push(["fraud"], repo=origin, remote="mirror")
    subprocess.run(["git", "clone", "-q", "--bare", str(origin), str(tmp_path / "bare.git")], check=True)
    lose(tmp_path / "storage")
    assert fetch(repo=tmp_path / "bare.git", remote="mirror").objects == 4
    shutil.rmtree(tmp_path / "bare.git" / "gitmodel")
    with pytest.raises(NoRemote, match="'nowhere'"):
        fetch(repo=tmp_path / "bare.git", remote="nowhere")


# In a shallow clone -------------------------------------------------------------------------------------------------


def test_a_shallow_clone_reads_what_it_has(origin: Path, tmp_path: Path) -> None:
    copy = shallow(origin, tmp_path / "shallow")
    assert [row.latest for row in listing.list_models(copy)] == ["v2.0.0"]
    assert [entry.version for entry in listing.log("fraud", copy)] == ["v2.0.0"]
    assert fetch(repo=copy).objects == 4
    assert load("fraud@v2.0.0", repo=copy).predict(INPUT)["h1"].shape == (1, 200)
    assert pull(repo=copy).objects == 0
    assert support.git(copy, "status", "--porcelain") == ""


def test_a_shallow_clone_at_a_version_is_that_version(origin: Path, tmp_path: Path) -> None:
    copy = shallow(origin, tmp_path / "shallow", "--branch", "fraud@v1.0.0")
    assert fetch(["fraud@latest"], repo=copy).objects == 4
    assert load("fraud@v1.0.0", repo=copy).predict(INPUT)["h1"].tolist() == (
        load("fraud@v1.0.0", repo=origin).predict(INPUT)["h1"].tolist()
    )
    assert pull(repo=copy).objects == 0


def test_a_version_a_shallow_clone_lacks_is_said_to_be_left_out(origin: Path, tmp_path: Path) -> None:
    copy = shallow(origin, tmp_path / "shallow")
    mend = r"in this shallow clone: 'git fetch --depth 1 origin tag fraud@v1\.0\.0' brings it.*git fetch --unshallow --tags"
    for reference in ("fraud@v1.0.0", "fraud@1.0.0"):
        with pytest.raises(UnknownVersion, match=mend):
            fetch([reference], repo=copy)
        with pytest.raises(UnknownVersion, match=mend):
            load(reference, repo=copy)
    for reference in ("fraud@1.0", "fraud#prod"):
        with pytest.raises(UnknownVersion, match="in this shallow clone: 'git fetch --unshallow --tags'"):
            fetch([reference], repo=copy)
    with pytest.raises(UnknownRevision, match="this clone is shallow"):
        fetch(["fraud@HEAD~1"], repo=copy)
    support.git(copy, "fetch", "-q", "--depth", "1", "origin", "tag", "fraud@v1.0.0")  # as the hint says
    assert fetch(["fraud@1.0"], repo=copy).objects == 4
    support.git(copy, "fetch", "-q", "--unshallow", "--tags")
    with pytest.raises(UnknownVersion, match="versions: v1"):
        fetch(["fraud@v3.0.0"], repo=copy)


def behind_its_versions(origin: Path, tmp_path: Path) -> Path:
    """A shallow clone of a commit after the last version, so that it has none."""
    (origin / "README").write_text("later")
    support.git(origin, "add", "README")
    support.git(origin, "commit", "-qm", "later")
    return shallow(origin, tmp_path / "shallow")


def test_no_version_number_is_given_out_twice_from_a_shallow_clone(origin: Path, tmp_path: Path) -> None:
    copy = behind_its_versions(origin, tmp_path)
    with pytest.raises(UnknownVersion, match="in this shallow clone"):
        release("fraud", repo=copy)
    assert support.git(copy, "tag") == ""


def test_what_was_left_out_is_not_taken_for_what_never_was(origin: Path, tmp_path: Path) -> None:
    """Judged by itself, a model whose versions were left out would pass for a new one."""
    copy = behind_its_versions(origin, tmp_path)
    with pytest.raises(UnknownVersion, match="in this shallow clone"):
        check_changed(copy)
    with pytest.raises(UnknownVersion, match="in this shallow clone"):
        load("fraud@latest", repo=copy)
    with pytest.raises(UnknownVersion, match="no released version"):
        promote("fraud@HEAD", "prod", repo=copy)
    assert support.git(copy, "tag") == ""


def test_a_clone_without_its_blobs_fetches_them_from_where_it_came(origin: Path, tmp_path: Path) -> None:
    support.git(origin, "config", "uploadpack.allowFilter", "true")
    for kind in ("blob:none", "tree:0"):
        target = tmp_path / kind.replace(":", "-")
        subprocess.run(
            ["git", "clone", "-q", "--bare", f"--filter={kind}", f"file://{origin}", str(target)], check=True
        )
        assert fetch(["fraud@v1.0.0"], repo=target, view="onnx").objects == 3
