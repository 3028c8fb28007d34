"""A golden case is a value that is told apart by identity: arrays have no plain equality."""

from __future__ import annotations

import numpy as np
import pytest

from gitmodel.bundle import yamlio
from gitmodel.bundle.golden import GoldenCase, Slice


def test_a_case_is_frozen_and_equal_to_itself_alone() -> None:
    values = {"x": np.ones(2)}
    case, twin = GoldenCase("a/0", values, {}), GoldenCase("a/0", values, {})
    assert case != twin
    assert len({case, twin, case}) == 2
    with pytest.raises(AttributeError):
        case.name = "b"  # type: ignore[misc]  # that it cannot be set is what is tested


# Slices ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value", [Slice("country=DE"), Slice("no", 0.95), Slice("1e3", 1.0, 0.0), Slice("ä: b", None, 0.5)]
)
def test_a_slice_comes_back_from_its_file(value: Slice) -> None:
    assert Slice.from_yaml(value.to_yaml(), "slice.yaml") == value


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("agreement: 0.9", "names no slice"),
        ("slice: 3", "names no slice"),
        ("slice: ' '", "names no slice"),
        ("slice: a\nagreement: 1.5", "agreement is 1.5"),
        ("slice: a\nagreement: high", "finite number"),
        ("slice: a\ndistance: -1", "distance is -1"),
        ("slice: a\ntolerance: 1", "unknown key 'tolerance'"),
        ("- a", "must be a mapping"),
    ],
)
def test_a_slice_that_says_something_else_is_refused(text: str, said: str) -> None:
    with pytest.raises(yamlio.InvalidYaml, match=said):
        Slice.from_yaml(text, "golden/de/slice.yaml")
