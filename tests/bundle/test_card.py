"""The model card: its YAML and back, its defaults, and what it must not say."""

from __future__ import annotations

import pytest
from hypothesis import given

from gitmodel.bundle.card import DEFAULT_TOLERANCES, Card, Gates, Group
from gitmodel.bundle.yamlio import InvalidYaml
from tests.bundle import strategies


def read(body: str) -> Card:
    return Card.from_yaml("schema_version: 1\n" + body, "model.yaml")


def test_the_exact_text_of_a_small_card() -> None:
    card = Card("fraud", "Finds fraud.", "onnx", gates=Gates({"*": (1e-3, 0.0)}, 0.95))
    assert card.to_yaml() == (
        "schema_version: 1\n"
        "name: fraud\n"
        "description: Finds fraud.\n"
        "format: onnx\n"
        "signature: default\n"
        "gates:\n"
        "  tolerance:\n"
        "    '*':\n"
        "      rtol: 0.001\n"
        "      atol: 0.0\n"
        "  agreement: 0.95\n"
    )


def test_the_exact_text_of_a_card_with_groups() -> None:
    groups = {"embed": Group(outputs=("e",)), "score": Group(("x", "mask"), ("y", "z"))}
    assert Card("fraud", signatures=groups).to_yaml() == (
        "schema_version: 1\n"
        "name: fraud\n"
        "signature: default\n"
        "signatures:\n"
        "  embed:\n"
        "    outputs: [e]\n"
        "  score:\n"
        "    inputs: [x, mask]\n"
        "    outputs: [y, z]\n"
    )


def test_a_group_names_some_of_either_side_and_all_where_it_names_none() -> None:
    card = read("name: fraud\nsignatures: {embed: {outputs: [e]}, part: {inputs: [x]}, all: {}}")
    assert card.signatures == {"embed": Group((), ("e",)), "part": Group(("x",)), "all": Group()}
    assert Group((), ("e",)).to_dict() == {"outputs": ["e"]}
    assert Group().to_dict() == {}


def test_groups_stay_when_the_source_changes() -> None:
    card = Card("fraud", signatures={"embed": Group(outputs=("e",))})
    assert card.with_source("onnx", "keras").described("new").signatures == card.signatures


def test_what_has_its_default_is_not_written() -> None:
    assert Card("fraud").to_yaml() == "schema_version: 1\nname: fraud\nsignature: default\n"
    assert Gates({"*": (0.5, 0.0)}).to_dict() == {"tolerance": {"*": {"rtol": 0.5, "atol": 0.0}}}


@given(strategies.cards)
def test_a_card_is_read_as_it_was_written(card: Card) -> None:
    text = card.to_yaml()
    assert Card.from_yaml(text, "f") == card
    assert Card.from_yaml(text, "f").to_yaml() == text


def test_what_is_not_said_has_its_default() -> None:
    assert read("name: fraud") == Card("fraud", signature="default", gates=Gates())


def test_what_a_person_wrote_stays_when_the_source_changes() -> None:
    card = Card("fraud", "old", "onnx", "pytorch 2", "MIT").with_source("onnx+hdf5", "")
    assert card == Card("fraud", "old", "onnx+hdf5", "pytorch 2", "MIT")
    assert card.with_source("onnx", "keras").framework == "keras"
    assert card.described("new").description == "new"


def test_a_named_tolerance_goes_before_the_star_and_the_star_before_the_default() -> None:
    gates = Gates({"scores": (0.0, 0.0), "*": (0.5, 0.25)})
    assert gates.tolerance_for("scores", "float32") == (0.0, 0.0)
    assert gates.tolerance_for("other", "float64") == (0.5, 0.25)
    assert Gates({"label": (0.0, 1.0)}).tolerance_for("label", "int64") == (0.0, 1.0)


@pytest.mark.parametrize("dtype", ["int64", "bool", "string"])
def test_a_choice_is_exact_unless_its_output_is_named(dtype: str) -> None:
    assert Gates().tolerance_for("label", dtype) == (0.0, 0.0)
    assert Gates({"*": (0.5, 0.25)}).tolerance_for("label", dtype) == (0.0, 0.0)


