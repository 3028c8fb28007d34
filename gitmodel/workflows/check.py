"""``check-compat``: OLD and NEW are read from Git (or from two files), their weights only when something must be run."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from gitmodel import registry
from gitmodel.bundle.bundle import GOLDEN, Bundle
from gitmodel.bundle.golden import GoldenCase
from gitmodel.bundle.lock import TensorEntry
from gitmodel.bundle.signature import Signature
from gitmodel.compat import behaviour, changes, rules
from gitmodel.compat import replay as golden_replay
from gitmodel.compat.changes import Change, Comparison
from gitmodel.compat.rules import DEFAULT_PROFILE, Finding, Severity
from gitmodel.compat.verdict import Report, owed, worst_first
from gitmodel.errors import GitmodelError
from gitmodel.git import NotARepository, Repository
from gitmodel.storage.remote import Progress
from gitmodel.versions import Bump, ReleaseTag, Version, parse_tag
from gitmodel.workflows.workspace import Workspace

if TYPE_CHECKING:
    from gitmodel.runtime import Session

#: Rules after which OLD's calls cannot be run on NEW at all, so that nothing is left to replay.
_STOPPERS = (
    "input-added-required", "input-removed", "input-became-required", "input-dtype-changed", "input-rank-changed",
    "input-dim-fixed", "input-dim-changed", "value-kind-changed", "string-tensor-changed",
)  # fmt: skip


class NothingToCompare(GitmodelError):
    """A check was asked for where there are not two sides."""

    code = "nothing-to-compare"


@dataclass
class _Findings:
    """What has been gathered so far about one pair."""

    changes: list[Change] = field(default_factory=list)
    cases: int = 0
    generated: bool = False
    unjudged: str = ""


def check_compat(
    old: str,
    new: str,
    *,
    repo: Path | str = ".",
    profile: str = DEFAULT_PROFILE,
    progress: Progress | None = None,
) -> Report:
    """Judges NEW against OLD, two references or model files. A mistake in a reference raises; a model that cannot be
    run gives the verdict ``unjudged``."""
    place = _place(Path(repo), progress)
    before, after = (registry.resolve(place.repo if place else None, reference) for reference in (old, new))
    return judge(place, before, after, profile=profile)


def check_changed(
    repo: Path | str = ".", *, against: str = "", profile: str = DEFAULT_PROFILE, progress: Progress | None = None
) -> list[Report]:
    """Judges every model of the working tree that differs from its latest release, or from revision ``against``.

    Raises NothingToCompare when no model has a release yet.
    """
    place = Workspace.open(Path(repo), progress=progress)
    reports, compared = [], 0
    for name in registry.models(place.repo):
        base = _base(place.repo, name, against)
        if base is None:
            continue
        compared += 1
        if changed_since(place.repo, name, base.commit):
            reports.append(judge(place, base, registry.working_bundle(place.repo, name), profile=profile))
    if not compared:
        raise NothingToCompare(
            "no model has a release to compare with", hint="run 'gitmodel release NAME' first, or name OLD and NEW"
        )
    return reports


def changed_since(repo: Repository, name: str, commit: str) -> bool:
    """True when the working tree's model is not what it was at ``commit``."""
    path = registry.model_path(name)
    head = repo.head()
    return bool(repo.dirty(path)) or repo.folder(head, path).object_id != repo.folder(commit, path).object_id


def judge(
    place: Workspace | None, old: Bundle, new: Bundle, *, profile: str = DEFAULT_PROFILE, declared: Bump | None = None
) -> Report:
    """The report on two bundles. ``declared`` is the bump a release is about to make; else NEW's own tag tells."""
    found = _Findings()
    with contextlib.suppress(_Stop):
        _compare(place, old, new, found)
    findings = [rules.judge(change) for change in found.changes]
    base, declared = _declared(old, new, declared)
    bump = owed(findings)
    if declared is not None and declared < bump[profile] and not found.unjudged:
        args = {"declared": declared, "required": bump[profile]}
        findings.append(rules.judge(Change("bump-too-small", "version", old.label, new.label, args)))
    return Report(
        new.name, old.label, new.label, profile, worst_first(findings), len(rules.names()), found.cases, found.generated,
        found.unjudged, base, declared, bump,
    )  # fmt: skip


def declare(report: Report, bump: Bump) -> Report:
    """The same report for a release that is about to make ``bump``."""
    return replace(report, declared=bump)


