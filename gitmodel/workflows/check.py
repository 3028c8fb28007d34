"""``check-compat``: which sides to judge, and by whose terms. What a revision names is read from Git's objects, and nothing is
checked out; only where no revision is given, NEW is the author's own working tree. See judge.py."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec.structs import replace

from gitmodel import registry
from gitmodel.bundle.bundle import Bundle
from gitmodel.compat import rules
from gitmodel.compat.allow import FILE as ALLOW_LIST
from gitmodel.compat.allow import AllowList
from gitmodel.compat.changes import Change
from gitmodel.compat.consumers import FOLDER as CONSUMERS
from gitmodel.compat.isolated import Models
from gitmodel.compat.modes import Mode
from gitmodel.compat.opening import Opens
from gitmodel.compat.policy import Policy, settle
from gitmodel.compat.rules import DEFAULT_PROFILE
from gitmodel.compat.verdict import NOTHING, Report, owed
from gitmodel.errors import GitmodelError
from gitmodel.formats.source import InvalidModel
from gitmodel.git import NotARepository, Repository
from gitmodel.sandbox.failures import OutOfMemory, SandboxFailed, SandboxIncomplete
from gitmodel.versions import check_name, is_name
from gitmodel.workflows.judge import judge, judge_first, placed
from gitmodel.workflows.policy import Terms, gather
from gitmodel.workflows.unreleased import Present
from gitmodel.workflows.workspace import NeedsWorkingTree, Workspace

if TYPE_CHECKING:
    from gitmodel.storage.remote import Progress

HEAD = "HEAD"
#: What in a model's folder is no part of the model, and was not made together with it.
_APART = (ALLOW_LIST, f"{CONSUMERS}/")


class NothingToCompare(GitmodelError):
    """A check was asked for where there are not two sides."""

    code = "nothing-to-compare"


def check_compat(
    old: str,
    new: str,
    *,
    repo: Path | str = ".",
    profile: str = DEFAULT_PROFILE,
    mode: Mode | str = Mode.BACKWARD,
    remote: str = "",
    today: date | None = None,
    progress: Progress | None = None,
    models: Opens | None = None,
) -> Report:
    """Judges NEW against OLD, two references or model files. A mistake in a reference raises; a model that cannot be
    run gives the verdict ``unjudged``. In mode ``transitive`` the worst of all reports is returned.

    Weights are fetched as OLD's commit and the user's own configuration say, or from ``remote``, a name or URL.
    ``models`` are the sandboxes that models are opened in.
    """
    reports = check_all(
        old, new, repo=repo, profile=profile, mode=mode, remote=remote, today=today, progress=progress, models=models
    )
    return worst(reports)


def check_all(
    old: str,
    new: str,
    *,
    repo: Path | str = ".",
    profile: str = DEFAULT_PROFILE,
    mode: Mode | str = Mode.BACKWARD,
    remote: str = "",
    today: date | None = None,
    progress: Progress | None = None,
    models: Opens | None = None,
) -> list[Report]:
    """As ``check_compat``: one report, in mode ``transitive`` one per version that counts, OLD's first."""
    asked = Terms(profile, Mode(mode), today)
    with models or Models() as sandboxes:
        sandboxes.read_soon(Path(reference) for reference in (old, new) if registry.is_file(reference))
        place = _place(Path(repo), remote, progress)
        sides: list[Bundle] = []
        for reference in (old, new):
            try:
                sides.append(registry.resolve(place.repo if place else None, reference, sandboxes.describe))
            except (InvalidModel, SandboxFailed, SandboxIncomplete, OutOfMemory) as error:
                if not Path(reference).exists():
                    raise
                return [_unread(old, new, asked, error)]
        try:
            return list(_against_all(place, sides[0], sides[1], asked, sandboxes))
        except GitmodelError as error:
            return [_unjudged(sides[1].name, sides[0], sides[1], asked, str(error))]


