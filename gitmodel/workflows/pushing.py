"""Sends the branch and the tags of a version to a Git remote, and says what helps when they are not taken. No weights."""

from __future__ import annotations

import contextlib

from gitmodel.git import GitFailed, Repository

_NOTHING_NEW = "Everything up-to-date"
#: Tells the pre-push hook that the weights are there already.
_SENT = {"GITMODEL_WEIGHTS": "sent"}


def push_release(repo: Repository, remote: str, tag: str) -> str:
    """Sends the current branch and then the tag, which stays here when the branch is refused. Returns Git's words.
    Raises GitFailed."""
    branch = repo.branch()
    try:
        return _push(repo, remote, *([f"refs/heads/{branch}"] if branch else []), f"refs/tags/{tag}")
    except GitFailed as error:
        not_pushed = f"'{tag}' is made here but not pushed"
        if others := _others(repo, remote, tag):
            raise GitFailed(f"{not_pushed}: {others}", hint=_release_anew(repo, remote, tag)) from error
        raise GitFailed(
            f"{not_pushed} ({error.message})",
            hint=f"mend that and run: git push {remote} HEAD && git push {remote} '{tag}'",
        ) from error


def push_stage(repo: Repository, remote: str, version: str, stage: str) -> str:
    """Sends the tag of a version and that of a stage put on it, alone: a branch may hold commits that nobody meant to send.
    Returns Git's words. Raises GitFailed."""
    try:
        return _push(repo, remote, f"refs/tags/{version}", f"refs/tags/{stage}")
    except GitFailed as error:
        not_pushed, back = f"'{stage}' is made here but not pushed", f"git tag -d '{stage}'"
        if others := _others(repo, remote, version):
            mend = f"take it back ({back}), and of the version: {_release_anew(repo, remote, version)}"
            raise GitFailed(f"{not_pushed}: {others}", hint=mend) from error
        if others := _others(repo, remote, stage):
            mend = f"the stage was moved by somebody else: {back} && git fetch --tags {remote}, then move it again"
            raise GitFailed(f"{not_pushed}: {others}", hint=mend) from error
        again = f"git push {remote} '{version}' && git push {remote} '{stage}'"
        raise GitFailed(
            f"{not_pushed} ({error.message})", hint=f"mend that and run: {again}; or take it back: {back}"
        ) from error


def has_version(repo: Repository, remote: str, tag: str) -> bool:
    """Whether the remote has the tag of a version. Raises GitFailed when it has another one of that name."""
    found = _remote_tag(repo, remote, tag)
    if others := _another(repo, remote, tag, found):
        raise GitFailed(others, hint=_release_anew(repo, remote, tag))
    return bool(found)


def _push(repo: Repository, remote: str, *refs: str) -> str:
    """One after the other, so that none arrives without those before it."""
    said = [repo.push(remote, [ref], _SENT) for ref in refs]
    return "\n".join(words for words in said if words and words != _NOTHING_NEW)


def _others(repo: Repository, remote: str, tag: str) -> str:
    """Says whose the tag is at a remote that has refused something; '' when it may be ours, or nobody answers."""
    with contextlib.suppress(GitFailed):
        return _another(repo, remote, tag, _remote_tag(repo, remote, tag))
    return ""


def _another(repo: Repository, remote: str, tag: str, found: tuple[str, str] | None) -> str:
    if found is None or found[0] == repo.run("rev-parse", f"refs/tags/{tag}"):
        return ""
    return f"{remote} has another tag '{tag}', on {found[1][:10]}"


def _remote_tag(repo: Repository, remote: str, tag: str) -> tuple[str, str] | None:
    """The ids of a remote's tag and of what it stands on."""
    ref = f"refs/tags/{tag}"
    listing = repo.run("ls-remote", "--", remote, ref, f"{ref}^{{}}")
    ids = {name: oid for oid, _, name in (line.partition("\t") for line in listing.splitlines())}
    return (ids[ref], ids.get(f"{ref}^{{}}", ids[ref])) if ref in ids else None


def _release_anew(repo: Repository, remote: str, tag: str) -> str:
    branch = repo.branch()
    # Tags come along unasked only with the branch's own remote.
    bring = f"git pull --tags {remote} {branch} (--rebase or --no-rebase)" if branch else f"git fetch --tags {remote}"
    return f"the number is taken: git tag -d '{tag}', {bring}, then release again"
