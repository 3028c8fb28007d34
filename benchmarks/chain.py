"""Makes the models that storage is measured with: a chain of square MatMuls, float32, as ONNX in one file."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

GRAPH, INITIALIZER, RAW_DATA = 7, 5, 9  # field numbers of onnx.proto


@dataclass(frozen=True)
class Chain:
    """``count`` tensors of ``side`` rows and columns. In each version after the first one more of them has changed."""

    count: int
    side: int
    seed: int = 0

    @classmethod
    def of(cls, size: int, count: int = 24) -> Chain:
        """One of about ``size`` bytes."""
        return cls(count, max(64, round((size / count / 4) ** 0.5 / 64) * 64))

    @property
    def tensor(self) -> int:
        """Bytes of one tensor."""
        return self.side * self.side * 4

    @property
    def size(self) -> int:
        """Bytes of all tensors."""
        return self.count * self.tensor

    def tensors(self, version: int) -> Iterator[tuple[str, np.ndarray]]:
        """Random values, scaled so that the product of all keeps its size; a changed tensor is fine-tuned a little."""
        import numpy as np

        def normal(index: int, of: int) -> np.ndarray:
            random = np.random.default_rng([self.seed, index, of])
            values = random.standard_normal((self.side, self.side), dtype=np.float32)
            values /= np.float32(self.side**0.5)
            return values

        for index in range(self.count):
            values = normal(index, 1)
            if (index - self.count // 2) % self.count < version - 1:
                values += normal(index, 2) / np.float32(1000)
            yield f"layer{index}.weight", values


def write_model(path: Path, chain: Chain, version: int = 1) -> None:
    """The file is what the onnx library would write, byte for byte, but a tensor's bytes go straight into it."""
    heads = [
        opening(INITIALIZER, len(description) + chain.tensor) + description
        for index in range(chain.count)
        for description in [describe(f"layer{index}.weight", chain.side) + opening(RAW_DATA, chain.tensor)]
    ]
    nodes, ends = graph(chain)
    first, last = model()
    length = len(nodes) + sum(map(len, heads)) + chain.size + len(ends)
    with path.open("wb") as file:
        file.write(first + opening(GRAPH, length) + nodes)
        for head, (_, values) in zip(heads, chain.tensors(version), strict=True):
            file.write(head)
            file.write(values.data)
        file.write(ends + last)


def model() -> tuple[bytes, bytes]:
    """The fields of the model before its graph, and those after it."""
    from onnx import ModelProto, helper

    before = ModelProto(ir_version=10, producer_name="benchmarks")
    after = ModelProto(opset_import=[helper.make_opsetid("", 21)])
    return before.SerializeToString(), after.SerializeToString()


def graph(chain: Chain) -> tuple[bytes, bytes]:
    """The fields of the graph before its initializers, and those after them."""
    from onnx import GraphProto, TensorProto, helper

    flows = ["x", *(f"h{index}" for index in range(1, chain.count)), "y"]
    nodes = [
        helper.make_node("MatMul", [flows[index], f"layer{index}.weight"], [flows[index + 1]], f"matmul{index}")
        for index in range(chain.count)
    ]
    shape: list[int | str | None] = ["batch", chain.side]
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
