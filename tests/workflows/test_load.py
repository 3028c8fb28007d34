"""``gitmodel.load``: a version in the hand, run from verified bytes."""

from __future__ import annotations

import shutil
from pathlib import Path

import h5py
import ml_dtypes
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import numpy_helper

import gitmodel
from gitmodel.bundle.bundle import NotServable
from gitmodel.errors import GitmodelError
from gitmodel.registry import UnknownModel, UnknownVersion
from gitmodel.runtime import RunFailed
from gitmodel.storage.workspace import MissingWeights
from gitmodel.workflows import transfer
from gitmodel.workflows.load import LoadedModel
from gitmodel.workflows.release import promote, release
from gitmodel.workflows.save import save
from tests import support
from tests.compat import pairs
from tests.workflows import state
from tests.workflows.conftest import Change

X = np.linspace(-1, 1, 12, dtype="float32").reshape(3, 4)


@pytest.fixture
def versions(repo: Path, change: Change, tmp_path: Path) -> Path:
    """v1.0.0 (prod) of scale 1 and v1.1.0 of scale 1.01; the working tree has scale 2."""
    labels = tmp_path / "labels.txt"
    labels.write_text("a\nb\nc\n")
    change(1.0, params={"depth": 3}, labels=labels)
    release("fraud", repo=repo)
    change(1.01)
    release("fraud", repo=repo)
    promote("fraud@v1.0.0", "prod", repo=repo)
    change(2.0)
    return repo


def expected(scale: float) -> np.ndarray:
    session = onnxruntime.InferenceSession(support.linear_model(scale=scale).SerializeToString())
    values: np.ndarray = session.run(None, {"x": X})[0]
    return values


@pytest.mark.parametrize(
    ("reference", "scale"),
    [
        ("fraud@v1.0.0", 1.0),
        ("fraud#prod", 1.0),
        ("fraud@latest", 1.01),
        ("fraud@1.1", 1.01),
        ("fraud", 2.0),
        ("fraud@HEAD", 2.0),
    ],
)
def test_each_reference_predicts_with_its_own_weights(versions: Path, reference: str, scale: float) -> None:
    outputs = gitmodel.load(reference, repo=versions).predict({"x": X})
    assert list(outputs) == ["scores"]
    assert np.allclose(outputs["scores"], expected(scale), rtol=1e-6)


def test_what_is_beside_the_weights_is_at_hand_without_them(versions: Path) -> None:
    shutil.rmtree(versions / ".dvc" / "cache")
    model = gitmodel.load("fraud@v1.0.0", repo=versions)
    assert (model.params, model.labels) == ({"depth": 3}, ["a", "b", "c"])
    assert model.signature is not None
    assert model.signature.inputs[0].name == "x"


def test_the_session_is_opened_once_and_leaves_nothing_behind(versions: Path) -> None:
    model = gitmodel.load("fraud", repo=versions)
    assert model.session is model.session
    assert list((versions / ".git" / "gitmodel" / "staged").iterdir()) == []
    assert np.allclose(model.predict({"x": X})["scores"], expected(2.0), rtol=1e-6)


def test_large_weights_stay_usable_after_their_folder_is_gone(repo: Path, tmp_path: Path) -> None:
    save("wide", [state.write(support.wide_model(), tmp_path / "wide.onnx")], repo=repo)
    x = np.ones((2, 200), "float32")
    plain = onnxruntime.InferenceSession(str(tmp_path / "wide.onnx")).run(None, {"x": x})[0]
    model = gitmodel.load("wide", repo=repo)
    assert np.allclose(model.predict({"x": x})["h1"], plain, rtol=1e-5, atol=1e-6)


def test_missing_weights_are_fetched(versions: Path, tmp_path: Path) -> None:
    transfer.push(repo=versions)
    copy = state.clone(versions, tmp_path / "clone")
    assert np.allclose(gitmodel.load("fraud#prod", repo=copy).predict({"x": X})["scores"], expected(1.0), rtol=1e-6)


def test_damaged_weights_are_not_run(versions: Path) -> None:
    lines = (versions / "models" / "fraud" / "weights.lock").read_text().splitlines()
    md5 = next(line.split()[-1] for line in lines if line.startswith("file model.onnx "))
    state.damage(state.object_path(versions / ".dvc" / "cache", md5))
    with pytest.raises(MissingWeights, match=r"other bytes for model\.onnx"):
        gitmodel.load("fraud", repo=versions).predict({"x": X})


