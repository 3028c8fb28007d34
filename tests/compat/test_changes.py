"""Facts about two signatures: what is seen, and what is rightly not."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from gitmodel.bundle.signature import DTYPES, Dim, Signature, TensorSpec
from gitmodel.compat.changes import Change, compare


def spec(name: str, *shape: Dim, dtype: str = "float32", optional: bool = False) -> TensorSpec:
    return TensorSpec(name, dtype, shape, optional=optional)


def inputs(*specs: TensorSpec) -> Signature:
    return Signature(specs, ())


def outputs(*specs: TensorSpec) -> Signature:
    return Signature((), specs)


def kinds(old: Signature, new: Signature) -> list[str]:
    return [change.kind for change in compare(old, new).changes]


#: A busy machine is no failure.
calm = settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])

X, AGE = spec("x", "n", 4), spec("age", "n", 1, dtype="int64")


def test_an_added_input_is_required_or_has_a_default() -> None:
    assert kinds(inputs(X), inputs(X, AGE)) == ["input-added-required"]
    assert kinds(inputs(X), inputs(X, replace(AGE, optional=True))) == ["input-added-with-default"]


def test_a_removed_input_is_named_with_its_type() -> None:
    (change,) = compare(inputs(X, AGE), inputs(X)).changes
    assert (change.kind, change.at, change.old, change.new) == (
        "input-removed",
        "inputs.age",
        "age: int64[n, 1]",
        None,
    )


def test_an_output_added_at_the_end_is_told_from_one_added_before_others() -> None:
    y, extra = spec("y", "n"), spec("extra", "n", 2)
    (appended,) = compare(outputs(y), outputs(y, extra)).changes
    (shifting,) = compare(outputs(y), outputs(extra, y)).changes
    assert (appended.kind, appended.args["appended"]) == ("output-added", True)
    assert (shifting.kind, shifting.args["appended"]) == ("output-added", False)


def test_an_output_added_after_a_renamed_one_is_appended() -> None:
    comparison = compare(outputs(spec("y", "n")), outputs(spec("scores", "n"), spec("extra", "n", 2)))
    assert [change.kind for change in comparison.changes] == ["output-renamed", "output-added"]
    assert comparison.changes[1].args["appended"] is True


def test_one_gone_and_one_alike_new_is_a_renaming() -> None:
    comparison = compare(inputs(X), inputs(replace(X, name="features")))
    assert comparison.renamed_inputs == {"x": "features"}
    assert comparison.changes == (Change("input-renamed", "inputs.x", "x", "features", {"name": "x"}),)


def test_a_renaming_is_seen_through_renamed_symbols() -> None:
    comparison = compare(outputs(spec("y", "n", 3)), outputs(spec("scores", "batch", 3)))
    assert comparison.renamed_outputs == {"y": "scores"}


@pytest.mark.parametrize(
    "other",
    [
        spec("z", "n", 5),
        spec("z", "n"),
        spec("z", "n", 4, dtype="float64"),
        spec("z", "n", 4, optional=True),
        spec("z", "n", "m"),
        TensorSpec("z", "float32", None),
        TensorSpec("z", "float32", ("n", 4), kind="sequence"),
    ],
    ids=str,
)
def test_what_differs_in_more_than_its_name_is_no_renaming(other: TensorSpec) -> None:
    comparison = compare(inputs(X), inputs(other))
    assert comparison.renamed_inputs == {}
    assert {change.kind for change in comparison.changes} >= {"input-removed"}


def test_two_candidates_make_no_renaming() -> None:
    assert kinds(inputs(X), inputs(replace(X, name="a"), replace(X, name="b"))) == [
        "input-removed",
        "input-added-required",
        "input-added-required",
    ]
    assert kinds(inputs(replace(X, name="a"), replace(X, name="b")), inputs(X)) == [
        "input-removed",
        "input-removed",
        "input-added-required",
    ]


def test_two_of_unknown_rank_may_be_each_other() -> None:
    comparison = compare(inputs(TensorSpec("a", "float32", None)), inputs(TensorSpec("b", "float32", None)))
    assert comparison.renamed_inputs == {"a": "b"}


@pytest.mark.parametrize("side", ["input", "output"])
def test_another_order_is_one_fact_however_many_moved(side: str) -> None:
    make = inputs if side == "input" else outputs
    a, b, c = (spec(name, "n", i) for i, name in enumerate("abc"))
    (change,) = compare(make(a, b, c), make(c, b, a)).changes
    assert (change.kind, change.at, change.old, change.new) == (
        f"{side}-reordered",
        f"{side}s",
        ["a", "b", "c"],
        ["c", "b", "a"],
    )


@pytest.mark.parametrize("side", ["input", "output"])
def test_one_that_is_renamed_and_moved_is_both(side: str) -> None:
    make = inputs if side == "input" else outputs
    a, b = spec("a", "n", 4), spec("b", "n", 2)
    assert sorted(kinds(make(a, b), make(b, replace(a, name="c")))) == [f"{side}-renamed", f"{side}-reordered"]
    assert kinds(make(a, b), make(replace(a, name="c"), b)) == [f"{side}-renamed"]


def test_removing_one_of_several_does_not_count_as_another_order() -> None:
    a, b, c = (spec(name, "n", i) for i, name in enumerate("abc"))
    assert kinds(inputs(a, b, c), inputs(a, c)) == ["input-removed"]


def test_a_default_gained_and_a_default_lost() -> None:
    assert kinds(inputs(X), inputs(replace(X, optional=True))) == ["input-became-optional"]
    assert kinds(inputs(replace(X, optional=True)), inputs(X)) == ["input-became-required"]


@pytest.mark.parametrize(
    ("old", "new", "direction"),
    [
        ("float32", "float64", "widened"),
        ("float16", "float32", "widened"),
        ("bfloat16", "float32", "widened"),
        ("int32", "int64", "widened"),
        ("uint8", "uint16", "widened"),
        ("float64", "float32", "narrowed"),
        ("int64", "int8", "narrowed"),
        ("float32", "int32", "other"),
        ("int32", "uint32", "other"),
        ("uint8", "int16", "other"),
        ("bool", "int8", "other"),
        ("float16", "bfloat16", "other"),
    ],
)
def test_the_direction_of_a_type_change(old: str, new: str, direction: str) -> None:
    for make, side in ((inputs, "input"), (outputs, "output")):
        (change,) = compare(make(spec("x", "n", dtype=old)), make(spec("x", "n", dtype=new))).changes
        assert (change.kind, change.old, change.new) == (f"{side}-dtype-changed", old, new)
        assert change.args["direction"] == direction


def test_text_for_numbers_is_its_own_fact() -> None:
    assert kinds(inputs(spec("x", dtype="string")), inputs(spec("x", dtype="int64"))) == ["string-tensor-changed"]
    assert kinds(outputs(spec("x")), outputs(spec("x", dtype="string"))) == ["string-tensor-changed"]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (spec("x", "n"), TensorSpec("x", "float32", ("n",), kind="sequence")),
        (TensorSpec("x", "float32", ("n",), kind="optional"), spec("x", "n")),
        (TensorSpec("x", "float32", (), "map", "string"), TensorSpec("x", "float32", (), "map", "int64")),
    ],
    ids=["tensor to sequence", "optional to tensor", "other key type"],
)
def test_another_kind_of_value_is_one_fact(old: TensorSpec, new: TensorSpec) -> None:
    assert kinds(inputs(old), inputs(new)) == ["value-kind-changed"]
    assert kinds(outputs(old), outputs(new)) == ["value-kind-changed"]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (4, 5, "input-dim-changed"),
        (4, "n", "input-dim-relaxed"),
        (4, None, "input-dim-relaxed"),
        ("n", 4, "input-dim-fixed"),
        (None, 4, "input-dim-fixed"),
        (4, 4, ""),
        ("n", "m", ""),
        ("n", None, ""),
        (None, "m", ""),
        (0, 0, ""),
    ],
)
def test_what_became_of_a_dimension(old: Dim, new: Dim, expected: str) -> None:
    assert kinds(inputs(spec("x", "batch", old)), inputs(spec("x", "batch", new))) == ([expected] if expected else [])
    mirrored = expected.replace("input", "output")
    assert kinds(outputs(spec("x", 2, old)), outputs(spec("x", 2, new))) == ([mirrored] if expected else [])


def test_a_dimension_is_named_by_its_place() -> None:
    (change,) = compare(inputs(spec("x", "n", 4)), inputs(spec("x", "n", 5))).changes
    assert (change.at, change.old, change.new, change.args["axis"]) == ("inputs.x[1]", 4, 5, 1)
    (change,) = compare(inputs(spec("x", "n")), inputs(spec("x", 8))).changes
    assert (change.at, change.old, change.new) == ("inputs.x[0]", "any", 8)


UNKNOWN = TensorSpec("x", "float32", None)


def test_another_rank_says_nothing_about_dimensions() -> None:
    assert kinds(inputs(spec("x", "n", 4)), inputs(spec("x", "n", 2, 2))) == ["input-rank-changed"]
    assert kinds(outputs(spec("x", "n", 4)), outputs(spec("x", "n"))) == ["output-rank-changed"]


def test_an_input_that_takes_any_rank_is_relaxed_and_the_reverse_is_a_break() -> None:
    assert kinds(inputs(X), inputs(UNKNOWN)) == ["input-rank-relaxed"]
    assert kinds(inputs(UNKNOWN), inputs(X)) == ["input-rank-changed"]
    assert kinds(inputs(UNKNOWN), inputs(UNKNOWN)) == []


def test_an_output_whose_rank_is_no_longer_said_is_a_break_and_the_reverse_is_none() -> None:
    assert kinds(outputs(X), outputs(UNKNOWN)) == ["output-rank-changed"]
    assert "output-rank-changed" not in kinds(outputs(UNKNOWN), outputs(X))
    assert kinds(outputs(UNKNOWN), outputs(UNKNOWN)) == []


# Symbols --------------------------------------------------------------------------------------------------------------


def test_one_symbol_for_two_dimensions_unifies_them() -> None:
    old = inputs(spec("a", "n", 4), spec("b", "m", 4))
    new = inputs(spec("a", "n", 4), spec("b", "n", 4))
    (change,) = compare(old, new).changes
    assert (change.kind, change.args) == (
        "input-dims-unified",
        {"first": "inputs.a[0]", "second": "inputs.b[0]"},
    )
    (change,) = compare(new, old).changes
    assert change.kind == "input-dims-separated"


def test_unnamed_dimensions_are_linked_to_nothing() -> None:
    unnamed = inputs(spec("a", None, None), spec("b", None))
    assert kinds(unnamed, unnamed) == []
    assert kinds(inputs(spec("a", "n"), spec("b", "n")), inputs(spec("a", None), spec("b", None))) == [
        "input-dims-separated"
    ]


def test_symbols_are_followed_through_a_renaming() -> None:
    old = inputs(spec("a", "n", 4), spec("b", "m", 2))
    new = inputs(spec("c", "n", 4), spec("b", "n", 2))
    assert kinds(old, new) == ["input-renamed", "input-dims-unified"]


def test_two_axes_of_one_input_can_be_unified() -> None:
    assert kinds(inputs(spec("a", "n", "m")), inputs(spec("a", "n", "n"))) == ["input-dims-unified"]


def test_an_output_that_no_longer_follows_its_input() -> None:
    old = Signature((spec("x", "n", 4),), (spec("y", "n", 3),))
    new = Signature((spec("x", "n", 4),), (spec("y", "rows", 3),))
    (change,) = compare(old, new).changes
    assert (change.kind, change.at) == ("output-dim-unlinked", "outputs.y[0]")
    assert change.args == {"first": "inputs.x[0]", "second": "outputs.y[0]"}
    assert compare(new, old).changes == ()


def test_an_output_that_follows_another_input_of_the_same_size_still_follows() -> None:
    old = Signature((spec("a", "n"), spec("b", "n")), (spec("y", "n"),))
    new = Signature((spec("a", "n"), spec("b", "m")), (spec("y", "m"),))
    assert kinds(old, new) == ["input-dims-separated"]


_names = st.sampled_from(["a", "b", "c", "x:0", "y/z"])
_dims = st.one_of(st.integers(0, 5), st.sampled_from(["n", "m", "k"]), st.none())
_specs = st.builds(
    TensorSpec,
    _names,
    st.sampled_from(sorted(DTYPES)),
    st.one_of(st.none(), st.lists(_dims, max_size=3).map(tuple)),
    st.sampled_from(["tensor", "sequence"]),
    st.just(""),
    st.booleans(),
)
_sides = st.lists(_specs, max_size=4, unique_by=lambda s: s.name).map(tuple)
_signatures = st.builds(Signature, _sides, _sides)


@calm
@given(_signatures)
def test_a_signature_differs_in_nothing_from_itself(signature: Signature) -> None:
    assert compare(signature, signature) == compare(signature, signature)
    assert compare(signature, signature).changes == ()


@calm
@given(_signatures)
def test_symbols_renamed_alike_everywhere_are_no_change(signature: Signature) -> None:
    def rename(side: tuple[TensorSpec, ...]) -> tuple[TensorSpec, ...]:
        return tuple(
            replace(s, shape=s.shape and tuple(f"new_{d}" if isinstance(d, str) else d for d in s.shape)) for s in side
        )

    assert compare(signature, Signature(rename(signature.inputs), rename(signature.outputs))).changes == ()


@calm
@given(_signatures, _signatures)
def test_every_fact_has_a_rule(old: Signature, new: Signature) -> None:
    from gitmodel.compat import rules

    for change in compare(old, new).changes:
        assert rules.judge(change).message


@calm
@given(_signatures, _signatures)
def test_no_change_in_either_direction_means_the_same_promises(old: Signature, new: Signature) -> None:
    if compare(old, new).changes or compare(new, old).changes:
        return
    for before, after in ((old.inputs, new.inputs), (old.outputs, new.outputs)):
        assert [(s.name, s.dtype, s.kind, s.key) for s in before] == [(s.name, s.dtype, s.kind, s.key) for s in after]
        for a, b in zip(before, after, strict=True):
            fixed = [
                [d if isinstance(d, int) else None for d in s.shape] if s.shape is not None else None for s in (a, b)
            ]
            assert fixed[0] == fixed[1]


# Constants ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("gone", "tensor", "kind"),
    [
        (AGE, ("int64", (5, 1)), "input-became-constant"),
        (TensorSpec("age", "int64", None), ("int64", (5, 1)), "input-became-constant"),
        (AGE, ("float32", (5, 1)), "input-removed"),
        (TensorSpec("age", "int64", None), ("float32", (5, 1)), "input-removed"),
        (AGE, ("int64", (5, 2)), "input-removed"),
        (AGE, ("int64", (5,)), "input-removed"),
    ],
    ids=str,
)
def test_an_input_whose_name_a_fitting_tensor_has_became_a_constant(
    gone: TensorSpec, tensor: tuple[str, tuple[int, ...]], kind: str
) -> None:
    (change,) = compare(inputs(X, gone), inputs(X), {"age": tensor, "other": tensor}).changes
    assert (change.kind, change.at) == (kind, "inputs.age")


def test_an_input_that_became_a_constant_is_not_renamed() -> None:
    comparison = compare(inputs(X), inputs(replace(X, name="z")), {"x": ("float32", (1, 4))})
    assert [change.kind for change in comparison.changes] == ["input-became-constant", "input-added-required"]
    assert comparison.renamed_inputs == {}
