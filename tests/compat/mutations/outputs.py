"""Mutations of what consumers read, and of how it behaves by a formula that is written beside it."""

from __future__ import annotations

import onnx
from onnx import TensorProto, helper

from tests.compat.mutations.corpus import Specimen, opset
from tests.compat.mutations.inputs import NARROWER, OTHER, WIDENED, WIDER, _sized
from tests.compat.mutations.surgery import (
    PLAIN,
    cast,
    deliver,
    dims,
    fixed,
    is_tensor,
    need,
    picked,
    rename,
    typed,
    unsqueeze,
)  # fmt: skip
from tests.compat.mutations.truth import BY_NAME, BY_POSITION, MAJOR, MINOR, PATCH, Bumps, Mutant, Truth, mutation

EXTRA = "mutant_extra"


def _tensor_output(specimen: Specimen, types: tuple[int, ...] = ()) -> onnx.ValueInfoProto:
    return picked(specimen.model.graph.output, lambda v: is_tensor(v, types), "no output of such a type")


def _sized_output(specimen: Specimen) -> onnx.ValueInfoProto:
    return picked(
        specimen.model.graph.output,
        lambda v: is_tensor(v) and bool(fixed(v)) and all(fixed(v) or ()),
        "no output has fixed dimensions",
    )


def _with_extra(specimen: Specimen, *, first: bool = False) -> onnx.ModelProto:
    """One output more, of a type no other has: nobody takes it for a renamed one."""
    made = specimen.copy()
    made.graph.node.append(
        helper.make_node(
            "Constant", [], [EXTRA], value=helper.make_tensor(EXTRA, TensorProto.INT64, [3, 1, 2], [1, 2, 3, 4, 5, 6])
        )
    )
    made.graph.output.insert(0 if first else len(made.graph.output), typed(EXTRA, TensorProto.INT64, [3, 1, 2]))
    return made


@mutation
def output_renamed(specimen: Specimen) -> Mutant:
    name, new = specimen.model.graph.output[0].name, specimen.copy()
    need(name not in {v.name for v in new.graph.input}, "the output is an input, too")
    rename(new.graph, name, "mutant_renamed")
    return Mutant(specimen.model, new, Truth({("output-renamed", f"outputs.{name}"): BY_NAME}))


@mutation
def output_removed(specimen: Specimen) -> Mutant:
    old = _with_extra(specimen)
    return Mutant(old, specimen.model, Truth({("output-removed", f"outputs.{EXTRA}"): MAJOR}))


@mutation
def own_output_removed(specimen: Specimen) -> Mutant:
    need(len(specimen.model.graph.output) > 1, "it has one output")
    new = specimen.copy()
    name = new.graph.output.pop().name
    owed = {("output-removed", f"outputs.{name}"): MAJOR}
    if name.removesuffix("_new") in {value.name for value in specimen.model.graph.input}:
        # ONNX's own training operators: H goes in, H_new comes out and is the next call's H.
        owed[("state-pair-changed", f"state.{name}")] = MAJOR
    return Mutant(specimen.model, new, Truth(owed))


@mutation
def output_appended(specimen: Specimen) -> Mutant:
    return Mutant(specimen.model, _with_extra(specimen), Truth({("output-added", f"outputs.{EXTRA}"): MINOR}))


@mutation
def output_added_in_front(specimen: Specimen) -> Mutant:
    owed: Bumps = ("major", "minor", "minor")
    new = _with_extra(specimen, first=True)
    return Mutant(specimen.model, new, Truth({("output-added", f"outputs.{EXTRA}"): owed}))


@mutation
def outputs_reordered(specimen: Specimen) -> Mutant:
    old, new = _with_extra(specimen), _with_extra(specimen, first=True)
    return Mutant(old, new, Truth({("output-reordered", "outputs"): BY_POSITION}))


def _retyped(specimen: Specimen, table: dict[int, int], bumps: Bumps) -> Mutant:
    need(opset(specimen.model) >= 6, "Cast takes names before opset 6")
    value = _tensor_output(specimen, tuple(table))
    to, new = table[value.type.tensor_type.elem_type], specimen.copy()
    deliver(new, value.name, typed(value.name, to, dims(value)), cast(to))
    return Mutant(specimen.model, new, Truth({("output-dtype-changed", f"outputs.{value.name}"): bumps}))


@mutation
def output_retyped_wider(specimen: Specimen) -> Mutant:
    return _retyped(specimen, WIDER, WIDENED)


@mutation
def output_retyped_narrower(specimen: Specimen) -> Mutant:
    return _retyped(specimen, NARROWER, MAJOR)


@mutation
def output_retyped_otherwise(specimen: Specimen) -> Mutant:
    return _retyped(specimen, OTHER, MAJOR)


