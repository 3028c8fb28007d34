"""Where a repository's bytes lie, for the verbs that look after them: its cache, its remotes, other places at hand."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from gitmodel.storage import setup
from gitmodel.storage.depot import Folder, folder_at
from gitmodel.storage.remote import NoRemote, Remote
from gitmodel.storage.settings import config_from_text, is_url, load_config, remote_config
from gitmodel.workflows.workspace import Workspace

CACHE = "the DVC cache"


def cache_of(place: Workspace) -> Folder:
    """Raises NeedsWorkingTree, NotInitialised."""
    return Folder(place.cache.objects, CACHE)


def is_shared(place: Workspace) -> bool:
    """Whether the cache lies outside the repository, where others may keep theirs, too."""
    return not place.cache.root.resolve().is_relative_to(place.repo.root)


def remote_of(place: Workspace, name: str = "") -> Remote:
    """A DVC remote by name or URL; by name, of a bare repository as its HEAD names it. Raises NoRemote."""
    if is_url(name):
        return Remote(remote_config(None, "", name))
    if not place.repo.bare:
        return Remote(load_config(place.repo.root / setup.DVC_DIR), name)
    head = place.repo.head()
    text = place.repo.folder(head).read(f"{setup.DVC_DIR}/config") if head else None
    if text is None:
        raise NoRemote(f"HEAD of {place.repo.root} has no .dvc/config", hint="run this in a clone of it")
    return Remote(config_from_text(text.decode(errors="replace")), name)


def remotes_named(place: Workspace) -> bool:
    """Whether DVC knows of any remote, so that what is not here may be there."""
    return bool(load_config(place.repo.root / setup.DVC_DIR)["remote"])


def others(place: Workspace, named: Iterable[Path | str]) -> list[Folder]:
    """The folders a person named, and the store of a server that runs here. Raises NoCache."""
    store = place.repo.state_dir / "store" / "files" / "md5"
    found = [folder_at(Path(path)) for path in named]
    return [*found, Folder(store, "the server's store")] if store.is_dir() else found
