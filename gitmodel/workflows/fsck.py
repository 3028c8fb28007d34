"""``fsck``: every stored byte read afresh; what is damaged or missing, which versions suffer, and on request mended."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from gitmodel import registry
from gitmodel.bundle.bundle import WEIGHTS
from gitmodel.git import Repository
from gitmodel.history.past import Mention, Why
from gitmodel.history.reader import read
from gitmodel.storage import setup
from gitmodel.storage.audit import expand, run_cache_names
from gitmodel.storage.depot import Depot, Listing, depot_of
from gitmodel.storage.pointer import Pointer
from gitmodel.storage.remote import NoRemote, Progress, RemoteFailed
from gitmodel.workflows.examine import Examination
from gitmodel.workflows.findings import Report, worst_first
from gitmodel.workflows.mend import Mender, quarantined
from gitmodel.workflows.places import cache_of, others, remote_of, remotes_named
from gitmodel.workflows.workspace import NeedsWorkingTree, Workspace

_REPAIR = "gitmodel fsck --repair"
_REPAIR_REMOTE = "gitmodel fsck --remote --repair"
#: What a remote must have: what somebody who only has the tags may ask for.
_PUBLISHED = (Why.RELEASED, Why.STAGED)


def fsck(
    references: Sequence[str] = (),
    *,
    repo: Path | str = ".",
    remote: bool = False,
    remote_name: str = "",
    repair: bool = False,
    sources: Sequence[Path | str] = (),
    progress: Progress | None = None,
) -> Report:
    """Examines the cache, the weights folders and, with ``remote``, a DVC remote; ``references`` limit it to some bundles.

    ``repair`` mends from the working tree, from ``sources`` (clones, caches), from the remote. Raises NotARepository,
    NotInitialised, NoRemote, NoCache, UnknownModel, UnknownVersion, GitFailed.
    """
    place = Workspace(Repository.open(Path(repo)))
    if place.repo.bare and not remote:
        raise NeedsWorkingTree(
            f"{place.repo.root} is a bare repository and keeps no weights", hint="add --remote, or run this in a clone"
        )
    if not place.repo.bare and not setup.is_initialised(place.repo.root):
        raise setup.NotInitialised(f"{place.repo.root} is no model repository yet", hint="run 'gitmodel init'")
    with place.repo.lock() if repair else contextlib.nullcontext():
        return _Fsck(place, references, sources, progress).run(remote, remote_name, repair=repair)


class _Fsck:
    """One run: the history is read once, then one place after the other is examined and, at the end, mended."""

    def __init__(
        self, place: Workspace, references: Sequence[str], sources: Sequence[Path | str], progress: Progress | None
    ) -> None:
        self._place, self._others = place, others(place, sources)
        self._past = read(place.repo)
        self._chosen = [self._mention(reference) for reference in references]
        self._mentions = self._chosen or self._past.mentions
        self._seen = Examination(self._past, progress, place.cache.digests)
        self._incomplete: list[str] = []

    def _mention(self, reference: str) -> Mention:
        bundle = registry.resolve(self._place.repo, reference)
        if bundle.file is not None or (not bundle.commit and reference != bundle.name):
            raise registry.UnknownModel(
                f"{reference} is not in this repository", hint="name one of its models or versions"
            )
        self._past.files.setdefault(bundle.lock.digest, bundle.lock.files)
        pointer = Pointer.from_yaml(bundle.folder.read(f"{WEIGHTS}.dvc") or b"", f"{bundle.label}: {WEIGHTS}.dvc")
        why = Why.RELEASED if bundle.commit else Why.WORKING
        return Mention(reference, bundle.name, why, bundle.lock.digest, pointer.md5)

    def run(self, remote: bool, remote_name: str, *, repair: bool) -> Report:
        far = depot_of(remote_of(self._place, remote_name)) if remote else None
        self._seen.git(self._mentions)
        near = None if self._place.repo.bare else cache_of(self._place)
        if near:
            self._seen.workspace(self._mentions)
            self._check_cache(near)
        if far:
            with self._noting_failure():
                self._check_remote(far)
        if repair:
            asked = far or self._default_remote(remote_name)
            for target, depots in ((near, [asked]), (far, [near])):
                if target:
                    with self._noting_failure():
                        self._mend(target, [*self._others, *(depot for depot in depots if depot)])
        self._place.cache.digests.flush()
        versions = len({mention.label for mention in self._mentions})
        return Report(
            worst_first(self._seen.findings), tuple(self._seen.read), "; ".join(self._incomplete), self._past.shallow,
            versions, self._past.root,
        )  # fmt: skip

    @contextlib.contextmanager
    def _noting_failure(self) -> Iterator[None]:
        try:
            yield
        except RemoteFailed as error:
            self._incomplete.append(str(error))

    def _check_cache(self, depot: Depot) -> None:
        listing = self._limited(depot.contents(()))
        others = self._others_named(depot) | run_cache_names(self._place.cache.root)
        self._seen.objects(depot, listing.objects.values(), others, _REPAIR)
        known = remotes_named(self._place)
        here = [mention for mention in self._mentions if self._is_needed_here(mention, known)]
        published = [mention for mention in self._mentions if mention.why in _PUBLISHED and mention not in here]
        # What was damaged and moved away is not merely not fetched.
        needed = self._objects(here) | self._objects(published) & quarantined(self._place.repo.state_dir)
        self._seen.missing(depot.name, listing, needed, _REPAIR)
        if not self._chosen:
            self._seen.absent(depot.name, listing, published)
            self._seen.strays(depot.name, listing, others | self._past.locks_of.keys(), "gitmodel gc")

    def _objects(self, mentions: Sequence[Mention]) -> set[str]:
        return {oid for mention in mentions for oid in self._past.objects(mention.digest)}

    def _is_needed_here(self, mention: Mention, remote_known: bool) -> bool:
        """What is in use here; and where no remote is known, what could come from nowhere else."""
        if self._chosen:
            return True
        in_use = mention.why is Why.WORKING and mention.label == mention.model  # another worktree has its own cache
        return in_use or (mention.why in _PUBLISHED and not remote_known)

    def _check_remote(self, depot: Depot) -> None:
        """Other repositories may share it: what they alone name is counted and not read."""
        listing = self._limited(depot.contents(self._past.locks_of))
        needed = self._objects([m for m in self._mentions if self._chosen or m.why in _PUBLISHED])
        if needed and not listing.objects:
            raise RemoteFailed(
                f"{depot.name} cannot be reached, or holds nothing",
                hint="check the URL and the way there; 'gitmodel push' where the model was saved fills it",
            )
        others = self._others_named(depot)
        named = others | self._past.locks_of.keys()
        ours = [item for oid, item in listing.objects.items() if oid in named]
        self._seen.objects(depot, ours, others, _REPAIR_REMOTE)
        self._seen.missing(depot.name, listing, needed, f"'gitmodel push' where they were saved, or {_REPAIR_REMOTE}")
        if not self._chosen:
            self._seen.strays(depot.name, listing, named, "leave them: other repositories may share this remote")

    def _limited(self, listing: Listing) -> Listing:
        if not self._chosen:
            return listing
        wanted = self._objects(self._chosen)
        return Listing({oid: item for oid, item in listing.objects.items() if oid in wanted})

    def _others_named(self, depot: Depot) -> set[str]:
        return expand(self._past.others, [depot])[0]

    def _default_remote(self, name: str) -> Depot | None:
        with contextlib.suppress(NoRemote):
            return depot_of(remote_of(self._place, name))
        return None

    def _mend(self, target: Depot, depots: Sequence[Depot]) -> None:
        mender = Mender(self._past, target, self._place.repo.state_dir, self._seen.good, depots)
        findings = self._seen.findings
        for index, finding in enumerate(findings):
            if finding.where == target.name:
                findings[index] = mender.mend(finding)
        if any(finding.matters and not finding.mended for finding in findings):
            self._incomplete += mender.unreached
