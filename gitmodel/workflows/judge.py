"""One pair judged: signatures from Git, weights only when something must be run, findings gathered into a report."""

from __future__ import annotations

import contextlib
import filecmp
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from gitmodel.bundle.bundle import GOLDEN, Bundle
from gitmodel.bundle.card import Card, Gates
from gitmodel.bundle.golden import GoldenCase
from gitmodel.bundle.lock import TensorEntry
from gitmodel.bundle.signature import Signature
from gitmodel.compat import behaviour, bridge, changes, generate, rules
from gitmodel.compat import replay as golden_replay
from gitmodel.compat.changes import Change, Comparison
from gitmodel.compat.isolated import CannotOpen, Model, Models
from gitmodel.compat.rules import DEFAULT_PROFILE
from gitmodel.compat.verdict import Report, owed, worst_first
from gitmodel.errors import GitmodelError
from gitmodel.formats.source import InvalidModel
from gitmodel.versions import Bump, ReleaseTag, Version, parse_tag
from gitmodel.workflows.workspace import Workspace, opened


@dataclass
class _Findings:
    """What has been gathered so far about one pair, and the sandboxes it is gathered in."""

    models: Models
    changes: list[Change] = field(default_factory=list)
    cases: int = 0
    generated: bool = False
    unjudged: str = ""


def judge(
    place: Workspace | None,
    old: Bundle,
    new: Bundle,
    *,
    profile: str = DEFAULT_PROFILE,
    declared: Bump | None = None,
    models: Models | None = None,
) -> Report:
    """The report on two bundles. ``declared`` is the bump a release is about to make; else NEW's own tag tells. ``models``
    are the sandboxes to use."""
    found = _Findings(models or Models())
    with _judging(found):
        _compare(place, old, new, found)
    findings = [rules.judge(change) for change in found.changes]
    base, declared = _declared(old, new, declared)
    bump = owed(findings)
    if declared is not None and declared < bump[profile] and not found.unjudged:
        args = {"declared": declared, "required": bump[profile], "version": new.label, "base": old.label}
        findings.append(rules.judge(Change("bump-too-small", "version", None, None, args)))
    return Report(
        new.name, old.label, new.label, profile, worst_first(findings), len(rules.names()), found.cases, found.generated,
        found.unjudged, base, declared, bump, _rollback_safe(old, new, profile),
    )  # fmt: skip


def _rollback_safe(old: Bundle, new: Bundle, profile: str) -> bool | None:
    """Whether callers of NEW could be put back on OLD, by the signatures; None where there are not two."""
    try:
        if old.signature is None or new.signature is None:
            return None
    except GitmodelError:  # told already
        return None
    back = changes.compare(new.signature, old.signature).changes
    return all(rules.judge(change).bump[profile] < Bump.MAJOR for change in back)


def declare(report: Report, bump: Bump) -> Report:
    """The same report for a release that is about to make ``bump``."""
    return replace(report, declared=bump)


def judge_first(
    place: Workspace, new: Bundle, profile: str = DEFAULT_PROFILE, *, models: Models | None = None
) -> Report:
    """The report on a version that has none before it: does it load, and does it keep its own golden cases?"""
    found = _Findings(models or Models())
    with _judging(found):
        if new.signature is not None:
            _judge_first(place, new, new.signature, found)
    findings = [rules.judge(change) for change in found.changes]
    return Report(
        new.name, "nothing", new.label, profile, worst_first(findings), len(rules.names()), found.cases,
        unjudged=found.unjudged, bump=owed(findings),
    )  # fmt: skip


@dataclass(frozen=True)
class _Opened:
    """A model that runs. ``signature`` is the model's own, whatever signature.yaml says."""

    session: Model

    @property
    def signature(self) -> Signature:
        return self.session.opened.signature


class _Stop(Exception):
    """Ends a comparison early; why is in the findings."""


@contextlib.contextmanager
def _judging(found: _Findings) -> Iterator[None]:
    """Whatever cannot be read or run leaves the pair unjudged: a mistake in a file is no mistake in the command."""
    with found.models:
        try:
            yield
        except _Stop:
            pass
        except GitmodelError as error:
            found.unjudged = str(error)
        if failure := found.models.failure:
            found.unjudged = failure
            found.changes = [change for change in found.changes if change.kind != "new-error-on-accepted-input"]


