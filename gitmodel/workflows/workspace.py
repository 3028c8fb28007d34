"""What the verbs share: the model repository they work in, and a bundle's weights brought to where a session can open them."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from gitmodel.bundle.bundle import ONNX_VIEW, WEIGHTS, Bundle
from gitmodel.bundle.folder import DiskFolder
from gitmodel.errors import GitmodelError
from gitmodel.git import Repository
from gitmodel.storage import setup
from gitmodel.storage.cache import Cache
from gitmodel.storage.digests import Digests, hash_file
from gitmodel.storage.remote import Progress, Remote, load_config
from gitmodel.storage.supply import Supply
from gitmodel.storage.workspace import MissingWeights


class NeedsWorkingTree(GitmodelError):
    """A verb that writes models was run in a bare repository."""

    code = "needs-working-tree"


@dataclass
class Workspace:
    """A model repository with a working tree; opens what it needs when it is first asked for."""

    repo: Repository
    remote_name: str = ""
    progress: Progress | None = field(default=None, repr=False)

    @classmethod
    def open(cls, path: Path, *, remote: str = "", progress: Progress | None = None) -> Workspace:
        """Raises NotARepository, NeedsWorkingTree, NotInitialised."""
        repo = Repository.open(path)
        if repo.bare:
            raise NeedsWorkingTree(f"{repo.root} is a bare repository", hint="run this in a clone of it")
        if not setup.is_initialised(repo.root):
            raise setup.NotInitialised(f"{repo.root} is no model repository yet", hint="run 'gitmodel init'")
        return cls(repo, remote, progress)

    @classmethod
    def of(cls, repo: Path | str | Workspace, *, progress: Progress | None = None) -> Workspace:
        """The workspace itself, or the one of that folder: verbs that follow each other share it."""
        return repo if isinstance(repo, Workspace) else cls.open(Path(repo), progress=progress)

    @cached_property
    def cache(self) -> Cache:
        """Raises NeedsWorkingTree, NotInitialised."""
        if self.repo.bare:
            raise NeedsWorkingTree(
                f"{self.repo.root} is a bare repository and keeps no weights", hint="run this in a clone of it"
            )
        return setup.open_cache(self.repo.root, Digests(self.repo.state_dir / "digests.sqlite"))

    @cached_property
    def remote(self) -> Remote:
        """Raises NoRemote."""
        return Remote(load_config(self.repo.root / setup.DVC_DIR), self.remote_name)

    @cached_property
    def supply(self) -> Supply:
        return Supply(self.cache, (), lambda: self.remote)

    @contextlib.contextmanager
    def staged(self, bundle: Bundle) -> Iterator[Path]:
        """The bundle's ONNX view in a folder of its own, bytes verified. Raises NotServable, MissingWeights and kin."""
        entries = bundle.graph_files()
        self.supply.ensure(entries, bundle.label, self.progress)
        with self.supply.staged(entries, self.repo.state_dir / "staged") as folder:
            yield folder / ONNX_VIEW


@contextlib.contextmanager
def opened(place: Workspace | None, bundle: Bundle) -> Iterator[Path]:
    """The model file of any bundle, verified, for as long as a session needs it: a bare file, a bundle's folder
    somewhere on disk, or one of the repository's. Raises NotServable, MissingWeights, NeedsWorkingTree and kin."""
    if bundle.file is not None:
        yield bundle.file
    elif isinstance(bundle.folder, DiskFolder) and (place is None or not _is_inside(bundle.folder.root, place.repo)):
        weights = bundle.folder.root / WEIGHTS
        for entry in bundle.graph_files():
            path = weights / entry.path
            if not path.is_file() or hash_file(path) != entry.sha256:
                raise MissingWeights(f"{path} is missing or is not what weights.lock says", hint="run 'dvc pull' there")
        yield weights / ONNX_VIEW
    elif place is None:
        raise NeedsWorkingTree(f"{bundle.label} has its weights in a repository", hint="run inside it")
    else:
        with place.staged(bundle) as path:
            yield path


def _is_inside(folder: Path, repo: Repository) -> bool:
    return folder.resolve().is_relative_to(repo.root)