def test_what_does_not_fit_is_refused_in_the_runtimes_words(versions: Path) -> None:
    model = gitmodel.load("fraud", repo=versions)
    for inputs in ({"y": X}, {"x": X.astype("float64")}, {"x": X[:, :3]}, {}):
        with pytest.raises(RunFailed) as caught:
            model.predict(inputs)
        assert "\n" not in str(caught.value)


def test_one_array_will_do_for_one_input(versions: Path) -> None:
    model = gitmodel.load("fraud", repo=versions)
    assert np.array_equal(model.predict(X)["scores"], model.predict({"x": X})["scores"])


def test_one_array_will_not_do_for_several_inputs(tmp_path: Path) -> None:
    text = "(float[n,2] a, float[n,2] b) => (float[n,2] y) { y = Add(a, b) }"
    (tmp_path / "two.onnx").write_bytes(pairs.model(text).SerializeToString())
    with pytest.raises(RunFailed, match=r"several inputs \(a, b\): give a mapping of names to arrays"):
        gitmodel.load(str(tmp_path / "two.onnx"), repo=tmp_path).predict(X[:, :2])


def test_a_checkpoint_has_weights_and_no_session(repo: Path, tmp_path: Path) -> None:
    with h5py.File(tmp_path / "c.h5", "w") as file:
        file["kernel"] = np.ones((2, 2))
    save("fraud", [tmp_path / "c.h5"], repo=repo)
    model = gitmodel.load("fraud", repo=repo)
    assert model.signature is None
    with pytest.raises(NotServable, match="checkpoint without a graph"):
        model.session  # noqa: B018  # the property opens it


def test_a_file_and_a_folder_need_no_repository(versions: Path, tmp_path: Path) -> None:
    path = state.write(support.linear_model(scale=3.0), tmp_path / "file.onnx")
    assert np.allclose(gitmodel.load(str(path), repo=tmp_path).predict({"x": X})["scores"], expected(3.0), rtol=1e-6)
    shutil.copytree(versions / "models" / "fraud", tmp_path / "bundle")
    model = gitmodel.load(str(tmp_path / "bundle"), repo=tmp_path)
    assert np.allclose(model.predict({"x": X})["scores"], expected(2.0), rtol=1e-6)


def test_a_folder_with_other_bytes_is_not_run(versions: Path, tmp_path: Path) -> None:
    shutil.copytree(versions / "models" / "fraud", tmp_path / "bundle")
    state.damage(tmp_path / "bundle" / "weights" / "model.onnx")
    with pytest.raises(MissingWeights, match=r"model\.onnx .* is not what weights\.lock says"):
        gitmodel.load(str(tmp_path / "bundle"), repo=tmp_path).predict({"x": X})
    shutil.rmtree(tmp_path / "bundle" / "weights")
    with pytest.raises(MissingWeights, match="dvc pull"):
        gitmodel.load(str(tmp_path / "bundle"), repo=tmp_path).predict({"x": X})


def test_what_is_not_there_is_named(versions: Path, tmp_path: Path) -> None:
    with pytest.raises(UnknownModel):
        gitmodel.load("nothing", repo=versions)
    with pytest.raises(UnknownVersion):
        gitmodel.load("fraud#canary", repo=versions)
    with pytest.raises(GitmodelError, match=r"absent\.onnx"):
        gitmodel.load("absent.onnx", repo=versions)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        getattr(gitmodel, "nothing")  # noqa: B009  # a name no type checker knows


# Weights and assets ---------------------------------------------------------------------------------------------------


@pytest.fixture
def mixed(repo: Path, tmp_path: Path) -> dict[str, np.ndarray]:
    """``mixed``: large and small tensors of common and uncommon types, pushed; what its arrays have to be."""
    model = support.wide_model()
    values: dict[str, np.ndarray] = {
        "scalar": np.array(0.5, "float32"),
        "none": np.zeros((0, 3), "int64"),
        "half": np.arange(8).astype(ml_dtypes.bfloat16),
        "eight": np.arange(8).astype(ml_dtypes.float8_e4m3fn),
        "four": np.arange(-8, 7).astype(ml_dtypes.int4).reshape(3, 5),
    }
    for name, array in values.items():
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    words = {"data_type": onnx.TensorProto.STRING, "dims": [2], "string_data": [b"a", "é".encode()]}
    model.graph.initializer.add(name="words", **words)
    path = state.write(model, tmp_path / "mixed.onnx")
    (tmp_path / "words.json").write_text("[1]")
    save("mixed", [path], repo=repo, assets=[tmp_path / "words.json"], message="mixed")
    transfer.push(repo=repo)
    return {**values, "words": np.array(["a", "é"], object), **state.initializers(path)}


