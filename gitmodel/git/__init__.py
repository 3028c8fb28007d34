"""The one package that speaks to Git (through GitPython): revisions, trees, tags, commits. It knows no models."""

from gitmodel.git.batches import ListedFolder, folders
from gitmodel.git.dates import last_changed
from gitmodel.git.failures import GitFailed, NotARepository, UnknownRevision
from gitmodel.git.objects import GitFolder, TagRef
from gitmodel.git.repository import Repository

__all__ = [
    "GitFailed",
    "GitFolder",
    "ListedFolder",
    "NotARepository",
    "Repository",
    "TagRef",
    "UnknownRevision",
    "folders",
    "last_changed",
]
