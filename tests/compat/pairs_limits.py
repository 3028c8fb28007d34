"""Pairs of what a model asks of runtimes: versions, domains, files outside, and what it costs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import helper

from tests import support
from tests.compat import pairs
from tests.compat.pairs import NAME, Sides, model, models, pair

_NEGATE = "(float[batch,4] x) => (float[batch,4] y) { y = Neg(x) }"
_BINARIZE = "(float[batch,4] x) => (float[batch,4] y) { y = ai.onnx.ml.Binarizer<threshold = 0.5>(x) }"


def _with(text: str, *, ir: int = support.IR_VERSION, **opsets: int) -> onnx.ModelProto:
    """The model with other versions: ``ml`` of ai.onnx.ml, ``onnx`` of ONNX's own."""
    made = model(text)
    made.ir_version = ir
    for entry in made.opset_import:
        entry.version = opsets.get("ml" if entry.domain else "onnx", entry.version)
    return made


@models
def ir_exceeds_runtime() -> Sides:
    return _NEGATE, _with(_NEGATE, ir=99)


@models
def opset_exceeds_runtime() -> Sides:
    return _NEGATE, _with(_NEGATE, onnx=99)


@models
def ml_opset_exceeds_runtime() -> Sides:
    return _BINARIZE, _with(_BINARIZE, ml=99)


@models
def opset_raised() -> Sides:
    return _with(_NEGATE, onnx=support.OPSET - 1), _NEGATE


@models
def custom_domain_used() -> Sides:
    new = model(_NEGATE)
    new.graph.node[0].domain = "com.example"
    new.opset_import.add(domain="com.example", version=1)
    return _NEGATE, new


@models
def op_unsupported() -> Sides:
    """ONNX allows uint16 here; the runtime has no kernel for it."""
    body = '{ u = Cast<to = 4>(x) s = BitShift<direction = "LEFT">(u, u) y = Cast<to = 1>(s) }'
    return _NEGATE, f"(float[batch,4] x) => (float[batch,4] y) {body}"


@models
def onnx_check_failed() -> Sides:
    """A graph without a name: the runtime does not mind."""
    new = model(_NEGATE)
    new.graph.ClearField("name")
    return _NEGATE, new


def _outside(location: str) -> Sides:
    text = "(float[batch,4] x) => (float[batch,4] y) <float[4] w = {1.0, 1.0, 1.0, 1.0}> { y = Add(x, w) }"
    new = model(text)
    tensor = new.graph.initializer[0]
    for field in ("float_data", "raw_data"):
        tensor.ClearField(field)
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
    return text, new


@models
def external_data_missing() -> Sides:
    return _outside("weights.bin")


@models
def external_data_escapes() -> Sides:
    return _outside("../weights.bin")


@pair
def unsafe_content(folder: Path) -> tuple[str, str]:
    pairs.checkpoint(folder / "old.h5", {"kernel": np.zeros((2, 2), "float32")})
    import h5py

    with h5py.File(folder / "new.h5", "w") as file:
        file["kernel"] = h5py.ExternalLink("/etc/passwd", "/kernel")
    return "old.h5", "new.h5"


def _promised(folder: Path, promise: str, old: str | onnx.ModelProto, new: str | onnx.ModelProto) -> tuple[str, str]:
    """OLD released with a line in its card, NEW in the working tree."""
    pairs.repository(folder)
    pairs.save(folder, old)
    card = folder / "models" / NAME / "model.yaml"
    card.write_text(card.read_text() + promise)
    support.git(folder, "commit", "-qam", "Promise")
    tag = pairs.release(folder)
    pairs.save(folder, new)
    return tag, NAME


@pair
def target_unknown(folder: Path) -> tuple[str, str]:
    promise = "targets: [onnxruntime 1.16, onnxruntime 1.3]\n"
    return _promised(folder, promise, _with(_NEGATE, ir=8, onnx=17), _with(_NEGATE, ir=10, onnx=21))


def _layers(count: int, width: int = 512) -> onnx.ModelProto:
    """Unit matrices one after another, so that the answers are the same and only the cost grows."""
    weights = {f"w{i}": np.eye(width, dtype="float32") for i in range(count)}
    nodes = [helper.make_node("MatMul", [f"h{i}", f"w{i}"], [f"h{i + 1}"]) for i in range(count)]
    flow = [helper.make_node("Identity", ["x"], ["h0"]), *nodes, helper.make_node("Identity", [f"h{count}"], ["y"])]
    shape: list[int | str | None] = [32, width]
    sides = [[support.value_info(name, "float32", shape)] for name in ("x", "y")]
    return support.model(flow, sides[0], sides[1], weights)


def _costly(what: str) -> pairs.Builder:
    def build(folder: Path) -> tuple[str, str]:
        return _promised(folder, f"budgets: {{{what}: 2.0}}\n", _layers(3), _layers(36))

    build.__name__ = f"{what}_regressed"
    return build


for _what in ("latency", "memory", "load_time", "size"):
    pair(_costly(_what))
