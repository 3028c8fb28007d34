"""The models that reload.py reloads, each with what it must answer: a tiny one whose output tells its version, and chains."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import measure
import numpy as np
from chain import Chain, write_model

WIDTH, CLASSES = 64, 10


def write_scaled(path: Path, scale: float) -> None:
    """The tiny model: ``y = x @ (weight * scale)``, so that its output tells which version it came from."""
    from onnx import TensorProto, helper, numpy_helper

    weight = np.random.default_rng(0).normal(size=(WIDTH, CLASSES)) * scale
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", size])
        for name, size in (("x", WIDTH), ("y", CLASSES))
    ]
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "weight"], ["y"])], "graph", ends[:1], ends[1:],
        [numpy_helper.from_array(weight.astype(np.float32), "weight")],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 21)]
    path.write_bytes(helper.make_model(graph, ir_version=10, opset_imports=opsets).SerializeToString())


def scaled_answer() -> np.ndarray:
    """What the tiny model of scale 1 answers to the first of ``rows``."""
    weight = np.random.default_rng(0).normal(size=(WIDTH, CLASSES)).astype(np.float32)
    return np.asarray(rows(1) @ weight)


def rows(count: int, width: int = WIDTH) -> np.ndarray:
    return np.random.default_rng(1).normal(size=(count, width)).astype(np.float32)


def write_chain(path: Path, chain: Chain, version: int = 1) -> np.ndarray:
    """Writes the file and returns what ONNX Runtime gives for its first row; both apart, for the memory they take."""
    answer = path.with_suffix(".npy")
    measure.apart(_write_chain, path, answer, chain, version)
    return np.asarray(np.load(answer))


def _write_chain(path: Path, answer: Path, chain: Chain, version: int) -> None:
    import onnxruntime as ort

    write_model(path, chain, version)
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    np.save(answer, session.run(None, {"x": rows(1, chain.side)})[0])


def write_request(path: Path, model: str, width: int = WIDTH) -> Path:
    """The bytes of a call with the first of ``rows``."""
    values = rows(1, width)
    tensor = {"name": "x", "shape": [1, width], "datatype": "FP32", "data": values[0].tolist()}
    body = json.dumps({"inputs": [tensor]}).encode()
    head = f"POST /v2/models/{model}/infer HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(body)}\r\n\r\n"
    path.write_bytes(head.encode() + body)
    return path


def fits(version: str, body: str, expected: Mapping[str, np.ndarray]) -> bool:
    """Whether an answer is that of the version it says it is from."""
    answer = json.loads(body)
    (output,) = answer["outputs"]
    value = np.array(output["data"], np.float32).reshape(output["shape"])
    known = expected.get(version)
    return known is not None and answer["model_version"] == version and bool(np.allclose(value, known, 1e-3, 1e-5))
