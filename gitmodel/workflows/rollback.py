"""``rollback``: puts a stage back on the version it stood on before. History is read from the tags, and goes on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct

from gitmodel import registry
from gitmodel.errors import GitmodelError
from gitmodel.git import Repository
from gitmodel.registry import PROD
from gitmodel.versions import Version, check_name
from gitmodel.workflows.release import promote


class NothingBefore(GitmodelError):
    """There is no version to go back to."""

    code = "nothing-before"


class RolledBack(Struct, frozen=True):
    """``tag`` is the move; ``version`` is where the stage stands now, ``left`` where it stood; ``pushed`` what Git said."""

    tag: str
    version: str
    left: str
    pushed: str


def rollback(name: str, stage: str = PROD, *, repo: Path | str = ".", message: str = "", push: str = "") -> RolledBack:
    """Puts ``stage`` back on what it stood on before, past versions that were withdrawn since. ``prod``, while it was never
    put anywhere, stands on the latest release, which is what a server follows then.

    Raises NothingBefore, UnknownModel, InvalidName, NotARepository.
    """
    check_name(name)
    check_name(stage, "stage")
    repository = Repository.open(Path(repo))
    try:
        left, target = _way(repository, name, stage)
    finally:
        repository.close()
    if target is None:
        raise NothingBefore(
            f"there is nothing to roll {name}#{stage} back to: {left}",
            hint=f"put it on a version with 'gitmodel promote {name}@VERSION {stage}'",
        )
    text = message or f"Roll {stage} of {name} back from {left}"
    tag, version, pushed = promote(f"{name}@{target}", stage, repo=repo, message=text, push=push)
    return RolledBack(tag, version, left, pushed)


def _way(repository: Repository, name: str, stage: str) -> tuple[str, Version | None]:
    """Where the stage stands, in words, and the version it goes back to; None when there is none, and then the words say
    why."""
    releases = registry.versions(repository, name).releases
    if not releases:
        registry.working_bundle(repository, name)  # says so when there is no such model
    moves = [move for move in registry.stage_moves(repository, name, releases) if move.tag.stage == stage]
    if not moves:
        finished = [release.version for release in releases if not release.version.pre]
        if stage != PROD or len(finished) < 2:
            why = "it was never put on a version" if stage != PROD else "there is one release, or none"
            return why, None
        return str(finished[-1]), finished[-2]
    there = {release.version for release in releases}
    path = _path([move.version for move in moves if move.version in there and not move.tag.cancelled])
    last = moves[-1]
    if last.tag.cancelled or last.version not in there:  # what it was on is gone, so it goes to what it was on before
        left = "nothing" if last.tag.cancelled else "a version that was withdrawn"
        return (left, path[-1]) if path else (f"it is on {left}, and was on no other", None)
    return (str(path[-1]), path[-2]) if len(path) > 1 else (f"it is on {path[-1]} since its first move", None)


def _path(versions: Sequence[Version | None]) -> list[Version]:
    """The versions to go back through, the last one last: a move back to one of them forgets those after it, so that the next
    rollback goes further back and not to and fro."""
    path: list[Version] = []
    for version in versions:
        if version is None:
            continue
        if version in path:
            del path[path.index(version) :]
        path.append(version)
    return path
