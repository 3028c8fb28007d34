"""Gathers by which terms NEW is judged: allow-list, consumers and card of the side that is trusted, read from Git or from disk."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from typing import Any

from gitmodel import registry
from gitmodel.bundle import yamlio
from gitmodel.bundle.bundle import CARD, Bundle
from gitmodel.bundle.folder import DiskFolder, Folder
from gitmodel.compat import allow, changes, consumers, labels
from gitmodel.compat import policy as terms
from gitmodel.compat.allow import AllowList, Lists
from gitmodel.compat.changes import Change
from gitmodel.compat.consumers import Consumer, Listed
from gitmodel.compat.modes import Mode
from gitmodel.compat.policy import Policy
from gitmodel.compat.rules import DEFAULT_PROFILE
from gitmodel.git import Repository
from gitmodel.versions import ReleaseTag, Version, parse_tag


@dataclass(frozen=True)
class Terms:
    """What whoever asks decides: for which clients, in which mode, and the day on which entries expire (today, if None)."""

    profile: str = DEFAULT_PROFILE
    mode: Mode = Mode.BACKWARD
    today: date | None = None
    _tops: dict[str, tuple[Consumer, ...]] = field(default_factory=dict, repr=False, compare=False)
    _as_in: dict[str, str] = field(default_factory=dict, repr=False, compare=False)

    @property
    def day(self) -> date:
        return self.today or datetime.now(UTC).date()

    def merging(self, repo: Repository, head: str, base: str, common: str) -> None:
        """From now on ``head`` stands for its merge into ``base``: a list that it left as it was is the base's."""
        if len({repo.folder(commit, consumers.FOLDER).object_id for commit in (head, common)}) == 1:
            self._as_in[head] = base

    def at_top(self, repo: Repository, commit: str, label: str) -> tuple[Consumer, ...]:
        """The consumers listed at the top of the repository, of all models; of the working tree without a commit. Read
        once, however many models are judged. Raises InvalidYaml."""
        commit = self._as_in.get(commit, commit)
        if commit not in self._tops:
            top: Folder = repo.folder(commit) if commit else DiskFolder(repo.root)
            self._tops[commit] = tuple(_in(top, f"{label}: the repository's", ""))
        return self._tops[commit]


def gather(repo: Repository | None, old: Bundle, new: Bundle | None, asked: Terms) -> Policy:
    """The policy of OLD for NEW, which is None when the model is gone. Raises InvalidYaml."""
    before, after = _allow_list(old), _allow_list(new)
    latest = registry.versions(repo, old.name).latest if repo and before.entries else None
    spent = _at_release(repo, latest) if repo and latest else AllowList()
    version = _version(new) or (latest.version if latest else None)
    return _policy(repo, old, new, asked, Lists(before, after, spent), terms.list_changes(before, after), version)


def gather_for_release(repo: Repository, old: Bundle, new: Bundle, asked: Terms, version: Version | None) -> Policy:
    """As ``gather``, where what is committed is what the releaser stands for: NEW's allow-list counts. OLD's entries have
    had their release. ``version`` is the one asked for. Raises InvalidYaml."""
    before, after = _allow_list(old), _allow_list(new)
    moved = terms.list_changes(before, after, released=True)
    return _policy(repo, old, new, asked, Lists(after, after, before), moved, version)


def _policy(
    repo: Repository | None, old: Bundle, new: Bundle | None, asked: Terms, lists: Lists, moved: Iterable[Change],
    version: Version | None,
) -> Policy:  # fmt: skip
    listed, wanted = _consumers(repo, old, asked), _consumers(repo, new, asked)
    facts: list[Change] = []
    if new is not None:
        facts += [*terms.card_changes(_card(old), _card(new)), *moved, *terms.consumer_changes(listed, wanted)]
    return Policy(
        asked.day, lists, Listed(listed, old.card.consumers_complete), old.signature, tuple(facts), asked.mode,
        _back(old, new, asked.mode), version,
    )  # fmt: skip


def _back(old: Bundle, new: Bundle | None, mode: Mode) -> tuple[Change, ...]:
    """The changes from NEW to OLD."""
    if mode is not Mode.FULL or new is None or old.signature is None or new.signature is None:
        return ()
    found = changes.compare(new.signature, old.signature).changes
    return (*found, *labels.compare_labels(new.labels, old.labels))


def _card(bundle: Bundle) -> dict[str, Any]:
    return yamlio.load_mapping(bundle.folder.read(CARD) or b"", f"{bundle.label}: {CARD}")


def _allow_list(bundle: Bundle | None) -> AllowList:
    data = bundle.folder.read(allow.FILE) if bundle else None
    return AllowList.from_yaml(data, f"{bundle.label}: {allow.FILE}") if bundle and data else AllowList()


def _at_release(repo: Repository, latest: registry.Release) -> AllowList:
    name = latest.tag.model
    try:
        return _allow_list(registry.bundle_at(repo, name, latest.ref.commit, str(latest.tag)))
    except yamlio.InvalidYaml:
        return AllowList()  # it is released, and can no longer be mended


def _consumers(repo: Repository | None, bundle: Bundle | None, asked: Terms) -> tuple[Consumer, ...]:
    """Those listed for a model in its own folder, and at the top of the repository."""
    if bundle is None:
        return ()
    found = [*_in(bundle.folder, bundle.label, bundle.name)]
    if repo is not None and bundle.file is None:
        found += asked.at_top(repo, bundle.commit, bundle.label)
    return tuple(consumer for consumer in found if consumer.model == bundle.name)


def _in(folder: Folder, label: str, model: str) -> Iterator[Consumer]:
    for path in folder.files(consumers.FOLDER):
        data = folder.read(path) if path.endswith((".yaml", ".yml")) else None
        if data is not None:
            yield Consumer.from_yaml(data, f"{label}: {path}", model)


def _version(bundle: Bundle | None) -> Version | None:
    tag = parse_tag(bundle.label) if bundle else None
    return tag.version if isinstance(tag, ReleaseTag) else None
