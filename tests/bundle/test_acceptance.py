"""Who accepted outputs and why: read strictly, written the same every time, the newest word on a case alone."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gitmodel.bundle import acceptance
from gitmodel.bundle.acceptance import Acceptance
from gitmodel.bundle.yamlio import InvalidYaml

#: What it runs again and again is measured by the tests of each part; tracing it would double its time.
pytestmark = pytest.mark.no_cover

JUNE = Acceptance((0, 3), "Trained on June", "Ada <ada@example.org>", "sha256:aa")
_text = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cs", "Cc"], exclude_characters="\u2028\u2029\ufeff\ufffe\uffff")
)
_entries = st.lists(st.builds(Acceptance, st.lists(st.integers(0, 999)).map(tuple), _text, _text, _text), max_size=3)


@given(_entries)
def test_what_is_written_is_read(entries: list[Acceptance]) -> None:
    assert acceptance.read(acceptance.dump(entries), "a") == tuple(entries)


def test_the_file_is_short_and_plain() -> None:
    assert acceptance.dump([JUNE]) == (
        "- cases: [0, 3]\n  reason: Trained on June\n  by: Ada <ada@example.org>\n  weights: sha256:aa\n"
    )


def test_one_reason_for_the_same_weights_is_one_entry() -> None:
    assert acceptance.add([JUNE], Acceptance((2, 0), JUNE.reason, JUNE.by, JUNE.weights)) == (
        Acceptance((0, 2, 3), JUNE.reason, JUNE.by, JUNE.weights),
    )


def test_the_newest_word_on_a_case_replaces_the_one_before() -> None:
    july = Acceptance((3,), "Trained on July", "Bob <bob@example.org>", "sha256:bb")
    assert acceptance.add([JUNE], july) == (Acceptance((0,), JUNE.reason, JUNE.by, JUNE.weights), july)
    both = Acceptance((0, 3), july.reason, july.by, july.weights)
    assert acceptance.add([JUNE], both) == (both,)


def test_a_word_is_taken_back_for_its_own_weights_alone() -> None:
    assert acceptance.without([JUNE], 3, "sha256:bb") == (JUNE,)
    assert acceptance.without([JUNE], 3, "sha256:aa") == (Acceptance((0,), JUNE.reason, JUNE.by, JUNE.weights),)
    assert acceptance.without([Acceptance((3,), "r", "b", "w")], 3, "w") == ()


@pytest.mark.parametrize(
    "text",
    [
        "cases: []", "- 3", "- {cases: 3, reason: r, by: b, weights: w}", "- {cases: [true], reason: r, by: b, weights: w}",
        "- {cases: ['3'], reason: r, by: b, weights: w}", "- {cases: [3], reason: 4, by: b, weights: w}",
        "- {cases: [3], by: b, weights: w}", "- {cases: [3], reason: r, by: b, weights: w, when: now}",
    ],
)  # fmt: skip
def test_anything_else_is_refused_by_the_name_of_its_file(text: str) -> None:
    with pytest.raises(InvalidYaml, match="fraud: accepted"):
        acceptance.read(text, "fraud: accepted.yaml")


def test_an_empty_file_says_nothing() -> None:
    assert acceptance.read("", "a") == ()
