"""Outputs in another shape than their signature declares: what ONNX Runtime really returns."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from gitmodel.bundle.card import Gates
from gitmodel.bundle.golden import GoldenCase
from gitmodel.compat import behaviour
from gitmodel.compat.changes import Change
from gitmodel.compat.replay import replay
from gitmodel.compat.shapes import Sizes
from tests.compat.conftest import Open, signature

#: Gives the positive ones of x, whatever it declares.
POSITIVE = "(float[%s] x) => (float[%s] y) <float zero = {0.0}> { kept = Greater(x, zero) y = Compress(x, kept) }"
WHOLE = "(float[%s] x) => (float[%s] y) { y = Abs(x) }"
MIXED, GOOD = np.array([1, -1, 2, -2], "float32"), np.ones(4, "float32")


def told(open_model: Open, old: str, new: str, given: Sequence[np.ndarray] = (MIXED,)) -> list[Change]:
    cases = [GoldenCase(f"cases/{i}", {"x": values}, {}) for i, values in enumerate(given)]
    shown = replay(open_model(old), open_model(new), cases, signature(old), Gates(), declared=signature(new))
    return list(behaviour.changes(shown, Gates()))


def test_a_fixed_dimension_that_comes_otherwise_is_a_lie_with_a_witness(open_model: Open) -> None:
    (change,) = told(open_model, WHOLE % (4, 4), POSITIVE % (4, 4), [GOOD, MIXED])
    assert (change.kind, change.at, change.old, change.new) == ("output-shape-lies", "outputs.y", "float32[4]", [2])
    assert change.args["witness"] == "case cases/1: declared float32[4], returned [2]"


def test_what_old_did_not_keep_either_breaks_nobody(open_model: Open) -> None:
    assert [c.kind for c in told(open_model, POSITIVE % (4, 7), POSITIVE % (4, 7))] == ["golden-identical"]
    kinds = [c.kind for c in told(open_model, POSITIVE % (4, 7), WHOLE % (4, 4))]
    assert kinds == ["golden-failed"]


def test_a_symbol_is_a_promise_where_the_inputs_bind_it(open_model: Open) -> None:
    (change,) = told(open_model, WHOLE % ("n", "n"), POSITIVE % ("n", "n"))
    assert change.kind == "output-shape-lies"
    assert [c.kind for c in told(open_model, POSITIVE % ("n", "m"), POSITIVE % ("n", "m"))] == ["golden-identical"]
    assert "output-shape-lies" not in [c.kind for c in told(open_model, WHOLE % ("n", "n"), POSITIVE % ("n", "m"))]


def test_another_rank_is_a_lie(open_model: Open) -> None:
    flat = "(float[4] x, int64[k] s) => (float[2,2] y) { y = Reshape(x, s) }"
    cases = [GoldenCase("c", {"x": GOOD, "s": np.array(s)}, {}) for s in ([2, 2], [4])]
    both = open_model(flat)
    assert replay(both, both, cases[:1], signature(flat), Gates()).lies == ()
    assert replay(both, both, cases[1:], signature(flat), Gates()).lies == (), "OLD lies the same way"


@pytest.mark.parametrize("kind", ["(float[n] x) => (seq(float[n]) y) { y = SequenceConstruct(x) }", WHOLE % ("n", 3)])
def test_other_values_than_tensors_have_no_shape_to_lie_about(open_model: Open, kind: str) -> None:
    assert [c.kind for c in told(open_model, kind, kind, [GOOD[:3]])] == ["golden-identical"]


def test_a_symbol_that_two_inputs_give_two_sizes_promises_nothing() -> None:
    both = signature("(float[n,k] a, float[n,3] b, seq(float[m]) c, float d) => (float[n] y)")
    ones = {"a": np.ones((2, 5)), "b": np.ones((4, 3)), "d": np.ones(())}
    assert Sizes.of(both, ones).by_symbol == {"n": None, "k": 5}
    assert Sizes.of(both, {"a": np.ones(3)}).by_symbol == {}