def judge_first(place: Workspace, new: Bundle, profile: str = DEFAULT_PROFILE) -> Report:
    """The report on a version that has none before it: does it load, and does it keep its own golden cases?"""
    found = _Findings()
    with contextlib.suppress(_Stop):
        if new.signature is not None:
            with _open(place, new, found) as session:
                _own_goldens(session, new, new.signature, found)
    findings = [rules.judge(change) for change in found.changes]
    return Report(
        new.name, "nothing", new.label, profile, worst_first(findings), len(rules.names()), found.cases,
        unjudged=found.unjudged, bump=owed(findings),
    )  # fmt: skip


class _Stop(Exception):
    """Ends a comparison early; why is in the findings."""


def _compare(place: Workspace | None, old: Bundle, new: Bundle, found: _Findings) -> None:
    if old.signature is None or new.signature is None:
        _compare_checkpoints(old, new, found)
        return
    comparison = changes.compare(old.signature, new.signature)
    labels = changes.compare_labels(old.labels, new.labels)
    found.changes += [*comparison.changes, *labels]
    found.changes += _policy_changes(old, new)
    if _same_weights(old, new):
        found.changes.append(Change("weights-unchanged", "weights"))
        return
    cases, found.generated = _cases(old, old.signature)
    if not cases:
        found.unjudged = "no golden cases are recorded and none can be generated for this signature"
    with _open(place, old, found) as before, _open(place, new, found) as after:
        _own_goldens(after, new, new.signature, found)
        _replay(before, after, old, comparison, cases, found, _incomparable(old.signature, found.changes))


def _replay(
    before: Session, after: Session, old: Bundle, comparison: Comparison, cases: Sequence[GoldenCase], found: _Findings,
    skipped: set[str],
) -> None:  # fmt: skip
    _add_witness(before, after, cases, found)
    if not cases or any(change.kind in _STOPPERS for change in comparison.changes) or old.signature is None:
        return
    shown = golden_replay.replay(
        before, after, cases, old.signature, old.card.gates,
        renamed_inputs=comparison.renamed_inputs, renamed_outputs=comparison.renamed_outputs, generated=found.generated,
    )  # fmt: skip
    found.cases = shown.cases
    if found.generated:
        found.changes.append(Change("goldens-missing", "golden", None, None, {"cases": shown.cases}))
    if not shown.cases:
        found.unjudged = "OLD refuses every case, so there is nothing to compare"
    found.changes += behaviour.changes(shown, old.card.gates, skipped)


def _incomparable(old: Signature, found: Sequence[Change]) -> set[str]:
    """Outputs whose values cannot be held side by side: another shape, type or class list says so already."""
    if any(change.kind.startswith("label-") for change in found):
        return {spec.name for spec in old.outputs}
    kinds = (
        "output-dtype-changed",
        "output-rank-changed",
        "output-dim-changed",
        "value-kind-changed",
        "string-tensor-changed",
    )
    return {str(change.args["name"]) for change in found if change.kind in kinds}


def _add_witness(before: Session, after: Session, cases: Sequence[GoldenCase], found: _Findings) -> None:
    """Lets the break happen: a call that OLD answers, made on NEW just as OLD's client makes it."""
    breaking = [i for i, change in enumerate(found.changes) if rules.judge(change).severity is Severity.ERROR]
    if not breaking or not cases:
        return
    with contextlib.suppress(GitmodelError):
        asked = list(before.run(cases[0].inputs))
        try:
            after.run(cases[0].inputs, asked)
        except GitmodelError as error:
            for index in breaking:
                change = found.changes[index]
                if change.kind in _STOPPERS or change.kind.endswith(("-renamed", "-removed")):
                    found.changes[index] = replace(
                        change, args={**change.args, "witness": f"case {cases[0].name}: {error}"}
                    )


def _own_goldens(session: Session, bundle: Bundle, signature: Signature, found: _Findings) -> None:
    """NEW against what it recorded of itself: the very check a server makes before it lets it answer."""
    recorded = _recorded(bundle, signature)
    check = golden_replay.check_self(session, recorded, signature, bundle.card.gates)
    found.changes += behaviour.self_check(check, bundle.label)
    if not found.cases:
        found.cases = check.cases


