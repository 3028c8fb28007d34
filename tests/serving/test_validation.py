"""gitmodel.serving.validation: rows that stand for themselves, whatever rounding makes of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import numpy as np
import pytest

from gitmodel import runtime
from gitmodel.bundle.signature import Signature, TensorSpec
from gitmodel.serving.validation import rows_stand_alone

SIGNATURE = Signature(
    (TensorSpec("x", "float32", ("n", 2)),),
    (TensorSpec("y", "float32", ("n", 3)),),
)


class Model:
    """Gives each row a large value, one that is nearly nothing, and NaN if it should; what is run with others is off by ``error``,
    as a share of the row's largest value."""

    def __init__(self, error: float, last: float = 0.0) -> None:
        self.error, self.last = error, last

    def run(self, inputs: Mapping[str, np.ndarray], _: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        rows = len(inputs["x"])
        error = self.error if rows > 3 else 0.0
        return {"y": np.array([[1000.0, 1e-4 + 1000.0 * error, self.last]] * rows, "float32")}


@pytest.mark.parametrize(
    ("model", "alone"),
    [
        (Model(0.0), True),
        (Model(2e-6), True),
        (Model(1e-4), False),
        (Model(0.0, last=np.nan), True),
        (Model(2e-6, last=np.inf), False),
    ],
)
def test_rows_stand_for_themselves_but_for_rounding(model: Model, alone: bool) -> None:
    assert rows_stand_alone(cast(runtime.Session, model), SIGNATURE) is alone
