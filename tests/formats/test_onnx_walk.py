"""Walking a parsed model: every tensor has a name of its own, and nothing hides where nobody looks."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from gitmodel.formats import onnx_walk
from gitmodel.formats.source import InvalidModel
from tests import support
from tests.formats import building
from tests.formats.test_wire import cuttable, models


def small(name: str = "t") -> onnx.TensorProto:
    return numpy_helper.from_array(np.ones(2, dtype="float32"), name)


def names(*nodes: onnx.NodeProto, initializers: tuple[str, ...] = ()) -> list[str]:
    model = support.model(list(nodes), [], [support.value_info("y", "float32", [2])])
    model.graph.initializer.extend(small(name) for name in initializers)
    return [name for name, _ in onnx_walk.tensors(model)]


def constant(name: str = "") -> onnx.NodeProto:
    return helper.make_node("Constant", [], ["y"], name=name, value=small())


def test_tensors_are_named_after_where_they_stand() -> None:
    inner = helper.make_graph([constant(), constant("named")], "g", [], [], [small("w")])
    choose = helper.make_node("If", ["c"], ["y"], then_branch=inner)
    many = helper.make_node("Custom", [], ["y"], name="many", values=[small(), small()], graphs=[inner])
    assert names(constant(), choose, many, initializers=("w", "a/b")) == [
        "w",
        "a/b",
        "Constant_0.value",
        "If_1.then_branch/w",
        "If_1.then_branch/Constant_0.value",
        "If_1.then_branch/named.value",
        "many.graphs/w",
        "many.graphs/Constant_0.value",
        "many.graphs/named.value",
        "many.values.0",
        "many.values.1",
    ]


def test_which_tensors_stand_in_nodes() -> None:
    inner = helper.make_graph([constant("deep")], "g", [], [], [small("w")])
    foreign = helper.make_node("Constant", [], ["z"], name="foreign", domain="local", value=small())
    choose = helper.make_node("If", ["c"], ["y"], name="choose", then_branch=inner)
    model = support.model([constant("own"), foreign, choose], [], [support.value_info("y", "float32", [2])])
    model.graph.initializer.append(small("w"))
    assert onnx_walk.in_nodes(model) == {"foreign.value", "choose.then_branch/w", "choose.then_branch/deep.value"}
    assert {name for name, _ in onnx_walk.tensors(model)} - onnx_walk.in_nodes(model) == {"w", "own.value"}


def test_what_shares_a_name_is_numbered() -> None:
    assert names(constant("n"), constant("n"), constant("n"), initializers=("n.value",)) == [
        "n.value", "n.value#2", "n.value#3", "n.value#4",
    ]  # fmt: skip
    assert names(constant("n"), initializers=("n.value", "n.value#2")) == ["n.value", "n.value#2", "n.value#3"]


@given(st.lists(st.text("ab#2", max_size=4), max_size=10))
def test_numbered_names_never_meet(given_names: list[str]) -> None:
    seen: set[str] = set()
    chosen = [onnx_walk.unique(name, seen) for name in given_names]
    assert len(set(chosen)) == len(given_names)
    assert all(name.startswith(given) for name, given in zip(chosen, given_names, strict=True))


@settings(max_examples=60)
@given(models())
def test_every_tensor_is_found_once_and_by_a_name_of_its_own(model: onnx.ModelProto) -> None:
    found = dict(onnx_walk.tensors(model))
    assert len(found) == len(list(onnx_walk.tensors(model))) == len(list(cuttable(model.graph)))


def hidden(kind: str, tensor: onnx.TensorProto) -> onnx.ModelProto:
    """A model with ``tensor`` where an initializer or tensor attribute is not."""
    if kind == "function":
        return building.function_model(tensor)
    if kind == "sparse initializer":
        return building.sparse_model(tensor)
    model = support.linear_model()
    if kind == "sparse attribute":
        node = helper.make_node("Constant", [], ["s"])
        sparse = helper.make_sparse_tensor(tensor, numpy_helper.from_array(np.arange(3)), [3])
        node.attribute.append(helper.make_attribute("sparse_value", sparse))
        model.graph.node.append(node)
    else:
        model.training_info.add().algorithm.initializer.append(tensor)
    return model


@pytest.mark.parametrize("kind", ["function", "sparse initializer", "sparse attribute", "training"])
@pytest.mark.parametrize("location", ["w.bin", "../w.bin"])
def test_data_that_would_be_left_behind_is_refused(kind: str, location: str) -> None:
    tensor = numpy_helper.from_array(np.ones((4, 3) if kind == "function" else 3, dtype="float32"), "t")
    onnx_walk.check(hidden(kind, tensor), "m.onnx")
    building.point_outside(tensor, location=location)
    with pytest.raises(InvalidModel, match=r"m\.onnx keeps data of a function"):
        onnx_walk.check(hidden(kind, tensor), "m.onnx")


def test_data_outside_where_it_is_seen_passes() -> None:
    model = building.matmul(weights={"w": building.large()})
    building.point_outside(model.graph.initializer[0], location="w.bin")
    onnx_walk.check(model, "m.onnx")


@pytest.mark.parametrize("text", [b"weight", b"MatMul", b"scores", b"tests", b"batch"])
def test_a_name_that_is_no_text_is_refused(text: bytes) -> None:
    data = support.linear_model().SerializeToString()
    onnx_walk.check(onnx.ModelProto.FromString(data), "m.onnx")
    broken = onnx.ModelProto.FromString(data.replace(text, b"\xff" * len(text)))
    with pytest.raises(InvalidModel, match=r"m\.onnx has a name that is no UTF-8"):
        onnx_walk.check(broken, "m.onnx")
