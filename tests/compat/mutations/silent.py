"""Mutations nobody can notice: the same model, exported another way. Each must stay silent, with outputs equal bit by bit."""

from __future__ import annotations

from collections.abc import Callable

import onnx
from onnx import helper, numpy_helper

from tests.compat.mutations.corpus import Specimen
from tests.compat.mutations.surgery import (
    deliver,
    fixed,
    identity,
    is_tensor,
    need,
    nodes_of,
    picked,
    prepend,
    rename,
    required,
    typed,
)  # fmt: skip
from tests.compat.mutations.truth import Mutant, Truth, mutation

Export = Callable[[onnx.ModelProto], None]


def silent(export: Export) -> Export:
    """Enters an export whose outcome is the same model to everybody."""

    def mutate(specimen: Specimen) -> Mutant:
        new = specimen.copy()
        export(new)
        same = new.SerializeToString(deterministic=True) == specimen.model.SerializeToString(deterministic=True)
        need(not same, "there is nothing to change")
        return Mutant(specimen.model, new, Truth(exact=True))

    mutate.__name__ = export.__name__
    mutation(mutate)
    return export


@mutation
def itself(specimen: Specimen) -> Mutant:
    """The very same bytes: there is nothing to run."""
    return Mutant(specimen.model, specimen.model, Truth(same_bytes=True))


@silent
def doc_strings(model: onnx.ModelProto) -> None:
    model.doc_string = model.graph.doc_string = "Trained on a Tuesday."
    for value in (*model.graph.input, *model.graph.output):
        value.doc_string = "Says something."
    for node in model.graph.node:
        node.doc_string = "Does something."


@silent
def producer(model: onnx.ModelProto) -> None:
    model.producer_name, model.producer_version, model.domain, model.model_version = "exporter", "9.9", "org.example", 7
    model.metadata_props.add(key="run", value="17")


@silent
def nodes_renamed(model: onnx.ModelProto) -> None:
    for number, node in enumerate(nodes_of(model.graph)):
        node.name = f"other/{number}"
    model.graph.name = "another_graph"


@silent
def inner_values_renamed(model: onnx.ModelProto) -> None:
    border = {value.name for value in (*model.graph.input, *model.graph.output)}
    inner = {name for node in model.graph.node for name in node.output} | {t.name for t in model.graph.initializer}
    need(inner - border - {""}, "it has no inner values")
    for number, name in enumerate(sorted(inner - border - {""})):
        rename(model.graph, name, f"inner_{number}")


@silent
def unused_opset_import(model: onnx.ModelProto) -> None:
    model.opset_import.add(domain="com.example.extras", version=3)


@silent
def initializers_reordered(model: onnx.ModelProto) -> None:
    kept = list(model.graph.initializer)
    need(len(kept) > 1, "it has fewer than two initializers")
    del model.graph.initializer[:]
    model.graph.initializer.extend(reversed(kept))


@silent
def initializers_in_typed_fields(model: onnx.ModelProto) -> None:
    for number, tensor in enumerate(model.graph.initializer):
        if tensor.HasField("raw_data") and tensor.data_type in (onnx.TensorProto.FLOAT, onnx.TensorProto.INT64):
            values = numpy_helper.to_array(tensor).reshape(-1).tolist()
            made = helper.make_tensor(tensor.name, tensor.data_type, list(tensor.dims), values)
            model.graph.initializer[number].CopyFrom(made)


@mutation
def initializers_as_raw_bytes(specimen: Specimen) -> Mutant:
    """The way back from typed fields."""
    old = specimen.copy()
    initializers_in_typed_fields(old)
    need(old != specimen.model, "there is nothing to change")
    return Mutant(old, specimen.model, Truth(exact=True))


def _own_initializers(model: onnx.ModelProto) -> list[onnx.TensorProto]:
    """Those no caller may feed: before IR 4 every one had to be listed among the inputs, too."""
    fed = {value.name for value in model.graph.input} if model.ir_version >= 4 else set()
    border = fed | {value.name for value in model.graph.output}
    return [tensor for tensor in model.graph.initializer if tensor.name not in border]


@silent
def constants_to_initializers(model: onnx.ModelProto) -> None:
    """What an exporter's constant folding does."""
    outputs = {value.name for value in model.graph.output}
    folded = [n for n in model.graph.node if n.op_type == "Constant" and [a.name for a in n.attribute] == ["value"]]
    folded = [node for node in folded if node.output[0] not in outputs]
    need(folded, "it has no constants")
    for node in folded:
        tensor = onnx.TensorProto()
        tensor.CopyFrom(node.attribute[0].t)
        tensor.name = node.output[0]
        model.graph.initializer.append(tensor)
        if model.ir_version < 4:
            model.graph.input.append(typed(tensor.name, tensor.data_type, list(tensor.dims)))
        model.graph.node.remove(node)


@silent
def initializers_to_constants(model: onnx.ModelProto) -> None:
    moved = _own_initializers(model)
    need(moved, "it has no initializers of its own")
    names = {tensor.name for tensor in moved}
    prepend(model.graph, [helper.make_node("Constant", [], [t.name], value=t) for t in moved])
    for held in (model.graph.initializer, model.graph.input):
        for item in [item for item in held if item.name in names]:
            held.remove(item)  # type: ignore[arg-type]  # each list holds its own kind


@silent
def identity_before_output(model: onnx.ModelProto) -> None:
    output = picked(model.graph.output, is_tensor, "no output is a tensor")
    given = onnx.ValueInfoProto()
    given.CopyFrom(output)
    deliver(model, output.name, given, identity)


@silent
def inner_shapes_written_down(model: onnx.ModelProto) -> None:
    """Shape inference leaves what it found in the file."""
    try:
        inferred = onnx.shape_inference.infer_shapes(model)
    except onnx.shape_inference.InferenceError:
        need(False, "shapes cannot be inferred")
    del model.graph.value_info[:]
    model.graph.value_info.extend(inferred.graph.value_info)


@silent
def own_symbols_renamed(model: onnx.ModelProto) -> None:
    """Symbols under other names, each everywhere the same."""
    names: dict[str, str] = {}
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        held = value.type
        while inner := {"sequence_type", "optional_type"} & {held.WhichOneof("value") or ""}:
            held = getattr(held, inner.pop()).elem_type
        for dim in held.tensor_type.shape.dim:
            if dim.dim_param:
                dim.dim_param = names.setdefault(dim.dim_param, f"unk__{len(names)}")
    need(names, "it has no symbols")


@mutation
def symbols_renamed(specimen: Specimen) -> Mutant:
    """OLD with a free first dimension in every input, NEW with the same under another name."""
    old, new = specimen.copy(), specimen.copy()
    for model, symbol in ((old, "rows"), (new, "unk__617")):
        values = [value for value in required(model) if is_tensor(value) and fixed(value)]
        need(values, "no input has fixed dimensions")
        for value in values:
            value.type.tensor_type.shape.dim[0].dim_param = symbol
    return Mutant(old, new, Truth(exact=True))
