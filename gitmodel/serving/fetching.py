"""Brings a version's files here, and vouches for them: from Git, the DVC cache or a remote into a store of the server's own."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from msgspec import structs

from gitmodel import registry
from gitmodel.bundle.bundle import Bundle, NotServable
from gitmodel.bundle.lock import FileEntry
from gitmodel.files import storing, sweep
from gitmodel.git import Repository
from gitmodel.serving import validation
from gitmodel.serving.opening import Fetched, state_of
from gitmodel.serving.policy import AspiredVersion
from gitmodel.storage import setup
from gitmodel.storage.cache import Cache
from gitmodel.storage.remote import Remote
from gitmodel.storage.settings import committed_config, config_for_url, remote_config
from gitmodel.storage.supply import Supply
from gitmodel.storage.workspace import MissingWeights


class Fetcher:
    """Fetches versions of one repository into a store: immutable, content-addressed, read-only.

    ``remote_url`` overrides the DVC remote that the commit names. Used by one thread.
    """

    def __init__(self, repo: Path, *, store: Path | None = None, remote_url: str = "") -> None:
        self._path, self._remote_url = repo, remote_url
        found = Repository.open(repo)
        self._root, self._bare = found.root, found.bare
        self._store = Cache(store or found.state_dir / "store")
        found.close()
        # What servers that were killed left half made; others may be at work in the same store.
        self._store.sweep()
        sweep((self._store.root / "versions").glob("building-*"))
        self._committed = ""
        self._supply = Supply(self._store, self._caches, self._remote)

    def fetch(self, aspired: AspiredVersion) -> Fetched:
        """Raises GitmodelError of many kinds; whatever it is, nothing that serves is touched."""
        label = f"{aspired.model}@{aspired.version}"
        repo = Repository.open(self._path)
        try:
            if not any(
                r.ref.commit == aspired.commit
                for r in registry.versions(repo, aspired.model).releases
                if str(r.version) == aspired.version
            ):
                if f"{label}!" in registry.standing(repo, aspired.model):
                    raise registry.UnknownVersion(f"{label} has been withdrawn", hint="release another")
                raise registry.UnknownVersion(f"{label} is no longer on {aspired.commit[:10]}", hint="look again")
            bundle = registry.bundle_at(repo, aspired.model, aspired.commit, label)
            signature = bundle.signature
            if signature is None:
                raise NotServable(
                    f"{bundle.label} is a checkpoint without a graph", hint="release one with an ONNX graph"
                )
            self._committed = committed_config(repo, aspired.commit)
            signatures = bundle.signatures.by_name
            views = {name: structs.replace(bundle, called=name).view for name in signatures}
            cases = validation.recorded(bundle, signature)
            folder = self._materialize(bundle)
            return Fetched(
                aspired.model, aspired.version, aspired.number, aspired.commit, bundle.lock.digest, bundle.card.signature,
                signatures, views, cases, bundle.card.gates, tuple(bundle.labels), folder,
                sum(entry.size for entry in bundle.graph_files()), state_of(folder),
            )  # fmt: skip
        finally:
            repo.close()

    def _materialize(self, bundle: Bundle) -> Path:
        """The version's files under their own names, as hard links into the store; sha256 checked first."""
        entries = bundle.graph_files()
        self._ensure(entries, bundle.label)
        validation.refuse_false(bundle, entries, lambda entry: self._store.path(entry.md5).read_bytes())
        folder = self._store.root / "versions" / bundle.lock.digest
        if not self._is_linked(folder, entries):
            with storing(str(folder)):
                folder.parent.mkdir(parents=True, exist_ok=True)
                building = Path(tempfile.mkdtemp(prefix="building-", dir=folder.parent))
                try:
                    self._supply.link(entries, building)
                    if folder.exists():
                        folder.rename(building.with_name(f"{building.name}-old"))
                    building.rename(folder)
                finally:
                    shutil.rmtree(building, ignore_errors=True)
                    shutil.rmtree(building.with_name(f"{building.name}-old"), ignore_errors=True)
        return folder

    def _ensure(self, entries: list[FileEntry], label: str) -> None:
        """The store is the server's own: what is damaged in it is thrown away and fetched once more."""
        try:
            self._supply.ensure(entries, label)
        except MissingWeights:
            for entry in entries:
                path = self._store.path(entry.md5)
                if path.exists() and self._store.digests.of(path) != entry.sha256:
                    path.unlink()
            self._supply.ensure(entries, label)

    def _is_linked(self, folder: Path, entries: list[FileEntry]) -> bool:
        """Whether every file there is the very object that was just verified, or a copy with the same digest."""
        for entry in entries:
            path, stored = folder / entry.path, self._store.path(entry.md5)
            if not path.is_file() or not (path.samefile(stored) or self._store.digests.of(path) == entry.sha256):
                return False
        return True

    def _caches(self) -> list[Cache]:
        """Those of the repository's working trees."""
        repo = Repository.open(self._path)
        try:
            return setup.open_caches(repo.worktrees())
        finally:
            repo.close()

    def _remote(self) -> Remote:
        if self._remote_url:
            return Remote(config_for_url(self._remote_url))
        return Remote(remote_config(None if self._bare else self._root / setup.DVC_DIR, self._committed))
