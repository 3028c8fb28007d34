"""The reading half of a repository: nothing here changes it."""

from __future__ import annotations

import contextlib
import os
import re
import tempfile
import weakref
from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import git

from gitmodel.git.failures import GitFailed, NotARepository, UnknownRevision, failed
from gitmodel.git.objects import GitFolder, TagRef

#: Names given to one command: the kernel has a limit.
AT_ONCE = 1000
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


class Reader:
    """A repository as it is read."""

    def __init__(self, repo: git.Repo) -> None:
        self._repo = repo
        # GitPython expands '$NAME' and '~' in the folder it runs Git in, which then may be another one.
        repo.git._working_dir = str(repo.working_dir)
        # Git's helper processes end with this object, wherever it is dropped, not when the collector comes by.
        self._closer = weakref.finalize(self, repo.close)

    @classmethod
    def open(cls, path: Path) -> Self:
        """The repository that ``path`` is in. Raises NotARepository."""
        try:
            return cls(git.Repo(path, search_parent_directories=True, expand_vars=False))
        except git.NoSuchPathError:
            raise NotARepository(f"there is no folder {path}", hint="name an existing Git repository") from None
        except git.InvalidGitRepositoryError:
            if any((folder / ".git").exists() for folder in (path.absolute(), *path.absolute().parents)):
                raise GitFailed(
                    f"the Git repository at {path} cannot be read", hint="'git status' there tells more"
                ) from None
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

    def worktrees(self) -> list[Path]:
        """The working trees of the repository that are there, this one and those linked to it."""
        return [
            root
            for one in self._worktrees()
            if "bare" not in one and (root := Path(one["worktree"]).resolve()).is_dir()
        ]

    @property
    def home(self) -> Path | None:
        """The working tree that no ``git worktree remove`` deletes; None where there is none, as in a bare repository."""
        first = self._worktrees()[0]
        return None if "bare" in first else Path(first["worktree"]).resolve()

    def _worktrees(self) -> list[dict[str, str]]:
        """What Git says of each, the main one first (git-worktree, list)."""
        blocks = (block.splitlines() for block in self.run("worktree", "list", "--porcelain").split("\n\n"))
        said = [dict(line.partition(" ")[::2] for line in lines) for lines in blocks]
        return [one for one in said if "worktree" in one]

    @property
    def is_linked(self) -> bool:
        """Whether this working tree was made by ``git worktree add``, and goes with ``git worktree remove``."""
        return not self._repo.bare and Path(self._repo.git_dir).resolve() != self.common_dir

    @property
    def state_dir(self) -> Path:
        """gitmodel's own folder inside Git's: locks, the store, where the server listens. Never pushed."""
        return self.common_dir / "gitmodel"

    @property
    def shallow(self) -> bool:
        """Whether history was left out when this was cloned: what is not here may well be where it came from."""
        return (self.common_dir / "shallow").is_file()

    @cached_property
    def hooks_dir(self) -> Path:
        """Where Git looks for hooks, ``core.hooksPath`` respected."""
        return (self.root / self.run("rev-parse", "--git-path", "hooks")).resolve()

    def run(self, *args: str, **options: Any) -> str:
        """Runs ``git ARGS`` in the repository and returns its output. Raises GitFailed with Git's words."""
        try:
            return str(self._repo.git.execute([str(self._repo.git.GIT_PYTHON_GIT_EXECUTABLE), *args], **options))
        except git.GitCommandError as error:
            raise failed(args[0], str(error.stderr)) from error

    def run_on(self, lines: Iterable[str], *args: str, **options: Any) -> bytes:
        """As ``run``, of a command that reads these lines: many questions to one process. Its output as it is."""
        whole = [str(self._repo.git.GIT_PYTHON_GIT_EXECUTABLE), *args]
        with tempfile.TemporaryFile() as given:
            given.write("".join(f"{line}\n" for line in lines).encode())
            given.seek(0)
            try:
                out: Any = self._repo.git.execute(
                    whole, istream=given, stdout_as_string=False, strip_newline_in_stdout=False, **options
                )
            except git.GitCommandError as error:
                raise failed(args[0], str(error.stderr)) from error
        return bytes(out)

    def read(self, oid: str, kind: str = "blob") -> bytes:
        """The contents of an object; one long-lived ``git cat-file --batch`` answers all. Raises GitFailed."""
        with contextlib.suppress(ValueError, OSError):
            _, found, _, data = self._repo.git.get_object_data(oid)
            if found in (kind, kind.encode()):  # GitPython says text and gives bytes
                return data
        raise GitFailed(f"Git has no {kind} {oid}", hint="'git fsck' names what is damaged, 'git fetch' may bring it")

    def _run_both(self, command: Sequence[str]) -> tuple[str, str]:
        """What a command says on stdout and on stderr. Raises GitFailed."""
        whole = [str(self._repo.git.GIT_PYTHON_GIT_EXECUTABLE), *command]
        status, out, err = self._repo.git.execute(whole, with_extended_output=True, with_exceptions=False)
        if status:
            raise failed(command[0], str(err))
        return str(out), str(err)

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
        try:
            return self._repo.head.commit.hexsha if self._repo.head.is_valid() else ""
        except ValueError as error:
            raise GitFailed(f"Git's HEAD cannot be read ({error})", hint="'git status' tells more") from error

    def branch(self) -> str:
        return "" if self._repo.head.is_detached else str(self._repo.active_branch)

    def commit_of(self, revision: str) -> str:
        """The full id of the commit a revision names. Raises UnknownRevision."""
        try:
            return self.run("rev-parse", "--verify", "--quiet", "--end-of-options", f"{revision}^{{commit}}")
        except GitFailed:
            more = "; this clone is shallow: 'git fetch --unshallow --tags' brings the rest" if self.shallow else ""
            raise UnknownRevision(
                f"Git knows no revision '{revision}'", hint=f"'git log' and 'git tag' show what there is{more}"
            ) from None

    def merge_base(self, one: str, other: str) -> str:
        """The commit two branches have grown from; '' when there is none, or a shallow clone left it out."""
        with contextlib.suppress(GitFailed):
            return self.run("merge-base", one, other)
        return ""

    def folder(self, commit: str, prefix: str = "") -> GitFolder:
        return GitFolder(self._repo, commit, prefix)

    def tags(self, pattern: str = "*", ours: Callable[[str], bool] = lambda _: True) -> list[TagRef]:
        """Tags whose name fits the glob ``pattern``, unsorted; those that point at no commit are left out.

        Raises GitFailed for one that cannot be read, if it is one of ``ours``: left out, it would make another version the
        latest.
        """
        try:
            listing, warnings = self._tags_as_told([pattern])
        except GitFailed:  # of one that is none of ours, perhaps; names alone can be read of all
            names, warnings = self._run_both(["for-each-ref", "--format=%(refname:strip=2)", f"refs/tags/{pattern}"])
            wanted = [name for name in names.split("\n") if name and ours(name)]
            chunks = [wanted[start : start + AT_ONCE] for start in range(0, len(wanted), AT_ONCE)]
            listing = "\n".join(self._tags_as_told(chunk)[0] for chunk in chunks)
        for name in re.findall(r"ignoring (?:broken ref|dangling symref) refs/tags/(\S+)", warnings):
            if ours(name) and fnmatchcase(name, pattern):
                hint = "'git fsck' tells more; fetch it again from a remote"
                raise GitFailed(f"Git cannot read refs/tags/{name}", hint=hint)
        tags = []
        for line in filter(None, listing.split("\n")):
            name, kind, oid, peeled_kind, peeled, seconds, creator = line.split("\0")
            found, commit = peeled_kind or kind, peeled or oid
            if found == "tag":  # of a tag, which older versions of Git do not follow to the end
                with contextlib.suppress(UnknownRevision):
                    found, commit = "commit", self.commit_of(f"refs/tags/{name}")
            if found != "commit":
                continue
            date = datetime.fromtimestamp(int(seconds or 0), UTC)
            tags.append(TagRef(name, commit, kind == "tag", date, creator.rpartition(" <")[0]))
        return tags

    def _tags_as_told(self, patterns: Sequence[str]) -> tuple[str, str]:
        """What Git says of tags, and what it warns of. Raises GitFailed."""
        return self._run_both(["for-each-ref", f"--format={_TAG_FORMAT}", *(f"refs/tags/{one}" for one in patterns)])

    def tag_message(self, name: str) -> str:
        """What an annotated tag says, its signature included. Raises GitFailed."""
        _, _, message = self.read(f"refs/tags/{name}", "tag").partition(b"\n\n")
        return message.decode(errors="replace")

    def dirty(self, *paths: str) -> list[str]:
        """Paths below ``paths`` that differ from the last commit, untracked ones included."""
        listing = self.run(
            "status",
            "--porcelain",
            "-z",
            "--no-renames",
            "--untracked-files=all",
            "--",
            *paths,
            strip_newline_in_stdout=False,
        )
        return [entry[3:] for entry in listing.split("\0") if len(entry) > 3]

    def contents(self, paths: Sequence[str]) -> dict[str, set[str]]:
        """The blob ids of what the index and the working tree hold at each path; what is no plain file has an id of its own."""
        found: dict[str, set[str]] = {path: set() for path in paths}
        for line in filter(None, self.run("ls-files", "--stage", "-z", "--", *_literal(paths)).split("\0")):
            described, path = line.split("\t", 1)
            found.setdefault(path, set()).add(described.split()[1])
        plain = [path for path in paths if (self.root / path).is_file() and not (self.root / path).is_symlink()]
        for path in paths:
            if path not in plain and os.path.lexists(self.root / path):
                found[path].add(f"no file: {path}")
        if plain:
            ids = self.run("hash-object", "--", *plain).split()
            for path, oid in zip(plain, ids, strict=True):
                found[path].add(oid)
        return found

    def sizes(self, oids: Collection[str]) -> dict[str, int]:
        """Bytes of each of these objects that is here: a partial clone does not bring what it left out to tell."""
        if not oids:  # as nearly always
            return {}
        told = self.run("cat-file", "--batch-all-objects", "--unordered", "--batch-check=%(objectname) %(objectsize)")
        pairs = (line.split() for line in told.splitlines())
        return {oid: int(size) for oid, size in pairs if oid in oids}

    def blobs(self, commit: str, path: str) -> dict[str, str]:
        """The blob id of every file below ``path`` in a commit."""
        listing = self.run("ls-tree", "-r", "-z", commit, "--", path)
        pairs = (line.split("\t", 1) for line in filter(None, listing.split("\0")))
        return {name: described.split()[2] for described, name in pairs}


def _literal(paths: Sequence[str]) -> list[str]:
    """Paths that Git is not to read as patterns."""
    return [f":(literal){path}" for path in paths]
