"""DVC's configuration for judging a stranger's branch: a base commit's and the user's own, never what is checked out."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from gitmodel.git import Repository

DVC_DIR = ".dvc"
_LOCAL, _CACHE = f"{DVC_DIR}/config.local", f"{DVC_DIR}/cache"


@dataclass
class Base:
    """The configuration that ``commit`` holds ('' for none), under the user's own: the global one, the system's, and
    ``.dvc/config.local``, unless that is tracked, and so somebody's who sent it. No command and no file to read is taken
    from a commit, only from the user's own."""

    repo: Repository
    commit: str

    @cached_property
    def text(self) -> str:
        found = self.repo.folder(self.commit).read(f"{DVC_DIR}/config") if self.commit else None
        return (found or b"").decode(errors="replace")

    def config(self, wanted: str = "") -> Any:
        """The configuration that has the remote ``wanted``, or the default one. Raises NoRemote."""
        from gitmodel.storage.remote import NoRemote
        from gitmodel.storage.settings import config_from_text

        dvc_dir = None if self.repo.bare else self.repo.root / DVC_DIR
        config = config_from_text(self.text, wanted, dvc_dir=dvc_dir, own=self._owns_local)
        if not wanted and not config["core"].get("remote"):
            raise NoRemote(
                f"neither {self.commit[:10] or 'a commit to compare with'} nor your own DVC configuration names a remote",
                hint="name it with --remote, or set one with 'dvc remote add --local -d NAME URL'",
            )
        return config

    def cache_dir(self) -> Path:
        """Where bytes are kept: DVC's cache; gitmodel's own store when a commit has put something in its place.
        Raises NoRemote."""
        from gitmodel.storage.settings import own_cache_dir

        dvc_dir = self.repo.root / DVC_DIR
        found = own_cache_dir(dvc_dir, self.text, own=self._owns_local)
        default = dvc_dir / "cache"
        if found == default and (not dvc_dir.is_dir() or any(_is_at(path, _CACHE) for path in self._tracked)):
            return self.repo.state_dir / "store"
        return found

    @cached_property
    def _tracked(self) -> list[str]:
        """What of DVC's folder is in Git's index. A branch may hold any path there, links among them."""
        return self.repo.run("ls-files", "-z", "--", DVC_DIR).split("\0")

    @property
    def _owns_local(self) -> bool:
        if self.repo.bare or not (self.repo.root / _LOCAL).is_file():
            return False
        return not any(_is_at(path, _LOCAL) for path in self._tracked)


def _is_at(path: str, place: str) -> bool:
    """Whether a tracked ``path`` is ``place``, below it, or a link above it."""
    return bool(path) and (path == place or path.startswith(f"{place}/") or place.startswith(f"{path}/"))
