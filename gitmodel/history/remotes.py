"""What a repository's Git remotes name right now: other people's commits may need weights that nothing here does."""

from __future__ import annotations

from collections.abc import Sequence

from gitmodel.errors import GitmodelError
from gitmodel.git import GitFailed, Repository


class PartialHistory(GitmodelError):
    """A part of the history is not here, and it may name what is to go."""

    code = "partial-history"


def heads(repo: Repository) -> list[str]:
    """Commits and tags that its Git remotes name, all of them known here. Raises PartialHistory when one is not, or a
    remote does not answer."""
    found: list[str] = []
    for name in repo.run("remote").splitlines():
        try:
            told = repo.run("ls-remote", "--", name, env={"GIT_TERMINAL_PROMPT": "0"})
        except GitFailed as error:
            raise PartialHistory(
                f"the Git remote '{name}' cannot be asked what it holds ({error.message})",
                hint="what others have pushed there may need these weights: mend it, or remove it",
            ) from error
        oids = sorted({line.split("\t")[0] for line in told.splitlines()})
        kinds = _kinds(repo, oids)
        if unknown := [oid for oid in oids if oid not in kinds]:
            raise PartialHistory(
                f"the Git remote '{name}' has {len(unknown)} refs that are not here",
                hint=f"run 'git fetch --tags {name}': what others have pushed may need these weights",
            )
        found += [oid for oid, kind in kinds.items() if kind in ("commit", "tag")]
    return found


def _kinds(repo: Repository, oids: Sequence[str]) -> dict[str, str]:
    """What each object is; those that are not here are left out."""
    told = repo.run_on(oids, "cat-file", "--batch-check=%(objectname) %(objecttype)").decode()
    return dict(line.split(" ") for line in told.splitlines() if not line.endswith(" missing"))
