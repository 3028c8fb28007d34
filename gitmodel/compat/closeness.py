"""How close one output of a case is to the recorded one, for a person who decides whether that is meant."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from msgspec import Struct

from gitmodel.bundle.card import Gates
from gitmodel.bundle.signature import Signature, TensorSpec
from gitmodel.compat import decisions, numbers
from gitmodel.compat.side_by_side import Arrays

if TYPE_CHECKING:
    import numpy as np

#: How many changed decisions are named.
NAMED = 3


class Closeness(Struct, frozen=True):
    """One output beside the recorded one.

    ``apart`` says why they cannot be held side by side at all ('' mostly; the rest is empty then). ``max_abs`` is the
    largest absolute difference, at index ``at``, from ``old`` to ``new``; ``max_rel`` the largest one relative to the
    recorded value. ``beyond`` of ``values`` are beyond ``tolerance`` (rtol, atol); ``rtol`` is the smallest that would
    let all pass with the same atol, or infinite, and ``atol`` the smallest with the same rtol. ``flips`` names those
    of ``flipped`` rows (of ``rows``) whose largest value stands elsewhere that were surest, as (row, old class, new class). ``broken`` is
    how many values became NaN or infinite.
    """

    output: str
    dtype: str
    shape: tuple[int, ...]
    apart: str = ""
    max_abs: float = 0.0
    at: tuple[int, ...] = ()
    old: str = ""
    new: str = ""
    max_rel: float = 0.0
    beyond: int = 0
    values: int = 0
    tolerance: tuple[float, float] = (0.0, 0.0)
    rtol: float = 0.0
    atol: float = 0.0
    flipped: int = 0
    rows: int = 0
    flips: tuple[tuple[int, int, int], ...] = ()
    broken: int = 0


def closeness(recorded: Arrays, given: Arrays, signature: Signature, gates: Gates) -> Iterator[Closeness]:
    """One per output that either side has."""
    specs = {spec.name: spec for spec in signature.outputs}
    for name in dict.fromkeys([*recorded, *given]):
        old, new = recorded.get(name), given.get(name)
        if new is None:
            yield Closeness(name, str(old.dtype) if old is not None else "", (), "the model has no such output")
        elif old is None:
            yield Closeness(name, str(new.dtype), new.shape, "it was not recorded")
        else:
            yield _compare(specs.get(name, TensorSpec(name, str(new.dtype), None)), old, new, gates)


def _compare(spec: TensorSpec, old: np.ndarray, new: np.ndarray, gates: Gates) -> Closeness:
    dtype, shape = str(new.dtype), tuple(new.shape)
    if old.shape != shape:
        return Closeness(spec.name, dtype, shape, f"shape {list(old.shape)} is {list(shape)} now")
    if old.dtype != new.dtype:
        return Closeness(spec.name, dtype, shape, f"type {old.dtype} is {new.dtype} now")
    return _numbers(spec, old, new, gates) if old.dtype.kind in "fciu" else _others(spec, old, new)


def _others(spec: TensorSpec, old: np.ndarray, new: np.ndarray) -> Closeness:
    """Words and flags are equal or they are not."""
    import numpy as np

    differs = np.asarray(old != new)
    base = Closeness(spec.name, spec.dtype, new.shape, beyond=int(differs.sum()), values=old.size)
    if not base.beyond:
        return base
    at = tuple(int(i[0]) for i in np.nonzero(differs))
    return Closeness(
        spec.name, spec.dtype, new.shape, max_abs=math.inf, at=at, old=repr(old[at])[:60], new=repr(new[at])[:60],
        max_rel=math.inf, beyond=base.beyond, values=old.size, rtol=math.inf, atol=math.inf,
    )  # fmt: skip


def _numbers(spec: TensorSpec, old: np.ndarray, new: np.ndarray, gates: Gates) -> Closeness:
    import numpy as np

    tolerance = gates.tolerance_for(spec.name, spec.dtype)
    found = numbers.measure(old, new, tolerance)
    at = tuple(int(i) for i in np.unravel_index(found.at, old.shape)) if old.size else ()
    rtol, atol = _would_pass(old, new, tolerance) if found.mismatched else (0.0, 0.0)
    classes = decisions.decides(old)
    flipped, flips = decisions.flips("", old, new) if classes and not found.equal else (0, [])
    return Closeness(
        spec.name, spec.dtype, new.shape, "", found.max_abs, at, f"{old[at]:.6g}" if old.size else "",
        f"{new[at]:.6g}" if old.size else "", found.max_rel, found.mismatched, old.size, tolerance, rtol, atol,
        flipped, old[..., 0].size if classes else 0,
        tuple((flip.row, int(flip.old), int(flip.new)) for flip in flips[:NAMED]),
        int((np.isfinite(old) & ~np.isfinite(new)).sum()),
    )  # fmt: skip


def _would_pass(old: np.ndarray, new: np.ndarray, tolerance: tuple[float, float]) -> tuple[float, float]:
    """The smallest rtol that lets all pass with the same atol, and the smallest atol with the same rtol."""
    import numpy as np

    rtol, atol = tolerance
    wide = np.complex128 if old.dtype.kind == "c" else np.float64
    x, y = old.astype(wide), new.astype(wide)
    both = np.isfinite(x) & np.isfinite(y)
    if not np.array_equal(x[~both], y[~both], equal_nan=True):
        return math.inf, math.inf
    gaps, size = np.abs(y[both] - x[both]), np.abs(x[both])
    with np.errstate(divide="ignore", invalid="ignore"):
        wanted = np.where(gaps > atol, (gaps - atol) / size, 0.0)
    return float(wanted.max(initial=0.0)), max(0.0, float((gaps - rtol * size).max(initial=0.0)))
