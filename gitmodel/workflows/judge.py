"""One pair judged: signatures from Git, weights only when something must be run, findings gathered into a report."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from gitmodel import registry
from gitmodel.bundle.bundle import GOLDEN, ONNX_VIEW, Bundle
from gitmodel.bundle.card import Gates
from gitmodel.bundle.folder import DiskFolder, same_files
from gitmodel.bundle.golden import GoldenCase
from gitmodel.bundle.lock import TensorEntry
from gitmodel.bundle.signature import Signature
from gitmodel.compat import (
    assets,
    behaviour,
    bridge,
    changes,
    generate,
    named,
    places,
    precision,
    renames,
    rules,
    snippets,
    tensors,
)
from gitmodel.compat import replay as golden_replay
from gitmodel.compat.changes import Change, Comparison
from gitmodel.compat.drift import OutputDrift
from gitmodel.compat.noise import Reopen
from gitmodel.compat.rules import DEFAULT_PROFILE
from gitmodel.compat.side_by_side import Runs
from gitmodel.compat.verdict import NOTHING, Report, owed, worst_first
from gitmodel.errors import GitmodelError
from gitmodel.versions import Bump, ReleaseTag, Version, parse_tag
from gitmodel.workflows import calibrate, promises, remembered, stale, tagged
from gitmodel.workflows.calibrate import Side
from gitmodel.workflows.workspace import Workspace, opened

#: Bytes of weights up to which they are packed, which takes them into memory a second time; larger ones stay mapped.
_PACKED = 256 << 20


@dataclass
class _Findings:
    """What has been gathered so far about one pair."""

    changes: list[Change] = field(default_factory=list)
    cases: int = 0
    generated: bool = False
    unjudged: str = ""
    drifts: tuple[OutputDrift, ...] = ()
    noise: str = ""
    remembered: bool = False


def judge(
    place: Workspace | None, old: Bundle, new: Bundle, *, profile: str = DEFAULT_PROFILE, declared: Bump | None = None
) -> Report:
    """The report on two bundles. ``declared`` is the bump a release is about to make; else NEW's own tag tells."""
    found = _Findings()
    if place is not None:
        found.changes += tagged.mutated(place.repo, (old, new))
    with contextlib.suppress(_Stop):
        _compare(place, old, new, found)
    findings = [rules.judge(change) for change in found.changes]
    base, declared = _declared(old, new, declared)
    bump = owed(findings)
    if declared is not None and declared < bump[profile] and not found.unjudged:
        args = {"declared": declared, "required": bump[profile], "version": new.label, "base": old.label}
        findings.append(rules.judge(Change("bump-too-small", "version", None, None, args)))
    return Report(
        new.name, old.label, new.label, profile, worst_first(findings), len(rules.names()), found.cases, found.generated,
        found.unjudged, base, declared, bump, _rollback_safe(old, new, profile), found.drifts,
        noise=found.noise, remembered=found.remembered,
    )  # fmt: skip


def placed(place: Workspace | None, report: Report, old: Bundle | None, new: Bundle | None) -> Report:
    """The report with the place of each finding in the committed files."""
    sides = (side_of(place, bundle) if bundle else None for bundle in (old, new))
    return replace(report, findings=places.fill(report.findings, *sides))


def side_of(place: Workspace | None, bundle: Bundle) -> places.Side:
    """The bundle with the folder it has in the repository; outside of one, the folder as it was named."""
    if not isinstance(bundle.folder, DiskFolder):
        return places.Side(bundle, registry.model_path(bundle.name))
    root = bundle.folder.root.resolve()
    if place is not None and root.is_relative_to(place.repo.root):
        return places.Side(bundle, root.relative_to(place.repo.root).as_posix())
    return places.Side(bundle, bundle.folder.root.as_posix())


