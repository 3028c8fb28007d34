"""A model of Triton's Python backend: one ONNX model. Triton starts a process for it, whose Python imports this file."""

from __future__ import annotations

import json
from typing import Any

import triton_python_backend_utils as backend
from onnx_session import Model


class TritonPythonModel:
    """The name and the methods that the backend looks for."""

    def initialize(self, arguments: dict[str, str]) -> None:
        parameters = json.loads(arguments["model_config"])["parameters"]
        self._model = Model(parameters["path"]["string_value"])

    def execute(self, requests: list[Any]) -> list[Any]:
        return [self._answer(request) for request in requests]

    def _answer(self, request: Any) -> Any:
        given = self._model.run({tensor.name(): tensor.as_numpy() for tensor in request.inputs()})
        return backend.InferenceResponse([backend.Tensor(name, value) for name, value in given.items()])
