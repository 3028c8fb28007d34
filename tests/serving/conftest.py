"""Fixtures of the serving tests: a production of one's own, and small servables over real sessions."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import onnx
import pytest

from gitmodel import runtime
from gitmodel.formats import onnx as onnx_format
from gitmodel.serving.servable import Servable
from tests import support
from tests.serving.production import Production


@pytest.fixture
def production(tmp_path: Path) -> Production:
    return Production.make(tmp_path)


@pytest.fixture
def servable(tmp_path: Path) -> Callable[..., Servable]:
    """Opens a model as a version that can answer: ``servable(model, version="v1.0.0", number=1)``."""

    def make(
        model: onnx.ModelProto | None = None, *, name: str = "fraud", version: str = "v1.0.0", number: int = 1
    ) -> Servable:
        proto = model or support.linear_model()
        path = tmp_path / f"{name}-{version}.onnx"
        path.write_bytes(proto.SerializeToString())
        signature = onnx_format.signature_of(proto, name)
        session = runtime.open_session(path)
        return Servable(
            name, version, number, "c" * 40, "d" * 64, "onnxruntime_onnx", signature, session, 0.0, 0, 0
        )  # fmt: skip

    return make