def _rollback_safe(old: Bundle, new: Bundle, profile: str) -> bool | None:
    """Whether callers of NEW could be put back on OLD, by the signatures; None where there are not two."""
    if old.signature is None or new.signature is None:
        return None
    back = changes.compare(new.signature, old.signature).changes
    return all(rules.judge(change).bump[profile] < Bump.MAJOR for change in back)


def declare(report: Report, bump: Bump) -> Report:
    """The same report for a release that is about to make ``bump``."""
    return replace(report, declared=bump)


def judge_first(place: Workspace, new: Bundle, profile: str = DEFAULT_PROFILE) -> Report:
    """The report on a version that has none before it: does it load, and does it keep its own golden cases?"""
    found = _Findings()
    with contextlib.suppress(_Stop):
        if new.signature is not None:
            _judge_first(place, new, found)
    findings = [rules.judge(change) for change in found.changes]
    return Report(
        new.name, NOTHING, new.label, profile, worst_first(findings), len(rules.names()), found.cases,
        unjudged=found.unjudged, bump=owed(findings),
    )  # fmt: skip


class _Stop(Exception):
    """Ends a comparison early; why is in the findings."""


def _compare(place: Workspace | None, old: Bundle, new: Bundle, found: _Findings) -> None:
    found.unjudged = promises.unknown_default(old) or promises.unknown_default(new)
    if found.unjudged:
        raise _Stop
    if old.signature is None or new.signature is None:
        _compare_checkpoints(place, old, new, found)
        return
    comparison = promises.compare(old, new)
    found.changes += [*comparison.changes, *promises.of_signatures(old, new, comparison)]
    found.changes += [*promises.of_files(old, new), *_policy_changes(old, new)]
    found.changes = assets.explained(found.changes)
    if any(spec.optional for spec in old.signature.inputs):
        found.changes += tensors.compare_defaults(old.signature, new.signature, _tensors(old), _tensors(new))
    if _same_weights(old, new):
        found.changes.append(Change("weights-unchanged", "weights"))
        if _same_behaviour(old, new):
            found.changes += stale.signature_alone(place, old, new)
            return
    else:
        found.changes += precision.compare_precision(old.signature, new.signature, _typed(old), _typed(new))
    where = remembered.entry(place.repo.state_dir, old, new, found.changes) if place else None
    if where and (shown := remembered.recall(where)):
        found.changes, found.remembered = list(shown.changes), True
        found.cases, found.generated, found.noise, found.drifts = (
            shown.cases,
            shown.generated,
            shown.noise,
            shown.drifts,
        )
        return
    _run(place, old, new, comparison, found)
    if where and not found.unjudged:
        remembered.keep(
            where, remembered.Shown(tuple(found.changes), found.cases, found.generated, found.noise, found.drifts)
        )


def _run(place: Workspace | None, old: Bundle, new: Bundle, comparison: Comparison, found: _Findings) -> None:
    """Runs what there is to run: both sides, or NEW alone where it has OLD's weights and other golden cases."""
    if _same_weights(old, new):
        found.cases = _judge_alone(place, new, found, old)
        return
    # Prepacking, as a server does it, changes last digits: recorded outputs want it, drawn cases only want both alike.
    prepack = bool(old.golden_paths() or new.golden_paths()) and max(map(_weight, (old, new))) <= _PACKED
    with (
        _open(place, old, found, prepack=prepack, side="old") as before,
        _open(place, new, found, prepack=prepack) as after,
    ):
        own = _own_goldens(after, new, found, old)
        _replay(before, after, old, comparison, found)
        calls = snippets.Calls(old, new, before.signature, bridge.over(comparison))
        found.changes = snippets.attach(found.changes, lambda: _cases_of(old, before.signature), calls)
        found.cases = found.cases or own
    for name in promises.graphs_to_replay(old, new):
        _replay_named(place, replace(old, called=name), replace(new, called=name), found)


