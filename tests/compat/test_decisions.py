"""Which decisions flip, how sure OLD was of them, and how far probabilities moved."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gitmodel.compat import decisions
from gitmodel.compat.decisions import Flip, are_probabilities, discrete_flips, divergence, flips


def array(*rows: list[float]) -> np.ndarray:
    return np.array(rows, "float32")


def test_a_flip_names_its_row_both_classes_and_how_sure_old_was() -> None:
    old = array([0.0, 1.0], [0.75, 0.25], [0.5, 0.25])
    new = array([0.0, 1.0], [0.25, 0.75], [0.0, 1.0])
    assert flips("cases/3", old, new) == (2, [Flip("cases/3", 1, 0, 1, 0.5), Flip("cases/3", 2, 0, 1, 0.25)])


def test_the_five_worst_of_many_are_kept() -> None:
    old = np.zeros((4, 5, 3), "float64")
    old[..., 0] = np.arange(20).reshape(4, 5)
    count, worst = flips("c", old, np.flip(old, -1))
    assert count == 20 - 1, "the first row has no winner but the first class"
    assert [flip.row for flip in worst] == [19, 18, 17, 16, 15]
    assert worst[0] == Flip("c", 19, 0, 2, 19.0)


@given(hnp.arrays("float32", (7, 3), elements=st.floats(0, 1, width=32)), st.integers(1, 30))
def test_blocks_do_not_matter(old: np.ndarray, block: int) -> None:
    new = np.roll(old, 1, axis=0)
    whole = flips("c", old, new)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(decisions, "BLOCK", block)
        assert flips("c", old, new) == whole
    assert whole[0] == int((old.argmax(-1) != new.argmax(-1)).sum())


def test_a_nan_flips_with_the_largest_margin() -> None:
    assert flips("c", array([0.0, np.nan]), array([1.0, 0.0])) == (1, [Flip("c", 0, 1, 0, math.inf)])


def test_discrete_outputs_flip_from_value_to_value() -> None:
    assert discrete_flips("c", np.array([[1, 2], [3, 4]]), np.array([[1, 9], [3, 5]])) == [
        Flip("c", 1, 2, 9),
        Flip("c", 3, 4, 5),
    ]
    assert discrete_flips("c", np.array(["cat"], "O"), np.array(["owl"], "O")) == [Flip("c", 0, "cat", "owl")]
    assert discrete_flips("c", np.array([True]), np.array([False])) == [Flip("c", 0, 1, 0)]
    assert len(discrete_flips("c", np.zeros(9, "int8"), np.ones(9, "int8"))) == 5


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        (array([0.25, 0.75], [1.0, 0.0]), True),
        (array([0.25, 0.7]), False),
        (array([1.5, -0.5]), False),
        (array([0.5, np.nan]), False),
        (np.array([0.5, 0.5], "float32"), False),
        (np.ones((3, 1), "float32"), False),
        (np.array([[1, 0]]), False),
        (np.full((1, 3), 1 / 3, "float16"), True),
        (np.zeros((0, 3), "float32"), True),
    ],
    ids=["rows", "sum", "sign", "nan", "flat", "single", "integers", "half", "no rows"],
)
def test_what_counts_as_probabilities(values: np.ndarray, expected: bool) -> None:
    assert are_probabilities(values) is expected


def test_divergences_against_their_definitions() -> None:
    p, q = np.array([[0.5, 0.5], [0.9, 0.1]]), np.array([[0.25, 0.75], [0.9, 0.1]])
    kl, js = divergence(p, q)
    m = (p + q) / 2
    assert kl == pytest.approx(np.sum(p * np.log(p / q)))
    assert js == pytest.approx((np.sum(p * np.log(p / m)) + np.sum(q * np.log(q / m))) / 2)
    assert divergence(p, p) == (0.0, 0.0)
    certain, other = np.array([[1.0, 0.0]]), np.array([[0.0, 1.0]])
    assert divergence(certain, other)[1] == pytest.approx(math.log(2))
    assert math.isfinite(divergence(certain, other)[0])
