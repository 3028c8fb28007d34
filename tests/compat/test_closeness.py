"""The statistics a person decides by: they agree with the check, and the tolerance they name really passes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gitmodel.bundle.card import Gates
from gitmodel.bundle.signature import Signature, TensorSpec
from gitmodel.compat.closeness import Closeness, closeness


def one(old: Any, new: Any, dtype: str = "float32", gates: Gates | None = None) -> Closeness:
    """The closeness of one output."""
    before, after = (
        v if isinstance(v, np.ndarray) else np.array(v, object if dtype == "string" else dtype) for v in (old, new)
    )
    signature = Signature((), (TensorSpec("y", dtype, None),))
    (found,) = closeness({"y": before}, {"y": after}, signature, gates or Gates())
    return found


def test_the_largest_difference_is_named_by_its_place_and_values() -> None:
    found = one([[1.0, 2.0], [4.0, 3.0]], [[1.0, 2.5], [4.0, 3.0]])
    assert (found.max_abs, found.at, found.old, found.new, found.max_rel) == (0.5, (0, 1), "2", "2.5", 0.25)
    assert (found.beyond, found.values, found.tolerance) == (1, 4, (1e-3, 1e-5))


def test_changed_decisions_are_counted_and_the_first_are_named() -> None:
    found = one(np.eye(5, dtype="float32"), np.roll(np.eye(5, dtype="float32"), 1, axis=1))
    assert (found.flipped, found.rows) == (5, 5)
    assert found.flips == ((0, 0, 1), (1, 1, 2), (2, 2, 3))
    assert (one([1.0, 2.0], [3.0, 4.0]).rows, one([[1.0], [2.0]], [[2.0], [3.0]]).rows) == (0, 0)


def test_equal_outputs_are_beyond_nothing() -> None:
    found = one([[0.1, np.nan, np.inf]], [[0.1, np.nan, np.inf]])
    assert (found.beyond, found.max_abs, found.rtol, found.atol, found.broken) == (0, 0.0, 0.0, 0.0, 0)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_became_nan_or_infinite_passes_with_no_tolerance(value: float) -> None:
    found = one([1.0, 2.0, 3.0], [1.0, value, 3.0])
    assert (found.broken, found.max_abs, found.rtol, found.atol) == (1, math.inf, math.inf, math.inf)
    assert (found.at, found.old, found.new) == ((1,), "2", f"{value:.6g}")


def test_beside_zero_only_an_absolute_tolerance_helps() -> None:
    found = one([0.0, 1.0], [0.5, 1.0])
    assert found.rtol == math.inf
    assert found.atol == 0.5


@given(
    hnp.arrays("float32", (2, 3), elements=st.floats(-100, 100, width=32)),
    hnp.arrays("float32", (2, 3), elements=st.floats(-100, 100, width=32)),
)
def test_the_smallest_tolerance_passes_and_a_smaller_one_does_not(old: np.ndarray, new: np.ndarray) -> None:
    found = one(old, new)
    assume(found.beyond)
    rtol, atol = found.tolerance
    more, less = 1 + 1e-9, 0.999
    assert not one(old, new, gates=Gates({"y": (rtol, found.atol * more)})).beyond
    assert one(old, new, gates=Gates({"y": (rtol, found.atol * less)})).beyond
    if math.isfinite(found.rtol):
        assert not one(old, new, gates=Gates({"y": (found.rtol * more, atol)})).beyond
        assert one(old, new, gates=Gates({"y": (found.rtol * less, atol)})).beyond


def test_numbers_that_stand_for_a_choice_are_exact() -> None:
    found = one([1, 2, 3], [1, 2, 4], "int64")
    assert (found.beyond, found.max_abs, found.tolerance) == (1, 1.0, (0.0, 0.0))


def test_words_and_flags_are_equal_or_not() -> None:
    found = one([["cat", "dog"]], [["cat", "cow"]], "string")
    assert (found.beyond, found.values, found.at, found.old, found.new, found.atol) == (
        1,
        2,
        (0, 1),
        "'dog'",
        "'cow'",
        math.inf,
    )
    assert one([True, False], [True, False], "bool").beyond == 0
    assert one([True, False], [True, True], "bool").beyond == 1


def test_no_values_at_all_are_equal() -> None:
    found = one(np.zeros((0, 3), "float32"), np.zeros((0, 3), "float32"))
    assert (found.beyond, found.values, found.at, found.max_abs, found.rows) == (0, 0, (), 0.0, 0)


def test_what_cannot_be_held_side_by_side_says_why() -> None:
    assert one([1.0], [1.0, 2.0]).apart == "shape [1] is [2] now"
    assert one(np.zeros(1, "float32"), np.zeros(1, "float64")).apart == "type float32 is float64 now"
    signature = Signature((), (TensorSpec("y", "float32", None),))
    found = closeness({"gone": np.zeros(1)}, {"y": np.zeros(1, "float32")}, signature, Gates())
    assert [(c.output, c.apart) for c in found] == [
        ("gone", "the model has no such output"),
        ("y", "it was not recorded"),
    ]
