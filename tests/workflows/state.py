"""What these tests look at before and after: a repository's refs, files and cache, and the tensors in a file."""

from __future__ import annotations

import hashlib
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from gitmodel.compat.verdict import Report
from gitmodel.workflows.release import Released
from tests import support


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def files(root: Path) -> dict[str, tuple[int, str]]:
    """(mode, sha256) of every file below ``root``, Git's own and DVC's scratch folder left out."""
    found = {}
    for folder, names, leaves in os.walk(root):
        here = Path(folder)
        names[:] = [n for n in names if n != ".git" and here / n != root / ".dvc" / "tmp"]
        for leaf in leaves:
            path = here / leaf
            found[path.relative_to(root).as_posix()] = (path.lstat().st_mode, digest(path))
    return found


def whole(repo: Path) -> dict[str, Any]:
    """All a failed command must leave as it was: HEAD, refs, the index, every file, the cache included."""
    head = support.git(repo, "rev-parse", "--verify", "--quiet", "HEAD", check=False)
    refs = support.git(repo, "for-each-ref", "--format=%(refname) %(objectname)")
    bare = support.git(repo, "rev-parse", "--is-bare-repository") == "true"
    status = "" if bare else support.git(repo, "status", "--porcelain", "--untracked-files=all")
    return {"head": head, "refs": refs, "status": status, "files": {} if bare else files(repo)}


def objects(repo: Path) -> set[str]:
    """Names of the objects in the DVC cache, temporary files included."""
    base = repo / ".dvc" / "cache" / "files" / "md5"
    return {path.relative_to(base).as_posix() for path in base.rglob("*") if path.is_file()}


def object_path(root: Path, md5: str) -> Path:
    """Where DVC keeps an object below ``root``, a cache or a remote folder."""
    return root / "files" / "md5" / md5[:2] / md5[2:]


def damage(path: Path) -> None:
    """Changes the last byte of an object, as a bad disk would; size and mode 0444 stay."""
    data = bytearray(path.read_bytes())
    data[-1] ^= 0xFF
    path.chmod(0o644)
    path.write_bytes(data)
    path.chmod(0o444)


def rot(path: Path) -> None:
    """As ``damage``, with the times it had: nothing but its bytes tells."""
    before = path.stat()
    damage(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def clone(repo: Path, target: Path) -> Path:
    subprocess.run(["git", "clone", "-q", str(repo), str(target)], check=True)
    return target


def shallow_clone(repo: Path, target: Path, branch: str) -> Path:
    """The last commit of a branch, or a tag, without what came before."""
    command = ["git", "-c", "advice.detachedHead=false", "clone", "-q", "--depth", "1", "--branch", branch]
    subprocess.run([*command, f"file://{repo}", str(target)], check=True)
    return target


def model_repository(folder: Path) -> Path:
    """A model repository ``folder/repo`` with the DVC remote ``folder/storage``, named relatively: the folder can be copied."""
    from gitmodel.workflows.init import init

    repo = folder / "repo"
    subprocess.run(["git", "init", "-q", str(repo)], check=True)
    (folder / "storage").mkdir()
    init(repo)
    config = repo / ".dvc" / "config"
    config.write_text("[core]\n    remote = storage\n['remote \"storage\"']\n    url = ../../storage\n")
    support.git(repo, "add", ".dvc/config")
    support.git(repo, "commit", "-qm", "Set up")
    return repo


def initializers(path: Path) -> dict[str, np.ndarray]:
    """Every initializer of an ONNX file by name, read with the onnx library, external data included."""
    model = onnx.load(str(path))
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}


def write(model: onnx.ModelProto, path: Path) -> Path:
    path.write_bytes(model.SerializeToString())
    return path


def judged(done: Released) -> Report:
    """The report of a release that was not only sent once more."""
    assert done.report is not None
    return done.report
