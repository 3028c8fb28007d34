"""``checkout``: a model's folder becomes that of a version; other models and the branch stay as they are."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path

from gitmodel import registry
from gitmodel.bundle.bundle import WEIGHTS
from gitmodel.bundle.lock import InvalidLock
from gitmodel.storage.remote import Progress
from gitmodel.storage.workspace import WouldLose, plan
from gitmodel.workflows.store import lock_in
from gitmodel.workflows.workspace import Workspace


@dataclass(frozen=True)
class CheckedOut:
    """``files`` is how many weight files had to be rewritten."""

    label: str
    commit: str
    files: int


def checkout(reference: str, *, repo: Path | str = ".", progress: Progress | None = None) -> CheckedOut:
    """Raises WouldLose before touching anything when the folder has work that was not saved or committed."""
    place = Workspace.open(Path(repo), progress=progress)
    with place.repo.lock():
        bundle = registry.resolve(place.repo, reference)
        path = registry.model_path(bundle.name)
        if not bundle.commit and reference != bundle.name:
            raise registry.UnknownModel(
                f"{reference} is not in this repository", hint="name one of its models or versions"
            )
        if bundle.commit:
            _refuse_loss(place, bundle.name, path)
        place.supply.ensure(bundle.lock.files, bundle.label, progress)
        folder, before = place.repo.root / path, None
        with contextlib.suppress(InvalidLock):  # a damaged one is what a checkout mends
            before = lock_in(folder)
        layout = plan(bundle.lock, place.cache, folder / WEIGHTS, before)
        if bundle.commit:
            place.repo.checkout_paths(bundle.commit, path)
        place.cache.add_directory(bundle.lock.files)
        return CheckedOut(bundle.label, bundle.commit, layout.apply())


def _refuse_loss(place: Workspace, name: str, path: str) -> None:
    """What is staged may go when it is a committed version: that is what an earlier checkout left."""
    weights = f":(exclude){path}/{WEIGHTS}"  # looked at file by file, by ``plan``
    dirty = place.repo.dirty(path, weights)
    if not dirty:
        return
    staged = place.repo.staged_tree(path, weights)
    commits = [place.repo.head(), *(release.ref.commit for release in registry.releases(place.repo, name))]
    if not staged or staged not in {place.repo.folder(commit, path).object_id for commit in commits if commit}:
        raise WouldLose(f"{dirty[0]} has changes that are not committed", hint="commit or discard them first")
