"""OLD and NEW run: opened side by side, replayed on recorded or drawn cases, each break shown by the call that breaks."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

from msgspec import Struct
from msgspec.structs import replace

from gitmodel.bundle.bundle import GOLDEN, ONNX_VIEW, Bundle
from gitmodel.bundle.card import Card
from gitmodel.bundle.golden import GoldenCase
from gitmodel.bundle.signature import Signature
from gitmodel.compat import behaviour, bridge, budgets, generate, limits, named, renames, snippets
from gitmodel.compat import replay as golden_replay
from gitmodel.compat.changes import Change, Comparison
from gitmodel.compat.isolated import Model, Models
from gitmodel.compat.opening import CannotOpen
from gitmodel.compat.side_by_side import Runs
from gitmodel.errors import GitmodelError
from gitmodel.formats.source import InvalidModel
from gitmodel.workflows import calibrate, promises
from gitmodel.workflows.calibrate import Side
from gitmodel.workflows.gathered import Gathered, Stop
from gitmodel.workflows.workspace import Workspace, opened

#: Bytes of weights up to which they are packed for recorded cases: beyond, two models would be in memory twice.
_PACKED = 256 << 20


def run_both(place: Workspace | None, old: Bundle, new: Bundle, comparison: Comparison, found: Gathered) -> None:
    """Everything that two bundles with different weights can be asked."""
    if place is not None and old.file is None and new.file is None:
        size = max(sum(entry.size for entry in side.graph_files()) for side in (old, new))
        found.models.run_soon(2, place.repo.state_dir, size)
    # Prepacking, as a server does it, changes last digits: recorded outputs want it, drawn cases only want both alike.
    prepack = bool(old.golden_paths() or new.golden_paths()) and max(map(_weight, (old, new))) <= _PACKED
    with (
        _open(place, old, found, old.card, prepack=prepack, side="old") as before,
        _open(place, new, found, old.card, prepack=prepack) as after,
    ):
        found.changes += limits.changes(before.opened, after.opened, old.card)
        own = _own_goldens(after, new, found, old)
        cases = _cases_of(old, before)
        _replay(before, after, old, comparison, cases, found)
        calls = snippets.Calls(old, new, before.signature, bridge.over(comparison))
        found.changes = snippets.attach(found.changes, lambda: cases, calls)
        found.cases = found.cases or own
        if old.card.budgets.to_dict() and not found.models.failure and not bridge.stops(comparison.changes):
            found.changes += _race(before, after, old, bridge.over(comparison), cases, found)
    for name in promises.graphs_to_replay(old, new):
        _replay_named(place, replace(old, called=name), replace(new, called=name), found)


def run_alone(place: Workspace | None, bundle: Bundle, found: Gathered, old: Bundle | None = None) -> int:
    """Opens one bundle and runs its own golden cases; returns how many there are. ``old`` is what it is judged against."""
    prepack = bool(bundle.golden_paths()) and _weight(bundle) <= _PACKED
    with _open(place, bundle, found, (old or bundle).card, prepack=prepack) as own:
        return _own_goldens(own, bundle, found, old)


def _replay_named(place: Workspace | None, old: Bundle, new: Bundle, found: Gathered) -> None:
    """A further signature that the replay of the default one says nothing of. A graph of its own has no recorded cases."""
    mine = [change for change in found.changes if change.at.startswith(f"signatures.{new.called}.")]
    found.changes = [change for change in found.changes if change not in mine]
    part = Gathered(found.models, [named.lifted(change, new.called) for change in mine])
    with (
        contextlib.suppress(Stop),
        _open(place, old, part, old.card, prepack=False, side="old") as before,
        _open(place, new, part, old.card, prepack=False) as after,
    ):
        _replay(before, after, old, promises.compare(old, new, lambda _: {}), _cases_of(old, before), part)
    found.changes += named.placed(part.changes, new.called)
    found.cases += part.cases
    if part.unjudged and not found.unjudged:
        found.unjudged = f"signature '{new.called}': {part.unjudged}"


class _Drawn(Struct, frozen=True):
    """Drawn cases, made anew each time they are gone through: together they may be larger than memory."""

    signature: Signature

    def __iter__(self) -> Iterator[GoldenCase]:
        return generate.cases(self.signature)


Cases = list[GoldenCase] | _Drawn


def _cases_of(old: Bundle, before: Side) -> Cases:
    """The cases a pair is run with: recorded ones, else drawn ones where that can be done."""
    recorded = _recorded(old, before.whole)
    return recorded if recorded or not generate.possible(before.signature) else _Drawn(before.signature)


def _replay(before: Side, after: Side, old: Bundle, comparison: Comparison, cases: Cases, found: Gathered) -> None:
    drawn, stopped = isinstance(cases, _Drawn), bridge.stops(comparison.changes)
    if not cases:
        if not stopped:  # else the break stands by the signatures alone
            found.unjudged = f"{old.label} has no golden cases and none can be generated for its signature"
        return
    _add_witness(before.session, after.session, cases, found)
    if stopped:
        return
    signature, gates, over = before.signature, old.card.gates, bridge.over(comparison, found.changes)
    small = before.size + after.size <= 2 * calibrate.SMALL
    shown = golden_replay.replay(
        before.session,
        after.recalled,
        cases,
        signature,
        gates,
        bridge=over,
        enough=generate.COUNT if drawn else None,
        declared=after.signature,
        # Each runs by itself, which costs a large model as much as all others together.
        edges=generate.edges(signature) if drawn and small else (),
    )
    shown = calibrate.settle(shown, before, after, cases, over, drawn=drawn)
    found.cases, found.generated, found.noise, found.drifts = shown.cases, drawn, shown.noise.why, shown.outputs
    if drawn:
        # What a model refuses of drawn inputs tells nothing: they were drawn blindly.
        shown = replace(shown, refused=())
        args = {"cases": shown.cases, "label": old.label}
        found.changes.append(Change("goldens-missing", "golden", None, None, args))
    if not shown.cases:
        found.unjudged = f"{old.label} refuses every case, so there is nothing to compare"
    seen = list(behaviour.changes(shown, gates, bridge.incomparable(signature, found.changes)))
    found.changes = renames.settle(found.changes, seen, after.signature, len(shown.outputs))


def _race(
    before: Side, after: Side, old: Bundle, over: bridge.Bridge, cases: Cases, found: Gathered
) -> Iterable[Change]:
    """What NEW costs, against what OLD's card allows."""
    old_model, new_model, models = before.session, after.session, found.models
    if not (isinstance(old_model, Model) and isinstance(new_model, Model) and isinstance(models, Models)):
        return ()
    race = budgets.race(old_model, new_model, cases, over.call)
    return budgets.changes(models, race, old.card.budgets) if race else ()


