"""``release``: the gate, then an annotated tag that carries the verdict. ``promote``: a stage put on a version."""

from __future__ import annotations

from collections.abc import Callable
from datetime import date
from pathlib import Path

from msgspec import Struct

from gitmodel import registry
from gitmodel.bundle.bundle import Bundle
from gitmodel.compat.modes import Mode
from gitmodel.compat.policy import settle
from gitmodel.compat.rules import plain
from gitmodel.compat.trusted import for_release
from gitmodel.compat.verdict import Report
from gitmodel.errors import ExitCode, GitmodelError
from gitmodel.storage import setup
from gitmodel.storage.remote import Progress
from gitmodel.versions import Bump, InvalidVersion, ReleaseTag, StageTag, Version, check_name
from gitmodel.workflows import judge, pushing, transfer
from gitmodel.workflows.places import is_shared
from gitmodel.workflows.policy import Terms, gather_for_release
from gitmodel.workflows.workspace import Workspace

AUTO = "auto"
FIRST = Version(1, 0, 0)


class NothingChanged(GitmodelError):
    """The model is what its latest version is."""

    code = "nothing-changed"


class VersionExists(GitmodelError):
    """Tags of releases never move."""

    code = "version-exists"


class Uncommitted(GitmodelError):
    """A version names a commit, so what it is to hold must be committed."""

    code = "uncommitted"


class GateRefused(GitmodelError):
    """The gate does not let the version pass; ``report`` says why."""

    code = "gate-refused"
    exit_code = ExitCode.INCOMPATIBLE

    def __init__(self, report: Report, version: Version) -> None:
        if report.unjudged:
            mend = "mend that first: what cannot be judged is not released"
        elif report.incurable:
            mend = "mend it first: no version number pays for this"
        else:
            mend = f"release it as {report.next_version}: 'gitmodel release {report.model} {report.required_bump}'"
        super().__init__(f"{report.model}@{version} is refused", hint=mend)
        self.report = report
        self.exit_code = report.exit_code


class Released(Struct, frozen=True):
    """The tag made, the commit it names, the gate's report (None when the tag was there and only had to be pushed), and
    what Git said while pushing. ``fleeting``: of the caches here only those of linked worktrees have its bytes, and they go with these."""

    tag: str
    commit: str
    report: Report | None
    pushed: str = ""
    fleeting: bool = False


def release(
    name: str,
    step: str = AUTO,
    *,
    repo: Path | str | Workspace = ".",
    message: str = "",
    sign: bool = False,
    push: str = "",
    mode: Mode | str = Mode.BACKWARD,
    today: date | None = None,
    progress: Progress | None = None,
    told: Callable[[Report], None] = lambda _: None,
) -> Released:
    """Tags the committed bundle as the next version. ``step`` is ``auto``, a bump or a version. ``push`` names a Git remote
    to send it to: weights, then the branch, then the tag; what is released already is only sent. ``mode`` may be ``full``;
    the allow-list that is committed counts, and on ``today`` its entries expire.

    Raises Uncommitted, NothingChanged, VersionExists, GateRefused, UnknownModel, InvalidVersion.
    """
    check_name(name)
    place = Workspace.of(repo, progress=progress)
    if push:
        place.repo.check_remote(push)
    with place.repo.lock():
        new, known = _bundle(place, name), registry.versions(place.repo, name)
        base = known.latest
        if base is None:
            registry.refuse_shallow(place.repo, f"{name} has no version to go on from")
        if base and place.repo.folder(base.ref.commit, registry.model_path(name)).object_id == new_id(place, name):
            if not push:
                raise NothingChanged(f"{name} is what {base.tag} is", hint="save something new before releasing it")
            # An earlier push may have ended after the tag was made.
            transfer.push_bundle(place, new)
            return Released(str(base.tag), base.ref.commit, None, pushing.push_release(place.repo, push, str(base.tag)))
        wanted = None if step == AUTO else _parse(step)
        _check_free(name, wanted, known)
        report, version = _gate(place, new, known, wanted, Terms(mode=Mode(mode), today=today))
        told(report)
        tag = ReleaseTag(name, version)
        if report.exit_code is not ExitCode.OK:
            raise GateRefused(report, version)
        if push:
            transfer.push_bundle(place, new)
        place.repo.tag(str(tag), _message(tag, message, new, report, base), commit=new.commit, sign=sign)
    pushed = pushing.push_release(place.repo, push, str(tag)) if push else ""
    return Released(str(tag), new.commit, report, pushed, not push and _is_fleeting(place, new))


def _is_fleeting(place: Workspace, bundle: Bundle) -> bool:
    if not place.repo.is_linked or is_shared(place):
        return False
    home = setup.open_caches(filter(None, [place.repo.home]))
    return not any(all(map(cache.has, bundle.lock.files)) for cache in home)


def new_id(place: Workspace, name: str) -> str:
    return place.repo.folder(place.repo.head(), registry.model_path(name)).object_id


