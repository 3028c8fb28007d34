"""``check-compat``: which two sides to judge. Everything is read from Git objects, or from two files; see judge.py."""

from __future__ import annotations

from pathlib import Path

from gitmodel import registry
from gitmodel.bundle.bundle import Bundle
from gitmodel.compat import rules
from gitmodel.compat.changes import Change
from gitmodel.compat.isolated import Models
from gitmodel.compat.rules import DEFAULT_PROFILE
from gitmodel.compat.verdict import Report, owed
from gitmodel.errors import GitmodelError
from gitmodel.formats.source import InvalidModel
from gitmodel.git import NotARepository, Repository
from gitmodel.sandbox.failures import OutOfMemory, SandboxFailed, SandboxIncomplete
from gitmodel.storage.remote import Progress
from gitmodel.workflows.judge import judge, judge_first
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
    models: Models | None = None,
) -> Report:
    """Judges NEW against OLD, two references or model files. A mistake in a reference raises; a model that cannot be
    read or run gives the verdict ``unjudged``. ``models`` are the sandboxes that they are opened in."""
    with models or Models() as sandboxes:
        sandboxes.read_soon(Path(reference) for reference in (old, new) if registry.is_file(reference))
        place = _place(Path(repo), progress)
        sides: list[Bundle] = []
        for reference in (old, new):
            try:
                sides.append(registry.resolve(place.repo if place else None, reference, sandboxes.describe))
            except (InvalidModel, SandboxFailed, SandboxIncomplete, OutOfMemory) as error:
                if not Path(reference).exists():
                    raise
                return _unread(old, new, profile, error)
        return judge(place, *sides, profile=profile, models=sandboxes)


def check_changed(
    repo: Path | str = ".",
    *,
    against: str = "",
    profile: str = DEFAULT_PROFILE,
    progress: Progress | None = None,
    models: Models | None = None,
) -> list[Report]:
    """Judges every model of the working tree that differs from its latest release, or from revision ``against``;
    one that is gone from the working tree is judged, too.

    A model that is new is judged by itself. Raises NothingToCompare when there is no model at all.
    """
    place = Workspace.open(Path(repo), progress=progress)
    bases, here = _bases(place.repo, against), registry.models(place.repo)
    if not bases and not here:
        raise NothingToCompare("there is no model here", hint="run 'gitmodel save NAME FILE' first")
    reports = []
    for name in sorted({*bases, *here}):
        base = bases.get(name)
        if name not in here:
            reports.append(_gone(bases[name], profile))
        elif base is None:
            if not against:
                registry.refuse_shallow(place.repo, f"{name} has no version to be judged against")
            reports.append(judge_first(place, registry.working_bundle(place.repo, name), profile, models=models))
        elif changed_since(place.repo, name, base.commit):
            new = registry.working_bundle(place.repo, name)
            reports.append(judge(place, base, new, profile=profile, models=models))
    return reports


def _unread(old: str, new: str, profile: str, error: GitmodelError) -> Report:
    """The report on files one of which cannot even be read."""
    from gitmodel.compat import limits

    findings = [rules.judge(change) for change in limits.why_not(error, None)]
    name = Path(new).stem if registry.is_file(new) else new
    bump = owed(findings)
    return Report(name, old, new, profile, tuple(findings), len(rules.names()), 0, unjudged=str(error), bump=bump)


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


def _gone(base: Bundle, profile: str) -> Report:
    finding = rules.judge(Change("model-removed", "model", base.name, None, {"name": base.name}))
    return Report(base.name, base.label, "nothing", profile, (finding,), len(rules.names()), 0, bump=owed([finding]))


def _place(repo: Path, progress: Progress | None) -> Workspace | None:
    """The repository around ``repo``, if there is one: two bare files need none."""
    try:
        found = Repository.open(repo)
    except NotARepository:
        return None
    return Workspace(found, progress=progress)
