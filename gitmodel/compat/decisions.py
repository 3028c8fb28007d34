"""What an output decides, row by row: which top-1 classes flip, and how far probabilities are from each other."""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

from msgspec import Struct

from gitmodel.compat.numbers import BLOCK

if TYPE_CHECKING:
    import numpy as np

#: How many flips are kept, the worst.
WORST = 5
#: How far from 1 a row of probabilities may sum: it may have been summed in half precision.
_HALF, _SINGLE = 1e-2, 1e-3
#: What counts as the smallest probability, so that a logarithm stays finite.
_TINY = 1e-12


class Flip(Struct, frozen=True):
    """A decision that did not stay. ``row`` counts the rows of the case (all axes but the last, flattened), ``old`` and
    ``new`` are classes, or the values themselves of an output that is discrete. ``margin`` is how far OLD held its
    own class above NEW's, in the output's unit; 0 for discrete values."""

    case: str
    row: int
    old: int | str
    new: int | str
    margin: float = 0.0


def decides(values: np.ndarray) -> bool:
    """Whether each row of the last axis is a choice between classes."""
    return values.dtype.kind == "f" and values.ndim > 1 and values.shape[-1] > 1


def flips(case: str, a: np.ndarray, b: np.ndarray) -> tuple[int, list[Flip]]:
    """How many rows choose another class, and the worst of them: those of which OLD was surest. Both [..., classes]."""
    count, worst = 0, []
    for start, old, new in _rows(a, b):
        before, after = old.argmax(-1), new.argmax(-1)
        moved = (before != after).nonzero()[0]
        count += len(moved)
        gaps = [(_margin(old[row], before[row], after[row]), int(row)) for row in moved.tolist()]
        worst += [
            Flip(case, start + row, int(before[row]), int(after[row]), margin)
            for margin, row in heapq.nlargest(WORST, gaps, key=lambda gap: (gap[0], -gap[1]))
        ]
    return count, surest(worst)


def discrete_flips(case: str, a: np.ndarray, b: np.ndarray) -> list[Flip]:
    """The first values of a discrete output (integers, flags, words) that are others now."""
    places = (a != b).reshape(-1).nonzero()[0][:WORST].tolist()
    x, y = a.reshape(-1), b.reshape(-1)
    return [Flip(case, place, _plain(x[place]), _plain(y[place])) for place in places]


def surest(found: list[Flip]) -> list[Flip]:
    """The worst few; of those of one case that are alike the first rows."""
    order = {case: number for number, case in enumerate(dict.fromkeys(flip.case for flip in found))}
    return sorted(found, key=lambda flip: (-flip.margin, order[flip.case], flip.row))[:WORST]


def are_probabilities(values: np.ndarray) -> bool:
    """Whether every row of the last axis lies in [0, 1] and sums to one."""
    import numpy as np

    if not decides(values):
        return False
    if not values.size:
        return True
    low, high = float(values.min()), float(values.max())
    near = _HALF if values.dtype.itemsize == 2 else _SINGLE
    if not (low >= 0.0 and high <= 1.0 + near):
        return False
    return bool(np.all(np.abs(values.sum(-1, dtype=np.float64) - 1.0) <= near))


def divergence(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """Kullback-Leibler from OLD to NEW and Jensen-Shannon, in nats, each summed over the rows (Lin 1991,
    doi:10.1109/18.61115). Probabilities below 1e-12 count as that."""
    import numpy as np

    kl = js = 0.0
    x, y = a.reshape(-1), b.reshape(-1)
    for start in range(0, x.size, BLOCK):
        p, q = (np.maximum(v[start : start + BLOCK].astype(np.float64), _TINY) for v in (x, y))
        m = (p + q) / 2
        kl += float(np.sum(p * np.log(p / q)))
        js += float(np.sum(p * np.log(p / m)) + np.sum(q * np.log(q / m))) / 2
    return max(kl, 0.0), max(js, 0.0)


def _rows(a: np.ndarray, b: np.ndarray) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
    """Blocks of whole rows, each with the number of its first."""
    width = a.shape[-1]
    x, y = a.reshape(-1, width), b.reshape(-1, width)
    step = max(1, BLOCK // width)
    for start in range(0, len(x), step):
        yield start, x[start : start + step], y[start : start + step]


def _margin(row: np.ndarray, old: int, new: int) -> float:
    margin = float(row[old]) - float(row[new])
    return math.inf if math.isnan(margin) else margin


def _plain(value: object) -> int | str:
    return value if isinstance(value, str) else int(value)  # type: ignore[call-overload]  # numpy's scalars
