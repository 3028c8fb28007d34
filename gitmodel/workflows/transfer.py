"""``push``, ``pull``: weights to and from the DVC remote, only what is missing there or here."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from gitmodel import registry
from gitmodel.bundle.bundle import WEIGHTS, Bundle
from gitmodel.git import GitFailed, Repository
from gitmodel.storage.remote import Progress
from gitmodel.storage.workspace import missing_weights, plan
from gitmodel.workflows.workspace import Workspace


@dataclass(frozen=True)
class Moved:
    """How many bundles were looked at, and how many objects had to move."""

    bundles: int
    objects: int
    remote: str


def push(
    references: Sequence[str] = (), *, repo: Path | str = ".", remote: str = "", progress: Progress | None = None
) -> Moved:
    """Sends the weights of these references, or of every model and every version here. Raises NoRemote, RemoteFailed."""
    place = Workspace.open(Path(repo), remote=remote, progress=progress)
    bundles = _bundles(place.repo, references) if references else [*_current(place.repo), *_released(place.repo)]
    place.remote  # noqa: B018  # a missing remote is said before anything else
    distinct = _distinct(bundles)
    return Moved(len(distinct), sum(push_bundle(place, bundle) for bundle in distinct), place.remote.name)


def pull(
    references: Sequence[str] = (), *, repo: Path | str = ".", remote: str = "", progress: Progress | None = None
) -> Moved:
    """Brings the weights of these references, or of every model of the working tree, and lays the latter out.

    Raises NoRemote, RemoteFailed, MissingWeights.
    """
    place = Workspace.open(Path(repo), remote=remote, progress=progress)
    bundles = _bundles(place.repo, references) if references else _current(place.repo)
    moved = 0
    with place.repo.lock():
        for bundle in bundles:
            missing = [entry for entry in bundle.lock.files if not place.cache.has(entry)]
            moved += len({entry.md5 for entry in missing})
            place.supply.ensure(bundle.lock.files, bundle.label, progress)
            place.cache.add_directory(bundle.lock.files)
            if not bundle.commit:
                plan(bundle.lock, place.cache, place.repo.root / registry.model_path(bundle.name) / WEIGHTS).apply()
    return Moved(len(bundles), moved, place.remote_name)


def push_bundle(place: Workspace, bundle: Bundle) -> int:
    """Sends one bundle's files, then DVC's listing of them. Raises MissingWeights when they are not here."""
    if missing := [entry for entry in bundle.lock.files if not place.cache.has(entry)]:
        raise missing_weights(missing, bundle.label)
    directory = place.cache.add_directory(bundle.lock.files)
    # Only what is about to leave is hashed: an object damaged here must not spread.
    place.supply.verify(place.remote.lacks(bundle.lock.files))
    return place.remote.push(place.cache, [directory], place.progress)


def push_refs(repo: Repository, remote: str, tag: str) -> str:
    """Sends the current branch and the tag; the tag never arrives before its commit. Returns Git's words."""
    branch = repo.branch()
    return _push(repo, remote, [f"refs/heads/{branch}"] if branch else [], [tag])


def push_tags(repo: Repository, remote: str, *tags: str) -> str:
    """Sends tags alone: a branch may hold commits that nobody meant to send. Returns Git's words."""
    return _push(repo, remote, [], tags)


def _push(repo: Repository, remote: str, refs: Sequence[str], tags: Sequence[str]) -> str:
    try:
        return repo.push(remote, [*refs, *(f"refs/tags/{tag}" for tag in tags)])
    except GitFailed as error:
        names = " ".join(f"'{tag}'" for tag in tags)
        raise GitFailed(
            f"{names} is made here but not pushed ({error.message})",
            hint=f"mend that and run: git push {remote} HEAD {names}",
        ) from error


def _bundles(repo: Repository, references: Sequence[str]) -> list[Bundle]:
    return [registry.resolve(repo, reference) for reference in references]


def _current(repo: Repository) -> list[Bundle]:
    return [registry.working_bundle(repo, name) for name in registry.models(repo)]


def _released(repo: Repository) -> list[Bundle]:
    found = []
    for name, releases in registry.all_releases(repo).items():
        for release in releases:
            if name in registry.models(repo, release.ref.commit):
                found.append(registry.bundle_at(repo, name, release.ref.commit, str(release.tag)))
    return found


def _distinct(bundles: Iterable[Bundle]) -> list[Bundle]:
    return list({bundle.lock.digest: bundle for bundle in bundles}.values())
