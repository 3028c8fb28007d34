"""Walks an ONNX file's protobuf wire format without parsing it, to cut large tensors out as views of the mapped file, and
to join them in again while a file is written.

Parsing a 400 MB ModelProto copies every byte several times; walking it touches only lengths. Field numbers are those
of onnx.proto (frozen); the encoding is the Protocol Buffers wire format.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from gitmodel.formats.source import InvalidModel

_Chunks = list[bytes | memoryview]
_Edit = Callable[[memoryview], _Chunks | None]

MODEL, GRAPH, NODE, ATTRIBUTE, TENSOR = range(5)
#: Which length-delimited fields of a message hold a message worth entering.
_ENTERED: dict[int, dict[int, int]] = {
    MODEL: {7: GRAPH},
    GRAPH: {1: NODE, 5: TENSOR},
    NODE: {5: ATTRIBUTE},
    ATTRIBUTE: {5: TENSOR, 6: GRAPH, 10: TENSOR, 11: GRAPH},
    TENSOR: {},
}
_RAW_DATA, _EXTERNAL_DATA, _DATA_LOCATION = 9, 13, 14
#: The key under which a cut tensor's place in the returned list stands in its external_data.
CUT_KEY = "gitmodel-cut"
_KEY = CUT_KEY.encode()
MAX_DEPTH = 60
#: protobuf parses no message of 2 GiB or more.
MAX_BYTES = (1 << 31) - 1
_VARINT, _BYTES = 0, 2
_FIXED_SIZES = {1: 8, 5: 4}


def cut(data: memoryview, threshold: int, where: str) -> tuple[bytes, list[memoryview]]:
    """Returns the model without the raw data of tensors of ``threshold`` bytes or more, and those data in order.

    A cut tensor is marked as external with the key ``gitmodel-cut`` and its index. Raises InvalidModel when the bytes
    are no protobuf message, end too early or nest deeper than any real model.
    """
    cuts: list[memoryview] = []
    try:
        chunks = _edited(data, MODEL, lambda tensor: _cut_tensor(tensor, threshold, cuts), 0)
    except (IndexError, ValueError) as error:
        raise InvalidModel(f"{where} is not a whole ONNX file ({error})", hint="export or copy it again") from None
    return b"".join(chunks) if chunks is not None else bytes(data), cuts


def join(skeleton: bytes, bodies: Sequence[memoryview]) -> Sequence[bytes | memoryview]:
    """The inverse of ``cut``: the chunks of a model in which every marked tensor has its body back, with the lengths of
    all that stands around it. Nothing is copied: write one chunk after another."""
    marks = {_marker(index): body for index, body in enumerate(bodies)}
    data = memoryview(skeleton)
    chunks = _edited(data, MODEL, lambda tensor: _joined_tensor(tensor, marks), 0)
    return [data] if chunks is None else chunks


def _edited(data: memoryview, kind: int, edit: _Edit, depth: int) -> _Chunks | None:
    """The message's chunks with its tensors edited, or None when none was and it can be kept as it is."""
    if depth > MAX_DEPTH:
        raise ValueError(f"graphs nest more than {MAX_DEPTH} messages deep")
    if kind == TENSOR:
        return edit(data)
    entered, kept = _ENTERED[kind], 0
    chunks: _Chunks = []
    for field, wire, start, body, end in _fields(data):
        if wire == _BYTES and field in entered:
            inner = _edited(data[body:end], entered[field], edit, depth + 1)
            if inner is not None:
                chunks += [data[kept:start], _tag(field), _encode(sum(map(len, inner))), *inner]
                kept = end
    return [*chunks, data[kept:]] if chunks else None


def _cut_tensor(data: memoryview, threshold: int, cuts: list[memoryview]) -> _Chunks | None:
    """The tensor with a mark in the place of each large raw data."""
    chunks: _Chunks = []
    kept = 0
    for field, wire, start, body, end in _fields(data):
        if field == _EXTERNAL_DATA and wire == _BYTES and _KEY in bytes(data[body:end]):
            raise ValueError(f"a tensor is marked {CUT_KEY} already")
        if field == _RAW_DATA and wire == _BYTES and end - body >= threshold:
            cuts.append(data[body:end])
            chunks += [data[kept:start], _marker(len(cuts) - 1)]
            kept = end
    # The location at the end: of a field that stands twice the last counts.
    return [*chunks, data[kept:], _LOCATED] if chunks else None


def _joined_tensor(data: memoryview, marks: Mapping[bytes, memoryview]) -> _Chunks | None:
    """The tensor with the data of its marks, where protobuf would write them, and without the location that came with a
    mark."""
    before: _Chunks = []
    raw: _Chunks = []
    after: _Chunks = []
    kept, place = 0, before
    for field, _, start, _, end in _fields(data):
        if field > _RAW_DATA and place is before:
            place.append(data[kept:start])
            kept, place = start, after
        body = marks.get(bytes(data[start:end])) if field == _EXTERNAL_DATA else None
        if body is not None:
            raw += [_tag(_RAW_DATA), _encode(len(body)), body]
        if body is not None or (field == _DATA_LOCATION and bytes(data[start:end]) == _LOCATED):
            place.append(data[kept:start])
            kept = end
    return [*before, *raw, *after, data[kept:]] if raw else None


def _fields(data: memoryview) -> Iterator[tuple[int, int, int, int, int]]:
    """(field number, wire type, where it starts, where its body starts, where it ends) of a message's fields."""
    position, size = 0, len(data)
    while position < size:
        start = position
        tag, body = _varint(data, position, size)
        wire = tag & 7
        if wire == _BYTES:
            length, body = _varint(data, body, size)
            position = body + length
            if position > size:
                raise ValueError(f"it is cut short: {position - size} bytes are missing")
        else:
            position = _skip(data, body, size, wire)
        yield tag >> 3, wire, start, body, position
    if position != size:
        raise ValueError("it is cut short")


def _skip(data: memoryview, position: int, size: int, wire: int) -> int:
    """The position after a scalar of this wire type."""
    if wire == _VARINT:
        return _varint(data, position, size)[1]
    if wire not in _FIXED_SIZES:
        raise ValueError(f"wire type {wire} before byte {position}")
    return position + _FIXED_SIZES[wire]


def _varint(data: memoryview, position: int, size: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if position >= size:
            raise ValueError("it is cut short")
        byte = data[position]
        position += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, position
        shift += 7
        if shift > 63:
            raise ValueError("a length is malformed")


def _encode(value: int) -> bytes:
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def field(number: int, wire: int, value: int | bytes) -> bytes:
    """One field, encoded. Raises ValueError for a wire type that no message of ours has."""
    if wire == _VARINT and isinstance(value, int):
        return _tag(number, wire) + _encode(value)
    if wire == _BYTES and isinstance(value, bytes):
        return _delimited(number, value)
    if wire in _FIXED_SIZES and isinstance(value, int):
        return _tag(number, wire) + value.to_bytes(_FIXED_SIZES[wire], "little")
    raise ValueError(f"field {number} has the wire type {wire}")


def _tag(field: int, wire: int = _BYTES) -> bytes:
    return _encode(field << 3 | wire)


def _delimited(field: int, body: bytes) -> bytes:
    return _tag(field) + _encode(len(body)) + body


def _marker(index: int) -> bytes:
    return _delimited(_EXTERNAL_DATA, _delimited(1, _KEY) + _delimited(2, str(index).encode()))


_LOCATED = _tag(_DATA_LOCATION, _VARINT) + b"\x01"
