"""The noise floor: by how much OLD differs from itself when only batch, optimisation or threads do; and equal runs that differ.

What a model differs from itself by is no difference between two versions. But noise must not hide drift: as much of it
counts as the tolerance allows OLD's largest value, and more than that is a finding of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

from msgspec import Struct
from msgspec.structs import replace

from gitmodel.bundle.golden import GoldenCase
from gitmodel.bundle.signature import Signature
from gitmodel.compat import numbers
from gitmodel.compat.drift import FLOORS, OutputDrift
from gitmodel.compat.side_by_side import Arrays, Call, Runs, has_rows
from gitmodel.errors import GitmodelError

if TYPE_CHECKING:
    import numpy as np

#: How many cases are run again, and how many rows go into the large batch: enough for a runtime to choose another kernel.
CASES, ROWS = 4, 8


class Setting(Struct, frozen=True):
    """How a session is opened, and whether rows go one by one or together."""

    optimised: bool
    threads: int
    together: bool

    def __str__(self) -> str:
        batch = f"batch {ROWS} or more" if self.together else "batch 1"
        threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
        return f"{batch}, {threads}, {'optimised' if self.optimised else 'not optimised'}"


class Floor(Struct, frozen=True):
    """OLD against itself in one output: the largest absolute difference, the largest as a share of its own answer's largest
    value, and the setting that showed the latter."""

    name: str
    absolute: float
    relative: float
    setting: str


class Unsteady(Struct, frozen=True):
    """Two equal runs that differed: of which ``side`` (OLD or NEW), in which output, at most by how much."""

    side: str
    name: str
    max_abs: float
    case: str


class Noise(Struct, frozen=True):
    """``why`` says what was measured, or why nothing was."""

    why: str = ""
    floors: tuple[Floor, ...] = ()
    unsteady: tuple[Unsteady, ...] = ()


#: Opens OLD once more, with optimisation or without, and so many threads.
Reopen = Callable[[bool, int], AbstractContextManager[Runs]]


#: Inputs with the answers of the usual session.
Usually = Sequence[tuple[Arrays, Arrays]]


def cap(drift: OutputDrift) -> float:
    """The largest floor that counts, as a share of a case's largest value: what the tolerance allows the largest of all."""
    return drift.tolerance[0] + (drift.tolerance[1] / drift.largest if drift.largest else 0.0)


def matters(drifts: Sequence[OutputDrift]) -> bool:
    """Whether a noise floor could still turn a verdict: beyond the tolerance, and not beyond what any floor allows."""
    return any(not drift.within and drift.beyond_share <= FLOORS * cap(drift) for drift in drifts)


def settled(drifts: Sequence[OutputDrift], noise: Noise) -> tuple[OutputDrift, ...]:
    """The drifts with the floors that were measured, as far as they count."""
    found = {floor.name: floor for floor in noise.floors}
    return tuple(_settle(drift, found.get(drift.name)) for drift in drifts)


def _settle(drift: OutputDrift, floor: Floor | None) -> OutputDrift:
    if floor is None:
        return drift
    limit = cap(drift)
    return replace(drift, floor=min(floor.absolute, limit * drift.largest), floor_share=min(floor.relative, limit))


def worst_cases(cases: Iterable[GoldenCase], drifts: Sequence[OutputDrift], count: int = CASES) -> list[GoldenCase]:
    """Those that differ most in any output."""
    sizes: dict[str, float] = {}
    for drift in drifts:
        for entry in drift.by_case:
            if entry.max_abs:
                sizes[entry.case] = max(sizes.get(entry.case, 0.0), entry.max_abs)
    # All cases together may be larger than memory.
    names = sorted(sizes, key=lambda name: -sizes[name])[:count]
    return sorted((case for case in cases if case.name in names), key=lambda case: names.index(case.name))


def calibrate(
    reopen: Reopen, usual: Runs, cases: Sequence[GoldenCase], signature: Signature, threads: int
) -> tuple[Floor, ...]:
    """OLD against its ``usual`` self over batch {1, n} x optimisation {off, all} x threads {1, ``threads``}, per output of
    floats that differs at all."""
    usually = [(case.inputs, outputs) for case in cases if (outputs := _try(usual, case.inputs)) is not None]
    floors: dict[str, Floor] = {}
    batches = (False, True) if has_rows(signature) else (False,)
    for optimised in (True, False):
        for count in (1, threads):
            _look(floors, reopen, usually, [Setting(optimised, count, together) for together in batches])
    return tuple(floors[spec.name] for spec in signature.outputs if spec.name in floors)


