"""A custom runtime for MLServer: one ONNX model, from and to its tensors by its own codec for numpy."""

from __future__ import annotations

from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse
from onnx_session import Model


class OnnxModel(MLModel):  # type: ignore[misc]  # mlserver is in an environment of its own, which mypy does not see
    """Loads the file that the settings of the model name."""

    async def load(self) -> bool:
        self._model = Model(self.settings.parameters.uri)
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        given = self._model.run({tensor.name: NumpyCodec.decode_input(tensor) for tensor in payload.inputs})
        outputs = [NumpyCodec.encode_output(name, value) for name, value in given.items()]
        return InferenceResponse(id=payload.id, model_name=self.name, outputs=outputs)
