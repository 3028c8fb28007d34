"""ONNX: reads a model with its tensors mapped, writes the ONNX view. The one module that imports onnx."""

from __future__ import annotations

import importlib
import importlib.util
import math
import struct
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct
from msgspec.structs import asdict

from gitmodel.bundle.lock import inside
from gitmodel.bundle.signature import Dim, Signature, TensorSpec
from gitmodel.formats import wire
from gitmodel.formats.dtypes import ONNX_DTYPES, nbytes
from gitmodel.formats.mapping import let_go
from gitmodel.formats.onnx_walk import EXTERNAL, check, in_nodes, tensors, unique
from gitmodel.formats.source import (
    TENSOR_FILE_BYTES,
    InvalidModel,
    Source,
    TensorData,
    blocks,
    first_line,
    map_file,
    scratch,
)

if TYPE_CHECKING:
    import numpy as np

_IR_WITH_OPSETS = 3
_TYPED = ("float_data", "int32_data", "int64_data", "double_data", "uint64_data")


class Placement(Struct, frozen=True):
    """Where a tensor's bytes stand for the ONNX view: a file relative to ``weights/``, bytes from and how many."""

    location: str
    offset: int
    length: int


def read(path: Path) -> Source:
    """Reads a model file; its external data, if it has any, from the same folder. Raises InvalidModel."""
    data = map_file(path)
    skeleton, cuts = wire.cut(data, TENSOR_FILE_BYTES, str(path))
    return assemble(parse(skeleton, str(path)), cuts, str(path), path)


def assemble(model: Any, cuts: Sequence[memoryview], where: str, path: Path | None = None) -> Source:
    """The source of a model whose large data are cut out into ``cuts``; ``path`` is the file it was read from, beside
    which its external data stand. Raises InvalidModel."""
    found = []
    mapped: dict[str, memoryview] = {}
    for name, tensor in tensors(model):
        here = f"{where}: tensor '{name}'"
        dtype, shape = _type_of(tensor, here), tuple(tensor.dims)
        outside = tensor.data_location == EXTERNAL
        body = _external(tensor, here, path, cuts, mapped) if outside else _inline(tensor, dtype, here)
        if body is None:  # weightless: bound by name later, or refused there
            continue
        if dtype != "string" and len(body) != nbytes(dtype, shape):
            raise InvalidModel(
                f"{here} has {len(body)} bytes, its shape needs {nbytes(dtype, shape)}", hint="export the model again"
            )
        if outside and len(body) < TENSOR_FILE_BYTES:
            embed(tensor, bytes(body))
        found.append(TensorData(name, dtype, shape, body))
    found += learned_lists(model.graph, {tensor.name for tensor in found})
    files = (path, *(path.parent / location for location in mapped)) if path else ()
    return Source("onnx", framework_of(model), tuple(found), signature_of(model, where), graph=model, files=files)


@cache
def messages() -> Any:
    """onnx's own message classes by themselves: reading a model wants nothing else of the package, whose import takes five
    times as long. They are those of the package, which finds the same descriptors when somebody imports it."""
    package = importlib.util.find_spec("onnx")
    place = Path(package.origin).with_name("onnx_ml_pb2.py") if package and package.origin else Path()
    # Under a name of our own: the package's own must not be half there when it is imported.
    spec = importlib.util.spec_from_file_location("gitmodel.formats._onnx_messages", place)
    if spec is None or spec.loader is None:
        return importlib.import_module("onnx")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def parse(data: bytes, where: str) -> Any:
    """The ModelProto in ``data``. Raises InvalidModel when it is none."""
    from google.protobuf.message import DecodeError

    model = messages().ModelProto()
    try:
        model.ParseFromString(data)
    except DecodeError:
        raise InvalidModel(f"{where} is not an ONNX model", hint="export it again") from None
    validate(model, where)
    return model


def validate(model: Any, where: str) -> None:
    """Raises InvalidModel for a message that is no whole model, or holds what nobody would carry along."""
    if not model.ir_version or not model.graph.output:
        raise InvalidModel(f"{where} is not an ONNX model (no graph with outputs in it)", hint="export it again")
    if model.ir_version >= _IR_WITH_OPSETS and not model.opset_import:
        raise InvalidModel(f"{where} is not a whole ONNX model (it names no opset)", hint="export or copy it again")
    check(model, where)


def learned_lists(graph: Any, seen: set[str]) -> Iterator[TensorData]:
    """What classical models (ai.onnx.ml) learned: lists of floats in attributes. ONNX has no way to keep those outside
    the graph, so the HDF5 view shows a copy."""
    for number, node in enumerate(graph.node):
        if node.domain != "ai.onnx.ml":
            continue
        for attribute in node.attribute:
            if attribute.floats:
                name = f"{node.name or f'{node.op_type}_{number}'}.{attribute.name}"
                count = len(attribute.floats)
                body = struct.pack(f"<{count}f", *attribute.floats)
                yield TensorData(unique(name, seen), "float32", (count,), memoryview(body))


