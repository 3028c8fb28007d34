"""Golden replay: the same inputs through OLD and NEW, side by side; and a version against its own recorded outputs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from msgspec import Struct, field
from msgspec.structs import replace

from gitmodel.bundle.card import Gates
from gitmodel.bundle.golden import GoldenCase, Slice
from gitmodel.bundle.signature import Signature, TensorSpec
from gitmodel.compat.bridge import Bridge
from gitmodel.compat.drift import Gauge, OutputDrift
from gitmodel.compat.noise import Noise, settled
from gitmodel.compat.shapes import Lie, Sizes, Witness
from gitmodel.compat.side_by_side import Answer, Runs, one_by_one, stacked
from gitmodel.errors import GitmodelError


class SliceDrift(Struct, frozen=True):
    """How one output differs over the cases of one slice."""

    slice: Slice
    output: OutputDrift


class Replay(Struct, frozen=True):
    """What running the cases showed. ``errors`` are cases OLD answers and NEW refuses, ``refused`` those that OLD
    refuses itself, both with the runtime's words; ``lies`` outputs of NEW in another shape than it declares."""

    cases: int
    outputs: tuple[OutputDrift, ...]
    errors: tuple[tuple[str, str], ...] = ()
    refused: tuple[tuple[str, str], ...] = ()
    lies: tuple[Lie, ...] = ()
    slices: tuple[SliceDrift, ...] = ()
    noise: Noise = field(default_factory=Noise)


class SelfCheck(Struct, frozen=True):
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
    declared: Signature | None = None,
    edges: Iterable[GoldenCase] = (),
) -> Replay:
    """Runs cases through both until ``enough`` (all, by default) were answered by OLD; ``signature`` is OLD's,
    ``declared`` NEW's. ``edges`` are run beside them one by one; OLD may refuse them."""
    over = bridge or Bridge()
    watch = _Watch(signature, declared or signature, gates, over)
    errors: list[tuple[str, str]] = []
    refused: list[tuple[str, str]] = []
    ran = 0
    # Recorded cases run as they were recorded: the number of rows decides which kernel computes them.
    run = one_by_one(old, new, cases, over.call) if enough is None else stacked(old, new, cases, over.call, signature)
    for answer in run:
        if isinstance(answer.before, GitmodelError):
            refused.append((answer.case.name, str(answer.before)))
            continue
        errors += watch.take(answer)
        ran += 1
        if ran == enough:
            break
    for answer in one_by_one(old, new, edges, over.call):
        errors += watch.take(answer)
    return Replay(ran, watch.outputs(), tuple(errors), tuple(refused), watch.lies(), watch.slices())


class _Watch:
    """Takes in the answers to each case: the drift of every output, of every slice, and the shapes."""

    def __init__(self, signature: Signature, declared: Signature, gates: Gates, over: Bridge) -> None:
        self._signature, self._declared, self._gates, self._over = signature, declared, gates, over
        self._after = {spec.name: spec for spec in declared.outputs}
        self._gauges = {spec.name: Gauge(spec, gates) for spec in signature.outputs}
        self._sliced: dict[Slice, dict[str, Gauge]] = {}
        self._shapes = {spec.name: Witness(spec.name) for spec in signature.outputs}

    def take(self, answer: Answer) -> list[tuple[str, str]]:
        """Returns NEW's refusal of what OLD answers, if that is what it did."""
        case, before, after = answer.case, answer.before, answer.after
        if isinstance(before, GitmodelError):
            return []
        if isinstance(after, GitmodelError):
            return [(case.name, str(after))]
        sizes = Sizes.of(self._signature, case.inputs), Sizes.of(self._declared, self._over.call(case.inputs))
        for spec in self._signature.outputs:
            name = self._over.outputs.get(spec.name, spec.name)
            if spec.name not in before or name not in after:
                continue
            known = self._over.answer(spec.name, before[spec.name], after[name])
            for gauge in self._gauges_of(case, spec):
                gauge.take(case.name, before[spec.name], known)
                gauge.look(before[spec.name], after[name])
            if name in self._after:
                ahead = (self._after[name], after[name], sizes[1])
                self._shapes[spec.name].watch(case.name, (spec, before[spec.name], sizes[0]), ahead)
        return []

    def _gauges_of(self, case: GoldenCase, spec: TensorSpec) -> list[Gauge]:
        if case.slice is None:
            return [self._gauges[spec.name]]
        sliced = self._sliced.setdefault(case.slice, {})
        return [self._gauges[spec.name], sliced.setdefault(spec.name, Gauge(spec, self._gates))]

    def outputs(self) -> tuple[OutputDrift, ...]:
        found = (gauge.drift() for gauge in self._gauges.values())
        # An output without a single element was compared all the same: it is empty on both sides.
        return tuple(drift for drift in found if drift.cases)

    def slices(self) -> tuple[SliceDrift, ...]:
        return tuple(
            SliceDrift(slice_, gauge.drift()) for slice_, gauges in self._sliced.items() for gauge in gauges.values()
        )

    def lies(self) -> tuple[Lie, ...]:
        return tuple(lie for witness in self._shapes.values() if (lie := witness.news))


def calibrated(shown: Replay, noise: Noise) -> Replay:
    """The replay with the noise that was measured."""
    slices = (replace(found, output=settled([found.output], noise)[0]) for found in shown.slices)
    return replace(shown, outputs=settled(shown.outputs, noise), slices=tuple(slices), noise=noise)


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
        gauge = Gauge(specs[name], gates)
        gauge.take(case.name, recorded, outputs[name])
        drift = gauge.drift()
        if not drift.within:
            size = f"by up to {drift.max_abs:.3g}" if math.isfinite(drift.max_abs) else "in shape, type or NaN"
            return f"case {case.name}: output '{name}' differs {size}"
    return ""