def _replay_named(place: Workspace | None, old: Bundle, new: Bundle, found: _Findings) -> None:
    """A further signature that the replay of the default one says nothing of. A graph of its own has no recorded cases."""
    mine = [change for change in found.changes if change.at.startswith(f"signatures.{new.called}.")]
    found.changes = [change for change in found.changes if change not in mine]
    part = _Findings([named.lifted(change, new.called) for change in mine])
    with (
        contextlib.suppress(_Stop),
        _open(place, old, part, prepack=False, side="old") as before,
        _open(place, new, part, prepack=False) as after,
    ):
        _replay(before, after, old, promises.compare(old, new), part)
    found.changes += named.placed(part.changes, new.called)
    found.cases += part.cases
    if part.unjudged and not found.unjudged:
        found.unjudged = f"signature '{new.called}': {part.unjudged}"


def _replay(before: Side, after: Side, old: Bundle, comparison: Comparison, found: _Findings) -> None:
    signature = before.signature
    recorded = _recorded(old, before.whole)
    drawn = generate.possible(signature) and not recorded
    cases = _Cases(signature) if drawn else recorded
    if not drawn and not recorded:
        if bridge.stops(comparison.changes):  # the break stands by the signatures alone
            return
        found.unjudged = f"{old.label} has no golden cases and none can be generated for its signature"
        return
    _add_witness(before.session, after.session, cases, found)
    if bridge.stops(comparison.changes):
        return
    gates, over = old.card.gates, bridge.over(comparison, found.changes)
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
    found.drifts = shown.outputs
    found.changes = renames.settle(found.changes, seen, after.signature, len(shown.outputs))


def _cases_of(old: Bundle, signature: Signature) -> Iterable[GoldenCase]:
    """The cases a pair is run with."""
    return _recorded(old, signature) or _Cases(signature)


@dataclass(frozen=True)
class _Cases:
    """Drawn cases, made anew each time they are gone through: together they may be larger than memory."""

    signature: Signature

    def __iter__(self) -> Iterator[GoldenCase]:
        return generate.cases(self.signature)


def _add_witness(before: Runs, after: Runs, cases: Iterable[GoldenCase], found: _Findings) -> None:
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


def _judge_alone(place: Workspace | None, bundle: Bundle, found: _Findings, old: Bundle | None = None) -> int:
    """Opens one bundle and runs its own golden cases; returns how many there are."""
    with _open(place, bundle, found, prepack=bool(bundle.golden_paths()) and _weight(bundle) <= _PACKED) as opened_:
        return _own_goldens(opened_, bundle, found, old)


def _own_goldens(own: Side, bundle: Bundle, found: _Findings, old: Bundle | None = None) -> int:
    """NEW against what it recorded of itself: the check a server makes before it lets it answer, by OLD's gates if there
    is an OLD: a change does not widen its own."""
    recorded = _recorded(bundle, own.whole)
    gates = bundle.card.gates if old is None else old.card.gates.over(bundle.card.gates, _outputs(old))
    check = golden_replay.check_self(own.recalled, recorded, own.whole, gates)
    found.changes += behaviour.self_check(check, bundle.label)
    return check.cases


@contextlib.contextmanager
def _open(
    place: Workspace | None, bundle: Bundle, found: _Findings, *, prepack: bool, side: str = "new"
) -> Iterator[Side]:
    """A session on the bundle's weights, and the signature the model itself has; when there is none to be had, says so and stops."""
    from gitmodel import runtime
    from gitmodel.formats import onnx

    with contextlib.ExitStack() as stack:
        try:
            path = stack.enter_context(opened(place, bundle))
            path = path.with_name(bundle.view) if bundle.file is None else path
            whole = onnx.signature_of(onnx.parse(path.read_bytes(), bundle.label), bundle.label)
            signature = promises.own_signature(bundle, whole)
            session = runtime.open_session(path, prepack=prepack, label=bundle.label)
        except GitmodelError as error:
            found.unjudged = str(error)
            if isinstance(error, runtime.LoadFailed):
                found.changes.append(Change("model-load-failed", "model", None, None, {"error": error.message}))
            raise _Stop from error
        if outdated := promises.stale(bundle, whole):
            args = {"label": bundle.label, "side": side}
            found.changes.append(Change("signature-stale", "signature", *outdated, args))
        yield Side(session, signature, whole, _weight(bundle), _reopener(path, prepack))


