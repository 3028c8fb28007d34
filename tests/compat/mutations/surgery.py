"""Changes a graph without changing what it computes: names, and nodes before an input or after an output."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.compat.mutations.corpus import opset

FLOATS = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16)
#: Types numpy has itself, for which cases can be drawn and constants written.
PLAIN = (
    *FLOATS, TensorProto.INT8, TensorProto.INT16, TensorProto.INT32, TensorProto.INT64, TensorProto.UINT8,
    TensorProto.UINT16, TensorProto.UINT32, TensorProto.UINT64, TensorProto.BOOL,
)  # fmt: skip


class NotDefined(Exception):
    """The mutation says nothing about this model; the message says why."""


def need(condition: object, why: str) -> None:
    if not condition:
        raise NotDefined(why)


def rename(graph: onnx.GraphProto, old: str, new: str) -> None:
    """One value under another name, wherever it is used, nested graphs included."""
    for held in (graph.input, graph.output, graph.value_info, graph.initializer):
        for item in held:
            item.name = new if item.name == old else item.name
    for node in graph.node:
        for names in (node.input, node.output):
            names[:] = [new if name == old else name for name in names]
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                rename(attribute.g, old, new)
            for inner in attribute.graphs:
                rename(inner, old, new)


def required(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """The inputs a caller must feed."""
    held = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in held]


def is_tensor(value: onnx.ValueInfoProto, types: Sequence[int] = ()) -> bool:
    tensor = value.type.tensor_type
    return value.type.WhichOneof("value") == "tensor_type" and (not types or tensor.elem_type in types)


def dims(value: onnx.ValueInfoProto) -> list[int | str | None] | None:
    """Sizes, symbols, and None where nothing is said; None at all where even the rank is unknown."""
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    return [d.dim_value if d.HasField("dim_value") else (d.dim_param or None) for d in tensor.shape.dim]


def fixed(value: onnx.ValueInfoProto) -> list[int] | None:
    """The sizes, where all of them are fixed."""
    found = dims(value)
    sizes = [d for d in found or () if isinstance(d, int)]
    return sizes if found is not None and len(sizes) == len(found) else None


def typed(name: str, dtype: int, shape: Sequence[int | str | None] | None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, dtype, None if shape is None else list(shape))


def picked(
    values: Sequence[onnx.ValueInfoProto], fits: Callable[[onnx.ValueInfoProto], bool], why: str
) -> onnx.ValueInfoProto:
    """The first that fits, else NotDefined."""
    found = next((value for value in values if fits(value)), None)
    if found is None:
        raise NotDefined(why)
    return found


def feed(
    model: onnx.ModelProto, name: str, given: onnx.ValueInfoProto, nodes: Callable[[str, str], list[onnx.NodeProto]]
) -> None:
    """Input ``name`` becomes ``given``; ``nodes(given name, inner name)`` make of it what the graph wants."""
    graph, inner = model.graph, f"{name}__inner"
    need(name not in {value.name for value in graph.output}, "the input is an output, too")
    place = [value.name for value in graph.input].index(name)
    rename(graph, name, inner)
    graph.input[place].CopyFrom(given)
    prepend(graph, nodes(given.name, inner))


def deliver(
    model: onnx.ModelProto, name: str, given: onnx.ValueInfoProto, nodes: Callable[[str, str], list[onnx.NodeProto]]
) -> None:
    """Output ``name`` becomes ``given``; ``nodes(inner name, given name)`` make it of what the graph computes."""
    graph, inner = model.graph, f"{name}__inner"
    need(name not in {value.name for value in graph.input}, "the output is an input, too")
    need(name not in {tensor.name for tensor in graph.initializer}, "the output is an initializer")
    place = [value.name for value in graph.output].index(name)
    rename(graph, name, inner)
    graph.output[place].CopyFrom(given)
    graph.node.extend(nodes(inner, given.name))


def prepend(graph: onnx.GraphProto, nodes: Sequence[onnx.NodeProto]) -> None:
    kept = list(graph.node)
    del graph.node[:]
    graph.node.extend([*nodes, *kept])


def constant(name: str, values: np.ndarray) -> onnx.NodeProto:
    return helper.make_node("Constant", [], [name], value=numpy_helper.from_array(values, name))


def reshape(model: onnx.ModelProto, shape: Sequence[int]) -> Callable[[str, str], list[onnx.NodeProto]]:
    need(opset(model) >= 5, "Reshape takes no shape as an input before opset 5")

    def nodes(source: str, target: str) -> list[onnx.NodeProto]:
        return [
            constant(f"{target}__shape", np.array(shape, "int64")),
            helper.make_node("Reshape", [source, f"{target}__shape"], [target]),
        ]

    return nodes


def unsqueeze(model: onnx.ModelProto) -> Callable[[str, str], list[onnx.NodeProto]]:
    """A dimension of one more in front. The axes became an input with opset 13."""
    if opset(model) < 13:
        return lambda source, target: [helper.make_node("Unsqueeze", [source], [target], axes=[0])]
    return lambda source, target: [
        constant(f"{target}__axes", np.array([0], "int64")),
        helper.make_node("Unsqueeze", [source, f"{target}__axes"], [target]),
    ]


def cast(dtype: int) -> Callable[[str, str], list[onnx.NodeProto]]:
    return lambda source, target: [helper.make_node("Cast", [source], [target], to=dtype)]


def identity(source: str, target: str) -> list[onnx.NodeProto]:
    return [helper.make_node("Identity", [source], [target])]


def nodes_of(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    """All nodes, nested graphs included."""
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from nodes_of(inner)
