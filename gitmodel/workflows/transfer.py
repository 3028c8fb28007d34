"""``push``, ``fetch``, ``pull``: weights to and from the DVC remote, only what is missing there or here."""

from __future__ import annotations

import difflib
import hashlib
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from msgspec import Struct

from gitmodel import registry
from gitmodel.bundle.bundle import WEIGHTS, Bundle, unreadable
from gitmodel.bundle.lock import FileEntry
from gitmodel.errors import GitmodelError, some
from gitmodel.git import Repository
from gitmodel.storage.pointer import listing_of
from gitmodel.storage.remote import Progress
from gitmodel.storage.workspace import MissingWeights, corrupt, missing_weights, plan
from gitmodel.workflows import pushing
from gitmodel.workflows.workspace import Workspace

VIEWS = ("onnx", "hdf5")


class UnknownTensor(GitmodelError):
    """No tensor of that name is in what was asked for."""

    code = "unknown-tensor"


class UnknownView(GitmodelError):
    """Weights have two views, and this is neither."""

    code = "unknown-view"


class Moved(Struct, frozen=True):
    """How many bundles were looked at, and how many objects of ``size`` bytes together had to move."""

    bundles: int
    objects: int
    size: int
    remote: str


def push(
    references: Sequence[str] = (), *, repo: Path | str = ".", remote: str = "", progress: Progress | None = None
) -> Moved:
    """Sends the weights of these references, or of every model and every version here. Raises NoRemote, RemoteFailed, and
    MissingWeights as ``push_bundles``, or when a version does not say what its weights are: then all others have been sent."""
    place = Workspace.open(Path(repo), remote=remote, progress=progress)
    bundles = (
        _bundles(place.repo, references) if references else [*registry.current(place.repo), *_released(place.repo)]
    )
    place.remote  # noqa: B018  # a missing remote is said before anything else
    damaged = {} if references else {bundle.label: why for bundle in bundles if (why := unreadable(bundle))}
    moved = push_bundles(place, [bundle for bundle in bundles if bundle.label not in damaged])
    if damaged:
        label = next(iter(damaged))
        raise MissingWeights(
            f"{some(list(damaged))} not sent ({damaged[label]}); everything else is there",
            hint=f"withdraw it: {registry.withdrawing(label)}, and push that tag"
            if "@" in label
            else f"restore it: git checkout HEAD -- {registry.model_path(label)}",
        )
    return moved


def fetch(
    references: Sequence[str] = (),
    *,
    repo: Path | str = ".",
    remote: str = "",
    tensors: Sequence[str] = (),
    view: str = "",
    progress: Progress | None = None,
) -> Moved:
    """Brings the weights of these references, or of every model of the working tree, into the cache and lays out nothing.

    ``tensors`` brings only the files these stand in, ``view`` (onnx or hdf5) what that view needs. A bare repository will do.
    Raises NoRemote, RemoteFailed, MissingWeights, UnknownTensor, UnknownView, NotServable.
    """
    place = Workspace.reading(Path(repo), remote=remote, progress=progress)
    bundles = _bundles(place.repo, references) if references else registry.current(place.repo)
    return _bring(place, bundles, _parts(bundles, tensors, view))


def pull(
    references: Sequence[str] = (), *, repo: Path | str = ".", remote: str = "", progress: Progress | None = None
) -> Moved:
    """``fetch``, and lays out those that are of the working tree. Raises NoRemote, RemoteFailed, MissingWeights."""
    place = Workspace.open(Path(repo), remote=remote, progress=progress)
    bundles = _bundles(place.repo, references) if references else registry.current(place.repo)
    with place.repo.lock():
        moved = _bring(place, bundles, [list(bundle.lock.files) for bundle in bundles])
        for bundle in bundles:
            place.cache.add_directory(bundle.lock.files)
            if not bundle.commit:
                plan(bundle.lock, place.cache, place.repo.root / registry.model_path(bundle.name) / WEIGHTS).apply()
        place.cache.digests.flush()
    return moved


def push_bundle(place: Workspace, bundle: Bundle) -> int:
    """Sends one bundle's files, then DVC's listing of them; returns how many objects went. Raises as ``push_bundles``."""
    return push_bundles(place, [bundle]).objects


def push_new(place: Workspace, bundle: Bundle, remote: str, tag: str) -> int:
    """Sends the weights of a version unless the Git remote has its tag: then they went before it, and a DVC remote that is
    down is in nobody's way. Returns how many objects went. Raises as ``push_bundles``, and GitFailed, also where that is another
    tag."""
    return 0 if pushing.has_version(place.repo, remote, tag) else push_bundle(place, bundle)


