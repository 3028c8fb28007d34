"""gitmodel.serving.dataplane: who a call is for, whether it fits, and what the runtime says of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest
from onnx import helper

from gitmodel.bundle.signature import Signature, TensorSpec
from gitmodel.serving.dataplane import Dataplane, DataplaneError, check
from gitmodel.serving.servable import INLINE_SECONDS, Servable, Serving, State, VersionStatus
from tests import support

Opens = Callable[..., Servable]


def dataplane(*servables: Servable, statuses: Sequence[VersionStatus] = ()) -> Dataplane:
    """Over a table in which the last servable of a model is its default."""
    table: dict[str, Serving] = {}
    for servable in servables:
        before = table.get(servable.model)
        table[servable.model] = Serving(
            servable, {**(before.by_version if before else {}), servable.version: servable}
        )  # fmt: skip
    return Dataplane(lambda: table, lambda model: [status for status in statuses if status.model == model])


def status(version: str, state: State, *, reason: str = "", number: int = 1) -> VersionStatus:
    return VersionStatus("fraud", version, "c", state, reason, number=number)


def refused(code: str, run: Callable[[], object]) -> str:
    with pytest.raises(DataplaneError) as caught:
        run()
    assert caught.value.code == code
    return caught.value.message


def test_a_version_is_found_by_its_tag_by_its_number_and_by_default(servable: Opens) -> None:
    one, two = servable(), servable(version="v1.1.0", number=2)
    plane = dataplane(one, two)
    assert plane.find("fraud") is two
    assert plane.find("fraud", "v1.0.0") is one
    assert plane.find("fraud", "1") is one
    assert plane.find("fraud", "2") is two


def test_an_unknown_model_or_version_is_not_found_and_says_what_there_is(servable: Opens) -> None:
    plane = dataplane(servable(), statuses=[status("v1.0.0", State.AVAILABLE)])
    assert "models: fraud" in refused("not_found", lambda: plane.find("spam"))
    assert "available: v1.0.0" in refused("not_found", lambda: plane.find("fraud", "v9.0.0"))
    assert "available: v1.0.0" in refused("not_found", lambda: plane.find("fraud", "9"))
    assert "models: none" in refused("not_found", lambda: dataplane().find("fraud"))


def test_a_version_that_is_not_served_is_unavailable_with_the_reason(servable: Opens) -> None:
    plane = dataplane(
        servable(),
        statuses=[
            status("v0.9.0", State.END, number=0),
            status("v1.1.0", State.LOADING, number=2),
            status("v1.2.0", State.END, reason="4 of 4 golden cases fail", number=3),
        ],
    )
    assert "no longer served" in refused("unavailable", lambda: plane.find("fraud", "v0.9.0"))
    assert "(LOADING)" in refused("unavailable", lambda: plane.find("fraud", "2"))
    assert "4 of 4 golden cases fail" in refused("unavailable", lambda: plane.find("fraud", "v1.2.0"))
    nothing = dataplane(statuses=[status("v1.0.0", State.LOADING)])
    assert "v1.0.0 is not available (LOADING)" in refused("unavailable", lambda: nothing.find("fraud"))
    assert "available: none" in refused("not_found", lambda: nothing.find("fraud", "v2.0.0"))


def test_a_call_gives_all_outputs_or_those_asked_for(servable: Opens) -> None:
    nodes = [helper.make_node("Neg", ["x"], ["minus"]), helper.make_node("Abs", ["x"], ["size"])]
    outputs = [support.value_info(name, "float32", ["n"]) for name in ("minus", "size")]
    both = servable(support.model(nodes, [support.value_info("x", "float32", ["n"])], outputs))
    plane = dataplane(both)
    values = {"x": np.array([-1, 2], "float32")}
    assert {k: v.tolist() for k, v in plane.infer(both, values).items()} == {"minus": [1, -2], "size": [1, 2]}
    assert {k: v.tolist() for k, v in plane.infer(both, values, ["size"]).items()} == {"size": [1, 2]}
    said = refused("invalid_argument", lambda: plane.infer(both, values, ["nothing"]))
    assert "no output 'nothing'" in said
    assert "minus, size" in said


@pytest.mark.parametrize(
    ("inputs", "says"),
    [
        ({}, "input 'x' is missing; the model wants x: float32[batch, 4]"),
        ({"y": np.zeros((1, 4), "float32")}, "'x' is missing"),
        ({"x": np.zeros((1, 4), "float32"), "y": np.zeros(1)}, "no input 'y'"),
        ({"x": np.zeros((1, 4), "float64")}, "is float64, the model wants float32"),
        ({"x": np.zeros((1, 4), "int64")}, "is int64, the model wants float32"),
        ({"x": np.array([["a"] * 4], object)}, "is string, the model wants float32"),
        ({"x": np.zeros((1, 5), "float32")}, "has shape [1, 5], the model wants [-1, 4]"),
        ({"x": np.zeros((4,), "float32")}, "has shape [4], the model wants [-1, 4]"),
        ({"x": np.zeros((1, 1, 4), "float32")}, "has shape [1, 1, 4], the model wants [-1, 4]"),
        ({"x": np.zeros((), "float32")}, "has shape [], the model wants [-1, 4]"),
    ],
)
def test_a_call_that_does_not_fit_names_the_tensor_and_what_it_should_be(
    servable: Opens, inputs: dict[str, np.ndarray], says: str
) -> None:
    fraud = servable()
    assert says in refused("invalid_argument", lambda: dataplane(fraud).infer(fraud, inputs))


def test_an_input_with_a_default_may_be_left_out(servable: Opens) -> None:
    proto = support.model(
        [helper.make_node("Mul", ["x", "factor"], ["y"])],
        [support.value_info("x", "float32", ["n"]), support.value_info("factor", "float32", [1])],
        [support.value_info("y", "float32", ["n"])],
        {"factor": np.array([3], "float32")},
    )
    tripled = servable(proto)
    plane = dataplane(tripled)
    two = {"x": np.array([2], "float32")}
    assert plane.infer(tripled, two)["y"].tolist() == [6]
    assert plane.infer(tripled, {**two, "factor": np.array([5], "float32")})["y"].tolist() == [10]
    assert "float64" in refused(
        "invalid_argument", lambda: plane.infer(tripled, {**two, "factor": np.array([5], "float64")})
    )


def test_what_only_the_runtime_finds_is_said_in_its_words(servable: Opens) -> None:
    proto = support.model(
        [helper.make_node("Gather", ["table", "x"], ["y"])],
        [support.value_info("x", "int64", ["n"])],
        [support.value_info("y", "float32", ["n"])],
        {"table": np.arange(3, dtype="float32")},
    )
    table = servable(proto)
    plane = dataplane(table)
    assert plane.infer(table, {"x": np.array([2])})["y"].tolist() == [2]
    said = refused("invalid_argument", lambda: plane.infer(table, {"x": np.array([7])}))
    assert "out of data bounds" in said
    assert "onnxruntime/" not in said


def test_an_input_of_unknown_rank_or_of_another_kind_is_left_to_the_runtime() -> None:
    anything = TensorSpec("x", "float32", None)
    pairs = TensorSpec("pairs", "float32", None, kind="sequence")
    signature = Signature((anything, pairs), ())
    check(signature, {"x": np.zeros((1, 2, 3), "float32"), "pairs": np.zeros(2)}, None)
    with pytest.raises(DataplaneError, match="'x' is int8"):
        check(signature, {"x": np.zeros(1, "int8"), "pairs": np.zeros(2)}, None)


def test_calls_with_many_more_bytes_than_were_measured_leave_the_event_loop(servable: Callable[..., Servable]) -> None:
    one = servable()
    one.run_seconds, one.run_bytes = INLINE_SECONDS / 10, 1000
    assert one.quick
    assert one.quick_with(10)
    assert one.quick_with(10_000)
    assert not one.quick_with(10_001)
    one.run_seconds = INLINE_SECONDS * 2
    assert not one.quick_with(1)


def test_a_version_whose_calls_keep_the_event_loop_leaves_it_for_a_while(servable: Callable[..., Servable]) -> None:
    one = servable()
    for second in range(100):  # a machine that stands still now and then
        one.kept_others(0.03, 1000.0 + second)
    assert one.quick
    one.kept_others(2.0, 1100.0)
    assert not one.quick
    assert not one.quick_with(1)
    one.comes_back(1159.0)
    assert not one.quick
    one.comes_back(1161.0)
    assert one.quick
    one.kept_others(2.0, 1162.0)
    one.comes_back(1223.0)
    assert not one.quick, "the second time for twice as long"
    one.comes_back(1283.0)
    assert one.quick


def test_many_calls_that_are_slow_weigh_as_much_as_one(servable: Callable[..., Servable]) -> None:
    one = servable()
    for number in range(8):
        assert one.quick
        one.kept_others(0.04, 1000.0 + number / 10)
    assert not one.quick
