"""How far one output moved: equality, tolerance by type, decisions, distance; values as ONNX Runtime gives them."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from typing import Any

import msgspec
import numpy as np
import pytest

from gitmodel.bundle.card import Gates
from gitmodel.bundle.signature import TensorSpec
from gitmodel.compat.drift import Gauge, OutputDrift

STRICT = Gates(agreement=1.0)


def drift(old: Any, new: Any, *, dtype: str = "", gates: Gates = STRICT) -> OutputDrift:
    """The drift of one case; arrays are compared as outputs of their own type."""
    dtype = dtype or (old.dtype.name if isinstance(old, np.ndarray) and old.dtype != object else "string")
    return gauge(dtype, [(old, new)], gates)


def gauge(dtype: str, pairs: Sequence[tuple[Any, Any]], gates: Gates = STRICT) -> OutputDrift:
    """The drift of several cases, called ``cases/0`` and so on."""
    taken = Gauge(TensorSpec("y", dtype, None), gates)
    for number, (old, new) in enumerate(pairs):
        taken.take(f"cases/{number}", old, new)
    return taken.drift()


def array(*values: Any, dtype: str = "float32") -> np.ndarray:
    return np.array(values, dtype=dtype)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int8", "uint64", "bool", "complex64"])
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 3), (2, 0, 4), (1, 2, 3)])
def test_the_same_values_are_equal_in_every_type_and_shape(dtype: str, shape: tuple[int, ...]) -> None:
    values = np.ones(shape, dtype)
    shown = drift(values, values.copy())
    assert (shown.equal, shown.within, shown.max_abs, shown.agreement, shown.distance) == (True, True, 0.0, 1.0, 0.0)


@pytest.mark.parametrize(
    ("dtype", "inside", "outside"),
    [
        ("float16", 1.005, 1.03),
        ("float32", 1.0005, 1.002),
        ("float64", 1.00000005, 1.000001),
    ],
)
def test_each_float_type_has_its_own_tolerance(dtype: str, inside: float, outside: float) -> None:
    one = array(1.0, dtype=dtype)
    near, far = drift(one, array(inside, dtype=dtype)), drift(one, array(outside, dtype=dtype))
    assert (near.equal, near.within) == (False, True)
    assert (far.equal, far.within) == (False, False)


def test_small_numbers_have_an_absolute_tolerance() -> None:
    assert drift(array(0.0), array(5e-6)).within
    assert not drift(array(0.0), array(5e-5)).within


@pytest.mark.parametrize("dtype", ["int32", "int64", "uint8", "bool"])
def test_integers_and_flags_are_exact(dtype: str) -> None:
    shown = drift(array(0, 1, 1, 1, dtype=dtype), array(1, 1, 1, 1, dtype=dtype))
    assert (shown.equal, shown.within, shown.agreement) == (False, False, 0.75)
    assert shown.max_abs == 1


@pytest.mark.parametrize("dtype", ["int64", "uint64"])
def test_integers_beyond_the_reach_of_a_float_are_exact(dtype: str) -> None:
    shown = drift(array(2**60, dtype=dtype), array(2**60 + 1, dtype=dtype))
    assert (shown.equal, shown.within, shown.max_abs) == (False, False, 1)


def test_words_are_exact() -> None:
    shown = drift(array("cat", "dog", dtype="O"), array("cat", "owl", dtype="O"))
    assert (shown.equal, shown.within, shown.agreement) == (False, False, 0.5)
    assert drift(array("cat", dtype="O"), array("cat", dtype="O")).equal


def test_a_tolerance_for_all_outputs_leaves_classes_exact() -> None:
    loose = Gates(tolerance={"*": (0.0, 5.0)})
    assert drift(array(1.0), array(3.0), gates=loose).within
    assert not drift(array(1, dtype="int64"), array(3, dtype="int64"), gates=loose).within
    assert not drift(array(True, dtype="bool"), array(False, dtype="bool"), gates=loose).within


def test_a_tolerance_for_one_output_goes_before_that_for_all() -> None:
    gates = Gates(tolerance={"*": (0.0, 5.0), "y": (0.0, 0.5)})
    assert not drift(array(1.0), array(3.0), gates=gates).within
    counts = Gates(tolerance={"y": (0.0, 2.0)})
    assert drift(array(100, dtype="int64"), array(102, dtype="int64"), gates=counts).within
    assert not drift(array(100, dtype="int64"), array(103, dtype="int64"), gates=counts).within


def test_a_nan_must_stay_where_it_was() -> None:
    nan = array(1.0, np.nan)
    assert drift(nan, nan.copy()).equal
    introduced = drift(array(1.0, 2.0), nan)
    assert (introduced.nan, introduced.within, introduced.max_abs) == (True, False, math.inf)
    gone = drift(nan, array(1.0, 2.0))
    assert (gone.nan, gone.within) == (False, False)


def test_an_infinity_must_stay_where_it_was() -> None:
    inf = array(1.0, np.inf)
    assert drift(inf, inf.copy()).equal
    introduced = drift(array(1.0, 2.0), inf)
    assert (introduced.inf, introduced.within, introduced.max_abs) == (True, False, math.inf)
    assert not drift(inf, -inf).within


def test_equal_infinities_do_not_disturb_the_rest() -> None:
    shown = drift(array(1.0, np.inf, np.nan), array(1.0001, np.inf, np.nan))
    assert (shown.equal, shown.within, shown.nan, shown.inf) == (False, True, False, False)
    assert shown.max_abs == pytest.approx(1e-4, rel=0.01)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (array(1.0, 2.0), array(1.0)),
        (array(1.0), np.array([[1.0]], "float32")),
        (array(1.0), array(1, dtype="int64")),
        (array(1, dtype="int64"), array(True, dtype="bool")),
        (array("1", dtype="O"), array(1.0)),
        ([array(1.0)], [array(1.0), array(2.0)]),
        ([array(1.0)], array(1.0)),
        ([{"cat": 0.5}], [{"dog": 0.5}]),
        ([{"cat": 0.5}], [{"cat": 0.5}, {"cat": 0.5}]),
    ],
    ids=["length", "rank", "kind", "flag", "words", "count", "sequence or tensor", "keys", "rows"],
)
def test_what_cannot_be_held_side_by_side_has_no_decision_that_stays(old: Any, new: Any) -> None:
    shown = drift(old, new, dtype="float32")
    assert (shown.equal, shown.within, shown.max_abs, shown.agreement) == (False, False, math.inf, 0.0)
    assert shown.worst == "cases/0"


def test_a_wider_type_is_compared_by_value() -> None:
    assert drift(array(1.0), array(1.0, dtype="float64")).equal
    assert drift(array(1, dtype="int32"), array(1, dtype="int64")).equal
    assert not drift(array(1.0), array(2.0, dtype="float64")).within


def test_sequences_are_compared_piece_by_piece() -> None:
    old = [array(1.0, 2.0), array(3.0)]
    assert drift(old, [array(1.0, 2.0), array(3.0)], dtype="float32").equal
    assert not drift(old, [array(1.0, 2.0), array(4.0)], dtype="float32").within


def test_an_optional_without_a_value_equals_itself_only() -> None:
    assert drift(None, None, dtype="float32").equal
    assert not drift(None, array(1.0), dtype="float32").within


def test_maps_are_compared_by_key() -> None:
    old = [{"cat": 0.25, "dog": 0.75}, {"cat": 0.5, "dog": 0.5}]
    assert drift(old, [dict(reversed(row.items())) for row in old], dtype="float32").equal
    assert not drift(old, [{"cat": 0.75, "dog": 0.25}, old[1]], dtype="float32").within


def test_a_map_that_stands_alone_is_compared_by_key() -> None:
    assert drift({"cat": 0.25}, {"cat": 0.25}, dtype="float32").equal
    assert not drift({"cat": 0.25}, {"cat": 0.75}, dtype="float32").within
    assert drift({"cat": 0.25}, {"dog": 0.25}, dtype="float32").agreement == 0.0


def test_the_decision_of_a_row_of_maps_is_its_highest_key() -> None:
    old = [{"cat": 0.2, "dog": 0.8}, {"cat": 0.9, "dog": 0.1}]
    moved = drift(old, [{"cat": 0.25, "dog": 0.75}, {"cat": 0.85, "dog": 0.15}], dtype="float32")
    flipped = drift(old, [{"cat": 0.8, "dog": 0.2}, {"cat": 0.9, "dog": 0.1}], dtype="float32")
    assert (moved.within, moved.agreement) == (False, 1.0)
    assert flipped.agreement == 0.5


# Decisions ------------------------------------------------------------------------------------------------------------


def test_the_decision_of_a_row_of_scores_is_its_highest() -> None:
    old = np.array([[0.1, 0.9], [0.6, 0.4], [0.5, 0.4], [0.0, 1.0]], "float32")
    new = np.array([[0.2, 0.8], [0.4, 0.6], [0.6, 0.5], [0.1, 0.9]], "float32")
    assert drift(old, new).agreement == 0.75


def test_every_row_of_every_axis_decides() -> None:
    old = np.zeros((2, 3, 4), "float32")
    old[..., 0] = 1
    new = old.copy()
    new[0, 0] = [0, 1, 0, 0]
    shown = drift(old, new)
    assert (shown.agreed, shown.decisions) == (5, 6)


def test_a_single_number_decides_by_tolerance() -> None:
    assert drift(np.array([[1.0], [2.0]], "float32"), np.array([[1.0], [3.0]], "float32")).agreement == 0.5
    assert drift(array(1.0, 2.0), array(1.0, 3.0)).agreement == 0.5


def test_equal_cases_weigh_as_much_as_others() -> None:
    """Fifteen equal cases of a hundred values and one that is half wrong: 97 % stay."""
    same, half = np.zeros((1, 100), "int64"), np.repeat([[0, 1]], 50, axis=1).reshape(1, 100)
    shown = gauge("int64", [(same, half if number == 7 else same) for number in range(16)])
    assert shown.agreement == pytest.approx(1 - 50 / 1600)
    assert shown.worst == "cases/7"


def test_the_worst_case_is_the_one_with_the_largest_difference() -> None:
    shown = gauge("float32", [(array(1.0), array(value)) for value in (1.0, 1.5, 4.0, 2.0)])
    assert (shown.worst, shown.max_abs) == ("cases/2", 3.0)


# Distance -------------------------------------------------------------------------------------------------------------


def test_the_distance_is_a_share_of_what_was_there() -> None:
    assert drift(array(0.0, 10.0), array(1.0, 10.0)).distance == pytest.approx(0.1)
    assert drift(array(0.0, -10.0) * 1000, array(1.0, -10.0) * 1000).distance == pytest.approx(0.1)
    assert drift(array(2.0, 2.0), array(3.0, 3.0)).distance == pytest.approx(0.5)


def test_scores_a_thousand_times_as_large_are_far_though_every_decision_stays() -> None:
    old = np.array([[0.1, 0.9], [0.6, 0.4]], "float32")
    shown = drift(old, old * 1000)
    assert shown.agreement == 1.0
    assert shown.distance >= 1


def test_the_distance_is_the_mean_of_all_cases() -> None:
    shown = gauge("float32", [(array(1.0), array(value)) for value in (1.0, 1.0, 1.4, 1.2)])
    assert shown.distance == pytest.approx(0.15)


def test_one_case_of_zeros_that_moved_a_little_does_not_drown_the_others() -> None:
    olds = [array(0.0, 0.0) if number == 3 else array(1.0, 2.0) for number in range(16)]
    shown = gauge("float32", [(old, old + np.float32(0.01)) for old in olds])
    assert 0.006 < shown.distance < 0.1


def test_complex_numbers_are_measured_by_their_size() -> None:
    shown = drift(array(3 + 4j, 0j, dtype="complex64"), array(3 + 4j, 2j, dtype="complex64"))
    assert (shown.within, shown.max_abs) == (False, 2.0)
    assert shown.distance == pytest.approx(0.4)


# Statistics -----------------------------------------------------------------------------------------------------------


def test_the_largest_difference_has_its_case_and_index() -> None:
    old = np.zeros((2, 3), "float32")
    new = old.copy()
    new[1, 2] = 4.0
    shown = gauge("float32", [(old, old + 1), (old, new)])
    assert (shown.max_abs, shown.worst, shown.at) == (4.0, "cases/1", (1, 2))
    assert [(entry.case, entry.row, entry.max_abs, entry.within) for entry in shown.by_case] == [
        ("cases/1", 1, 4.0, False),
        ("cases/0", 0, 1.0, False),
    ]


def test_only_the_worst_cases_are_told_one_by_one() -> None:
    shown = gauge("float32", [(array(0.0), array(float(number))) for number in range(300)])
    assert (shown.cases, len(shown.by_case)) == (300, 256)
    assert [entry.case for entry in shown.by_case[:2]] == ["cases/299", "cases/298"]
    assert shown.by_case[-1].case == "cases/44"


def test_equal_cases_are_told_in_their_order() -> None:
    shown = gauge("float32", [(array(1.0), array(1.0))] * 3)
    assert [entry.case for entry in shown.by_case] == ["cases/0", "cases/1", "cases/2"]


def test_shares_and_ulps_are_over_all_cases() -> None:
    one, next_ = array(1.0, 1.0), array(1.0, np.nextafter(np.float32(1), np.float32(2)))
    shown = gauge("float32", [(one, one), (one, next_), (one, one + 1), (one, one)])
    assert shown.mismatched == 2 / 8
    assert shown.ulp_max == 1 << 23
    assert shown.max_rel == 1.0
    assert shown.smallest[0] == pytest.approx(1e-3 * 1 / (1e-3 + 1e-5))
    assert shown.cosine == pytest.approx(1.0)
    calm = gauge("float32", [(one, one)] * 200 + [(one, next_)])
    assert (calm.ulp_p99, calm.ulp_max) == (0, 1)


def test_flips_of_all_cases_are_sorted_by_how_sure_old_was() -> None:
    sure, unsure = np.array([[0.9, 0.1]], "float32"), np.array([[0.6, 0.4]], "float32")
    shown = gauge("float32", [(unsure, unsure[:, ::-1]), (sure, sure), (sure, sure[:, ::-1])])
    assert (shown.flipped, shown.decisions) == (2, 3)
    assert [(flip.case, flip.row, flip.old, flip.new) for flip in shown.flips] == [
        ("cases/2", 0, 0, 1),
        ("cases/0", 0, 0, 1),
    ]
    assert shown.flips[0].margin == pytest.approx(0.8)


def test_divergence_is_a_mean_of_rows_and_only_of_probabilities() -> None:
    p, q = np.array([[0.5, 0.5]]), np.array([[0.25, 0.75]])
    assert gauge("float64", [(p, p), (p, q)]).kl == pytest.approx(float(np.sum(p * np.log(p / q))) / 2)
    assert gauge("float64", [(p, p)]).js == 0.0
    for other in (p * 2, np.array([[0.5, 0.25]])):
        mixed = gauge("float64", [(p, p), (p, other)])
        assert (mixed.kl, mixed.js) == (None, None)
    assert gauge("float64", [(p, p), (p, np.ones((1, 3)))]).kl is None
    assert gauge("float64", [(array(0.5), array(0.5))]).kl is None


def test_discrete_outputs_flip_value_by_value() -> None:
    shown = gauge("int64", [(array(1, 2, dtype="int64"), array(1, 5, dtype="int64"))])
    assert [(flip.row, flip.old, flip.new) for flip in shown.flips] == [(1, 2, 5)]
    assert (shown.smallest, shown.at, shown.mismatched) == ((0.0, 3.0), (1,), 0.5)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int64", "uint64"])
def test_the_largest_difference_of_integers_is_exact_and_placed(dtype: str) -> None:
    limits = np.iinfo(dtype)
    shown = drift(array(0, limits.max, limits.max, dtype=dtype), array(1, limits.min, limits.max, dtype=dtype))
    assert (shown.max_abs, shown.at) == (float(limits.max) - float(limits.min), (1,))


def test_what_cannot_be_held_side_by_side_is_counted() -> None:
    shown = gauge("float32", [(array(1.0), array(1.0)), (array(1.0), array(1.0, 2.0))])
    assert (shown.apart, shown.cosine, shown.smallest) == (1, 0.0, (math.inf, math.inf))


def test_a_drift_comes_back_from_json() -> None:
    shown = gauge(
        "float32",
        [(np.array([[0.9, 0.1]], "float32"), np.array([[0.1, 0.9]], "float32")), (array(1.0), array(2.0, 3.0))],
    )
    assert shown.flips
    assert OutputDrift.from_dict(json.loads(json.dumps(msgspec.to_builtins(shown)))) == shown
    with pytest.raises((TypeError, KeyError)):
        OutputDrift.from_dict({"name": "y", "flips": [], "by_case": []})


def test_noise_is_within_tolerance_or_a_little_above_olds_own() -> None:
    shown = drift(array(1.0, 100.0), array(1.01, 100.0))
    assert not shown.noise
    assert not msgspec.structs.replace(shown, floor_share=0.4e-4).noise
    assert msgspec.structs.replace(shown, floor_share=0.6e-4).noise
