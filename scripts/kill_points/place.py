"""A folder for one trial: a repository, its two remotes and a user's files, in an environment of its own."""

from __future__ import annotations

import contextlib
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

BIN = Path(sys.executable).parent
TIMEOUT = 120.0
_GIT_CONFIG = (
    "[user]\n\tname = Ada\n\temail = ada@example.org\n[init]\n\tdefaultBranch = main\n[gc]\n\tautoDetach = false\n"
)
_DVC_CONFIG = "[core]\n    analytics = false\n    check_update = false\n"
_PR_SET_CHILD_SUBREAPER = 36


class Broken(Exception):
    """A step that the harness itself needs did not work."""


@dataclass(frozen=True)
class Done:
    """How a command ended: ``code`` is negative for a signal, ``hung`` when it had to be ended from here."""

    code: int
    out: str
    err: str
    hung: bool = False

    @property
    def said(self) -> str:
        """The last line it printed for a person."""
        return (self.err.strip().splitlines() or self.out.strip().splitlines() or [""])[-1]


@dataclass(frozen=True)
class Place:
    """``root`` holds everything; all that gitmodel, Git and DVC write by themselves goes below it, too."""

    root: Path

    @property
    def repo(self) -> Path:
        return self.root / "repo"

    @property
    def origin(self) -> Path:
        """The bare Git remote."""
        return self.root / "origin.git"

    @property
    def storage(self) -> Path:
        """The DVC remote."""
        return self.root / "storage"

    @property
    def files(self) -> Path:
        """The user's own."""
        return self.root / "files"

    @property
    def cache(self) -> Path:
        return self.repo / ".dvc" / "cache"

    @property
    def logs(self) -> Path:
        return self.root / "logs"

    @classmethod
    def new(cls, root: Path) -> Place:
        place = cls(root)
        for name in ("home", "files", "storage", "site", "tmp", "logs", "bin"):
            (root / name).mkdir(parents=True)
        (root / "home" / "gitconfig").write_text(_GIT_CONFIG)
        (root / "home" / "config").write_text(_DVC_CONFIG)
        return place

    def copy(self, root: Path) -> Place:
        subprocess.run(["cp", "-a", "--", str(self.root), str(root)], check=True)
        return Place(root)

    def remove(self) -> None:
        shutil.rmtree(self.root, ignore_errors=True)

    @cached_property
    def environment(self) -> dict[str, str]:
        kept = {k: v for k, v in os.environ.items() if not k.startswith(("GIT_", "DVC_", "COV", "PYTHON"))}
        home = self.root / "home"
        return kept | {
            "HOME": str(home),
            "GIT_CONFIG_GLOBAL": str(home / "gitconfig"),
            "GIT_CONFIG_NOSYSTEM": "1",
            "DVC_NO_ANALYTICS": "1",
            "DVC_GLOBAL_CONFIG_DIR": str(home),
            "DVC_SYSTEM_CONFIG_DIR": str(home),
            "DVC_SITE_CACHE_DIR": str(self.root / "site"),
            "PATH": os.pathsep.join([str(self.root / "bin"), str(BIN), kept.get("PATH", os.defpath)]),
            "TMPDIR": str(self.root / "tmp"),
            # The same calls in the same order every time: no set order of its own, no compiled modules to write.
            "PYTHONHASHSEED": "0",
            "PYTHONDONTWRITEBYTECODE": "1",
            "LC_ALL": "C.UTF-8",
            "COLUMNS": "120",
        }

    def run(self, argv: Sequence[str], *, cwd: Path | None = None, kill_after: float = 0) -> Done:
        """Runs a command to its end and to that of every process it left behind; one that hangs is ended.

        ``kill_after`` so many seconds it and all it started are killed at once, if they still run.
        """
        child = subprocess.Popen(
            argv, cwd=cwd or self.repo, env=self.environment, stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace", start_new_session=True,
        )  # fmt: skip
        ended = threading.Event()

        def end() -> None:
            ended.set()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)

        timer = threading.Timer(kill_after or TIMEOUT, end)
        timer.start()
        try:
            out, err = child.communicate()
            _reap_left_behind(child.pid)
        finally:
            timer.cancel()
        return Done(child.returncode, out, err, ended.is_set() and not kill_after)

    def gitmodel(self, *args: str) -> Done:
        return self.run([str(BIN / "gitmodel"), *args])

    def must(self, *argv: str, cwd: Path | None = None) -> str:
        """Runs what cannot fail in a healthy place; returns stdout. Raises Broken."""
        done = self.run(argv, cwd=cwd)
        if done.code:
            raise Broken(f"'{' '.join(argv)}' gave {done.code}: {done.said}")
        return done.out

    def git(self, *args: str, repo: Path | None = None) -> str:
        """What plain Git says. Raises Broken."""
        return self.must(real_git(), "-C", str(repo or self.repo), *args)

    def locks(self) -> list[Path]:
        """Lock files that a killed Git left behind, in the repository and in the bare remote."""
        return [path for git in (self.repo / ".git", self.origin) for path in _files(git) if path.suffix == ".lock"]


def real_git() -> str:
    found = shutil.which("git")
    if found is None:
        raise Broken("there is no git")
    return found


def adopt_orphans() -> None:
    """Makes this process the parent of whatever its killed children leave running, so that it can wait for them."""
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0):
        raise Broken(f"prctl: {os.strerror(ctypes.get_errno())}")


def _reap_left_behind(group: int) -> None:
    """Waits for every process of the group; the harness's own helpers are in other ones."""
    with contextlib.suppress(ChildProcessError):
        while True:
            os.waitpid(-group, 0)


def _files(root: Path) -> Iterator[Path]:
    for folder, _, names in os.walk(root):
        yield from (Path(folder, name) for name in names)
