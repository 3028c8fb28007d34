"""KServe's Python server with one ONNX model, in one process: `python kserve_server.py MODEL PORT`."""

from __future__ import annotations

import functools
import logging
import sys
from typing import Any

import kserve
import uvicorn
from kserve.protocol.rest import server
from kserve.utils.utils import generate_uuid
from onnx_session import DATATYPES, Model


class OnnxModel(kserve.Model):  # type: ignore[misc]  # kserve is in an environment of its own, which mypy does not see
    """Takes and gives the protocol's tensors, as KServe's documentation has it for a custom predictor."""

    def __init__(self, path: str) -> None:
        super().__init__("digits")
        self._model = Model(path)
        self.ready = True

    def predict(self, payload: kserve.InferRequest, *_: Any, **__: Any) -> kserve.InferResponse:
        given = self._model.run({tensor.name: tensor.as_numpy() for tensor in payload.inputs})
        outputs = []
        for described in self._model.outputs:
            value = given[described.name]
            output = kserve.InferOutput(described.name, list(value.shape), DATATYPES[described.type])
            output.set_data_from_numpy(value, binary_data=False)
            outputs.append(output)
        return kserve.InferResponse(payload.id or generate_uuid(), self.name, outputs)


def main() -> None:
    path, port = sys.argv[1:3]
    # It has no setting for the address, and listens everywhere.
    server.uvicorn.Config = functools.partial(_on_loopback, uvicorn.Config)
    model_server = kserve.ModelServer(http_port=int(port), enable_grpc=False, enable_latency_logging=False)
    for name in ("uvicorn.access", "kserve.trace"):  # a line or two for each request
        logging.getLogger(name).setLevel(logging.WARNING)
    model_server.start([OnnxModel(path)])


def _on_loopback(config: Any, *arguments: Any, **options: Any) -> Any:
    return config(*arguments, **{**options, "host": "127.0.0.1"})


if __name__ == "__main__":
    main()
