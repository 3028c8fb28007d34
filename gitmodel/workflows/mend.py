"""Mends what ``fsck`` found, from wherever good bytes are. What cannot be mended is moved where DVC does not spread it."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from msgspec.structs import replace

from gitmodel.files import aside, storing
from gitmodel.history.past import History
from gitmodel.storage.audit import bring, digest_at
from gitmodel.storage.depot import Depot, Folder
from gitmodel.storage.pointer import listing_of
from gitmodel.storage.remote import RemoteFailed
from gitmodel.workflows.findings import Finding

_QUARANTINE = "quarantine"
_FIND = "good bytes were found nowhere: 'gitmodel fsck --repair --from PATH' with a clone or cache that has them"


def quarantined(state_dir: Path) -> set[str]:
    """Names of the objects that were moved away."""
    names = (path.name for path in (state_dir / _QUARANTINE).glob("*"))
    return {name[:36] if name[32:36] == ".dir" else name[:32] for name in names}


class Mender:
    """Mends one place. ``good`` are verified files by sha256; ``depots`` the other places, asked in their order."""

    def __init__(
        self, past: History, target: Depot, state_dir: Path, good: Mapping[str, Path], depots: Sequence[Depot]
    ) -> None:
        self._past, self._target, self._good, self._depots = past, target, good, list(depots)
        self._state_dir = state_dir
        self.unreached: list[str] = []

    def mend(self, finding: Finding) -> Finding:
        """The finding with what came of it. Raises StorageFailed, and RemoteFailed when the place itself fails."""
        if finding.kind == "left-over":
            for path in finding.objects:
                self._target.remove(path)
            return replace(finding, mended="removed")
        if finding.kind not in ("missing", "corrupt", "listing"):
            return finding
        (oid,) = finding.objects
        if how := self._from_lock(oid) or self._from_files(oid) or self._from_depots(oid):
            return replace(finding, mended=how)
        if not finding.path:
            return replace(finding, mend=_FIND)
        where = self._take_away(oid, finding.path)
        # What nobody needs is mended by being gone.
        return replace(finding, moved=where, mend=_FIND, mended="" if finding.versions else "moved away")

    def _from_lock(self, oid: str) -> str:
        """DVC's listing of a version's files follows from its lock."""
        lock = next((digest for digest in self._past.locks_of.get(oid, ()) if self._past.listings[digest] == oid), None)
        if lock is None:
            return ""
        with self._scratch() as scratch:
            scratch.write_bytes(listing_of(self._past.files[lock])[1])
            self._target.put(oid, scratch)
        return "written anew from weights.lock"

    def _from_files(self, oid: str) -> str:
        entries = self._past.entries_of.get(oid, [])
        for path in {self._good[entry.sha256] for entry in entries if entry.sha256 in self._good}:
            if self._take(Folder(path.parent, ""), str(path), oid):
                return f"from {path.relative_to(self._past.root)}"
        return ""

    def _from_depots(self, oid: str) -> str:
        for depot in list(self._depots):
            try:
                found = depot.find(oid)
                if found and self._take(depot, found.path, oid):
                    return f"from {depot.name}"
            except RemoteFailed as error:
                if depot is self._target:
                    raise
                self.unreached.append(error.message)
                self._depots.remove(depot)
        return ""

    def _take(self, depot: Depot, path: str, oid: str) -> bool:
        """Into the place, checked on the way; what went far is read again when it has arrived."""
        entries = self._past.entries_of.get(oid, [])
        if isinstance(self._target, Folder):
            return bring(depot, path, oid, entries, self._target)
        try:
            if not isinstance(depot, Folder) or not digest_at(depot, path).fits(oid, entries):
                return False
        except FileNotFoundError:
            return False
        self._target.put(oid, Path(path))
        found = self._target.find(oid)
        return found is not None and digest_at(self._target, found.path).fits(oid, entries)

    def _take_away(self, oid: str, path: str) -> str:
        """Out of the place, so that nothing can pull or push it; kept, for a person may still make something of it."""
        folder = self._state_dir / _QUARANTINE
        with storing(str(folder)):
            folder.mkdir(parents=True, exist_ok=True)
            taken = len(list(folder.glob(f"{oid}*")))
            target = folder / (f"{oid}.{taken}" if taken else oid)
            if not (isinstance(self._target, Folder) and _renamed(Path(path), target)):
                with target.open("wb") as file:
                    file.writelines(self._target.blocks(path))
                self._target.remove(path)
        return str(target)

    @contextlib.contextmanager
    def _scratch(self) -> Iterator[Path]:
        with storing(str(self._state_dir)):
            self._state_dir.mkdir(parents=True, exist_ok=True)
            with aside(self._state_dir, "listing-") as (_, path):
                yield path


def _renamed(source: Path, target: Path) -> bool:
    """False when they are on different file systems."""
    try:
        source.rename(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        return False
    return True
