"""What a process that was killed left behind: locks that nobody holds, files half written, folders made for a moment."""

from __future__ import annotations

import os
import re
import shutil
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from gitmodel.doctor.ailment import Ailment, Patient
from gitmodel.files import storing
from gitmodel.git import GitFailed
from gitmodel.registry import MODELS
from gitmodel.storage import dvc_locks
from gitmodel.workflows.examine import ABANDONED
from gitmodel.workflows.places import cache_of

_PROC = Path("/proc")


def locks(patient: Patient) -> Iterator[Ailment]:
    """Locks of Git and DVC. gitmodel's own ends with its process and cannot be left behind."""
    repo = patient.repo
    git_dir = Path(repo.run("rev-parse", "--absolute-git-dir"))
    names = ("index.lock", "HEAD.lock", "config.lock", "packed-refs.lock", "shallow.lock")
    found = [folder / name for folder in {git_dir, repo.common_dir} for name in names if (folder / name).exists()]
    places = (repo.root, git_dir, repo.common_dir)
    for path in [*found, *(repo.common_dir / "refs").rglob("*.lock")]:
        if not _is_held(path, places):
            yield Ailment(
                "stale-git-lock", f"{path} is held by no process and keeps Git from writing", f"rm {path}",
                repair=partial(_release, path, places),
            )  # fmt: skip
    if patient.initialised:
        for path in dvc_locks.stale(repo.root):
            yield Ailment(
                "stale-dvc-lock", f"{path} names processes that are gone, or cannot be read", f"rm {path}",
                repair=partial(dvc_locks.clear, repo.root, path),
            )  # fmt: skip


def files(patient: Patient) -> Iterator[Ailment]:
    """What has not been touched for an hour: younger ones may belong to somebody at work."""
    state = patient.repo.state_dir
    found = [*state.glob("staged/staged-*"), *state.glob("store/versions/building-*"), *state.glob("listing-*")]
    if patient.initialised:
        found += [Path(item.path) for item in cache_of(patient.place).contents().temporary]
        found += [path for path in (patient.repo.root / MODELS).rglob(".*.tmp") if not path.is_symlink()]
    old = [path for path in found if time.time() - path.lstat().st_mtime > ABANDONED]
    if old:
        more = f" and {len(old) - 1} more" if len(old) > 1 else ""
        yield Ailment(
            "left-over", f"{old[0]}{more}: begun by a process that was killed, and of no use", "gitmodel doctor --repair",
            advice=True, repair=partial(_remove, old),
        )  # fmt: skip


def _is_held(lock: Path, places: tuple[Path, ...]) -> bool:
    """Whether a process has the file open, or is a Git at work in the repository: Git closes its lock while an editor or
    a hook runs. Where processes cannot be looked at, it is taken for held."""
    if not _PROC.is_dir():
        return True
    return any(_holds(process, lock, places) for process in _PROC.glob("[0-9]*"))


def _holds(process: Path, lock: Path, places: tuple[Path, ...]) -> bool:
    is_git = False
    try:
        status = dict(line.split(":\t", 1) for line in (process / "status").read_text().splitlines() if ":\t" in line)
        # Our own helpers only read.
        is_git = re.fullmatch(r"git(-.*)?", status["Name"]) is not None and status["PPid"] != str(os.getpid())
        works_in = (process / "cwd").readlink() if is_git else None
        if works_in and any(works_in.is_relative_to(place) for place in places):
            return True
        return any(entry.readlink() == lock for entry in (process / "fd").iterdir())
    except PermissionError:
        return is_git  # somebody else's: only a Git could be at work here
    except (FileNotFoundError, ProcessLookupError):
        return False  # it has ended meanwhile


def _release(lock: Path, places: tuple[Path, ...]) -> None:
    if _is_held(lock, places):
        raise GitFailed(f"{lock} is in use by now", hint="wait for it")
    with storing(str(lock)):
        lock.unlink(missing_ok=True)


def _remove(paths: list[Path]) -> None:
    for path in paths:
        with storing(str(path)):
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
