"""How far one output of NEW is from OLD's, gathered case by case: equality, tolerance, decisions, distance."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from gitmodel.bundle.card import Gates
from gitmodel.bundle.signature import TensorSpec
from gitmodel.compat.semantics import NONE_SEEN, Rows

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True)
class Flip:
    """One decision that changed: the row of a case, and its class on either side."""

    case: str
    row: int
    old: int
    new: int


@dataclass(frozen=True)
class CaseDrift:
    """One case of one output: its largest absolute difference, in ``row``, and whether all of it is within tolerance."""

    case: str
    row: int
    max_abs: float
    within: bool


@dataclass(frozen=True)
class OutputDrift:
    """How one output differs over all cases taken in so far.

    ``max_abs`` is the largest absolute difference, found in case ``worst`` (infinite where the values cannot be held
    side by side at all). ``agreement`` is the share, 0 to 1, of decisions that stay: the top-1 of the last axis, each
    value of a discrete output, for other numbers each element within tolerance. ``distance`` is how far the
    values moved as a share of OLD's own: the sum of differences over the sum of magnitudes, at most 1, averaged over cases.
    ``rows_before`` and ``rows_after`` are what OLD's and NEW's rows look like (semantics.look).
    """

    name: str
    equal: bool = True
    within: bool = True
    max_abs: float = 0.0
    worst: str = ""
    agreed: int = 0
    decisions: int = 0
    nan: bool = False
    inf: bool = False
    moved: float = 0.0
    cases: int = 0
    at: tuple[int, ...] = ()
    max_rel: float = 0.0
    ulp_p99: float | None = None
    ulp_max: float | None = None
    cosine: float | None = None
    mismatched: float = 0.0
    flipped: int = 0
    flips: tuple[Flip, ...] = ()
    kl: float | None = None
    js: float | None = None
    smallest: tuple[float, float] | None = None
    floor: float = 0.0
    tolerance: tuple[float, float] = (0.0, 0.0)
    by_case: tuple[CaseDrift, ...] = ()
    rows_before: Rows = NONE_SEEN
    rows_after: Rows = NONE_SEEN

    @property
    def agreement(self) -> float:
        return self.agreed / self.decisions if self.decisions else 1.0

    @property
    def distance(self) -> float:
        return self.moved / self.cases if self.cases else 0.0


def extend(drift: OutputDrift, case: str, old: Any, new: Any, gates: Gates, spec: TensorSpec) -> OutputDrift:
    """The drift with one more case taken in. Sequences and maps are compared piece by piece."""
    before, after = _pieces(old), _pieces(new)
    drift = replace(drift, tolerance=gates.tolerance_for(spec.name, spec.dtype))
    if before.keys() != after.keys():
        return _apart(drift, case)
    for key, piece in before.items():
        drift = _extend(drift, case, piece, after[key], gates, spec)
    return drift


def _extend(drift: OutputDrift, case: str, a: np.ndarray, b: np.ndarray, gates: Gates, spec: TensorSpec) -> OutputDrift:
    import numpy as np

    if a.shape != b.shape or _family(a) != _family(b):
        return _apart(drift, case)
    tolerance = gates.tolerance_for(spec.name, spec.dtype)
    if a.dtype.kind in "fc" or (a.dtype.kind in "iu" and tolerance != (0.0, 0.0)):
        return _numbers(drift, case, a, b, tolerance)
    same = a == b
    equal = bool(np.all(same))
    size = 0.0 if equal else _discrete_distance(a, b)
    return _merge(drift, case, equal, equal, size, int(np.sum(same)), a.size)


def _numbers(
    drift: OutputDrift, case: str, a: np.ndarray, b: np.ndarray, tolerance: tuple[float, float]
) -> OutputDrift:
    import numpy as np

    wide = np.complex128 if a.dtype.kind == "c" else np.float64
    x, y = a.astype(wide), b.astype(wide)
    equal = bool(np.array_equal(a, b, equal_nan=True)) if a.dtype.kind in "fc" else bool(np.array_equal(a, b))
    close = np.isclose(y, x, rtol=tolerance[0], atol=tolerance[1], equal_nan=True)
    finite = np.isfinite(x) & np.isfinite(y)
    gaps = np.abs(np.subtract(x, y, where=finite, out=np.zeros(x.shape, wide)))
    nan = bool(np.any(np.isnan(y) & ~np.isnan(x)))
    inf = bool(np.any(np.isinf(y) & ~np.isinf(x)))
    size = math.inf if nan or inf else float(np.max(gaps, initial=0.0))
    if a.dtype.kind == "f" and a.ndim > 1 and a.shape[-1] > 1:
        agreed, decisions = int(np.sum(a.argmax(-1) == b.argmax(-1))), a[..., 0].size
    else:
        agreed, decisions = int(np.sum(close)), close.size
    total, gap = float(np.sum(np.abs(x[finite]))), float(np.sum(gaps))
    merged = _merge(drift, case, equal, bool(np.all(close)), size, agreed, decisions)
    return replace(
        merged,
        nan=drift.nan or nan,
        inf=drift.inf or inf,
        moved=drift.moved + (min(gap / total, 1.0) if total else float(gap > 0)),
        cases=drift.cases + 1,
    )


def _discrete_distance(a: np.ndarray, b: np.ndarray) -> float:
    """The largest difference of integers, exact at any size; there is none to speak of between words."""
    if a.dtype.kind not in "iu":
        return math.inf if a.dtype.kind != "b" else 1.0
    return float(max(abs(int(x) - int(y)) for x, y in zip(a.reshape(-1), b.reshape(-1), strict=True) if x != y))


def _merge(
    drift: OutputDrift, case: str, equal: bool, within: bool, size: float, agreed: int, decisions: int
) -> OutputDrift:
    worse = size > drift.max_abs or (not within and drift.within)
    return replace(
        drift,
        equal=drift.equal and equal,
        within=drift.within and within,
        max_abs=max(size, drift.max_abs),
        worst=case if worse else drift.worst,
        agreed=drift.agreed + agreed,
        decisions=drift.decisions + decisions,
        by_case=(*drift.by_case, CaseDrift(case, 0, size, within)),
    )


def _apart(drift: OutputDrift, case: str) -> OutputDrift:
    """Values of another shape, type or set of keys: no decision stays."""
    return _merge(drift, case, equal=False, within=False, size=math.inf, agreed=0, decisions=1)


def _family(values: np.ndarray) -> str:
    """Types that are compared by value: all floats, all integers; everything else only with its own kind."""
    kind = values.dtype.kind
    return {"u": "i", "U": "O"}.get(kind, kind)


def _pieces(value: Any) -> dict[str, np.ndarray]:
    """The arrays a value is made of, by place: a tensor is one; a list of maps (ONNX's ZipMap) rows, in the order of their keys."""
    import numpy as np

    if isinstance(value, dict):
        return {f"[{key!r}]{place}": piece for key, held in value.items() for place, piece in _pieces(held).items()}
    if isinstance(value, list):
        if value and all(isinstance(row, dict) and row.keys() == value[0].keys() for row in value):
            # The keys are part of the place: with other keys the rows are not the same thing at all.
            keys = sorted(value[0], key=str)
            return {f"rows of {keys!r}": np.array([[row[key] for key in keys] for row in value])}
        return {f"[{i}]{place}": piece for i, held in enumerate(value) for place, piece in _pieces(held).items()}
    return {"": np.asarray(value)}