@pytest.mark.parametrize("dtype", sorted(DEFAULT_TOLERANCES))
def test_a_float_has_the_tolerance_of_its_type(dtype: str) -> None:
    assert Gates().tolerance_for("scores", dtype) == DEFAULT_TOLERANCES[dtype]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("nmae: fraud", "unknown key 'nmae'"),
        ("name: no\nlicence: 3", "licence must be text, not 3"),
        ("name: [fraud]", "name must be text"),
        ("description: null", "description must be text, not None"),
        ("gates: [a]", "gates must be a mapping"),
        ("gates: {agrement: 1}", "gates has an unknown key 'agrement'"),
        ("gates: {agreement: .nan}", "gates.agreement must be a finite number, not nan"),
        ("gates: {agreement: '0.9'}", "must be a finite number, not '0.9'"),
        ("gates: {agreement: true}", "must be a finite number, not True"),
        ("gates: {agreement: 1.01}", "agreement is 1.01"),
        ("gates: {agreement: -0.1}", "agreement is -0.1"),
        ("gates: {distance: .inf}", "gates.distance must be a finite number, not inf"),
        ("gates: {distance: -0.1}", "distance is -0.1"),
        ("gates: {tolerance: 1e-3}", "gates.tolerance must be a mapping"),
        ("gates: {tolerance: {y: 1e-3}}", "gates.tolerance.y must be a mapping"),
        ("gates: {tolerance: {y: {rtl: 1}}}", "gates.tolerance.y has an unknown key 'rtl'"),
        ("gates: {tolerance: {y: {rtol: .inf}}}", "gates.tolerance.y.rtol must be a finite number, not inf"),
        ("gates: {tolerance: {y: {atol: -1}}}", "gates.tolerance.y is negative"),
        ("signatures: [embed]", "signatures must be a mapping"),
        ("signatures: {embed: [e]}", "signatures.embed must be a mapping"),
        ("signatures: {embed: }", "signatures.embed must be a mapping"),
        ("signatures: {embed: {output: [e]}}", "signatures.embed has an unknown key 'output'"),
        ("signatures: {embed: {outputs: e}}", "signatures.embed.outputs must be a list of names"),
        ("signatures: {embed: {outputs: {e: 1}}}", "signatures.embed.outputs must be a list of names"),
        ("signatures: {embed: {inputs: [1]}}", "signatures.embed.inputs must be a list of names"),
        ("signatures: {embed: {inputs: }}", "signatures.embed.inputs must be a list of names"),
        ("signatures: {embed: {outputs: [e, e]}}", "signatures.embed.outputs names one twice"),
    ],
)
def test_a_bad_card_is_refused_with_its_place(body: str, reason: str) -> None:
    with pytest.raises(InvalidYaml, match=f"^model.yaml.*{reason}"):
        read(body)


@pytest.mark.parametrize("version", ["", "schema_version: 2", "schema_version: one"])
def test_a_card_of_another_schema_is_refused(version: str) -> None:
    with pytest.raises(InvalidYaml, match="schema_version"):
        Card.from_yaml(f"{version}\nname: fraud", "model.yaml")


def test_a_tolerance_too_large_for_a_float_is_refused() -> None:
    with pytest.raises(InvalidYaml, match="finite"):
        read(f"gates: {{tolerance: {{y: {{rtol: 1{'0' * 400}}}}}}}")


def test_an_agreement_the_card_asks_for_stays_written_though_it_is_the_default() -> None:
    card = Card.from_yaml("schema_version: 1\nname: fraud\ngates:\n  agreement: 0.9\n", "model.yaml")
    assert card.gates.agreement_set
    assert "agreement: 0.9" in card.to_yaml()
    plain = Card.from_yaml("schema_version: 1\nname: fraud\n", "model.yaml")
    assert not plain.gates.agreement_set
    assert plain.gates == card.gates


def test_the_gates_of_old_hold_and_new_outputs_bring_their_own() -> None:
    old, new = (
        Gates({"*": (0.1, 0.0), "y": (0.2, 0.0)}, 0.95),
        Gates({"*": (9.0, 9.0), "y": (9.0, 9.0), "z": (0.3, 0.0)}, 0.0),
    )
    assert old.over(new, {"x", "y"}) == Gates({"*": (0.1, 0.0), "y": (0.2, 0.0), "z": (0.3, 0.0)}, 0.95)
    assert old.over(new, {"x", "y", "z"}) == old


def test_the_promise_that_all_consumers_are_listed_is_read_strictly() -> None:
    assert read("name: fraud\nconsumers_complete: true").consumers_complete is True
    with pytest.raises(InvalidYaml, match="true or false"):
        read("name: fraud\nconsumers_complete: yes")
