"""Mutations of what comes out: by a formula at the output, and in the weights. How far each goes is measured without gitmodel
(oracle.py); each says which rungs it may reach, and a model where it reaches another is none it is defined for."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.compat.mutations import oracle
from tests.compat.mutations.corpus import Specimen, opset
from tests.compat.mutations.oracle import DRIFT, FAILED, INF, MEANING, NAN, NOISE, SAME
from tests.compat.mutations.surgery import FLOATS, constant, deliver, is_tensor, need, picked
from tests.compat.mutations.truth import MAJOR, MINOR, Bumps, Mutant, Truth, mutation

OWED: dict[str, Bumps] = {MEANING: MAJOR, DRIFT: MINOR, FAILED: MAJOR, NAN: MAJOR, INF: MAJOR}
INTEGERS = (TensorProto.INT64, TensorProto.INT32)


def measured(specimen: Specimen, new: onnx.ModelProto, allowed: tuple[str, ...]) -> Mutant:
    """The mutant, with what ONNX Runtime and numpy say about it. A model that runs no case owes nothing for its values."""
    if oracle.state(specimen.model) != "runs":
        return Mutant(specimen.model, new, Truth())
    need(oracle.session(new) is not None, "the runtime does not load the mutant")
    rungs = oracle.rungs(specimen.model, new)
    reached = set(rungs.values()) - {SAME} or {SAME}
    need(reached <= set(allowed), f"it reaches {', '.join(sorted(reached - set(allowed)))}")
    places = {name: rung for name, rung in rungs.items() if rung in OWED}
    return Mutant(specimen.model, new, Truth({(rung, f"outputs.{name}"): OWED[rung] for name, rung in places.items()}))


def _with_formula(specimen: Specimen, operator: str, number: float, types: tuple[int, ...] = FLOATS) -> onnx.ModelProto:
    """``y' = operator(y, number)`` at the first output of these types."""
    need(opset(specimen.model) >= 7, "operators do not broadcast before opset 7")
    output = picked(specimen.model.graph.output, lambda v: is_tensor(v, types), "no output of such a type")
    new, given = specimen.copy(), onnx.ValueInfoProto()
    given.CopyFrom(output)
    dtype = helper.tensor_dtype_to_np_dtype(output.type.tensor_type.elem_type)

    def nodes(source: str, target: str) -> list[onnx.NodeProto]:
        named = f"{target}__number"
        return [constant(named, np.array(number, dtype)), helper.make_node(operator, [source, named], [target])]

    deliver(new, output.name, given, nodes)
    return new


@mutation
def output_within_tolerance(specimen: Specimen) -> Mutant:
    """A tenth of the tolerance smaller (never larger: nothing overflows). Patch."""
    output = picked(specimen.model.graph.output, lambda v: is_tensor(v, FLOATS), "no output of such a type")
    step: dict[int, float] = {TensorProto.FLOAT: 1e-4, TensorProto.DOUBLE: 1e-8, TensorProto.FLOAT16: 1e-3}
    new = _with_formula(specimen, "Mul", 1 - step[output.type.tensor_type.elem_type])
    return measured(specimen, new, (SAME, NOISE))


@mutation
def output_beyond_tolerance(specimen: Specimen) -> Mutant:
    """Five in a hundred smaller: the best class stays, a value that stands for itself does not."""
    return measured(specimen, _with_formula(specimen, "Mul", 0.95), (DRIFT, FAILED, MEANING))


@mutation
def output_negated(specimen: Specimen) -> Mutant:
    return measured(specimen, _with_formula(specimen, "Mul", -1.0), (DRIFT, FAILED, MEANING))


@mutation
def output_becomes_nan(specimen: Specimen) -> Mutant:
    return measured(specimen, _with_formula(specimen, "Add", math.nan), (NAN,))


@mutation
def output_becomes_infinite(specimen: Specimen) -> Mutant:
    return measured(specimen, _with_formula(specimen, "Add", math.inf), (INF, NAN))