def check_changed(
    repo: Path | str = ".",
    *,
    against: str = "",
    profile: str = DEFAULT_PROFILE,
    mode: Mode | str = Mode.BACKWARD,
    remote: str = "",
    today: date | None = None,
    progress: Progress | None = None,
    models: Opens | None = None,
) -> list[Report]:
    """Judges every model of the working tree that differs from its latest release. With a revision ``against``, NEW is the
    commit checked out, HEAD, as Git has it, OLD what that revision has.

    A model that is new is judged by itself, one that is gone is a break. Raises NothingToCompare when there is no model
    at all.
    """
    asked, place = Terms(profile, Mode(mode), today), _place(Path(repo), remote, progress)
    if place is None:
        Repository.open(Path(repo))  # says what is wrong
        raise NothingToCompare("there is no repository here", hint="name two model files")
    trusted = place.trusting(place.repo.commit_of(against) if against else "")
    sides = _commits(place.repo, against, asked) if against else _worktree(place.repo)
    sandboxes = models or Models()
    return [report for name, old, new in sides for report in _judged(trusted, name, old, new, asked, sandboxes)]


def worst(reports: list[Report]) -> Report:
    """The one that decides."""
    return max(reports, key=lambda report: (report.exit_code, report.required_bump))


def uncommitted(repo: Path | str = ".") -> list[str]:
    """The models of the working tree with changes that no commit has: with ``against`` they are not judged."""
    found = Repository.open(Path(repo))
    paths = [] if found.bare else found.dirty(registry.MODELS)
    return sorted({path.split("/")[1] for path in paths if path.count("/") > 1})


#: A model's name, its OLD and its NEW.
Sides = Iterator[tuple[str, Bundle | None, Bundle | None]]


def _commits(repo: Repository, against: str, asked: Terms) -> Sides:
    """Both sides of every model that HEAD's branch changes; None where one has no such model.

    NEW is what a merge would make of it: what the base has changed since the branch left it is not the branch's doing.
    """
    base, head = repo.commit_of(against), repo.commit_of(HEAD)
    common = repo.merge_base(base, head) or base
    asked.merging(repo, head, base, common)
    before, after = registry.trees(repo, base), registry.trees(repo, head)
    left = before if common == base else registry.trees(repo, common)
    if not before and not after:
        raise NothingToCompare("there is no model here", hint="run 'gitmodel save NAME FILE' first")
    names = sorted({*before, *after, *left})
    changed = [n for n in names if after.get(n) not in (before.get(n), left.get(n))]
    good = [name for name in changed if is_name(name)]
    olds = registry.bundles_at(repo, base, (name for name in good if name in before), against)
    news = registry.bundles_at(repo, head, (name for name in good if name in after), HEAD)
    moved = [name for name in good if name in news and name in olds and before[name] != left.get(name)]
    for name, origin in registry.bundles_at(repo, common, moved, against).items():
        news[name] = registry.merged(news[name], olds[name], origin, _APART)
    for name in changed:
        old, new = olds.get(name), news.get(name)
        if old or new or (name not in good and registry.holds(repo, head, name)):
            yield name, old, new


def _worktree(repo: Repository) -> Sides:
    """Both sides of every model of the working tree that differs from its latest release."""
    if repo.bare:
        raise NeedsWorkingTree(f"{repo.root} is a bare repository", hint="name two revisions, or one with --against")
    newest = {name: found.latest for name, found in registry.all_versions(repo).items()}
    here = registry.models(repo)
    if not here and not any(newest.values()):
        raise NothingToCompare("there is no model here", hint="run 'gitmodel save NAME FILE' first")
    present = Present(repo)
    for name in sorted({*newest, *here}):
        base = newest.get(name)
        new = registry.working_bundle(repo, name) if name in here else None
        if base is None and new is not None:
            registry.refuse_shallow(repo, f"{name} has no version to be judged against")
            yield name, None, new
        elif base is not None and (new is None or present.differs(name, base.ref.commit)):
            yield name, registry.bundle_at(repo, name, base.ref.commit, str(base.tag)), new