@pytest.fixture(params=["repository", "clone", "folder", "file"])
def holder(request: pytest.FixtureRequest, mixed: object, repo: Path, tmp_path: Path) -> LoadedModel:
    """The same model from where the weights are, where they have to be fetched, a bundle's folder and a bare file."""
    if request.param == "repository":
        return gitmodel.load("mixed@HEAD", repo=repo)
    if request.param == "clone":
        return gitmodel.load("mixed", repo=state.clone(repo, tmp_path / "clone"))
    if request.param == "folder":
        shutil.copytree(repo / "models" / "mixed", tmp_path / "bundle")
        return gitmodel.load(str(tmp_path / "bundle"), repo=tmp_path)
    return gitmodel.load(str(tmp_path / "mixed.onnx"), repo=tmp_path)


def test_weights_are_arrays_by_name_wherever_they_come_from(holder: LoadedModel, mixed: dict[str, np.ndarray]) -> None:
    assert set(holder.weights) == set(mixed)
    assert len(holder.weights) == len(mixed)
    for name, expected in mixed.items():
        found = holder.weights[name]
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
        assert found.tolist() == expected.tolist() if found.dtype == object else found.tobytes() == expected.tobytes()
        assert not found.flags.writeable
    assert "words" in holder.weights
    assert "nothing" not in holder.weights
    with pytest.raises(KeyError, match="nothing"):
        holder.weights["nothing"]


def test_names_cost_nothing_and_an_array_its_own_file(repo: Path, mixed: object, tmp_path: Path) -> None:
    copy = state.clone(repo, tmp_path / "clone")
    weights = gitmodel.load("mixed", repo=copy).weights
    assert "layer0/weight" in list(weights)
    assert state.objects(copy) == set()
    weights["layer0/weight"]
    assert len(state.objects(copy)) == 1
    weights["scalar"], weights["words"], weights["four"]
    assert len(state.objects(copy)) == 2


def test_an_array_outlives_the_folder_it_was_mapped_from(repo: Path, mixed: dict[str, np.ndarray]) -> None:
    found = gitmodel.load("mixed", repo=repo).weights["layer1/weight"]
    assert list((repo / ".git" / "gitmodel" / "staged").iterdir()) == []
    shutil.rmtree(repo / ".dvc" / "cache")
    np.testing.assert_array_equal(found, mixed["layer1/weight"])


def test_a_damaged_tensor_is_not_given_and_the_others_are(repo: Path, mixed: dict[str, np.ndarray]) -> None:
    model = gitmodel.load("mixed", repo=repo)
    file = next(t.file for t in model.bundle.lock.tensors if t.name == "layer0/weight")
    entry = model.bundle.lock.file(file)
    assert entry is not None
    state.damage(state.object_path(repo / ".dvc" / "cache", entry.md5))
    with pytest.raises(MissingWeights, match="other bytes"):
        model.weights["layer0/weight"]
    np.testing.assert_array_equal(model.weights["layer1/weight"], mixed["layer1/weight"])


def test_a_compressed_tensor_of_a_checkpoint_is_unpacked(repo: Path, tmp_path: Path) -> None:
    values = np.arange(40_000, dtype="float32").reshape(200, 200)
    with h5py.File(tmp_path / "c.h5", "w") as file:
        file.create_dataset("deep/w", data=values, chunks=(50, 50), compression="gzip")
        file.create_dataset("swapped", data=np.arange(3, dtype=">i4"))
    save("packed", [tmp_path / "c.h5"], repo=repo)
    for reference in ("packed", str(tmp_path / "c.h5")):
        weights = gitmodel.load(reference, repo=repo).weights
        np.testing.assert_array_equal(weights["deep/w"], values)
        assert weights["swapped"].dtype == np.dtype("<i4")
        assert weights["swapped"].tolist() == [0, 1, 2]


def test_assets_are_bytes_by_path(holder: LoadedModel, tmp_path: Path) -> None:
    expected = {} if holder.bundle.file else {"words.json": b"[1]"}
    assert dict(holder.assets) == expected


def test_weights_saved_in_another_working_tree_are_at_hand(versions: Path, tmp_path: Path) -> None:
    support.git(versions, "worktree", "add", "-q", "--detach", str(tmp_path / "linked"))
    here, there = gitmodel.load("fraud@v1.0.0", repo=versions), gitmodel.load("fraud@v1.0.0", repo=tmp_path / "linked")
    assert set(here.weights) == set(there.weights)
    assert all((here.weights[name] == there.weights[name]).all() for name in here.weights)
