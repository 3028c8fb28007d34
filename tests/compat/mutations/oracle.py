"""What is true of a model without asking gitmodel: does ONNX Runtime load it, what does it answer, how far are two apart."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

from gitmodel.compat import generate
from gitmodel.formats import onnx as onnx_format

#: compatibility.md's own figures, written down once more.
TOLERANCES = {"float32": (1e-3, 1e-5), "float64": (1e-7, 1e-7), "float16": (1e-2, 1e-3)}
AGREEMENT, DISTANCE, CASES = 0.9, 0.3, 16
SAME, NOISE, DRIFT, FAILED, NAN, INF = (
    "golden-identical", "golden-numeric-noise", "golden-drift", "golden-failed", "nan-introduced", "inf-introduced",
)  # fmt: skip
Answers = list[dict[str, Any]]


def session(model: onnx.ModelProto | Path) -> onnxruntime.InferenceSession | None:
    """A session as gitmodel configures it; None where the runtime refuses the model."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.add_session_config_entry("session.disable_prepacking", "1")
    given = str(model) if isinstance(model, Path) else model.SerializeToString()
    try:
        return onnxruntime.InferenceSession(given, options, providers=["CPUExecutionProvider"])
    except Exception:  # the runtime's exceptions share no base but Exception
        return None


def state(model: onnx.ModelProto) -> str:
    """ "runs", "refuses" (every drawn case), "undrawn" (none can be drawn) or "broken" (it does not load)."""
    opened = session(model)
    if opened is None:
        return "broken"
    signature = onnx_format.signature_of(model, "oracle")
    if not generate.possible(signature):
        return "undrawn"
    return "runs" if next(_answered(opened, model), None) is not None else "refuses"


def _answered(
    opened: onnxruntime.InferenceSession, model: onnx.ModelProto
) -> Iterator[tuple[Mapping[str, Any], list[Any]]]:
    for case in generate.cases(onnx_format.signature_of(model, "oracle")):
        try:
            yield case.inputs, opened.run(None, dict(case.inputs))
        except Exception:  # refused: the next one, as gitmodel does
            continue


def rungs(old: onnx.ModelProto, new: onnx.ModelProto) -> dict[str, str]:
    """How far NEW's outputs are from OLD's over the first 16 cases OLD answers: one rung of the ladder per output."""
    before, after = session(old), session(new)
    assert before is not None
    assert after is not None
    names = [value.name for value in old.graph.output]
    pairs: dict[str, list[tuple[Any, Any]]] = {name: [] for name in names}
    for inputs, outputs in itertools.islice(_answered(before, old), CASES):
        answers = after.run(names, dict(inputs))
        for name, a, b in zip(names, outputs, answers, strict=True):
            pairs[name].append((a, b))
    return {name: rung(found) for name, found in pairs.items()}


def rung(pairs: Sequence[tuple[Any, Any]]) -> str:
    """The ladder of compatibility.md over all cases of one output."""
    if any(not isinstance(a, np.ndarray) for a, _ in pairs):
        return SAME if all(repr(a) == repr(b) for a, b in pairs) else FAILED
    if all(a.dtype == b.dtype and np.array_equal(a, b, equal_nan=a.dtype.kind in "fc") for a, b in pairs):
        return SAME
    if pairs[0][0].dtype.kind != "f":
        share = sum(int(np.sum(a == b)) for a, b in pairs) / sum(a.size for a, _ in pairs)
        return DRIFT if share >= AGREEMENT else FAILED
    rtol, atol = TOLERANCES[pairs[0][0].dtype.name]
    wide = [(a.astype("f8"), b.astype("f8")) for a, b in pairs]
    near = [_near(a, b, rtol, atol) for a, b in wide]
    if all(np.all(close) for close in near):
        return NOISE
    if any(np.any(np.isnan(b) & ~np.isnan(a)) for a, b in wide):
        return NAN
    if any(np.any(np.isinf(b) & ~np.isinf(a)) for a, b in wide):
        return INF
    kept, count, moved = 0, 0, []
    for (a, b), close in zip(wide, near, strict=True):
        decisions = a.argmax(-1) == b.argmax(-1) if a.ndim > 1 and a.shape[-1] > 1 else close
        kept, count = kept + int(np.sum(decisions)), count + int(np.size(decisions))
        finite = np.isfinite(a) & np.isfinite(b)
        gap, size = float(np.sum(np.abs(a[finite] - b[finite]))), float(np.sum(np.abs(a[finite])))
        moved.append(min(gap / size, 1.0) if size else float(gap > 0))
    return DRIFT if kept / count >= AGREEMENT and sum(moved) / len(moved) <= DISTANCE else FAILED


def _near(a: np.ndarray, b: np.ndarray, rtol: float, atol: float) -> np.ndarray:
    with np.errstate(invalid="ignore"):
        close = (np.abs(a - b) <= atol + rtol * np.abs(a)) & np.isfinite(a) & np.isfinite(b)
    return np.asarray(close | (a == b) | (np.isnan(a) & np.isnan(b)))
