"""Which models are not what a version has: for all models of a repository at once."""

from __future__ import annotations

from pathlib import PurePosixPath

from gitmodel import registry
from gitmodel.git import Repository


class Present:
    """The models as they are now, in the working tree, in a bare repository at HEAD. Git is asked once for all of them."""

    def __init__(self, repo: Repository) -> None:
        self._repo, head = repo, repo.head()
        self._trees = registry.trees(repo, head) if head else {}
        edited = [] if repo.bare else repo.dirty(registry.MODELS)
        self._edited = {name for path in edited for name in PurePosixPath(path).parts[1:2]}

    def differs(self, name: str, commit: str) -> bool:
        """Whether a model is not what it was at ``commit``, edits that are not committed included."""
        if name in self._edited:
            return True
        return self._trees.get(name, "") != self._repo.folder(commit, registry.model_path(name)).object_id
