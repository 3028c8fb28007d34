"""What the card says of values: its YAML and back, its defaults, and what it must not say."""

from __future__ import annotations

import pytest
from hypothesis import given

from gitmodel.bundle import yamlio
from gitmodel.bundle.card import Card
from gitmodel.bundle.meaning import Meaning
from gitmodel.bundle.yamlio import InvalidYaml
from tests.bundle import strategies


def read(body: str) -> Meaning:
    return Card.from_yaml(f"schema_version: 1\nname: fraud\n{body}", "model.yaml").meaning


def test_the_exact_text_of_a_card_that_says_it_all() -> None:
    meaning = Meaning(
        preprocessing={"where": "graph", "mean": [0.5, 0.25]},
        postprocessing={"threshold": 0.5},
        labels={"topic": "topics.txt"},
        labels_extensible=True,
        meaning={"scores": "probabilities"},
        state={"h_out": "h_in"},
        inference_params=("temperature",),
    )
    text = Card("fraud", meaning=meaning).to_yaml()
    assert text == (
        "schema_version: 1\nname: fraud\nsignature: default\n"
        "preprocessing:\n  where: graph\n  mean: [0.5, 0.25]\n"
        "postprocessing:\n  threshold: 0.5\n"
        "labels:\n  topic: topics.txt\n"
        "meaning:\n  scores: probabilities\n"
        "state:\n  h_out: h_in\n"
        "labels_extensible: true\n"
        "inference_params: [temperature]\n"
    )
    assert Card.from_yaml(text, "model.yaml").meaning == meaning


@given(strategies.meanings)
def test_a_meaning_is_read_as_it_was_written(meaning: Meaning) -> None:
    read_back = Meaning.from_dict(yamlio.load_mapping(yamlio.dump(meaning.to_dict()), "f"), "f")
    assert read_back == meaning
    assert strategies.same(read_back.to_dict(), meaning.to_dict())


def test_what_is_not_said_has_its_default() -> None:
    assert read("") == Meaning()
    assert Meaning().to_dict() == {}


def test_the_client_prepares_unless_the_card_says_otherwise() -> None:
    assert read("preprocessing: {mean: 0.5}").where == "client"
    assert read("preprocessing: {where: graph}").where == "graph"


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("labels_extensible: 1", "labels_extensible must be true or false"),
        ("labels_extensible: yes", "labels_extensible must be true or false"),
        ("preprocessing: [resize]", "preprocessing must be a mapping"),
        ("preprocessing: {where: server}", "preprocessing.where is 'server'"),
        ("preprocessing: {where: {a: b}}", "preprocessing.where is"),
        ("preprocessing: {a: {1: x}}", "preprocessing.a has a key 1 that is no text"),
        ("postprocessing: {a: [1.0, .nan]}", r"postprocessing.a\[1\] is no finite number"),
        ("postprocessing: {a: .inf}", "postprocessing.a is no finite number"),
        ("labels: [a.txt]", "labels must map names to texts"),
        ("labels: {topic: 3}", "labels must map names to texts"),
        ("labels: {topic: ../../secret}", "labels.topic: path '../../secret' leaves its folder"),
        ("labels: {topic: /etc/passwd}", "labels.topic: path '/etc/passwd' leaves its folder"),
        ("meaning: {1: a}", "meaning must map names to texts"),
        ("state: {a: x, b: x}", "state names an input twice"),
        ("inference_params: temperature", "inference_params must be a list of names"),
        ("inference_params: [1]", "inference_params must be a list of names"),
        ("preprocesing: {}", "unknown key 'preprocesing'"),
    ],
)
def test_what_a_card_must_not_say(body: str, said: str) -> None:
    with pytest.raises(InvalidYaml, match=said):
        read(body)
