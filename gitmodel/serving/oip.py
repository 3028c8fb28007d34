"""Open Inference Protocol v2 over REST: bytes to arrays and back, JSON and the binary tensor extension. No routing here.

Source: kserve/open-inference-protocol, rest protocol and binary tensor data extension.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import msgspec
import orjson
from msgspec import Struct

from gitmodel.bundle.signature import TensorSpec
from gitmodel.formats.dtypes import dtype_name
from gitmodel.serving import lists
from gitmodel.serving.dataplane import DataplaneError
from gitmodel.serving.http import ALIGNED, Parts
from gitmodel.serving.servable import Servable

if TYPE_CHECKING:
    import numpy as np

DATATYPES = {
    "BOOL": "bool", "UINT8": "uint8", "UINT16": "uint16", "UINT32": "uint32", "UINT64": "uint64", "INT8": "int8",
    "INT16": "int16", "INT32": "int32", "INT64": "int64", "FP16": "float16", "FP32": "float32", "FP64": "float64",
    "BYTES": "string",
}  # fmt: skip
NAMES = {dtype: name for name, dtype in DATATYPES.items()} | {"bfloat16": "BF16"}
_RAW = set(DATATYPES.values()) - {"string"}
LENGTH_HEADER = b"inference-header-content-length"
#: What Triton's extensions have and this server has not, with what to do instead: an answer given as if it had not been asked for
#: would be taken for what was asked. Any other parameter that is unknown is passed over, as the protocol has it.
_SEQUENCE = dict.fromkeys(
    ("sequence_id", "sequence_start", "sequence_end"), "each call stands for itself; leave it out"
)
_SHARED_MEMORY = {"shared_memory_region": "data go in the request and come in the answer; leave it out"}
_OF_OUTPUT = {"classification": "ask for the scores and take the largest", **_SHARED_MEMORY}


class _Tensor(msgspec.Struct):
    name: str
    shape: list[int]
    datatype: str
    parameters: dict[str, Any] = {}
    data: Any = None


class _Wanted(msgspec.Struct):
    name: str
    parameters: dict[str, Any] = {}


class _Request(msgspec.Struct):
    inputs: list[_Tensor]
    id: str | None = None
    parameters: dict[str, Any] = {}
    outputs: list[_Wanted] | None = None


class InferRequest(Struct, frozen=True):
    """A decoded call: arrays by input name, the outputs asked for (None: all), which of them go back as bytes, and the
    signature it is for ('' is the model's own)."""

    id: str | None
    inputs: dict[str, np.ndarray]
    outputs: list[str] | None
    binary: frozenset[str]
    all_binary: bool
    signature: object = ""


_decoder = msgspec.json.Decoder(_Request)


def decode(body: bytes | memoryview, header_length: int | None, servable: Servable) -> InferRequest:
    """Raises DataplaneError (invalid_argument) naming what is wrong."""
    if header_length == 0:
        return _raw(body, servable)
    head = body if header_length is None else body[:header_length]
    blobs = memoryview(b"" if header_length is None else body)[header_length or 0 :]
    try:
        request = _decoder.decode(head)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise _bad(f"the request is not valid: {error}") from None
    inputs: dict[str, np.ndarray] = {}
    position = 0
    _refuse_asked("", request.parameters, _SEQUENCE)
    for tensor in request.inputs:
        _refuse_asked(f"input '{tensor.name}': ", tensor.parameters, _SHARED_MEMORY)
        size = tensor.parameters.get("binary_data_size")
        if tensor.name in inputs:
            raise _bad(f"input '{tensor.name}' stands twice")
        if size is None:
            inputs[tensor.name] = _from_json(tensor)
        else:
            if not isinstance(size, int) or isinstance(size, bool) or not 0 <= size <= len(blobs) - position:
                raise _bad(f"input '{tensor.name}': binary_data_size {size!r} does not fit the body")
            inputs[tensor.name] = _from_bytes(
                tensor.name, tensor.datatype, tensor.shape, blobs[position : position + size]
            )
            position += size
    if position != len(blobs):
        raise _bad(f"{len(blobs) - position} bytes follow the last tensor")
    return _wanted(request, inputs)


def answer(servable: Servable, name: str | None, outputs: dict[str, np.ndarray]) -> bytes:
    """The body for a call that asked for all outputs, as JSON; ``name`` is its id."""
    described, plain = [], _plain()
    for output, value in outputs.items():
        datatype = plain.get(getattr(value, "dtype", None))
        if datatype is None:
            return encode(servable, InferRequest(name, {}, None, frozenset(), False), outputs)[0]
        described.append({"name": output, "datatype": datatype, "shape": value.shape, "data": value.reshape(-1)})
    body = {"model_name": servable.model, "model_version": servable.version, "outputs": described}
    if name is not None:
        body["id"] = name
    return orjson.dumps(body, option=orjson.OPT_SERIALIZE_NUMPY)


def encode(servable: Servable, request: InferRequest, outputs: dict[str, np.ndarray]) -> tuple[bytes, Parts]:
    """The JSON, and the tensors that follow it as bytes."""
    described: list[dict[str, Any]] = []
    blobs: Parts = []
    for name, value in outputs.items():
        binary = request.all_binary or name in request.binary
        entry, blob = _describe(name, value, binary)
        described.append(entry)
        if blob is not None:
            blobs.append(blob)
    answer: dict[str, Any] = {"model_name": servable.model, "model_version": servable.version, "outputs": described}
    if request.id is not None:
        answer["id"] = request.id
    return orjson.dumps(answer, option=orjson.OPT_SERIALIZE_NUMPY), blobs


def metadata(servable: Servable, versions: Sequence[str]) -> dict[str, Any]:
    return {
        "name": servable.model,
        "versions": list(versions),
        "platform": servable.platform,
        "inputs": [_tensor_metadata(spec) for spec in servable.signature.inputs],
        "outputs": [_tensor_metadata(spec) for spec in servable.signature.outputs],
    }


def _tensor_metadata(spec: TensorSpec) -> dict[str, Any]:
    shape = [d if isinstance(d, int) else -1 for d in spec.shape or ()]
    return {"name": spec.name, "datatype": NAMES.get(spec.dtype, spec.dtype.upper()), "shape": shape}


def _wanted(request: _Request, inputs: dict[str, np.ndarray]) -> InferRequest:
    everything = request.parameters.get("binary_data_output") is True
    signature = request.parameters.get("signature_name", "")
    if not request.outputs:
        return InferRequest(request.id, inputs, None, frozenset(), everything, signature)
    names = [wanted.name for wanted in request.outputs]
    if len(set(names)) != len(names):
        raise _bad("an output is asked for twice")
    for wanted in request.outputs:
        _refuse_asked(f"output '{wanted.name}': ", wanted.parameters, _OF_OUTPUT)
    chosen = {w.name for w in request.outputs if w.parameters.get("binary_data", everything) is True}
    return InferRequest(request.id, inputs, names, frozenset(chosen), False, signature)


def _refuse_asked(where: str, parameters: Mapping[str, Any], unsupported: Mapping[str, str]) -> None:
    """Nothing is asked for with 0, false or ''."""
    for name, mend in unsupported.items() if parameters else ():
        if parameters.get(name):
            raise _bad(f"{where}the parameter '{name}' is not supported: {mend}")


def _from_json(tensor: _Tensor) -> np.ndarray:
    dtype = _dtype(tensor.name, tensor.datatype)
    if dtype == "float16":
        raise _bad(f"input '{tensor.name}': FP16 goes as binary data only")
    if tensor.data is None:
        raise _bad(f"input '{tensor.name}' has no data")
    try:
        values = lists.array(tensor.data, dtype, tensor.datatype)
    except ValueError as error:
        raise _bad(f"input '{tensor.name}': {error}") from None
    return _shaped(tensor.name, tensor.shape, values)


def _from_bytes(name: str, datatype: str, shape: list[int], blob: memoryview) -> np.ndarray:
    import numpy as np

    dtype = _dtype(name, datatype)
    if dtype == "string":
        return _shaped(name, shape, np.array(_split(name, blob), dtype=object))
    wanted = np.dtype(dtype).newbyteorder("<")
    if len(blob) % wanted.itemsize:
        raise _bad(f"input '{name}': {len(blob)} bytes are no whole number of {datatype}")
    return _shaped(name, shape, _aligned(np.frombuffer(blob, wanted)))


def _aligned(value: np.ndarray) -> np.ndarray:
    return value.copy() if value.__array_interface__["data"][0] % ALIGNED else value


def _split(name: str, blob: memoryview) -> list[str]:
    items, position = [], 0
    while position < len(blob):
        end = position + 4 + int.from_bytes(blob[position : position + 4], "little")
        if position + 4 > len(blob) or end > len(blob):
            raise _bad(f"input '{name}': a string's length runs past its data")
        try:
            items.append(bytes(blob[position + 4 : end]).decode())
        except UnicodeDecodeError:
            raise _bad(f"input '{name}': a string is not UTF-8") from None
        position = end
    return items


def _raw(body: bytes | memoryview, servable: Servable) -> InferRequest:
    """A body that is one tensor: the model has one input and at most one free dimension, which the length tells."""
    specs = servable.signature.inputs
    free = [d for d in specs[0].shape or () if not isinstance(d, int)] if specs else []
    if len(specs) != 1 or specs[0].shape is None or len(free) > 1 or specs[0].dtype not in _RAW:
        raise _bad("a raw request needs a model with one numeric input and at most one free dimension")
    import numpy as np

    spec, width = specs[0], np.dtype(specs[0].dtype).itemsize
    fixed = math.prod(d for d in specs[0].shape if isinstance(d, int)) * width
    shape = [d if isinstance(d, int) else len(body) // max(fixed, 1) for d in specs[0].shape]
    values = _from_bytes(spec.name, NAMES[spec.dtype], shape, memoryview(body))
    return InferRequest(None, {spec.name: values}, None, frozenset(), True)


def _shaped(name: str, shape: list[int], values: np.ndarray) -> np.ndarray:
    if min(shape, default=0) < 0 or math.prod(shape) != values.size:
        raise _bad(f"input '{name}': shape {shape} does not fit {values.size} elements")
    try:
        return values.reshape(shape)
    except (ValueError, OverflowError):
        raise _bad(f"input '{name}': a tensor of that shape cannot be") from None


@cache
def _plain() -> dict[Any, str]:
    """The protocol's names of types whose arrays go into JSON as they are, by numpy's type."""
    import numpy as np

    return {np.dtype(dtype): name for name, dtype in DATATYPES.items() if dtype in _RAW - {"float16"}}


def _describe(name: str, value: Any, binary: bool) -> tuple[dict[str, Any], bytes | memoryview | None]:
    """What the JSON says of an output, and its bytes if they follow: numbers as they lie there, not copied."""
    import numpy as np

    if not isinstance(value, np.ndarray):
        raise DataplaneError("unimplemented", f"output '{name}' is no tensor; this protocol carries tensors only")
    dtype = dtype_name(value.dtype)
    entry: dict[str, Any] = {"name": name, "datatype": NAMES.get(dtype, dtype.upper()), "shape": list(value.shape)}
    if not binary and dtype == "float16":
        raise _bad(f"output '{name}' is FP16, which goes as binary data only: ask for binary_data")
    flat = value.reshape(-1)
    if not binary:
        entry["data"] = flat.tolist() if dtype == "string" else np.ascontiguousarray(flat)
        return entry, None
    blob: bytes | memoryview
    if dtype == "string":
        encoded = [str(item).encode() for item in flat]
        blob = b"".join(len(item).to_bytes(4, "little") + item for item in encoded)
    else:
        blob = np.ascontiguousarray(flat.astype(value.dtype.newbyteorder("<"), copy=False)).view(np.uint8).data
    entry["parameters"] = {"binary_data_size": len(blob)}
    return entry, blob


def _dtype(name: str, datatype: str) -> str:
    dtype = DATATYPES.get(datatype)
    if dtype is None:
        raise _bad(f"input '{name}': datatype '{datatype[:20]}' is not supported; known: {', '.join(DATATYPES)}")
    return dtype


def _bad(message: str) -> DataplaneError:
    return DataplaneError("invalid_argument", message)
