"""scikit-learn to ONNX: skl2onnx, with probabilities as a tensor and the names it gives (``X``, ``label``, ``probabilities``)."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from gitmodel.bundle.golden import GoldenCase
from gitmodel.formats.frameworks import ConversionFailed, exported, need, reason
from gitmodel.formats.source import Source

#: What every runtime of the last years has; for ``ai.onnx.ml`` the newest that skl2onnx writes all of its models in.
_OPSETS = {"": 21, "ai.onnx.ml": 3}
#: What the second output can be, after ``predict``.
_SECOND = ("predict_proba", "decision_function", "transform")


def convert(model: Any, example: Any, path: Path) -> Source:
    """Inputs have the type of the example, and a column each where it is a data frame of columns that the model tells
    apart; without an example they are float32 [rows, features]."""
    need("skl2onnx")
    checks = need("sklearn.utils.validation")
    try:
        checks.check_is_fitted(model)
    except need("sklearn.exceptions").NotFittedError:
        raise ConversionFailed(f"the {type(model).__name__} is not fitted", hint="call fit first") from None
    data = _rows(model, example)
    converted, inputs = _converted(model, data, guessed=example is None)
    path.write_bytes(converted.SerializeToString())
    source, signature = exported(path)
    if example is None:
        return source
    outputs = zip((spec.name for spec in signature.outputs), _given(model, data), strict=False)
    return replace(source, cases=(GoldenCase("example", inputs, dict(outputs)),))


def _rows(model: Any, example: Any) -> Any:
    import numpy as np

    if isinstance(example, Mapping):
        return need("pandas").DataFrame(dict(example))
    if example is not None:
        return example if _is_frame(example) else np.asarray(example)
    features = getattr(model, "n_features_in_", None)
    if features is None:
        raise ConversionFailed(
            f"the {type(model).__name__} does not say what its inputs are", hint="give example=, some rows of them"
        )
    return np.zeros((1, features), np.float32)


def _is_frame(data: Any) -> bool:
    return hasattr(data, "iloc") and hasattr(data, "columns")


def _converted(model: Any, data: Any, *, guessed: bool) -> tuple[Any, dict[str, Any]]:
    """The ONNX model, and the data as its inputs. Raises ConversionFailed."""
    try:
        if not _is_frame(data):
            return _to_onnx(model, data[:1]), {"X": data}
        try:
            columns = {str(column): data[[column]].to_numpy() for column in data.columns}
            return _to_onnx(model, data.iloc[:1]), columns
        except Exception:  # skl2onnx raises anything; most models take one matrix, whatever they were fitted with
            array = data.to_numpy()
            return _to_onnx(model, array[:1]), {"X": array}
    except Exception as error:
        mend = (
            "give example=, some rows as the model takes them" if guessed else "export it yourself, and save the file"
        )
        raise ConversionFailed(
            f"skl2onnx does not take the {type(model).__name__} ({reason(error)})", hint=mend
        ) from error


def _to_onnx(model: Any, first: Any) -> Any:
    to_onnx = need("skl2onnx").to_onnx
    if need("sklearn.base").is_classifier(model):
        # NameError is skl2onnx's word for a model without that option: it gives a tensor anyway.
        with contextlib.suppress(NameError):
            return to_onnx(model, first, options={"zipmap": False}, target_opset=_OPSETS)
    return to_onnx(model, first, target_opset=_OPSETS)


def _given(model: Any, data: Any) -> list[Any]:
    """What the model itself gives, in the order of skl2onnx's outputs."""
    first = "predict" if hasattr(model, "predict") else "transform"
    second = next((name for name in _SECOND if hasattr(model, name)), first)
    return [_dense(getattr(model, name)(data)) for name in (first, second)]


def _dense(values: Any) -> Any:
    if hasattr(values, "toarray"):
        return values.toarray()
    return values.to_numpy() if hasattr(values, "to_numpy") else values
