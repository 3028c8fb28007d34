"""Judges mutants as a user's command would, and holds each report against the truth."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import h5py
import onnx
from onnx import external_data_helper

from gitmodel import registry
from gitmodel.bundle.bundle import CARD, GOLDEN, LABELS, LOCK, ONNX_VIEW, SIGNATURE, WEIGHTS
from gitmodel.bundle.golden import GoldenCase
from gitmodel.bundle.lock import FileEntry, Lock
from gitmodel.compat.opening import Opens
from gitmodel.compat.trusted import OwnModels
from gitmodel.compat.verdict import Report
from gitmodel.formats import goldens
from gitmodel.workflows import check
from tests.compat.mutations import MUTATIONS, oracle
from tests.compat.mutations.corpus import Specimen
from tests.compat.mutations.surgery import NotDefined
from tests.compat.mutations.truth import Mutant, Outcome, Side, held_against

#: What models with seconds for each judgement meet: one of each kind.
FOR_HEAVY = frozenset(
    {
        "itself",
        "producer",
        "input-renamed",
        "input-dim-changed",
        "output-removed",
        "labels-swapped",
        "ir-beyond-the-runtime",
    }
)


_STATE = "state-pair-changed"
#: Why nothing can be said of a pair whose answers take all memory, and how the judge says that it met such a one.
_TOO_MUCH = "what its drawn cases give does not go into memory"
_UNJUDGED = {
    "more than goes into this machine's memory": _TOO_MUCH,
    "a machine with more memory": _TOO_MUCH,
    " took more than ": "its drawn cases take longer than a judgement may",
}
#: It owes nothing, and is told by sandboxes alone.
_CHECKER = "onnx-check-failed at model"


@dataclass(frozen=True)
class Row:
    """One mutation of one model: ``undefined`` is why it says nothing there, else ``outcome`` is set."""

    mutation: str
    specimen: str
    undefined: str = ""
    outcome: Outcome = field(default_factory=Outcome)


def prove(
    specimen: Specimen,
    name: str,
    folder: Path,
    states: dict[bytes, str],
    *,
    opens: Callable[[], Opens] = OwnModels,
    deadly: bool = False,
) -> Row:
    """One mutant made, judged and held against its truth. ``states`` keeps what the oracle said of an OLD side; it is not
    asked of one that is known to be ``deadly``."""
    if specimen.heavy and name not in FOR_HEAVY:
        return Row(name, specimen.name, "it takes too long for this one")
    try:
        mutant = MUTATIONS[name](specimen)
        state = "deadly" if deadly else _state(mutant, states)
        _refuse_unsound(mutant, state)
    except NotDefined as reason:
        return Row(name, specimen.name, str(reason))
    except MemoryError:
        return Row(name, specimen.name, _TOO_MUCH)
    try:
        report = judged(mutant, folder, opens)
    except Exception as error:  # whatever it is, it is not a report
        return Row(name, specimen.name, "", Outcome(wrong=(f"raised {type(error).__name__}: {error}"[:300],)))
    for sign, why in _UNJUDGED.items():
        if sign in report.unjudged:
            return Row(name, specimen.name, why)
    try:
        return _held(specimen, name, mutant, state, report)
    except MemoryError:
        return Row(name, specimen.name, _TOO_MUCH)


def _held(specimen: Specimen, name: str, mutant: Mutant, state: str, report: Report) -> Row:
    """A report against the truth, where ONNX Runtime by itself does not show that the truth is another. Raises MemoryError."""
    outcome = held_against(report, mutant.truth, state)
    if _CHECKER in outcome.false and oracle.is_refused_by_the_checker(mutant.new):
        outcome = replace(outcome, false=tuple(text for text in outcome.false if text != _CHECKER))
    if outcome.false and not mutant.truth.exact and _amplified(mutant, outcome):
        return Row(
            name, specimen.name, "the runtime compiles the mutant otherwise, and the model amplifies its rounding"
        )
    if outcome.false == ("new-error-on-accepted-input at behaviour",) and _is_not_run(mutant):
        return Row(name, specimen.name, "the runtime loads the mutant, and does not run it")
    if not outcome.right and _STATE in {finding.rule for finding in report.findings}:
        return Row(name, specimen.name, "it tears a pair of states apart as well, which has a rule of its own")
    if outcome.false and _is_lie_of_its_own(mutant, outcome):
        return Row(name, specimen.name, "the model says of its outputs what the runtime's answers contradict")
    return Row(name, specimen.name, "", outcome)


def _is_not_run(mutant: Mutant) -> bool:
    """Whether ONNX Runtime by itself answers a call on OLD and refuses it on NEW, which should be the same in every way."""
    return (
        isinstance(mutant.old, onnx.ModelProto)
        and isinstance(mutant.new, onnx.ModelProto)
        and oracle.refuses(mutant.old, mutant.new)
    )


def _is_lie_of_its_own(mutant: Mutant, outcome: Outcome) -> bool:
    """Whether all that should not stand is that NEW's answers have another shape than it declares, and they have: what the
    mutant declares is what the model's own file says, and the mutation takes that for true."""
    if isinstance(mutant.new, dict):
        return False
    return set(outcome.false) <= {f"output-shape-lies at outputs.{name}" for name in oracle.lies(mutant.new)}


