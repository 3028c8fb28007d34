"""Git's objects as values: a tag, and the files of a commit."""

from __future__ import annotations

from datetime import datetime
from functools import cached_property
from typing import Any

import git
from msgspec import Struct

from gitmodel.git.failures import failed


class TagRef(Struct, frozen=True):
    """A tag as Git has it. ``commit`` is what it points at in the end; ``annotated`` is False for a lightweight one."""

    name: str
    commit: str
    annotated: bool
    date: datetime
    author: str


class GitFolder:
    """The files of one commit below ``prefix``, read from Git's objects; nothing is checked out."""

    def __init__(self, repo: git.Repo, commit: str, prefix: str) -> None:
        self._repo, self._commit, self._prefix = repo, commit, prefix.strip("/")
        self._below: dict[str, git.Tree | None] = {}

    @cached_property
    def _tree(self) -> git.Tree | None:
        if not self._prefix.isprintable():
            return self._walked()
        # By its path: walking down from the top would parse the list of all models on the way.
        try:
            oid, kind, _ = map(_text, self._repo.git.get_object_header(f"{self._commit}:{self._prefix}"))
        except ValueError:  # what GitPython makes of "missing"
            return None
        return git.Tree(self._repo, bytes.fromhex(oid), path=self._prefix) if kind == "tree" else None

    def _walked(self) -> git.Tree | None:
        """The tree of a path that is not asked for by name: a line break in it would be a second question, whose answer the
        next one would get."""
        found: Any = git.Commit(self._repo, bytes.fromhex(self._commit)).tree
        for part in self._prefix.split("/"):
            try:
                found = found / part
            except KeyError:
                return None
            if not isinstance(found, git.Tree):
                return None
        tree: git.Tree = found
        return tree

    @property
    def exists(self) -> bool:
        return self._tree is not None

    @property
    def object_id(self) -> str:
        """Git's own id of this tree: equal ids are equal contents."""
        return self._tree.hexsha if self._tree is not None else ""

    def has(self, path: str) -> bool:
        return self._item(path) is not None

    def has_file(self, path: str) -> bool:
        """Whether there is a plain file; nothing of it is read, so that it need not be here."""
        return self._file(path) is not None

    def _item(self, path: str) -> Any:
        above, _, name = path.rpartition("/")
        tree = self._folder(above) if above else self._tree
        if tree is None:
            return None
        try:
            return tree / name
        except KeyError:
            return None

    def _file(self, path: str) -> git.Blob | None:
        item = self._item(path)
        return item if isinstance(item, git.Blob) and item.mode != git.Blob.link_mode else None

    def _folder(self, path: str) -> git.Tree | None:
        # Asked for once, however many files are read from it.
        if path not in self._below:
            item = self._item(path)
            self._below[path] = item if isinstance(item, git.Tree) else None
        return self._below[path]

    def read(self, path: str) -> bytes | None:
        file = self._file(path)
        if file is None:
            return None
        data: bytes = file.data_stream.read()
        return data

    def files(self, prefix: str = "") -> list[str]:
        return sorted(self.ids(prefix))

    def ids(self, prefix: str = "") -> dict[str, str]:
        """Git's id of each file below ``prefix``: equal ids are equal contents. Raises GitFailed."""
        if self._tree is None or (prefix and not self.has(prefix)):
            return {}
        below = [f"{prefix}/"] if prefix else []
        try:
            listing: str = self._repo.git.ls_tree("-r", "-z", self._tree.hexsha, "--", *below)
        except git.GitCommandError as error:
            raise failed("ls-tree", str(error.stderr)) from error
        lines = (line.split("\t", 1) for line in filter(None, listing.split("\0")))
        return {path: described for described, path in lines}

    def trees(self) -> dict[str, str]:
        """The folders directly below, and Git's id of each."""
        return {item.name: item.hexsha for item in self._tree.trees} if self._tree is not None else {}

    def folders(self) -> list[str]:
        """Names of the folders directly below."""
        return sorted(item.name for item in self._tree.trees) if self._tree is not None else []


def _text(value: object) -> str:
    """GitPython declares text where it gives bytes."""
    return value.decode() if isinstance(value, bytes) else str(value)
