"""Facts about what cards and parameters say: who must do something else, and what changes nothing for anybody."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given

from gitmodel.bundle.meaning import Meaning
from gitmodel.bundle.signature import Signature
from gitmodel.compat import meaning, rules
from gitmodel.compat.changes import Change
from gitmodel.compat.rules import Severity
from gitmodel.versions import Bump
from tests.bundle import strategies
from tests.compat.test_changes import X, spec

SIGNATURE = Signature((X,), (spec("y", "n", 3),))


def facts(old: Meaning, new: Meaning) -> list[Change]:
    return list(meaning.compare(old, new, SIGNATURE))


def judged(old: Meaning, new: Meaning) -> list[tuple[str, Severity, Bump]]:
    return [(f.rule, f.severity, f.bump["named"]) for f in map(rules.judge, facts(old, new))]


ERROR, WARNING, INFO = Severity.ERROR, Severity.WARNING, Severity.INFO


@pytest.mark.parametrize(
    ("old", "new", "severity", "bump"),
    [
        ({"mean": 0.5}, {"mean": 0.25}, ERROR, Bump.MAJOR),
        ({"where": "client", "mean": 0.5}, {}, ERROR, Bump.MAJOR),
        ({"where": "client"}, {"where": "graph"}, ERROR, Bump.MAJOR),
        ({"where": "graph"}, {"where": "client"}, ERROR, Bump.MAJOR),
        ({"where": "graph", "mean": 0.5}, {"where": "graph", "mean": 0.25}, WARNING, Bump.MINOR),
        ({"where": "graph", "mean": 0.5}, {}, WARNING, Bump.MINOR),
        ({}, {"mean": 0.5}, WARNING, Bump.MINOR),
        ({}, {"where": "graph", "mean": 0.5}, WARNING, Bump.MINOR),
    ],
)
def test_who_prepares_decides_what_another_preparation_owes(
    old: dict[str, Any], new: dict[str, Any], severity: Severity, bump: Bump
) -> None:
    found = judged(Meaning(preprocessing=old), Meaning(preprocessing=new))
    assert found == [("preprocessing-changed", severity, bump)]


def test_a_client_that_is_named_where_it_was_understood_is_no_change() -> None:
    assert facts(Meaning(preprocessing={"mean": 1}), Meaning(preprocessing={"mean": 1, "where": "client"})) == []


def test_what_changed_is_named_down_to_the_key() -> None:
    old = {"resize": {"width": 224, "height": 224}, "mean": [0.5], "crop": True}
    new = {"resize": {"width": 256, "height": 224}, "mean": [0.5], "pad": 3}
    (change,) = facts(Meaning(preprocessing=old), Meaning(preprocessing=new))
    assert change.args["what"] == "resize.width 224 to 256, crop True to nothing, pad nothing to 3"
    assert (change.old, change.new) == ({"resize.width": 224, "crop": True}, {"resize.width": 256, "pad": 3})


def test_a_long_list_of_changes_is_cut_in_the_message_and_whole_in_the_fact() -> None:
    (change,) = facts(
        Meaning(postprocessing={f"k{i}": 0 for i in range(9)}), Meaning(postprocessing={f"k{i}": 1 for i in range(9)})
    )
    assert change.args["what"].endswith("k5 0 to 1 and 3 more")
    assert len(change.new) == 9


def test_thresholds_of_the_card() -> None:
    old, new = Meaning(postprocessing={"threshold": 0.5}), Meaning(postprocessing={"threshold": 0.25})
    assert judged(old, new) == [("postprocessing-changed", WARNING, Bump.MINOR)]
    assert judged(old, Meaning()) == [("postprocessing-changed", WARNING, Bump.MINOR)]
    assert judged(Meaning(), old) == []


def test_words_for_values_concern_the_side_they_are_said_of() -> None:
    old = Meaning(meaning={"x": "RGB", "y": "logits"})
    found = facts(old, Meaning(meaning={"x": "BGR", "y": "probabilities"}))
    assert [(c.kind, c.at, c.old, c.new) for c in found] == [
        ("input-semantics-changed", "inputs.x", "RGB", "BGR"),
        ("output-semantics-changed", "outputs.y", "logits", "probabilities"),
    ]
    assert facts(old, Meaning(meaning={"y": " Logits", "x": "rgb\n"})) == []
    assert facts(Meaning(), old) == []


def test_words_that_are_withdrawn_want_a_look() -> None:
    old = Meaning(meaning={"x": "RGB", "y": "logits"})
    assert judged(old, Meaning()) == [
        ("input-semantics-changed", WARNING, Bump.MINOR),
        ("output-semantics-changed", WARNING, Bump.MINOR),
    ]


def test_a_promise_about_new_classes_is_told_in_both_directions() -> None:
    yes = Meaning(labels_extensible=True)
    assert judged(Meaning(), yes) == [("labels-extensible-changed", WARNING, Bump.MINOR)]
    assert judged(yes, Meaning()) == [("labels-extensible-changed", INFO, Bump.NONE)]


@given(strategies.meanings)
def test_a_card_against_itself_says_nothing(said: Meaning) -> None:
    assert facts(said, said) == []


@given(strategies.meanings, strategies.meanings)
def test_every_fact_about_cards_has_a_rule_and_a_message(old: Meaning, new: Meaning) -> None:
    for change in facts(old, new):
        assert rules.judge(change).message


# Parameters -----------------------------------------------------------------------------------------------------------


def params(old: dict[str, Any], new: dict[str, Any], *acting: str) -> list[tuple[str, str]]:
    return [(change.kind, change.at) for change in meaning.compare_params(old, new, acting)]


def test_parameters_of_training_are_one_fact_and_those_that_act_one_each() -> None:
    old = {"depth": 3, "rate": 0.1, "temperature": 1.0, "beam": {"size": 4, "penalty": 1}}
    new = {"depth": 4, "rate": 0.2, "temperature": 0.5, "beam": {"size": 8, "penalty": 2}}
    assert params(old, new, "temperature", "beam") == [
        ("inference-hyperparameter-changed", "params.beam.penalty"),
        ("inference-hyperparameter-changed", "params.beam.size"),
        ("inference-hyperparameter-changed", "params.temperature"),
        ("hyperparameter-changed", "params.yaml"),
    ]


def test_a_parameter_is_named_whole() -> None:
    assert params({"temperature_decay": 1}, {"temperature_decay": 2}, "temperature") == [
        ("hyperparameter-changed", "params.yaml")
    ]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"a": 1}, {"a": True}),
        ({"a": None}, {}),
        ({"a": {}}, {}),
        ({"a": [1]}, {"a": [2]}),
        ({"a": 1}, {"a": {"b": 1}}),
    ],
)
def test_values_that_python_calls_equal_are_told_apart(old: dict[str, Any], new: dict[str, Any]) -> None:
    assert params(old, new) == [("hyperparameter-changed", "params.yaml")]


def test_another_order_and_one_and_one_point_zero_are_no_change() -> None:
    assert params({"a": 1, "b": {"c": 2}}, {"b": {"c": 2.0}, "a": 1}) == []