@contextlib.contextmanager
def _open(place: Workspace | None, bundle: Bundle, found: _Findings) -> Iterator[Session]:
    """A session on the bundle's weights; when there is none to be had, says so and stops."""
    from gitmodel import runtime
    from gitmodel.formats import onnx

    with contextlib.ExitStack() as stack:
        try:
            if bundle.file is not None:
                path = bundle.file
            elif place is None:
                raise NothingToCompare(f"{bundle.label} has its weights in a repository", hint="run inside it")
            else:
                path = stack.enter_context(place.staged(bundle))
            signature = (
                onnx.signature_of(onnx.parse(path.read_bytes(), bundle.label), bundle.label)
                if bundle.file is None
                else None
            )
            session = runtime.open_session(path)
        except GitmodelError as error:
            found.unjudged = str(error)
            if isinstance(error, runtime.LoadFailed):
                found.changes.append(
                    Change("model-load-failed", "model", None, None, {"label": bundle.label, "error": error.message})
                )
            raise _Stop from error
        if signature is not None and signature != bundle.signature:
            args = {"label": bundle.label}
            old, new = (s.to_dict() if s else None for s in (signature, bundle.signature))
            found.changes.append(Change("signature-stale", "signature", old, new, args))
        yield session


def _cases(bundle: Bundle, signature: Signature) -> tuple[list[GoldenCase], bool]:
    """The recorded cases, or generated ones and True."""
    recorded = _recorded(bundle, signature)
    if recorded or not golden_replay.can_generate(signature):
        return recorded, False
    return list(golden_replay.generate(signature)), True


def _recorded(bundle: Bundle, signature: Signature) -> list[GoldenCase]:
    from gitmodel.formats import goldens

    return goldens.read(bundle.folder, GOLDEN, signature, bundle.label)


def _compare_checkpoints(old: Bundle, new: Bundle, found: _Findings) -> None:
    if (old.signature is None) != (new.signature is None):
        kind = "graph-removed" if new.signature is None else "graph-added"
        found.changes.append(Change(kind, "model", old.label, new.label))
    found.changes += changes.compare_tensors(_tensors(old), _tensors(new))
    if not found.changes:
        found.changes.append(Change("weights-unchanged", "weights"))


def _tensors(bundle: Bundle) -> tuple[TensorEntry, ...]:
    if bundle.file is None:
        return bundle.lock.tensors
    import hashlib

    from gitmodel import formats

    source = formats.read(bundle.file)
    return tuple(TensorEntry(t.name, t.dtype, t.shape, hashlib.sha256(t.data).hexdigest(), "") for t in source.tensors)


def _same_weights(old: Bundle, new: Bundle) -> bool:
    if old.file is not None or new.file is not None:
        both = old.file is not None and new.file is not None
        return both and old.file is not None and new.file is not None and old.file.read_bytes() == new.file.read_bytes()
    return old.lock.digest == new.lock.digest


def _policy_changes(old: Bundle, new: Bundle) -> Iterator[Change]:
    """The measures themselves: OLD's were used, so that a change cannot move its own goalposts."""
    if old.card.gates != new.card.gates:
        yield Change("gates-changed", "model.yaml", old.card.gates.to_dict(), new.card.gates.to_dict())
    before, after = ({path: bundle.folder.read(path) for path in bundle.golden_paths()} for bundle in (old, new))
    if before and before != after:
        yield Change("goldens-changed", "golden", old.label, new.label)


def _declared(old: Bundle, new: Bundle, declared: Bump | None) -> tuple[Version | None, Bump | None]:
    base, ahead = (_version(bundle) for bundle in (old, new))
    if declared is None and base is not None and ahead is not None and old.name == new.name:
        return base, ahead.bump_from(base)
    return base, declared


def _version(bundle: Bundle) -> Version | None:
    tag = parse_tag(bundle.label)
    return tag.version if isinstance(tag, ReleaseTag) else None


def _base(repo: Repository, name: str, against: str) -> Bundle | None:
    if against:
        commit = repo.commit_of(against)
        return (
            registry.bundle_at(repo, name, commit, f"{name}@{against}")
            if name in registry.models(repo, commit)
            else None
        )
    release = registry.latest(repo, name)
    return registry.bundle_at(repo, name, release.ref.commit, str(release.tag)) if release else None


def _place(repo: Path, progress: Progress | None) -> Workspace | None:
    """The repository around ``repo``, if there is one: two bare files need none."""
    try:
        found = Repository.open(repo)
    except NotARepository:
        return None
    return Workspace(found, progress=progress)


__all__ = ["Finding", "NothingToCompare", "check_changed", "check_compat", "judge", "judge_first"]
