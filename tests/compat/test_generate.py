"""Cases drawn from a signature: reproducible, varied, and honest about what cannot be drawn."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gitmodel.bundle.golden import GoldenCase
from gitmodel.bundle.signature import DTYPES, Signature, TensorSpec
from gitmodel.compat import generate
from tests.compat.conftest import Open, signature

NATIVE = ["bool", "int8", "int64", "uint8", "uint64", "float16", "float32", "float64", "complex64", "string"]


def test_the_same_seed_gives_the_same_cases() -> None:
    sig = signature("(float[n,4] x, int64[n] ids, bool[2] flags) => (float[n] y)")
    first, again, other = (list(generate.cases(sig, seed)) for seed in (0, 0, 1))
    for a, b in zip(first, again, strict=True):
        assert a.name == b.name
        assert all(np.array_equal(a.inputs[name], b.inputs[name]) for name in ("x", "ids", "flags"))
    assert any(not np.array_equal(a.inputs["x"], b.inputs["x"]) for a, b in zip(first, other, strict=True))


def test_their_names_say_that_they_are_generated() -> None:
    names = [case.name for case in generate.cases(signature("(float[n] x) => (float[n] y)"))]
    assert names[:2] == ["generated/0", "generated/1"]
    assert len(set(names)) == len(names) >= generate.COUNT


def test_they_record_no_outputs() -> None:
    assert all(case.outputs == {} for case in generate.cases(signature("(float[n] x) => (float[n] y)")))


@pytest.mark.parametrize("dtype", NATIVE)
def test_inputs_have_the_type_and_shape_the_signature_asks(dtype: str) -> None:
    sig = Signature((TensorSpec("x", dtype, ("n", 3)),), ())
    assert generate.possible(sig)
    for case in generate.cases(sig):
        values = case.inputs["x"]
        assert values.dtype == np.dtype(object if dtype == "string" else dtype)
        assert values.ndim == 2
        assert values.shape[1] == 3


def test_zeros_ones_one_row_and_several_are_among_the_first() -> None:
    drawn = [
        case.inputs["x"] for case in generate.cases(signature("(float[n,3] x) => (float[n] y)"), count=generate.COUNT)
    ]
    assert len(drawn) == 16
    assert any(not values.any() for values in drawn)
    assert any((values == 1).all() for values in drawn)
    assert {values.shape[0] for values in drawn} >= {1, 3}
    sizes = {float(np.abs(values).max()) > 20 for values in drawn}
    assert sizes == {True, False}


def test_one_symbol_has_one_size_and_two_symbols_may_differ() -> None:
    sig = signature("(float[n,2] a, float[n,3] b, float[m,2] c) => (float[n] y)")
    cases = list(generate.cases(sig))
    assert all(case.inputs["a"].shape[0] == case.inputs["b"].shape[0] for case in cases)
    assert any(case.inputs["a"].shape[0] != case.inputs["c"].shape[0] for case in cases)


def test_optional_inputs_are_left_out() -> None:
    sig = signature("(float[n] x, float scale = {2.0}) => (float[n] y)")
    assert all(set(case.inputs) == {"x"} for case in generate.cases(sig))


def test_integers_stay_small_enough_to_be_indices() -> None:
    for case in generate.cases(signature("(int64[n,8] tokens) => (float[n] y)")):
        assert 0 <= case.inputs["tokens"].min() <= case.inputs["tokens"].max() < 128


@pytest.mark.parametrize(
    "spec",
    [
        TensorSpec("x", "float32", None),
        TensorSpec("x", "bfloat16", ("n",)),
        TensorSpec("x", "int4", ("n",)),
        TensorSpec("x", "float32", ("n",), kind="sequence"),
        TensorSpec("x", "float32", ("n",), kind="optional"),
    ],
    ids=str,
)
def test_what_cannot_be_drawn_is_said_beforehand(spec: TensorSpec) -> None:
    assert not generate.possible(Signature((spec,), ()))


def test_a_model_without_inputs_can_be_run_too() -> None:
    sig = signature("() => (float[2] y)")
    assert generate.possible(sig)
    assert [dict(case.inputs) for case in generate.cases(sig, count=2)] == [{}, {}]


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.lists(
        st.tuples(
            st.sampled_from(sorted(DTYPES)),
            st.lists(st.one_of(st.integers(0, 4), st.sampled_from(["n", "m"]), st.none()), max_size=3),
        ),
        max_size=3,
    )
)
def test_every_possible_signature_can_be_drawn(drawn: list[tuple[str, list[int | str | None]]]) -> None:
    sig = Signature(tuple(TensorSpec(f"x{i}", dtype, tuple(shape)) for i, (dtype, shape) in enumerate(drawn)), ())
    if not generate.possible(sig):
        return
    for case in generate.cases(sig, count=4):
        for spec in sig.inputs:
            fixed = [
                d if isinstance(d, int) else n
                for d, n in zip(spec.shape or (), case.inputs[spec.name].shape, strict=True)
            ]
            assert list(case.inputs[spec.name].shape) == fixed


def test_the_runtime_takes_what_is_drawn(open_model: Open) -> None:
    text = """(float[n,4] x, int64[n] id, string[n] word, bool[n] flag, float16[2] h)
        => (float[n,4] y, int64[n] i, string[n] w, bool[n] f, float16[2] g)
        { y = Neg(x) i = Neg(id) w = Identity(word) f = Not(flag) g = Neg(h) }"""
    session = open_model(text)
    for case in generate.cases(signature(text), count=4):
        assert session.run(case.inputs)["y"].shape == case.inputs["x"].shape


# At the edges ---------------------------------------------------------------------------------------------------------


def edges(text: str) -> dict[str, GoldenCase]:
    return {case.name.removeprefix("generated/"): case for case in generate.edges(signature(text))}


def test_no_row_many_rows_and_long_dimensions() -> None:
    drawn = edges("(float[n,4,m] x) => (float[n] y)")
    shapes = {name: case.inputs["x"].shape for name, case in drawn.items()}
    assert shapes == {"batch-0": (0, 4, 2), "long": (33, 4, 33), "wide": (1, 4, 34)}


def test_the_limits_of_integers() -> None:
    drawn = edges("(int8[2] a, uint16[2] b, float[2] c, string[2] d, bool[2] e) => (float[2] y)")
    assert list(drawn) == ["smallest", "largest"]
    lows, highs = drawn["smallest"].inputs, drawn["largest"].inputs
    assert (lows["a"][0], highs["a"][0], lows["b"][0], highs["b"][0]) == (-128, 127, 0, 65535)
    assert np.abs(highs["c"]).max() < 100


def test_nothing_at_the_edges_where_there_is_no_room() -> None:
    assert edges("(float[2,3] x) => (float[2] y)") == {}
    assert list(edges("(float[n,300000] x) => (float[n] y)")) == ["batch-0", "wide"]


def test_optional_inputs_stay_out_of_the_edges() -> None:
    assert set(edges("(float[n] x, float scale = {2.0}) => (float[n] y)")["long"].inputs) == {"x"}


def test_drawn_numbers_have_several_shapes_of_their_distribution() -> None:
    drawn = [case.inputs["x"] for case in generate.cases(signature("(float[n,64] x) => (float[n] y)"), count=16)]
    assert any((values <= 0).all() and values.any() for values in drawn), "of one sign"
    assert any(0.5 < (values == 0).mean() < 1 for values in drawn), "sparse"
    assert any(np.abs(values).max() < 0.01 and values.any() for values in drawn), "tiny"
    assert all(np.isfinite(values.astype("float16")).all() for values in drawn)