@mutation
def integer_output_moved(specimen: Specimen) -> Mutant:
    """Integers stand for choices: one more is another."""
    return measured(specimen, _with_formula(specimen, "Add", 1, INTEGERS), (FAILED,))


@mutation
def flag_output_inverted(specimen: Specimen) -> Mutant:
    output = picked(
        specimen.model.graph.output, lambda v: is_tensor(v, (TensorProto.BOOL,)), "no output of such a type"
    )
    new, given = specimen.copy(), onnx.ValueInfoProto()
    given.CopyFrom(output)
    deliver(new, output.name, given, lambda s, t: [helper.make_node("Not", [s], [t])])
    return measured(specimen, new, (FAILED,))


@mutation
def call_refused(specimen: Specimen) -> Mutant:
    """NEW looks up a row that is not there, whatever it is fed: every call fails that OLD answers."""
    need(opset(specimen.model) >= 7, "operators do not broadcast before opset 7")
    output = picked(
        specimen.model.graph.output, lambda v: is_tensor(v, (TensorProto.FLOAT,)), "no output of such a type"
    )
    new, given = specimen.copy(), onnx.ValueInfoProto()
    given.CopyFrom(output)

    def nodes(source: str, target: str) -> list[onnx.NodeProto]:
        row = f"{target}__row"
        return [
            constant(f"{target}__flat", np.array([-1], "int64")),
            constant(f"{target}__far", np.array(1 << 30, "int64")),
            constant(f"{target}__zero", np.array(0, "float32")),
            helper.make_node("Reshape", [source, f"{target}__flat"], [f"{target}__all"]),
            helper.make_node("ArgMax", [f"{target}__all"], [f"{target}__best"], axis=0, keepdims=1),
            helper.make_node("Add", [f"{target}__best", f"{target}__far"], [f"{target}__index"]),
            helper.make_node("Gather", [f"{target}__all", f"{target}__index"], [row], axis=0),
            helper.make_node("Mul", [row, f"{target}__zero"], [f"{target}__nothing"]),
            helper.make_node("Add", [source, f"{target}__nothing"], [target]),
        ]

    deliver(new, output.name, given, nodes)
    return Mutant(specimen.model, new, Truth({("new-error-on-accepted-input", "behaviour"): MAJOR}))


# Weights --------------------------------------------------------------------------------------------------------------


def _weights(specimen: Specimen, change: Callable[[np.ndarray], np.ndarray]) -> onnx.ModelProto:
    new = specimen.copy()
    held = [t for t in new.graph.initializer if t.data_type in FLOATS and all(t.dims)]
    need(held, "it has no weights")
    for tensor in held:
        values = numpy_helper.to_array(tensor)
        tensor.CopyFrom(numpy_helper.from_array(change(values).astype(values.dtype), tensor.name))
    return new


@mutation
def weights_one_step_apart(specimen: Specimen) -> Mutant:
    """Every weight becomes the next number there is: retraining noise at its smallest. Patch."""
    new = _weights(specimen, lambda w: np.nextafter(w, np.full_like(w, np.inf)))
    return measured(specimen, new, (SAME, NOISE))


@mutation
def weights_negated(specimen: Specimen) -> Mutant:
    return measured(specimen, _weights(specimen, lambda w: -w), (DRIFT, FAILED, NAN, INF, MEANING))


@mutation
def weights_scaled(specimen: Specimen) -> Mutant:
    """Five in a hundred larger: noise, drift or failure, as the operators make of it."""
    return measured(specimen, _weights(specimen, lambda w: w * 1.05), (SAME, NOISE, DRIFT, FAILED, NAN, INF, MEANING))


@mutation
def weight_becomes_nan(specimen: Specimen) -> Mutant:
    return measured(specimen, _weights(specimen, lambda w: np.full_like(w, np.nan)), (NAN,))


@mutation
def weight_becomes_infinite(specimen: Specimen) -> Mutant:
    return measured(specimen, _weights(specimen, lambda w: np.full_like(w, np.inf)), (INF, NAN))
