"""The YAML reader and writer: what it reads, what it refuses, and that DVC's reader sees the same values."""

from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from ruamel.yaml import YAML

from gitmodel.bundle import yamlio
from tests.bundle import strategies

#: Texts that YAML 1.1, YAML 1.2 or DVC's reading of it take for a number, a date, a flag or a marker.
LIKE_SOMETHING_ELSE = [
    "0_9", "08_9", "+_", "-_", "._", "_1", "1_0e5", "-._5", "+.5_", "0o1_7", "1_0", "0x_f", "0b1_1", "0o8", "1e5", "1:30",
    "2001-01-01", ".nan", "-.inf", "null", "~", "on", "No", "y", "=", "<<", "", "? a", "- a", "a: b", "a #b",
]  # fmt: skip


def load(text: bytes | str) -> Any:
    return yamlio.load(text, "file.yaml")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"),
        ("on", "on"),
        ("y", "y"),
        ("True", True),
        ("false", False),
        ("tRUE", "tRUE"),
        ("~", None),
        ("", None),
        ("Null", None),
        ("1e-3", 0.001),
        ("1e3", 1000.0),
        (".5", 0.5),
        ("5.", 5.0),
        ("+12", 12),
        ("0123", 123),
        ("0o17", 15),
        ("0x1F", 31),
        ("0b11", "0b11"),
        ("1_000", "1_000"),
        ("-0x1f", "-0x1f"),
        ("12:30:45", "12:30:45"),
        ("2001-01-01", "2001-01-01"),
        ("=", "="),
        ("-.INF", -math.inf),
        ("1e999", math.inf),
        ('"\\u0000"', "\0"),
        ("&anchor x", "x"),
        ("%YAML 1.1\n---\nno", "no"),
        ('"<<": 1', {"<<": 1}),
        ("1: one", {1: "one"}),
        ("a: {b: [1, null]}", {"a": {"b": [1, None]}}),
    ],
)
def test_scalars_are_read_as_yaml_1_2_reads_them(text: str, value: Any) -> None:
    assert strategies.same(load(text), value)


def test_nan_is_read_as_a_number() -> None:
    assert math.isnan(load(".NaN"))


def test_utf_16_is_read() -> None:
    assert load("a: é".encode("utf-16")) == {"a": "é"}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("[&a x, *a]", "aliases"),
        ("a: &a [x, x]\nb: [*a, *a]", "aliases"),
        ("&a [*a]", "aliases"),
        ("a: &a {x: 1}\nb:\n  <<: *a", "aliases"),
        ("<<: {a: 1}", "merge keys"),
        ("a: 1\na: 2", "'a' stands twice"),
        ("a: {b: 1, b: 1}", "'b' stands twice"),
        ("1: a\n1.0: b", "stands twice"),
        ("? [a]\n: 1", "plain scalar"),
        ("? {a: 1}\n: 1", "plain scalar"),
        ("~: 1", "plain scalar"),
        ("a: 1\n---\nb: 2", "another document"),
        ("a: b: c", "line 1"),
        ("a:\n\t- b", "line 2"),
        ("[1, 2", "did not find"),
        ("\x00", "control characters"),
        ("a: \x07", "control characters"),
        ("\ud800", "surrogates"),
        ('"\\ud800"', "line 1"),
        (b"a: \xff", "UTF-8"),
        (b"\xff\xfe\xff", "UTF-16"),
        pytest.param("9" * 5000, "digits", id="5000 digits"),
        pytest.param("[" * 100_000, "50 levels", id="100000 lists"),
        pytest.param("{a: " * 100_000, "50 levels", id="100000 mappings"),
        pytest.param("- " * 100_000, "50 levels", id="100000 blocks"),
    ],
)
def test_what_is_no_plain_data_is_refused_by_name_and_reason(text: bytes | str, reason: str) -> None:
    with pytest.raises(yamlio.InvalidYaml, match=r"^file\.yaml is not valid YAML") as error:
        load(text)
    assert reason in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "text",
    [
        "!!python/object:os.system x",
        "!!python/object/apply:os.system [id]",
        "!!python/name:os.system ''",
        "!local x",
        "%TAG ! tag:example.org,2000:\n---\n!a b",
        "!!binary aGk=",
        "!!set {a, b}",
        "!!omap [a: 1]",
        "!!timestamp 2001-01-01",
        "!!timestamp x",
        "!!bool yes",
        "!!bool maybe",
        "!!int 1_0",
        "!!int [1]",
        "!!float x",
        "!!null x",
        "!!merge a",
        "!!map [a]",
        "!!map x",
        "!!seq {a: 1}",
        "a: !!str 1",
        "!!str a: 1",
    ],
)
def test_tags_are_refused(text: str) -> None:
    with pytest.raises(yamlio.InvalidYaml, match=r"file\.yaml"):
        load(text)


