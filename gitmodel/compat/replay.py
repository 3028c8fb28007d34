"""Golden replay: the same inputs through OLD and NEW, side by side; and a version against its own recorded outputs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from gitmodel.bundle.card import Gates
from gitmodel.bundle.golden import GoldenCase
from gitmodel.bundle.signature import Signature
from gitmodel.compat.bridge import Bridge
from gitmodel.compat.drift import OutputDrift, extend
from gitmodel.compat.side_by_side import Arrays, Runs, one_by_one, stacked
from gitmodel.errors import GitmodelError


@dataclass(frozen=True)
class Replay:
    """What running the cases showed. ``errors`` are cases OLD answers and NEW refuses, ``refused`` those that OLD
    refuses itself, both with the runtime's words."""

    cases: int
    outputs: tuple[OutputDrift, ...]
    errors: tuple[tuple[str, str], ...] = ()
    refused: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class SelfCheck:
    """A version against its own recorded outputs: how many cases passed, and what is wrong with the others."""

    cases: int
    failures: tuple[str, ...] = field(default_factory=tuple)

    @property
    def passed(self) -> int:
        return self.cases - len(self.failures)


def replay(
    old: Runs,
    new: Runs,
    cases: Iterable[GoldenCase],
    signature: Signature,
    gates: Gates,
    *,
    bridge: Bridge | None = None,
    enough: int | None = None,
) -> Replay:
    """Runs cases through both until ``enough`` (all, by default) were answered by OLD; ``signature`` is OLD's."""
    over = bridge or Bridge()
    drifts = {spec.name: OutputDrift(spec.name) for spec in signature.outputs}
    compared: set[str] = set()
    errors: list[tuple[str, str]] = []
    refused: list[tuple[str, str]] = []
    ran = 0
    # Recorded cases run as they were recorded: the number of rows decides which kernel computes them.
    run = one_by_one(old, new, cases, over.call) if enough is None else stacked(old, new, cases, over.call, signature)
    for answer in run:
        case, before, after = answer.case.name, answer.before, answer.after
        if isinstance(before, GitmodelError):
            refused.append((case, str(before)))
            continue
        if isinstance(after, GitmodelError):
            errors.append((case, str(after)))
        else:
            compared |= _extend(drifts, case, before, after, signature, over, gates)
        ran += 1
        if ran == enough:
            break
    # An output without a single element was compared all the same: it is empty on both sides.
    return Replay(ran, tuple(drifts[name] for name in drifts if name in compared), tuple(errors), tuple(refused))


def _extend(
    drifts: dict[str, OutputDrift],
    case: str,
    before: Arrays,
    after: Arrays,
    signature: Signature,
    over: Bridge,
    gates: Gates,
) -> set[str]:
    """Takes one case into the drifts; returns the outputs that both sides gave."""
    compared = set()
    for spec in signature.outputs:
        name = over.outputs.get(spec.name, spec.name)
        if spec.name in before and name in after:
            drifts[spec.name] = extend(drifts[spec.name], case, before[spec.name], after[name], gates, spec)
            compared.add(spec.name)
    return compared


def check_self(session: Runs, cases: Sequence[GoldenCase], signature: Signature, gates: Gates) -> SelfCheck:
    """Runs a version's own cases and holds the outputs against the recorded ones, within the card's tolerance."""
    failures = (_failure(session, case, signature, gates) for case in cases)
    return SelfCheck(len(cases), tuple(failure for failure in failures if failure))


def _failure(session: Runs, case: GoldenCase, signature: Signature, gates: Gates) -> str:
    """What is wrong with one case; empty when nothing is."""
    if not case.outputs:
        return f"case {case.name}: it records no outputs"
    try:
        outputs = session.run(case.inputs)
    except GitmodelError as error:
        return f"case {case.name}: {error}"
    specs = {spec.name: spec for spec in signature.outputs}
    for name, recorded in case.outputs.items():
        if name not in outputs or name not in specs:
            return f"case {case.name}: the model has no output '{name}'"
        drift = extend(OutputDrift(name), case.name, recorded, outputs[name], gates, specs[name])
        if not drift.within:
            size = f"by up to {drift.max_abs:.3g}" if math.isfinite(drift.max_abs) else "in shape, type or NaN"
            return f"case {case.name}: output '{name}' differs {size}"
    return ""
