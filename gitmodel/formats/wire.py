"""Walks an ONNX file's protobuf wire format without parsing it, to cut large tensors out as views of the mapped file.

Parsing a 400 MB ModelProto copies every byte several times; walking it touches only lengths. Field numbers are those
of onnx.proto (frozen); the encoding is the Protocol Buffers wire format.
"""

from __future__ import annotations

from gitmodel.formats.source import InvalidModel

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
_VARINT, _BYTES = 0, 2
_FIXED_SIZES = {1: 8, 5: 4}


def cut(data: memoryview, threshold: int, where: str) -> tuple[bytes, list[memoryview]]:
    """Returns the model without the raw data of tensors of ``threshold`` bytes or more, and those data in order.

    A cut tensor is marked as external with the key ``gitmodel-cut`` and its index. Raises InvalidModel when the bytes
    are no protobuf message, end too early or nest deeper than any real model.
    """
    cuts: list[memoryview] = []
    try:
        chunks = _walk(data, MODEL, threshold, cuts, 0)
    except (IndexError, ValueError) as error:
        raise InvalidModel(f"{where} is not a whole ONNX file ({error})", hint="export or copy it again") from None
    return b"".join(chunks) if chunks is not None else bytes(data), cuts


def _walk(
    data: memoryview, kind: int, threshold: int, cuts: list[memoryview], depth: int
) -> list[bytes | memoryview] | None:
    """The message's chunks with cuts made, or None when nothing was cut and it can be kept as it is."""
    if depth > MAX_DEPTH:
        raise ValueError(f"graphs nest more than {MAX_DEPTH} messages deep")
    entered, size, position, kept = _ENTERED[kind], len(data), 0, 0
    chunks: list[bytes | memoryview] = []
    changed = False
    while position < size:
        start = position
        tag, position = _varint(data, position, size)
        field, wire = tag >> 3, tag & 7
        if wire == _BYTES:
            length, position = _varint(data, position, size)
            end = position + length
            if end > size:
                raise ValueError(f"it is cut short: {end - size} bytes are missing")
            replacement: list[bytes | memoryview] | None = None
            if field in entered:
                inner = _walk(data[position:end], entered[field], threshold, cuts, depth + 1)
                if inner is not None:
                    replacement = [_tag(field), _encode(sum(map(len, inner))), *inner]
            elif kind == TENSOR:
                replacement = _cut_field(field, data[position:end], threshold, cuts)
            if replacement is not None:
                chunks += [data[kept:start], *replacement]
                kept, changed = end, True
            position = end
        else:
            position = _skip(data, position, size, wire)
    if position != size:
        raise ValueError("it is cut short")
    if not changed:
        return None
    chunks.append(data[kept:])
    if kind == TENSOR:
        chunks.append(_LOCATED)  # at the end: of a field that stands twice the last counts
    return chunks


def _cut_field(field: int, body: memoryview, threshold: int, cuts: list[memoryview]) -> list[bytes | memoryview] | None:
    """The mark in the place of a tensor's field that is large raw data; None for every other."""
    if field == _EXTERNAL_DATA and _KEY in bytes(body):
        raise ValueError(f"a tensor is marked {CUT_KEY} already")
    if field != _RAW_DATA or len(body) < threshold:
        return None
    cuts.append(body)
    return [_marker(len(cuts) - 1)]


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


def _tag(field: int, wire: int = _BYTES) -> bytes:
    return _encode(field << 3 | wire)


def _delimited(field: int, body: bytes) -> bytes:
    return _tag(field) + _encode(len(body)) + body


def _marker(index: int) -> bytes:
    return _delimited(_EXTERNAL_DATA, _delimited(1, _KEY) + _delimited(2, str(index).encode()))


_LOCATED = _tag(_DATA_LOCATION, _VARINT) + b"\x01"