def promote(
    reference: str, stage: str, *, repo: Path | str = ".", message: str = "", push: str = ""
) -> tuple[str, str, str]:
    """Puts ``stage`` on the version ``reference`` names; returns (tag, version, what Git said while pushing).

    The move is a tag of its own, so history stays. Raises UnknownVersion, NothingChanged.
    """
    check_name(stage, "stage")
    place = Workspace.open(Path(repo))
    if push:
        place.repo.check_remote(push)
    with place.repo.lock():
        bundle = registry.resolve(place.repo, reference)
        known = registry.versions(place.repo, bundle.name).releases
        release_here = next((release for release in reversed(known) if release.ref.commit == bundle.commit), None)
        if release_here is None:
            raise registry.UnknownVersion(
                f"{reference} is no released version", hint=f"run 'gitmodel release {bundle.name}' first"
            )
        moves = [move for move in registry.stage_moves(place.repo, bundle.name, known) if move.tag.stage == stage]
        if moves and moves[-1].ref.commit == bundle.commit and not moves[-1].tag.cancelled:
            raise NothingChanged(f"{bundle.name}#{stage} is on {release_here.version} already", hint="nothing to do")
        counter = max((move.tag.counter for move in moves), default=0) + 1
        tag = StageTag(bundle.name, stage, counter)
        text = message or f"{bundle.name} {release_here.version} to {stage}"
        body = f"{text}\n\nModel: {bundle.name}\nStage: {stage}\nVersion: {release_here.version}\n"
        if push:
            transfer.push_new(place, bundle, push, str(release_here.tag))  # never the version's tag without its bytes
        place.repo.tag(str(tag), body, commit=bundle.commit)
    pushed = pushing.push_stage(place.repo, push, str(release_here.tag), str(tag)) if push else ""
    return str(tag), str(release_here.version), pushed


def _bundle(place: Workspace, name: str) -> Bundle:
    head = place.repo.head()
    if not head:
        raise Uncommitted("there is no commit yet", hint=f"run 'gitmodel save {name} FILE -m MESSAGE'")
    if place.repo.dirty(registry.model_path(name)):
        raise Uncommitted(
            f"{name} has changes that are not committed", hint=f"commit {registry.model_path(name)}, or save with -m"
        )
    return registry.bundle_at(place.repo, name, head, name)


def _parse(step: str) -> Bump | Version:
    if step[:1].isdigit() or step[:1] == "v":
        return Version.parse(step)
    bump = Bump.parse(step)
    if bump is Bump.NONE:
        raise InvalidVersion("a release is a step", hint="use patch, minor, major, auto or a version")
    return bump


def _check_free(name: str, wanted: Bump | Version | None, known: registry.Versions) -> None:
    if not isinstance(wanted, Version):
        return
    if wanted in known.taken:
        raise VersionExists(f"{name}@{wanted} exists", hint="tags of releases never move; choose a higher version")
    if known.latest and wanted < known.latest.version:
        raise VersionExists(f"{name}@{wanted} is below {known.latest.tag}", hint="choose a higher version")


def _gate(
    place: Workspace, new: Bundle, known: registry.Versions, wanted: Bump | Version | None, asked: Terms
) -> tuple[Report, Version]:
    base, taken = known.latest, known.taken
    if base is None:
        report = judge.placed(place, judge.judge_first(place, new, models=for_release(new, place.sessions)), None, new)
        return report, wanted if isinstance(wanted, Version) else _free(FIRST, Bump.PATCH, taken)
    old = registry.bundle_at(place.repo, new.name, base.ref.commit, str(base.tag))
    if wanted is None:
        report = judge.judge(place, old, new, models=for_release(old, place.sessions))
        report = judge.placed(place, settle(report, gather_for_release(place.repo, old, new, asked, None)), old, new)
        bump = max(report.required_bump, Bump.PATCH)
        # By default the version takes the bump that is owed, so only what no bump pays for can stand in the way.
        return judge.declare(report, bump), _free(base.version.bumped(bump), bump, taken)
    version = wanted if isinstance(wanted, Version) else _free(base.version.bumped(wanted), wanted, taken)
    report = judge.judge(
        place, old, new, declared=version.bump_from(base.version), models=for_release(old, place.sessions)
    )
    terms = gather_for_release(place.repo, old, new, asked, version)
    return judge.placed(place, settle(report, terms), old, new), version


def _free(version: Version, bump: Bump, taken: set[Version]) -> Version:
    """The next number nobody has used: one that was withdrawn is not given out again."""
    while version in taken:
        version = version.bumped(bump)
    return version


def _message(tag: ReleaseTag, message: str, new: Bundle, report: Report, base: registry.Release | None) -> str:
    """Subject, the author's words, and a trailer block that ``git interpret-trailers`` reads."""
    trailers = {
        "Gitmodel-Schema": "1",
        "Model": tag.model,
        "Version": str(tag.version),
        "Weights": f"sha256:{new.lock.digest}",
        "Verdict": str(report.verdict),
        "Required-Bump": str(report.required_bump),
        "Cases-Run": str(report.cases_run),
        "Base": str(base.version) if base else "none",
    }
    if report.mode != Mode.BACKWARD:
        trailers["Mode"] = report.mode
    lines = [f"{key}: {value}" for key, value in trailers.items()]
    # One line for each break that was let through, so that the tag says what it was made over.
    lines += [f"Allowed: {f.fingerprint} {f.rule} {plain(f.at)}" for f in report.findings if f.allowed]
    block = "\n".join(lines)
    words = f"{message}\n\n" if message else ""
    return f"{tag.model} {tag.version}\n\n{words}{block}\n"
