"""scikit-learn estimators become ONNX that gives what they give, under skl2onnx's names."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gitmodel.formats.frameworks import ConversionDiffers, ConversionFailed, MissingConverter
from tests.formats.converting import CLASSES, ROWS, ran, refused, signature

#: The libraries warn of their own future; an error for that is for their authors.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def sklearn() -> Any:
    pytest.importorskip("skl2onnx", reason="skl2onnx is not installed")
    module = pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    for part in ("cluster", "decomposition", "ensemble", "linear_model", "multioutput", "neighbors", "neural_network",
                 "pipeline", "preprocessing", "svm", "tree"):  # fmt: skip
        pytest.importorskip(f"sklearn.{part}")
    return module


@pytest.fixture(scope="module")
def classifier(sklearn: Any) -> Any:
    return sklearn.linear_model.LogisticRegression().fit(ROWS, CLASSES)


Build = Callable[[Any], Any]
CLASSIFIERS: dict[str, Build] = {
    "logistic": lambda s: s.linear_model.LogisticRegression().fit(ROWS, CLASSES),
    "forest": lambda s: s.ensemble.RandomForestClassifier(5, random_state=0).fit(ROWS, CLASSES),
    "pipeline": lambda s: s.pipeline.make_pipeline(
        s.preprocessing.StandardScaler(), s.neural_network.MLPClassifier((8,), max_iter=20, random_state=0)
    ).fit(ROWS, CLASSES),
    "neighbours": lambda s: s.neighbors.KNeighborsClassifier().fit(ROWS, CLASSES),
    "machine": lambda s: s.svm.SVC().fit(ROWS, CLASSES),
    "linear machine": lambda s: s.svm.LinearSVC(random_state=0).fit(ROWS, CLASSES),
    "descent": lambda s: s.linear_model.SGDClassifier(random_state=0).fit(ROWS, CLASSES > 0),
    "words": lambda s: s.tree.DecisionTreeClassifier(random_state=0).fit(ROWS, np.array(["no", "so", "yes"])[CLASSES]),
}
OTHERS: dict[str, tuple[Build, list[str]]] = {
    "line": (lambda s: s.linear_model.LinearRegression().fit(ROWS, CLASSES), ["variable: float32[?, 1]"]),
    "lines": (lambda s: s.linear_model.LinearRegression().fit(ROWS, ROWS[:, :2]), ["variable: float32[?, 2]"]),
    "scaler": (lambda s: s.preprocessing.StandardScaler().fit(ROWS), ["variable: float32[?, 4]"]),
    "components": (lambda s: s.decomposition.PCA(2).fit(ROWS), ["variable: float32[?, 2]"]),
    "clusters": (
        lambda s: s.cluster.KMeans(3, n_init=1, random_state=0).fit(ROWS), ["label: int64[?]", "scores: float32[?, 3]"]
    ),
    "outliers": (
        lambda s: s.ensemble.IsolationForest(n_estimators=5, random_state=0).fit(ROWS),
        ["label: int64[?, 1]", "scores: float32[?, 1]"],
    ),
    "several labels": (
        lambda s: s.multioutput.MultiOutputClassifier(s.linear_model.LogisticRegression()).fit(
            ROWS, np.stack([CLASSES, CLASSES > 0], 1)
        ),
        ["label: int64[?, 2]", "probabilities: sequence of float32[?]"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", CLASSIFIERS)
def test_a_classifier_gives_labels_and_a_tensor_of_probabilities(sklearn: Any, tmp_path: Path, kind: str) -> None:
    model = CLASSIFIERS[kind](sklearn)
    source, session = ran(model, tmp_path, ROWS)
    inputs, outputs = signature(source)
    assert inputs == ["X: float32[?, 4]"]
    assert outputs[0] == ("label: string[?]" if kind == "words" else "label: int64[?]")
    assert outputs[1].startswith("probabilities: float32[?, ")
    assert source.framework.startswith("skl2onnx ")
    assert [list(case.outputs) for case in source.cases] == [["label", "probabilities"]]
    labels = session.run({"X": ROWS})["label"]
    assert np.array_equal(labels, model.predict(ROWS).astype(labels.dtype))


@pytest.mark.parametrize("kind", OTHERS)
def test_other_estimators_are_held_against_what_they_give(sklearn: Any, tmp_path: Path, kind: str) -> None:
    build, outputs = OTHERS[kind]
    source, _ = ran(build(sklearn), tmp_path, ROWS)
    assert signature(source) == (["X: float32[?, 4]"], outputs)
    assert set(source.cases[0].outputs) == {text.partition(":")[0] for text in outputs}


def test_without_an_example_the_inputs_are_float32(classifier: Any, tmp_path: Path) -> None:
    source, session = ran(classifier, tmp_path)
    assert signature(source)[0] == ["X: float32[?, 4]"]
    assert source.cases == ()
    assert np.array_equal(session.run({"X": ROWS})["label"], classifier.predict(ROWS))


@pytest.mark.parametrize("dtype", ["float64", "int64"])
def test_the_example_says_the_type_of_the_inputs(sklearn: Any, tmp_path: Path, dtype: str) -> None:
    data = (ROWS * 10).astype(dtype)
    model = sklearn.linear_model.LinearRegression().fit(data, CLASSES)
    assert signature(ran(model, tmp_path, data)[0])[0] == [f"X: {dtype}[?, 4]"]


def test_texts_can_be_inputs(sklearn: Any, tmp_path: Path) -> None:
    words = np.array([["red"], ["blue"], ["red"]])
    source, _ = ran(sklearn.preprocessing.OneHotEncoder().fit(words), tmp_path, words)
    assert signature(source) == (["X: string[?, 1]"], ["variable: float32[?, 2]"])


def test_a_data_frame_of_unlike_columns_has_an_input_for_each(sklearn: Any, tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    compose = pytest.importorskip("sklearn.compose")
    columns = {"age": ROWS[:, 0], "city": np.array(["x", "y", "z"])[CLASSES]}
    chosen = compose.ColumnTransformer([
        ("numbers", sklearn.preprocessing.StandardScaler(), ["age"]),
        ("words", sklearn.preprocessing.OneHotEncoder(), ["city"]),
    ])  # fmt: skip
    model = sklearn.pipeline.make_pipeline(chosen, sklearn.linear_model.LogisticRegression())
    model.fit(pandas.DataFrame(columns), CLASSES)
    for number, example in enumerate([pandas.DataFrame(columns), columns]):
        source, _ = ran(model, tmp_path / str(number), example)
        assert signature(source)[0] == ["age: float32[?, 1]", "city: string[?, 1]"]
    assert "give example=" in refused(ConversionFailed, model)


def test_a_model_that_was_fitted_on_a_data_frame_takes_one_matrix(sklearn: Any, tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas", reason="pandas is not installed")
    frame = pandas.DataFrame(ROWS, columns=list("abcd"))
    model = sklearn.linear_model.LogisticRegression().fit(frame, CLASSES)
    assert signature(ran(model, tmp_path, frame)[0])[0] == ["X: float32[?, 4]"]


def test_an_estimator_that_is_not_fitted_is_refused(sklearn: Any) -> None:
    said = refused(ConversionFailed, sklearn.linear_model.LogisticRegression())
    assert said == "the LogisticRegression is not fitted: call fit first"


def test_an_estimator_that_has_no_converter_is_refused(sklearn: Any) -> None:
    said = refused(ConversionFailed, sklearn.neighbors.NearestCentroid().fit(ROWS, CLASSES), ROWS)
    assert "NearestCentroid" in said
    assert "export it yourself" in said


def test_a_model_that_was_changed_by_hand_is_caught(sklearn: Any, tmp_path: Path) -> None:
    model = sklearn.linear_model.LinearRegression().fit(ROWS, CLASSES)
    unchanged = model.predict
    model.predict = lambda data: unchanged(data) + 0.25
    with pytest.raises(ConversionDiffers, match=r"'variable' differs in 40 of 40 values, by up to 0\.25"):
        ran(model, tmp_path, ROWS)


def test_a_missing_converter_is_named(classifier: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "skl2onnx", None)  # as Python marks what cannot be imported
    said = refused(MissingConverter, classifier)
    assert said.startswith("skl2onnx is needed to make ONNX of this model")
    assert said.endswith(": pip install skl2onnx")
