"""``checkout``: a model's folder becomes that of a version; other models and the branch stay as they are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from gitmodel import registry
from gitmodel.bundle.bundle import LOCK, WEIGHTS
from gitmodel.errors import GitmodelError
from gitmodel.storage.remote import Progress
from gitmodel.storage.workspace import materialize, unsaved
from gitmodel.workflows.workspace import Workspace


class WouldLose(GitmodelError):
    """Work that is nowhere else would be overwritten."""

    code = "would-lose"


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
        if bundle.commit:
            _refuse_loss(place, bundle.name, path)
        place.supply.ensure(bundle.lock.files, bundle.label, progress)
        if bundle.commit:
            place.repo.checkout_paths(bundle.commit, path)
        place.cache.add_directory(bundle.lock.files)
        files = materialize(bundle.lock, place.cache, place.repo.root / path / WEIGHTS)
        return CheckedOut(bundle.label, bundle.commit, files)


def _refuse_loss(place: Workspace, name: str, path: str) -> None:
    if dirty := place.repo.dirty(path):
        raise WouldLose(f"{dirty[0]} has changes that are not committed", hint="commit or discard them first")
    folder = place.repo.root / path
    if not (folder / LOCK).is_file():
        return
    lost = unsaved(registry.working_bundle(place.repo, name).lock, folder / WEIGHTS)
    if lost:
        raise WouldLose(
            f"{path}/{WEIGHTS}/{lost[0]} was changed since it was saved", hint="save the model, or remove that file"
        )
