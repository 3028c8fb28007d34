"""Signatures: their YAML and back, and what a signature file must not say."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given

from gitmodel.bundle.signature import Signature, Signatures, TensorSpec
from gitmodel.bundle.yamlio import InvalidYaml
from tests.bundle import strategies

X = TensorSpec("x", "float32", ("batch", 4))
Y = TensorSpec("y", "int64", None)


def read(body: str) -> Signatures:
    return Signatures.from_yaml("schema_version: 1\n" + body, "signature.yaml")


def test_the_exact_text_of_a_small_signature() -> None:
    optional = TensorSpec("scale", "float32", (), optional=True)
    mapped = TensorSpec("probabilities", "float32", None, kind="map", key="int64")
    text = Signatures({"default": Signature((X, optional), (Y, mapped))}).to_yaml()
    assert text == (
        "schema_version: 1\n"
        "signatures:\n"
        "  default:\n"
        "    inputs:\n"
        "    - name: x\n"
        "      dtype: float32\n"
        "      shape: [batch, 4]\n"
        "    - name: scale\n"
        "      dtype: float32\n"
        "      shape: []\n"
        "      optional: true\n"
        "    outputs:\n"
        "    - name: y\n"
        "      dtype: int64\n"
        "    - name: probabilities\n"
        "      dtype: float32\n"
        "      kind: map\n"
        "      key: int64\n"
    )


@given(strategies.signatures)
def test_signatures_are_read_as_they_were_written(made: Signatures) -> None:
    text = made.to_yaml()
    read_back = Signatures.from_yaml(text, "f")
    assert read_back == made
    assert read_back.to_yaml() == text


@given(strategies.tensor_specs)
def test_a_tensor_prints_as_its_name_type_and_shape(spec: TensorSpec) -> None:
    assert str(spec).startswith(f"{spec.name}: ")
    assert spec.dtype in str(spec)


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        (X, "x: float32[batch, 4]"),
        (Y, "y: int64[?]"),
        (TensorSpec("z", "string", ()), "z: string[]"),
        (TensorSpec("z", "string", (None, 2)), "z: string[?, 2]"),
        (TensorSpec("z", "float32", None, "sequence"), "z: sequence of float32[?]"),
    ],
)
def test_how_a_tensor_prints(spec: TensorSpec, text: str) -> None:
    assert str(spec) == text


def test_an_input_is_found_by_name() -> None:
    signature = Signature((X,), (Y,))
    assert signature.input("x") is X
    assert signature.input("y") is None


def test_a_checkpoint_has_no_signatures() -> None:
    assert read("") == Signatures()
    assert read("signatures: {}") == Signatures()
    assert read("signatures:") == Signatures()


@pytest.mark.parametrize(
    ("tensor", "reason"),
    [
        ("x", "must be a mapping"),
        ("{dtype: int8}", "has no name"),
        ("{name: '', dtype: int8}", "has no name"),
        ("{name: 3, dtype: int8}", "has no name"),
        ("{name: x}", "dtype None"),
        ("{name: x, dtype: float}", "dtype 'float'"),
        ("{name: x, dtype: 32}", "dtype 32"),
        ("{name: x, dtype: [int8]}", "dtype"),
        ("{name: x, dtype: {a: b}}", "dtype"),
        ("{name: x, dtype: int8, kind: list}", "bad kind, key or optional"),
        ("{name: x, dtype: int8, kind: [tensor]}", "bad kind, key or optional"),
        ("{name: x, dtype: int8, key: 3}", "bad kind, key or optional"),
        ("{name: x, dtype: int8, optional: no}", "bad kind, key or optional"),
        ("{name: x, dtype: int8, optional: 1}", "bad kind, key or optional"),
        ("{name: x, dtype: int8, shape: 4}", "shape must be a list"),
        ("{name: x, dtype: int8, shape: batch}", "shape must be a list"),
        ("{name: x, dtype: int8, shape: {a: 1}}", "shape must be a list"),
        ("{name: x, dtype: int8, shape: [-1]}", "dimension -1"),
        ("{name: x, dtype: int8, shape: [1.5]}", "dimension 1.5"),
        ("{name: x, dtype: int8, shape: [true]}", "dimension True"),
        ("{name: x, dtype: int8, shape: [[1]]}", r"dimension \[1\]"),
        ("{name: x, dtype: int8, shape: [9223372036854775808]}", "dimension 9223372036854775808"),
        ("{name: x, dtype: int8, dims: [1]}", "unknown key 'dims'"),
    ],
)
def test_a_bad_tensor_is_refused_with_its_place(tensor: str, reason: str) -> None:
    with pytest.raises(InvalidYaml, match=rf"^signature\.yaml: default: outputs\[0\].*{reason}"):
        read(f"signatures: {{default: {{outputs: [{tensor}]}}}}")


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "schema_version None"),
        ("schema_version: 2", "schema_version 2"),
        ("schema_version: '1'", "schema_version '1'"),
        ("schema_version: 1\nsignature: {}", "unknown key 'signature'"),
        ("schema_version: 1\nsignatures: [a]", "signatures must be a mapping"),
        ("schema_version: 1\nsignatures: {default: x}", "default must have inputs and outputs"),
        ("schema_version: 1\nsignatures: {default: {input: []}}", "default has an unknown key 'input'"),
        ("schema_version: 1\nsignatures: {default: {inputs: {}}}", "default: inputs must be a list"),
        ("- a", "must be a mapping"),
        (
            "schema_version: 1\nsignatures: {d: {inputs: [{name: x, dtype: int8}, {name: x, dtype: int8}]}}",
            "d: a name stands twice in inputs",
        ),
    ],
)
def test_a_bad_signature_file_is_refused(text: str, reason: str) -> None:
    with pytest.raises(InvalidYaml, match=reason):
        Signatures.from_yaml(text, "signature.yaml")


@pytest.mark.parametrize("size", [0, 1, 2**63 - 1])
def test_a_size_up_to_63_bits_is_a_dimension(size: int) -> None:
    parsed: Any = read(f"signatures: {{d: {{inputs: [{{name: x, dtype: int8, shape: [{size}]}}]}}}}")
    assert parsed.by_name["d"].inputs[0].shape == (size,)
