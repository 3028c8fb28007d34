"""What an export cannot take along is said: the graph, tensors without a place in it, what HDF5 has beside tensors."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from onnx import helper

from gitmodel import formats
from gitmodel.formats import binding
from gitmodel.formats.left_out import left_out
from gitmodel.formats.source import Source, TensorData
from tests import support
from tests.formats import building
from tests.formats.building import large, write_h5, write_onnx
from tests.formats.keeping import kept

MORE = "what is no tensor in HDF5 (attributes, texts)"


def test_a_graph_has_a_place_in_onnx_alone(tmp_path: Path) -> None:
    with kept(write_onnx(tmp_path / "m.onnx", support.wide_model()), tmp_path) as source:
        assert left_out(source, ".onnx") == ()
        for ending in (".h5", ".hdf5", ".safetensors", ".npz"):
            assert left_out(source, ending) == ("the graph",)


def test_tensors_alone_leave_nothing_out(tmp_path: Path) -> None:
    def build(file: Any) -> None:
        file["layer/w"] = large()
        file.create_group("empty")

    path = write_h5(tmp_path / "m.h5", build)
    with kept(path, tmp_path) as stored, closing(formats.read(path)) as source:
        for ending in (".h5", ".hdf5", ".safetensors", ".npz"):
            assert left_out(stored, ending) == left_out(source, ending) == ()


@pytest.mark.parametrize(
    "add",
    [
        lambda file: file.attrs.update(note="x"),
        lambda file: file["layer"].attrs.update(note="x"),
        lambda file: file["layer/w"].attrs.update(note="x"),
        lambda file: file["small"].attrs.update(note="x"),
        lambda file: file.create_dataset("words", data="text"),
        lambda file: file.create_dataset("none", data=h5py.Empty("f4")),
        lambda file: file.__setitem__("kind", np.dtype("f4")),
    ],
)
def test_what_hdf5_has_beside_tensors_has_a_place_in_hdf5_alone(tmp_path: Path, add: Callable[[Any], object]) -> None:
    def build(file: Any) -> None:
        file["layer/w"], file["small"] = large(), np.ones(3)
        add(file)

    path = write_h5(tmp_path / "m.h5", build)
    with kept(path, tmp_path) as stored, closing(formats.read(path)) as source:
        for ending in (".safetensors", ".npz"):
            assert left_out(stored, ending) == left_out(source, ending) == (MORE,)
        assert left_out(stored, ".h5") == left_out(source, ".h5") == ()


def test_tensors_that_no_place_of_the_graph_takes_are_named(tmp_path: Path) -> None:
    def build(file: Any) -> None:
        for name in ("w", "opt/a", "opt/b", "opt/c", "opt/d"):
            file[name] = large()

    graph = formats.read(write_onnx(tmp_path / "m.onnx", building.matmul(inputs=("w",))))
    with closing(formats.read(write_h5(tmp_path / "m.h5", build))) as weights:
        source = binding.bind(graph, weights, "m.onnx")
        (said,) = left_out(source, ".onnx")
        assert said == "4 tensors that the graph has no place for (opt/a, opt/b, opt/c, ...)"
        assert left_out(source, ".h5") == ("the graph",)


def test_the_learned_lists_of_a_classical_model_are_in_its_graph(tmp_path: Path) -> None:
    node = helper.make_node(
        "LinearClassifier", ["x"], ["label", "scores"], domain="ai.onnx.ml", coefficients=[1.0, 2.0], intercepts=[0.5]
    )
    model = support.model(
        [node], [support.value_info("x", "float32", [None, 2])], [support.value_info("scores", "float32", [None, 1])]
    )
    model.opset_import.append(helper.make_opsetid("ai.onnx.ml", 3))
    with kept(write_onnx(tmp_path / "m.onnx", model), tmp_path) as source:
        assert len(source.tensors) == 2
        assert left_out(source, ".onnx") == ()


def test_metadata_of_safetensors_have_no_place_in_onnx(tmp_path: Path) -> None:
    source = Source("safetensors", "", (TensorData("w", "int8", (1,), memoryview(b"a")),), metadata={"format": "pt"})
    with closing(formats.read(write_onnx(tmp_path / "m.onnx", support.linear_model()))) as model:
        both = replace(model, metadata=source.metadata)
        assert left_out(both, ".onnx") == ("the metadata",)
    assert left_out(source, ".h5") == left_out(source, ".npz") == ()