def _amplified(mutant: Mutant, outcome: Outcome) -> bool:
    """Whether what should not stand are drifts alone, and ONNX Runtime by itself shows them all: then the mutant does not
    compute the same, whatever its graph says (a softmax over scores of some hundreds makes much of the last digit)."""
    if isinstance(mutant.old, dict) or isinstance(mutant.new, dict):
        return False
    names = [[value.name for value in model.graph.output] for model in (mutant.old, mutant.new)]
    if not all(text.startswith("golden-") for text in outcome.false) or not set(names[0]) <= set(names[1]):
        return False
    shown = {f"{rung} at outputs.{name}" for name, rung in oracle.rungs(mutant.old, mutant.new).items()}
    return set(outcome.false) <= shown


def _state(mutant: Mutant, states: dict[bytes, str]) -> str:
    if isinstance(mutant.old, dict) or mutant.truth.same_bytes or mutant.recorded:
        return "runs"
    key = mutant.old.SerializeToString(deterministic=True)
    if key not in states:
        states[key] = oracle.state(mutant.old)
    return states[key]


def _refuse_unsound(mutant: Mutant, state: str) -> None:
    """A mutant must load where its truth says so; what the runtime says of it is none of gitmodel's affair."""
    if state == "broken" or not mutant.truth.loads or isinstance(mutant.new, dict) or mutant.new is mutant.old:
        return
    if oracle.session(mutant.new) is None:
        raise NotDefined("the runtime does not load the mutant")


def judged(mutant: Mutant, folder: Path, opens: Callable[[], Opens] = OwnModels) -> Report:
    """The report on two bare files, or on two bundles of them with labels or recorded cases. ``opens`` is OwnModels, which
    takes a tenth of the time, or Models: sandboxes, as a user's command has them."""
    paths = [
        _write(folder, "old", mutant.old, outside=False),
        _write(folder, "new", mutant.new, outside=mutant.outside),
    ]
    if mutant.labels is not None or mutant.recorded:
        labels, recorded = mutant.labels or ([], []), (mutant.recorded, ())
        paths = [_bundle(*parts) for parts in zip(paths, labels, recorded, strict=True)]
    return check.check_compat(*map(str, paths), repo=folder, models=opens())


def _bundle(path: Path, labels: Sequence[str], cases: Sequence[GoldenCase]) -> Path:
    """A bundle's folder around a model file."""
    bare, folder = registry.resolve(None, str(path)), path.parent / f"{path.stem}-bundle"
    shutil.rmtree(folder, ignore_errors=True)
    digests = (hashlib.new(name, path.read_bytes(), usedforsecurity=False).hexdigest() for name in ("sha256", "md5"))
    files = {name: bare.folder.read(name) or b"" for name in (CARD, SIGNATURE)}
    files[LOCK] = Lock.of([], [FileEntry(ONNX_VIEW, path.stat().st_size, *digests)]).to_text().encode()
    files[f"{WEIGHTS}/{ONNX_VIEW}"] = path.read_bytes()
    files |= {f"{GOLDEN}/{name}": data for name, data in goldens.write("onnx", cases).items()}
    if labels:
        files[LABELS] = "".join(f"{label}\n" for label in labels).encode()
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def _write(folder: Path, name: str, side: Side, *, outside: bool) -> Path:
    if isinstance(side, dict):
        path = folder / f"{name}.h5"
        with h5py.File(path, "w") as file:
            for tensor, values in side.items():
                file.create_dataset(tensor, data=values)
        return path
    path = folder / f"{name}.onnx"
    if outside:
        made = onnx.ModelProto()
        made.CopyFrom(side)
        (folder / f"{name}.data").unlink(missing_ok=True)
        external_data_helper.convert_model_to_external_data(made, location=f"{name}.data", size_threshold=0)
        onnx.save(made, path)
    else:
        path.write_bytes(side.SerializeToString(deterministic=True))
    return path


def line(row: Row, seconds: float) -> str:
    """One row of a run as one line of JSON, which a later run reads."""
    found = {key: value for key, value in asdict(row.outcome).items() if value}
    kept = {
        "specimen": row.specimen,
        "mutation": row.mutation,
        "seconds": round(seconds, 4),
        "undefined": row.undefined,
    }
    return json.dumps(kept | found) + "\n"