def _compare(place: Workspace | None, old: Bundle, new: Bundle, found: _Findings) -> None:
    if old.signature is None or new.signature is None:
        _compare_checkpoints(place, old, new, found)
        return
    comparison = changes.compare(old.signature, new.signature)
    found.changes += [*comparison.changes, *changes.compare_labels(old.labels, new.labels)]
    found.changes += _policy_changes(old, new)
    if any(spec.optional for spec in old.signature.inputs):
        found.changes += changes.compare_defaults(
            old.signature, new.signature, _tensors(old, found), _tensors(new, found)
        )
    if _same_weights(old, new, found):
        found.changes.append(Change("weights-unchanged", "weights"))
        if not _same_promises(old, new):
            found.cases = _judge_alone(place, new, new.signature, found)
        return
    if place is not None and old.file is None and new.file is None:
        size = max(sum(entry.size for entry in side.graph_files()) for side in (old, new))
        found.models.run_soon(2, place.repo.state_dir, size)
    # Prepacking, as a server does it, changes last digits: recorded outputs want it, drawn cases only want both alike.
    prepack = bool(old.golden_paths() or new.golden_paths())
    from gitmodel.compat import limits

    with (
        _open(place, old, found, old.card, prepack=prepack, side="old") as before,
        _open(place, new, found, old.card, prepack=prepack) as after,
    ):
        found.changes += limits.changes(before.session.opened, after.session.opened, old.card)
        own = _own_goldens(after.session, new, new.signature, found)
        _replay(before, after, old, comparison, found)
        found.cases = found.cases or own


def _replay(before: _Opened, after: _Opened, old: Bundle, comparison: Comparison, found: _Findings) -> None:
    signature = before.signature
    recorded = _recorded(old, signature)
    drawn = generate.possible(signature) and not recorded
    cases = _Cases(signature) if drawn else recorded
    if not drawn and not recorded:
        found.unjudged = f"{old.label} has no golden cases and none can be generated for its signature"
        return
    _add_witness(before.session, after.session, cases, found)
    if bridge.stops(comparison.changes):
        return
    gates = old.card.gates
    shown = golden_replay.replay(
        before.session,
        after.session,
        cases,
        signature,
        gates,
        bridge=bridge.over(comparison),
        enough=generate.COUNT if drawn else None,
    )
    found.cases, found.generated = shown.cases, drawn
    if drawn:
        # What a model refuses of drawn inputs tells nothing: they were drawn blindly.
        shown = replace(shown, refused=())
        args = {"cases": shown.cases, "label": old.label}
        found.changes.append(Change("goldens-missing", "golden", None, None, args))
    if not shown.cases:
        found.unjudged = f"{old.label} refuses every case, so there is nothing to compare"
    found.changes += behaviour.changes(shown, gates, bridge.incomparable(signature, found.changes))
    if old.card.budgets.to_dict() and not found.models.failure:
        _race(before, after, old, bridge.over(comparison), cases, found)


def _race(
    before: _Opened, after: _Opened, old: Bundle, over: bridge.Bridge, cases: Iterable[GoldenCase], found: _Findings
) -> None:
    """What NEW costs, against what OLD's card allows."""
    from gitmodel.compat import budgets

    if race := budgets.race(before.session, after.session, cases, over.call):
        found.changes += budgets.changes(found.models, race, old.card.budgets)


@dataclass(frozen=True)
class _Cases:
    """Drawn cases, made anew each time they are gone through: together they may be larger than memory."""

    signature: Signature

    def __iter__(self) -> Iterator[GoldenCase]:
        return generate.cases(self.signature)


def _add_witness(before: Model, after: Model, cases: Iterable[GoldenCase], found: _Findings) -> None:
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
                found.changes[index] = replace(change, args={**change.args, "witness": f"case {case.name}: {error}"})
            return


def _judge_alone(place: Workspace | None, bundle: Bundle, signature: Signature, found: _Findings) -> int:
    """Opens one bundle and runs its own golden cases; returns how many there are."""
    with _open(place, bundle, found, bundle.card, prepack=bool(bundle.golden_paths())) as opened_:
        return _own_goldens(opened_.session, bundle, signature, found)


def _own_goldens(session: Model, bundle: Bundle, signature: Signature, found: _Findings) -> int:
    """NEW against what it recorded of itself: the very check a server makes before it lets it answer."""
    recorded = _recorded(bundle, signature)
    check = golden_replay.check_self(session, recorded, signature, bundle.card.gates)
    found.changes += behaviour.self_check(check, bundle.label)
    return check.cases


