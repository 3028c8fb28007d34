"""``gc``: frees the bytes of old, unreleased states by a policy. Without ``apply`` it only says what would go."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from msgspec import Struct
from msgspec.structs import asdict

from gitmodel.errors import GitmodelError
from gitmodel.git import Repository
from gitmodel.history.past import History
from gitmodel.history.reader import read
from gitmodel.history.remotes import PartialHistory, heads
from gitmodel.storage import dvc_locks, setup
from gitmodel.storage.audit import expand, run_cache_names
from gitmodel.storage.depot import Depot, Folder, Stored, depot_of
from gitmodel.storage.remote import NoRemote, Progress, RemoteFailed
from gitmodel.workflows.places import cache_of, is_shared, remote_of
from gitmodel.workflows.retention import Policy, kept
from gitmodel.workflows.workspace import NeedsWorkingTree, Workspace

#: What nobody names may have been written a moment ago by somebody who is about to name it.
_UNNAMED = 3600.0


class SharedPlace(GitmodelError):
    """Others may keep their weights in a place that is to be cleaned."""

    code = "shared-place"


class Going(Struct, frozen=True):
    """A state of a model that loses bytes: ``size`` of ``whole``, in ``files`` files."""

    label: str
    date: datetime | None
    size: int
    whole: int
    files: int


class Collected(Struct, frozen=True):
    """What goes, or would go, from ``where``. ``keeps``: by reason, the states that stay; ``unnamed``: objects that
    nothing names, which go; ``young``: objects that stay for the age of their file; ``applied``: they are gone."""

    where: str
    keeps: dict[str, list[str]]
    going: tuple[Going, ...]
    unnamed: int
    unnamed_size: int
    young: int
    objects: int
    size: int
    notes: tuple[str, ...] = ()
    applied: bool = False

    def to_dict(self) -> dict[str, Any]:
        return {"schema": 1} | asdict(self) | {"going": [asdict(item) for item in self.going]}


def gc(
    *,
    repo: Path | str = ".",
    policy: Policy | None = None,
    remote: bool = False,
    remote_name: str = "",
    also: Sequence[Path | str] = (),
    alone: bool = False,
    apply: bool = False,
    progress: Progress | None = None,
) -> Collected:
    """Cleans the cache, or with ``remote`` a DVC remote. ``also`` are other repositories whose weights lie there, too;
    ``alone`` says there are none.

    Raises SharedPlace, PartialHistory, NoRemote, RemoteFailed, GitFailed, NotInitialised, NeedsWorkingTree, StorageFailed.
    """
    place = Workspace(Repository.open(Path(repo)))
    if place.repo.bare and not remote:
        raise NeedsWorkingTree(
            f"{place.repo.root} is a bare repository and keeps no weights", hint="add --remote, or run this in a clone"
        )
    if not place.repo.bare and not setup.is_initialised(place.repo.root):
        raise setup.NotInitialised(f"{place.repo.root} is no model repository yet", hint="run 'gitmodel init'")
    shared = remote or is_shared(place)
    depot = depot_of(remote_of(place, remote_name)) if remote else cache_of(place)
    if not depot.lists_all:
        raise SharedPlace(
            f"{depot.name} cannot be listed, so nobody knows who else uses it", hint="clean it on its own host"
        )
    if shared and not (also or alone):
        raise SharedPlace(
            f"{depot.name} may hold weights of other repositories",
            hint="name each with --also PATH, or say --alone when there is none",
        )
    repos = [place.repo, *(Repository.open(Path(path)) for path in also)]
    with _held(repos) if apply else contextlib.nullcontext():
        pasts = [_whole_history(repo, fetched=remote) for repo in repos]
        plan = _plan(place, pasts, depot, policy or Policy(), shared=shared)
        if apply:
            _remove(depot, plan.objects, progress)
    return plan.collected(applied=apply)


@contextlib.contextmanager
def _held(repos: Iterable[Repository]) -> Iterator[None]:
    """Nobody saves in any of them meanwhile, neither with gitmodel nor with DVC. In one order for all who do this."""
    by_state = {repo.state_dir: repo for repo in repos}
    with contextlib.ExitStack() as stack:
        for _, repo in sorted(by_state.items()):
            stack.enter_context(repo.lock())
            if not repo.bare and setup.is_initialised(repo.root):
                stack.enter_context(dvc_locks.hold(repo.root))
        yield


def _whole_history(repo: Repository, *, fetched: bool) -> History:
    """Everything a repository names; with ``fetched``, nothing its Git remotes have may be unknown here."""
    past = read(repo, heads(repo) if fetched else ())
    if past.shallow:
        raise PartialHistory(
            f"{repo.root} is a shallow clone: older commits may need what would go", hint="run 'git fetch --unshallow'"
        )
    return past


@dataclass
class _Plan:
    """What goes from a place, and what stays for which reason. ``old``: objects of states that are not kept."""

    where: str
    pasts: Sequence[History]
    kept: Sequence[dict[str, str]]
    old: list[Stored]
    unnamed: list[Stored]
    young: int
    notes: tuple[str, ...]

    @property
    def objects(self) -> list[Stored]:
        """Listings first: DVC then sees that a folder is not here, rather than here in part."""
        return sorted([*self.old, *self.unnamed], key=lambda item: not item.oid.endswith(".dir"))

    def collected(self, *, applied: bool) -> Collected:
        keeps: dict[str, list[str]] = {}
        going: list[Going] = []
        gone = {item.oid: item for item in self.old}
        for past, reasons in zip(self.pasts, self.kept, strict=True):
            inside = "" if past is self.pasts[0] else f" in {past.root}"
            for digest in _in_order(past, reasons):
                keeps.setdefault(reasons[digest], []).append(f"{_label(past, digest)}{inside}")
            going += [_going(past, digest, gone, inside) for digest in past.files.keys() - reasons.keys()]
        lost = sorted(
            (item for item in going if item.size), key=lambda item: (item.label.partition("@")[0], item.date or 0)
        )
        return Collected(
            self.where, keeps, tuple(lost), len(self.unnamed), _size(self.unnamed), self.young,
            len(self.objects), _size(self.objects), self.notes, applied,
        )  # fmt: skip


def _plan(place: Workspace, pasts: Sequence[History], depot: Depot, policy: Policy, *, shared: bool) -> _Plan:
    now = datetime.now(UTC)
    reasons = [kept(past, policy, now) for past in pasts]
    needed, notes = _needed_by_others(place, pasts, depot)
    for past, reason in zip(pasts, reasons, strict=True):
        needed.update(*(past.objects(digest) for digest in reason))
        # A listing is small, and with it DVC restores a state that loses nothing.
        needed |= {past.listings[lock] for lock, files in past.files.items() if {f.md5 for f in files} <= needed}
    named: set[str] = set().union(*(past.locks_of for past in pasts))
    found = depot.contents(named | needed).objects
    unnamed = [item for oid, item in found.items() if oid not in needed | named]
    if shared and unnamed:
        raise SharedPlace(
            f"{depot.name} holds {len(unnamed)} objects ({_size(unnamed)} bytes) that no known history names: somebody else"
            " uses it",
            hint="name their repository with --also PATH; if nobody is left, move to a new place and drop this one",
        )

    def is_younger(item: Stored, seconds: float) -> bool:
        return item.modified is not None and now.timestamp() - item.modified < seconds

    span = policy.younger.total_seconds()
    old = [item for oid, item in found.items() if oid in named - needed]
    young = [item for item in old if is_younger(item, span)]
    # Without every listing of other data nobody can say that an object belongs to none.
    strays = [] if notes else [item for item in unnamed if not is_younger(item, max(span, _UNNAMED))]
    return _Plan(depot.name, pasts, reasons, [o for o in old if o not in young], strays, len(young), notes)


def _needed_by_others(place: Workspace, pasts: Sequence[History], depot: Depot) -> tuple[set[str], tuple[str, ...]]:
    """Objects of other DVC data, which are never touched, and what stood in the way of knowing them all."""
    named = set().union(*(past.others for past in pasts))
    found, lost = expand(named, [depot])
    if lost:
        with contextlib.suppress(NoRemote, RemoteFailed):
            near = [] if place.repo.bare else [cache_of(place)]
            more, lost = expand(lost, [*near, depot_of(remote_of(place))])
            found |= more
    if isinstance(depot, Folder):
        found |= run_cache_names(depot.objects.parent.parent)
    if not lost:
        return found, ()
    note = f"{len(lost)} folders of other DVC data cannot be listed (neither here nor in the remote): objects nobody names stay"
    return found, (note,)


def _going(past: History, digest: str, gone: dict[str, Stored], inside: str) -> Going:
    origin, files = past.origins.get(digest), past.files[digest]
    lost = {entry.md5: entry.size for entry in files if entry.md5 in gone}
    return Going(
        f"{_label(past, digest)}{inside}", origin.date if origin else None, sum(lost.values()),
        sum({entry.md5: entry.size for entry in files}.values()), len(lost),
    )  # fmt: skip


def _label(past: History, digest: str) -> str:
    return next(iter(past.labels([digest])), digest[:12])


def _in_order(past: History, digests: Iterable[str]) -> list[str]:
    """As a person would list them: by weight, model and version, then by date."""
    place = {label: index for index, label in enumerate(past.labels(digests))}
    return sorted(digests, key=lambda digest: (place.get(_label(past, digest), len(place)), digest))


def _remove(depot: Depot, objects: Sequence[Stored], progress: Progress | None) -> None:
    """In any order and up to anywhere: what is left is found again by the next run."""
    for done, item in enumerate(objects, 1):
        now = depot.find(item.oid)
        # One that was written again since it was listed is somebody's.
        if now is not None and (now.modified is None or now.modified == item.modified):
            depot.remove(item.path)
        if progress:
            progress(done, len(objects))


def _size(items: Iterable[Stored]) -> int:
    return sum(max(item.size, 0) for item in items)
