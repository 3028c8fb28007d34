"""How NEW's answers are read by a client who knows OLD's classes, and which facts take values out of comparison."""

from __future__ import annotations

import numpy as np
import pytest

from gitmodel.compat import bridge
from gitmodel.compat.bridge import Bridge
from gitmodel.compat.changes import Change, Comparison
from tests.compat.conftest import signature

GROWN = Bridge(classes={"*": (2, 3)})
OLD = np.zeros((4, 2))


def test_classes_that_came_after_are_left_out() -> None:
    new = np.arange(12).reshape(4, 3)
    assert GROWN.answer("y", OLD, new).tolist() == new[:, :2].tolist()
    assert Bridge(classes={"y": (2, 3)}).answer("y", OLD, new).shape == (4, 2)
    across = np.arange(12).reshape(3, 4)
    assert GROWN.answer("y", OLD.T, across).tolist() == across[:2].tolist()


@pytest.mark.parametrize("new", [np.zeros((4, 2)), np.zeros((4, 4)), np.zeros((4, 3, 1)), np.zeros(3)])
def test_what_did_not_grow_by_just_these_stays(new: np.ndarray) -> None:
    assert GROWN.answer("y", OLD, new) is new


def test_without_a_promise_nothing_is_left_out() -> None:
    new = np.zeros((4, 3))
    assert Bridge().answer("y", OLD, new) is new
    assert Bridge(classes={"z": (2, 3)}).answer("y", OLD, new) is new


def test_maps_of_classes_lose_those_that_came_after_too() -> None:
    old, new = [{"a": 0.5, "b": 0.5}], [{"a": 0.25, "b": 0.25, "c": 0.5}]
    assert GROWN.answer("y", old, new) == [{"a": 0.25, "b": 0.25}]
    for other in ([{"a": 1.0, "c": 0.0, "d": 0.0}], [{"a": 1.0, "b": 0.0, "c": 0.0, "d": 0.0}], [1.0], [1.0, 2.0]):
        assert GROWN.answer("y", old, other) == other


def appended(**args: object) -> Change:
    return Change("label-appended", "labels", None, "c", {"index": 2, **args})


def test_only_what_clients_were_told_becomes_part_of_the_bridge() -> None:
    comparison = Comparison((), {}, {})
    told = appended(extensible=True, classes=[2, 3])
    assert bridge.over(comparison, [told]).classes == {"*": (2, 3)}
    assert bridge.over(comparison, [appended(extensible=True, classes=[2, 3], output="y")]).classes == {"y": (2, 3)}
    assert bridge.over(comparison, [appended()]).classes == {}


def test_outputs_of_another_class_list_are_not_compared() -> None:
    both = signature("(float[n,4] x) => (float[n,4] y, float[n,4] z)")
    assert bridge.incomparable(both, [appended()]) == {"y", "z"}
    assert bridge.incomparable(both, [appended(output="z")]) == {"z"}
    assert bridge.incomparable(both, [appended(extensible=True, classes=[2, 3])]) == set()
    assert bridge.incomparable(both, [Change("labels-extensible-changed", "card")]) == set()
    grown = Change("output-dim-changed", "outputs.y[1]", 2, 3, {"name": "y", "axis": 1})
    assert bridge.incomparable(both, [grown]) == {"y"}
    assert bridge.incomparable(both, [Change(grown.kind, grown.at, 2, 3, {"name": "y", "extensible": True})]) == set()
