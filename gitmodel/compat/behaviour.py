"""From what a replay showed to facts: the ladder from bit-equal over noise and drift to failure."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from gitmodel.bundle.card import Gates
from gitmodel.compat import semantics
from gitmodel.compat.changes import Change
from gitmodel.compat.drift import OutputDrift
from gitmodel.compat.replay import Replay, SelfCheck


def changes(replay: Replay, gates: Gates, skipped: Collection[str] = ()) -> Iterator[Change]:
    """One fact per output, and one per kind of error. Outputs in ``skipped`` changed in shape or meaning: comparing
    their values would say nothing of its own."""
    if replay.refused:
        case, error = replay.refused[0]
        args = {"count": len(replay.refused), "worst": case, "error": error}
        yield Change("golden-refused", "golden", None, None, args)
    if replay.errors:
        case, error = replay.errors[0]
        args = {"worst": case, "error": error, "witness": error}
        yield Change("new-error-on-accepted-input", "behaviour", None, f"{len(replay.errors)} cases", args)
    if replay.outputs and not replay.errors and all(drift.equal for drift in replay.outputs):
        yield Change("golden-identical", "behaviour", None, None, {"cases": replay.cases})
        return
    for drift in replay.outputs:
        if drift.equal or drift.name in skipped:
            continue
        if meant := semantics.changed(drift.rows_before, drift.rows_after):
            args = {"name": drift.name, "seen": True, "worst": drift.worst}
            yield Change("output-semantics-changed", f"outputs.{drift.name}", *meant, args)
        else:
            yield Change(_rung(drift, gates), f"outputs.{drift.name}", None, None, _args(drift, gates))


def self_check(check: SelfCheck, label: str) -> Iterator[Change]:
    if check.failures:
        args = {"label": label, "failed": len(check.failures), "cases": check.cases, "first": check.failures[0]}
        yield Change("golden-self-failed", "golden", None, None, args)


def _rung(drift: OutputDrift, gates: Gates) -> str:
    if drift.within:
        return "golden-numeric-noise"
    if drift.nan:
        return "nan-introduced"
    if drift.inf:
        return "inf-introduced"
    small = drift.agreement >= gates.agreement and drift.distance <= gates.distance
    return "golden-drift" if small else "golden-failed"


def _args(drift: OutputDrift, gates: Gates) -> dict[str, object]:
    return {
        "name": drift.name,
        "max_abs": drift.max_abs,
        "worst": drift.worst,
        "agreement": drift.agreement,
        "threshold": gates.agreement,
        "distance": drift.distance,
        "far": drift.agreement >= gates.agreement,
        "limit": gates.distance,
    }