def _add_witness(before: Runs, after: Runs, cases: Iterable[GoldenCase], found: Gathered) -> None:
    """Lets the break happen: a call that OLD answers, made on NEW just as OLD's client makes it."""
    breaking = [i for i, change in enumerate(found.changes) if bridge.can_be_seen(change)]
    if not breaking:
        return
    for case in cases:
        try:
            asked = list(before.run(case.inputs))
        except GitmodelError:
            continue
        try:
            after.run(case.inputs, asked)
        except GitmodelError as error:
            for index in breaking:
                change = found.changes[index]
                args = {**change.args, "witness": f"case {case.name}: {error}", "case": case.name}
                found.changes[index] = replace(change, args=args)
            return


def _own_goldens(own: Side, bundle: Bundle, found: Gathered, old: Bundle | None) -> int:
    """NEW against what it recorded of itself: the check a server makes before it lets it answer, by OLD's gates if there
    is an OLD: a change does not widen its own."""
    recorded, gates = _recorded(bundle, own.whole), bundle.card.gates
    if old is not None:
        outputs = {spec.name for spec in old.signature.outputs} if old.signature else set()
        gates = old.card.gates.over(gates, outputs)
    check = golden_replay.check_self(own.recalled, recorded, own.whole, gates)
    found.changes += behaviour.self_check(check, bundle.label)
    return check.cases


def _recorded(bundle: Bundle, signature: Signature) -> list[GoldenCase]:
    from gitmodel.formats import goldens

    if bundle.view != ONNX_VIEW:  # what is recorded are calls of the graph that has no name
        return []
    return goldens.read(bundle.folder, GOLDEN, signature, bundle.label)


@contextlib.contextmanager
def _open(
    place: Workspace | None, bundle: Bundle, found: Gathered, card: Card, *, prepack: bool, side: str = "new"
) -> Iterator[Side]:
    """The bundle's model, ready to run; when it is not to be had, says why and stops. ``card`` says what is allowed."""
    with contextlib.ExitStack() as stack:
        try:
            path = stack.enter_context(opened(place, bundle))
            path = path.with_name(bundle.view) if bundle.file is None else path
            model = found.models.open(path, bundle, prepack=prepack)
            whole = model.opened.signature
            signature, outdated = promises.own_signature(bundle, whole), promises.stale(bundle, whole)
        except GitmodelError as error:
            found.unjudged = str(error)
            if isinstance(error, CannotOpen | InvalidModel):
                found.changes += limits.why_not(error, card)
            raise Stop from error
        if outdated:
            args = {"label": bundle.label, "side": side}
            found.changes.append(Change("signature-stale", "signature", *outdated, args))
        yield Side(model, signature, whole, _weight(bundle))


def _weight(bundle: Bundle) -> int:
    """Bytes of weights; of a bare file its own, whatever lies beside it."""
    return bundle.file.stat().st_size if bundle.file else bundle.lock.size
