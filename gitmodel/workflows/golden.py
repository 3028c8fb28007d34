"""Golden cases of a model and what it gives for them now: the list of them, and which no longer hold."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from gitmodel import registry
from gitmodel.bundle.acceptance import Acceptance
from gitmodel.bundle.bundle import GOLDEN, Bundle
from gitmodel.bundle.card import Gates
from gitmodel.bundle.golden import GoldenCase, Slice
from gitmodel.bundle.signature import Signature
from gitmodel.compat.replay import check_self
from gitmodel.compat.side_by_side import Arrays
from gitmodel.errors import ExitCode, GitmodelError
from gitmodel.formats import golden_files, goldens
from gitmodel.git import NotARepository, Repository
from gitmodel.storage.remote import Progress
from gitmodel.workflows.workspace import Workspace, opened

if TYPE_CHECKING:
    import numpy as np

    from gitmodel.runtime import Session


class Running(Struct, frozen=True):
    """A model that can be asked. ``signature`` is the model's own; ``cases`` are those recorded, ``places`` their folders."""

    bundle: Bundle
    session: Session
    signature: Signature
    cases: tuple[GoldenCase, ...]
    places: Mapping[str, str]

    @property
    def gates(self) -> Gates:
        return self.bundle.card.gates


class Held(Struct, frozen=True):
    """A case beside what the model gives for it now, which is a refusal when it gives nothing. ``wrong`` is in what they
    differ beyond the card's tolerance, '' when the case holds."""

    case: GoldenCase
    given: Arrays | GitmodelError
    wrong: str


class Row(Struct, frozen=True):
    """One case of a list: rows of its first input, bytes of its files. ``wrong`` is None where nothing was run;
    ``accepted`` is why its outputs are what they are, where somebody said so."""

    name: str
    rows: int
    size: int
    wrong: str | None
    accepted: Acceptance | None


class Group(Struct, frozen=True):
    """The cases of one group, and the slice of callers they stand for, if any."""

    name: str
    slice: Slice | None
    rows: tuple[Row, ...]


@contextlib.contextmanager
def running(place: Workspace | None, bundle: Bundle) -> Iterator[Running]:
    """The bundle in a session as a server opens it, with its recorded cases. Raises NotServable, MissingWeights,
    LoadFailed, InvalidGolden and kin."""
    from gitmodel import runtime
    from gitmodel.formats import onnx

    with opened(place, bundle) as path:
        signature = onnx.signature_of(onnx.parse(path.read_bytes(), bundle.label), bundle.label)
        session = runtime.open_session(path, label=bundle.label)
        cases = goldens.read(bundle.folder, GOLDEN, signature, bundle.label)
        yield Running(bundle, session, signature, tuple(cases), golden_files.places(bundle.folder, GOLDEN))


def hold(model: Running, cases: Sequence[GoldenCase] | None = None) -> Iterator[Held]:
    """Runs the cases (all recorded ones by default), each as it was recorded, and holds what comes out against it."""
    for case in model.cases if cases is None else cases:
        given = _ask(model.session, case)
        check = check_self(_Answer(given), [case], model.signature, model.gates)
        wrong = check.failures[0].removeprefix(f"case {case.name}: ") if check.failures else ""
        yield Held(case, given, wrong)


def _ask(session: Session, case: GoldenCase) -> Arrays | GitmodelError:
    try:
        given = session.run(case.inputs)
        goldens.refuse_collections(f"case {case.name}", given)
    except GitmodelError as error:
        return error
    return given


class _Answer(Struct, frozen=True):
    """Stands in for a session that was asked already."""

    given: Arrays | GitmodelError

    def run(self, inputs: Arrays, outputs: Sequence[str] | None = None) -> dict[str, np.ndarray]:  # noqa: ARG002  # a session's own
        if isinstance(self.given, GitmodelError):
            raise self.given
        return dict(self.given)


def cases_of(
    reference: str, *, repo: Path | str = ".", check: bool = False, progress: Progress | None = None
) -> list[Group]:
    """The golden cases a reference names, by group. With ``check`` each is run through the model and held against its
    outputs. Raises UnknownModel and kin, and with ``check`` what ``running`` raises."""
    try:
        place: Workspace | None = Workspace(Repository.open(Path(repo)), progress=progress)
    except NotARepository:
        place = None
    bundle = registry.resolve(place.repo if place else None, reference)
    wrong: dict[str, str] = {}
    rows: dict[str, int] = {}
    if check:
        with running(place, bundle) as model:
            for held in hold(model):
                wrong[held.case.name], rows[held.case.name] = held.wrong, row_count(held.case)
    elif bundle.signature is not None:
        found = goldens.read(bundle.folder, GOLDEN, bundle.signature, bundle.label)
        rows = {case.name: row_count(case) for case in found}
    return _groups(bundle, rows, wrong)


def _groups(bundle: Bundle, rows: Mapping[str, int], wrong: Mapping[str, str]) -> list[Group]:
    by_group: dict[str, list[tuple[str, int]]] = {}
    for name, size in golden_files.sizes(bundle.folder, GOLDEN).items():
        by_group.setdefault(golden_files.group_of(name), []).append((name, size))
    groups = []
    for group, members in by_group.items():
        accepted = {
            n: entry for entry in golden_files.accepted(bundle.folder, GOLDEN, group, bundle.label) for n in entry.cases
        }
        listed = (
            Row(name, rows.get(name, 0), size, wrong.get(name), accepted.get(int(name.rpartition("/")[2])))
            for name, size in members
        )
        part = golden_files.slice_of(bundle.folder, GOLDEN, group, bundle.label)
        groups.append(Group(group, part, tuple(listed)))
    return groups


def row_count(case: GoldenCase) -> int:
    """Rows of the first input; 1 for what has none."""
    first = next(iter(case.inputs.values()), None)
    return 1 if first is None or not first.ndim else len(first)


class NoSuchCase(GitmodelError):
    """A golden case was named that there is not."""

    code = "no-such-case"


class CaseRefused(GitmodelError):
    """The model gives no outputs for a golden case, so there is nothing to accept or record."""

    code = "case-refused"
    exit_code = ExitCode.INCOMPATIBLE


def chosen(name: str, cases: Sequence[GoldenCase], wanted: Sequence[str]) -> list[GoldenCase]:
    """The cases of these names, a group's name standing for all of its; all of them when none is named. Raises
    NoSuchCase."""
    known = {golden_files.group_of(case.name) for case in cases} | {case.name for case in cases}
    if strange := [one for one in wanted if one not in known]:
        raise NoSuchCase(
            f"{name} has no golden case '{strange[0][:80]}'", hint=f"'gitmodel golden list {name}' names them"
        )
    return [case for case in cases if not wanted or {case.name, golden_files.group_of(case.name)} & set(wanted)]
