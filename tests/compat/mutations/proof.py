"""Judges mutants as a user's command would, and holds each report against the truth."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path

import h5py
import onnx
from onnx import external_data_helper

from gitmodel import registry
from gitmodel.bundle.bundle import CARD, GOLDEN, LABELS, SIGNATURE, Bundle
from gitmodel.bundle.folder import MemoryFolder
from gitmodel.compat.verdict import Report
from gitmodel.formats import goldens
from gitmodel.workflows import check
from gitmodel.workflows.judge import judge
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


@dataclass(frozen=True)
class Row:
    """One mutation of one model: ``undefined`` is why it says nothing there, else ``outcome`` is set."""

    mutation: str
    specimen: str
    undefined: str = ""
    outcome: Outcome = field(default_factory=Outcome)


def prove(specimen: Specimen, name: str, folder: Path, states: dict[bytes, str]) -> Row:
    """One mutant made, judged and held against its truth. ``states`` keeps what the oracle said of an OLD side."""
    if specimen.heavy and name not in FOR_HEAVY:
        return Row(name, specimen.name, "it takes too long for this one")
    try:
        mutant = MUTATIONS[name](specimen)
        state = _state(mutant, states)
        _refuse_unsound(mutant, state)
    except NotDefined as reason:
        return Row(name, specimen.name, str(reason))
    try:
        report = judged(mutant, folder)
    except Exception as error:  # whatever it is, it is not a report
        return Row(name, specimen.name, "", Outcome(wrong=(f"raised {type(error).__name__}: {error}"[:300],)))
    outcome = held_against(report, mutant.truth, state)
    if outcome.false and not mutant.truth.exact and _amplified(mutant, outcome):
        return Row(
            name, specimen.name, "the runtime compiles the mutant otherwise, and the model amplifies its rounding"
        )
    return Row(name, specimen.name, "", outcome)


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


def judged(mutant: Mutant, folder: Path) -> Report:
    """The report on two bare files, or on two bundles of them with labels or recorded cases."""
    paths = [
        _write(folder, "old", mutant.old, outside=False),
        _write(folder, "new", mutant.new, outside=mutant.outside),
    ]
    if mutant.labels is None and not mutant.recorded:
        return check.check_compat(*map(str, paths), repo=folder)
    labels = mutant.labels or ([], [])
    old, new = (_bundle(path, named) for path, named in zip(paths, labels, strict=True))
    files = {f"{GOLDEN}/{path}": data for path, data in goldens.write("onnx", mutant.recorded).items()}
    old = Bundle(old.name, old.label, MemoryFolder({**_files(old), **files}), file=old.file)
    return judge(None, old, new)


def _bundle(path: Path, labels: list[str]) -> Bundle:
    bare = registry.resolve(None, str(path))
    files = _files(bare)
    if labels:
        files[LABELS] = "".join(f"{label}\n" for label in labels).encode()
    return Bundle(bare.name, bare.label, MemoryFolder(files), file=path)


def _files(bundle: Bundle) -> dict[str, bytes]:
    return {path: bundle.folder.read(path) or b"" for path in (CARD, SIGNATURE, LABELS) if bundle.folder.read(path)}


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
