"""The model as every peer of serving.py runs it: ONNX Runtime on the CPU with one thread, as `gitmodel serve` does.

Nothing of a server belongs here. Run by each peer's own interpreter.
"""

from __future__ import annotations

from typing import Any

import onnxruntime as ort

#: The Open Inference Protocol's names of the types that the models here have.
DATATYPES = {"tensor(float)": "FP32", "tensor(int64)": "INT64"}


class Model:
    """``inputs`` and ``outputs`` are ONNX Runtime's descriptions: name, type, shape."""

    def __init__(self, path: str) -> None:
        options = ort.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        self.inputs, self.outputs = self._session.get_inputs(), self._session.get_outputs()
        self._names = [output.name for output in self.outputs]

    def run(self, inputs: dict[str, Any]) -> dict[str, Any]:
        """Arrays by name, in and out."""
        return dict(zip(self._names, self._session.run(self._names, inputs), strict=True))
