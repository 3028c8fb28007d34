"""Looks at one place after the other, reading every byte afresh, and says what is wrong there. Changes nothing but what
is remembered of the files."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from msgspec.structs import replace

from gitmodel import registry
from gitmodel.bundle.bundle import WEIGHTS
from gitmodel.history.past import History, Mention, Why
from gitmodel.storage.audit import Digest, digest_all
from gitmodel.storage.depot import Depot, Folder, Listing, Stored
from gitmodel.storage.digests import Digests, is_settled
from gitmodel.storage.remote import Progress
from gitmodel.versions import ReleaseTag, parse_tag
from gitmodel.workflows.findings import Finding, Read

#: Half-written files younger than this may belong to somebody at work.
ABANDONED = 3600.0
_REPAIR = "gitmodel fsck --repair"


class Examination:
    """Gathers findings; ``good`` are verified files of working trees by sha256, from which objects can be mended. What was
    read is put into ``digests``, so that nothing damaged goes on being trusted for its state."""

    def __init__(self, past: History, progress: Progress | None = None, digests: Digests | None = None) -> None:
        self.past, self._progress, self._digests = past, progress, digests or Digests()
        self.findings: list[Finding] = []
        self.read: list[Read] = []
        self.good: dict[str, Path] = {}

    def objects(self, depot: Depot, stored: Collection[Stored], others: Collection[str], mend: str) -> None:
        """Reads these objects, and says which are not what they should be and which versions suffer; ``others`` are
        named by other DVC data of the repository."""
        size = 0
        for item, digest in self._read(depot, stored):
            size += digest.size
            entries = self.past.entries_of.get(item.oid, ())
            if not digest.fits(item.oid, entries):
                found = self._damaged(depot, item, digest, mend)
                is_others = item.oid in others and not found.versions
                self.findings.append(replace(found, versions=("other DVC data",)) if is_others else found)
        self.read.append(Read(depot.name, len(stored), size))

    def _read(self, depot: Depot, stored: Collection[Stored]) -> Iterator[tuple[Stored, Digest]]:
        states = _settled(stored) if isinstance(depot, Folder) else {}
        for item, digest in digest_all(depot, stored, self._progress):
            if item.path in states and not digest.error:
                self._digests.note(states[item.path], digest.sha256)
            yield item, digest

    def _damaged(self, depot: Depot, item: Stored, digest: Digest, mend: str) -> Finding:
        oid, entries = item.oid, self.past.entries_of.get(item.oid, ())
        needing = self.past.locks_of.get(oid, [])
        kind, sizes = "corrupt", {entry.size for entry in entries}
        if digest.error:
            message = f"cannot be read ({digest.error})"
        elif digest.fits(oid, ()):
            strict = [e for e in entries if (e.sha256, e.size) != (digest.sha256, digest.size)]
            needing = [lock for lock in needing if set(strict) & set(self.past.files[lock])]
            kind, message = "clash", "is what its name says, and weights.lock says something else"
            mend = "restore weights.lock from Git, or save the model again"
        elif sizes and digest.size not in sizes:
            message = f"has {digest.size} bytes where {min(sizes)} should be"
        else:
            message = "has other bytes than its name says"
        if item.mode == 0o444 and kind == "corrupt":
            message += "; for its mode 0444 DVC would trust it"
        if oid in self.past.listings.values() and kind == "corrupt":
            kind = "listing"
        return self._about(kind, depot.name, message, oid, item, needing, mend)

    def _about(
        self, kind: str, where: str, message: str, oid: str, item: Stored | None, locks: Iterable[str], mend: str
    ) -> Finding:
        entries = self.past.entries_of.get(oid, [])
        size = item.size if item else max((entry.size for entry in entries), default=0)
        return Finding(
            kind, where, message, (oid,), item.path if item else "", max(size, 0), tuple(self.past.labels(locks)),
            tuple(dict.fromkeys(entry.path for entry in entries)), mend,
        )  # fmt: skip

    def missing(self, where: str, listing: Listing, needed: Collection[str], mend: str) -> None:
        """Of these objects, those that a place lacks, and all versions that suffer from it."""
        for oid in sorted(set(needed) - set(listing.objects)):
            kind, locks = "listing" if oid.endswith(".dir") else "missing", self.past.locks_of[oid]
            self.findings.append(self._about(kind, where, "is not there", oid, None, locks, mend))

    def absent(self, where: str, listing: Listing, mentions: Iterable[Mention]) -> None:
        """Versions that a place has only a part of, or nothing; what is told as missing is not told again."""
        known = listing.objects.keys() | {oid for finding in self.findings for oid in finding.objects}
        lacking: dict[str, None] = {}
        size: dict[str, int] = {}
        for mention in mentions:
            if gone := {entry.md5: entry.size for entry in self.past.files[mention.digest] if entry.md5 not in known}:
                lacking[mention.label] = None
                size |= gone
        if lacking:
            self.findings.append(
                Finding(
                    "absent", where, f"{_count(size, 'object')} of {_count(lacking, 'version')} not fetched",
                    tuple(sorted(size)), "", sum(size.values()), tuple(lacking),
                    mend="'gitmodel fsck --remote' tells whether the remote has them",
                )
            )  # fmt: skip

    def strays(self, where: str, listing: Listing, named: Collection[str], mend: str) -> None:
        """Files nobody needs: unnamed objects, left-overs, and what is no object."""
        unnamed = [item for oid, item in listing.objects.items() if oid not in named]
        old = [item for item in listing.temporary if time.time() - (item.modified or 0.0) > ABANDONED]
        self._gathered("unreferenced", where, unnamed, "object", "that nothing in the whole history names", mend)
        self._gathered("left-over", where, old, "file", "half written and left behind", _REPAIR)
        self._gathered(
            "foreign", where, listing.foreign, "file", "among the objects, and no object", "move away what is not DVC's"
        )

    def _gathered(self, kind: str, where: str, items: Collection[Stored], what: str, words: str, mend: str) -> None:
        if items:
            size = sum(max(item.size, 0) for item in items)
            names = tuple(item.oid or item.path for item in items)
            message = f"{_count(items, what)} {words}"
            self.findings.append(Finding(kind, where, message, names, "", size, mend=mend))

    def git(self, mentions: Iterable[Mention]) -> None:
        """Locks that cannot be read, and pointers that name other files than the locks beside them."""
        for label, reason in self.past.unreadable.items():
            mend = "restore weights.lock from Git, or save the model again"
            if isinstance(parse_tag(label), ReleaseTag):  # which stays as it is
                mend = f"withdraw it: {registry.withdrawing(label)}"
            self.findings.append(Finding("lock", "Git", reason, versions=(label,), mend=mend))
        for mention in mentions:
            if mention.pointer != self.past.listings[mention.digest]:
                named = mention.pointer or "nothing: there is none"
                message = f"names {named}, and weights.lock {self.past.listings[mention.digest]}"
                mend = "DVC and gitmodel would restore different files: save the model again"
                path = f"{registry.model_path(mention.model)}/{WEIGHTS}.dvc"
                found = Finding("pointer", "Git", message, path=path, versions=(mention.label,), mend=mend)
                self.findings.append(found)

    def workspace(self, mentions: Iterable[Mention]) -> None:
        """The weights folders of the working tree, file by file."""
        # Of what the index and the disk say of a model, the disk's comes last.
        here = {m.model: m for m in mentions if m.why is Why.WORKING and m.label == m.model}
        for mention in here.values():
            folder = self.past.root / registry.model_path(mention.model) / WEIGHTS
            if folder.is_dir():
                self._weights(mention, folder)

    def _weights(self, mention: Mention, folder: Path) -> None:
        depot = Folder(folder, str(folder.relative_to(self.past.root)))
        wanted = {entry.path: entry for entry in self.past.files[mention.digest]}
        present = {path.relative_to(folder).as_posix(): path for path in _files(folder)}
        wrong = dict.fromkeys(wanted.keys() - present.keys(), "is not there")
        wrong |= dict.fromkeys(present.keys() - wanted.keys(), "is no file of this version")
        stored = [Stored("", path.lstat().st_size, None, 0, str(path)) for path in present.values()]
        for item, digest in self._read(depot, stored):
            name = Path(item.path).relative_to(folder).as_posix()
            if not digest.error:
                self.good[digest.sha256] = Path(item.path)
            entry = wanted.get(name)
            if entry and (digest.sha256, digest.size) != (entry.sha256, entry.size):
                wrong[name] = (
                    f"cannot be read ({digest.error})" if digest.error else "has other bytes than weights.lock says"
                )
        self.read.append(Read(depot.name, len(stored), sum(item.size for item in stored)))
        for name, message in wrong.items():
            said, mend = message, f"if it is nobody's work: remove it and run 'gitmodel pull {mention.model}'"
            if name in present and not present[name].is_symlink() and self._digests.is_rotten(present[name]):
                said, mend = f"{message}, and nobody has written it since it had them", f"gitmodel pull {mention.model}"
            path = str(folder / name)
            self.findings.append(Finding("workspace", depot.name, said, (), path, 0, (mention.label,), (name,), mend))


def _count(items: Collection[object], what: str) -> str:
    return f"{len(items)} {what}{'' if len(items) == 1 else 's'}"


def _settled(stored: Iterable[Stored]) -> dict[str, os.stat_result]:
    """The states, before they are read, of the files that cannot change any more without a new one."""
    found = {}
    for item in stored:
        with contextlib.suppress(FileNotFoundError):
            found[item.path] = Path(item.path).lstat()
    return {path: info for path, info in found.items() if is_settled(info.st_mtime_ns)}


def _files(folder: Path) -> Iterator[Path]:
    return (path for path in folder.rglob("*") if path.is_symlink() or path.is_file())
