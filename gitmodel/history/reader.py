"""Reads it: every lock and every other DVC pointer in whatever Git can still reach. Nothing is fetched, no weights are read.

Refs, reflogs, stashes, indexes and working trees count, those of all worktrees.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from gitmodel.bundle.bundle import LOCK
from gitmodel.bundle.lock import FileEntry, InvalidLock, Lock
from gitmodel.bundle.yamlio import InvalidYaml
from gitmodel.git import GitFailed, Repository
from gitmodel.history.past import Change, History, Mention, Why
from gitmodel.history.trees import POINTER, Trees
from gitmodel.registry import MODELS
from gitmodel.storage.audit import names_in
from gitmodel.storage.pointer import Pointer
from gitmodel.versions import ReleaseTag, StageTag, parse_tag

#: What may name stored bytes; DVC's own files are ``*.dvc`` and ``dvc.lock``.
_PATHS = (f"*{LOCK}", "*.dvc", "*dvc.lock")
_OURS = re.compile(rf"{MODELS}/([^/]+)/({re.escape(LOCK)}|{re.escape(POINTER)})")
#: A replaced commit hides what the real one names.
_PLAIN = {"GIT_NO_REPLACE_OBJECTS": "1"}


def read(repo: Repository, also: Iterable[str] = ()) -> History:
    """Everything the repository names; ``also`` are commits to start from besides its refs. Raises GitFailed."""
    return _Reader(repo).read(list(also))


class _Reader:
    """Reads each blob and each list of models once."""

    def __init__(self, repo: Repository) -> None:
        self._repo, self._trees = repo, Trees(repo)
        self._past = History(repo.root, shallow=repo.run("rev-parse", "--is-shallow-repository") == "true")
        self._digests: dict[str, str] = {}  # by a lock's blob; '' for one that cannot be read
        self._reasons: dict[str, str] = {}  # by a lock's blob, why it cannot
        self._paths: dict[str, set[str]] = {}  # by another pointer's blob, where it stands
        self._on_disk: list[tuple[str, bytes]] = []  # other pointers in working trees
        self._entries: dict[FileEntry, FileEntry] = {}  # thousands of locks share most of theirs
        self._pointers: dict[str, bytes] = {}  # by their blob
        self._withdrawn: set[str] = set()  # tags of versions

    def read(self, also: list[str]) -> History:
        self._read_commits(also)
        self._read_changes()
        self._read_refs()
        self._read_loose()
        for root in self._worktrees():
            self._read_working_tree(root)
        self._read_pointers()
        self._past.mentions = list(dict.fromkeys(self._past.mentions))
        return self._past

    def _read_commits(self, also: list[str]) -> None:
        walk = self._repo.run("rev-list", "--all", "--reflog", "--timestamp", "--parents", *also, "--", env=_PLAIN)
        for line in walk.splitlines():
            seconds, commit, *parents = line.split()
            self._past.parents[commit] = (datetime.fromtimestamp(int(seconds), UTC), tuple(parents))

    def _read_changes(self) -> None:
        """What each commit changed of the files that name bytes: by induction from the roots, all there ever were."""
        told = self._repo.run_on(
            self._past.parents,
            "diff-tree", "--stdin", "-m", "-r", "--root", "--raw", "-z", "--no-renames", "--", *_PATHS, env=_PLAIN,
        )  # fmt: skip
        commit, fields = "", iter(os.fsdecode(told).split("\0"))
        for item in filter(None, fields):
            if not item.startswith(":"):
                commit = item
                continue
            old_mode, mode, old, new, _ = item[1:].split(" ")
            path = next(fields)
            self._see(path, old, old_mode)
            self._see(path, new, mode)
            if model := _model_of_lock(path):
                before, after = self._digests.get(old, ""), self._digests.get(new, "")
                self._past.changes.append(Change(model, commit, self._past.parents[commit][0], before, after))

    def _see(self, path: str, blob: str, mode: str) -> None:
        """Takes note of a file in Git; links and submodules name no bytes."""
        if not mode.startswith("100") or not _names_bytes(path):
            return
        if not _model_of_lock(path):
            self._paths.setdefault(blob, set()).add(path)
        elif blob not in self._digests:
            self._digests[blob], self._reasons[blob] = self._take_lock(self._repo.read(blob), path)

    def _take_lock(self, data: bytes, where: str) -> tuple[str, str]:
        """Adds a lock; returns its digest, or '' and the reason. What is no lock, or one of a later gitmodel, may name
        bytes all the same."""
        try:
            lock = Lock.from_text(data, where)
        except InvalidLock as error:
            self._past.others |= names_in(data)
            return "", error.message
        self._past.files[lock.digest] = tuple(self._entries.setdefault(entry, entry) for entry in lock.files)
        return lock.digest, ""

    def _read_refs(self) -> None:
        fields = ("refname", "objecttype", "*objecttype", "objectname", "*objectname", "tree", "*tree")
        told = self._repo.run("for-each-ref", f"--format={'%00'.join(f'%({field})' for field in fields)}")
        refs = [line.split("\0") for line in told.splitlines()]
        live = _live_stages(ref for ref, *_ in refs)
        self._withdrawn = {ref.removeprefix("refs/tags/")[:-1] for ref, *_ in refs if ref.endswith("!")}
        for ref, own_kind, peeled_kind, oid, peeled, own_tree, peeled_tree in refs:
            kind, target, top = (peeled_kind, peeled, peeled_tree) if peeled_kind else (own_kind, oid, own_tree)
            if kind == "tree":
                self._read_tree_of_ref(target)
            elif kind == "commit":
                self._read_ref(ref, target, top, live)
            elif kind == "tag":  # of a tag, which older versions of Git do not follow to the end
                with contextlib.suppress(GitFailed):
                    top = self._repo.run("rev-parse", "--verify", f"{ref}^{{tree}}")
                    self._read_ref(ref, target, top, live)
        if "refs/stash" in {ref for ref, *_ in refs}:
            self._read_stashes()

    def _read_tree_of_ref(self, tree: str) -> None:
        for entry in filter(None, self._repo.run("ls-tree", "-r", "-z", "--full-tree", tree).split("\0")):
            head, _, path = entry.partition("\t")
            mode, _, blob = head.split(" ")
            self._see(path, blob, mode)

    def _read_ref(self, ref: str, commit: str, tree: str, live: set[str]) -> None:
        short = re.sub(r"^refs/(heads|remotes|tags)/", "", ref)
        tag = parse_tag(short) if ref.startswith("refs/tags/") else None
        if isinstance(tag, ReleaseTag):
            self._mention(tree, tag.model, short, Why.RELEASED)
        elif isinstance(tag, StageTag):
            self._mention(tree, tag.model, f"{tag.model}#{tag.stage}" if ref in live else short, Why.STAGED)
        else:
            # A branch, a tag with no meaning here, somebody's own ref: all the models it holds are its.
            self._mention_all(tree, short, Why.TAGGED if ref.startswith("refs/tags/") else Why.BRANCH)
        if ref.startswith(("refs/heads/", "refs/remotes/")):
            self._past.branches[short] = commit

    def _mention(self, tree: str, model: str, label: str, why: Why) -> None:
        if (bundle := self._trees.model(tree, model)) is not None:
            self._mention_bundle(bundle, model, label, why)

    def _mention_all(self, tree: str, name: str, why: Why) -> None:
        for model, (mode, oid) in self._trees.models(tree).items():
            self._mention_bundle(self._trees.bundle(mode, oid), model, f"{model}@{name}", why)

    def _mention_bundle(self, bundle: tuple[str, str], model: str, label: str, why: Why) -> None:
        lock, pointer = bundle
        if digest := self._digests.get(lock, ""):
            named = _pointer_in(self._pointer(pointer)) if pointer else ""
            self._past.mentions.append(Mention(label, model, why, digest, named))
        elif (lock or why is Why.RELEASED) and label.removesuffix("!") not in self._withdrawn:
            self._past.unreadable[label] = self._reasons.get(lock, f"{label} has no {LOCK}")

    def _read_stashes(self) -> None:
        """Each stash is three commits: the working tree, the index, and what was untracked."""
        for commit in self._repo.run("rev-list", "--walk-reflogs", "refs/stash", "--").splitlines():
            for part in (commit, *self._past.parents[commit][1][1:]):
                self._mention_all(self._trees.tree_of(part), part[:10], Why.BRANCH)

    def _read_loose(self) -> None:
        """Commits that nothing builds upon: those of no branch were left behind by a reset, say, and wait in a reflog."""
        built_upon = {parent for _, parents in self._past.parents.values() for parent in parents}
        for commit, (date, _) in self._past.parents.items():
            if commit not in built_upon:
                for model in self._trees.models(self._trees.tree_of(commit)).values():
                    if digest := self._digests.get(self._trees.bundle(*model)[0], ""):
                        self._past.loose.append((date, digest))

    def _worktrees(self) -> Iterator[Path]:
        """The folders of all worktrees. What is checked out in one without a branch is kept, also while its folder is not
        mounted."""
        for block in self._repo.run("worktree", "list", "--porcelain").split("\n\n"):
            said = dict(line.partition(" ")[::2] for line in block.splitlines())
            root, head = Path(said.get("worktree", "")), said.get("HEAD", "")
            if "detached" in said and head in self._past.parents:
                self._past.branches[f"HEAD of {root}"] = head
                self._mention_all(self._trees.tree_of(head), head[:10], Why.BRANCH)
            if said and "bare" not in said and root.is_dir():
                yield root.resolve()

    def _read_working_tree(self, root: Path) -> None:
        with contextlib.closing(Repository.open(root)) as tree:
            staged = tree.run("ls-files", "--stage", "-z", "--", *_PATHS)
            listed = tree.run("ls-files", "--cached", "--others", "-z", "--", *_PATHS)
        self._read_index(root, staged)
        for path in sorted(set(filter(None, listed.split("\0")))):
            if _names_bytes(path) and (root / path).is_file() and not (root / path).is_symlink():
                self._see_on_disk(root, path)

    def _read_index(self, root: Path, listed: str) -> None:
        """In the middle of a merge a file stands there several times."""
        locks: list[tuple[str, str]] = []
        pointers: dict[str, str] = {}
        for entry in filter(None, listed.split("\0")):
            head, _, path = entry.partition("\t")
            mode, blob, _ = head.split(" ")
            self._see(path, blob, mode)
            if match := _OURS.fullmatch(path):
                locks += [(match[1], blob)] if match[2] == LOCK else []
                pointers |= {match[1]: blob} if match[2] == POINTER else {}
        for model, blob in locks:
            self._mention_bundle((blob, pointers.get(model, "")), model, self._label(root, model), Why.WORKING)

    def _label(self, root: Path, model: str) -> str:
        return model if root == self._repo.root else f"{model} in {root}"

    def _see_on_disk(self, root: Path, path: str) -> None:
        data, model = (root / path).read_bytes(), _model_of_lock(path)
        if not model:
            self._on_disk.append((path, data))
            return
        label = self._label(root, model)
        digest, reason = self._take_lock(data, f"{label}: {LOCK}")
        pointer = (root / path).with_name(POINTER)
        if digest:
            named = _pointer_in(pointer.read_bytes()) if pointer.is_file() else ""
            self._past.mentions.append(Mention(label, model, Why.WORKING, digest, named))
        else:
            self._past.unreadable[label] = reason

    def _read_pointers(self) -> None:
        """After all locks are known: a pointer beside a lock that names just a lock's files is of no other data."""
        listings = set(self._past.listings.values())
        for blob, paths in self._paths.items():
            self._take_pointer(self._pointer(blob), paths, listings)
        for path, data in self._on_disk:
            self._take_pointer(data, {path}, listings)

    def _take_pointer(self, data: bytes, paths: set[str], listings: set[str]) -> None:
        named = names_in(data)
        if not (all(map(_OURS.fullmatch, paths)) and named <= listings):
            self._past.others |= named

    def _pointer(self, blob: str) -> bytes:
        if blob not in self._pointers:
            self._pointers[blob] = self._repo.read(blob)
        return self._pointers[blob]


def _names_bytes(path: str) -> bool:
    name = path.rpartition("/")[2]
    return name in (LOCK, "dvc.lock") or name.endswith(".dvc")


def _model_of_lock(path: str) -> str:
    match = _OURS.fullmatch(path)
    return match[1] if match and match[2] == LOCK else ""


def _pointer_in(data: bytes) -> str:
    try:
        return Pointer.from_yaml(data, POINTER).md5
    except InvalidYaml:
        return "unreadable"


def _live_stages(refs: Iterable[str]) -> set[str]:
    """The refs that say where each stage stands now."""
    newest: dict[tuple[str, str], tuple[StageTag, str]] = {}
    for ref in refs:
        tag = parse_tag(ref.removeprefix("refs/tags/"))
        if ref.startswith("refs/tags/") and isinstance(tag, StageTag):
            before = newest.get((tag.model, tag.stage))
            if before is None or before[0].counter < tag.counter:
                newest[tag.model, tag.stage] = (tag, ref)
    return {ref for tag, ref in newest.values() if not tag.cancelled}
