"""``golden add`` and ``golden record``: new cases beside those there are, outputs for those that have none. Nothing that
is recorded is overwritten here; see golden_review.py for that."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from gitmodel import registry
from gitmodel.bundle.bundle import GOLDEN
from gitmodel.bundle.folder import DiskFolder
from gitmodel.bundle.golden import SLICE, GoldenCase, Slice
from gitmodel.compat import generate
from gitmodel.errors import GitmodelError
from gitmodel.files import replace_file
from gitmodel.formats import golden_files, goldens
from gitmodel.formats.goldens import InvalidGolden
from gitmodel.workflows.golden import CaseRefused, Running, chosen, hold, running
from gitmodel.workflows.workspace import Workspace

if TYPE_CHECKING:
    import numpy as np

#: How many inputs are drawn for each one that is kept: a model may refuse some, or give NaN for them.
_DRAWS = 3


class Added(Struct, frozen=True):
    """``added`` names the new cases, ``known`` counts those that were there already; of ``drawn`` inputs some may have been
    ``left_out``, which the model refuses or answers with NaN or infinity. ``wrong`` are new cases whose given outputs are
    not the model's. ``total`` cases of ``size`` bytes are there now."""

    group: str
    added: tuple[str, ...]
    known: int
    left_out: int
    wrong: tuple[str, ...]
    total: int
    size: int


class Origin(Struct, frozen=True):
    """Where cases come from: a ``file`` (npz), a folder of recorded ``traffic``, or else ``auto``, how many to draw."""

    file: Path | None = None
    traffic: Path | None = None
    auto: int = 0

    def group(self, part: Slice | None) -> str:
        """The group they go to when none is named."""
        if part is not None:
            return re.sub(r"[^A-Za-z0-9._=-]+", "-", part.name)
        return self.file.stem if self.file else "traffic" if self.traffic else "auto"


