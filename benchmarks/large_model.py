"""Makes the large ONNX model that storage.py measures with: one file, 24 equal float32 tensors, one of them in memory."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

TENSORS = 24
_CHANGED = 11
_GRAPH, _INITIALIZER, _RAW_DATA = 7, 5, 9  # field numbers of onnx.proto


def write_model(path: Path, size: int, version: int) -> None:
    """Writes a chain of square MatMuls of about ``size`` bytes. From version 2 on one more tensor has changed.

    The file is what the onnx library would write, byte for byte, but a tensor's bytes go straight into it.
    """
    side = max(64, round((size / TENSORS / 4) ** 0.5 / 64) * 64)
    data = side * side * 4
    descriptions = [describe(f"layer{index}.weight", side) + opening(_RAW_DATA, data) for index in range(TENSORS)]
    heads = [opening(_INITIALIZER, len(description) + data) + description for description in descriptions]
    nodes, ends = graph(side)
    first, last = model()
    length = len(nodes) + sum(map(len, heads)) + TENSORS * data + len(ends)
    with path.open("wb") as file:
        file.write(first + opening(_GRAPH, length) + nodes)
        for head, values in zip(heads, tensors(side, version), strict=True):
            file.write(head)
            file.write(values.data)
        file.write(ends + last)


def tensors(side: int, version: int) -> Iterator[np.ndarray]:
    """Random values, scaled so that the product of all layers keeps its size; a changed tensor is fine-tuned a little."""
    import numpy as np

    for index in range(TENSORS):
        values = np.random.default_rng(index).standard_normal((side, side), dtype=np.float32)
        if _CHANGED <= index < _CHANGED + version - 1:
            values += np.random.default_rng(TENSORS + index).standard_normal((side, side), dtype=np.float32) / 1000
        yield values / np.float32(side**0.5)


def model() -> tuple[bytes, bytes]:
    """The fields of the model before its graph, and those after it."""
    from onnx import ModelProto, helper

    before = ModelProto(ir_version=10, producer_name="benchmarks")
    after = ModelProto(opset_import=[helper.make_opsetid("", 21)])
    return before.SerializeToString(), after.SerializeToString()


def graph(side: int) -> tuple[bytes, bytes]:
    """The fields of the graph before its initializers, and those after them."""
    from onnx import GraphProto, TensorProto, helper

    flows = ["x", *(f"h{index}" for index in range(1, TENSORS)), "y"]
    nodes = [
        helper.make_node("MatMul", [flows[index], f"layer{index}.weight"], [flows[index + 1]], f"matmul{index}")
        for index in range(TENSORS)
    ]
    shape: list[int | str | None] = ["batch", side]
    ends: list[Any] = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in ("x", "y")]
    before, after = GraphProto(node=nodes, name="graph"), GraphProto(input=ends[:1], output=ends[1:])
    return before.SerializeToString(), after.SerializeToString()


def describe(name: str, side: int) -> bytes:
    """A tensor without its data."""
    from onnx import TensorProto

    return TensorProto(dims=[side, side], data_type=TensorProto.FLOAT, name=name).SerializeToString()


def opening(field: int, length: int) -> bytes:
    """The tag and the length that stand before a length-delimited field (Protocol Buffers encoding)."""
    out = bytearray()
    for value in (field << 3 | 2, length):
        rest = value
        while rest >= 0x80:
            out.append(rest & 0x7F | 0x80)
            rest >>= 7
        out.append(rest)
    return bytes(out)
