"""``golden review`` and ``golden accept``: recorded outputs give way to what the model gives now, one case at a time, with a
reason. Only a person, or a script that says why, comes here: no check writes anything."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from msgspec import Struct

from gitmodel import registry
from gitmodel.bundle.acceptance import Acceptance
from gitmodel.bundle.bundle import GOLDEN
from gitmodel.compat.closeness import Closeness, closeness
from gitmodel.compat.side_by_side import Arrays
from gitmodel.errors import ExitCode, GitmodelError
from gitmodel.files import replace_file, storing
from gitmodel.formats import golden_files
from gitmodel.versions import check_name
from gitmodel.workflows import golden_outputs
from gitmodel.workflows.golden import CaseRefused, Held, Running, chosen, hold, row_count, running
from gitmodel.workflows.workspace import Workspace


class ChangedUnderReview(GitmodelError):
    """The model or its golden cases were changed while they were reviewed."""

    code = "changed-under-review"
    exit_code = ExitCode.INCOMPLETE


class NoReason(GitmodelError):
    """Outputs were to be accepted without saying why."""

    code = "no-reason"


@dataclass(frozen=True)
class Failing:
    """A case that does not hold. ``given`` is what the model gives now, None where it refuses, which ``wrong`` then says.
    ``state`` names the outputs recorded so far, ``mark`` what is to be decided: this answer to this case."""

    name: str
    place: str
    rows: int
    wrong: str
    given: Arrays | None = field(compare=False)
    outputs: tuple[Closeness, ...]
    state: str
    mark: str


class Review(Struct, frozen=True):
    """``failing`` are the cases still to be decided, ``rejected`` how many were rejected before the last interruption;
    ``cases`` ran in all. ``weights`` is the digest of the weights they ran through."""

    name: str
    weights: str
    cases: int
    failing: tuple[Failing, ...]
    rejected: int
    labels: tuple[str, ...] = ()


def begin(name: str, *, repo: Path | str | Workspace = ".") -> Review:
    """Replays the working tree's model and writes the outputs of each case that fails beside the recorded ones, as ``*.new``.

    After an interruption it goes on: what was accepted holds by now, what was rejected is not asked again.
    Raises UnknownModel, NotServable, MissingWeights, LoadFailed and kin.
    """
    place = Workspace.of(repo)
    with place.repo.lock():
        found = _replay(place, name)
        rejected = _rejected(place, name)
        left = tuple(case for case in found.failing if case.mark not in rejected)
        folder = _folder(place, name)
        wanted = {
            path: data for case in left for path, data in golden_outputs.pending(case.place, case.given or {}).items()
        }
        if wanted:
            place.repo.ignore_here(f"/{registry.MODELS}/*/{GOLDEN}/{golden_files.PENDING}")
        for path in folder.glob(golden_files.PENDING):
            if path.relative_to(folder).as_posix() not in wanted:
                path.unlink()
        for relative, data in wanted.items():
            replace_file(folder / relative, data)
    return Review(name, found.weights, found.cases, left, len(found.failing) - len(left), found.labels)


def accept(review: Review, cases: Sequence[Failing], reason: str, *, repo: Path | str | Workspace = ".") -> None:
    """Makes what the model gives for these cases what it must give from now on. The reason is written down first, so that
    nothing is ever accepted without one.

    Raises ChangedUnderReview when the model or a case is not what was reviewed, NoReason, CaseRefused, GitFailed.
    """
    if not reason.strip():
        raise NoReason("a reason is needed", hint="the reviewer of the commit reads it")
    if refused := [case for case in cases if case.given is None]:
        raise CaseRefused(
            f"the model refuses golden case {refused[0].name} ({refused[0].wrong})",
            hint="there are no outputs to accept: mend the model, or remove the case",
        )
    place = Workspace.of(repo)
    with place.repo.lock():
        folder = _folder(place, review.name)
        if registry.working_bundle(place.repo, review.name).lock.digest != review.weights:
            raise ChangedUnderReview(f"{review.name} was saved meanwhile", hint="review it again")
        for case in cases:
            if golden_outputs.state(folder, case.place) != case.state:
                raise ChangedUnderReview(f"golden case {case.name} was changed meanwhile", hint="review it again")
        said = Acceptance((), reason.strip(), place.repo.author(), f"sha256:{review.weights}")
        golden_outputs.say_why(folder, review.name, [case.name for case in cases], said)
        for case in cases:
            golden_outputs.replace_outputs(folder, case.place, case.given or {})


def reject(review: Review, case: Failing, *, repo: Path | str | Workspace = ".") -> None:
    """The recorded outputs stand: it is the model that has to be mended. Remembered until the review is over."""
    place = Workspace.of(repo)
    with place.repo.lock():
        path = _progress(place, review.name)
        replace_file(path, json.dumps(sorted({*_rejected(place, review.name), case.mark})).encode())
        folder = _folder(place, review.name)
        golden_outputs.take_back(folder, review.name, case.name, f"sha256:{review.weights}")
        for relative in golden_outputs.pending(case.place, case.given or {}):
            (folder / relative).unlink(missing_ok=True)


def end(review: Review, *, repo: Path | str | Workspace = ".") -> None:
    """Every case was asked about: the next review asks anew about all that do not hold."""
    place = Workspace.of(repo)
    with place.repo.lock(), storing("the state of the review"):
        _progress(place, review.name).unlink(missing_ok=True)


class Accepted(Struct, frozen=True):
    """``cases`` have new outputs now; ``held`` counts those named that held as they were."""

    cases: tuple[Failing, ...]
    held: int

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(case.name for case in self.cases)


def accept_named(name: str, cases: Sequence[str], reason: str, *, repo: Path | str | Workspace = ".") -> Accepted:
    """Replays the working tree's model and accepts what it gives for those of these cases (a group's name stands for its
    cases; none: all) that do not hold.

    Raises NoSuchCase, and what ``accept`` raises; then nothing was accepted.
    """
    place = Workspace.of(repo)
    with place.repo.lock():
        found = _replay(place, name, cases)
        if found.failing:
            accept(found, found.failing, reason, repo=place)
    return Accepted(found.failing, found.cases - len(found.failing))


def _replay(place: Workspace, name: str, wanted: Sequence[str] = ()) -> Review:
    """All that fails, decided or not."""
    bundle = registry.working_bundle(place.repo, check_name(name))
    with running(place, bundle) as model:
        cases, folder = chosen(name, model.cases, wanted), _folder(place, name)
        found = tuple(_failing(model, folder, held) for held in hold(model, cases) if held.wrong)
    return Review(name, bundle.lock.digest, len(cases), found, 0, tuple(bundle.labels))


def _failing(model: Running, folder: Path, held: Held) -> Failing:
    case, given, where = held.case, held.given, model.places[held.case.name]
    state = golden_outputs.state(folder, where)
    if isinstance(given, GitmodelError):
        return Failing(case.name, where, row_count(case), str(given), None, (), state, f"{case.name} {state} refused")
    kept = {output: given[output] for output in case.outputs if output in given} or given
    shown = tuple(closeness(case.outputs, kept, model.signature, model.gates))
    mark = f"{case.name} {state} {golden_files.fingerprint(kept)}"
    return Failing(case.name, where, row_count(case), held.wrong, kept, shown, state, mark)


def _folder(place: Workspace, name: str) -> Path:
    return place.repo.root / registry.model_path(name) / GOLDEN


def _progress(place: Workspace, name: str) -> Path:
    return place.repo.state_dir / "reviews" / f"{name}.json"


def _rejected(place: Workspace, name: str) -> set[str]:
    """What was rejected in a review that is not over; a damaged file is as good as none."""
    with contextlib.suppress(OSError, ValueError, TypeError):
        return {str(mark) for mark in json.loads(_progress(place, name).read_bytes())}
    return set()
