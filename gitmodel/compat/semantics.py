"""What the rows of an output are, as far as their values show: probabilities, which sum to one, or other numbers."""

from __future__ import annotations

from typing import Any

from msgspec import Struct

#: How far a row of probabilities may be from one, and what is too far even for one that lost digits on its way.
CLOSE, FAR = 1e-2, 1e-1
#: What a row may lose in every column when it goes through eight bits: half a step of 1/256.
HALF_STEP = 1 / 512
#: One row may sum to one by chance.
FEWEST = 2


class Rows(Struct, frozen=True):
    """What was seen of one side's rows (the last axis): how many, whether all are probabilities, whether some surely are none."""

    seen: int = 0
    all_sum_to_one: bool = True
    some_do_not: bool = False

    @property
    def probabilities(self) -> bool:
        return self.all_sum_to_one and self.seen >= FEWEST

    @property
    def others(self) -> bool:
        return self.some_do_not and self.seen >= FEWEST


NONE_SEEN = Rows()


def look(rows: Rows, values: Any) -> Rows:
    """``rows`` with those of one more value taken in; only arrays of floats have any, of two dimensions and two columns at least."""
    import numpy as np

    if not isinstance(values, np.ndarray) or values.dtype.kind != "f" or values.ndim < 2:
        return rows
    if values.shape[-1] < 2 or not values.size:
        return rows
    with np.errstate(invalid="ignore", over="ignore"):
        off = np.abs(values.sum(-1, dtype=np.float64) - 1)
        low, high = values.min(-1), values.max(-1)
        # What is no number shows nothing: neither comparison holds for it, and other rules speak of it.
        fits = (off <= CLOSE) & (low >= -CLOSE) & (high <= 1 + CLOSE)
        apart = (off > FAR + HALF_STEP * values.shape[-1]) | (low < -FAR) | (high > 1 + FAR)
        apart &= np.isfinite(low) & np.isfinite(high)
    return Rows(
        rows.seen + off.size, rows.all_sum_to_one and bool(fits.all()), rows.some_do_not or bool(apart.any())
    )  # fmt: skip


def changed(old: Rows, new: Rows) -> tuple[str, str] | None:
    """What the rows were and what they are, when one side's are probabilities and the other's surely are not."""
    words = "probabilities (each sums to one)", "other numbers"
    if old.probabilities and new.others:
        return words
    return words[::-1] if old.others and new.probabilities else None
