"""``checkout``: a model's folder becomes that of a version; other models and the branch stay as they are."""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct

from gitmodel import registry
from gitmodel.bundle.bundle import WEIGHTS, Bundle
from gitmodel.files import storing
from gitmodel.storage import setup
from gitmodel.storage.remote import Progress
from gitmodel.storage.workspace import WouldLose, plan, refuse_links
from gitmodel.workflows.store import lock_before
from gitmodel.workflows.workspace import Workspace


class CheckedOut(Struct, frozen=True):
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
            place.repo.check_unlocked()
            _refuse_loss(place, bundle, path)
            refuse_links(
                place.repo.root / path, (place.repo.root / name for name in place.repo.blobs(bundle.commit, path))
            )
        place.supply.ensure(bundle.lock.files, bundle.label, progress)
        folder = place.repo.root / path
        layout = plan(bundle.lock, place.cache, folder / WEIGHTS, lock_before(folder))
        place.cache.add_directory(bundle.lock.files)  # before the pointer that names it
        if bundle.commit:
            with storing(str(folder)):
                place.repo.checkout_folder(bundle.commit, path, place.repo.root / setup.DVC_DIR / "tmp")
        written = layout.apply()
        place.cache.digests.flush()
        return CheckedOut(bundle.label, bundle.commit, written)


def _refuse_loss(place: Workspace, bundle: Bundle, path: str) -> None:
    """What is not committed may go when its very bytes are: that is what an earlier checkout left, or half of one."""
    dirty = place.repo.dirty(path, f":(exclude){path}/{WEIGHTS}")  # weights are looked at file by file, by ``plan``
    if not dirty:
        return
    unknown = place.repo.contents(dirty)
    releases = reversed(registry.versions(place.repo, bundle.name).releases)
    for commit in (place.repo.head(), bundle.commit, *(release.ref.commit for release in releases)):
        committed = place.repo.blobs(commit, path) if commit else {}
        unknown = {name: ids - {committed.get(name, "")} for name, ids in unknown.items()}
        unknown = {name: ids for name, ids in unknown.items() if ids}
        if not unknown:
            return
    raise WouldLose(f"{min(unknown)} has changes that are not committed", hint="commit or discard them first")
