"""One pair judged: what comparing and running it gathered becomes findings, and these a report."""

from __future__ import annotations

from msgspec.structs import replace

from gitmodel import registry
from gitmodel.bundle.bundle import Bundle
from gitmodel.bundle.folder import DiskFolder
from gitmodel.compat import changes, places, rules
from gitmodel.compat.changes import Change
from gitmodel.compat.isolated import Models
from gitmodel.compat.opening import Opens
from gitmodel.compat.rules import DEFAULT_PROFILE
from gitmodel.compat.verdict import NOTHING, Report, owed, worst_first
from gitmodel.versions import Bump, ReleaseTag, Version, parse_tag
from gitmodel.workflows import comparing, tagged
from gitmodel.workflows.gathered import Gathered
from gitmodel.workflows.workspace import Workspace


def judge(
    place: Workspace | None,
    old: Bundle,
    new: Bundle,
    *,
    profile: str = DEFAULT_PROFILE,
    declared: Bump | None = None,
    models: Opens | None = None,
) -> Report:
    """The report on two bundles. ``declared`` is the bump a release is about to make; else NEW's own tag tells. ``models``
    opens them: in sandboxes, by default."""
    found = Gathered(models or Models())
    with found.judging():
        if place is not None:
            found.changes += tagged.mutated(place.repo, (old, new))
        comparing.compare(place, old, new, found)
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
    if place is not None and root.is_relative_to(place.repo.root.resolve()):
        return places.Side(bundle, root.relative_to(place.repo.root.resolve()).as_posix())
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


def judge_first(
    place: Workspace, new: Bundle, profile: str = DEFAULT_PROFILE, *, models: Opens | None = None
) -> Report:
    """The report on a version that has none before it: does it load, and does it keep its own golden cases?"""
    found = Gathered(models or Models())
    with found.judging():
        if new.signature is not None:
            comparing.compare_with_nothing(place, new, found)
    findings = [rules.judge(change) for change in found.changes]
    return Report(
        new.name, NOTHING, new.label, profile, worst_first(findings), len(rules.names()), found.cases,
        unjudged=found.unjudged, bump=owed(findings),
    )  # fmt: skip


def _declared(old: Bundle, new: Bundle, declared: Bump | None) -> tuple[Version | None, Bump | None]:
    base, ahead = (_version(bundle) for bundle in (old, new))
    if declared is None and base is not None and ahead is not None and old.name == new.name and base < ahead:
        return base, ahead.bump_from(base)
    return base, declared


def _version(bundle: Bundle) -> Version | None:
    tag = parse_tag(bundle.label)
    return tag.version if isinstance(tag, ReleaseTag) else None
