"""What the tests of the converters share: a model is converted, stored as a bundle has it, run and checked."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from gitmodel import runtime
from gitmodel.errors import GitmodelError
from gitmodel.formats import frameworks, memory
from gitmodel.formats.source import Source
from tests.formats import building

ROWS = np.random.default_rng(7).normal(size=(40, 4)).astype("float32")
CLASSES = (ROWS @ np.array([[1, 0, 0], [0, 1, 0], [0, 0, 1], [0, 1, 1]])).argmax(1)


def ran(model: object, folder: Path, example: object = None) -> tuple[Source, runtime.Session]:
    """The converted model and a session of it as it is stored, held against its library."""
    source = memory.of(model, example=example)
    session = runtime.open_session(building.store(source, folder / "weights") / "model.onnx")
    frameworks.check(source, session.run, memory.label(model))
    return source, session


def signature(source: Source) -> tuple[list[str], list[str]]:
    assert source.signature is not None
    return [str(spec) for spec in source.signature.inputs], [str(spec) for spec in source.signature.outputs]


def refused(kind: type[GitmodelError], model: object, example: object = None) -> str:
    with pytest.raises(kind) as caught:
        memory.of(model, example=example)
    assert caught.value.hint
    assert "\n" not in str(caught.value)
    return str(caught.value)
