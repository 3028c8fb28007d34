"""Joins an ONNX graph with weights from another file: initializers and inputs without data take theirs by name."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

from gitmodel.bundle.signature import Dim
from gitmodel.formats import onnx as onnx_format
from gitmodel.formats.dtypes import ONNX_DTYPES, ONNX_NUMBERS
from gitmodel.formats.onnx_walk import tensors
from gitmodel.formats.source import TENSOR_FILE_BYTES, InvalidModel, Source, TensorData

_NAMED = 3


def bind(graph: Source, weights: Source, where: str) -> Source:
    """The graph's source with the weights' tensors in the places of the same name. Raises InvalidModel.

    A place is an initializer, or an input for which ``weights`` has a tensor. ``dense/kernel`` also fits
    ``dense.kernel``. Where both files have data the weights win, type and shape being equal. Tensors of the weights
    that fit no place stay in the HDF5 view alone (optimizer state, for one); ``notes`` say so, and what the graph keeps
    of its own. Weights of which no tensor fits are another model's.
    """
    model = graph.graph
    places = dict(tensors(model))
    inputs = {value.name: value for value in model.graph.input if value.name not in places}
    filled = _matched([*places, *inputs], weights)
    own = {tensor.name: tensor for tensor in graph.tensors}
    strange = {tensor.name for tensor in weights.tensors} - {tensor.name for tensor in filled.values()}
    if not filled and strange.isdisjoint(own):
        raise InvalidModel(
            f"{where}: no tensor of the weights is called as one of the graph: the graph has {_some([*places, *inputs])}, "
            f"the weights have {_some(strange)}",
            hint="name the tensors in the weights file as the graph names them",
        )
    declared = {spec.name: spec for spec in onnx_format.signature_of(model, where).inputs}
    fed = [name for name in inputs if name not in filled and _is_fixed(declared[name].shape)]
    notes = _notes(
        strange - own.keys(), [name for name in places if name in own and name not in filled],
        fed if not filled.keys().isdisjoint(inputs) else (),
    )  # fmt: skip
    for name in [name for name in inputs if name in filled]:
        _check(name, declared[name].dtype, declared[name].shape, filled[name], where)
        model.graph.input.remove(inputs[name])
        proto = model.graph.initializer.add()
        proto.name, proto.data_type = name, ONNX_NUMBERS[filled[name].dtype]
        proto.dims.extend(filled[name].shape)
        places[name] = proto
    for name, proto in places.items():
        if name in filled:
            _place(proto, name, filled[name], where)
            own.pop(name, None)
        elif name not in own:
            raise InvalidModel(
                f"{where}: no weights for '{name}'", hint="name the tensor in the weights file as the graph names it"
            )
    for tensor in weights.tensors:
        if tensor.name in own and tensor.name not in filled:
            _check_learned(own.pop(tensor.name), tensor, where)
    return Source(
        "onnx+hdf5",
        graph.framework or weights.framework,
        (*own.values(), *weights.tensors),
        onnx_format.signature_of(model, where),
        graph=model,
        groups=weights.groups,
        bound_names={tensor.name: name for name, tensor in filled.items()},
        metadata=weights.metadata,
        files=(*graph.files, *weights.files),
        notes=notes,
    )


def complete(graph: Source, where: str) -> Source:
    """The source itself, if every initializer has its data. Raises InvalidModel."""
    own = {tensor.name for tensor in graph.tensors}
    for name, proto in tensors(graph.graph):
        if name not in own:
            place = next((e.value for e in proto.external_data if e.key == "location"), "")
            said = f"its data should be in {place}, which is missing" if place else "it has no data"
            raise InvalidModel(
                f"{where}: tensor '{name}': {said}", hint="copy the data beside the model, or give --weights"
            )
    return graph


def is_complete(graph: Source) -> bool:
    """Whether every initializer has its data."""
    own = {tensor.name for tensor in graph.tensors}
    return all(name in own for name, _ in tensors(graph.graph))


def alias(name: str) -> str:
    return name.replace("/", ".")


def _notes(extra: Collection[str], kept: Collection[str], fed: Collection[str]) -> tuple[str, ...]:
    """What only the weights have, what only the graph has, and what may be a weight but is an input now."""
    said = {
        "the graph has no place for {} of the weights: kept beside it": extra,
        "the weights lack {}: the graph's own stay": kept,
        "the weights lack {}: an input for callers to feed": fed,
    }
    return tuple(text.format(_some(names)) for text, names in said.items() if names)


def _some(names: Collection[str]) -> str:
    """``w1, w2, w3, ... (12 in all)``"""
    listed = ", ".join(name[:60] for name in sorted(names)[:_NAMED]) or "none"
    return f"{listed}, ... ({len(names)} in all)" if len(names) > _NAMED else listed


def _is_fixed(shape: tuple[Dim, ...] | None) -> bool:
    """Whether every size is a number, as with weights, and seldom with what callers feed."""
    return bool(shape) and all(isinstance(dim, int) for dim in shape or ())


def _matched(places: Sequence[str], weights: Source) -> dict[str, TensorData]:
    """The tensor for each place there is one for; one that is called exactly so comes first, and each fills one."""
    offered = _by_alias(weights)
    exact = {tensor.name for tensor in weights.tensors}
    filled = {}
    for place in sorted(places, key=lambda name: name not in exact):
        if (tensor := offered.pop(alias(place), None)) is not None:
            filled[place] = tensor
    return filled


def _by_alias(weights: Source) -> dict[str, TensorData]:
    offered: dict[str, TensorData] = {}
    for tensor in weights.tensors:
        if alias(tensor.name) in offered:
            raise InvalidModel(
                f"'{tensor.name}' and '{offered[alias(tensor.name)].name}' bind to the same name", hint="rename one"
            )
        offered[alias(tensor.name)] = tensor
    return offered


def _check_learned(own: TensorData, given: TensorData, where: str) -> None:
    """What a classical model learned stands in its graph, where no weights can take its place. Raises InvalidModel."""
    if (own.dtype, own.shape, bytes(own.data)) != (given.dtype, given.shape, bytes(given.data)):
        raise InvalidModel(
            f"{where}: '{own.name}' stands in the graph itself and is another one in the weights",
            hint="save the weights that belong to this graph, or the graph alone",
        )


def _place(proto: Any, name: str, tensor: TensorData, where: str) -> None:
    _check(name, ONNX_DTYPES[proto.data_type], tuple(proto.dims), tensor, where)
    if len(tensor.data) < TENSOR_FILE_BYTES:
        onnx_format.embed(proto, bytes(tensor.data))
    else:
        onnx_format.detach(proto)


def _check(name: str, dtype: str, shape: tuple[Dim, ...] | None, tensor: TensorData, where: str) -> None:
    """The tensor is what the graph declares; a symbol takes any size. Raises InvalidModel."""
    wanted = tensor.shape if shape is None else shape
    same_sizes = all(dim == size or not isinstance(dim, int) for dim, size in zip(wanted, tensor.shape, strict=False))
    if dtype != tensor.dtype or len(wanted) != len(tensor.shape) or not same_sizes:
        raise InvalidModel(
            f"{where}: '{name}' is {dtype}{list(wanted)} in the graph and {tensor.dtype}{list(tensor.shape)} in the weights",
            hint="save the weights that belong to this graph",
        )
