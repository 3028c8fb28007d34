"""scikit-learn to ONNX: skl2onnx, with probabilities as a tensor and the names it gives (``X``, ``label``, ``probabilities``)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from gitmodel.bundle.golden import GoldenCase
from gitmodel.formats.frameworks import ConversionFailed, exported, need
from gitmodel.formats.source import Source

#: What every runtime of the last years has; for ``ai.onnx.ml`` the newest that skl2onnx writes all of its models in.
_OPSETS = {"": 21, "ai.onnx.ml": 3}
#: What the second output can be, after ``predict``.
_SECOND = ("predict_proba", "decision_function", "transform")


def convert(model: Any, example: Any, path: Path) -> Source:
    """Inputs have the type of the example, a column each where it is a data frame or a mapping; without one they are
    float32 [rows, features]."""
    need("skl2onnx")
    checks = need("sklearn.utils.validation")
    try:
        checks.check_is_fitted(model)
    except need("sklearn.exceptions").NotFittedError:
        raise ConversionFailed(f"the {type(model).__name__} is not fitted", hint="call fit first") from None
    data = _rows(model, example)
    path.write_bytes(_converted(model, data).SerializeToString())
    source, signature = exported(path)
    cases: tuple[GoldenCase, ...] = ()
    if example is not None:
        outputs = zip((spec.name for spec in signature.outputs), _given(model, data), strict=False)
        cases = (GoldenCase("example", _inputs(data), dict(outputs)),)
    return replace(source, cases=cases)


def _rows(model: Any, example: Any) -> Any:
    import numpy as np

    if isinstance(example, Mapping):
        return need("pandas").DataFrame(dict(example))
    if example is not None:
        return example if hasattr(example, "iloc") else np.asarray(example)
    features = getattr(model, "n_features_in_", None)
    if features is None:
        raise ConversionFailed(
            f"the {type(model).__name__} does not say what its inputs are", hint="give example=, some rows of them"
        )
    return np.zeros((1, features), np.float32)


def _converted(model: Any, data: Any) -> Any:
    from_sklearn = need("skl2onnx").to_onnx
    first = data.iloc[:1] if hasattr(data, "iloc") else data[:1]
    if need("sklearn.base").is_classifier(model):
        try:
            return from_sklearn(model, first, options={"zipmap": False}, target_opset=_OPSETS)
        except NameError:  # skl2onnx's word for a model that has no such option: it gives a tensor anyway
            pass
    return from_sklearn(model, first, target_opset=_OPSETS)


def _inputs(data: Any) -> dict[str, Any]:
    if hasattr(data, "iloc"):
        return {str(column): data[[column]].to_numpy() for column in data.columns}
    return {"X": data}


def _given(model: Any, data: Any) -> list[Any]:
    """What the model itself gives, in the order of skl2onnx's outputs."""
    first = "predict" if hasattr(model, "predict") else "transform"
    second = next((name for name in _SECOND if hasattr(model, name)), first)
    return [_dense(getattr(model, name)(data)) for name in (first, second)]


def _dense(values: Any) -> Any:
    if hasattr(values, "toarray"):
        return values.toarray()
    return values.to_numpy() if hasattr(values, "to_numpy") else values
