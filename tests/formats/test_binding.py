"""Binding: an ONNX graph takes its weights by name from an HDF5 file, and what does not fit is refused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from gitmodel import runtime
from gitmodel.formats import binding, hdf5
from gitmodel.formats import onnx as onnx_format
from gitmodel.formats.source import InvalidModel, Source
from tests import support
from tests.formats import building
from tests.formats.building import LARGE, by_name, large, matmul, write_h5, write_onnx

X = np.random.default_rng(4).normal(size=(3, LARGE)).astype("float32")


def bind(folder: Path, graph: onnx.ModelProto, weights: Mapping[str, np.ndarray], **options: Any) -> Source:
    """Binds through files, as a user would; ``options`` go to every dataset."""

    def build(file: Any) -> None:
        for name, values in weights.items():
            file.create_dataset(name, data=values, **options)

    source = onnx_format.read(write_onnx(folder / "graph.onnx", graph))
    return binding.bind(source, hdf5.read(write_h5(folder / "weights.h5", build)), "graph.onnx")


def weightless(weights: dict[str, np.ndarray], how: str = "no data", **options: Any) -> onnx.ModelProto:
    """``matmul`` whose initializers say type and shape and have no data."""
    model = matmul(weights=weights, **options)
    for tensor in model.graph.initializer:
        tensor.ClearField("raw_data")
        if how == "missing file":
            building.point_outside(tensor, location="weights.bin")
    return model


def answer(folder: Path, source: Source, **inputs: np.ndarray) -> np.ndarray:
    """What the stored ONNX view gives for ``X``; the HDF5 view is checked on the way."""
    view = building.store(source, folder / "bundle")
    building.assert_view_holds(view / "weights.h5", source)
    (values,) = runtime.open_session(view / "model.onnx").run({"x": X, **inputs}).values()
    return values


def expected(folder: Path, weights: np.ndarray, **options: Any) -> np.ndarray:
    """What a whole model with these weights gives."""
    path = write_onnx(folder / "whole.onnx", matmul(weights={"w": weights}, **options))
    return runtime.open_session(path).run({"x": X})["y"]


STORED: list[dict[str, Any]] = [
    {},
    {"chunks": (40, 40)},
    {"compression": "gzip"},
    {"compression": "gzip", "shuffle": True, "fletcher32": True},
    {"dtype": ">f4"},
]


@pytest.mark.parametrize("how", ["no data", "missing file", "input", "other data"])
@pytest.mark.parametrize("options", STORED, ids=str)
def test_a_graph_answers_with_the_weights_it_is_given(tmp_path: Path, how: str, options: dict[str, Any]) -> None:
    graph = {
        "no data": lambda: weightless({"w": large()}),
        "missing file": lambda: weightless({"w": large()}, "missing file"),
        "input": lambda: matmul(inputs=("w",)),
        "other data": lambda: matmul(weights={"w": large(9)}),
    }[how]()
    source = bind(tmp_path, graph, {"w": large()}, **options)
    assert source.format == "onnx+hdf5"
    assert set(by_name(source)) == {"w"}
    np.testing.assert_array_equal(answer(tmp_path, source), expected(tmp_path, large()), strict=True)


@pytest.mark.parametrize("how", ["no data", "missing file"])
@pytest.mark.parametrize("options", [{}, {"compression": "gzip"}, {"dtype": ">f4"}], ids=str)
def test_small_weights_are_bound_too(tmp_path: Path, how: str, options: dict[str, Any]) -> None:
    whole = support.linear_model()
    values = {t.name: numpy_helper.to_array(t) for t in whole.graph.initializer}
    graph = support.linear_model(seed=9)
    for tensor in graph.graph.initializer:
        building.point_outside(tensor, location="none.bin")
        if how == "no data":
            tensor.ClearField("external_data")
            tensor.ClearField("data_location")
    source = bind(tmp_path, graph, values, **options)
    view = building.store(source, tmp_path / "bundle")
    inputs = {"x": X[:, :4]}
    assert onnx_format.locations_of(onnx_format.parse((view / "model.onnx").read_bytes(), "view")) == set()
    answers = runtime.open_session(view / "model.onnx").run(inputs)
    original = runtime.open_session(write_onnx(tmp_path / "whole.onnx", whole)).run(inputs)
    np.testing.assert_array_equal(answers["scores"], original["scores"], strict=True)


@pytest.mark.parametrize(
    ("graph_name", "file_name"), [("dense/kernel", "dense.kernel"), ("dense.kernel", "dense/kernel")]
)
def test_slashes_and_dots_are_the_same(tmp_path: Path, graph_name: str, file_name: str) -> None:
    graph = weightless({"w": large()})
    graph.graph.initializer[0].name = graph.graph.node[0].input[1] = graph_name
    source = bind(tmp_path, graph, {file_name: large()})
    assert source.bound_names == {file_name: graph_name}
    np.testing.assert_array_equal(answer(tmp_path, source), expected(tmp_path, large()))


def test_of_two_places_the_one_called_exactly_so_is_filled(tmp_path: Path) -> None:
    own = np.eye(LARGE, dtype="float32") * 2
    nodes = [helper.make_node("MatMul", ["x", "a/b"], ["h"]), helper.make_node("MatMul", ["h", "a.b"], ["y"])]
    graph = support.model(
        nodes,
        [support.value_info("x", "float32", ["batch", LARGE])],
        [support.value_info("y", "float32", ["batch", LARGE])],
        {"a/b": large(9), "a.b": own},
    )
    source = bind(tmp_path, graph, {"a/b": large()})
    np.testing.assert_array_equal(answer(tmp_path, source), expected(tmp_path, large()) * 2)


def test_an_input_with_weights_is_no_longer_an_input(tmp_path: Path) -> None:
    source = bind(tmp_path, matmul(inputs=("w",)), {"w": large()})
    assert source.signature is not None
    assert [spec.name for spec in source.signature.inputs] == ["x"]


def test_an_optional_input_stays_optional_with_the_new_default(tmp_path: Path) -> None:
    source = bind(tmp_path, matmul(weights={"w": large(9)}, inputs=("w",)), {"w": large()})
    assert source.signature is not None
    assert [(spec.name, spec.optional) for spec in source.signature.inputs] == [("x", False), ("w", True)]
    np.testing.assert_array_equal(answer(tmp_path, source), expected(tmp_path, large(), inputs=("w",)))


def test_weights_inside_branches_are_bound_by_their_path(tmp_path: Path) -> None:
    def branch(name: str, factor: int) -> onnx.GraphProto:
        values = numpy_helper.from_array(large() * factor, "w")
        node = helper.make_node("MatMul", ["x", "w"], ["out"])
        return helper.make_graph([node], name, [], [support.value_info("out", "float32", ["batch", LARGE])], [values])

    node = helper.make_node("If", ["c"], ["y"], name="choose", then_branch=branch("t", 0), else_branch=branch("e", 1))
    graph = support.model(
        [node],
        [support.value_info("x", "float32", ["batch", LARGE]), support.value_info("c", "bool", [])],
        [support.value_info("y", "float32", ["batch", LARGE])],
    )
    source = bind(tmp_path, graph, {"choose.then_branch/w": large(5)})
    assert set(by_name(source)) == {"choose.then_branch/w", "choose.else_branch/w"}
    np.testing.assert_array_equal(answer(tmp_path, source, c=np.array(True)), expected(tmp_path, large(5)))


def test_tensors_of_the_graph_and_of_the_file_alone_are_both_kept(tmp_path: Path) -> None:
    graph = matmul(weights={"w": large(9)})
    graph.graph.node.append(helper.make_node("Add", ["y", "bias"], ["z"]))
    graph.graph.initializer.append(numpy_helper.from_array(np.ones(LARGE, "float32"), "bias"))
    graph.graph.output[0].name = "z"
    source = bind(tmp_path, graph, {"w": large(), "optimizer/m": np.zeros(3), "optimizer/v": large(2)})
    assert set(by_name(source)) == {"w", "bias", "optimizer/m", "optimizer/v"}
    np.testing.assert_allclose(answer(tmp_path, source), expected(tmp_path, large()) + 1, rtol=1e-6)


def test_a_tensor_of_the_graph_named_like_a_group_of_the_file_is_kept(tmp_path: Path) -> None:
    graph = matmul(weights={"w": large()})
    graph.graph.initializer.append(numpy_helper.from_array(np.ones(2, "float32"), "b"))
    source = bind(tmp_path, graph, {"w/m": np.zeros(3), "b": np.zeros(2, "float32")})
    assert set(by_name(source)) == {"w", "w/m", "b"}
    view = building.store(source, tmp_path / "bundle")
    kept = hdf5.read(write_h5(tmp_path / "flat.h5", lambda file: _flatten(view / "weights.h5", file)))
    assert sorted(tensor.shape for tensor in kept.tensors) == [(2,), (3,), (LARGE, LARGE)]


def _flatten(view: Path, target: Any) -> None:
    """Copies every dataset of a view, links followed, into one group of numbered datasets."""
    import h5py

    def walk(group: Any) -> None:
        for name in group:
            if isinstance(group[name], h5py.Group):
                walk(group[name])
            else:
                target[str(len(target))] = group[name][()]

    with h5py.File(view) as file:
        walk(file)


def test_the_framework_is_the_graphs_or_else_the_files(tmp_path: Path) -> None:
    weights = hdf5.read(write_h5(tmp_path / "k.h5", lambda f: (f.attrs.update(keras_version="3"), f.update(w=large()))))
    for producer, framework in (("pytorch", "pytorch"), ("", "keras")):
        graph = onnx_format.read(
            write_onnx(tmp_path / "g.onnx", matmul(weights={"w": large()}, producer_name=producer))
        )
        assert binding.bind(graph, weights, "g").framework == framework


# --- what does not fit -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (large()[:, :-1], f"float32[{LARGE}, {LARGE - 1}]"),
        (large().T[None], f"float32[1, {LARGE}, {LARGE}]"),
        (large().ravel(), f"float32[{LARGE * LARGE}]"),
        (large().astype("float64"), f"float64[{LARGE}, {LARGE}]"),
        (large().astype("float16"), f"float16[{LARGE}, {LARGE}]"),
        (np.float32(1), "float32[]"),
    ],
)
@pytest.mark.parametrize("how", ["no data", "other data"])
def test_weights_of_another_type_or_shape_are_refused(tmp_path: Path, values: Any, said: str, how: str) -> None:
    graph = weightless({"w": large()}) if how == "no data" else matmul(weights={"w": large()})
    with pytest.raises(InvalidModel) as error:
        bind(tmp_path, graph, {"w": values})
    assert f"graph.onnx: 'w' is float32[{LARGE}, {LARGE}] in the graph and {said} in the weights" in str(error.value)


def test_an_input_that_cannot_take_the_weights_is_refused(tmp_path: Path) -> None:
    """A graph that declares w as [160, 160] must not silently become one that holds [160, 3]."""
    with pytest.raises(InvalidModel, match="'w'"):
        bind(tmp_path, matmul(inputs=("w",)), {"w": large()[:, :3]})
    with pytest.raises(InvalidModel, match="'w'"):
        bind(tmp_path, matmul(inputs=("w",)), {"w": large().astype("float64")})


def test_a_place_without_weights_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(InvalidModel, match=r"graph\.onnx: no weights for 'w'"):
        bind(tmp_path, weightless({"w": large(), "v": large()}), {"v": large()})


@pytest.mark.parametrize("how", ["no data", "own data", "input"])
def test_weights_of_which_no_tensor_fits_are_refused_with_names_of_both(tmp_path: Path, how: str) -> None:
    graph = {
        "no data": lambda: weightless({"w": large()}),
        "own data": lambda: matmul(weights={"w": large()}),
        "input": lambda: matmul(inputs=("w",)),
    }[how]()
    names = ["layer.a", "layer.b", f"layer.{'c' * 100}", "layer.d"]
    with pytest.raises(InvalidModel) as error:
        bind(tmp_path, graph, {name: large() for name in names})
    assert str(error.value) == (
        "graph.onnx: no tensor of the weights is called as one of the graph: the graph has w, x, "
        f"the weights have layer.a, layer.b, layer.{'c' * 54}, ... (4 in all): "
        "name the tensors in the weights file as the graph names them"
    )


def test_what_only_one_side_has_is_named(tmp_path: Path) -> None:
    graph = matmul(weights={"w": large(9)})
    graph.graph.initializer.append(numpy_helper.from_array(np.ones(LARGE, "float32"), "bias"))
    source = bind(tmp_path, graph, {"w": large(), "optimizer/m": np.zeros(3)})
    assert source.notes == (
        "the graph has no place for optimizer/m of the weights: kept beside it",
        "the weights lack bias: the graph's own stay",
    )


def test_an_input_that_may_be_a_weight_the_file_lacks_is_named(tmp_path: Path) -> None:
    graph = matmul(inputs=("w", "b"))
    graph.graph.input[-1].type.tensor_type.shape.dim[0].dim_value = LARGE
    graph.graph.input.append(support.value_info("rate", "float32", []))
    assert bind(tmp_path, graph, {"w": large()}).notes == ("the weights lack b: an input for callers to feed",)


def test_where_weights_fill_no_input_none_of_them_is_taken_for_one(tmp_path: Path) -> None:
    graph = matmul(weights={"w": large(9)}, inputs=("b",))
    graph.graph.input[-1].type.tensor_type.shape.dim[0].dim_value = LARGE
    assert bind(tmp_path, graph, {"w": large()}).notes == ()


@pytest.mark.parametrize("graph", [matmul(weights={"w": large(9)}), matmul(inputs=("w",))], ids=["own data", "input"])
def test_where_all_fits_nothing_is_said(tmp_path: Path, graph: onnx.ModelProto) -> None:
    assert bind(tmp_path, graph, {"w": large()}).notes == ()


def test_two_weights_for_one_name_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidModel, match="bind to the same name"):
        bind(tmp_path, matmul(weights={"w": large()}), {"a/b": large(), "a.b": large(1)})


def test_a_whole_graph_is_complete_by_itself(tmp_path: Path) -> None:
    source = onnx_format.read(write_onnx(tmp_path / "g.onnx", matmul(weights={"w": large()})))
    assert binding.complete(source, "g.onnx") is source


@pytest.mark.parametrize(
    ("how", "said"),
    [("missing file", "its data should be in weights.bin, which is missing"), ("no data", "it has no data")],
)
def test_a_graph_that_lacks_data_is_not_complete(tmp_path: Path, how: str, said: str) -> None:
    source = onnx_format.read(write_onnx(tmp_path / "g.onnx", weightless({"w": large()}, how)))
    with pytest.raises(InvalidModel, match=f"g.onnx: tensor 'w': {said}"):
        binding.complete(source, "g.onnx")


def classical() -> onnx.ModelProto:
    node = helper.make_node(
        "LinearRegressor", ["x"], ["y"], name="lin", domain="ai.onnx.ml", coefficients=[1.0, 2.0], intercepts=[0.5]
    )
    model = support.model(
        [node], [support.value_info("x", "float32", [None, 2])], [support.value_info("y", "float32", [None, 1])]
    )
    model.opset_import.append(helper.make_opsetid("ai.onnx.ml", 1))
    return model


def test_what_a_classical_model_learned_is_there_once_with_weights_that_have_it_too(tmp_path: Path) -> None:
    learned = {"lin.coefficients": np.array([1, 2], "f4"), "lin.intercepts": np.array([0.5], "f4")}
    source = bind(tmp_path, classical(), learned)
    assert set(by_name(source)) == set(learned)
    assert source.notes == ()


def test_weights_that_say_otherwise_than_a_classical_model_learned_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidModel, match=r"'lin\.intercepts' stands in the graph itself and is another one"):
        bind(tmp_path, classical(), {"lin.intercepts": np.array([0.6], "f4")})


@pytest.mark.realdata
def test_a_real_graph_takes_its_weights_from_hdf5(real_data: Path, tmp_path: Path) -> None:
    """The graph of a real model, emptied, and its weights in an HDF5 file of their own."""
    path = real_data / "magika" / "standard_v1" / "model.onnx"
    whole = onnx.load(path)
    weights = {t.name: numpy_helper.to_array(t) for t in whole.graph.initializer}
    for tensor in whole.graph.initializer:
        tensor.ClearField("raw_data")
        for typed in ("float_data", "int32_data", "int64_data"):
            tensor.ClearField(typed)
    source = bind(tmp_path, whole, weights)
    view = building.store(source, tmp_path / "bundle")
    inputs = {"bytes": np.random.default_rng(0).integers(0, 256, (4, 1536)).astype("float32")}
    answers = runtime.open_session(view / "model.onnx").run(inputs)
    for name, values in runtime.open_session(path).run(inputs).items():
        np.testing.assert_array_equal(answers[name], values, strict=True)
