"""Arrays of numbers held side by side: every figure against numpy's own, however the arrays fall into blocks."""

from __future__ import annotations

import math
import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gitmodel.compat import numbers
from gitmodel.compat.numbers import measure, percentile, smallest

TOLERANCE = (1e-3, 1e-5)


def floats(dtype: str, shape: Any) -> st.SearchStrategy[np.ndarray]:
    width: Any = np.dtype(dtype).itemsize * 8
    return hnp.arrays(dtype, shape, elements=st.floats(-1000, 1000, width=width))


@settings(max_examples=150)
@given(data=st.data(), dtype=st.sampled_from(["float16", "float32", "float64"]), block=st.integers(1, 50))
def test_every_figure_is_what_numpy_says_of_the_whole(data: st.DataObject, dtype: str, block: int) -> None:
    a = data.draw(floats(dtype, st.integers(1, 40)))
    b = data.draw(floats(dtype, a.shape))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(numbers, "BLOCK", block)
        found = measure(a, b, TOLERANCE)
    x, y = a.astype("float64"), b.astype("float64")
    gaps = np.abs(x - y)
    assert found.equal == bool(np.array_equal(a, b))
    if found.equal:
        assert (found.max_abs, found.mismatched, found.beyond, found.ulp_max) == (0, 0, 0, 0)
        return
    beyond = gaps > TOLERANCE[1] + TOLERANCE[0] * np.abs(x)
    assert found.max_abs == gaps.max()
    assert gaps[found.at] == gaps.max()
    assert found.mismatched == beyond.sum()
    assert found.beyond == gaps[beyond].max(initial=0)
    assert found.largest == np.abs(x).max()
    if np.linalg.norm(x) > 1e-9 and np.linalg.norm(y) > 1e-9:
        assert found.cosine == pytest.approx(x @ y / np.linalg.norm(x) / np.linalg.norm(y), abs=1e-6)
    if np.abs(x).min() > 1e-30:
        assert found.max_rel == pytest.approx((gaps / np.abs(x)).max())


@settings(max_examples=150)
@given(data=st.data(), rtol=st.sampled_from([0.0, 1e-3, 0.1]), atol=st.sampled_from([0.0, 1e-5, 0.5]))
def test_the_smallest_tolerance_lets_all_pass_and_hardly_less_does_not(
    data: st.DataObject, rtol: float, atol: float
) -> None:
    a, b = (data.draw(hnp.arrays("float64", 8, elements=st.floats(-100, 100))) for _ in range(2))
    found = measure(a, b, (rtol, atol))
    least = smallest((rtol, atol), found.factor, found.extra)
    assert measure(a, b, least).mismatched == 0
    less = (least[0] * 0.99, least[1] * 0.99)
    if not found.equal and found.max_abs > 1e-300 and np.isfinite(least).all():
        assert measure(a, b, less).mismatched > 0 or least == (0.0, 0.0)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_ulps_count_the_numbers_in_between(dtype: str) -> None:
    one = np.array([1.0, -1.0, 0.0, 5.0], dtype)
    up = one
    for _ in range(3):
        up = np.nextafter(up, np.array(np.inf, dtype))
    found = measure(one, up, (0, 0))
    assert (found.ulp_max, percentile(found.ulps, 0.99)) == (3, 3)
    zeros = measure(
        np.array([0.0, 1.0], dtype), np.array([-0.0, np.nextafter(np.array(1, dtype), np.array(0, dtype))]), (0, 0)
    )
    assert zeros.ulp_max == 1, "both zeros are one number"
    around = measure(
        np.nextafter(zero := np.zeros(1, dtype), -np.ones(1, dtype)), np.nextafter(zero, np.ones(1, dtype)), (0, 0)
    )
    assert around.ulp_max == 2


def test_the_99th_percentile_leaves_out_one_of_a_hundred() -> None:
    a = np.ones(200, "float32")
    b = np.where(np.arange(200) < 197, np.nextafter(a, np.float32(2)), a)
    b[:2] = 2.0
    found = measure(a, b, (0, 0))
    assert found.ulp_max == 1 << 23
    assert percentile(found.ulps, 0.99) == 1
    assert percentile(found.ulps, 0.999) == pytest.approx(1 << 23, rel=0.03)
    assert percentile({}, 0.99) == 0


@given(st.integers(0, (1 << 62) - 1))
def test_large_counts_of_ulps_are_kept_within_three_percent(steps: int) -> None:
    a, b = np.array([np.uint64(0)]).view("float64"), np.array([np.uint64(steps)]).view("float64")
    found = measure(a, b, (0, 0))
    if not np.isfinite(b[0]) or found.equal:
        return
    assert found.ulp_max == steps
    assert percentile(found.ulps, 1.0) == pytest.approx(steps, rel=0.033)


def test_one_of_another_type_is_measured_in_olds_ulps() -> None:
    found = measure(np.array([1.0], "float16"), np.array([1.0 + 2**-10], "float64"), (0, 0))
    assert (found.ulp_max, found.max_abs) == (1, 2**-10)


@pytest.mark.parametrize(
    ("old", "new", "nan", "inf"),
    [
        (1.0, np.nan, True, False),
        (np.nan, 1.0, False, False),
        (1.0, np.inf, False, True),
        (np.inf, 1.0, False, False),
        (np.inf, -np.inf, False, False),
        (np.nan, np.inf, False, True),
    ],
)
def test_nan_and_infinity_that_move_are_beyond_every_tolerance(old: float, new: float, nan: bool, inf: bool) -> None:
    found = measure(np.array([0.0, 1.0, old], "float32"), np.array([0.0, 1.5, new], "float32"), (10.0, 10.0))
    assert (found.nan, found.inf, found.max_abs, found.at) == (nan, inf, math.inf, 2)
    assert (found.mismatched, found.beyond) == (1, math.inf)
    assert smallest((1.0, 1.0), found.factor, found.extra) == (math.inf, math.inf)


def test_numbers_too_large_to_square_do_no_harm() -> None:
    a = np.array([1e200, -1e200])
    found = measure(a, a * 1.5, TOLERANCE)
    assert (found.cosine, found.mismatched, found.max_rel) == (1.0, 2, 0.5)


@pytest.mark.parametrize(
    ("old", "new", "cosine"), [((0, 0), (0, 1), 0.0), ((1, 0), (0, 1), 0.0), ((1, 1), (-1, -1), -1.0)]
)
def test_cosine_at_its_ends(old: tuple[float, ...], new: tuple[float, ...], cosine: float) -> None:
    assert measure(np.array(old, "float32"), np.array(new, "float32"), TOLERANCE).cosine == pytest.approx(cosine)


def test_a_large_output_is_not_copied_whole() -> None:
    a = np.random.default_rng(0).normal(size=(8, 1 << 20)).astype("float32")
    b = a + np.float32(0.01)
    tracemalloc.start()
    try:
        measure(a, b, TOLERANCE)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < a.nbytes / 4
