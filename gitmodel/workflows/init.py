"""``init``: a Git repository becomes a model repository. Safe to repeat."""

from __future__ import annotations

from pathlib import Path

from msgspec import Struct

from gitmodel import resources
from gitmodel.files import replace_file
from gitmodel.git import Repository
from gitmodel.storage import setup
from gitmodel.workflows.workspace import NeedsWorkingTree

_STAGED = (".dvc/config", ".dvc/.gitignore", ".dvcignore", ".gitattributes")


class Initialised(Struct, frozen=True):
    """``done`` says in words what was changed; empty when everything was there."""

    root: Path
    done: tuple[str, ...]


def init(path: Path | str = ".", *, remote: str = "") -> Initialised:
    """Raises NotARepository, NeedsWorkingTree. Stages what it writes; committing is the user's."""
    repo = Repository.open(Path(path))
    if repo.bare:
        raise NeedsWorkingTree(f"{repo.root} is a bare repository", hint="run this in a clone of it")
    done = []
    if setup.init(repo.root):
        done.append("DVC set up (.dvc/)")
    if remote and setup.set_remote(repo.root, remote):
        done.append(f"weights go to {remote}")
    if _add_attributes(repo.root):
        done.append(".gitattributes lines for model files")
    if done:
        repo.run("add", "--", *(name for name in _STAGED if (repo.root / name).exists()))
    return Initialised(repo.root, tuple(done))


def _add_attributes(root: Path) -> bool:
    """Appends the lines that are missing; the user's own stay as they are."""
    path = root / ".gitattributes"
    text = path.read_text() if path.exists() else ""
    wanted = [line for line in resources.template("gitattributes").splitlines() if line and not line.startswith("#")]
    missing = [line for line in wanted if line not in text.splitlines()]
    if not missing:
        return False
    start = text if not text or text.endswith("\n") else f"{text}\n"
    return replace_file(path, f"{start}{chr(10).join(missing)}\n".encode())
