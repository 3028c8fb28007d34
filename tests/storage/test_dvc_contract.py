"""The contract with stock DVC, held against the real command: it accepts what we write, and we read what it writes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import h5py
import numpy as np
import onnxruntime
import pytest

from gitmodel.storage.pointer import Pointer
from gitmodel.workflows import save as workflow
from gitmodel.workflows import transfer
from tests import support
from tests.workflows import state

CLEAN = "Data and pipelines are up to date.\n"
#: Opens both views with the stock libraries alone and prints what they hold.
READ_BOTH = """
import json, sys
import h5py, numpy as np, onnxruntime
folder = sys.argv[1]
tensors = {}
with h5py.File(folder + "/weights.h5", "r") as file:
    file.visititems_links(lambda name, _: tensors.update({name: np.asarray(file[name]).ravel().tolist()})
                          if isinstance(file[name], h5py.Dataset) else None)
session = onnxruntime.InferenceSession(folder + "/model.onnx")
x = np.linspace(-1, 1, 400, dtype="float32").reshape(2, 200)
print(json.dumps({"tensors": tensors, "outputs": [o.tolist() for o in session.run(None, {"x": x})],
                  "gitmodel": "gitmodel" in sys.modules}))
"""


@pytest.fixture
def original(tmp_path: Path) -> Path:
    """A model with tensors large enough for files of their own."""
    return state.write(support.wide_model(), tmp_path / "original.onnx")


@pytest.fixture
def saved(repo: Path, original: Path) -> Path:
    """A repository with that model saved and committed as ``fraud``; returns its folder."""
    workflow.save("fraud", [original], repo=repo, message="one")
    return repo / "models" / "fraud"


def dvc(repo: Path, *args: str) -> str:
    done = support.run("dvc", *args, cwd=repo)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_dvc_finds_what_save_wrote_in_order(repo: Path, saved: Path) -> None:
    assert dvc(repo, "status") == CLEAN
    assert json.loads(dvc(repo, "data", "status", "--json")) == {}
    assert support.git(repo, "status", "--porcelain") == ""


def test_dvc_add_of_the_same_folder_writes_the_same_bytes(repo: Path, saved: Path, tmp_path: Path) -> None:
    stock = tmp_path / "stock"
    state.clone(repo, stock)
    shutil.rmtree(stock / "models")
    shutil.copytree(saved / "weights", stock / "models" / "fraud" / "weights")
    dvc(stock, "add", "-q", "models/fraud/weights")
    pointer = (saved / "weights.dvc").read_bytes()
    assert (stock / "models" / "fraud" / "weights.dvc").read_bytes() == pointer
    assert (stock / "models" / "fraud" / ".gitignore").read_bytes() == (saved / ".gitignore").read_bytes()
    assert state.objects(stock) == state.objects(repo)
    listing = Pointer.from_yaml(pointer, "weights.dvc").md5
    theirs, ours = (state.object_path(root / ".dvc" / "cache", listing) for root in (stock, repo))
    assert theirs.read_bytes() == ours.read_bytes()


def test_dvc_add_over_our_pointer_changes_nothing(repo: Path, saved: Path) -> None:
    before = state.whole(repo)
    dvc(repo, "add", "-q", "models/fraud/weights")
    assert state.whole(repo) == before


def test_dvc_lays_our_objects_out_again(repo: Path, saved: Path) -> None:
    before = state.files(saved / "weights")
    shutil.rmtree(saved / "weights")
    dvc(repo, "checkout", "-q")
    after = state.files(saved / "weights")
    assert {name: digest for name, (_, digest) in after.items()} == {n: digest for n, (_, digest) in before.items()}


def test_dvc_push_and_pull_restore_the_weights_byte_for_byte(
    repo: Path, saved: Path, original: Path, tmp_path: Path
) -> None:
    dvc(repo, "push", "-q")
    weights = state.clone(repo, tmp_path / "clone") / "models" / "fraud" / "weights"
    dvc(tmp_path / "clone", "pull", "-q")
    assert dvc(tmp_path / "clone", "status") == CLEAN
    restored = {name: digest for name, (_, digest) in state.files(weights).items()}
    assert restored == {name: digest for name, (_, digest) in state.files(saved / "weights").items()}

    done = support.run("python", "-I", "-c", READ_BOTH, weights, cwd=Path("/"))
    assert done.returncode == 0, done.stderr
    read = json.loads(done.stdout)
    assert read["gitmodel"] is False
    expected = state.initializers(original)
    assert set(read["tensors"]) == set(expected)
    for name, values in expected.items():
        assert np.array_equal(np.array(read["tensors"][name], "float32"), values.ravel())
    x = np.linspace(-1, 1, 400, dtype="float32").reshape(2, 200)
    outputs = onnxruntime.InferenceSession(str(original)).run(None, {"x": x})
    assert np.allclose(read["outputs"][0], outputs[0], rtol=1e-6)


def test_both_views_hold_the_saved_files_tensors(saved: Path, original: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir("/")
    expected = state.initializers(original)
    through_onnx = state.initializers(saved / "weights" / "model.onnx")
    assert set(through_onnx) == set(expected)
    with h5py.File(saved / "weights" / "weights.h5", "r") as file:
        for name, values in expected.items():
            assert through_onnx[name].tobytes() == values.tobytes()
            assert np.asarray(file[name]).tobytes() == values.tobytes()
            assert file[name].dtype == values.dtype


def test_what_gitmodel_pushes_dvc_pulls(repo: Path, saved: Path, tmp_path: Path) -> None:
    transfer.push(repo=repo)
    assert "in sync" in dvc(repo, "status", "-c")
    copy = state.clone(repo, tmp_path / "clone")
    dvc(copy, "pull", "-q")
    assert dvc(copy, "status") == CLEAN
    assert state.digest(copy / "models/fraud/weights/model.onnx") == state.digest(saved / "weights/model.onnx")


def test_what_dvc_pushes_gitmodel_pulls(repo: Path, saved: Path, tmp_path: Path) -> None:
    dvc(repo, "push", "-q")
    copy = state.clone(repo, tmp_path / "clone")
    assert transfer.pull(repo=copy).objects == 4
    assert state.files(copy / "models/fraud/weights") == state.files(saved / "weights")
    assert dvc(copy, "status") == CLEAN
    assert support.git(copy, "status", "--porcelain") == ""


def test_dvc_knows_a_version_by_its_tag(repo: Path, saved: Path, tmp_path: Path) -> None:
    support.git(repo, "tag", "-a", "-m", "one", "fraud@v1.0.0")
    transfer.push(repo=repo)
    second = state.write(support.wide_model(scale=2.0), tmp_path / "second.onnx")
    workflow.save("fraud", [second], repo=repo, message="two")
    out = tmp_path / "got"
    dvc(tmp_path, "get", str(repo), "models/fraud/weights", "--rev", "fraud@v1.0.0", "-o", str(out), "-q")
    first = Pointer.from_yaml(support.git(repo, "show", "fraud@v1.0.0:models/fraud/weights.dvc"), "weights.dvc")
    listing = json.loads(state.object_path(repo / ".dvc" / "cache", first.md5).read_bytes())
    assert {item["relpath"] for item in listing} == set(state.files(out))


def test_params_and_metrics_diffs_show_the_change(repo: Path, original: Path, tmp_path: Path) -> None:
    for rate, accuracy in ((0.1, 0.9), (0.2, 0.95)):
        workflow.save(
            "fraud",
            [original],
            repo=repo,
            params={"rate": rate, "depth": 3},
            metrics={"accuracy": accuracy},
            message=f"rate {rate}",
        )
    params = json.loads(dvc(repo, "params", "diff", "HEAD~1", "HEAD", "--json"))
    assert list(params) == ["models/fraud/params.yaml"]
    assert list(params["models/fraud/params.yaml"]) == ["rate"]
    rate = params["models/fraud/params.yaml"]["rate"]
    assert (rate["old"], rate["new"]) == (0.1, 0.2)
    metrics = json.loads(dvc(repo, "metrics", "diff", "HEAD~1", "HEAD", "--json"))
    change = metrics["models/fraud/metrics.yaml"]["accuracy"]
    assert (change["old"], change["new"]) == (0.9, 0.95)
    assert dvc(repo, "status") == CLEAN