def add(
    name: str,
    origin: Origin,
    *,
    repo: Path | str | Workspace = ".",
    group: str = "",
    part: Slice | None = None,
    limit: int = 0,
) -> Added:
    """Adds cases to those of the working tree's model. Outputs that are not given are what the model gives, run as they
    are recorded: rows of an npz one at a time, a request as it came.

    The same inputs are not added twice to a slice (those of no slice count as one). ``limit`` takes that many at most,
    spread evenly. Raises InvalidGolden, RunFailed, UnknownModel, NotServable, StorageFailed and kin; then nothing was added.
    """
    place = Workspace.of(repo)
    with place.repo.lock():
        bundle = registry.working_bundle(place.repo, name)
        folder = place.repo.root / registry.model_path(name) / GOLDEN
        _sweep(folder)
        with running(place, bundle) as model:
            group = _group_for(model, group, origin, part)
            found, left_out = _found(model, origin, name)
            fresh, mended, known = _sort(model, found, group, part)
            if limit and len(fresh) > limit:
                fresh = [fresh[i * len(fresh) // limit] for i in range(limit)]
            first = golden_files.next_number(model.places, group)
            fresh = [replace(case, name=f"{group}/{first + i}") for i, case in enumerate(fresh)]
            wrong = tuple(held.case.name for held in hold(model, fresh) if held.wrong)
        total, size = _write(model, folder, fresh, mended, part)
    return Added(group, tuple(case.name for case in fresh), known, left_out, wrong, total, size)


def _write(
    model: Running, folder: Path, fresh: Sequence[GoldenCase], mended: Sequence[GoldenCase], part: Slice | None
) -> tuple[int, int]:
    """Writes new cases, and the outputs of those that lacked some; returns how many there are then, and their bytes."""
    files: dict[str, bytes] = {}
    for case in fresh:
        group, _, number = case.name.rpartition("/")
        files |= goldens.write(group, [case], int(number))
    for case in mended:
        files |= golden_files.side_files(model.places[case.name], "output", case.outputs)
    sizes = golden_files.sizes(model.bundle.folder, GOLDEN)
    total, size = len(sizes) + len(fresh), sum(sizes.values()) + sum(map(len, files.values()))
    golden_files.check_total(model.bundle.name, total, size)
    if part is not None and fresh:
        replace_file(folder / golden_files.group_of(fresh[0].name) / SLICE, part.to_yaml().encode())
    for path, data in files.items():
        replace_file(folder / path, data)
    return total, size


def _sweep(folder: Path) -> None:
    """Files that a killed writer left half written; the lock is held, so nobody is writing them."""
    for path in folder.rglob(".*.tmp"):
        path.unlink(missing_ok=True)


def _group_for(model: Running, group: str, origin: Origin, part: Slice | None) -> str:
    """The group to add to, which must not be some other slice's."""
    known = {golden_files.group_of(case) for case in model.places}
    group = group or origin.group(part)
    if group not in known:
        return golden_files.check_group(group)
    there = golden_files.slice_of(model.bundle.folder, GOLDEN, group, model.bundle.label)
    if part is not None and part != there:
        said = f"stands for {there.name}, with its own thresholds" if there else "stands for no slice"
        raise InvalidGolden(
            f"the group '{group}' is there and {said}", hint=f"choose another --group, or edit {GOLDEN}/{group}/{SLICE}"
        )
    return group


def _found(model: Running, origin: Origin, name: str) -> tuple[list[GoldenCase], int]:
    """What the origin has, and how many drawn inputs were left out."""
    if origin.file is not None:
        if origin.file.is_dir():
            raise InvalidGolden(
                f"{origin.file} is a folder", hint="name an npz, or give what a server recorded with --from-traffic"
            )
        return goldens.from_npz(origin.file, model.signature, model.session.run), 0
    if origin.traffic is not None:
        requests = golden_files.traffic(origin.traffic, name, model.signature)
        return [goldens.case_of("", row, model.signature, model.session.run, where) for where, row in requests], 0
    return _drawn(model, origin.auto)


def _drawn(model: Running, count: int) -> tuple[list[GoldenCase], int]:
    """Drawn inputs with the model's outputs. The same ones come first every time, so that drawing again adds nothing."""
    if not generate.possible(model.signature):
        raise InvalidGolden(f"no inputs can be drawn for {model.bundle.label}", hint="give an npz with real ones")
    kept: list[GoldenCase] = []
    seen: set[str] = set()
    left_out = 0
    plain = generate.cases(model.signature, count=count * _DRAWS)
    # Zeros and ones first, then the edges, then the rest: a few should show the most.
    for drawn in itertools.chain(itertools.islice(plain, 2), generate.edges(model.signature), plain):
        mark = golden_files.fingerprint(drawn.inputs)
        if len(kept) == count:
            break
        if mark in seen:
            continue
        seen.add(mark)
        try:
            outputs = model.session.run(drawn.inputs)
            goldens.refuse_collections(model.bundle.label, outputs)
        except goldens.InvalidGolden:
            raise
        except GitmodelError:
            outputs = {}
        if outputs and all(map(_is_finite, outputs.values())):
            kept.append(GoldenCase("", drawn.inputs, outputs))
        else:
            left_out += 1
    if not any(values.size for case in kept for values in case.outputs.values()):
        raise InvalidGolden(
            f"{model.bundle.label} answers none of {left_out} drawn inputs with numbers",
            hint="give an npz with real ones",
        )
    return kept, left_out


def _is_finite(values: np.ndarray) -> bool:
    import numpy as np

    return values.dtype.kind not in "fc" or bool(np.isfinite(values).all())


def _sort(
    model: Running, found: Sequence[GoldenCase], group: str, part: Slice | None
) -> tuple[list[GoldenCase], list[GoldenCase], int]:
    """The new ones; known ones that lack outputs, with them; and how many are known as they are. Raises InvalidGolden where
    other outputs are recorded for the same inputs."""
    part = part or golden_files.slice_of(model.bundle.folder, GOLDEN, group, model.bundle.label)
    name = part.name if part else ""
    known = {golden_files.fingerprint(c.inputs): c for c in model.cases if (c.slice.name if c.slice else "") == name}
    fresh: dict[str, GoldenCase] = {}
    mended, same = [], 0
    for case in found:
        mark = golden_files.fingerprint(case.inputs)
        there = known.get(mark) or fresh.get(mark)
        if there is None:
            fresh[mark] = case
            continue
        same += 1
        if not _agree(there, case, model):
            raise InvalidGolden(
                f"{_called(there, mark in known)} has the same inputs and other outputs",
                hint=f"'gitmodel golden review {model.bundle.name}' takes what the model gives now",
            )
        if mark in known and there.outputs.keys() < case.outputs.keys():
            mended.append(replace(case, name=there.name))
    return list(fresh.values()), mended, same


def _called(case: GoldenCase, known: bool) -> str:
    return f"golden case {case.name}" if known else "one more of the new cases"


def _agree(there: GoldenCase, case: GoldenCase, model: Running) -> bool:
    """Whether what both record of an output is the same within the card's tolerance."""
    from gitmodel.compat.closeness import closeness

    shared = there.outputs.keys() & case.outputs.keys()
    old, new = ({name: c.outputs[name] for name in shared} for c in (there, case))
    return not any(c.apart or c.beyond for c in closeness(old, new, model.signature, model.gates))


class Recorded(Struct, frozen=True):
    """``recorded`` names the cases that got outputs, ``kept`` counts those that had them."""

    recorded: tuple[str, ...]
    kept: int


def record(name: str, *, repo: Path | str | Workspace = ".", by: str = "", cases: Sequence[str] = ()) -> Recorded:
    """Runs the cases that record no outputs and stores what comes out; those that have outputs are left alone. ``by``
    names another version to run them through, such as ``fraud@v1.2.0``.

    Raises NoSuchCase, CaseRefused, UnknownModel, UnknownVersion, NotServable and kin; then nothing was written.
    """
    place = Workspace.of(repo)
    with place.repo.lock():
        bundle = registry.working_bundle(place.repo, name)
        folder = place.repo.root / registry.model_path(name) / GOLDEN
        asked = registry.resolve(place.repo, by) if by else bundle
        with running(place, asked) as model:
            there = goldens.read(bundle.folder, GOLDEN, model.signature, name)
            wanted = chosen(name, there, cases)
            empty = [case for case in wanted if not case.outputs]
            files: dict[str, bytes] = {}
            places = golden_files.places(DiskFolder(folder.parent), GOLDEN)
            for held in hold(model, empty):
                if isinstance(held.given, GitmodelError):
                    raise CaseRefused(
                        f"{asked.label} refuses golden case {held.case.name} ({held.given})", hint="remove the case"
                    )
                files |= golden_files.side_files(places[held.case.name], "output", held.given)
        for path, data in files.items():
            replace_file(folder / path, data)
    return Recorded(tuple(case.name for case in empty), len(wanted) - len(empty))