def _judged(
    place: Workspace, name: str, old: Bundle | None, new: Bundle | None, asked: Terms, models: Opens
) -> Iterator[Report]:
    try:
        check_name(name)
        if old is not None and new is not None:
            yield from _against_all(place, old, new, asked, models)
        elif new is not None:
            first = judge_first(place, new, asked.profile, models=models)
            yield placed(place, replace(first, mode=str(asked.mode)), None, new)
        elif old is not None:
            yield placed(place, settle(_gone(old, asked.profile), gather(place.repo, old, None, asked)), old, None)
    except GitmodelError as error:
        # What cannot be read is no reason to say nothing of the other models.
        yield _unjudged(name, old, new, asked, str(error))


def _against_all(place: Workspace | None, old: Bundle, new: Bundle, asked: Terms, models: Opens) -> Iterator[Report]:
    """NEW against OLD and, in mode ``transitive``, against each other version a stage is on; OLD's terms count for all."""
    trusted = place.trusting(old.commit) if place else None
    policy = gather(place.repo if place else None, old, new, asked)
    report = _counted(place, judge(trusted, old, new, profile=asked.profile, models=models), old)
    yield placed(place, settle(report, policy), old, new)
    for other in _staged(place, old, new) if asked.mode is Mode.TRANSITIVE else ():
        report = judge(trusted, other, new, profile=asked.profile, models=models)
        yield placed(place, settle(report, _of_stage(policy, other)), other, new)


def _counted(place: Workspace | None, report: Report, old: Bundle) -> Report:
    """The report with the version to count from, where OLD is a revision with the latest release's very bundle: what else
    was merged since may owe a bump of its own."""
    if place is None or report.base is not None or not old.commit:
        return report
    released, path = registry.versions(place.repo, old.name).latest, registry.model_path(old.name)
    if released is None:
        return report
    same = place.repo.folder(old.commit, path).object_id == place.repo.folder(released.ref.commit, path).object_id
    return replace(report, base=released.version) if same else report


def _of_stage(policy: Policy, other: Bundle) -> Policy:
    """The list of the base counts; whether its entries are good for something was looked at there."""
    lists = replace(policy.lists, kept=AllowList())
    return replace(policy, lists=lists, changes=(), signature=other.signature)


def _staged(place: Workspace | None, old: Bundle, new: Bundle) -> Iterator[Bundle]:
    if place is None or new.file is not None:
        return
    seen = {old.commit, new.commit}
    for stage, move in sorted(registry.stages(place.repo, new.name).items()):
        if move.ref.commit not in seen and registry.holds(place.repo, move.ref.commit, new.name):
            seen.add(move.ref.commit)
            yield registry.bundle_at(place.repo, new.name, move.ref.commit, f"{new.name}#{stage}")


def _unjudged(name: str, old: Bundle | None, new: Bundle | None, asked: Terms, why: str) -> Report:
    before, after = (rules.plain(bundle.label) if bundle else NOTHING for bundle in (old, new))
    return Report(
        rules.plain(name), before, after, asked.profile, (), len(rules.names()), 0, unjudged=rules.plain(why),
        bump=owed([]), mode=str(asked.mode),
    )  # fmt: skip


def _unread(old: str, new: str, asked: Terms, error: GitmodelError) -> Report:
    """The report on files one of which cannot even be read."""
    from gitmodel.compat import limits

    findings = tuple(rules.judge(change) for change in limits.why_not(error, None))
    name = Path(new).stem if registry.is_file(new) else new
    return Report(
        rules.plain(name), rules.plain(old), rules.plain(new), asked.profile, findings, len(rules.names()), 0,
        unjudged=rules.plain(error), bump=owed(findings), mode=str(asked.mode),
    )  # fmt: skip


def _gone(old: Bundle, profile: str) -> Report:
    finding = rules.judge(Change("model-removed", "model", old.name, None, {"name": old.name}))
    return Report(old.name, old.label, NOTHING, profile, (finding,), len(rules.names()), 0, bump=owed([finding]))


def _place(repo: Path, remote: str, progress: Progress | None) -> Workspace | None:
    """The repository around ``repo``, if there is one: two bare files need none."""
    try:
        found = Repository.open(repo)
    except NotARepository:
        return None
    return Workspace(found, remote, progress)
