"""The shims that Git calls: put into a repository's hooks folder, before hooks that were there already, and removed again."""

from __future__ import annotations

import contextlib
import stat
import sys
from pathlib import Path

from msgspec import Struct

from gitmodel import resources
from gitmodel.errors import GitmodelError
from gitmodel.files import replace_file
from gitmodel.git import GitFailed, Repository

LOCAL = ("reference-transaction", "post-tag", "pre-push")
SERVER = ("update", "post-receive")
_MARK = "# gitmodel hook:"
_SUFFIX = ".user"
_PUSH_OPTIONS = "receive.advertisePushOptions"


class WrongRepository(GitmodelError):
    """Server hooks belong into a bare repository, local ones into a working one."""

    code = "wrong-repository"


class HookStatus(Struct, frozen=True):
    """One hook: ``installed``, ``absent``, ``foreign`` (somebody else's) or ``outdated``; whether a foreign one is chained."""

    name: str
    state: str
    chained: bool
    path: Path


def install(repo_path: Path, *, server: bool = False) -> list[HookStatus]:
    """Installs the shims; a hook that is there already is kept as ``NAME.user`` and called first. Safe to repeat."""
    repo = Repository.open(repo_path)
    if repo.bare != server:
        mend = (
            "leave out --server, or run it in the bare repository" if server else "add --server for a bare repository"
        )
        raise WrongRepository(f"{repo.root} is {'a bare' if repo.bare else 'no bare'} repository", hint=mend)
    _refuse_no_folder(repo)
    for name in SERVER if server else LOCAL:
        path = repo.hooks_dir / name
        if path.exists() and not is_ours(path):
            kept = path.with_name(name + _SUFFIX)
            if kept.exists():
                raise WrongRepository(f"{kept} is in the way", hint="merge it with your hook and remove it")
            path.rename(kept)
        replace_file(path, _text(name), mode=0o755)
        path.chmod(0o755)  # one that is there already may have lost its x
    if server:
        repo.run("config", _PUSH_OPTIONS, "true")  # for git push -o gitmodel.wait=SECONDS
    return status(repo_path)


def _refuse_no_folder(repo: Repository) -> None:
    """``core.hooksPath=/dev/null`` is how hooks are switched off."""
    folder = repo.hooks_dir
    if any(path.exists() and not path.is_dir() for path in (folder, *folder.parents)):
        raise WrongRepository(
            f"core.hooksPath points at no folder ({folder})",
            hint="'git config --show-origin core.hooksPath' tells where it is set: name a folder there, or unset it",
        )


def uninstall(repo_path: Path) -> list[HookStatus]:
    """Removes our shims and puts chained hooks back."""
    repo = Repository.open(repo_path)
    for name in (*LOCAL, *SERVER):
        path = repo.hooks_dir / name
        if not is_ours(path):
            continue
        path.unlink()
        kept = path.with_name(name + _SUFFIX)
        if kept.exists():
            kept.rename(path)
    if repo.bare:
        with contextlib.suppress(GitFailed):  # it is not set here
            repo.run("config", "--local", "--unset-all", _PUSH_OPTIONS)
    return status(repo_path)


def status(repo_path: Path) -> list[HookStatus]:
    repo = Repository.open(repo_path)
    return [_status(repo.hooks_dir / name) for name in (SERVER if repo.bare else LOCAL)]


def is_ours(path: Path) -> bool:
    try:
        return _MARK in path.read_text(errors="replace")[:400]
    except OSError:
        return False


def _text(name: str) -> bytes:
    shim = (resources.hooks_dir() / name).read_text()
    return shim.replace("@PYTHON@", sys.executable.replace("'", "'\\''")).encode()


def _status(path: Path) -> HookStatus:
    kept = path.with_name(path.name + _SUFFIX).exists()
    if not path.exists():
        return HookStatus(path.name, "absent", kept, path)
    if not is_ours(path):
        return HookStatus(path.name, "foreign", kept, path)
    current = path.read_bytes() == _text(path.name) and path.stat().st_mode & stat.S_IXUSR
    return HookStatus(path.name, "installed" if current else "outdated", kept, path)
