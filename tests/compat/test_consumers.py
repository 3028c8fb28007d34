"""Consumers: their YAML, whom a break hits, and that nobody is spared by a list that may be incomplete."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gitmodel.bundle import yamlio
from gitmodel.bundle.yamlio import InvalidYaml
from gitmodel.compat import changes, consumers, rules
from gitmodel.compat.changes import Change
from gitmodel.compat.consumers import Consumer, Listed
from gitmodel.compat.rules import PROFILES, Finding, Severity
from gitmodel.versions import Bump
from tests.compat.conftest import signature

OLD = signature("(float[n,4] x, float[n,1] age) => (float[n,4] y, float[n,4] z)")
SHOP = Consumer("shop", "fraud", ("x", "age"), ("y",))
BANK = Consumer("bank", "fraud", ("x", "age"), ("z",), labels=False)
INDEX = Consumer("index", "fraud", profile="positional")


def told(new: str, *given_: Consumer, complete: bool = True, profile: str = "named") -> list[Finding]:
    found = [rules.judge(change) for change in changes.compare(OLD, signature(new)).changes]
    return consumers.apply(found, Listed(given_, complete), OLD, profile)


def summary(findings: Sequence[Finding]) -> dict[str, tuple[str, str, tuple[str, ...]]]:
    return {f.rule: (str(f.severity), str(f.bump["named"]), f.hits) for f in findings}


WITHOUT_Z = "(float[n,4] x, float[n,1] age) => (float[n,4] y)"


def test_a_break_names_whom_it_hits() -> None:
    (found,) = told(WITHOUT_Z, SHOP, BANK)
    assert (found.severity, found.hits, found.spared) == (Severity.ERROR, ("bank",), False)
    assert found.message == "output 'z' is gone; it hits bank"


def test_a_break_that_hits_none_of_a_complete_list_is_downgraded_and_says_so() -> None:
    (found,) = told(WITHOUT_Z, SHOP)
    assert (found.severity, found.bump, found.spared) == (Severity.WARNING, dict.fromkeys(PROFILES, Bump.MINOR), True)
    assert found.message == "output 'z' is gone; it does not hit the one listed consumer, shop"
    (found,) = told(WITHOUT_Z, SHOP, Consumer("till", "fraud", ("x", "age"), ()))
    assert found.message.endswith("it hits none of the 2 listed consumers")


@pytest.mark.parametrize(
    ("given_", "complete"),
    [
        ((), True),
        ((SHOP,), False),
        ((SHOP, Consumer("typo", "fraud", ("x", "age"), ("scores",))), True),
        ((SHOP, Consumer("typo", "fraud", ("x", "age", "b"), ())), True),
        ((Consumer("impossible", "fraud", ("x",), ("y",)),), True),
    ],
    ids=["nobody listed", "no promise", "an output that is not", "an input that is not", "an input too few"],
)
def test_silence_is_not_bought_by_a_list_that_may_be_incomplete(given_: tuple[Consumer, ...], complete: bool) -> None:
    found = told(WITHOUT_Z, *given_, complete=complete)
    assert (found[0].severity, found[0].bump["named"], found[0].spared) == (Severity.ERROR, Bump.MAJOR, False)
    wrong = [finding.rule for finding in found[1:]]
    assert wrong == ["consumer-mismatch"] * (complete and bool(given_))


def test_a_consumer_who_says_nothing_uses_everything() -> None:
    (found,) = told(WITHOUT_Z, SHOP, Consumer("all", "fraud"))
    assert found.hits == ("all",)


def test_what_is_asked_of_everybody_hits_everybody() -> None:
    new = "(float[n,4] x, float[n,1] age, float[n,1] more) => (float[n,4] y, float[n,4] z)"
    assert told(new, SHOP, BANK)[0].hits == ("shop", "bank")


def test_who_counts_places_is_hit_though_others_are_asked_about() -> None:
    new = "(float[n,1] age, float[n,4] x) => (float[n,4] y, float[n,4] z)"
    assert summary(told(new, SHOP)) == {"input-reordered": ("info", "none", ())}
    (found,) = told(new, SHOP, INDEX)
    assert (found.severity, found.bump["named"], found.hits) == (Severity.ERROR, Bump.MAJOR, ("index",))


def test_who_counts_places_does_not_notice_a_new_name() -> None:
    new = "(float[n,4] image, float[n,1] age) => (float[n,4] y, float[n,4] z)"
    (found,) = told(new, INDEX)
    assert (found.severity, found.spared) == (Severity.WARNING, True)
    assert told(new, INDEX, SHOP)[0].hits == ("shop",)


def finding(kind: str, at: str, **args: object) -> Finding:
    return rules.judge(Change(kind, at, "OLD", "NEW", {"name": at.partition(".")[2], **args}))


@pytest.mark.parametrize(
    ("found", "hits"),
    [
        (finding("input-became-required", "inputs.b"), ("shop", "bank")),  # who says nothing is in doubt
        (finding("label-renamed", "labels", index=1), ("shop", "feeds b")),
        (finding("model-removed", "model"), ("shop", "bank", "feeds b")),
        (finding("output-dim-changed", "outputs.z[1]", name="z", axis=1), ("bank",)),
        (
            finding("new-error-on-accepted-input", "behaviour", count=1, worst="a", error="b"),
            ("shop", "bank", "feeds b"),
        ),
    ],
    ids=lambda value: value.rule if isinstance(value, Finding) else "",
)
def test_whom_a_finding_hits(found: Finding, hits: tuple[str, ...]) -> None:
    feeds = Consumer("feeds b", "fraud", ("x", "age", "b"), ("y",))
    bank = Consumer("bank", "fraud", None, ("z",), labels=False)
    (told_,) = consumers.apply([found], Listed((SHOP, bank, feeds)), None, "named")
    assert told_.hits == hits


def test_what_is_wrong_with_the_repository_is_nobodys_in_particular() -> None:
    stale = rules.judge(Change("signature-stale", "signature", {}, {}, {"label": "fraud", "side": "new"}))
    assert consumers.apply([stale], Listed((SHOP,), True), OLD, "named") == [stale]


def test_many_are_counted() -> None:
    many = [Consumer(f"c{number}", "fraud") for number in range(8)]
    assert told(WITHOUT_Z, *many)[0].message.endswith("it hits c0, c1, c2, c3, c4 and 3 more")


NAMES = st.none() | st.lists(st.text(min_size=1)).map(tuple)
CONSUMERS = st.builds(
    Consumer, st.text(min_size=1), st.text(min_size=1), NAMES, NAMES, st.sampled_from(PROFILES), st.booleans()
)


@given(CONSUMERS)
def test_a_consumer_is_read_as_it_was_written(consumer: Consumer) -> None:
    assert Consumer.from_yaml(yamlio.dump(consumer.to_dict()), "t") == consumer


def test_in_the_models_folder_the_model_need_not_be_named() -> None:
    assert Consumer.from_yaml("name: shop\n", "t", "fraud") == Consumer("shop", "fraud")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("model: fraud", "has no name"),
        ("name: shop", "has no model"),
        ("name: shop\nmodel: fraud\ninput: [x]", "unknown key 'input'"),
        ("name: shop\nmodel: fraud\ninputs: x", "must be a list of names"),
        ("name: shop\nmodel: fraud\noutputs: [1]", "must be a list of names"),
        ("name: shop\nmodel: fraud\nprofile: strict", "unknown profile 'strict'"),
        ("name: shop\nmodel: fraud\nlabels: no", "labels must be true or false"),
        ("- shop", "must be a mapping"),
    ],
)
def test_a_consumer_is_read_strictly(text: str, said: str) -> None:
    with pytest.raises(InvalidYaml, match=said):
        Consumer.from_yaml(text, "consumers/shop.yaml")