def push_bundles(place: Workspace, bundles: Iterable[Bundle]) -> Moved:
    """Sends the files of all of them that the remote lacks, then DVC's listings.

    Raises NoRemote, RemoteFailed, and MissingWeights when what must go is not here, or damaged: then all bundles that are whole
    have been sent.
    """
    distinct = list({bundle.lock.digest: bundle for bundle in bundles}.values())
    files = _distinct(entry for bundle in distinct for entry in bundle.lock.files)
    listings = {_listing(bundle): bundle for bundle in distinct}
    lacking = set(place.remote.lacks([*files, *listings]))
    going = [entry for entry in files if entry in lacking]
    missing = place.supply.gather(going)
    # Only what is about to leave is hashed, and that anew: an object damaged here must not spread.
    damaged = place.supply.damaged([entry for entry in going if entry not in missing])
    unfit = {entry.md5 for entry in (*missing, *damaged)}
    whole = [bundle for bundle in distinct if unfit.isdisjoint(entry.md5 for entry in bundle.lock.files)]
    sent = {entry.md5 for bundle in whole for entry in bundle.lock.files}
    naming = [entry for entry in listings if entry in lacking and listings[entry] in whole]
    for entry in naming:
        place.cache.add_directory(listings[entry].lock.files)
    place.remote.push(place.cache, [entry for entry in going if entry.md5 in sent], naming, place.progress)
    if unfit:
        raise _not_sent(
            place, [bundle.label for bundle in distinct if bundle not in whole], missing, damaged, bool(whole)
        )
    return Moved(
        len(distinct), len(lacking), sum(entry.size for entry in lacking), place.remote_name or place.remote.name
    )


def _not_sent(
    place: Workspace, labels: Sequence[str], missing: list[FileEntry], damaged: Sequence[FileEntry], others: bool
) -> MissingWeights:
    what = some(labels)
    error = missing_weights(missing, what) if missing else corrupt(damaged[0], place.cache)
    if not others:
        return error
    return MissingWeights(f"{what} not sent ({error.message}); everything else is there", hint=error.hint)


def _bring(place: Workspace, bundles: Sequence[Bundle], parts: Sequence[Sequence[FileEntry]]) -> Moved:
    """Brings the part of each bundle, what comes verified; those that come from one remote come together."""
    commits = {bundle.commit if place.repo.bare else "" for bundle in bundles}
    objects = size = 0
    for commit in sorted(commits):
        chosen = [i for i, bundle in enumerate(bundles) if not place.repo.bare or bundle.commit == commit]
        entries = _distinct(entry for i in chosen for entry in parts[i])
        missing = [entry for entry in entries if not place.cache.has(entry)]
        what = bundles[chosen[0]].label if len(chosen) == 1 else f"{len(chosen)} models"
        place.supply_for(commit).ensure(entries, what, place.progress)
        objects, size = objects + len(missing), size + sum(entry.size for entry in missing)
    return Moved(len(bundles), objects, size, place.remote_name)


def _parts(bundles: Sequence[Bundle], tensors: Sequence[str], view: str) -> list[list[FileEntry]]:
    """The files of each bundle that were asked for."""
    if view and view not in VIEWS:
        raise UnknownView(f"there is no view '{view}'", hint=f"name one of {', '.join(VIEWS)}")
    known = {tensor.name for bundle in bundles for tensor in bundle.lock.tensors}
    check_tensors(tensors, known, ", ".join(bundle.label for bundle in bundles[:3]) or "no model")
    return [_part(bundle, tensors, view) for bundle in bundles]


def check_tensors(names: Iterable[str], known: Collection[str], where: str) -> None:
    """Raises UnknownTensor for a name that is not known, and says which are near it."""
    for name in names:
        if name not in known:
            close = difflib.get_close_matches(name, known, n=3, cutoff=0.5) or sorted(known)[:3]
            raise UnknownTensor(
                f"there is no tensor '{name}' in {where}",
                hint=f"near it: {', '.join(close)}" if close else "'gitmodel show' lists tensors",
            )


def _part(bundle: Bundle, tensors: Sequence[str], view: str) -> list[FileEntry]:
    if not tensors and not view:
        return list(bundle.lock.files)
    wanted = {tensor.file for tensor in bundle.lock.tensors if tensor.name in tensors}
    if view == "onnx":
        wanted |= {entry.path for entry in bundle.graph_files()}
    elif view == "hdf5":
        wanted |= {entry.path for entry in bundle.lock.files if "/" in entry.path or not entry.path.endswith(".onnx")}
    return [entry for entry in bundle.lock.files if entry.path in wanted]


def _listing(bundle: Bundle) -> FileEntry:
    """DVC's listing of the bundle's files as an object like them."""
    oid, data = listing_of(bundle.lock.files)
    return FileEntry(f"the listing of {bundle.lock.digest[:12]}", len(data), hashlib.sha256(data).hexdigest(), oid)


def _bundles(repo: Repository, references: Sequence[str]) -> list[Bundle]:
    return [registry.resolve(repo, reference) for reference in references]


def _released(repo: Repository) -> list[Bundle]:
    return [
        registry.bundle_at(repo, name, release.ref.commit, str(release.tag))
        for name, known in registry.all_versions(repo).items()
        for release in known.releases
    ]


def _distinct(entries: Iterable[FileEntry]) -> list[FileEntry]:
    return list({entry.md5: entry for entry in entries}.values())
