"""The weights folder of a working tree: made equal to a lock by rewriting only the files that differ."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from gitmodel.bundle.lock import FileEntry, Lock
from gitmodel.errors import ExitCode, GitmodelError
from gitmodel.storage.cache import Cache, sha256_of
from gitmodel.storage.files import copy_file, storing

_MODE = 0o644


class MissingWeights(GitmodelError):
    """Bytes a version needs are not at hand."""

    code = "missing-weights"
    exit_code = ExitCode.INCOMPLETE


def materialize(lock: Lock, cache: Cache, folder: Path, *, known: Callable[[FileEntry], bool] = lambda _: False) -> int:
    """Makes ``folder`` hold exactly the lock's files, copied from the cache and verified; returns how many changed.

    ``known`` says which files the caller has just seen to be right. Raises MissingWeights before anything is
    touched when the cache lacks a file.
    """
    stale = [entry for entry in lock.files if not (known(entry) or _is_current(folder / entry.path, entry))]
    if missing := [entry for entry in stale if not cache.has(entry)]:
        raise missing_weights(missing, str(folder))
    for entry in stale:
        target = folder / entry.path
        copy_file(cache.path(entry.md5), target, _MODE)
        if sha256_of(target) != entry.sha256:
            target.unlink()
            raise corrupt(entry, cache)
    _remove_others(folder, {entry.path for entry in lock.files})
    return len(stale)


def missing_weights(entries: list[FileEntry], what: str) -> MissingWeights:
    size = sum(entry.size for entry in entries)
    return MissingWeights(
        f"{len(entries)} files ({size} bytes) of {what} are not in the DVC cache",
        hint="run 'gitmodel pull', or 'gitmodel push' where they were saved",
    )


def corrupt(entry: FileEntry, cache: Cache) -> MissingWeights:
    return MissingWeights(
        f"the DVC cache has other bytes for {entry.path} than weights.lock says ({cache.path(entry.md5)})",
        hint="remove that object and run 'gitmodel pull'",
    )


def _is_current(path: Path, entry: FileEntry) -> bool:
    try:
        return not path.is_symlink() and path.stat().st_size == entry.size and sha256_of(path) == entry.sha256
    except OSError:
        return False


def _remove_others(folder: Path, wanted: set[str]) -> None:
    with storing(str(folder)):
        for path in sorted(folder.rglob("*"), reverse=True):
            if path.is_dir() and not path.is_symlink():
                if not os.listdir(path):  # noqa: PTH208
                    path.rmdir()
            elif path.relative_to(folder).as_posix() not in wanted:
                path.unlink()


def unsaved(lock: Lock, folder: Path) -> list[str]:
    """Files in the weights folder that no object of the lock gives back: edited, or never saved."""
    entries = {entry.path: entry for entry in lock.files}
    present = (p for p in sorted(folder.rglob("*")) if p.is_file() or p.is_symlink())
    names = {p.relative_to(folder).as_posix(): p for p in present}
    return [name for name, path in names.items() if name not in entries or not _is_current(path, entries[name])]
