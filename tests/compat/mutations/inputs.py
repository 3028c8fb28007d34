"""Mutations of what callers feed. Where callers notice, NEW still computes the same: only the border differs."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.compat.mutations.corpus import Specimen, opset
from tests.compat.mutations.surgery import (
    PLAIN,
    cast,
    constant,
    dims,
    feed,
    fixed,
    is_tensor,
    need,
    picked,
    prepend,
    rename,
    required,
    reshape,
    typed,
)  # fmt: skip
from tests.compat.mutations.truth import BY_NAME, BY_POSITION, MAJOR, MINOR, NONE, Bumps, Mutant, Truth, mutation

EXTRA = "mutant_extra"
WIDER: dict[int, int] = {
    TensorProto.FLOAT: TensorProto.DOUBLE, TensorProto.FLOAT16: TensorProto.FLOAT, TensorProto.INT32: TensorProto.INT64,
    TensorProto.INT16: TensorProto.INT32, TensorProto.INT8: TensorProto.INT16, TensorProto.UINT8: TensorProto.UINT16,
    TensorProto.UINT16: TensorProto.UINT32, TensorProto.UINT32: TensorProto.UINT64,
}  # fmt: skip
NARROWER: dict[int, int] = {wide: narrow for narrow, wide in WIDER.items()}
OTHER: dict[int, int] = {
    TensorProto.FLOAT: TensorProto.INT32, TensorProto.INT64: TensorProto.FLOAT, TensorProto.BOOL: TensorProto.FLOAT,
    TensorProto.INT32: TensorProto.FLOAT, TensorProto.DOUBLE: TensorProto.INT64, TensorProto.UINT8: TensorProto.INT8,
}  # fmt: skip
#: Major for whoever sends bytes; a JSON front end casts numbers to a wider type by itself.
WIDENED: Bumps = ("major", "major", "minor")


def _first(specimen: Specimen) -> onnx.ValueInfoProto:
    found = required(specimen.model)
    need(found, "it has no input")
    return found[0]


def _sized(specimen: Specimen, *, axes: int = 1) -> onnx.ValueInfoProto:
    """An input whose dimensions are all fixed and not zero."""
    return picked(
        required(specimen.model),
        lambda v: is_tensor(v) and len(fixed(v) or ()) >= axes and all(fixed(v) or ()),
        "no input has fixed dimensions",
    )


@mutation
def input_renamed(specimen: Specimen) -> Mutant:
    name, new = _first(specimen).name, specimen.copy()
    need(name not in {v.name for v in new.graph.output}, "the input is an output, too")
    rename(new.graph, name, "mutant_renamed")
    return Mutant(specimen.model, new, Truth({("input-renamed", f"inputs.{name}"): BY_NAME}))


@mutation
def inputs_renamed_both(specimen: Specimen) -> Mutant:
    """Two inputs of one type under other names: nobody can tell which is which."""
    first = _first(specimen)
    twin = picked(required(specimen.model)[1:], lambda v: v.type == first.type, "no two inputs have one type")
    new, expects = specimen.copy(), {}
    need(not {first.name, twin.name} & {v.name for v in new.graph.output}, "the input is an output, too")
    for number, value in enumerate((first, twin)):
        rename(new.graph, value.name, f"mutant_{number}")
        expects["input-removed", f"inputs.{value.name}"] = MAJOR
        expects["input-added-required", f"inputs.mutant_{number}"] = MAJOR
    return Mutant(specimen.model, new, Truth(expects, replayed=False))


@mutation
def input_added_required(specimen: Specimen) -> Mutant:
    new = specimen.copy()
    new.graph.input.append(typed(EXTRA, TensorProto.FLOAT, [2, 3]))
    return Mutant(specimen.model, new, Truth({("input-added-required", f"inputs.{EXTRA}"): MAJOR}, replayed=False))


@mutation
def input_removed(specimen: Specimen) -> Mutant:
    old = specimen.copy()
    old.graph.input.append(typed(EXTRA, TensorProto.FLOAT, [2, 3]))
    return Mutant(old, specimen.model, Truth({("input-removed", f"inputs.{EXTRA}"): MAJOR}, replayed=False))


@mutation
def input_replaced_by_a_constant(specimen: Specimen) -> Mutant:
    """The input that mattered is gone, a constant of another name stands in."""
    value = picked(
        required(specimen.model), lambda v: is_tensor(v, PLAIN) and fixed(v) is not None, "no input of fixed size"
    )
    new = specimen.copy()
    need(value.name not in {v.name for v in new.graph.output}, "the input is an output, too")
    kept = [v for v in new.graph.input if v.name != value.name]
    rename(new.graph, value.name, "mutant_constant")
    del new.graph.input[:]
    new.graph.input.extend(kept)
    dtype = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
    prepend(new.graph, [constant("mutant_constant", np.ones(fixed(value) or (), dtype))])
    return Mutant(specimen.model, new, Truth({("input-removed", f"inputs.{value.name}"): MAJOR}, replayed=False))


def _with_default(model: onnx.ModelProto, values: float) -> onnx.ModelProto:
    need(model.ir_version >= 4, "before IR 4 no input has a default")
    made = onnx.ModelProto()
    made.CopyFrom(model)
    made.graph.input.append(typed(EXTRA, TensorProto.FLOAT, [2, 3]))
    made.graph.initializer.append(numpy_helper.from_array(np.full((2, 3), values, "float32"), EXTRA))
    return made


@mutation
def input_added_with_default(specimen: Specimen) -> Mutant:
    new = _with_default(specimen.model, 1.0)
    return Mutant(specimen.model, new, Truth({("input-added-with-default", f"inputs.{EXTRA}"): MINOR}))


@mutation
def optional_input_removed(specimen: Specimen) -> Mutant:
    """Drawn calls leave it out, so none of them shows the break."""
    old = _with_default(specimen.model, 1.0)
    expects = {("input-removed", f"inputs.{EXTRA}"): MAJOR}
    return Mutant(old, specimen.model, Truth(expects, replayed=False, witnessed=False))


@mutation
def input_default_changed(specimen: Specimen) -> Mutant:
    old, new = _with_default(specimen.model, 1.0), _with_default(specimen.model, 2.0)
    return Mutant(old, new, Truth({("input-default-changed", f"inputs.{EXTRA}"): MINOR}))


def _defaulted(specimen: Specimen) -> tuple[str, onnx.ModelProto]:
    need(specimen.model.ir_version >= 4, "before IR 4 no input has a default")
    value = picked(
        required(specimen.model), lambda v: is_tensor(v, PLAIN) and fixed(v) is not None, "no input of fixed size"
    )
    made = specimen.copy()
    dtype = helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
    made.graph.initializer.append(numpy_helper.from_array(np.ones(fixed(value) or (), dtype), value.name))
    return value.name, made


@mutation
def input_became_optional(specimen: Specimen) -> Mutant:
    name, new = _defaulted(specimen)
    owed: Bumps = ("major", "minor", "minor")
    return Mutant(specimen.model, new, Truth({("input-became-optional", f"inputs.{name}"): owed}))


@mutation
def input_became_required(specimen: Specimen) -> Mutant:
    name, old = _defaulted(specimen)
    return Mutant(old, specimen.model, Truth({("input-became-required", f"inputs.{name}"): MAJOR}, replayed=False))


def _retyped(specimen: Specimen, table: dict[int, int], bumps: Bumps, *, replayed: bool) -> Mutant:
    value = picked(required(specimen.model), lambda v: is_tensor(v, tuple(table)), "no input of such a type")
    held = value.type.tensor_type.elem_type
    new = specimen.copy()
    feed(new, value.name, typed(value.name, table[held], dims(value)), cast(held))
    return Mutant(
        specimen.model, new, Truth({("input-dtype-changed", f"inputs.{value.name}"): bumps}, replayed=replayed)
    )


@mutation
def input_retyped_wider(specimen: Specimen) -> Mutant:
    need(opset(specimen.model) >= 6, "Cast takes names before opset 6")
    return _retyped(specimen, WIDER, WIDENED, replayed=True)


@mutation
def input_retyped_narrower(specimen: Specimen) -> Mutant:
    need(opset(specimen.model) >= 6, "Cast takes names before opset 6")
    return _retyped(specimen, NARROWER, MAJOR, replayed=False)


@mutation
def input_retyped_otherwise(specimen: Specimen) -> Mutant:
    need(opset(specimen.model) >= 6, "Cast takes names before opset 6")
    return _retyped(specimen, OTHER, MAJOR, replayed=False)


@mutation
def input_retyped_to_text(specimen: Specimen) -> Mutant:
    need(opset(specimen.model) >= 9, "Cast reads no text before opset 9")
    value = picked(
        required(specimen.model),
        lambda v: is_tensor(v, (TensorProto.FLOAT, TensorProto.INT64)),
        "no input of such a type",
    )
    new = specimen.copy()
    feed(new, value.name, typed(value.name, TensorProto.STRING, dims(value)), cast(value.type.tensor_type.elem_type))
    truth = Truth({("string-tensor-changed", f"inputs.{value.name}"): MAJOR}, replayed=False)
    return Mutant(specimen.model, new, truth)


@mutation
def input_rank_raised(specimen: Specimen) -> Mutant:
    value = _sized(specimen)
    sizes = fixed(value) or []
    new = specimen.copy()
    feed(new, value.name, typed(value.name, value.type.tensor_type.elem_type, [1, *sizes]), reshape(new, sizes))
    truth = Truth({("input-rank-changed", f"inputs.{value.name}"): MAJOR}, replayed=False)
    return Mutant(specimen.model, new, truth)


@mutation
def input_rank_unknown(specimen: Specimen) -> Mutant:
    value, new = _sized(specimen), specimen.copy()
    next(v for v in new.graph.input if v.name == value.name).type.tensor_type.ClearField("shape")
    return Mutant(specimen.model, new, Truth({("input-rank-relaxed", f"inputs.{value.name}"): MINOR}))


@mutation
def input_dim_changed(specimen: Specimen) -> Mutant:
    """One element more along the last axis, which NEW cuts off again."""
    need(opset(specimen.model) >= 10, "Slice takes no inputs before opset 10")
    value, new = _sized(specimen), specimen.copy()
    sizes = fixed(value) or []
    axis = len(sizes) - 1

    def cut(source: str, target: str) -> list[onnx.NodeProto]:
        parts = {"starts": 0, "ends": sizes[axis], "axes": axis}
        named = {f"{target}__{part}": np.array([number], "int64") for part, number in parts.items()}
        return [*(constant(n, v) for n, v in named.items()), helper.make_node("Slice", [source, *named], [target])]

    feed(new, value.name, typed(value.name, value.type.tensor_type.elem_type, [*sizes[:-1], sizes[axis] + 1]), cut)
    truth = Truth({("input-dim-changed", f"inputs.{value.name}[{axis}]"): MAJOR}, replayed=False)
    return Mutant(specimen.model, new, truth)


@mutation
def input_dim_relaxed(specimen: Specimen) -> Mutant:
    value, new = _sized(specimen), specimen.copy()
    _free(new, value.name, 0, "mutant_rows")
    return Mutant(specimen.model, new, Truth({("input-dim-relaxed", f"inputs.{value.name}[0]"): MINOR}))


@mutation
def input_dim_fixed(specimen: Specimen) -> Mutant:
    value, old = _sized(specimen), specimen.copy()
    _free(old, value.name, 0, "mutant_rows")
    truth = Truth({("input-dim-fixed", f"inputs.{value.name}[0]"): MAJOR}, replayed=False)
    return Mutant(old, specimen.model, truth)


@mutation
def inputs_reordered(specimen: Specimen) -> Mutant:
    fed = required(specimen.model)
    need(len(fed) > 1, "it has one input")
    new = specimen.copy()
    names = {value.name for value in fed}
    others = [value for value in new.graph.input if value.name not in names]
    moved = [value for value in new.graph.input if value.name in names][::-1]
    del new.graph.input[:]
    new.graph.input.extend([*moved, *others])
    return Mutant(specimen.model, new, Truth({("input-reordered", "inputs"): BY_POSITION}))


def _two_free(specimen: Specimen, first: str, second: str) -> tuple[onnx.ModelProto, str, str]:
    """Two inputs of one first size, freed under these symbols."""
    one = _sized(specimen)
    other = picked(
        [v for v in required(specimen.model) if v.name > one.name],
        lambda v: is_tensor(v) and bool(fixed(v)) and (fixed(v) or [0])[0] == (fixed(one) or [1])[0],
        "no two inputs have one first size",
    )
    model = specimen.copy()
    _free(model, one.name, 0, first)
    _free(model, other.name, 0, second)
    return model, f"inputs.{one.name}[0]", f"inputs.{other.name}[0]"


@mutation
def input_dims_unified(specimen: Specimen) -> Mutant:
    old, first, second = _two_free(specimen, "mutant_a", "mutant_b")
    new, _, _ = _two_free(specimen, "mutant_a", "mutant_a")
    return Mutant(old, new, Truth({("input-dims-unified", _earlier(old, first, second)): MINOR}))


@mutation
def input_dims_separated(specimen: Specimen) -> Mutant:
    old, first, second = _two_free(specimen, "mutant_a", "mutant_a")
    new, _, _ = _two_free(specimen, "mutant_a", "mutant_b")
    return Mutant(old, new, Truth({("input-dims-separated", _earlier(old, first, second)): NONE}))


def _earlier(model: onnx.ModelProto, first: str, second: str) -> str:
    names = [f"inputs.{value.name}[0]" for value in model.graph.input]
    return min((first, second), key=names.index)


@mutation
def input_became_a_sequence(specimen: Specimen) -> Mutant:
    need(opset(specimen.model) >= 11, "there are no sequences before opset 11")
    value = picked(required(specimen.model), lambda v: is_tensor(v, PLAIN), "no input is a plain tensor")
    new = specimen.copy()
    held = helper.make_tensor_type_proto(value.type.tensor_type.elem_type, dims(value))
    given = helper.make_value_info(value.name, helper.make_sequence_type_proto(held))
    feed(
        new, value.name, given,
        lambda source, target: [
            constant("mutant_zero", np.array(0, "int64")), helper.make_node("SequenceAt", [source, "mutant_zero"], [target]),
        ],
    )  # fmt: skip
    truth = Truth({("value-kind-changed", f"inputs.{value.name}"): MAJOR}, replayed=False)
    return Mutant(specimen.model, new, truth)


def _free(model: onnx.ModelProto, name: str, axis: int, symbol: str) -> None:
    value = next(v for v in model.graph.input if v.name == name)
    value.type.tensor_type.shape.dim[axis].dim_param = symbol
