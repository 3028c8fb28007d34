"""All the expensive work of a version before it may answer: fetch, verify, open, warm up, replay its golden cases."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct, structs

from gitmodel import registry, runtime
from gitmodel.bundle.bundle import Bundle, NotServable
from gitmodel.bundle.golden import GoldenCase
from gitmodel.bundle.lock import FileEntry
from gitmodel.bundle.signature import Signature
from gitmodel.files import storing, sweep
from gitmodel.git import Repository
from gitmodel.serving import prepacking, validation
from gitmodel.serving.plan import Plan
from gitmodel.serving.policy import AspiredVersion
from gitmodel.serving.servable import Servable
from gitmodel.storage import setup
from gitmodel.storage.cache import Cache
from gitmodel.storage.remote import Remote
from gitmodel.storage.settings import committed_config, config_for_url, remote_config
from gitmodel.storage.supply import Supply
from gitmodel.storage.workspace import MissingWeights

if TYPE_CHECKING:
    pass


class _Fetched(Struct, frozen=True):
    """A version whose files are here and verified; ``path`` is the model's."""

    bundle: Bundle
    signature: Signature
    cases: list[GoldenCase]
    labels: tuple[str, ...]
    path: Path


class Loader:
    """Loads versions of one repository into a store of the server's own: immutable, content-addressed, read-only.

    ``remote_url`` overrides the DVC remote that the commit names. ``batch_rows`` is ``Settings.batch_rows``; ``warned`` is told
    of a version that does not allow it. Used by one thread.
    """

    def __init__(
        self,
        repo: Path,
        *,
        store: Path | None = None,
        remote_url: str = "",
        threads: int = 1,
        batch_rows: Mapping[str, int] | None = None,
        warned: Callable[[str], object] = lambda _: None,
    ) -> None:
        self._batch_rows, self._warned = batch_rows or {}, warned
        self._path, self._remote_url, self._threads = repo, remote_url, threads
        found = Repository.open(repo)
        self._root, self._bare = found.root, found.bare
        self._store = Cache(store or found.state_dir / "store")
        found.close()
        # What servers that were killed left half made; others may be at work in the same store.
        self._store.sweep()
        sweep((self._store.root / "versions").glob("building-*"))
        self._committed = ""
        self._supply = Supply(self._store, self._caches(), self._remote)

    def load(self, aspired: AspiredVersion) -> Servable:
        """Raises GitmodelError of many kinds; whatever it is, nothing that serves is touched."""
        # No caller of what fetches may hold the session: DVC leaves frames in circles of references, with all their callers',
        # and a session's memory would stay until Python comes to look for such.
        return self._open(aspired, self._fetch(aspired))

    def _fetch(self, aspired: AspiredVersion) -> _Fetched:
        repo = Repository.open(self._path)
        try:
            if not any(
                r.ref.commit == aspired.commit
                for r in registry.releases(repo, aspired.model)
                if str(r.version) == aspired.version
            ):
                raise registry.UnknownVersion(
                    f"{aspired.model}@{aspired.version} is no longer on {aspired.commit[:10]}", hint="look again"
                )
            bundle = registry.bundle_at(repo, aspired.model, aspired.commit, f"{aspired.model}@{aspired.version}")
            signature = bundle.signature
            if signature is None:
                raise NotServable(
                    f"{bundle.label} is a checkpoint without a graph", hint="release one with an ONNX graph"
                )
            self._committed = committed_config(repo, aspired.commit)
            cases, labels = validation.recorded(bundle, signature), tuple(bundle.labels)
            return _Fetched(bundle, signature, cases, labels, self._materialize(bundle))
        finally:
            repo.close()

    def _open(self, aspired: AspiredVersion, fetched: _Fetched) -> Servable:
        bundle, signature, cases = fetched.bundle, fetched.signature, fetched.cases
        # Small weights are packed on the way; large ones stay mapped, shared with other versions that have the same.
        size = sum(entry.size for entry in bundle.graph_files())
        prepack = size < prepacking.LEAST
        session = runtime.open_session(fetched.path, threads=self._threads, prepack=prepack)
        check = validation.check(session, cases, signature, bundle)
        seconds = validation.warm_up(session, signature, cases)
        servable = Servable(
            aspired.model, aspired.version, aspired.number, aspired.commit, bundle.lock.digest, "onnxruntime_onnx",
            signature, session, seconds, check.passed, check.cases, fetched.labels, path=fetched.path,
            size=size, called=bundle.card.signature,
        )  # fmt: skip
        plan = Plan.of(signature)
        servable.usual = plan.decode if plan else None
        servable.batch_rows = self._batch(servable)
        servable.named = self._named(servable, bundle, prepack=prepack)
        servable.run_seconds = _slowest(seconds, servable)
        if not prepack:
            servable.repack = self._repack
        return servable

    def _batch(self, servable: Servable) -> int:
        """How many rows may go together: none where a row's answer depends on its neighbours, or nobody can tell."""
        rows = self._batch_rows.get(servable.model, self._batch_rows.get("", 0))
        if rows > 1 and not validation.rows_stand_alone(servable.session, servable.signature):
            self._warned(f"{servable.model} {servable.version} is not batched: its rows do not stand for themselves")
            return 0
        return rows if rows > 1 else 0

    def _named(self, servable: Servable, bundle: Bundle, *, prepack: bool) -> dict[str, Servable]:
        """The model's other signatures: over graphs of their own, or over outputs of the same."""
        found: dict[str, Servable] = {}
        folder = servable.path.parent if servable.path else Path()
        for name, signature in bundle.signatures.by_name.items():
            if name == servable.called:
                continue
            view = structs.replace(bundle, called=name).view
            session = servable.session
            if view != bundle.view:
                session = runtime.open_session(folder / view, threads=self._threads, prepack=prepack)
            seconds = validation.warm_up(session, signature, [])
            found[name] = replace(
                servable, signature=signature, session=session, run_seconds=seconds, called=name, repack=None, usual=None,
                batch_rows=0, named={},
            )  # fmt: skip
        return found

    def _repack(self, servable: Servable, session: runtime.Session) -> None:
        signature = servable.signature
        repo = Repository.open(self._path)
        try:
            label = f"{servable.model}@{servable.version}"
            bundle = registry.bundle_at(repo, servable.model, servable.commit, label)
            cases = validation.recorded(bundle, signature)
            validation.check(session, cases, signature, bundle)
        finally:
            repo.close()
        seconds, before = validation.warm_up(session, signature, cases), servable.session
        for named in servable.named.values():
            if named.session is before:
                named.session, named.run_seconds = session, validation.warm_up(session, named.signature, [])
        servable.run_seconds = _slowest(seconds, servable)
        servable.session = session  # calls at work go on with the one they began with

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
        return folder / bundle.view

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
        if self._bare or not setup.is_initialised(self._root):
            return []
        return [setup.open_cache(self._root)]

    def _remote(self) -> Remote:
        if self._remote_url:
            return Remote(config_for_url(self._remote_url))
        return Remote(remote_config(None if self._bare else self._root / setup.DVC_DIR, self._committed))


def _slowest(seconds: float, servable: Servable) -> float:
    """What leaves the event loop for a thread is decided for all signatures alike."""
    return max([seconds, *(named.run_seconds for named in servable.named.values())])
