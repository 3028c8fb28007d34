"""Facts about tensors: what a loader that restores by name meets, and defaults of inputs."""

from __future__ import annotations

from msgspec.structs import replace

from gitmodel.bundle.lock import TensorEntry
from gitmodel.compat.tensors import compare_defaults, compare_tensors
from tests.compat.test_changes import X, inputs, spec


def test_a_default_with_other_values_is_told_and_only_for_inputs_that_keep_one() -> None:
    free, fed = spec("scale", 1, optional=True), spec("scale", 1)
    two, three = [entry("scale", 1, values="2")], [entry("scale", 1, values="3")]
    (change,) = compare_defaults(inputs(X, free), inputs(X, free), two, three)
    assert (change.kind, change.at, change.old, change.new) == (
        "input-default-changed",
        "inputs.scale",
        "2" * 12,
        "3" * 12,
    )
    assert compare_defaults(inputs(X, free), inputs(X, free), two, two) == []
    assert compare_defaults(inputs(X, free), inputs(X, fed), two, three) == []
    assert compare_defaults(inputs(X, free), inputs(X), two, three) == []
    assert compare_defaults(inputs(X, fed), inputs(X, free), two, three) == []


def entry(name: str, *shape: int, dtype: str = "float32", values: str = "0") -> TensorEntry:
    return TensorEntry(name, dtype, shape, values * 64, "weights.h5")


def test_the_same_tensors_in_another_file_are_no_change() -> None:
    assert compare_tensors([entry("a", 2)], [replace(entry("a", 2), file="tensors/a.h5")]) == []


def test_tensors_that_came_and_went() -> None:
    changes = compare_tensors([entry("a", 2), entry("b", 3)], [entry("b", 3), entry("c")])
    assert [(c.kind, c.at, c.old, c.new) for c in changes] == [
        ("tensor-removed", "tensors.a", "float32[2]", None),
        ("tensor-added", "tensors.c", None, "float32[]"),
    ]


def test_another_shape_hides_another_type() -> None:
    (change, *_) = compare_tensors([entry("a", 2)], [entry("a", 3, dtype="float64", values="1")])
    assert (change.kind, change.old, change.new) == ("tensor-shape-changed", [2], [3])


def test_another_type() -> None:
    (change, *_) = compare_tensors([entry("a", 2)], [entry("a", 2, dtype="float64", values="1")])
    assert (change.kind, change.old, change.new) == ("tensor-dtype-changed", "float32", "float64")


def test_other_values_are_counted() -> None:
    old = [entry("a", 2), entry("b", 2), entry("c", 2)]
    new = [entry("a", 2, values="1"), entry("b", 2), entry("c", 2, values="1")]
    (change,) = compare_tensors(old, new)
    assert (change.kind, change.args) == ("tensor-values-changed", {"count": 2, "total": 3})


# Renamed ----------------------------------------------------------------------------------------------------------------


def facts(old: list[TensorEntry], new: list[TensorEntry]) -> list[tuple[str, object, object]]:
    return [(change.kind, change.old, change.new) for change in compare_tensors(old, new)]


def test_the_same_values_under_another_name_are_renamed() -> None:
    old, new = [entry("a", 2, values="1"), entry("k", 2)], [entry("b", 2, values="1"), entry("k", 2)]
    assert facts(old, new) == [("tensor-renamed", "a", "b")]


def test_other_values_another_type_or_shape_are_no_renaming() -> None:
    for other in (entry("b", 2, values="2"), entry("b", 2, dtype="int32"), entry("b", 2, 1)):
        assert [kind for kind, *_ in facts([entry("a", 2)], [other])] == ["tensor-removed", "tensor-added"]


def test_a_copy_of_what_stays_is_added() -> None:
    assert facts([entry("a", 2)], [entry("a", 2), entry("b", 2)]) == [("tensor-added", None, "float32[2]")]


def test_tensors_that_are_alike_are_told_apart_by_the_ends_of_their_names() -> None:
    zeros = ["model.decoder.bias", "model.encoder.bias", "model.head.bias"]
    renamed = [name.removeprefix("model.") for name in zeros]
    assert facts([entry(name, 4) for name in zeros], [entry(name, 4) for name in renamed]) == [
        ("tensor-renamed", name, other) for name, other in zip(zeros, renamed, strict=True)
    ]


def test_one_of_two_alike_is_renamed_and_the_other_gone() -> None:
    assert facts([entry("a.x", 2), entry("b.x", 2)], [entry("c.x", 2)]) == [
        ("tensor-renamed", "a.x", "c.x"),
        ("tensor-removed", "float32[2]", None),
    ]
