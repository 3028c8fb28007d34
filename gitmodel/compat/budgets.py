"""NEW's cost against OLD's, where the card sets a budget: measured in turns on this machine, and told only when it is shown.

A pair is OLD and NEW measured one right after the other, so that what the machine does besides hits both. Of the pairs'
ratios the median is bounded by order statistics, which ask nothing of how they are distributed (Conover, Practical
Nonparametric Statistics, 3rd ed., section 3.2): with n pairs the interval from the k-th smallest to the k-th largest holds
the median with a chance of 1 - 2 P(Binomial(n, 1/2) < k).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing
from typing import TYPE_CHECKING

from msgspec import Struct

from gitmodel.bundle.golden import GoldenCase
from gitmodel.bundle.limits import Budgets
from gitmodel.compat.changes import Change
from gitmodel.compat.isolated import Model, Models
from gitmodel.errors import GitmodelError

if TYPE_CHECKING:
    import numpy as np

PAIRS, MEMORY_PAIRS = 15, 6
CONFIDENCE = 0.95
#: A timing shorter than this is of the clock and of the call, not of the model.
_LEAST_SECONDS = 0.005
_MOST_REPEATS = 10_000
#: What a process takes more or less by chance.
_LEAST_BYTES = 1e6

Inputs = Mapping[str, "np.ndarray"]


class Measured(Struct, frozen=True):
    """The ratio NEW/OLD: its median and the bounds of it, and the median cost of each side."""

    ratio: float
    low: float
    high: float
    before: float
    after: float


class Race(Struct, frozen=True):
    """Both models, and the same call for each."""

    old: Model
    new: Model
    old_inputs: Inputs
    new_inputs: Inputs


def changes(models: Models, race: Race, budgets: Budgets) -> Iterator[Change]:
    """What NEW costs too much, or may, as far as ``budgets`` asks. Raises SandboxFailed and kin."""
    if budgets.size is not None:
        # Counted, not measured: there is nothing uncertain about it.
        before, after = race.old.opened.size, race.new.opened.size
        yield from _told(
            "size", Measured(after / before, after / before, after / before, before, after), budgets.size, _bytes
        )
    if budgets.latency is not None:
        yield from _told("latency", latency(race), budgets.latency, _seconds)
    if budgets.load_time is not None:
        yield from _told("load_time", load_time(race), budgets.load_time, _seconds)
    if budgets.memory is not None:
        yield from _told("memory", memory(models, race), budgets.memory, _bytes)


def race(old: Model, new: Model, cases: Iterable[GoldenCase], call: Callable[[Inputs], Inputs]) -> Race | None:
    """The first call that both answer; ``call`` makes NEW's inputs of OLD's."""
    for case in cases:
        try:
            old.run(case.inputs)
            new.run(call(case.inputs))
        except GitmodelError:
            continue
        return Race(old, new, case.inputs, call(case.inputs))
    return None


def latency(race: Race) -> Measured:
    """Seconds of a call."""

    def timing(model: Model, inputs: Inputs) -> Callable[[], float]:
        def timed(repeats: int) -> float:
            return float(model.ask("time_runs", inputs=dict(inputs), repeats=repeats))

        repeats = _repeats(timed)
        return lambda: timed(repeats)

    return in_turns(timing(race.old, race.old_inputs), timing(race.new, race.new_inputs))


def load_time(race: Race) -> Measured:
    """Seconds that opening a session takes, files being in the page cache."""

    def timed(model: Model) -> float:
        return float(model.ask("time_load", path=str(model.path), options=model.options))

    timed(race.old), timed(race.new)
    return in_turns(lambda: timed(race.old), lambda: timed(race.new))


def memory(models: Models, race: Race) -> Measured:
    """Bytes that opening the model and one call take at most, each time in a child of its own."""

    def peak(model: Model, inputs: Inputs) -> float:
        with closing(models.fresh(model)) as child:
            taken = float(child.ask("peak", path=str(model.path), options=model.options, inputs=dict(inputs)))
        return max(taken, _LEAST_BYTES)

    old, new = (lambda: peak(race.old, race.old_inputs)), (lambda: peak(race.new, race.new_inputs))
    return in_turns(old, new, MEMORY_PAIRS)


def in_turns(old: Callable[[], float], new: Callable[[], float], pairs: int = PAIRS) -> Measured:
    """Measures both ``pairs`` times; which comes first changes each time."""
    before: list[float] = []
    after: list[float] = []
    for number in range(pairs):
        for measure, found in [(old, before), (new, after)][:: 1 if number % 2 == 0 else -1]:
            found.append(max(measure(), 1e-9))
    return compared(before, after)


def compared(before: list[float], after: list[float]) -> Measured:
    """The paired ratios, bounded as the module says."""
    ratios = sorted(b / a for a, b in zip(before, after, strict=True))
    skip = _skipped(len(ratios))
    return Measured(_median(ratios), ratios[skip], ratios[-1 - skip], _median(sorted(before)), _median(sorted(after)))


def _skipped(count: int) -> int:
    """How many of the smallest, and of the largest, lie outside the interval: k - 1 for the largest k that will do."""
    below, chance = 0.0, 0.5**count
    for k in range(count // 2):
        below += math.comb(count, k) * chance
        if 2 * below > 1 - CONFIDENCE:
            return max(k - 1, 0)
    return max(count // 2 - 1, 0)


def _median(values: list[float]) -> float:
    middle = len(values) // 2
    return values[middle] if len(values) % 2 else (values[middle - 1] + values[middle]) / 2


def _repeats(timed: Callable[[int], float]) -> int:
    """How many calls are measured as one, after a first one that warms up."""
    timed(1)
    return max(1, min(_MOST_REPEATS, math.ceil(_LEAST_SECONDS / max(timed(3), 1e-7))))


def _told(what: str, found: Measured, budget: float, unit: Callable[[float], str]) -> Iterator[Change]:
    """A fact where the budget is surely overdrawn, a remark where it may be."""
    if found.ratio <= budget:
        return
    args = {
        "ratio": found.ratio, "low": found.low, "high": found.high, "budget": budget, "shown": found.low > budget,
        "before": unit(found.before), "after": unit(found.after),
    }  # fmt: skip
    yield Change(f"{what.replace('_', '-')}-regressed", f"budgets.{what}", None, None, args)


def _seconds(value: float) -> str:
    return f"{value * 1e3:.3g} ms"


def _bytes(value: float) -> str:
    return f"{value / 1e6:.3g} MB"