def framework_of(model: Any) -> str:
    """The producer the file names, for the card."""
    return " ".join(filter(None, (model.producer_name, model.producer_version)))[:80]


def signature_of(model: Any, where: str) -> Signature:
    """Inputs and outputs of the graph; an initializer that is also an input makes an optional input."""
    held = {tensor.name for tensor in model.graph.initializer}
    # Before IR 4 every initializer had to be listed as an input too, and could not be fed sensibly.
    listed = model.ir_version < 4
    inputs = [v for v in model.graph.input if not (listed and v.name in held)]
    specs = [_spec(value, where, optional=value.name in held) for value in inputs]
    return Signature(tuple(specs), tuple(_spec(value, where) for value in model.graph.output))


def write_view(
    model: Any, placements: Mapping[str, Placement], data: Mapping[str, TensorData], *, limit: int = wire.MAX_BYTES
) -> bytes | memoryview:
    """The ONNX view: initializers with a placement point into tensor files, the others carry their data, and so do tensors in
    nodes (``onnx_walk.in_nodes``).

    All three are keyed by initializer name; equal input gives equal bytes. Raises InvalidModel for one of more than ``limit``
    bytes, StorageFailed.
    """
    inside = in_nodes(model)
    carried: list[memoryview] = []
    for name, tensor in tensors(model):
        # Small data that stand in typed fields stay there: they come back as they were.
        typed = tensor.data_location != EXTERNAL and not tensor.HasField("raw_data")
        placement = None if typed or name in inside else placements.get(name)
        if placement is not None:
            detach(tensor)
            point(tensor, asdict(placement))
        elif tensor.data_location == EXTERNAL:
            # Large, but in a node, or compressed in its file and so not to be mapped.
            detach(tensor)
            point(tensor, {wire.CUT_KEY: len(carried)})
            carried.append(data[name].data)
    skeleton: bytes = model.SerializeToString(deterministic=True)
    chunks = wire.join(skeleton, carried) if carried else [skeleton]
    size = sum(map(len, chunks))
    if size > limit:
        raise InvalidModel(
            f"the graph would have {size} bytes with the tensors of its nodes, and ONNX holds {limit} in one message",
            hint="make large tensors of branches and loops initializers of the outer graph, and export it again",
        )
    return _joined(chunks, size) if carried else skeleton


def _joined(chunks: Sequence[bytes | memoryview], size: int) -> memoryview:
    """The chunks in one piece that stands on disk and not in memory."""
    whole, end = scratch(size), 0
    for chunk in chunks:
        for block in blocks(memoryview(chunk)):
            start, end = end, end + len(block)
            whole[start:end] = block
            let_go(block)
            let_go(whole[start:end])
    return whole.toreadonly()


def _spec(value: Any, where: str, *, optional: bool = False) -> TensorSpec:
    kind, key, held = value.type.WhichOneof("value"), "", value.type
    outer = {"sequence_type": "sequence", "map_type": "map", "optional_type": "optional"}.get(kind or "", "tensor")
    while (inner := held.WhichOneof("value")) in ("sequence_type", "optional_type", "map_type"):
        if inner == "map_type":
            key, held = ONNX_DTYPES.get(held.map_type.key_type, ""), held.map_type.value_type
        else:
            held = getattr(held, inner).elem_type
    tensor = held.sparse_tensor_type if inner == "sparse_tensor_type" else held.tensor_type
    dtype = ONNX_DTYPES.get(tensor.elem_type)
    if dtype is None:
        raise InvalidModel(f"{where}: '{value.name}' has no known element type", hint="export the model again")
    shape = tuple(_dim(dim, where, value.name) for dim in tensor.shape.dim) if tensor.HasField("shape") else None
    return TensorSpec(value.name, dtype, shape, outer, key, optional)


def _dim(dim: Any, where: str, name: str) -> Dim:
    if dim.WhichOneof("value") == "dim_value":
        if dim.dim_value < 0:
            raise InvalidModel(
                f"{where}: '{name}' has the dimension {dim.dim_value}", hint="export it with a symbol instead"
            )
        return int(dim.dim_value)
    return str(dim.dim_param) or None


def _type_of(tensor: Any, where: str) -> str:
    dtype = ONNX_DTYPES.get(tensor.data_type)
    if dtype is None:
        raise InvalidModel(f"{where} has the unknown type {tensor.data_type}", hint="export the model again")
    if min(tensor.dims, default=0) < 0:
        raise InvalidModel(f"{where} has a negative dimension", hint="export the model again")
    return dtype


