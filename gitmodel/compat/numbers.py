"""Two arrays of numbers held side by side, a block at a time, so that a large output is never copied whole to a wider type."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

#: Elements of one block: half a megabyte as float64, which a processor's cache holds.
BLOCK = 1 << 16
#: ULPs below this are counted one by one, beyond it in 32 steps for each power of two: within 3 % of the true value.
_EXACT, _STEPS, _BUCKETS = 64, 32, 64 + 58 * 32
#: A factor that multiplies the tolerance must not fall short of it by rounding.
_UP = 1 + 1e-9


@dataclass
class Numbers:
    """What the elements of one output showed so far.

    ``max_abs`` and ``max_rel`` are the largest absolute difference and the largest as a share of OLD's own value, where
    that is not 0; ``at`` is the flat index of the former. ``beyond`` is the largest absolute difference of those beyond
    tolerance, ``mismatched`` their number. ``factor`` and ``extra`` are what the tolerance must be multiplied by, and the
    absolute tolerance at least needed, to let all pass. ``largest`` is OLD's largest magnitude. NaN and infinity must
    stay where they were, else differences are infinite.
    """

    equal: bool = True
    elements: int = 0
    mismatched: int = 0
    max_abs: float = 0.0
    at: int = 0
    max_rel: float = 0.0
    beyond: float = 0.0
    factor: float = 0.0
    extra: float = 0.0
    largest: float = 0.0
    nan: bool = False
    inf: bool = False
    size: float = 0.0
    gap: float = 0.0
    cosine: float = 1.0
    ulps: dict[int, int] = field(default_factory=dict)
    ulp_max: int = 0


def measure(a: np.ndarray, b: np.ndarray, tolerance: tuple[float, float]) -> Numbers:
    """OLD's ``a`` and NEW's ``b``, of one shape, each of any numeric type; ``tolerance`` is (rtol, atol) as in
    ``|b - a| <= atol + rtol * |a|``."""
    found = Numbers(elements=a.size)
    if all(_same(x, y) for x, y in _blocks(a, b)):
        return found
    found.equal = False
    products = [0.0, 0.0, 0.0]
    for number, (x, y) in enumerate(_blocks(a, b)):
        _take(found, products, x, y, number * BLOCK, tolerance)
    found.cosine = _cosine(*products)
    return found


def smallest(tolerance: tuple[float, float], factor: float, extra: float) -> tuple[float, float]:
    """The smallest tolerance, grown in the proportions of ``tolerance``, that lets everything pass; infinite where none does."""
    if math.isinf(factor) or math.isinf(extra):
        return math.inf, math.inf
    rtol, atol = (part * factor * _UP for part in tolerance)
    return rtol, max(atol, extra)


def percentile(ulps: dict[int, int], share: float) -> int:
    """The count of ULPs that ``share`` of all elements do not exceed (within 3 % from 64 on)."""
    left = share * sum(ulps.values())
    for bucket in sorted(ulps):
        left -= ulps[bucket]
        if left <= 0:
            return _value(bucket)
    return 0


def _blocks(a: np.ndarray, b: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    x, y = a.reshape(-1), b.reshape(-1)
    for start in range(0, x.size, BLOCK):
        yield x[start : start + BLOCK], y[start : start + BLOCK]


def _same(x: np.ndarray, y: np.ndarray) -> bool:
    import numpy as np

    if np.array_equal(x, y):
        return True
    return x.dtype.kind in "fc" and bool(np.array_equal(x, y, equal_nan=True))


def _take(
    found: Numbers, products: list[float], x: np.ndarray, y: np.ndarray, start: int, tolerance: tuple[float, float]
) -> None:
    import numpy as np

    wide: Any = np.complex128 if "c" in (x.dtype.kind, y.dtype.kind) else np.float64
    old, new = x.astype(wide), y.astype(wide)
    finite = np.isfinite(old) & np.isfinite(new)
    if not finite.all():
        _take_odd(found, old, new, finite, start)
        old, new = np.where(finite, old, 0), np.where(finite, new, 0)
    with np.errstate(over="ignore", invalid="ignore"):
        gaps, sizes = np.abs(new - old), np.abs(old)
        allowed = tolerance[1] + tolerance[0] * sizes
        beyond = gaps > allowed
        products[0] += float(np.vdot(sizes, sizes))
        products[1] += float(np.vdot(new, new).real)
        products[2] += float(np.vdot(old, new).real)
    top = int(gaps.argmax())
    if gaps[top] > found.max_abs:
        found.max_abs, found.at = float(gaps[top]), start + top
    found.mismatched += int(np.count_nonzero(beyond))
    found.beyond = max(found.beyond, float(np.max(gaps, initial=0.0, where=beyond)))
    found.largest = max(found.largest, float(sizes.max()))
    found.size += float(sizes.sum())
    found.gap += float(gaps.sum())
    found.max_rel = max(found.max_rel, _ratio(gaps, sizes))
    found.factor = max(found.factor, _ratio(gaps, allowed))
    found.extra = max(found.extra, float(np.max(gaps, initial=0.0, where=allowed == 0)))
    if x.dtype.kind == "f" and y.dtype.kind == "f":
        _take_ulps(found, x, y, finite)


def _take_odd(found: Numbers, old: np.ndarray, new: np.ndarray, finite: np.ndarray, start: int) -> None:
    """NaN and infinities: equal ones are no difference, any other is one that no tolerance covers."""
    import numpy as np

    found.nan |= bool(np.any(np.isnan(new) & ~np.isnan(old)))
    found.inf |= bool(np.any(np.isinf(new) & ~np.isinf(old)))
    moved = ~finite & ~((old == new) | (np.isnan(old) & np.isnan(new)))
    if count := int(np.count_nonzero(moved)):
        found.mismatched += count
        found.beyond = found.factor = found.extra = math.inf
        if not math.isinf(found.max_abs):
            found.max_abs, found.at = math.inf, start + int(moved.argmax())


def _ratio(gaps: np.ndarray, sizes: np.ndarray) -> float:
    import numpy as np

    with np.errstate(over="ignore"):
        return float(np.max(np.divide(gaps, sizes, where=sizes > 0, out=np.zeros_like(gaps)), initial=0.0))


def _cosine(old: float, new: float, both: float) -> float:
    """Of the two outputs as vectors. 1 where both are zero, 0 where one is; values too large to square count as alike."""
    if not all(map(math.isfinite, (old, new, both))):
        return 1.0
    if old == 0 or new == 0:
        return float(old == new)
    return max(-1.0, min(1.0, both / math.sqrt(old) / math.sqrt(new)))


def _take_ulps(found: Numbers, x: np.ndarray, y: np.ndarray, finite: np.ndarray) -> None:
    """How many representable numbers of OLD's type lie between the two."""
    import numpy as np

    with np.errstate(over="ignore"):
        one, other = (_rank(v[finite].astype(x.dtype)) for v in (x, y))
    steps = np.where(one > other, one - other, other - one).astype(np.uint64)
    exponent = np.frexp(steps.astype(np.float64))[1].astype(np.int64) - 1
    # A count too long for a float64 may have been rounded up to the next power of two.
    exponent -= (steps >> np.clip(exponent, 0, 63).astype(np.uint64)) == 0
    shift = np.maximum(exponent - 5, 0).astype(np.uint64)
    coarse = _EXACT + (exponent - 6) * _STEPS + ((steps >> shift) & np.uint64(_STEPS - 1)).astype(np.int64)
    buckets = np.where(steps < _EXACT, steps.astype(np.int64), np.minimum(coarse, _BUCKETS - 1))
    values, counts = np.unique(buckets, return_counts=True)
    for bucket, count in zip(values.tolist(), counts.tolist(), strict=True):
        found.ulps[bucket] = found.ulps.get(bucket, 0) + count
    found.ulp_max = max(found.ulp_max, int(steps.max(initial=np.uint64(0))))


def _rank(values: np.ndarray) -> np.ndarray:
    """Floats as unsigned integers in the same order, neighbours one apart, and both zeros the same."""
    import numpy as np

    unsigned = np.dtype(f"u{values.dtype.itemsize}")
    bits, top = values.view(unsigned), unsigned.type(1 << (8 * values.dtype.itemsize - 1))
    ranks: np.ndarray = np.where(bits & top, top - (bits & ~top), top + bits)
    return ranks


def _value(bucket: int) -> int:
    """The smallest count a bucket stands for."""
    if bucket < _EXACT:
        return bucket
    power, step = divmod(bucket - _EXACT, _STEPS)
    return (_STEPS + step) << (power + 1)
