"""The values: bundles by the names people use, commits that changed weights, objects that somebody needs."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from functools import cached_property
from pathlib import Path

from msgspec import Struct

from gitmodel.bundle.lock import FileEntry
from gitmodel.storage.pointer import listing_of
from gitmodel.versions import ReleaseTag, Version, parse_tag


class Why(StrEnum):
    """What a place in the repository is to its bundle; the first ones weigh most."""

    RELEASED = "released"
    STAGED = "staged"
    TAGGED = "tagged"
    WORKING = "working tree"
    BRANCH = "branch"


class Mention(Struct, frozen=True):
    """A bundle under a name people use: ``label`` is a reference, ``digest`` the lock's, ``pointer`` what the ``.dvc`` file
    beside it names ('' when there is none)."""

    label: str
    model: str
    why: Why
    digest: str
    pointer: str = ""


class Change(Struct, frozen=True):
    """A commit that gave a model other weights: digests of the locks before and after, '' where there is none."""

    model: str
    commit: str
    date: datetime
    old: str
    new: str


@dataclass
class History:
    """Everything one repository names.

    ``files``: by a lock's digest, the files it lists. ``parents``: date and parents of every commit. ``branches``: commits by
    the names of branches. ``loose``: locks at commits nothing builds upon, with their dates. ``others``: objects that pointers
    to other DVC data name, folders by their listing. ``unreadable``: bundles whose lock cannot be read, and why.
    ``shallow``: Git has a part of the history only.
    """

    root: Path
    shallow: bool = False
    files: dict[str, tuple[FileEntry, ...]] = field(default_factory=dict)
    mentions: list[Mention] = field(default_factory=list)
    changes: list[Change] = field(default_factory=list)
    parents: dict[str, tuple[datetime, tuple[str, ...]]] = field(default_factory=dict)
    branches: dict[str, str] = field(default_factory=dict)
    loose: list[tuple[datetime, str]] = field(default_factory=list)
    others: set[str] = field(default_factory=set)
    unreadable: dict[str, str] = field(default_factory=dict)

    @cached_property
    def listings(self) -> dict[str, str]:
        """By a lock's digest, the name of DVC's listing of its files."""
        return {digest: listing_of(files)[0] for digest, files in self.files.items()}

    @cached_property
    def locks_of(self) -> dict[str, list[str]]:
        """By an object's name, the digests of the locks that need it."""
        found: dict[str, list[str]] = {}
        for digest in self.files:
            for oid in self.objects(digest):
                found.setdefault(oid, []).append(digest)
        return found

    @cached_property
    def entries_of(self) -> dict[str, list[FileEntry]]:
        """By an object's name, what the locks say of it, each thing once."""
        found: dict[str, dict[FileEntry, None]] = {}
        for files in self.files.values():
            for entry in files:
                found.setdefault(entry.md5, {})[entry] = None
        return {oid: list(entries) for oid, entries in found.items()}

    @cached_property
    def origins(self) -> dict[str, Change]:
        """By a lock's digest, the newest commit that brought it."""
        return {change.new: change for change in sorted(self.changes, key=lambda change: change.date) if change.new}

    def objects(self, digest: str) -> set[str]:
        """Names of all objects a bundle consists of: its files and DVC's listing of them."""
        return {*(entry.md5 for entry in self.files[digest]), self.listings[digest]}

    @cached_property
    def mentions_of(self) -> dict[str, list[Mention]]:
        """By a lock's digest, who mentions it, the weightiest first."""
        weight, found = list(Why).index, dict[str, list[Mention]]()
        for mention in sorted(self.mentions, key=lambda mention: weight(mention.why)):
            found.setdefault(mention.digest, []).append(mention)
        return found

    def labels(self, digests: Iterable[str]) -> list[str]:
        """References of the bundles these locks belong to: names people use, else ``name@commit``, the newest first."""
        wanted, weight = set(digests), list(Why).index
        named = [mention for digest in wanted for mention in self.mentions_of.get(digest, ())]
        named.sort(key=lambda mention: (weight(mention.why), mention.model, _version(mention.label), mention.label))
        old = [self.origins[d] for d in wanted if d not in self.mentions_of and d in self.origins]
        old.sort(key=lambda origin: origin.date, reverse=True)
        return list(dict.fromkeys([*(m.label for m in named), *(f"{o.model}@{o.commit[:10]}" for o in old)]))


def _version(label: str) -> Version:
    """For sorting: labels of no release come first among themselves."""
    tag = parse_tag(label)
    return tag.version if isinstance(tag, ReleaseTag) else Version(0, 0, 0)
