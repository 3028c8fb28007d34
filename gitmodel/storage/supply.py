"""Gets a version's files to where a session can open them: from a cache at hand, else from the remote, always verified."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from gitmodel.bundle.lock import FileEntry
from gitmodel.files import copy_file, storing, sweep
from gitmodel.storage.cache import Cache
from gitmodel.storage.remote import Progress, Remote
from gitmodel.storage.workspace import corrupt, missing_weights


class Supply:
    """Fills ``store`` from the caches at hand that ``caches`` gives, and when they lack a file from the remote that ``open_remote``
    gives; both are asked when something is missing."""

    def __init__(
        self, store: Cache, caches: Callable[[], Sequence[Cache]], open_remote: Callable[[], Remote] | None
    ) -> None:
        self.store, self._caches, self._open_remote = store, caches, open_remote

    def ensure(self, entries: Sequence[FileEntry], what: str, progress: Progress | None = None) -> None:
        """Makes the store hold every entry, sha256 checked. Raises MissingWeights, NoRemote or RemoteFailed."""
        missing = self.gather(entries)
        if missing and self._open_remote is None:
            raise missing_weights(missing, what)
        if missing and self._open_remote is not None:
            self._open_remote().pull(self.store, missing, progress)
        self.verify(entries)

    def gather(self, entries: Sequence[FileEntry]) -> list[FileEntry]:
        """Copies what the store lacks from the caches at hand; returns what it lacks then."""
        missing = [entry for entry in entries if not self.store.has(entry)]
        caches = self._caches() if missing else ()
        for entry in missing:
            for cache in caches:
                if cache.has(entry) and cache.fits(entry):
                    copy_file(cache.path(entry.md5), self.store.path(entry.md5), 0o444)
                    break
        return [entry for entry in missing if not self.store.has(entry)]

    def verify(self, entries: Sequence[FileEntry]) -> None:
        """Raises MissingWeights for stored files with other bytes than their entries say, as far as is remembered."""
        with ThreadPoolExecutor(max_workers=2, thread_name_prefix="verify") as pool:
            fit = pool.map(self.store.fits, entries)
            for entry, fits in zip(entries, fit, strict=True):
                if not fits:
                    raise corrupt(entry, self.store)

    def damaged(self, entries: Sequence[FileEntry]) -> list[FileEntry]:
        """The stored files whose bytes, as they are now, are not what their entries say: for what is about to leave."""
        with ThreadPoolExecutor(max_workers=2, thread_name_prefix="verify") as pool:
            whole = pool.map(self.store.is_whole, entries)
            return [entry for entry, is_whole in zip(entries, whole, strict=True) if not is_whole]

    @contextlib.contextmanager
    def staged(self, entries: Sequence[FileEntry], parent: Path) -> Iterator[Path]:
        """A folder of hard links to the stored files under their own names, removed afterwards."""
        with storing(str(parent)):
            parent.mkdir(parents=True, exist_ok=True)
            sweep(parent.glob("staged-*"))
            folder = Path(tempfile.mkdtemp(prefix="staged-", dir=parent))
        try:
            self.link(entries, folder)
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def link(self, entries: Sequence[FileEntry], folder: Path) -> None:
        """Hard links (copies, where the file system has none) of the stored files below ``folder``."""
        for entry in entries:
            source, target = self.store.path(entry.md5), folder / entry.path
            with storing(str(target)):
                target.parent.mkdir(parents=True, exist_ok=True)
            try:
                os.link(source, target)
            except OSError:
                copy_file(source, target, 0o444)
