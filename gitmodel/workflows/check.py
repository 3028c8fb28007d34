"""``check-compat``: which two sides to judge. Everything is read from Git objects, or from two files; see judge.py."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from gitmodel import registry
from gitmodel.bundle.bundle import Bundle
from gitmodel.compat import places, rules
from gitmodel.compat.changes import Change
from gitmodel.compat.rules import DEFAULT_PROFILE
from gitmodel.compat.verdict import NOTHING, Report, owed
from gitmodel.errors import GitmodelError
from gitmodel.git import NotARepository, Repository
from gitmodel.storage.remote import Progress
from gitmodel.workflows.judge import judge, judge_first, side_of
from gitmodel.workflows.workspace import Workspace


class NothingToCompare(GitmodelError):
    """A check was asked for where there are not two sides."""

    code = "nothing-to-compare"


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
    """Judges every model of the working tree that differs from its latest release, or from revision ``against``;
    one that is gone from the working tree is judged, too.

    A model that is new is judged by itself. Raises NothingToCompare when there is no model at all.
    """
    place = Workspace.open(Path(repo), progress=progress)
    bases, here = _bases(place.repo, against), registry.models(place.repo)
    if not bases and not here:
        raise NothingToCompare("there is no model here", hint="run 'gitmodel save NAME FILE' first")
    reports: list[Report] = []
    for name in sorted({*bases, *here}):
        base = bases.get(name)
        if name not in here:
            reports.append(_gone(place, bases[name], profile))
        elif base is None:
            if not against:
                registry.refuse_shallow(place.repo, f"{name} has no version to be judged against")
            reports.append(judge_first(place, registry.working_bundle(place.repo, name), profile))
        elif changed_since(place.repo, name, base.commit):
            reports.append(judge(place, base, registry.working_bundle(place.repo, name), profile=profile))
    return [_counted(place.repo, report, bases) for report in reports] if against else reports


def _counted(repo: Repository, report: Report, bases: Mapping[str, Bundle]) -> Report:
    """The report with the version to count from, where the revision has the latest release's very bundle: what else
    was merged since may owe a bump of its own."""
    released, base = registry.latest(repo, report.model), bases.get(report.model)
    if released is None or base is None:
        return report
    path = registry.model_path(report.model)
    same = repo.folder(base.commit, path).object_id == repo.folder(released.ref.commit, path).object_id
    return replace(report, base=released.version) if same else report


def changed_since(repo: Repository, name: str, commit: str) -> bool:
    """True when the working tree's model is not what it was at ``commit``."""
    path = registry.model_path(name)
    head = repo.head()
    return bool(repo.dirty(path)) or repo.folder(head, path).object_id != repo.folder(commit, path).object_id


def _bases(repo: Repository, against: str) -> dict[str, Bundle]:
    """The old side of every model there is: at a revision, or at its latest release."""
    if against:
        commit = repo.commit_of(against)
        names = registry.models(repo, commit)
        return {name: registry.bundle_at(repo, name, commit, f"{name}@{against}") for name in names}
    newest = {name: registry.latest(repo, name) for name in registry.all_releases(repo)}
    return {
        name: registry.bundle_at(repo, name, release.ref.commit, str(release.tag))
        for name, release in newest.items()
        if release
    }


def _gone(place: Workspace, base: Bundle, profile: str) -> Report:
    finding = rules.judge(Change("model-removed", "model", base.name, None, {"name": base.name}))
    placed = places.fill([finding], side_of(place, base), None)
    return Report(base.name, base.label, NOTHING, profile, placed, len(rules.names()), 0, bump=owed([finding]))


def _place(repo: Path, progress: Progress | None) -> Workspace | None:
    """The repository around ``repo``, if there is one: two bare files need none."""
    try:
        found = Repository.open(repo)
    except NotARepository:
        return None
    return Workspace(found, progress=progress)
