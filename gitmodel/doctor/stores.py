"""Where versions and their bytes are: the cache, the DVC remotes, Git's remotes; and what is in one place only."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial

from gitmodel.doctor.ailment import Ailment, Patient, counted
from gitmodel.errors import some
from gitmodel.history.past import Mention, Why
from gitmodel.storage import dvc_settings, setup
from gitmodel.storage.depot import Depot, Folder, depot_of
from gitmodel.storage.remote import NoRemote
from gitmodel.versions import ReleaseTag, parse_tag
from gitmodel.workflows.mend import quarantined
from gitmodel.workflows.places import cache_of, remote_of


def cache(patient: Patient) -> Iterator[Ailment]:
    if not patient.initialised:
        return
    root = patient.place.cache.root
    there = next(path for path in (root, *root.parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK | os.X_OK):
        yield Ailment(
            "cache-unusable",
            f"the DVC cache {root} cannot be written",
            "mend its rights, or 'dvc config cache.dir PATH'",
        )
    elif there.stat().st_dev != patient.repo.root.stat().st_dev:
        yield Ailment(
            "cache-far", f"the DVC cache {root} is on another file system: what is laid out is copied, never shared",
            "dvc config cache.dir with a folder on this one", advice=True,
        )  # fmt: skip
    if moved := quarantined(patient.repo.state_dir):
        yield Ailment(
            "quarantine", f"{counted(len(moved), 'damaged object')} moved to {patient.repo.state_dir / 'quarantine'}",
            "gitmodel fsck tells which versions miss them; remove them when none does", advice=True,
        )  # fmt: skip


def remotes(patient: Patient) -> Iterator[Ailment]:
    if not patient.initialised:
        return
    try:
        depot = _depot(patient)
    except NoRemote as error:
        yield Ailment("no-remote", f"{error.message}: weights lie in this cache alone", error.hint, advice=True)
        return
    if isinstance(depot, Folder) and not depot.objects.parent.parent.is_dir():
        yield Ailment(
            "remote-unreachable", f"{depot.name} is a folder that is not there: {depot.objects.parent.parent}",
            "mount or make it, or 'dvc remote modify' its url",
        )  # fmt: skip
    for name, ours in dvc_settings.unverified(patient.repo.root).items():
        yield Ailment(
            "remote-not-verified", f"DVC itself trusts what comes from the remote '{name}': 'verify' is not set",
            f"dvc remote modify {name} verify true{', and commit .dvc/config' if ours else ''}", advice=True,
            repair=partial(dvc_settings.verify, patient.repo.root, name) if ours else None,
        )  # fmt: skip


def released_bytes(patient: Patient) -> Iterator[Ailment]:
    """Released versions whose bytes are nowhere, in a linked worktree's cache alone, or in this one's. Raises
    RemoteFailed."""
    if not patient.initialised:
        return
    released = [mention for mention in patient.past.mentions if mention.why is Why.RELEASED]
    here = set(cache_of(patient.place).contents().objects)
    try:
        depot: Depot | None = _depot(patient)
    except NoRemote:
        depot = None
    if depot is not None and not patient.far:
        return
    wanted = {entry.md5 for mention in released for entry in patient.past.files[mention.digest]}
    there = set(depot.contents(wanted).objects) if depot else set()
    home, linked = _caches(patient)
    lost = [mention for mention in released if _lacks(patient, mention, here | home | linked | there)]
    if lost:
        where = f"neither here nor in {depot.name}" if depot else "not here, and there is no remote"
        yield Ailment(
            "released-bytes-gone", f"bytes of {_names(lost)} are {where}",
            "'gitmodel push' where they were saved, or 'gitmodel fsck --repair --from PATH'",
        )  # fmt: skip
    fleeting = [m for m in released if m not in lost and _lacks(patient, m, home | there)]
    if fleeting:
        yield Ailment(
            "in-linked-worktree",
            f"bytes of {_names(fleeting)} are in a linked worktree's cache alone; 'git worktree remove' deletes them",
            "gitmodel push", advice=True,
        )  # fmt: skip
    if depot and (unsent := [m for m in released if m not in lost + fleeting and _lacks(patient, m, there)]):
        yield Ailment("not-pushed", f"bytes of {_names(unsent)} are in this cache alone", "gitmodel push", advice=True)


def tags(patient: Patient) -> Iterator[Ailment]:
    light = [
        ref.name
        for ref in patient.repo.tags("*@*")
        if not ref.annotated and isinstance(parse_tag(ref.name), ReleaseTag)
    ]
    if light:
        more = f" and {len(light) - 1} more" if len(light) > 1 else ""
        yield Ailment(
            "lightweight-tag", f"{light[0]}{more}: no author, date, verdict or signature; 'gitmodel release' makes annotated tags",
            "release the next version with 'gitmodel release'; a tag that was pushed is never moved", advice=True,
        )  # fmt: skip


def copies(patient: Patient) -> Iterator[Ailment]:
    """Commits that would be gone with this clone."""
    if patient.repo.bare or not patient.repo.head():
        return
    if not patient.repo.run("remote"):
        yield Ailment(
            "only-copy",
            "there is no Git remote: this clone is the only copy",
            "git remote add origin URL, and push",
            advice=True,
        )
        return
    count = int(patient.repo.run("rev-list", "--count", "--branches", "--tags", "--not", "--remotes"))
    if count:
        yield Ailment("commits-only-here", f"{counted(count, 'commit')} on no Git remote", "git push", advice=True)


def _depot(patient: Patient) -> Depot:
    return depot_of(remote_of(patient.place))


def _caches(patient: Patient) -> tuple[set[str], set[str]]:
    """The objects in the cache of the main working tree, and those in the caches of linked ones."""
    found: dict[bool, set[str]] = {False: set(), True: set()}
    for root in patient.repo.worktrees():
        for cache in setup.open_caches([root]):
            found[root != patient.repo.home].update(Folder(cache.objects, "").contents().objects)
    return found[False], found[True]


def _lacks(patient: Patient, mention: Mention, objects: set[str]) -> bool:
    return any(entry.md5 not in objects for entry in patient.past.files[mention.digest])


def _names(mentions: list[Mention]) -> str:
    return some([mention.label for mention in mentions])
