"""Makes the models that serving.py serves: logistic regression on handwritten digits, as the demo trains it, and one that
does hardly anything with much."""

from __future__ import annotations

from pathlib import Path

import numpy as np


def write_model(path: Path) -> tuple[str, np.ndarray]:
    """Writes the ONNX file; returns in words which model it is, and rows to ask it: float32, 64 values each."""
    try:
        return _digits(path)
    except ImportError:
        return _linear(path)


def write_negation(path: Path, width: int) -> None:
    """One row of ``width`` float32 values, each negated: reading and writing them is all the work there is."""
    from onnx import TensorProto, helper

    graph = helper.make_graph(
        [helper.make_node("Neg", ["x"], ["y"])],
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, width])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, width])],
    )
    opsets = [helper.make_opsetid("", 21)]
    path.write_bytes(helper.make_model(graph, ir_version=10, opset_imports=opsets).SerializeToString())


def _digits(path: Path) -> tuple[str, np.ndarray]:
    from skl2onnx import to_onnx
    from sklearn.datasets import load_digits
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    features, labels = load_digits(return_X_y=True)
    rows = features.astype(np.float32)
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=200)).fit(rows, labels)
    proto = to_onnx(model, rows[:1], options={"zipmap": False}, target_opset=21)
    path.write_bytes(proto.SerializeToString())
    return "logistic regression on 64 pixels, scikit-learn's digits", rows[:16]


def _linear(path: Path) -> tuple[str, np.ndarray]:
    """The same shape of model for an environment without scikit-learn."""
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(random.normal(size=shape).astype(np.float32), name)
        for name, shape in (("weight", (64, 10)), ("bias", (10,)))
    ]
    nodes = [
        helper.make_node("MatMul", ["X", "weight"], ["product"]),
        helper.make_node("Add", ["product", "bias"], ["sum"]),
        helper.make_node("Softmax", ["sum"], ["probabilities"], axis=-1),
    ]
    inputs = [helper.make_tensor_value_info("X", TensorProto.FLOAT, [None, 64])]
    outputs = [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [None, 10])]
    graph = helper.make_graph(nodes, "graph", inputs, outputs, initializer=weights)
    opsets = [helper.make_opsetid("", 21)]
    path.write_bytes(helper.make_model(graph, ir_version=10, opset_imports=opsets).SerializeToString())
    return "a linear model on 64 values", np.abs(random.normal(size=(16, 64))).astype(np.float32)