def test_a_number_too_long_to_print_is_refused() -> None:
    with pytest.raises(yamlio.InvalidYaml):
        load("0x" + "f" * 5000)


def test_fifty_levels_are_read() -> None:
    value = load("[" * 50 + "]" * 50)
    for _ in range(49):
        (value,) = value
    assert value == []


def test_a_file_beyond_the_limit_is_refused_before_it_is_parsed() -> None:
    with pytest.raises(yamlio.InvalidYaml, match="4194305 bytes"):
        load(b"x" * (yamlio.MAX_BYTES + 1))


def test_a_mapping_file_holds_a_mapping_of_names() -> None:
    assert yamlio.load_mapping("a: 1", "f") == {"a": 1}
    assert yamlio.load_mapping(b"# nothing yet\n", "f") == {}
    for text in ("- a", "x", "1: a"):
        with pytest.raises(yamlio.InvalidYaml, match="f must be a mapping"):
            yamlio.load_mapping(text, "f")


def test_an_unknown_key_is_refused_and_the_known_ones_are_named() -> None:
    yamlio.check_keys({"a": 1}, {"a", "b"}, "f")
    with pytest.raises(yamlio.InvalidYaml, match="unknown key 'c': known keys: a, b"):
        yamlio.check_keys({"a": 1, "c": 2}, {"a", "b"}, "f")


@pytest.mark.parametrize(
    "value", [math.nan, math.inf, -math.inf, True, "1", None, [1], pytest.param(10**400, id="10**400")]
)
def test_only_finite_numbers_pass_where_finite_is_asked(value: Any) -> None:
    with pytest.raises(yamlio.InvalidYaml, match="f must be a finite number"):
        yamlio.finite(value, "f")


def test_a_finite_number_is_given_back_as_float() -> None:
    assert strategies.same(yamlio.finite(3, "f"), 3.0)


def test_the_text_is_one_line_per_key_in_the_order_given() -> None:
    value = {"name": "no", "shape": ["batch", 4], "rate": 1e-05, "nested": {"b": "1_0", "a": None}, "empty": {}}
    assert yamlio.dump(value) == (
        "name: 'no'\nshape: [batch, 4]\nrate: 1.0e-05\nnested:\n  b: '1_0'\n  a: null\nempty: {}\n"
    )


def test_a_value_that_stands_twice_is_written_twice() -> None:
    shared = [1, 2]
    assert yamlio.dump({"a": shared, "b": shared}) == "a: [1, 2]\nb: [1, 2]\n"


@given(strategies.values)
def test_what_is_dumped_is_loaded_as_the_same_value(value: Any) -> None:
    assert strategies.same(load(yamlio.dump(value)), value)


@given(strategies.values)
def test_dvc_reads_the_dumped_text_as_the_same_value(value: Any) -> None:
    assert strategies.same(YAML(typ="safe").load(yamlio.dump(value)), value)


@pytest.mark.parametrize(
    "text",
    LIKE_SOMETHING_ELSE,
)
def test_dvc_reads_a_text_that_looks_like_something_else_as_text(text: str) -> None:
    for value in (text, [text], {text: text}):
        dumped = yamlio.dump(value)
        assert load(dumped) == value
        assert YAML(typ="safe").load(dumped) == value


@given(strategies.texts)
def test_any_text_is_either_data_or_refused(text: str) -> None:
    try:
        load(text)
    except yamlio.InvalidYaml as error:
        assert str(error).startswith("file.yaml is not valid YAML")  # both outcomes are right


def test_every_key_and_item_has_its_line() -> None:
    text = "# by hand\na: 1\nb:\n  c: [x,\n    y]\n  'd.e':\n  - f: 2\n"
    assert yamlio.lines(text, "x.yaml") == {
        ("a",): 2, ("b",): 3, ("b", "c"): 4, ("b", "c", 0): 4, ("b", "c", 1): 5, ("b", "d.e"): 6, ("b", "d.e", 0): 7,
        ("b", "d.e", 0, "f"): 7,
    }  # fmt: skip
    assert yamlio.lines("", "x.yaml") == {}


@pytest.mark.parametrize("text", ["a: [", "a: &x 1\nb: *x\n", "a: 1\na: 2\n", "a: !!python/none\n"])
def test_lines_of_what_is_refused_are_refused(text: str) -> None:
    with pytest.raises(yamlio.InvalidYaml, match=r"x\.yaml"):
        yamlio.lines(text, "x.yaml")
