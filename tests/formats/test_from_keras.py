"""Keras models become ONNX that gives what they give, with the backend that KERAS_BACKEND chose."""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gitmodel.formats.frameworks import ConversionDiffers, ConversionFailed, MissingConverter
from tests.formats.converting import ROWS, ran, refused, signature

#: The libraries warn of their own future; an error for that is for their authors.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def keras() -> Any:
    module = pytest.importorskip("keras", reason="Keras is not installed")
    module.utils.set_random_seed(0)
    if module.backend.backend() == "tensorflow":
        pytest.importorskip("tf2onnx", reason="tf2onnx is not installed")
    return module


@pytest.fixture
def layered(keras: Any) -> Any:
    layers = keras.layers
    taken = keras.Input((4,), name="features")
    flow = layers.Dropout(0.5)(layers.BatchNormalization()(layers.Dense(200, activation="relu")(taken)))
    return keras.Model(taken, layers.Dense(3, activation="softmax")(layers.Dense(200)(flow)))


@pytest.mark.parametrize("example", [ROWS[:1], ROWS, ROWS.astype("float64"), None], ids=["one", "many", "wide", "none"])
def test_a_keras_model_is_made_of_its_own_export(layered: Any, tmp_path: Path, example: Any) -> None:
    source, session = ran(layered, tmp_path, example)
    assert signature(source) == (["features: float32[batch, 4]"], ["output: float32[batch, 3]"])
    assert source.framework.partition(" ")[0] in ("tf2onnx", "pytorch")
    assert len(source.cases) == 1
    assert np.allclose(session.run({"features": ROWS})["output"], layered.predict_on_batch(ROWS), atol=1e-5)


def test_names_that_keras_makes_up_are_not_taken_over(keras: Any, tmp_path: Path) -> None:
    for number in range(2):
        model = keras.Sequential([keras.layers.Dense(3)])
        source, _ = ran(model, tmp_path / str(number), ROWS)
        assert signature(source) == (["input: float32[batch, 4]"], ["output: float32[batch, 3]"])


@pytest.mark.parametrize("given", ["list", "tuple", "none"])
def test_outputs_by_name_keep_their_names(keras: Any, tmp_path: Path, given: str) -> None:
    second, first = keras.Input((4,), name="second"), keras.Input((2,), name="first")
    flow = keras.layers.Concatenate()([second, first])
    model = keras.Model([second, first], {"z": keras.layers.Dense(2)(flow), "a": keras.layers.Dense(1)(flow)})
    example = {"list": [ROWS, ROWS[:, :2]], "tuple": (ROWS, ROWS[:, :2]), "none": None}[given]
    source, session = ran(model, tmp_path, example)
    assert signature(source) == (
        ["second: float32[batch, 4]", "first: float32[batch, 2]"], ["a: float32[batch, 1]", "z: float32[batch, 2]"],
    )  # fmt: skip
    expected = model.predict_on_batch([ROWS, ROWS[:, :2]])
    given_now = session.run({"second": ROWS, "first": ROWS[:, :2]})
    assert all(np.allclose(given_now[name], expected[name], atol=1e-5) for name in ("a", "z"))


def test_inputs_by_name_are_found_by_it(keras: Any, tmp_path: Path) -> None:
    taken = {"z": keras.Input((4,), name="z"), "a": keras.Input((2,), name="a")}
    flow = keras.layers.Concatenate()([taken["z"], taken["a"]])
    model = keras.Model(taken, [keras.layers.Dense(2)(flow), keras.layers.Dense(1)(flow)])
    source, _ = ran(model, tmp_path, {"z": ROWS, "a": ROWS[:, :2]})
    assert signature(source) == (
        ["a: float32[batch, 2]", "z: float32[batch, 4]"], ["output_0: float32[batch, 2]", "output_1: float32[batch, 1]"],
    )  # fmt: skip


def test_a_model_written_as_a_class_needs_an_example_once(keras: Any, tmp_path: Path) -> None:
    class Written(keras.Model):  # type: ignore[misc]  # keras is untyped here
        def __init__(self) -> None:
            super().__init__()
            self.dense = keras.layers.Dense(3)

        def call(self, x: Any) -> Any:
            return self.dense(x)

    model = Written()
    assert "is not built" in refused(ConversionFailed, model)
    source, _ = ran(model, tmp_path / "one", ROWS)
    assert signature(source) == (["input: float32[batch, 4]"], ["output: float32[batch, 3]"])
    assert ran(model, tmp_path / "two")[0].cases == ()


def test_a_length_that_the_export_took_for_a_constant_is_caught(keras: Any, tmp_path: Path) -> None:
    """Keras 3.15 unrolls a recurrent layer over one step with PyTorch as its backend; with TensorFlow it does not."""
    model = keras.Sequential([keras.Input((None, 6)), keras.layers.LSTM(4)])
    caught = pytest.raises(ConversionDiffers, match="'output' differs")
    with caught if keras.backend.backend() == "torch" else contextlib.nullcontext():
        source, _ = ran(model, tmp_path)
        assert signature(source)[0] == ["input: float32[batch, input_1, 6]"]


def test_an_example_that_keras_does_not_take_is_refused(layered: Any) -> None:
    assert "features" in refused(ConversionFailed, layered, ROWS[:, :3])


def test_keras_without_what_its_export_needs_says_so(keras: Any, layered: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    if keras.backend.backend() != "tensorflow":
        pytest.skip("with this backend the exporter is PyTorch's own")
    for name in [name for name in sys.modules if name.partition(".")[0] == "tf2onnx"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "tf2onnx", None)
    monkeypatch.setattr(keras.src.utils.module_utils.tf2onnx, "_available", None, raising=False)
    monkeypatch.setattr(keras.src.utils.module_utils.tf2onnx, "module", None, raising=False)
    assert "tf2onnx" in refused(MissingConverter, layered, ROWS)


def test_a_keras_without_such_an_export_goes_through_tf2onnx(tmp_path: Path) -> None:
    keras = pytest.importorskip("tf_keras", reason="tf_keras is not installed")
    pytest.importorskip("tf2onnx", reason="tf2onnx is not installed")
    taken = keras.Input((4,), name="features")
    model = keras.Model(taken, {"z": keras.layers.Dense(2)(taken), "a": keras.layers.Dense(1)(taken)})
    source, _ = ran(model, tmp_path, ROWS)
    assert signature(source) == (
        ["features: float32[batch, 4]"], ["a: float32[batch, 1]", "z: float32[batch, 2]"]
    )  # fmt: skip
    assert source.framework.startswith("tf2onnx ")
