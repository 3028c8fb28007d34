"""``rollback``: puts a stage back on the version it stood on before. History is read from the tags, and goes on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from msgspec import Struct

from gitmodel import registry
from gitmodel.errors import GitmodelError
from gitmodel.git import Repository
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


def rollback(
    name: str, stage: str = "prod", *, repo: Path | str = ".", message: str = "", push: str = ""
) -> RolledBack:
    """Puts ``stage`` back on what it stood on before, past versions that were withdrawn since. A stage that was never put
    anywhere stands on the latest release, which is what a server follows then.

    Raises NothingBefore, UnknownModel, InvalidName, NotARepository.
    """
    check_name(name)
    check_name(stage, "stage")
    repository = Repository.open(Path(repo))
    try:
        stood = _stood(repository, name, stage)
    finally:
        repository.close()
    if len(stood) < 2:
        where = f"it is on {stood[0]} since its first move" if stood else "it has no release"
        raise NothingBefore(
            f"there is nothing to roll {name}#{stage} back to: {where}",
            hint=f"put it on a version with 'gitmodel promote {name}@VERSION {stage}'",
        )
    text = message or f"Roll {stage} of {name} back from {stood[-1]}"
    tag, version, pushed = promote(f"{name}@{stood[-2]}", stage, repo=repo, message=text, push=push)
    return RolledBack(tag, version, str(stood[-1]), pushed)


def _stood(repository: Repository, name: str, stage: str) -> list[Version]:
    """The versions to go back through, the present one last: a move back to one of them forgets those after it, so that the
    next rollback goes further back and not to and fro."""
    releases = registry.releases(repository, name)
    if not releases:
        registry.working_bundle(repository, name)  # says so when there is no such model
    there = {release.version for release in releases}
    moves = [move for move in registry.stage_moves(repository, name) if move.tag.stage == stage]
    if not moves:
        return [release.version for release in releases if not release.version.pre]
    return _path([move.version for move in moves if move.version in there and not move.tag.cancelled])


def _path(versions: Sequence[Version | None]) -> list[Version]:
    path: list[Version] = []
    for version in versions:
        if version is None:
            continue
        if version in path:
            del path[path.index(version) :]
        path.append(version)
    return path
