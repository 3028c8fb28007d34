"""Many folders of a commit at once: one listing for all of them, and their small files in one answer of ``git cat-file``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from gitmodel.git.failures import GitFailed
from gitmodel.git.reading import AT_ONCE, Reader

#: Modes of plain files in a tree; what else there is (links, submodules) is nothing to read.
_PLAIN = ("100644", "100755")


@dataclass(frozen=True)
class ListedFolder:
    """The files of one commit below a folder, as a listing has them: (mode, id) by path. Contents that were asked for
    beforehand are in ``ready``, by id; others are read when they are asked for."""

    repo: Reader = field(repr=False)
    listing: Mapping[str, tuple[str, str]] = field(repr=False)
    ready: Mapping[str, bytes] = field(default_factory=dict, repr=False)

    def merged(self, base: ListedFolder, common: ListedFolder, apart: tuple[str, ...] = ()) -> ListedFolder:
        """What Git would make of this and of ``base``, both grown from ``common``: each file from the side that changed it.
        Where both changed one, these files stay together, but for those whose path begins with one of ``apart``."""
        paths = {*self.listing, *base.listing}
        clash = any(not (self._same(common, p) or base._same(common, p) or self._same(base, p)) for p in paths)
        theirs = {p for p in paths if self._same(common, p) and (not clash or p.startswith(apart))}
        sides = ((path, (base if path in theirs else self).listing.get(path)) for path in paths)
        return ListedFolder(self.repo, {path: found for path, found in sides if found}, {**base.ready, **self.ready})

    def _same(self, other: ListedFolder, path: str) -> bool:
        return self.listing.get(path) == other.listing.get(path)

    def has(self, path: str) -> bool:
        return path in self.listing

    def read(self, path: str) -> bytes | None:
        mode, oid = self.listing.get(path, ("", ""))
        if mode not in _PLAIN:
            return None
        return self.ready[oid] if oid in self.ready else self.repo.read(oid)

    def files(self, prefix: str = "") -> list[str]:
        return sorted(path for path in self.listing if not prefix or path.startswith(f"{prefix}/"))

    def ids(self, prefix: str = "") -> dict[str, str]:
        """Git's id of each file: equal ids are equal contents."""
        return {path: f"{mode} blob {oid}" for path in self.files(prefix) for mode, oid in [self.listing[path]]}


def folders(repo: Reader, commit: str, prefixes: Iterable[str]) -> dict[str, ListedFolder]:
    """The folders at these paths, without those the commit has nothing below; what lies directly in them is read at once.

    The paths come from the caller, not from the repository: Git takes them for no patterns. Raises GitFailed.
    """
    found: dict[str, dict[str, tuple[str, str]]] = {prefix: {} for prefix in prefixes}
    for mode, oid, path in _listed(repo, commit, sorted(found)):
        for prefix in _above(path):
            if prefix in found:
                found[prefix][path[len(prefix) + 1 :]] = (mode, oid)
    kept = {prefix: listing for prefix, listing in found.items() if listing}
    files = (file for listing in kept.values() for file in listing.items())
    near = {oid for path, (mode, oid) in files if "/" not in path and mode in _PLAIN}
    ready = read_all(repo, sorted(near))
    return {prefix: ListedFolder(repo, listing, ready) for prefix, listing in kept.items()}


def _listed(repo: Reader, commit: str, prefixes: Sequence[str]) -> Iterable[tuple[str, str, str]]:
    for start in range(0, len(prefixes), AT_ONCE):
        below = [f"{prefix}/" for prefix in prefixes[start : start + AT_ONCE]]
        listing = repo.run("ls-tree", "-r", "-z", "--full-tree", commit, "--", *below)
        for line in filter(None, listing.split("\0")):
            described, path = line.split("\t", 1)
            mode, _, oid = described.split()
            yield mode, oid, path


def _above(path: str) -> list[str]:
    """Every folder a path is in, from the top."""
    return [path[:at] for at, letter in enumerate(path) if letter == "/"]


def read_all(repo: Reader, oids: Sequence[str]) -> dict[str, bytes]:
    """The contents of these blobs, all in one go of one process. Raises GitFailed for one that is missing."""
    if not oids:
        return {}
    answer = repo.run_on(oids, "cat-file", "--batch")
    out, at = {}, 0
    for oid in oids:
        end = answer.index(b"\n", at)
        words = answer[at:end].split()
        if len(words) != 3 or words[1] != b"blob":
            raise GitFailed(f"Git has no blob {oid}", hint="'git fsck' names what is damaged, 'git fetch' may bring it")
        size = int(words[2])
        out[oid] = answer[end + 1 : end + 1 + size]
        at = end + 1 + size + 1
    return out
