"""The one module that speaks to Git (through GitPython): revisions, trees, tags, commits. It knows no models."""

from __future__ import annotations

import contextlib
import fcntl
import os
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import git

from gitmodel.errors import ExitCode, GitmodelError

_TAG_FORMAT = "%00".join(
    f"%({field})"
    for field in (
        "refname:strip=2",
        "objecttype",
        "objectname",
        "*objecttype",
        "*objectname",
        "creatordate:unix",
        "creator",
    )
)


#: How Git says that it does not know who commits.
_NOBODY = ("tell me who you are", "unable to auto-detect email", "empty ident name", "auto-detection is disabled")


class NotARepository(GitmodelError):
    """The folder is in no Git repository."""

    code = "not-a-repository"


class UnknownRevision(GitmodelError):
    """Git knows no such commit, branch or tag."""

    code = "unknown-revision"


class GitFailed(GitmodelError):
    """Git refused; the message carries its own words."""

    code = "git-failed"
    exit_code = ExitCode.INCOMPLETE


@dataclass(frozen=True)
class TagRef:
    """A tag as Git has it. ``commit`` is what it points at in the end; ``annotated`` is False for a lightweight one."""

    name: str
    commit: str
    annotated: bool
    date: datetime
    author: str


class GitFolder:
    """The files of one commit below ``prefix``, read from Git's objects; nothing is checked out."""

    def __init__(self, repo: git.Repo, commit: str, prefix: str) -> None:
        self._repo, self._commit, self._prefix = repo, commit, prefix.strip("/")

    @cached_property
    def _tree(self) -> git.Tree | None:
        tree = self._repo.commit(self._commit).tree
        if not self._prefix:
            return tree
        with contextlib.suppress(KeyError):
            item = tree / self._prefix
            return item if isinstance(item, git.Tree) else None
        return None

    @property
    def exists(self) -> bool:
        return self._tree is not None

    @property
    def object_id(self) -> str:
        """Git's own id of this tree: equal ids are equal contents."""
        return self._tree.hexsha if self._tree is not None else ""

    def has(self, path: str) -> bool:
        return self._item(path) is not None

    def _item(self, path: str) -> Any:
        if self._tree is None:
            return None
        try:
            return self._tree / path
        except KeyError:
            return None

    def read(self, path: str) -> bytes | None:
        item = self._item(path)
        if not isinstance(item, git.Blob) or item.mode == git.Blob.link_mode:
            return None
        data: bytes = item.data_stream.read()
        return data

    def files(self, prefix: str = "") -> list[str]:
        if self._tree is None or (prefix and not self.has(prefix)):
            return []
        below = [f"{prefix}/"] if prefix else []
        listing: str = self._repo.git.ls_tree("-r", "-z", "--name-only", self._tree.hexsha, "--", *below)
        return sorted(filter(None, listing.split("\0")))

    def folders(self) -> list[str]:
        """Names of the folders directly below."""
        return sorted(item.name for item in self._tree.trees) if self._tree is not None else []


