"""What the verbs share: the model repository they work in, and a bundle's weights brought to where a session can open them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from gitmodel.bundle.bundle import ONNX_VIEW, WEIGHTS, Bundle
from gitmodel.bundle.folder import DiskFolder
from gitmodel.bundle.lock import FileEntry
from gitmodel.compat.sessions import Sessions
from gitmodel.errors import GitmodelError
from gitmodel.git import Repository
from gitmodel.workflows.base import Base

if TYPE_CHECKING:  # most checks read no weights, and all of storage/ takes as long to import as they take
    from gitmodel.storage.cache import Cache
    from gitmodel.storage.remote import Progress, Remote
    from gitmodel.storage.supply import Supply


class NeedsWorkingTree(GitmodelError):
    """A verb that writes models was run in a bare repository."""

    code = "needs-working-tree"


@dataclass
class Workspace:
    """A model repository; opens what it needs when it is first asked for. ``remote_name`` is a DVC remote's name or URL,
    the default one's when empty. ``base`` has what counts as DVC's configuration, the working tree's when None. ``idle`` is
    called where other threads are at work and this one would only wait: for what the caller will need next. ``sessions`` are
    what a save has opened, for the release that follows."""

    repo: Repository
    remote_name: str = ""
    progress: Progress | None = field(default=None, repr=False)
    base: Base | None = None
    idle: Callable[[], object] = field(default=lambda: None, repr=False)
    sessions: Sessions = field(default_factory=Sessions, repr=False)
    _trusting: dict[str, Workspace] = field(default_factory=dict, repr=False)

    @classmethod
    def open(cls, path: Path, *, remote: str = "", progress: Progress | None = None) -> Workspace:
        """Raises NotARepository, NeedsWorkingTree, NotInitialised."""
        from gitmodel.storage import setup

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

    @classmethod
    def reading(cls, path: Path, *, remote: str = "", progress: Progress | None = None) -> Workspace:
        """For verbs that touch no working tree: a bare repository will do. Raises NotARepository, NotInitialised."""
        repo = Repository.open(path)
        return cls(repo, remote, progress) if repo.bare else cls.open(path, remote=remote, progress=progress)

    def trusting(self, commit: str) -> Workspace:
        """The same place, where DVC's configuration is that of ``commit`` ('' for none) and the user's own: for judging
        what is checked out, or committed elsewhere, by somebody else."""
        if commit not in self._trusting:
            self._trusting[commit] = replace(self, base=Base(self.repo, commit))
        return self._trusting[commit]

    @cached_property
    def cache(self) -> Cache:
        """DVC's cache; in a bare repository, a store of its own. Raises NotInitialised."""
        from gitmodel.storage import setup
        from gitmodel.storage.cache import Cache
        from gitmodel.storage.digests import Digests

        digests = Digests(self.repo.state_dir / "digests.sqlite")
        if self.repo.bare:
            return Cache(self.repo.state_dir / "store", digests)
        if self.base is not None:
            return Cache(self.base.cache_dir(), digests)
        return setup.open_cache(self.repo.root, digests)

    @cached_property
    def remote(self) -> Remote:
        """Raises NoRemote."""
        return self.remote_for("")

    def remote_for(self, commit: str) -> Remote:
        """The remote of the working tree; in a bare repository, the one ``commit`` names, or HEAD. Raises NoRemote."""
        from gitmodel.storage.remote import Remote
        from gitmodel.storage.settings import committed_config, is_url, remote_config
        from gitmodel.storage.setup import DVC_DIR

        bare, wanted = self.repo.bare, self.remote_name
        if self.base is not None and not is_url(wanted):
            return Remote(self.base.config(wanted), wanted)
        committed = committed_config(self.repo, commit) if bare else ""
        config = remote_config(None if bare else self.repo.root / DVC_DIR, committed, wanted)
        return Remote(config, "" if is_url(wanted) else wanted)

    @cached_property
    def supply(self) -> Supply:
        from gitmodel.storage.supply import Supply

        return Supply(self.cache, self.beside, lambda: self.remote)

    def supply_for(self, commit: str) -> Supply:
        """As ``supply``, where the remote may depend on the commit."""
        from gitmodel.storage.supply import Supply

        bare = self.repo.bare and self.base is None
        return Supply(self.cache, self.beside, lambda: self.remote_for(commit)) if bare else self.supply

    def beside(self) -> list[Cache]:
        """The caches of the repository's other working trees, which DVC keeps apart; whose configuration is not to be trusted
        is not asked where they are."""
        from gitmodel.storage import setup

        if self.base is not None:
            return []
        return setup.open_caches(root for root in self.repo.worktrees() if root != self.repo.root)

    @contextlib.contextmanager
    def staged(self, bundle: Bundle, entries: Sequence[FileEntry]) -> Iterator[Path]:
        """These of the bundle's files in a folder of their own, bytes verified. Raises MissingWeights and kin."""
        supply = self.supply_for(bundle.commit)
        supply.ensure(entries, bundle.label, self.progress)
        with supply.staged(entries, self.repo.state_dir / "staged") as folder:
            yield folder


@contextlib.contextmanager
def opened(place: Workspace | None, bundle: Bundle) -> Iterator[Path]:
    """The model file of any bundle, verified, for as long as a session needs it: a bare file, a bundle's folder
    somewhere on disk, or one of the repository's. Raises NotServable, MissingWeights, NeedsWorkingTree and kin."""
    if bundle.file is not None:
        yield bundle.file
    else:
        with weights_of(place, bundle, bundle.graph_files()) as folder:
            yield folder / ONNX_VIEW


@contextlib.contextmanager
def weights_of(place: Workspace | None, bundle: Bundle, entries: Sequence[FileEntry]) -> Iterator[Path]:
    """A folder that has these files of a bundle's weights, verified, and may have others. Raises MissingWeights,
    NeedsWorkingTree and kin."""
    if isinstance(bundle.folder, DiskFolder) and (place is None or not _is_inside(bundle.folder.root, place.repo)):
        from gitmodel.storage.digests import hash_file
        from gitmodel.storage.workspace import MissingWeights

        weights = bundle.folder.root / WEIGHTS
        for entry in entries:
            path = weights / entry.path
            if not path.is_file() or hash_file(path) != entry.sha256:
                raise MissingWeights(f"{path} is missing or is not what weights.lock says", hint="run 'dvc pull' there")
        yield weights
    elif place is None:
        raise NeedsWorkingTree(f"{bundle.label} has its weights in a repository", hint="run inside it")
    else:
        with place.staged(bundle, entries) as folder:
            yield folder


def _is_inside(folder: Path, repo: Repository) -> bool:
    return folder.resolve().is_relative_to(repo.root)
