"""Writes a model as one ONNX file: the small graph is serialized, the tensors are spliced in while it is written, so that
the whole is never built. What would pass protobuf's limit gets its tensors in a second file beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gitmodel.formats import onnx, wire
from gitmodel.formats.onnx_walk import EXTERNAL, tensors
from gitmodel.formats.output import pour, replacing
from gitmodel.formats.source import InvalidModel, Source, TensorData

#: Where each tensor begins in the second file, so that runtimes can map it.
ALIGNMENT = 4096
DATA_SUFFIX = ".data"


def write(source: Source, path: Path, *, limit: int = wire.MAX_BYTES) -> tuple[Path, ...]:
    """Writes ``path``, and ``path`` with ``.data`` behind it when the model has more than ``limit`` bytes; returns the
    files. Raises InvalidModel for a source without a graph, StorageFailed."""
    if source.graph is None:
        raise InvalidModel(
            f"{path} cannot hold this model: ONNX needs a graph, and it has weights alone",
            hint="export it as .h5, .safetensors or .npz",
        )
    model = type(source.graph)()
    model.CopyFrom(source.graph)  # the source stays as it is
    detached, large = _detached(model, source, path)
    for index, proto in enumerate(detached):
        onnx.point(proto, {wire.CUT_KEY: index})
    chunks = wire.join(model.SerializeToString(deterministic=True), [tensor.data for tensor in large])
    if sum(map(len, chunks)) <= limit:
        seals = {id(tensor.data): tensor.seal for tensor in large}
        with replacing(path) as file:
            for chunk in chunks:
                pour(file, memoryview(chunk), seals.get(id(chunk)))
        return (path,)
    return _write_beside(model, detached, large, path)


def graph_of(source: Source, signature: str) -> Source:
    """The source of one signature's own graph, with the tensors it uses. Raises InvalidModel."""
    named = source.named.get(signature)
    if named is None:
        known = ", ".join(source.named) or "none"
        raise InvalidModel(f"there is no graph of its own for the signature '{signature}'", hint=f"there is: {known}")
    used = tuple(tensor for tensor in source.tensors if tensor.name in named.bound_names)
    return Source("onnx", source.framework, used, named.signature, named.graph, bound_names=named.bound_names)


def _detached(model: Any, source: Source, path: Path) -> tuple[list[Any], list[TensorData]]:
    """The tensors whose data stand outside the message, and those with their data. Raises InvalidModel when there are none."""
    named = {source.bound_names.get(tensor.name, tensor.name): tensor for tensor in source.tensors}
    protos, large = [], []
    for name, proto in tensors(model):
        if proto.data_location == EXTERNAL:
            if name not in named:
                raise InvalidModel(f"{path}: tensor '{name}' has no data", hint="give the weights, too")
            protos.append(proto)
            large.append(named[name])
    return protos, large


def _write_beside(model: Any, detached: Sequence[Any], large: Sequence[TensorData], path: Path) -> tuple[Path, ...]:
    """The data first: a model is never there without them."""
    data = path.with_name(path.name + DATA_SUFFIX)
    with replacing(data) as file:
        for proto, tensor in zip(detached, large, strict=True):
            file.write(b"\0" * (-file.tell() % ALIGNMENT))
            onnx.point(proto, {"location": data.name, "offset": file.tell(), "length": len(tensor.data)})
            pour(file, tensor.data, tensor.seal)
    with replacing(path) as file:
        pour(file, memoryview(model.SerializeToString(deterministic=True)))
    return (path, data)
