"""A repository that is written to: commits, tags, pushes, and the lock for one writer at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from gitmodel.files import storing
from gitmodel.git.failures import GitFailed, failed
from gitmodel.git.reading import Reader


class Repository(Reader):
    """One Git repository, working or bare."""

    _holds_lock = False

    def check_can_commit(self) -> None:
        """Raises GitFailed, as ``commit`` would, while nothing has been written yet."""
        self.run("var", "GIT_AUTHOR_IDENT")
        self.run("var", "GIT_COMMITTER_IDENT")
        self.check_unlocked()

    def check_unlocked(self) -> None:
        """Raises GitFailed when another process has the index, or left its lock behind."""
        if Path(self._repo.git_dir, "index.lock").exists():
            raise failed("commit", "index.lock exists")

    def commit_folder(self, folder: str, message: str, *, but: Sequence[str]) -> str:
        """Commits all of ``folder``, ignored files too, without what these globs name and what is below it; whatever else
        is staged is left alone. Returns the commit, '' when there was nothing to commit. Raises GitFailed."""
        self.run("add", "--all", "--force", "--", folder, *(f":(exclude,glob){pattern}" for pattern in but))
        try:
            self.run("commit", "--quiet", "-m", message, "--", folder)
        except GitFailed:
            if self.dirty(folder):
                raise
            return ""
        return self.head()

    def tag(self, name: str, message: str, *, commit: str, sign: bool = False) -> None:
        """An annotated tag; creating one that exists fails, whoever was first. Raises GitFailed."""
        self.run("tag", "--sign" if sign else "--annotate", "--cleanup=verbatim", "-m", message, "--", name, commit)
        # Git makes an unsigned tag, and says it succeeded, when the key cannot be read.
        if sign and "-----BEGIN " not in self.run("cat-file", "tag", f"refs/tags/{name}"):
            self.run("update-ref", "-d", f"refs/tags/{name}", self.run("rev-parse", f"refs/tags/{name}"))
            raise GitFailed(f"{name} could not be signed", hint="check user.signingkey and gpg.format; no tag was made")

    def checkout_folder(self, commit: str, folder: str, scratch: Path) -> None:
        """Makes the working tree's and the index's ``folder`` that of ``commit``, files it lacks removed.

        Each file is the old or the new one at every moment: Git lays them out below ``scratch``, on the same file system,
        and they are renamed into place; the index follows last. Raises GitFailed.
        """
        self.check_unlocked()
        scratch.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="checkout-", dir=scratch) as holder:
            apart = {"GIT_INDEX_FILE": f"{holder}/index"}
            self.run("read-tree", f"--prefix={folder}/", f"{commit}:{folder}", env=apart)
            self.run("checkout-index", "--all", f"--prefix={holder}/tree/", env=apart)
            wanted = set(self.blobs(commit, folder))
            tracked = set(filter(None, self.run("ls-files", "-z", "--", folder).split("\0")))
            for name in sorted(wanted):
                _put(Path(holder, "tree", name), self.root / name)
            for name in tracked - wanted:
                (self.root / name).unlink(missing_ok=True)
        self.run("restore", f"--source={commit}", "--staged", "--", folder)

    def author(self) -> str:
        """Who would be the author of a commit made now, ``Ada <ada@example.org>``. Raises GitFailed."""
        return self.run("var", "GIT_AUTHOR_IDENT").rpartition("> ")[0] + ">"

    def ignore_here(self, pattern: str) -> None:
        """Keeps files out of Git in this clone alone, by a line in ``info/exclude``. Raises StorageFailed."""
        path = self.common_dir / "info" / "exclude"
        with storing(str(path)):
            text = path.read_bytes() if path.exists() else b""
            if pattern.encode() not in text.splitlines():
                path.parent.mkdir(exist_ok=True)
                with path.open("ab") as file:
                    file.write((b"\n" if text and not text.endswith(b"\n") else b"") + f"{pattern}\n".encode())

    def check_remote(self, name: str) -> None:
        """Raises GitFailed when ``name`` is neither a remote of this repository nor a place by itself."""
        if "/" in name or ":" in name or name in self.run("remote").splitlines():
            return
        raise GitFailed(f"there is no Git remote '{name}'", hint="'git remote' lists them, 'git remote add' makes one")

    def push(self, remote: str, refs: Sequence[str], env: Mapping[str, str] | None = None) -> str:
        """``git push``; returns what Git and the other side's hooks said. ``env`` is for the hooks here. Raises GitFailed."""
        status, out, err = self._repo.git.execute(
            [str(self._repo.git.GIT_PYTHON_GIT_EXECUTABLE), "push", "--", remote, *refs],
            with_extended_output=True, with_exceptions=False, env=dict(env or {}),
        )  # fmt: skip
        if status:
            raise failed("push", str(err))
        return f"{err}\n{out}".strip()

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """One writer of models at a time in a repository; others wait. The lock ends with the process, however it ends.
        Who holds it may take it again: verbs that belong together are one turn."""
        if self._holds_lock:
            yield
            return
        try:
            self.state_dir.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.state_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise GitFailed(
                f"cannot write {self.state_dir} ({error.strerror})", hint="you need write access to the repository"
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            self._holds_lock = True
            yield
        finally:
            self._holds_lock = False
            os.close(descriptor)


def _put(source: Path, target: Path) -> None:
    """Renames ``source`` to ``target``, which is left alone when it says the same."""
    same_kind = target.is_file() and not target.is_symlink() and not source.is_symlink()
    if same_kind and source.stat().st_mode == target.stat().st_mode and source.read_bytes() == target.read_bytes():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    source.replace(target)
