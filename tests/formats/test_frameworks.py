"""The check of a conversion: what is the same but for rounding passes, what differs is refused with how far it differs."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import pytest

from gitmodel import runtime
from gitmodel.bundle.golden import GoldenCase
from gitmodel.formats import frameworks
from gitmodel.formats.frameworks import ConversionDiffers
from gitmodel.formats.source import Source

f4, f8, i8 = (partial(np.array, dtype=dtype) for dtype in ("float32", "float64", "int64"))


def checked(given: Mapping[str, Any], expected: Mapping[str, Any]) -> str:
    """What ``check`` says of an ONNX model that gives ``given``; '' when it is content."""
    source = Source("onnx", "", (), cases=(GoldenCase("example", {}, expected),))
    try:
        frameworks.check(source, lambda _: given, "the Net")
    except ConversionDiffers as error:
        return error.message
    return ""


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (f4([1, 2, 3]), f8([1, 2.0001, 3])),
        (f4([[1], [2]]), f8([1, 2])),
        (f4([np.nan, np.inf]), f8([np.nan, np.inf])),
        (f4([1e6, 2.0]), f8([1e6, 1.0])),  # what cancels out is as inexact as what it came from
        (np.array([1.0], "float16"), f4([1.009])),
        (i8([1, 2]), np.array([1, 2], "int32")),
        (np.array(["a", "b"], object), np.array(["a", "b"])),
        (f4([[-2, 2], [3, -3]]), f8([2, -3])),  # scikit-learn scores one class of two
        ([f4([1]), f4([2, 3])], [f8([1]), f8([2, 3])]),
        (np.zeros((0, 3), "float32"), np.zeros((0, 3))),
    ],
)  # fmt: skip
def test_what_is_the_same_but_for_rounding_passes(given: Any, expected: Any) -> None:
    assert checked({"y": given}, {"y": expected}) == ""


@pytest.mark.parametrize(
    ("given", "expected", "words"),
    [
        (f4([1, 2, 3]), f8([1, 2.5, 3]), "differs in 1 of 3 values, by up to 0.5"),
        (f4([1, np.nan]), f8([1, 2]), "differs in 1 of 2 values"),
        (f4([1, np.inf]), f8([1, 2]), "differs in 1 of 2 values, by up to inf"),
        (i8([1, 2]), i8([1, 4]), "differs in 1 of 2 values, by up to 2"),
        (np.array(["a", "b"], object), np.array(["a", "c"]), "differs in 1 of 2 values"),
        (f4([[1, 2]]), f8([1, 2, 3]), "has the shape [1, 2], not [3]"),
        ([f4([1])], f8([1]), "is a list of 1"),
        ([f4([1]), f4([2])], [f8([1]), f8([5])], "by up to 3"),
    ],
)  # fmt: skip
def test_what_differs_is_refused_with_the_largest_difference(given: Any, expected: Any, words: str) -> None:
    said = checked({"y": given}, {"y": expected})
    assert said.startswith("the ONNX model made of the Net does not give what the Net gives: 'y' ")
    assert words in said


def test_a_label_may_fall_the_other_way_only_where_the_scores_agree() -> None:
    scores, labels = np.full((20, 2), 0.5), np.zeros(20, "int64")
    tied = labels.copy()
    tied[3] = 1
    assert checked({"label": tied, "p": scores.astype("float32")}, {"label": labels, "p": scores}) == ""
    assert "'label'" in checked({"label": tied}, {"label": labels})
    assert "'label'" in checked({"label": tied, "p": scores + 0.1}, {"label": labels, "p": scores})
    assert "'label' differs in 20 of 20" in checked({"label": labels + 1, "p": scores}, {"label": labels, "p": scores})


def test_a_model_that_does_not_take_the_example_is_refused() -> None:
    def run(inputs: Mapping[str, np.ndarray]) -> dict[str, Any]:
        raise runtime.RunFailed("Got: 5 Expected: 4")

    source = Source("onnx", "", (), cases=(GoldenCase("example", {}, {}),))
    with pytest.raises(ConversionDiffers, match=r"the Net does not take the example \(Got: 5 Expected: 4\)"):
        frameworks.check(source, run, "the Net")
