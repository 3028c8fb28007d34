"""A golden case is a value that is told apart by identity: arrays have no plain equality."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from gitmodel.bundle.golden import GoldenCase


def test_a_case_is_frozen_and_equal_to_itself_alone() -> None:
    values = {"x": np.ones(2)}
    case, twin = GoldenCase("a/0", values, {}), GoldenCase("a/0", values, {})
    assert case != twin
    assert len({case, twin, case}) == 2
    with pytest.raises(dataclasses.FrozenInstanceError):
        case.name = "b"  # type: ignore[misc]  # that it cannot be set is what is tested
