"""Facts about recurrent state: which outputs are fed back, and when that no longer works."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from msgspec.structs import replace

from gitmodel.bundle.signature import Signature, TensorSpec
from gitmodel.compat import changes, states
from tests.compat.test_changes import X, spec

Y = spec("y", "n", 3)


def stateful(fed: TensorSpec, output: TensorSpec) -> Signature:
    return Signature((X, fed), (Y, output))


def names(signature: Signature, declared: Mapping[str, str] | None = None) -> list[tuple[str, str]]:
    return [(pair.output.name, pair.input.name) for pair in states.pairs(signature, declared or {})]


@pytest.mark.parametrize(
    ("fed", "output"),
    [
        ("h_in", "h_out"), ("h", "h_out"), ("h_in", "h"), ("state", "new_state"), ("state", "stateN"), ("h0", "hn"),
        ("c_0", "c_n"), ("hidden_state", "next_hidden_state"), ("prev.cache", "cache"), ("input_h", "output_h"),
        ("past_key_values.0.key", "present.0.key"), ("past.3.value", "present.3.value"), ("initial_h", "final_h"),
        ("past_key_value.0", "present_key_value.0"),
    ],
)  # fmt: skip
def test_names_that_say_before_and_after_make_a_pair(fed: str, output: str) -> None:
    assert names(stateful(spec(fed, "n", 8), spec(output, "m", 8))) == [(output, fed)]


@pytest.mark.parametrize(
    ("fed", "output"), [("h", "h2"), ("input", "output"), ("mask", "scores"), ("a_in", "b_out"), ("h", "hidden")]
)
def test_other_names_make_none(fed: str, output: str) -> None:
    assert names(stateful(spec(fed, "n", 8), spec(output, "n", 8))) == []


@pytest.mark.parametrize(
    "output",
    [
        spec("h_out", "n", 4),
        spec("h_out", "n"),
        spec("h_out", "n", 8, dtype="float64"),
        spec("h_out", "n", "m"),
        TensorSpec("h_out", "float32", None),
        TensorSpec("h_out", "float32", ("n", 8), kind="sequence"),
    ],
    ids=str,
)
def test_a_pair_is_of_one_type_and_shape(output: TensorSpec) -> None:
    assert names(stateful(spec("h_in", "n", 8), output)) == []


def test_a_name_that_fits_two_is_no_pair() -> None:
    both = Signature((X, spec("h_in", "n", 8), spec("h_prev", "n", 8)), (Y, spec("h_out", "n", 8)))
    assert names(both) == []
    assert names(both, {"h_out": "h_prev"}) == [("h_out", "h_prev")]


def test_the_card_says_what_no_name_does() -> None:
    signature = stateful(spec("a", "n", 8), spec("b", "n", 8))
    assert names(signature) == []
    assert names(signature, {"b": "a"}) == [("b", "a")]
    assert names(signature, {"b": "nothing", "nothing": "a"}) == []


OLD = stateful(spec("h_in", "n", 8), spec("h_out", "n", 8))


def told(
    new: Signature,
    before: Mapping[str, str] | None = None,
    after: Mapping[str, str] | None = None,
    old: Signature = OLD,
) -> list[str]:
    found = states.compare(old, new, before or {}, after, changes.compare(old, new))
    return [str(change.args["what"]) for change in found]


def test_the_same_state_or_one_whose_tensors_were_renamed_says_nothing() -> None:
    assert told(OLD) == []
    assert told(stateful(spec("h_in", "k", 8), spec("h_out", "m", 8))) == []
    assert told(stateful(spec("past", "n", 8), spec("present", "n", 8))) == []
    assert told(stateful(spec("h_in", "n", "width"), spec("h_out", "n", 8))) == []


def test_a_state_that_lost_one_side() -> None:
    assert told(Signature((X,), (Y, spec("h_out", "n", 8)))) == ["there is no input for it any more"]
    assert told(Signature((X, spec("h_in", "n", 8)), (Y,))) == ["there is no output for it any more"]


def test_an_output_that_no_longer_fits_its_input() -> None:
    assert told(stateful(spec("h_in", "n", 8), spec("h_out", "n", 4))) == ["float32[n, 4] does not fit float32[n, 8]"]
    assert told(stateful(spec("h_in", "n", 8), spec("h_out", "n", "m"))) == ["float32[n, m] does not fit float32[n, 8]"]


def test_a_state_kept_from_before_that_no_longer_fits() -> None:
    assert told(stateful(spec("h_in", "n", 4), spec("h_out", "n", 4))) == [
        "a state kept from before (float32[n, 8]) does not fit float32[n, 4]"
    ]
    wide = stateful(spec("h_in", "n", 8, dtype="float64"), spec("h_out", "n", 8, dtype="float64"))
    assert told(wide) == ["a state kept from before (float32[n, 8]) does not fit float64[n, 8]"]


def test_an_input_of_any_rank_takes_it() -> None:
    assert told(stateful(TensorSpec("h_in", "float32", None), spec("h_out", "n", 8))) == []
    unknown = stateful(spec("h_in", "n", 8), replace(spec("h_out"), shape=None))
    assert told(unknown) == ["float32[?] does not fit float32[n, 8]"]


def test_a_card_that_feeds_a_state_elsewhere_or_no_longer() -> None:
    two = Signature((X, spec("h", "n", 8), spec("c", "n", 8)), (Y, spec("a", "n", 8), spec("b", "n", 8)))
    declared = {"a": "h", "b": "c"}
    assert told(two, declared, declared, old=two) == []
    assert told(two, declared, {"a": "c", "b": "h"}, old=two) == ["it is fed to 'c' now", "it is fed to 'h' now"]
    assert told(two, declared, {"b": "c"}, old=two) == ["the card no longer says so"]
    assert told(two, declared, None, old=two) == []
    assert told(two, {}, declared, old=two) == []