@mutation
def output_retyped_to_text(specimen: Specimen) -> Mutant:
    need(opset(specimen.model) >= 9, "Cast writes no text before opset 9")
    value, new = _tensor_output(specimen, (TensorProto.FLOAT, TensorProto.INT64)), specimen.copy()
    deliver(new, value.name, typed(value.name, TensorProto.STRING, dims(value)), cast(TensorProto.STRING))
    return Mutant(specimen.model, new, Truth({("string-tensor-changed", f"outputs.{value.name}"): MAJOR}))


@mutation
def output_rank_raised(specimen: Specimen) -> Mutant:
    value, new = _sized_output(specimen), specimen.copy()
    sizes = [1, *(fixed(value) or [])]
    deliver(new, value.name, typed(value.name, value.type.tensor_type.elem_type, sizes), unsqueeze(new))
    return Mutant(specimen.model, new, Truth({("output-rank-changed", f"outputs.{value.name}"): MAJOR}))


@mutation
def output_dim_changed(specimen: Specimen) -> Mutant:
    """Twice as many along the first axis."""
    need(opset(specimen.model) >= 4, "Concat has another meaning before opset 4")
    value, new = _sized_output(specimen), specimen.copy()
    sizes = fixed(value) or [0]
    given = typed(value.name, value.type.tensor_type.elem_type, [2 * sizes[0], *sizes[1:]])
    deliver(new, value.name, given, lambda s, t: [helper.make_node("Concat", [s, s], [t], axis=0)])
    return Mutant(specimen.model, new, Truth({("output-dim-changed", f"outputs.{value.name}[0]"): MAJOR}))


def _declared(specimen: Specimen) -> tuple[onnx.ValueInfoProto, onnx.ModelProto, onnx.ValueInfoProto]:
    """A sized output, a copy of the model, and the same output in the copy."""
    value, made = _sized_output(specimen), specimen.copy()
    return value, made, next(v for v in made.graph.output if v.name == value.name)


@mutation
def output_dim_relaxed(specimen: Specimen) -> Mutant:
    value, new, declared = _declared(specimen)
    declared.type.tensor_type.shape.dim[0].dim_param = "mutant_any"
    return Mutant(specimen.model, new, Truth({("output-dim-relaxed", f"outputs.{value.name}[0]"): MAJOR}))


@mutation
def output_dim_fixed(specimen: Specimen) -> Mutant:
    value, old, declared = _declared(specimen)
    declared.type.tensor_type.shape.dim[0].dim_param = "mutant_any"
    return Mutant(old, specimen.model, Truth({("output-dim-fixed", f"outputs.{value.name}[0]"): PATCH}))


@mutation
def output_rank_unknown(specimen: Specimen) -> Mutant:
    value, new, declared = _declared(specimen)
    declared.type.tensor_type.ClearField("shape")
    return Mutant(specimen.model, new, Truth({("output-rank-changed", f"outputs.{value.name}"): MAJOR}))


@mutation
def output_rank_fixed(specimen: Specimen) -> Mutant:
    value, old, declared = _declared(specimen)
    declared.type.tensor_type.ClearField("shape")
    return Mutant(old, specimen.model, Truth({("output-rank-fixed", f"outputs.{value.name}"): PATCH}))


@mutation
def output_dim_unlinked(specimen: Specimen) -> Mutant:
    """OLD says one row out for each row in, NEW says nothing of it."""
    models = []
    for symbol in ("mutant_rows", "mutant_any"):
        value, made, declared = _declared(specimen)
        fed = _sized(specimen)
        need((fixed(fed) or [0])[0] == (fixed(value) or [1])[0], "input and output have different first sizes")
        next(v for v in made.graph.input if v.name == fed.name).type.tensor_type.shape.dim[0].dim_param = "mutant_rows"
        declared.type.tensor_type.shape.dim[0].dim_param = symbol
        models.append(made)
    return Mutant(models[0], models[1], Truth({("output-dim-unlinked", f"outputs.{value.name}[0]"): MINOR}))


@mutation
def output_became_a_sequence(specimen: Specimen) -> Mutant:
    need(opset(specimen.model) >= 11, "there are no sequences before opset 11")
    value, new = _tensor_output(specimen, PLAIN), specimen.copy()
    held = helper.make_tensor_type_proto(value.type.tensor_type.elem_type, dims(value))
    given = helper.make_value_info(value.name, helper.make_sequence_type_proto(held))
    deliver(new, value.name, given, lambda s, t: [helper.make_node("SequenceConstruct", [s], [t])])
    return Mutant(specimen.model, new, Truth({("value-kind-changed", f"outputs.{value.name}"): MAJOR}))
