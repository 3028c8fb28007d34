"""``save`` of what is no file: the bundle is that of the file it would be, and a refusal leaves everything as it was."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

import gitmodel
from gitmodel.errors import GitmodelError
from gitmodel.formats.frameworks import ConversionDiffers
from gitmodel.formats.source import InvalidModel
from gitmodel.workflows.save import save
from tests import support
from tests.formats.converting import CLASSES, ROWS
from tests.workflows import state

#: The libraries warn of their own future; an error for that is for their authors.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture
def estimator() -> Any:
    pytest.importorskip("skl2onnx", reason="skl2onnx is not installed")
    linear = pytest.importorskip("sklearn.linear_model", reason="scikit-learn is not installed")
    return linear.LogisticRegression().fit(ROWS, CLASSES)


@pytest.fixture
def net() -> Any:
    torch = pytest.importorskip("torch", reason="PyTorch is not installed")
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Linear(4, 200), torch.nn.ReLU(), torch.nn.Linear(200, 100), torch.nn.Linear(100, 3)
    )


@pytest.fixture
def layered() -> Any:
    keras = pytest.importorskip("keras", reason="Keras is not installed")
    dense = keras.layers.Dense
    return keras.Sequential([keras.Input((4,), name="features"), dense(200, activation="relu"), dense(200), dense(3)])


def card(repo: Path, name: str = "fraud") -> str:
    return (repo / "models" / name / "model.yaml").read_text()


def test_a_message_gives_the_very_bundle_that_its_file_gives(repo: Path, tmp_path: Path) -> None:
    model = support.wide_model()
    from_file = save("fraud", [state.write(model, tmp_path / "wide.onnx")], repo=repo, message="file")
    again = save("fraud", model, repo=repo, message="message")
    assert (again.digest, again.changed, again.added) == (from_file.digest, False, 0)
    assert again.signature == from_file.signature


def test_a_message_is_saved_and_used_from_python_alone(repo: Path) -> None:
    model = support.wide_model()
    saved = gitmodel.save("fraud", model, repo=repo, params={"depth": 2}, message="one")
    assert saved.commit == support.git(repo, "rev-parse", "HEAD")
    outputs = gitmodel.load("fraud", repo=repo).predict({"x": np.eye(200, dtype="float32")})
    first, second = (numpy_helper.to_array(tensor) for tensor in model.graph.initializer)
    assert np.allclose(outputs["h1"], first @ second, atol=1e-6)
    assert support.run("dvc", "status", cwd=repo).stdout == "Data and pipelines are up to date.\n"


def test_a_message_takes_its_weights_from_a_file(repo: Path, tmp_path: Path) -> None:
    model = support.wide_model()
    with h5py.File(tmp_path / "weights.h5", "w") as file:
        for tensor in model.graph.initializer:
            file[tensor.name] = numpy_helper.to_array(tensor)
            tensor.ClearField("raw_data")
            tensor.data_location = onnx.TensorProto.EXTERNAL
    saved = save("fraud", model, repo=repo, weights=tmp_path / "weights.h5")
    assert saved.signature is not None
    x = np.ones((1, 200), "float32")
    save("whole", support.wide_model(), repo=repo)
    ours, theirs = (gitmodel.load(name, repo=repo).predict({"x": x})["h1"] for name in ("fraud", "whole"))
    assert np.array_equal(ours, theirs)


def test_arrays_make_a_checkpoint(repo: Path) -> None:
    random = np.random.default_rng(0)
    arrays: dict[str, Any] = {
        "dense/kernel": np.asfortranarray(random.normal(size=(200, 300)).astype("float32")),
        "dense/bias": np.arange(300.0)[::-1],
        "half": random.normal(size=(300, 300)).astype(ml_dtypes.bfloat16),
        "words": np.array(["yes", "no"]),
        "steps": np.int64(7),
    }
    saved = save("fraud", arrays, repo=repo, message="one")
    assert (saved.tensors, saved.signature) == (5, None)
    assert "format: numpy" in card(repo)
    with h5py.File(repo / "models" / "fraud" / "weights" / "weights.h5") as view:
        assert np.array_equal(view["dense/kernel"][()], arrays["dense/kernel"])
        assert np.array_equal(view["dense/bias"][()], arrays["dense/bias"])
        assert np.array_equal(view["half"][()], arrays["half"].view("uint16"))
        assert view["half"].attrs["dtype"] == "bfloat16"
        assert [word.decode() for word in view["words"][()]] == ["yes", "no"]
        assert view["steps"][()] == 7
    before = state.objects(repo)
    assert not save("fraud", arrays, repo=repo, message="two").changed
    assert state.objects(repo) == before


def test_one_changed_array_adds_its_own_bytes_alone(repo: Path) -> None:
    arrays = {f"layer{number}": np.full((200, 200), number, "float32") for number in range(5)}
    save("fraud", arrays, repo=repo, message="one")
    arrays["layer3"][0, 0] = -1
    assert save("fraud", arrays, repo=repo, message="two").added < arrays["layer3"].nbytes + 8192


def test_an_estimator_is_saved_with_golden_cases_and_served(repo: Path, tmp_path: Path, estimator: Any) -> None:
    np.savez(tmp_path / "cases.npz", X=ROWS[:16])
    saved = save("fraud", estimator, repo=repo, example=ROWS, golden=tmp_path / "cases.npz", message="one")
    assert saved.golden_cases == 16
    assert "framework: skl2onnx" in card(repo)
    outputs = gitmodel.load("fraud", repo=repo).predict({"X": ROWS})
    assert np.array_equal(outputs["label"], estimator.predict(ROWS))
    assert np.allclose(outputs["probabilities"], estimator.predict_proba(ROWS), atol=1e-5)
    assert not save("fraud", estimator, repo=repo, example=ROWS, message="two").changed


def test_what_does_not_do_as_its_library_does_is_not_saved(repo: Path, estimator: Any) -> None:
    save("fraud", estimator, repo=repo, example=ROWS, message="one")
    before = state.whole(repo)
    estimator.predict_proba = lambda data: np.full((len(data), 3), 1 / 3)
    with pytest.raises(ConversionDiffers, match=r"made of the LogisticRegression does not give .* by up to 0"):
        save("fraud", estimator, repo=repo, example=ROWS, message="two")
    assert state.whole(repo) == before


def test_a_pytorch_module_is_saved_once_and_stays(repo: Path, net: Any) -> None:
    first = save("fraud", net, repo=repo, example=ROWS[:1], message="one")
    assert first.signature is not None
    assert [str(spec) for spec in first.signature.inputs] == ["input: float32[batch, 4]"]
    assert "framework: pytorch" in card(repo)
    again = save("fraud", net, repo=repo, example=ROWS, message="two")
    assert (again.changed, again.digest) == (False, first.digest)
    with h5py.File(repo / "models" / "fraud" / "weights" / "weights.h5") as view:
        assert np.array_equal(view["2.weight"][()], net[2].weight.detach().numpy())
    assert gitmodel.load("fraud", repo=repo).predict({"input": ROWS})["output"].shape == (40, 3)


def test_a_pytorch_module_trained_on_adds_what_changed(repo: Path, net: Any) -> None:
    save("fraud", net, repo=repo, example=ROWS, message="one")
    net[3].weight.data += 1
    assert save("fraud", net, repo=repo, example=ROWS, message="two").added < 30_000, "not the 80 kB of the other layer"


def test_a_keras_model_is_saved_and_served(repo: Path, layered: Any) -> None:
    saved = save("fraud", layered, repo=repo, example=ROWS, message="one")
    assert saved.signature is not None
    assert [str(spec) for spec in saved.signature.inputs] == ["features: float32[batch, 4]"]
    assert "framework: " in card(repo)
    outputs = gitmodel.load("fraud", repo=repo).predict({"features": ROWS})
    assert np.allclose(outputs["output"], layered.predict_on_batch(ROWS), atol=1e-5)


@pytest.mark.parametrize(
    "model", [{}, {"a": object()}, object(), onnx.ModelProto(), onnx.TensorProto()], ids=lambda m: type(m).__name__
)
def test_a_refused_object_leaves_everything_as_it_was(repo: Path, model: object) -> None:
    save("fraud", support.linear_model(), repo=repo, message="one")
    before = state.whole(repo)
    with pytest.raises(InvalidModel):
        save("fraud", model, repo=repo, message="two")
    assert state.whole(repo) == before


def test_an_object_never_stands_for_the_files_of_an_earlier_save(repo: Path, tmp_path: Path) -> None:
    path = state.write(support.linear_model(), tmp_path / "linear.onnx")
    first = save("fraud", path, repo=repo)
    assert save("fraud", support.linear_model(scale=2), repo=repo).digest != first.digest
    assert save("fraud", path, repo=repo).digest == first.digest


def test_objects_and_files_are_not_mixed(repo: Path, tmp_path: Path) -> None:
    with pytest.raises(GitmodelError, match="files"):
        save("fraud", [support.linear_model(), tmp_path / "weights.h5"], repo=repo)
