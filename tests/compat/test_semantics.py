"""What rows of numbers are: probabilities, others, or not to be told; and what a change of that is called."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from gitmodel.bundle.card import Gates
from gitmodel.compat import replay as golden_replay
from gitmodel.compat import rules
from gitmodel.compat.behaviour import changes
from gitmodel.compat.generate import cases
from gitmodel.compat.semantics import NONE_SEEN, Rows, changed, look
from tests.compat.conftest import Open, signature

SOFTMAX = "(float[n,4] x) => (float[n,4] y) { y = Softmax<axis = 1>(x) }"
LOGITS = "(float[n,4] x) => (float[n,4] y) { y = Identity(x) }"


def rows(*values: Sequence[Sequence[float]] | np.ndarray, dtype: str = "float32") -> Rows:
    seen = NONE_SEEN
    for value in values:
        seen = look(seen, np.asarray(value, dtype))
    return seen


SURE = rows([[0.5, 0.5], [1, 0]])
OTHER = rows([[3, -1], [2, 2]])


def test_rows_that_sum_to_one_are_probabilities() -> None:
    assert (SURE.seen, SURE.probabilities, SURE.others) == (2, True, False)
    assert (OTHER.probabilities, OTHER.others) == (False, True)


def test_all_rows_count_and_one_alone_does_not() -> None:
    assert not rows([[0.5, 0.5]]).probabilities
    assert rows([[0.5, 0.5]], [[0.25, 0.75]]).probabilities
    mixed = rows([[0.5, 0.5]], [[3, 1]], [[0.5, 0.5]])
    assert (mixed.probabilities, mixed.others) == (False, True)


@pytest.mark.parametrize(
    "value",
    [
        [[0.5, 0.53], [0.5, 0.53]],
        [[0.5, 0.45], [0.5, 0.45]],
        [[1.05, -0.05], [1.05, -0.05]],
        [[np.nan, 0.5], [np.nan, 0.5]],
        [[np.inf, 0.5], [np.inf, 0.5]],
    ],
)
def test_what_lost_digits_or_is_no_number_shows_nothing(value: list[list[float]]) -> None:
    unclear = rows(value)
    assert (unclear.probabilities, unclear.others) == (False, False)
    assert changed(SURE, unclear) is changed(unclear, SURE) is None


@pytest.mark.parametrize("value", [np.ones(4), np.ones((4, 1)), np.ones((0, 4)), np.ones((4, 0))])
def test_single_numbers_columns_and_nothing_have_no_rows(value: np.ndarray) -> None:
    assert rows(value) == NONE_SEEN


@pytest.mark.parametrize("value", [np.ones((2, 2), "int64"), {"a": 1}, [np.ones((2, 2))]])
def test_integers_maps_and_sequences_have_none_either(value: object) -> None:
    assert look(NONE_SEEN, value) == NONE_SEEN


def test_only_a_change_between_the_two_is_one() -> None:
    assert changed(SURE, OTHER) == ("probabilities (each sums to one)", "other numbers")
    assert changed(OTHER, SURE) == ("other numbers", "probabilities (each sums to one)")
    assert changed(SURE, SURE) is changed(OTHER, OTHER) is changed(NONE_SEEN, SURE) is None


def test_half_precision_is_still_seen_as_probabilities() -> None:
    logits = np.random.default_rng(0).normal(size=(16, 1000))
    shares = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    assert look(NONE_SEEN, shares.astype("float16")).probabilities


def test_eight_bits_are_never_taken_for_other_numbers() -> None:
    flat = np.random.default_rng(0).dirichlet(np.full(200, 5.0), 64).astype("float32")
    quantized = np.round(flat * 256) / np.float32(256)
    assert np.abs(quantized.sum(-1) - 1).max() > 0.01
    assert changed(look(NONE_SEEN, flat), look(NONE_SEEN, quantized)) is None


def told(open_model: Open, old: str, new: str) -> list[str]:
    taken = signature(old)
    shown = golden_replay.replay(open_model(old), open_model(new), list(cases(taken)), taken, Gates())
    return [change.kind for change in changes(shown, Gates())]


def test_a_softmax_that_was_left_out_or_put_in_is_told_for_what_it_is(open_model: Open) -> None:
    assert told(open_model, SOFTMAX, LOGITS) == ["output-semantics-changed"]
    assert told(open_model, LOGITS, SOFTMAX) == ["output-semantics-changed"]


def test_probabilities_that_are_others_are_judged_by_their_values(open_model: Open) -> None:
    sharper = SOFTMAX.replace("{ y = Softmax<axis = 1>(x) }", "{ d = Add(x, x) y = Softmax<axis = 1>(d) }")
    (kind,) = told(open_model, SOFTMAX, sharper)
    assert kind in ("golden-drift", "golden-failed")


def test_the_message_says_what_they_were(open_model: Open) -> None:
    taken = signature(SOFTMAX)
    shown = golden_replay.replay(open_model(SOFTMAX), open_model(LOGITS), list(cases(taken)), taken, Gates())
    (change,) = changes(shown, Gates())
    assert rules.judge(change).message.startswith(
        "rows of output 'y' are other numbers, they were probabilities (each sums to one) (case generated/"
    )
