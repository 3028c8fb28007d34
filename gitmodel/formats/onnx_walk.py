"""Walks a parsed ONNX model: its tensors by name, wherever they stand, and what no model of ours may hold."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from gitmodel.formats.source import InvalidModel

EXTERNAL = 1  # TensorProto.DataLocation.EXTERNAL
_TENSOR, _GRAPH = 4, 5  # AttributeProto.AttributeType


def tensors(model: Any) -> Iterator[tuple[str, Any]]:
    """(name, TensorProto) of every initializer and tensor attribute, nested graphs included.

    What stands inside a node is named after it: ``If_3.then_branch/weight``, ``Constant_0.value``.
    """
    for name, tensor, _ in _model_tensors(model):
        yield name, tensor


def in_nodes(model: Any) -> set[str]:
    """The names of those that stand in a node: in the graph of a branch or a loop, or as an attribute. ONNX Runtime, which looks
    at nodes with onnx's checker, refuses data for them in a file that has a second name or is a link, as caches have them.
    The value of a Constant of the outer graph is to it what an initializer is."""
    return {name for name, _, in_node in _model_tensors(model) if in_node}


def unique(name: str, seen: set[str]) -> str:
    """Nodes may share a name; their tensors must not, or one would take the other's place."""
    number, chosen = 1, name
    while chosen in seen:
        number += 1
        chosen = f"{name}#{number}"
    seen.add(chosen)
    return chosen


def check(model: Any, where: str) -> None:
    """Refuses names that are no text, which protobuf lets pass, and external data that ``tensors`` does not see: ONNX
    Runtime would load it, and nobody would carry it along. Raises InvalidModel."""
    outside = 0
    for part in _parts(model):
        if isinstance(part, bytes):
            raise InvalidModel(f"{where} has a name that is no UTF-8 ({part[:40]!r})", hint="export it again")
        if not isinstance(part, str) and part.DESCRIPTOR.name == "TensorProto":
            outside += part.data_location == EXTERNAL
    if outside > sum(tensor.data_location == EXTERNAL for _, tensor in tensors(model)):
        raise InvalidModel(
            f"{where} keeps data of a function, sparse tensor or training graph in another file",
            hint="save it with the data inside",
        )


def _parts(message: Any) -> Iterator[Any]:
    """The message, its texts (as bytes where they are no UTF-8), and the same of every message below."""
    yield message
    for field, value in message.ListFields():
        values = value if field.is_repeated else [value]
        if field.message_type is not None:
            for inner in values:
                yield from _parts(inner)
        elif field.type == field.TYPE_STRING:
            yield from values


def _model_tensors(model: Any) -> Iterator[tuple[str, Any, bool]]:
    seen: set[str] = set()
    for name, tensor, in_node in _graph_tensors(model.graph, ""):
        yield unique(name, seen), tensor, in_node


def _graph_tensors(graph: Any, prefix: str) -> Iterator[tuple[str, Any, bool]]:
    """(name, TensorProto, whether it stands in a node); ``prefix`` names the node that holds the graph."""
    for tensor in graph.initializer:
        yield prefix + tensor.name, tensor, bool(prefix)
    for holder, node, attribute in _attributes(graph, prefix):
        is_constant = not prefix and (node.domain, node.op_type) == ("", "Constant")
        held = [attribute.t] if attribute.type == _TENSOR else list(attribute.tensors)
        for number, tensor in enumerate(held):
            yield holder if len(held) == 1 else f"{holder}.{number}", tensor, not is_constant
        nested = [attribute.g] if attribute.type == _GRAPH else list(attribute.graphs)
        for inner in nested:
            yield from _graph_tensors(inner, f"{holder}/")


def _attributes(graph: Any, prefix: str) -> Iterator[tuple[str, Any, Any]]:
    for number, node in enumerate(graph.node):
        for attribute in node.attribute:
            yield f"{prefix}{node.name or f'{node.op_type}_{number}'}.{attribute.name}", node, attribute
