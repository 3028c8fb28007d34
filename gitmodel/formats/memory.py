"""Models that are no files: an ``onnx.ModelProto`` or a mapping of numpy arrays becomes a source without being written.

A large ModelProto is never serialized as a whole, nor copied: its large tensors are taken out one by one, and only what
is left of it is copied, so that the caller's own object stays as it is. Arrays are viewed where they already lie as
tensors do, and turned over one by one where they do not.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gitmodel.bundle.signature import DTYPES
from gitmodel.formats import declared, frameworks, wire
from gitmodel.formats import onnx as onnx_format
from gitmodel.formats.arrays import packed
from gitmodel.formats.dtypes import ML_DTYPES, nbytes
from gitmodel.formats.onnx_walk import EXTERNAL
from gitmodel.formats.source import TENSOR_FILE_BYTES, InvalidModel, Source, TensorData

if TYPE_CHECKING:
    import numpy as np

#: What ``save`` takes: files, an ``onnx.ModelProto``, arrays by name, or a model of a library in ``frameworks``.
Model = Path | str | Sequence[Path | str] | Mapping[str, "np.ndarray"] | object

#: Which fields of a message lead to tensors, as ``wire`` has them by number.
_ENTERED = {
    "ModelProto": ("graph",),
    "GraphProto": ("node", "initializer"),
    "NodeProto": ("attribute",),
    "AttributeProto": ("t", "tensors", "g", "graphs"),
}
_BYTE_BITS = 8


def of(model: object, *, example: object = None) -> Source:
    """The source of an object; ``example`` are inputs for the libraries that need some to trace or to check the model.

    Raises InvalidModel, and for a library's model MissingConverter and ConversionFailed.
    """
    if getattr(getattr(model, "DESCRIPTOR", None), "full_name", "") == "onnx.ModelProto":
        return _message(model, label(model))
    if isinstance(model, Mapping):
        return _arrays(model)
    return frameworks.convert(model, example)


def label(model: object) -> str:
    """What messages call the object."""
    return "the mapping" if isinstance(model, Mapping) else f"the {type(model).__name__}"


def _message(model: Any, where: str) -> Source:
    copy = type(model)()
    cuts: list[memoryview] = []
    try:
        _copy(model, copy, cuts, 0)
    except ValueError as error:
        raise InvalidModel(f"{where} cannot be read ({error})", hint="export it again") from None
    onnx_format.validate(copy, where)
    return onnx_format.assemble(copy, cuts, where)


def _copy(message: Any, copy: Any, cuts: list[memoryview], depth: int) -> None:
    """Copies a message into an empty one; large data go to ``cuts`` and leave the mark that ``wire.cut`` makes, too.
    Raises ValueError."""
    if depth > wire.MAX_DEPTH:
        raise ValueError(f"graphs nest more than {wire.MAX_DEPTH} messages deep")
    kind, body = message.DESCRIPTOR.name, b""
    if kind == "NodeProto" and not any(map(_holds_tensors, message.attribute)):
        copy.CopyFrom(message)
        return
    copy.SetInParent()
    copy.MergeFromString(_unknown(message))
    for field, value in message.ListFields():
        if field.name == "raw_data" and len(value) >= TENSOR_FILE_BYTES:
            body = value
        elif field.name in _ENTERED.get(kind, ()):
            held = getattr(copy, field.name)
            for part in value if field.is_repeated else [value]:
                _copy(part, held.add() if field.is_repeated else held, cuts, depth + 1)
        elif field.is_repeated:
            getattr(copy, field.name).extend(value)
        elif field.message_type is not None:
            getattr(copy, field.name).CopyFrom(value)
        else:
            setattr(copy, field.name, value)
    if kind == "TensorProto":
        _mark(copy, body, cuts)


def _holds_tensors(attribute: Any) -> bool:
    return bool(attribute.HasField("t") or attribute.HasField("g") or attribute.tensors or attribute.graphs)


def _unknown(message: Any) -> bytes:
    """The fields of the message that this version of onnx does not know, encoded."""
    from google.protobuf.unknown_fields import UnknownFieldSet

    fields: Any = UnknownFieldSet(message)
    return b"".join(wire.field(field.field_number, field.wire_type, field.data) for field in fields)


def _mark(tensor: Any, body: bytes, cuts: list[memoryview]) -> None:
    if any(entry.key == wire.CUT_KEY for entry in tensor.external_data):
        raise ValueError(f"a tensor is marked {wire.CUT_KEY} already")
    if body:
        entry = tensor.external_data.add()
        entry.key, entry.value = wire.CUT_KEY, str(len(cuts))
        tensor.data_location = EXTERNAL
        cuts.append(memoryview(body))


def _arrays(arrays: Mapping[Any, Any]) -> Source:
    if not arrays:
        raise InvalidModel("the mapping has no arrays", hint="give names and their arrays")
    return Source("numpy", "", tuple(_tensor(name, value) for name, value in arrays.items()))


def _tensor(name: Any, value: Any) -> TensorData:
    """An array as a tensor: little-endian, row-major, elements of less than a byte packed as ONNX does. Raises InvalidModel."""
    import numpy as np

    if not isinstance(name, str):
        raise InvalidModel(f"the mapping has the key {name!r:.60}", hint="names are text")
    if not isinstance(value, np.ndarray | np.generic) or np.ma.isMaskedArray(value):
        raise InvalidModel(
            f"'{name}' is a {type(value).__qualname__}, no plain numpy array", hint="give it as numpy.asarray makes it"
        )
    array = np.asarray(value)
    try:
        declared.check_text(name)
        shape = declared.shape(array.shape)
        if array.dtype.kind in "OUST":
            return TensorData(name, "string", shape, _texts(array))
        dtype = ML_DTYPES.get(array.dtype.name, array.dtype.name)
        if dtype not in DTYPES:
            raise ValueError(f"it has the type {array.dtype}, which no tensor has")
        return TensorData(name, dtype, shape, _body(array, dtype))
    except ValueError as error:
        raise InvalidModel(f"'{name[:60]!s}' is no tensor ({error})", hint="cast it, or leave it out") from None


def _body(array: np.ndarray, dtype: str) -> memoryview:
    import numpy as np

    rows = np.asarray(array, order="C")
    # Types of ml_dtypes compare as equal whatever their byte order is, so it is told by this.
    if array.dtype.isnative == (sys.byteorder == "big"):
        rows = rows.byteswap()
    raw = rows.reshape(-1).view(np.uint8)
    bits = nbytes(dtype, (_BYTE_BITS,))
    if bits < _BYTE_BITS:
        raw = packed(raw, bits)
    return raw.data.toreadonly()


def _texts(array: np.ndarray) -> memoryview:
    """Texts joined by NUL, as tensors keep them. Raises ValueError for objects that are none."""
    listed = array.ravel(order="C").tolist()
    if strange := next((type(value).__name__ for value in listed if not isinstance(value, str | bytes)), ""):
        raise ValueError(f"it holds objects that are no texts, of type {strange}")
    encoded = (text if isinstance(text, bytes) else text.encode() for text in listed)
    # A text's own NUL stands as in Java's modified UTF-8: HDF5 ends a text at the first one.
    return memoryview(b"\0".join(text.replace(b"\0", b"\xc0\x80") for text in encoded))
