"""Five generations of a real classifier (GITMODEL_REALDATA): each step with the truth its README tells, and the publisher's own
expected results replayed as golden cases."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx

from gitmodel import runtime
from gitmodel.bundle.card import Gates
from gitmodel.bundle.golden import GoldenCase
from gitmodel.compat.replay import check_self
from gitmodel.formats import onnx as onnx_format
from tests.compat.mutations.proof import Row, judged
from tests.compat.mutations.truth import MAJOR, Mutant, Place, Truth, held_against

GENERATIONS = ("v1", "v2_0", "v2_1", "v3_0", "v3_3")
INPUT, OUTPUT = "inputs.bytes", "outputs.target_label"
#: What each step breaks by its signature, from README.md; the class lists are compared below.
STEPS: dict[tuple[str, str], tuple[Place, ...]] = {
    ("v1", "v2_0"): (
        ("input-dtype-changed", INPUT), ("input-dim-changed", f"{INPUT}[1]"), ("output-dim-changed", f"{OUTPUT}[1]"),
    ),
    ("v2_0", "v2_1"): (("output-dim-changed", f"{OUTPUT}[1]"),),
    ("v2_1", "v3_0"): (("input-dim-changed", f"{INPUT}[1]"), ("output-dim-changed", f"{OUTPUT}[1]")),
    ("v3_0", "v3_3"): (("golden-failed", OUTPUT),),
}  # fmt: skip


def rows(magika: Path, folder: Path) -> Iterator[Row]:
    """Every step, every generation against itself and against itself from another exporter."""
    for (old, new), places in STEPS.items():
        labels = (_labels(magika, old), _labels(magika, new))
        expects = dict.fromkeys((*places, *_relabelled(*labels)), MAJOR)
        stops = any(rule.startswith("input-") for rule, _ in places)
        recorded = _calls(magika) if (old, new) == ("v3_0", "v3_3") else ()
        mutant = Mutant(
            _model(magika, old), _model(magika, new), Truth(expects, replayed=not stops), labels, recorded=recorded
        )
        yield Row(f"{old} to {new}", "magika", "", held_against(judged(mutant, folder), mutant.truth, "runs"))
    for generation in GENERATIONS:
        model, again = _model(magika, generation), _model(magika, generation)
        again.producer_name = "another exporter"
        for name, other, truth in (("itself", model, Truth(same_bytes=True)), ("producer", again, Truth(exact=True))):
            outcome = held_against(judged(Mutant(model, other, truth), folder), truth, "runs")
            yield Row(f"{generation}: {name}", "magika", "", outcome)


def reference(magika: Path, folder: Path) -> tuple[int, int]:
    """(passed, all) of the publisher's results for standard_v3_3: the best class, and its score within 1e-6, one row at a time."""
    known = _labels(magika, "v3_3")
    with np.load(magika / "standard_v3_3" / "reference.npz") as published:
        cases = [
            GoldenCase(
                f"reference/{number}", {"bytes": row[None]},
                {"best": np.array([known.index(str(label))]), "score": np.array([score], "float32")},
            )
            for number, (row, label, score) in enumerate(
                zip(published["bytes"], published["label"], published["score"], strict=True)
            )
        ]  # fmt: skip
    path = folder / "answers.onnx"
    path.write_bytes(_with_answers(_model(magika, "v3_3")).SerializeToString())
    signature = onnx_format.signature_of(onnx.load(path), "answers")
    found = check_self(runtime.open_session(path), cases, signature, Gates(tolerance={"score": (0.0, 1e-6)}))
    return found.passed, found.cases


def _with_answers(model: onnx.ModelProto) -> onnx.ModelProto:
    """The model with what its publisher recorded: the index of the best class, and its score."""
    output = model.graph.output[0].name
    make, typed = onnx.helper.make_node, onnx.helper.make_tensor_value_info
    model.graph.node.append(make("ArgMax", [output], ["best"], axis=1, keepdims=0))
    model.graph.node.append(make("ReduceMax", [output], ["score"], axes=[1], keepdims=0))
    model.graph.output.append(typed("best", onnx.TensorProto.INT64, [None]))
    model.graph.output.append(typed("score", onnx.TensorProto.FLOAT, [None]))
    return model


def _model(magika: Path, generation: str) -> onnx.ModelProto:
    return onnx.load(magika / f"standard_{generation}" / "model.onnx")


def _labels(magika: Path, generation: str) -> list[str]:
    """The class list; the first generation publishes none."""
    path = magika / f"standard_{generation}" / "config.min.json"
    return list(json.loads(path.read_text())["target_labels_space"]) if path.exists() else []


def _calls(magika: Path) -> tuple[GoldenCase, ...]:
    """The publisher's 37 hard rows, as calls alone."""
    with np.load(magika / "standard_v3_3" / "reference.npz") as published:
        return tuple(GoldenCase(f"hard/{n}", {"bytes": row[None]}, {}) for n, row in enumerate(published["bytes"]))


def _relabelled(old: list[str], new: list[str]) -> Iterator[Place]:
    """What a class list breaks that lost and won some classes: both said, and whether those that stayed changed places."""
    if not old or old == new:
        return
    gone, come = Counter(old) - Counter(new), Counter(new) - Counter(old)
    yield from ((rule, "labels") for rule, some in (("label-removed", gone), ("label-inserted", come)) if some)
    if [x for x in old if x not in gone] != [x for x in new if x not in come]:
        yield "label-reordered", "labels"
