"""What the ``pre-push`` hook does: the weights of release tags are at the DVC remote before the tags are at the Git remote."""

from __future__ import annotations

from collections.abc import Iterable

from gitmodel import registry
from gitmodel.bundle.bundle import Bundle
from gitmodel.errors import GitmodelError
from gitmodel.git import Repository, UnknownRevision
from gitmodel.hooks.telling import Say, tag_of
from gitmodel.storage.remote import NoRemoteSet
from gitmodel.storage.setup import NotInitialised
from gitmodel.versions import ReleaseTag
from gitmodel.workflows import transfer
from gitmodel.workflows.workspace import Workspace


class NotSent(GitmodelError):
    """Weights that did not arrive, so that the tags that need them stay here."""

    code = "not-sent"


def before_push(repo: Repository, lines: Iterable[str], say: Say) -> None:
    """Sends the weights of the versions whose tags these ``local-ref local-oid remote-ref remote-oid`` lines push. Without a
    DVC remote there is nowhere to send them to, and the push goes on. Raises NotSent, and Git pushes nothing."""
    bundles = [bundle for line in lines if (bundle := _pushed(repo, line)) is not None]
    if not bundles:
        return
    names = ", ".join(bundle.label for bundle in bundles)
    try:
        moved = transfer.push_bundles(Workspace.reading(repo.root), bundles)
    except (NoRemoteSet, NotInitialised) as error:
        say(f"the weights of {names} are not sent: {error.message}")
        return
    except GitmodelError as error:
        raise NotSent(
            f"the weights of {names} could not be sent, so nothing is pushed ({error.message})",
            hint="mend that and push again; 'git push --no-verify' pushes without them",
        ) from error
    if moved.objects:
        say(f"sent the weights of {names}: {moved.size / 1e6:,.1f} MB new")


def _pushed(repo: Repository, line: str) -> Bundle | None:
    """The version that a line pushes the tag of; None when it pushes anything else, or a tag without its model."""
    fields = line.rsplit(None, 3)  # what is pushed may be called 'main@{1 hour ago}'
    if len(fields) != 4 or not fields[1].strip("0"):
        return None
    tag = tag_of(fields[2])
    if not isinstance(tag, ReleaseTag) or tag.cancelled:
        return None
    try:
        commit = repo.commit_of(fields[1])
    except UnknownRevision:  # somebody's tag on something else
        return None
    return registry.bundle_at(repo, tag.model, commit, str(tag)) if registry.holds(repo, commit, tag.model) else None