def _reopener(path: Path, prepack: bool) -> Reopen:
    from gitmodel import runtime

    return lambda optimised, threads: contextlib.nullcontext(
        runtime.open_session(path, threads=threads, prepack=prepack, optimise=optimised)
    )


def _weight(bundle: Bundle) -> int:
    """Bytes of weights; of a bare file its own, whatever lies beside it."""
    return bundle.file.stat().st_size if bundle.file else bundle.lock.size


def _outputs(bundle: Bundle) -> set[str]:
    return {spec.name for spec in bundle.signature.outputs} if bundle.signature else set()


def _recorded(bundle: Bundle, signature: Signature) -> list[GoldenCase]:
    from gitmodel.formats import goldens

    if bundle.view != ONNX_VIEW:  # what is recorded are calls of the graph that has no name
        return []
    return goldens.read(bundle.folder, GOLDEN, signature, bundle.label)


def _compare_checkpoints(place: Workspace | None, old: Bundle, new: Bundle, found: _Findings) -> None:
    if new.signature is not None:
        found.changes.append(Change("graph-added", "model"))
    elif old.signature is not None:
        found.changes.append(Change("graph-removed", "model", None, None, {"label": new.label}))
    found.changes += [*tensors.compare_tensors(_tensors(old), _tensors(new)), *promises.of_files(old, new)]
    if not found.changes:
        found.changes.append(Change("weights-unchanged", "weights"))
    if new.signature is not None:
        _judge_first(place, new, found)


def _judge_first(place: Workspace | None, new: Bundle, found: _Findings) -> None:
    """There is nothing to run it against but what it recorded of itself."""
    found.cases = _judge_alone(place, new, found)
    if not found.cases:
        found.changes.append(Change("goldens-missing", "golden", None, None, {"label": new.label, "cases": 0}))


def _tensors(bundle: Bundle) -> tuple[TensorEntry, ...]:
    if bundle.file is None:
        return bundle.lock.tensors
    from gitmodel import formats
    from gitmodel.formats import hdf5

    with contextlib.closing(formats.read(bundle.file)) as source:
        return tuple(TensorEntry(t.name, t.dtype, t.shape, hdf5.digest(t), "") for t in source.tensors)


def _typed(bundle: Bundle) -> tuple[TensorEntry, ...]:
    """Tensors by name, type and shape alone, for which nothing needs to be read."""
    if bundle.file is None:
        return bundle.lock.tensors
    from gitmodel import formats

    with contextlib.closing(formats.read(bundle.file)) as source:
        return tuple(TensorEntry(t.name, t.dtype, t.shape, "", "") for t in source.tensors)


def _same_weights(old: Bundle, new: Bundle) -> bool:
    if old.file is not None and new.file is not None:
        # Equal graphs may point at different external data.
        return old.file.read_bytes() == new.file.read_bytes() and _tensors(old) == _tensors(new)
    return old.file is None and new.file is None and old.lock.digest == new.lock.digest


def _same_behaviour(old: Bundle, new: Bundle) -> bool:
    """Whether with the same weights there is nothing to run: the golden cases are the same, too. NEW's gates say nothing:
    OLD's are used."""
    return same_files(old.folder, new.folder, GOLDEN)


def _policy_changes(old: Bundle, new: Bundle) -> Iterator[Change]:
    """The measures themselves: OLD's were used, so that a change cannot move its own goalposts."""
    if old.card.gates != new.card.gates:
        args = {"what": ", ".join(_moved_gates(old.card.gates, new.card.gates))}
        yield Change("gates-changed", "model.yaml", old.card.gates.to_dict(), new.card.gates.to_dict(), args)
    if old.golden_paths() and not same_files(old.folder, new.folder, GOLDEN):
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