class Repository:
    """One Git repository, working or bare."""

    def __init__(self, repo: git.Repo) -> None:
        self._repo = repo
        # GitPython expands '$NAME' and '~' in the folder it runs Git in, which then may be another one.
        repo.git._working_dir = str(repo.working_dir)
        # Git's helper processes end with this object, wherever it is dropped, not when the collector comes by.
        self._closer = weakref.finalize(self, repo.close)

    @classmethod
    def open(cls, path: Path) -> Repository:
        """The repository that ``path`` is in. Raises NotARepository."""
        try:
            return cls(git.Repo(path, search_parent_directories=True, expand_vars=False))
        except git.NoSuchPathError:
            raise NotARepository(f"there is no folder {path}", hint="name an existing Git repository") from None
        except git.InvalidGitRepositoryError:
            raise NotARepository(
                f"{path} is not in a Git repository", hint="run 'git init' and 'gitmodel init' there"
            ) from None

    def close(self) -> None:
        """Ends the helper processes Git keeps open for reading objects."""
        self._closer()

    @property
    def bare(self) -> bool:
        return bool(self._repo.bare)

    @cached_property
    def root(self) -> Path:
        """The working tree, or the repository folder itself when it is bare."""
        return Path(self._repo.git_dir if self._repo.bare else str(self._repo.working_tree_dir)).resolve()

    @cached_property
    def common_dir(self) -> Path:
        """Git's own folder, shared by all worktrees."""
        return Path(self._repo.common_dir).resolve()

    @property
    def state_dir(self) -> Path:
        """gitmodel's own folder inside Git's: locks, the store, where the server listens. Never pushed."""
        return self.common_dir / "gitmodel"

    @cached_property
    def hooks_dir(self) -> Path:
        """Where Git looks for hooks, ``core.hooksPath`` respected."""
        return (self.root / self.run("rev-parse", "--git-path", "hooks")).resolve()

    def run(self, *args: str, **options: Any) -> str:
        """Runs ``git ARGS`` in the repository and returns its output. Raises GitFailed with Git's words."""
        try:
            return str(self._repo.git.execute([str(self._repo.git.GIT_PYTHON_GIT_EXECUTABLE), *args], **options))
        except git.GitCommandError as error:
            raise _failed(args[0], str(error.stderr)) from error

    def read(self, oid: str, kind: str = "blob") -> bytes:
        """The contents of an object; one long-lived ``git cat-file --batch`` answers all. Raises GitFailed."""
        with contextlib.suppress(ValueError, OSError):
            _, found, _, data = self._repo.git.get_object_data(oid)
            if found in (kind, kind.encode()):  # GitPython says text and gives bytes
                return data
        raise GitFailed(f"Git has no {kind} {oid}", hint="'git fsck' names what is damaged, 'git fetch' may bring it")

    def config(self, key: str) -> str:
        """A value of Git's configuration, or ''."""
        with contextlib.suppress(GitFailed):
            return self.run("config", "--get", key)
        return ""

    def config_all(self, key: str) -> list[str]:
        """All values of a key that may stand several times."""
        with contextlib.suppress(GitFailed):
            return self.run("config", "--get-all", key).splitlines()
        return []

    def head(self) -> str:
        """The commit checked out, or '' before the first one."""
        return self._repo.head.commit.hexsha if self._repo.head.is_valid() else ""

    def branch(self) -> str:
        return "" if self._repo.head.is_detached else str(self._repo.active_branch)

    def commit_of(self, revision: str) -> str:
        """The full id of the commit a revision names. Raises UnknownRevision."""
        try:
            return self.run("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
        except GitFailed:
            raise UnknownRevision(
                f"Git knows no revision '{revision}'", hint="'git log' and 'git tag' show what there is"
            ) from None

    def folder(self, commit: str, prefix: str = "") -> GitFolder:
        return GitFolder(self._repo, commit, prefix)

    def tags(self, pattern: str = "*") -> list[TagRef]:
        """Tags whose name fits the glob ``pattern``, unsorted; those that point at no commit are left out."""
        listing = self.run("for-each-ref", f"--format={_TAG_FORMAT}", f"refs/tags/{pattern}")
        tags = []
        for line in filter(None, listing.split("\n")):
            name, kind, oid, peeled_kind, peeled, seconds, creator = line.split("\0")
            if (peeled_kind or kind) != "commit":
                continue
            date = datetime.fromtimestamp(int(seconds or 0), UTC)
            tags.append(TagRef(name, peeled or oid, kind == "tag", date, creator.rpartition(" <")[0]))
        return tags

    def tag_message(self, name: str) -> str:
        return self.run("for-each-ref", "--format=%(contents)", f"refs/tags/{name}")

    def log(self, paths: Sequence[str], limit: int = 1) -> list[tuple[str, datetime]]:
        """(commit, author date) of the newest commits that touch ``paths``."""
        listing = self.run("log", f"-{limit}", "--format=%H %at", "--", *paths)
        pairs = (line.split() for line in listing.splitlines())
        return [(oid, datetime.fromtimestamp(int(at), UTC)) for oid, at in pairs]

    def dirty(self, *paths: str) -> list[str]:
        """Paths below ``paths`` that differ from the last commit, untracked ones included."""
        listing = self.run(
            "status", "--porcelain", "-z", "--untracked-files=all", "--", *paths, strip_newline_in_stdout=False
        )
        return [entry[3:] for entry in listing.split("\0") if len(entry) > 3]

    def staged_tree(self, path: str, *but: str) -> str:
        """The id of the tree that the index holds at ``path``; '' when the working tree differs from the index there,
        what the pathspecs ``but`` exclude left aside."""
        unstaged = self.run(
            "status", "--porcelain", "-z", "--untracked-files=all", "--", path, *but, strip_newline_in_stdout=False
        )
        if any(entry[1:2] != " " for entry in unstaged.split("\0") if len(entry) > 3):
            return ""
        with contextlib.suppress(GitFailed):
            return self.run("write-tree", f"--prefix={path}/")
        return ""

    def check_can_commit(self) -> None:
        """Raises GitFailed, as ``commit`` would, while nothing has been written yet."""
        self.run("var", "GIT_AUTHOR_IDENT")
        self.run("var", "GIT_COMMITTER_IDENT")
        if Path(self._repo.git_dir, "index.lock").exists():
            raise _failed("commit", "index.lock exists")

    def commit_folder(self, folder: str, message: str, *, but: str) -> str:
        """Commits all of ``folder``, ignored files too, without what is below ``but``; whatever else is staged is left
        alone. Returns the commit, '' when there was nothing to commit. Raises GitFailed."""
        self.run("add", "--all", "--force", "--", folder, f":(exclude){but}")
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

    def checkout_paths(self, commit: str, path: str) -> None:
        """Makes the working tree's and the index's ``path`` that of ``commit``, files it lacks removed."""
        self.run("restore", f"--source={commit}", "--staged", "--worktree", "--", path)

    def check_remote(self, name: str) -> None:
        """Raises GitFailed when ``name`` is neither a remote of this repository nor a place by itself."""
        if "/" in name or ":" in name or name in self.run("remote").splitlines():
            return
        raise GitFailed(f"there is no Git remote '{name}'", hint="'git remote' lists them, 'git remote add' makes one")

    def push(self, remote: str, refs: Sequence[str]) -> str:
        """``git push``; returns what Git and the other side's hooks said. Raises GitFailed."""
        status, out, err = self._repo.git.execute(
            [str(self._repo.git.GIT_PYTHON_GIT_EXECUTABLE), "push", "--", remote, *refs],
            with_extended_output=True, with_exceptions=False,
        )  # fmt: skip
        if status:
            raise _failed("push", str(err))
        return f"{err}\n{out}".strip()

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """One writer of models at a time in a repository; others wait. The lock ends with the process, however it ends."""
        try:
            self.state_dir.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(self.state_dir / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise GitFailed(
                f"cannot write {self.state_dir} ({error.strerror})", hint="you need write access to the repository"
            ) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def _failed(command: str, stderr: str) -> GitFailed:
    text = stderr.strip().removeprefix("stderr:").strip().strip("'").strip()
    if "index.lock" in text:
        return GitFailed("another Git process holds index.lock", hint="wait for it, or remove a stale .git/index.lock")
    if any(words in text for words in _NOBODY):
        return GitFailed("Git does not know your name", hint="run 'git config user.name' and 'git config user.email'")
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("hint:")]
    return GitFailed(
        f"git {command} failed ({'; '.join(lines[:3]) or 'no message'})", hint="mend what Git names and run again"
    )