def _inline(tensor: Any, dtype: str, here: str) -> memoryview | None:
    """The little-endian bytes of a tensor that stands in the file, large typed fields turned into raw ones; texts joined
    by NUL. None when there are none although the shape needs some."""
    if dtype == "string":
        return _texts(tensor, here)
    if not tensor.HasField("raw_data"):
        from onnx import numpy_helper

        if math.prod(tensor.dims) and not any(len(getattr(tensor, typed)) for typed in _TYPED):
            return None
        try:
            packed = numpy_helper.from_array(numpy_helper.to_array(tensor), tensor.name)
        except (ValueError, TypeError, KeyError, OverflowError) as error:
            raise InvalidModel(f"{here} has bad data ({first_line(error)})", hint="export the model again") from None
        if len(packed.raw_data) < TENSOR_FILE_BYTES:  # it stays in the graph, as it is
            return memoryview(packed.raw_data)
        tensor.raw_data = packed.raw_data
        for typed in _TYPED:
            tensor.ClearField(typed)
    return memoryview(tensor.raw_data)


def _texts(tensor: Any, here: str) -> memoryview | None:
    count = math.prod(tensor.dims)
    if count and not tensor.string_data:
        return None
    if len(tensor.string_data) != count:
        raise InvalidModel(
            f"{here} has {len(tensor.string_data)} texts, its shape needs {count}", hint="export the model again"
        )
    # A text's own NUL stands as in Java's modified UTF-8: HDF5 ends a text at the first one.
    return memoryview(b"\0".join(text.replace(b"\0", b"\xc0\x80") for text in tensor.string_data))


def detach(tensor: Any) -> None:
    """Takes the tensor's data out of the message; ``write_view`` says where they are."""
    _clear_data(tensor)
    tensor.data_location = EXTERNAL


def point(tensor: Any, entries: Mapping[str, object]) -> None:
    """Says where the detached tensor's data are."""
    tensor.ClearField("external_data")
    for key, value in entries.items():
        entry = tensor.external_data.add()
        entry.key, entry.value = key, str(value)


def embed(tensor: Any, body: bytes) -> None:
    """Makes ``body`` the tensor's bytes, inside the message."""
    _clear_data(tensor)
    tensor.raw_data = body


def _clear_data(tensor: Any) -> None:
    for kept in (*_TYPED, "raw_data", "external_data", "data_location"):
        tensor.ClearField(kept)


def _external(
    tensor: Any, here: str, path: Path | None, cuts: Sequence[memoryview], mapped: dict[str, memoryview]
) -> memoryview | None:
    """The bytes an initializer points at; None when it names no place or a file that is not there (weightless)."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    if ONNX_DTYPES.get(tensor.data_type) == "string":
        raise InvalidModel(f"{here} has its texts as raw bytes", hint="export the model again")
    if wire.CUT_KEY in entries:
        return cuts[int(entries[wire.CUT_KEY])]
    if "location" not in entries:
        return None
    if path is None:
        raise InvalidModel(
            f"{here} keeps its data in {entries['location']}, which is not loaded",
            hint="load the model with its external data, as onnx.load does, or save the file itself",
        )
    try:
        location = inside(entries["location"].removeprefix("./"))
        offset = int(entries.get("offset", 0))
        length = int(entries.get("length", 0)) or nbytes(_type_of(tensor, here), tuple(tensor.dims))
        target = path.parent / location
        if not target.exists() and not target.is_symlink():
            return None
    except (ValueError, OSError) as error:
        raise InvalidModel(
            f"{here} has bad external data ({getattr(error, 'strerror', None) or error})",
            hint="keep external data beside the model",
        ) from None
    if location not in mapped:
        if target.is_symlink() or target.resolve().parent != path.parent.resolve() / Path(location).parent:
            raise InvalidModel(f"{here} points through a symbolic link", hint="copy the data beside the model")
        mapped[location] = map_file(target)
    data = mapped[location]
    if offset < 0 or length < 0 or offset + length > len(data):
        raise InvalidModel(
            f"{here} wants bytes {offset} to {offset + length} of {location}, which has {len(data)}",
            hint="export the model again",
        )
    return data[offset : offset + length]


def decode_tensor(data: bytes, where: str) -> tuple[str, np.ndarray]:
    """(name, values) of a serialized TensorProto. Raises InvalidModel."""
    from google.protobuf.message import DecodeError
    from onnx import numpy_helper

    proto = messages().TensorProto()
    try:
        proto.ParseFromString(data)
        if proto.data_location == EXTERNAL:
            raise ValueError("it points outside itself")
        if proto.data_type not in ONNX_DTYPES or min(proto.dims, default=0) < 0:
            raise ValueError("it has an unknown type or a negative dimension")
        return str(proto.name), numpy_helper.to_array(proto)
    except (DecodeError, ValueError, TypeError, KeyError, OverflowError) as error:
        raise InvalidModel(f"{where} is no tensor ({first_line(error)})", hint="record the case again") from None


def encode_tensor(name: str, values: np.ndarray) -> bytes:
    """A serialized TensorProto, as ONNX's own test data has it."""
    from onnx import numpy_helper

    data: bytes = numpy_helper.from_array(values, name).SerializeToString(deterministic=True)
    return data


def locations_of(model: Any) -> set[str]:
    """The files a model points at."""
    found = set()
    for _, tensor in tensors(model):
        if tensor.data_location == EXTERNAL:
            found |= {entry.value for entry in tensor.external_data if entry.key == "location"}
    return found
