"""From what a replay showed to facts: the ladder from bit-equal over noise and drift to failure."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from gitmodel.bundle.card import Gates
from gitmodel.compat import semantics
from gitmodel.compat.changes import Change
from gitmodel.compat.drift import OutputDrift
from gitmodel.compat.noise import cap
from gitmodel.compat.replay import Replay, SelfCheck


def changes(replay: Replay, gates: Gates, skipped: Collection[str] = ()) -> Iterator[Change]:
    """One fact per output and per slice of it, and one per kind of error. Outputs in ``skipped`` changed in shape or
    meaning: comparing their values would say nothing of its own."""
    if replay.refused:
        case, error = replay.refused[0]
        args = {"count": len(replay.refused), "worst": case, "error": error}
        yield Change("golden-refused", "golden", None, None, args)
    if replay.errors:
        case, error = replay.errors[0]
        args = {"count": len(replay.errors), "worst": case, "error": error, "witness": error}
        yield Change("new-error-on-accepted-input", "behaviour", None, None, args)
    yield from _shapes(replay)
    if replay.outputs and not replay.errors and all(drift.equal for drift in replay.outputs):
        if replay.cases:  # else the edges alone were answered
            yield Change("golden-identical", "behaviour", None, None, {"cases": replay.cases})
        return
    untold = {*skipped, *(lie.name for lie in replay.lies)}
    for drift in replay.outputs:
        if drift.equal or drift.name in untold:
            continue
        if meant := semantics.changed(drift.rows_before, drift.rows_after):
            args = {"name": drift.name, "seen": True, "worst": drift.worst}
            yield Change("output-semantics-changed", f"outputs.{drift.name}", *meant, args)
        else:
            yield Change(_rung(drift, gates), f"outputs.{drift.name}", None, None, _args(drift, gates))
    yield from _slices(replay, untold)
    yield from _noise(replay)


def _shapes(replay: Replay) -> Iterator[Change]:
    for lie in replay.lies:
        witness = f"case {lie.case}: declared {lie.declared}, returned {list(lie.got)}"
        args = {"name": lie.name, "promised": lie.declared, "got": list(lie.got), "worst": lie.case, "witness": witness}
        yield Change("output-shape-lies", f"outputs.{lie.name}", lie.declared, list(lie.got), args)


def _slices(replay: Replay, untold: Collection[str]) -> Iterator[Change]:
    """Slices that miss a threshold of their own; what the card asks of all is held against all."""
    for found in replay.slices:
        drift, part = found.output, found.slice
        low = part.agreement is not None and drift.agreement < part.agreement
        far = part.distance is not None and drift.distance > part.distance
        if drift.noise or drift.name in untold or not (low or far):
            continue
        args = {
            "name": drift.name, "slice": part.name, "cases": drift.cases, "worst": drift.worst,
            "max_abs": drift.max_abs, "agreement": drift.agreement, "threshold": part.agreement,
            "distance": drift.distance, "limit": part.distance, "far": not low,
        }  # fmt: skip
        yield Change("slice-regressed", f"outputs.{drift.name}.{part.name}", None, None, args)


def _noise(replay: Replay) -> Iterator[Change]:
    drifts = {drift.name: drift for drift in replay.outputs}
    for found in replay.noise.unsteady:
        args = {"side": found.side, "name": found.name, "max_abs": found.max_abs, "worst": found.case}
        yield Change("nondeterministic-output", f"outputs.{found.name}", None, None, args)
    for floor in replay.noise.floors:
        if floor.name in drifts and floor.relative > (limit := cap(drifts[floor.name])):
            args = {
                "name": floor.name, "floor": floor.absolute, "share": floor.relative, "limit": limit,
                "setting": floor.setting,
            }  # fmt: skip
            yield Change("batch-variance", f"outputs.{floor.name}", None, None, args)


def self_check(check: SelfCheck, label: str) -> Iterator[Change]:
    if check.failures:
        args = {"label": label, "failed": len(check.failures), "cases": check.cases, "first": check.failures[0]}
        yield Change("golden-self-failed", "golden", None, None, args)


def _rung(drift: OutputDrift, gates: Gates) -> str:
    if drift.noise:
        return "golden-numeric-noise"
    if drift.nan:
        return "nan-introduced"
    if drift.inf:
        return "inf-introduced"
    if drift.agreement < gates.agreement:
        # What the owner asked for is a promise; what we ask by default is a measure.
        return "agreement-below" if gates.agreement_set else "golden-failed"
    return "golden-drift" if drift.distance <= gates.distance else "golden-failed"


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
        "floor": drift.floor,
        "floored": not drift.within,
    }
