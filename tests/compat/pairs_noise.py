"""Pairs of the rules about what running showed: noise, shapes, slices, thresholds of the owner's, precision."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import helper

from gitmodel.bundle.golden import SLICE, GoldenCase, Slice
from gitmodel.formats import goldens
from tests import support
from tests.compat.pairs import NAME, Sides, models, pair, release, repository, save, scaled

#: The output of this model grows with the number of rows it is asked for together.
CROWDED = """(float[batch,4] x) => (float[batch,4] y) <float one = {{1.0}}, float step = {{{step}}}, int64 first = {{0}}> {{
    shape = Shape(x)
    rows = Gather(shape, first)
    count = Cast<to = 1>(rows)
    share = Mul(count, step)
    scale = Add(one, share)
    y = Mul(x, scale)
}}"""
#: Adds up to 1/128 by chance, but the same chance for every session.
RANDOM = """(float[batch,4] x) => (float[batch,4] y) {
    chance = RandomUniformLike<high = 0.0078125, low = 0.0, seed = 1.0>(x)
    y = Add(x, chance)
}"""


@models
def output_shape_lies() -> Sides:
    return (
        "(float[4] x) => (float[4] y) { y = Abs(x) }",
        "(float[4] x) => (float[4] y) <float zero = {0.0}> { kept = Greater(x, zero) y = Compress(x, kept) }",
    )


@models
def nondeterministic_output() -> Sides:
    return (scaled("1.0"), RANDOM)


@models
def batch_variance() -> Sides:
    return (CROWDED.format(step="0.0009765625"), CROWDED.format(step="0.00109863281250"))


@pair
def agreement_below(folder: Path) -> tuple[str, str]:
    repository(folder)
    save(folder, scaled("1.0"))
    card = folder / "models" / NAME / "model.yaml"
    card.write_text(card.read_text() + "gates:\n  agreement: 0.9\n")
    support.git(folder, "commit", "-qam", "Ask for agreement")
    old = release(folder)
    save(folder, scaled("-1.0"))
    return old, NAME


@models
def precision_changed() -> Sides:
    """The same numbers, which half precision holds exactly."""
    kernel = np.arange(6, dtype="float32").reshape(2, 3)
    border = [support.value_info("x", "float32", ["batch", 2])], [support.value_info("y", "float32", ["batch", 3])]
    wide = helper.make_node("Cast", ["half"], ["kernel"], to=onnx.TensorProto.FLOAT)
    product = helper.make_node("MatMul", ["x", "kernel"], ["y"])
    return (
        support.model([product], *border, {"kernel": kernel}),
        support.model([wide, product], *border, {"half": kernel.astype("float16")}),
    )


@pair
def slice_regressed(folder: Path) -> tuple[str, str]:
    """One decision of twelve flips, which is little for all and half of what Germany asks."""
    repository(folder)
    for number, first in enumerate(("1.0", "1.5")):
        text = (
            f"(float[batch,4] x) => (float[batch,4] y) <float[4] scale = {{{first}, 1, 1, 1}}> {{ y = Mul(x, scale) }}"
        )
        save(folder, text)
        groups = {
            "all": [[0.0, float(i), 1.0, 0.5] for i in range(2, 12)],
            "de": [[4.0, 5.0, 0.0, 0.0], [1.0, 9.0, 0.0, 0.0]],
        }
        _record(folder, groups, np.array([float(first), 1, 1, 1], "float32"))
        support.git(folder, "add", "models")
        support.git(folder, "commit", "-qm", "Record")
        if number == 0:
            old = release(folder)
    return old, NAME


def _record(folder: Path, groups: Mapping[str, Sequence[Sequence[float]]], scale: np.ndarray) -> None:
    golden = folder / "models" / NAME / "golden"
    for group, rows in groups.items():
        inputs = [np.array([row], "float32") for row in rows]
        cases = [GoldenCase("", {"x": row}, {"y": row * scale}) for row in inputs]
        for path, data in goldens.write(group, cases).items():
            (golden / path).parent.mkdir(parents=True, exist_ok=True)
            (golden / path).write_bytes(data)
    (golden / "de" / SLICE).write_text(Slice("country=DE", agreement=0.95).to_yaml())
