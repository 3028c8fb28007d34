"""The files of a case under review: new outputs that wait beside the recorded ones, their change of places, the reasons."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from msgspec.structs import replace

from gitmodel.bundle import acceptance
from gitmodel.bundle.acceptance import ACCEPTED, Acceptance
from gitmodel.bundle.bundle import GOLDEN, NEW
from gitmodel.bundle.folder import DiskFolder
from gitmodel.compat.side_by_side import Arrays
from gitmodel.files import replace_file, storing
from gitmodel.formats import golden_files


def state(folder: Path, place: str) -> str:
    """One short digest for the recorded files of the case at ``place``, below the golden ``folder``."""
    whole = hashlib.sha256()
    for path in sorted((folder / place).glob("*.pb")):
        data = path.read_bytes()
        whole.update(f"{path.name} {len(data)} ".encode() + data)
    return whole.hexdigest()[:16]


def pending(place: str, given: Arrays) -> dict[str, bytes]:
    """The files of outputs that wait for a decision, by path."""
    return {f"{path}{NEW}": data for path, data in golden_files.side_files(place, "output", given).items()}


def replace_outputs(folder: Path, place: str, given: Arrays) -> None:
    """Puts new outputs in the place of the old ones, each in one step; files of outputs that are no more go."""
    files = golden_files.side_files(place, "output", given)
    for relative, data in files.items():
        replace_file(folder / relative, data)
    with storing(str(folder / place)):
        for path in [*(folder / place).glob("output_*.pb"), *(folder / place).glob(f"output_*.pb{NEW}")]:
            if path.relative_to(folder).as_posix() not in files:
                path.unlink()


def say_why(folder: Path, label: str, cases: Sequence[str], said: Acceptance) -> None:
    """Writes down why the outputs of these cases are what they will be. Raises InvalidYaml, StorageFailed."""
    by_group: dict[str, list[int]] = {}
    for name in cases:
        group, number = _parts(name)
        by_group.setdefault(group, []).append(number)
    for group, numbers in by_group.items():
        new = replace(said, cases=tuple(numbers))
        _rewrite(folder, label, group, partial(acceptance.add, new=new))


def take_back(folder: Path, label: str, case: str, weights: str) -> None:
    """Removes a reason that was written down by an ``accept`` which was killed before it replaced anything."""
    group, number = _parts(case)
    _rewrite(folder, label, group, partial(acceptance.without, case=number, weights=weights))


def _rewrite(
    folder: Path, label: str, group: str, change: Callable[[Sequence[Acceptance]], tuple[Acceptance, ...]]
) -> None:
    path = folder / group / ACCEPTED
    after = change(golden_files.accepted(DiskFolder(folder.parent), GOLDEN, group, label))
    if after:
        replace_file(path, acceptance.dump(after).encode())
    else:
        path.unlink(missing_ok=True)


def _parts(case: str) -> tuple[str, int]:
    group, _, number = case.rpartition("/")
    return group, int(number)
