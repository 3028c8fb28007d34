"""Fixtures of these tests: sessions and signatures of models written as text."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from pathlib import Path

import onnx
import pytest

from gitmodel import runtime
from gitmodel.bundle.signature import Signature
from gitmodel.formats import onnx as onnx_format
from tests.compat import pairs

Open = Callable[[str | onnx.ModelProto], runtime.Session]


@pytest.fixture
def open_model(tmp_path: Path) -> Open:
    """Opens a model in ONNX Runtime: ``open_model("(float[n,4] x) => (float[n,4] y) { y = Neg(x) }")``."""
    numbers = count()

    def open_(model: str | onnx.ModelProto) -> runtime.Session:
        path = tmp_path / f"session-{next(numbers)}.onnx"
        path.write_bytes(pairs.model(model).SerializeToString())
        return runtime.open_session(path)

    return open_


def signature(text: str) -> Signature:
    """The signature of a model in text form; a graph without nodes will do: ``(float[n,4] x) => (float[n] y)``."""
    whole = text if "{" in text.partition("=>")[2] else f"{text} {{ }}"
    return onnx_format.signature_of(pairs.model(whole), "test")
