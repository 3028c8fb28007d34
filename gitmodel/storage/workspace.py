"""The weights folder of a working tree: made equal to a lock by rewriting only the files that differ."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from msgspec import Struct

from gitmodel.bundle.lock import FileEntry, Lock
from gitmodel.errors import ExitCode, GitmodelError
from gitmodel.files import copy_file, move_file, storing
from gitmodel.storage.cache import Cache
from gitmodel.storage.digests import Digests, hash_file
from gitmodel.storage.drafts import Drafts

_MODE = 0o644


class WouldLose(GitmodelError):
    """Work that is nowhere else would be overwritten."""

    code = "would-lose"


class MissingWeights(GitmodelError):
    """Bytes a version needs are not at hand."""

    code = "missing-weights"
    exit_code = ExitCode.INCOMPLETE


class Layout(Struct, frozen=True):
    """What must happen for a weights folder to hold exactly a lock's files: which to write anew, which to remove.
    ``drafts`` may have some of them ready."""

    folder: Path
    cache: Cache
    stale: tuple[FileEntry, ...]
    surplus: tuple[Path, ...]
    drafts: Drafts | None = None

    def apply(self) -> int:
        """Does it, each file verified; returns how many were written. Raises MissingWeights, StorageFailed."""
        with ThreadPoolExecutor(max_workers=2, thread_name_prefix="layout") as pool:
            list(pool.map(self._lay_out, self.stale))
        with storing(str(self.folder)):
            for path in self.surplus:
                path.unlink()
            for path in sorted(self.folder.rglob("*"), reverse=True):
                if path.is_dir() and not path.is_symlink() and not any(path.iterdir()):
                    path.rmdir()
        return len(self.stale)

    def _lay_out(self, entry: FileEntry) -> None:
        # The object is what is verified: copying inside the kernel changes no bytes.
        if not self.cache.fits(entry):
            raise corrupt(entry, self.cache)
        target, draft = self.folder / entry.path, self.drafts.take(entry.sha256) if self.drafts else None
        laid = move_file(draft, target, _MODE) if draft else copy_file(self.cache.path(entry.md5), target, _MODE)
        self.cache.digests.note(laid, entry.sha256)


def plan(lock: Lock, cache: Cache, folder: Path, before: Lock | None = None, drafts: Drafts | None = None) -> Layout:
    """What ``folder`` needs to hold exactly the lock's files; ``before`` is the lock it was laid out by. Touches nothing.

    Raises MissingWeights when the cache lacks a file, and WouldLose when a file that would go is nowhere else: every
    version's files are in the cache, so only what a person put there by hand is not.
    """
    refuse_links(folder, [folder / entry.path for entry in lock.files])
    with ThreadPoolExecutor(max_workers=2, thread_name_prefix="plan") as pool:
        current = pool.map(
            lambda entry: _is_current(
                folder / entry.path, entry, cache.digests, before.file(entry.path) if before else None
            ),
            lock.files,
        )
        stale = tuple(entry for entry, is_current in zip(lock.files, current, strict=True) if not is_current)
    if missing := [entry for entry in stale if not cache.has(entry)]:
        raise missing_weights(missing, str(folder))
    wanted = {entry.path for entry in lock.files}
    present = [path for path in sorted(folder.rglob("*")) if path.is_symlink() or path.is_file()]
    surplus = [path for path in present if path.relative_to(folder).as_posix() not in wanted]
    for path in (*surplus, *(folder / entry.path for entry in stale if (folder / entry.path).exists())):
        known = before.file(path.relative_to(folder).as_posix()) if before else None
        if not _is_left_over(path) and not _is_rotten(path, cache) and not _is_cached(path, cache, known):
            raise WouldLose(
                f"{path} was never saved and would be lost", hint="move it elsewhere; weights/ is gitmodel's own"
            )
    return Layout(folder, cache, stale, tuple(surplus), drafts)


def refuse_links(folder: Path, targets: Iterable[Path] = ()) -> None:
    """A repository may hold symbolic links, and writing through one would leave it. Raises WouldLose.

    ``folder`` is ``<root>/models/<name>/weights``: it and the two above it are looked at, and all between it and
    each target.
    """
    above = [folder, folder.parent, folder.parent.parent]
    between = {parent for target in targets for parent in target.parents if folder in parent.parents}
    for path in (*above, *between):
        if path.is_symlink():
            raise WouldLose(f"{path} is a symbolic link", hint="make it a folder: nothing is written through links")


def missing_weights(entries: list[FileEntry], what: str) -> MissingWeights:
    size, one = sum(entry.size for entry in entries), len(entries) == 1
    return MissingWeights(
        f"{len(entries)} {'file' if one else 'files'} ({size} bytes) of {what} {'is' if one else 'are'} not in the DVC cache",
        hint="run 'gitmodel pull', or 'gitmodel push' where they were saved",
    )


def corrupt(entry: FileEntry, cache: Cache) -> MissingWeights:
    return MissingWeights(
        f"the DVC cache has other bytes for {entry.path} than weights.lock says ({cache.path(entry.md5)})",
        hint="run 'gitmodel fsck --repair'",
    )


def _is_current(path: Path, entry: FileEntry, digests: Digests, known: FileEntry | None = None) -> bool:
    """Whether the file is the entry's; one that still is the ``known`` one, which has other bytes, need not be hashed."""
    try:
        if path.is_symlink() or path.stat().st_size != entry.size:
            return False
        if known and known.sha256 != entry.sha256 and digests.of(path) == known.sha256:
            return False
        return digests.fits(path, entry.sha256)
    except OSError:
        return False


def _is_cached(path: Path, cache: Cache, known: FileEntry | None) -> bool:
    """Whether the cache has the very bytes of this file. Raises WouldLose when it has lost those of a version."""
    if path.is_symlink():
        return False
    if known and _is_current(path, known, cache.digests):
        if _is_current(cache.path(known.md5), known, cache.digests):
            return True
        raise WouldLose(
            f"{path} is the last good copy of its bytes: the cache has lost or damaged them",
            hint="run 'gitmodel fsck --repair' first",
        )
    with path.open("rb") as file:
        md5 = hashlib.file_digest(file, lambda: hashlib.md5(usedforsecurity=False)).hexdigest()
    with contextlib.suppress(OSError):
        return cache.path(md5).stat().st_size == path.stat().st_size and hash_file(cache.path(md5)) == hash_file(path)
    return False


def _is_rotten(path: Path, cache: Cache) -> bool:
    """Whether it is nobody's work: a file that was laid here and has gone bad."""
    return not path.is_symlink() and cache.digests.is_rotten(path)


def _is_left_over(path: Path) -> bool:
    """A temporary file of a copy that was killed."""
    return path.name.startswith(".") and path.name.endswith(".tmp")
