"""Facts about class lists: by index and by text, and what is rightly not said."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gitmodel.compat.labels import compare_labels

#: A busy machine is no failure.
calm = settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])


def labels(old: str, new: str) -> list[tuple[str, object, object, object]]:
    """Facts about two lists of one-letter labels."""
    return [(c.kind, c.old, c.new, c.args["index"]) for c in compare_labels(list(old), list(new))]


@pytest.mark.parametrize(("old", "new"), [("", ""), ("", "abc"), ("abc", "abc")])
def test_the_same_labels_or_new_ones_where_none_were_say_nothing(old: str, new: str) -> None:
    assert labels(old, new) == []


def test_labels_at_the_end_are_appended_each_of_them() -> None:
    assert labels("ab", "abc") == [("label-appended", None, "c", 2)]
    assert labels("ab", "abcd") == [("label-appended", None, "c", 2), ("label-appended", None, "d", 3)]


def test_a_label_before_others_is_inserted() -> None:
    assert labels("ab", "xab") == [("label-inserted", None, "x", 0)]
    assert labels("ab", "axb") == [("label-inserted", None, "x", 1)]


def test_a_label_at_the_end_of_a_shifted_list_is_not_called_appended() -> None:
    assert ("label-inserted", None, "x", 0) in labels("ab", "xaby")
    assert all(kind == "label-inserted" for kind, *_ in labels("ab", "xaby"))


def test_a_removed_label() -> None:
    assert labels("abc", "ac") == [("label-removed", "b", None, 1)]


def test_a_label_in_the_place_of_another_is_renamed() -> None:
    assert labels("abc", "axc") == [("label-renamed", "b", "x", 1)]
    assert labels("abc", "xyc") == [("label-renamed", "a", "x", 0), ("label-renamed", "b", "y", 1)]


def test_one_gone_and_one_new_elsewhere_is_no_renaming() -> None:
    assert [kind for kind, *_ in labels("abc", "bcx")] == ["label-removed", "label-inserted"]


def test_labels_in_another_order_are_one_fact_at_the_first_that_differs() -> None:
    assert labels("abcd", "acbd") == [("label-reordered", "b", "c", 1)]


def test_a_label_added_to_a_reordered_list() -> None:
    assert ("label-reordered", "a", "b", 0) in labels("ab", "bac")
    assert len(labels("ab", "bac")) == 2


def test_labels_that_are_gone_altogether_are_one_fact() -> None:
    (change,) = compare_labels(["cat", "dog"], [])
    assert (change.kind, change.old, change.new) == ("labels-removed", 2, 0)


@pytest.mark.parametrize(("old", "new"), [("ab", "abb"), ("abb", "ab"), ("aab", "abb"), ("abab", "baba")])
def test_repeated_labels_are_told_apart_by_their_place(old: str, new: str) -> None:
    assert labels(old, new), "the lists differ, so a client can tell"


@calm
@given(st.lists(st.sampled_from("abcd"), max_size=6), st.lists(st.sampled_from("abcd"), max_size=6))
def test_any_two_label_lists_can_be_compared(old: list[str], new: list[str]) -> None:
    from gitmodel.compat import rules

    changes = compare_labels(old, new)
    assert bool(changes) == bool(old and old != new)
    for change in changes:
        assert rules.judge(change).message
