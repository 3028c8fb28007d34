"""Where a bundle's files are read from: a folder on disk here, a Git tree in git.py; both answer the same calls."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol, runtime_checkable


class Folder(Protocol):
    """Read-only files below one root; paths are relative, with '/'."""

    def read(self, path: str) -> bytes | None:
        """The file's bytes, or None when there is no such file."""
        ...

    def files(self, prefix: str = "") -> list[str]:
        """Sorted paths of all files below ``prefix``."""
        ...


@runtime_checkable
class Identified(Protocol):
    """A folder that knows what its files are without reading them, as Git's are."""

    def ids(self, prefix: str = "") -> dict[str, str]:
        """By path: equal ids are equal contents."""
        ...


class DiskFolder:
    """A folder of the file system. Symbolic links are not followed: a bundle holds plain files."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def read(self, path: str) -> bytes | None:
        target = self.root / path
        return target.read_bytes() if target.is_file() and not self._is_linked(target) else None

    def files(self, prefix: str = "") -> list[str]:
        found = (p for p in (self.root / prefix).rglob("*") if p.is_file() and not self._is_linked(p))
        return sorted(p.relative_to(self.root).as_posix() for p in found)

    def _is_linked(self, target: Path) -> bool:
        between = [parent for parent in target.parents if self.root in parent.parents]
        return any(path.is_symlink() for path in (target, *between))


class MemoryFolder:
    """Files held in memory, for what is no bundle on disk (a bare model file)."""

    def __init__(self, contents: Mapping[str, bytes]) -> None:
        self._contents = contents

    def read(self, path: str) -> bytes | None:
        return self._contents.get(path)

    def files(self, prefix: str = "") -> list[str]:
        return sorted(path for path in self._contents if path.startswith(f"{prefix}/") or not prefix)
