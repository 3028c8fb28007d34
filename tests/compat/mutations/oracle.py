"""What is true of a model without asking gitmodel: does ONNX Runtime load it, what does it answer, how far are two apart."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime

from gitmodel.bundle.golden import GoldenCase
from gitmodel.bundle.signature import Signature
from gitmodel.compat import generate
from gitmodel.formats import onnx as onnx_format

#: compatibility.md's own figures, written down once more.
TOLERANCES = {"float32": (1e-3, 1e-5), "float64": (1e-7, 1e-7), "float16": (1e-2, 1e-3)}
AGREEMENT, DISTANCE, CASES = 0.9, 0.3, 16
SAME, NOISE, DRIFT, FAILED, NAN, INF, MEANING = (
    "golden-identical", "golden-numeric-noise", "golden-drift", "golden-failed", "nan-introduced", "inf-introduced",
    "output-semantics-changed",
)  # fmt: skip
#: What was fed by name, and what came out in the graph's order.
Call = tuple[Mapping[str, Any], list[Any]]


def session(model: onnx.ModelProto | Path) -> onnxruntime.InferenceSession | None:
    """A session as gitmodel configures it; None where the runtime refuses the model. Raises MemoryError."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.add_session_config_entry("session.disable_prepacking", "1")
    given = str(model) if isinstance(model, Path) else model.SerializeToString()
    try:
        return onnxruntime.InferenceSession(given, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime's exceptions share no base but Exception
        if "bad_alloc" in str(error) or "Failed to allocate memory" in str(error):
            raise MemoryError from error
        return None


def state(model: onnx.ModelProto) -> str:
    """ "runs", "refuses" (every drawn case), "undrawn" (none can be drawn) or "broken" (it does not load)."""
    opened = session(model)
    if opened is None:
        return "broken"
    signature = onnx_format.signature_of(model, "oracle")
    if not generate.possible(signature):
        return "undrawn"
    return "runs" if next(_answered(opened, signature), None) is not None else "refuses"


def _answered(opened: onnxruntime.InferenceSession, signature: Signature) -> Iterator[Call]:
    """The drawn cases that it answers, 16 at most."""
    return itertools.islice(_run(opened, generate.cases(signature)), CASES)


def _run(opened: onnxruntime.InferenceSession, cases: Iterable[GoldenCase]) -> Iterator[Call]:
    for case in cases:
        try:
            yield case.inputs, opened.run(None, dict(case.inputs))
        except Exception:  # refused: the next one, as gitmodel does
            continue


def rungs(old: onnx.ModelProto, new: onnx.ModelProto) -> dict[str, str]:
    """How far NEW's outputs are from OLD's over the cases OLD answers, those at the edges too: one rung of the
    ladder per output."""
    before, after = session(old), session(new)
    assert before is not None
    assert after is not None
    names = [value.name for value in old.graph.output]
    pairs: dict[str, list[tuple[Any, Any]]] = {name: [] for name in names}
    signature = onnx_format.signature_of(old, "oracle")
    for inputs, outputs in itertools.chain(_answered(before, signature), _run(before, generate.edges(signature))):
        answers = after.run(names, dict(inputs))
        for name, a, b in zip(names, outputs, answers, strict=True):
            pairs[name].append((a, b))
    return {name: rung(found) for name, found in pairs.items()}


def refuses(old: onnx.ModelProto, new: onnx.ModelProto) -> bool:
    """Whether NEW refuses a drawn call that OLD answers."""
    before, after = session(old), session(new)
    if before is None or after is None:
        return False
    answered = [inputs for inputs, _ in _answered(before, onnx_format.signature_of(old, "oracle"))]
    return len(list(_run(after, (GoldenCase("", inputs, {}) for inputs in answered)))) < len(answered)


def is_refused_by_the_checker(model: onnx.ModelProto | Mapping[str, Any]) -> bool:
    """Whether ONNX's own checker, which asks for more than the runtime does, has something against it."""
    if not isinstance(model, onnx.ModelProto):
        return False
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError:
        return True
    return False


def lies(model: onnx.ModelProto) -> set[str]:
    """The outputs of which some answer has another shape than the graph declares; a name stands for any size."""
    opened = session(model)
    if opened is None:
        return set()
    declared = {
        value.name: [dim.dim_value if dim.HasField("dim_value") else None for dim in value.type.tensor_type.shape.dim]
        for value in model.graph.output
        if value.type.tensor_type.HasField("shape")
    }
    signature = onnx_format.signature_of(model, "oracle")
    calls = itertools.chain(_answered(opened, signature), _run(opened, generate.edges(signature)))
    return {
        value.name
        for _, outputs in calls
        for value, given in zip(model.graph.output, outputs, strict=True)
        if value.name in declared and not _fits(given, declared[value.name])
    }


def _fits(given: Any, declared: Sequence[int | None]) -> bool:
    shape = np.shape(given)
    return len(shape) == len(declared) and all(d in (None, size) for d, size in zip(declared, shape, strict=True))


def rung(pairs: Sequence[tuple[Any, Any]]) -> str:
    """The ladder of compatibility.md over all cases of one output."""
    if any(not isinstance(a, np.ndarray) for a, _ in pairs):
        return SAME if all(repr(a) == repr(b) for a, b in pairs) else FAILED
    if all(a.dtype == b.dtype and np.array_equal(a, b, equal_nan=a.dtype.kind in "fc") for a, b in pairs):
        return SAME
    if pairs[0][0].dtype.kind != "f":
        share = sum(int(np.sum(a == b)) for a, b in pairs) / sum(a.size for a, _ in pairs)
        return DRIFT if share >= AGREEMENT else FAILED
    if _are_chances(a for a, _ in pairs) and _are_surely_none(b for _, b in pairs):
        return MEANING
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


def _rows(values: Iterable[np.ndarray]) -> np.ndarray:
    """Sum, smallest and largest of every row of two columns or more, [rows, 3]; none where there are fewer than two rows."""
    kept = [v for v in values if v.size and v.ndim > 1 and v.shape[-1] > 1]
    found = [np.stack([v.sum(-1, dtype="f8"), v.min(-1), v.max(-1)], -1).reshape(-1, 3) for v in kept]
    rows = np.concatenate(found) if found else np.empty((0, 3))
    return rows if len(rows) > 1 else rows[:0]


def _are_chances(values: Iterable[np.ndarray]) -> bool:
    rows = _rows(values)
    fits = (np.abs(rows[:, 0] - 1) <= 0.01) & (rows[:, 1] >= -0.01) & (rows[:, 2] <= 1.01)
    return len(rows) > 0 and bool(np.all(fits))


def _are_surely_none(values: Iterable[np.ndarray]) -> bool:
    """Some row is far from one, or from what a probability may be."""
    kept = list(values)
    rows, columns = _rows(kept), max((v.shape[-1] for v in kept if v.ndim), default=0)
    far = (np.abs(rows[:, 0] - 1) > 0.1 + columns / 512) | (rows[:, 1] < -0.1) | (rows[:, 2] > 1.1)
    return bool(np.any(far & np.isfinite(rows).all(-1)))
