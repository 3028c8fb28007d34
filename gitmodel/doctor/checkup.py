"""Runs all checks, and on request the repairs that need nobody's judgement."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

from gitmodel.doctor import leftovers, settings, stores
from gitmodel.doctor.ailment import Ailment, Checkup, Patient
from gitmodel.errors import GitmodelError
from gitmodel.git import Repository

CHECKS: tuple[Callable[[Patient], Iterator[Ailment]], ...] = (
    leftovers.locks,
    stores.cache,
    stores.remotes,
    stores.released_bytes,
    settings.shims,
    settings.serving,
    settings.ignored,
    settings.committed,
    settings.signing,
    stores.tags,
    leftovers.files,
    stores.copies,
)


def examine(repo: Path | str = ".", *, remote: bool = False, repair: bool = False) -> Checkup:
    """What ails a repository, the worst first; with ``remote`` its DVC remote is asked, too. Raises NotARepository.

    ``repair`` mends what needs nobody's judgement, under the repository's lock.
    """
    patient = Patient(Repository.open(Path(repo)), far=remote)
    found: list[Ailment] = []
    incomplete: list[str] = []
    for check in CHECKS:
        try:
            found += check(patient)
        except GitmodelError as error:  # one thing that cannot be looked at does not hide the others
            incomplete.append(str(error))
    if repair:
        with patient.repo.lock():
            found = [_repaired(ailment, incomplete) for ailment in found]
    found.sort(key=lambda ailment: ailment.advice)
    return Checkup(tuple(found), "; ".join(dict.fromkeys(incomplete)))


def _repaired(ailment: Ailment, failed: list[str]) -> Ailment:
    if ailment.repair is None:
        return ailment
    with contextlib.suppress(GitmodelError):
        ailment.repair()
        return replace(ailment, repaired=True)
    failed.append(f"{ailment.code} could not be mended")
    return ailment