@contextlib.contextmanager
def _open(
    place: Workspace | None, bundle: Bundle, found: _Findings, card: Card, *, prepack: bool, side: str = "new"
) -> Iterator[_Opened]:
    """A session on the bundle's weights, in a sandbox; when there is none to be had, says why and stops. ``card`` says
    what is allowed."""
    with contextlib.ExitStack() as stack:
        try:
            path = stack.enter_context(opened(place, bundle))
            model = found.models.open(path, bundle, prepack=prepack)
        except GitmodelError as error:
            found.unjudged = str(error)
            if isinstance(error, CannotOpen | InvalidModel):
                from gitmodel.compat import limits

                found.changes += limits.why_not(error, card)
            raise _Stop from error
        signature = model.opened.signature
        if signature != bundle.signature:
            old, new = (s.to_dict() if s else None for s in (signature, bundle.signature))
            args = {"label": bundle.label, "side": side}
            found.changes.append(Change("signature-stale", "signature", old, new, args))
        yield _Opened(model)


def _recorded(bundle: Bundle, signature: Signature) -> list[GoldenCase]:
    from gitmodel.formats import goldens

    return goldens.read(bundle.folder, GOLDEN, signature, bundle.label)


def _compare_checkpoints(place: Workspace | None, old: Bundle, new: Bundle, found: _Findings) -> None:
    if new.signature is not None:
        found.changes.append(Change("graph-added", "model"))
    elif old.signature is not None:
        found.changes.append(Change("graph-removed", "model", None, None, {"label": new.label}))
    found.changes += changes.compare_tensors(_tensors(old, found), _tensors(new, found))
    if not found.changes:
        found.changes.append(Change("weights-unchanged", "weights"))
    if new.signature is not None:
        _judge_first(place, new, new.signature, found)


def _judge_first(place: Workspace | None, new: Bundle, signature: Signature, found: _Findings) -> None:
    """There is nothing to run it against but what it recorded of itself."""
    found.cases = _judge_alone(place, new, signature, found)
    if not found.cases:
        found.changes.append(Change("goldens-missing", "golden", None, None, {"label": new.label, "cases": 0}))


def _tensors(bundle: Bundle, found: _Findings) -> tuple[TensorEntry, ...]:
    return bundle.lock.tensors if bundle.file is None else found.models.tensors(bundle.file)


def _same_weights(old: Bundle, new: Bundle, found: _Findings) -> bool:
    if old.file is not None and new.file is not None:
        # Equal graphs may point at different external data.
        return filecmp.cmp(old.file, new.file, False) and _tensors(old, found) == _tensors(new, found)
    return old.file is None and new.file is None and old.lock.digest == new.lock.digest


def _same_promises(old: Bundle, new: Bundle) -> bool:
    """Whether everything but the weights that says how the model must behave is the same, too."""
    if old.card.gates != new.card.gates or old.signatures != new.signatures:
        return False
    before, after = ({path: bundle.folder.read(path) for path in bundle.golden_paths()} for bundle in (old, new))
    return before == after


def _policy_changes(old: Bundle, new: Bundle) -> Iterator[Change]:
    """The measures themselves: OLD's were used, so that a change cannot move its own goalposts."""
    if old.card.gates != new.card.gates:
        args = {"what": ", ".join(_moved_gates(old.card.gates, new.card.gates))}
        yield Change("gates-changed", "model.yaml", old.card.gates.to_dict(), new.card.gates.to_dict(), args)
    before, after = ({path: bundle.folder.read(path) for path in bundle.golden_paths()} for bundle in (old, new))
    if before and before != after:
        yield Change("goldens-changed", "golden", None, None, {"label": old.label})


def _moved_gates(old: Gates, new: Gates) -> Iterator[str]:
    for name in ("agreement", "distance"):
        before, after = getattr(old, name), getattr(new, name)
        if before != after:
            yield f"{name} {before} to {after}"
    for output in sorted({*old.tolerance, *new.tolerance}):
        if old.tolerance.get(output) != new.tolerance.get(output):
            yield f"tolerance of {output}"


def _declared(old: Bundle, new: Bundle, declared: Bump | None) -> tuple[Version | None, Bump | None]:
    base, ahead = (_version(bundle) for bundle in (old, new))
    if declared is None and base is not None and ahead is not None and old.name == new.name and base < ahead:
        return base, ahead.bump_from(base)
    return base, declared


def _version(bundle: Bundle) -> Version | None:
    tag = parse_tag(bundle.label)
    return tag.version if isinstance(tag, ReleaseTag) else None
