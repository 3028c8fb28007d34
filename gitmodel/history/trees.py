"""Finds bundles in Git's trees: each folder of a model is read once, however many commits share it."""

from __future__ import annotations

from collections.abc import Mapping

from gitmodel.bundle.bundle import LOCK, WEIGHTS
from gitmodel.git import GitFailed, Repository
from gitmodel.registry import MODELS

POINTER = f"{WEIGHTS}.dvc"
_TREE = "40000"

#: The blobs of a lock and of the pointer beside it, '' for what is not there.
Bundle = tuple[str, str]
#: Mode and id of an entry.
Entry = tuple[str, str]


class Trees:
    """Trees and commits are named by their ids."""

    def __init__(self, repo: Repository) -> None:
        self._repo = repo
        self._bundles: dict[str, Bundle] = {}

    def tree_of(self, commit: str) -> str:
        return self._repo.read(commit, "commit")[5:].split(b"\n", 1)[0].decode()

    def models(self, tree: str) -> dict[str, Entry]:
        """By name, what stands in a tree's folder of models. Raises GitFailed."""
        mode, folder = self._folder(tree).get(MODELS, ("", ""))
        return self._folder(folder) if mode == _TREE else {}

    def model(self, tree: str, name: str) -> Bundle | None:
        """One model, without a look at the thousand others; None where the tree has no such folder."""
        try:
            data = self._repo.read(f"{tree}:{MODELS}/{name}", "tree")
        except GitFailed:
            return None
        return _bundle_in(_entries(data, len(tree) // 2))

    def bundle(self, mode: str, tree: str) -> Bundle:
        """The model in a folder that ``models`` gave. Raises GitFailed."""
        if mode == _TREE and tree not in self._bundles:
            self._bundles[tree] = _bundle_in(self._folder(tree))
        return self._bundles.get(tree, ("", ""))

    def _folder(self, tree: str) -> dict[str, Entry]:
        return _entries(self._repo.read(tree, "tree"), len(tree) // 2)


def _entries(data: bytes, width: int) -> dict[str, Entry]:
    """By name, all that stands in a tree; an id has ``width`` bytes."""
    found, start = {}, 0
    while start < len(data):
        end = data.index(b"\0", start)
        mode, _, name = data[start:end].partition(b" ")
        start = end + 1 + width
        found[name.decode(errors="surrogateescape")] = (mode.decode(), data[end + 1 : start].hex())
    return found


def _bundle_in(folder: Mapping[str, Entry]) -> Bundle:
    return _plain(folder.get(LOCK)), _plain(folder.get(POINTER))


def _plain(entry: Entry | None) -> str:
    """The blob of a plain file; '' for a link or a folder."""
    return entry[1] if entry and entry[0].startswith("100") else ""
