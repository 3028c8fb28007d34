"""The type of the weights behind an equal signature."""

from __future__ import annotations

import pytest

from gitmodel.bundle.lock import TensorEntry
from gitmodel.compat.precision import compare_precision
from tests.compat.conftest import signature

SAME = signature("(float[n,4] x) => (float[n,4] y)")


def tensors(**dtypes: str) -> list[TensorEntry]:
    """Tensors of 100 elements, called ``a``, ``b`` ..; ``_`` and a number ask for another size."""
    return [
        TensorEntry(name.partition("_")[0], dtype, (int(name.partition("_")[2] or 100),), "", "")
        for name, dtype in dtypes.items()
    ]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ({"w": "float32"}, {"w": "float16"}, ("float32", "float16", 1.0)),
        ({"w": "float32"}, {"w_quantized": "int8", "s_4": "float32"}, ("float32", "int8", 100 / 104)),
        ({"w": "float32"}, {"w": "bfloat16"}, ("float32", "bfloat16", 1.0)),
        ({"a": "float32", "b": "float32", "c": "float32"}, {"a": "float16", "b": "float32", "c": "float32"}, ("float32", "float16", 1 / 3)),
        ({"w": "float32"}, {"w": "float32"}, None),
        ({"w": "float32"}, {"w": "float32", "axes_900": "int64"}, None),
        ({"w": "float32", "axes_900": "int64"}, {"w": "float32"}, None),
        ({"w": "float32", "b": "float16"}, {"w": "float32", "c": "float16"}, None),
        ({"w": "float32"}, {"w": "float32", "x_900": "float16"}, None),
        ({"k_1": "float32"}, {"k_1": "float32", "l_1": "float16", "m_1": "float16"}, None),
        ({}, {"w": "float16"}, None),
        ({"w": "float16"}, {"axes": "int64"}, None),
    ],
    ids=["half", "quantized", "brain", "a third", "same", "axes", "axes gone", "mixed", "a default", "numbers", "none", "none left"],
)  # fmt: skip
def test_most_weights_or_some_of_the_same_name(
    old: dict[str, str], new: dict[str, str], expected: tuple[str, str, float] | None
) -> None:
    changes = compare_precision(SAME, SAME, _sized(old), _sized(new))
    assert len(changes) == (expected is not None)
    for change in changes:
        assert expected is not None
        assert (change.old, change.new) == expected[:2]
        assert change.args["share"] == pytest.approx(expected[2])


def _sized(named: dict[str, str]) -> list[TensorEntry]:
    names = {key.replace("_quantized", "q"): value for key, value in named.items()}
    return tensors(**names)


def test_a_signature_of_another_type_says_it_already() -> None:
    half = signature("(float16[n,4] x) => (float16[n,4] y)")
    assert compare_precision(SAME, half, tensors(w="float32"), tensors(w="float16")) == []