def _look(floors: dict[str, Floor], reopen: Reopen, usually: Usually, settings: Sequence[Setting]) -> None:
    # One session at a time is held: each may be large.
    with reopen(settings[0].optimised, settings[0].threads) as session:
        for setting in settings:
            for before, after in _answers(session, usually, together=setting.together):
                _raise(floors, before, after, str(setting))


def unsteady(side: str, session: Runs, cases: Sequence[GoldenCase], call: Call) -> Iterator[Unsteady]:
    """Outputs in which two equal runs of one session differ."""
    told: set[str] = set()
    for case in cases:
        inputs = call(case.inputs)
        first, second = _try(session, inputs), _try(session, inputs)
        for name in first or ():
            size = _gap((first or {})[name], (second or {}).get(name))
            if size and name not in told:
                told.add(name)
                yield Unsteady(side, name, size, case.name)


def _answers(session: Runs, usually: Usually, *, together: bool) -> Iterator[tuple[Arrays, Arrays]]:
    """The usual answers with those of another session, to rows one by one or to all at once."""
    for inputs, outputs in usually if not together else _joined(usually):
        if together or _rows(inputs) == 1:
            calls = [(inputs, outputs)]
        else:
            calls = [
                (_row(inputs, i), _row(outputs, i))
                for i in range(_rows(inputs) if _rows(outputs) == _rows(inputs) else 0)
            ] or [(inputs, outputs)]
        for given, before in calls:
            if (after := _try(session, given)) is not None:
                yield before, after


def _joined(usually: Usually) -> Iterator[tuple[Arrays, Arrays]]:
    """All rows of cases that go together as one call, repeated until it is a large one."""
    import numpy as np

    groups: dict[object, list[tuple[Arrays, Arrays]]] = {}
    for inputs, outputs in usually:
        if _rows(inputs) > 0 and _rows(inputs) == _rows(outputs):
            groups.setdefault(str({name: (v.dtype, v.shape[1:]) for name, v in inputs.items()}), []).append(
                (inputs, outputs)
            )
    for group in groups.values():
        rows = sum(_rows(inputs) for inputs, _ in group)
        repeated = group * -(-ROWS // rows)
        yield tuple(  # type: ignore[misc]  # two sides
            {name: np.concatenate([pair[side][name] for pair in repeated]) for name in group[0][side]}
            for side in (0, 1)
        )


def _rows(arrays: Arrays) -> int:
    """How many rows all of them have; -1 where they differ."""
    counts = {values.shape[0] if getattr(values, "shape", ()) else -1 for values in arrays.values()}
    return counts.pop() if len(counts) == 1 else -1


def _row(arrays: Arrays, row: int) -> dict[str, np.ndarray]:
    return {name: values[row : row + 1] for name, values in arrays.items()}


def _raise(floors: dict[str, Floor], before: Arrays, after: Arrays, setting: str) -> None:
    for name, values in before.items():
        size = _gap(values, after.get(name))
        if not size:
            continue
        # What is large in one case must not excuse another whose values are small.
        share = size / largest if (largest := _largest(values)) else math.inf
        known = floors.get(name, Floor(name, 0.0, 0.0, setting))
        shown = setting if share > known.relative else known.setting
        floors[name] = Floor(name, max(size, known.absolute), max(share, known.relative), shown)


def _gap(one: Any, other: Any) -> float:
    """The largest difference of two answers that are floats, infinite where NaN or infinity moved; 0 for anything else."""
    if getattr(one, "shape", None) != getattr(other, "shape", ()) or one.dtype.kind not in "fc":
        return 0.0
    return numbers.measure(one, other, (0.0, 0.0)).max_abs


def _largest(values: np.ndarray) -> float:
    import numpy as np

    return float(np.max(np.abs(values), initial=0.0, where=np.isfinite(values)))


def _try(session: Runs, inputs: Mapping[str, np.ndarray]) -> Arrays | None:
    try:
        return session.run(inputs)
    except GitmodelError:
        return None
