"""What the tests of the formats build with: files of every kind, and a source stored as a bundle's weights folder."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import onnx
from onnx import helper, numpy_helper

from gitmodel.formats import hdf5, naming
from gitmodel.formats import onnx as onnx_format
from gitmodel.formats.dtypes import storage
from gitmodel.formats.source import TENSOR_FILE_BYTES, Source, TensorData
from tests import support

#: A square float32 matrix of this side is large enough for a file of its own.
LARGE = 160


def large(seed: int = 0) -> np.ndarray:
    """A float32 matrix that gets a tensor file."""
    return np.random.default_rng(seed).normal(size=(LARGE, LARGE)).astype("float32")


def write_onnx(path: Path, model: onnx.ModelProto) -> Path:
    path.write_bytes(model.SerializeToString())
    return path


def write_h5(path: Path, build: Callable[[Any], object], **options: Any) -> Path:
    """An HDF5 file that ``build`` filled."""
    with h5py.File(path, "w", **options) as file:
        build(file)
    return path


def matmul(
    *, weights: dict[str, np.ndarray] | None = None, inputs: tuple[str, ...] = (), **options: Any
) -> onnx.ModelProto:
    """``y = x @ w`` for square matrices; ``w`` comes from ``weights`` or, named in ``inputs``, from the caller."""
    declared = [support.value_info(name, "float32", [LARGE, LARGE]) for name in inputs]
    return support.model(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        [support.value_info("x", "float32", ["batch", LARGE]), *declared],
        [support.value_info("y", "float32", ["batch", LARGE])],
        weights,
        **options,
    )


def point_outside(tensor: onnx.TensorProto, **entries: object) -> None:
    """Makes ``tensor`` external with these entries (``location``, ``offset``, ``length``) and without data."""
    tensor.ClearField("raw_data")
    tensor.data_location = onnx.TensorProto.EXTERNAL
    for key, value in entries.items():
        tensor.external_data.add(key=key, value=str(value))


def function_model(constant: onnx.TensorProto) -> onnx.ModelProto:
    """``y = x @ constant`` with the constant inside a function of the model."""
    nodes = [helper.make_node("Constant", [], ["c"], value=constant), helper.make_node("MatMul", ["a", "c"], ["b"])]
    function = helper.make_function("local", "Times", ["a"], ["b"], nodes, [helper.make_opsetid("", support.OPSET)])
    model = support.model(
        [helper.make_node("Times", ["x"], ["y"], domain="local")],
        [support.value_info("x", "float32", ["batch", constant.dims[0]])],
        [support.value_info("y", "float32", ["batch", constant.dims[1]])],
        functions=[function],
    )
    model.opset_import.append(helper.make_opsetid("local", 1))
    return model


def sparse_model(values: onnx.TensorProto) -> onnx.ModelProto:
    """``y = x @ s`` for a sparse 4 x 3 matrix ``s`` with these three values."""
    places = numpy_helper.from_array(np.array([0, 4, 8], dtype="int64"), "places")
    model = support.model(
        [helper.make_node("MatMul", ["x", values.name], ["y"])],
        [support.value_info("x", "float32", ["batch", 4])],
        [support.value_info("y", "float32", ["batch", 3])],
    )
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, places, [4, 3]))
    return model


def by_name(source: Source) -> dict[str, TensorData]:
    named = {tensor.name: tensor for tensor in source.tensors}
    assert len(named) == len(source.tensors)
    return named


def array(tensor: TensorData) -> np.ndarray:
    """The tensor's values; of a type numpy lacks the integers that stand for them."""
    dtype, shape = storage(tensor.dtype, tensor.shape)
    values: np.ndarray = np.frombuffer(tensor.data, dtype=dtype).reshape(shape)
    return values


def store(source: Source, folder: Path) -> Path:
    """Writes tensor files and views as a bundle's ``weights/`` has them; returns the folder."""
    own = [t for t in source.tensors if len(t.data) >= TENSOR_FILE_BYTES and t.dtype != "string"]
    files = naming.tensor_files(tensor.name for tensor in own)
    placements = {}
    (folder / "tensors").mkdir(parents=True)
    for tensor in own:
        if tensor.stored is not None:
            image, offset = tensor.stored, hdf5.stored_offset(tensor.stored)
        else:
            made = hdf5.tensor_file(tensor.dtype, tensor.shape)
            image, offset = made.header + bytes(tensor.data), made.offset
        (folder / files[tensor.name]).write_bytes(image)
        if offset is not None:
            bound = source.bound_names.get(tensor.name, tensor.name)
            placements[bound] = onnx_format.Placement(files[tensor.name], offset, len(tensor.data))
    (folder / "weights.h5").write_bytes(hdf5.write_view(source, files).image)
    if source.graph is not None:
        named = {source.bound_names.get(t.name, t.name): t for t in source.tensors}
        (folder / "model.onnx").write_bytes(onnx_format.write_view(source.graph, placements, named))
    return folder


def assert_same_tree(left: Any, right: Any) -> None:
    """Two HDF5 groups hold the same below them as plain h5py shows it: values, types, chunks, filters, attributes."""
    assert_same_attributes(left, right)
    assert list(left) == list(right)
    for name in left:
        ours, theirs = left[name], right[name]
        if isinstance(ours, h5py.Group):
            assert_same_tree(ours, theirs)
            continue
        if isinstance(ours, h5py.Datatype):
            assert ours.id.equal(theirs.id)
            continue
        assert_same_attributes(ours, theirs)
        assert ours.id.get_type().equal(theirs.id.get_type())
        assert (ours.shape, ours.chunks, ours.maxshape) == (theirs.shape, theirs.chunks, theirs.maxshape)
        for wanted in ("compression", "compression_opts", "shuffle", "fletcher32", "fillvalue"):
            assert repr(getattr(ours, wanted)) == repr(getattr(theirs, wanted))
        assert_same_value(ours[()], theirs[()])


def assert_same_attributes(left: Any, right: Any) -> None:
    assert sorted(left.attrs) == sorted(right.attrs)
    for name in left.attrs:
        ours, theirs = left.attrs.get_id(name), right.attrs.get_id(name)
        assert ours.get_type().equal(theirs.get_type()), name
        assert ours.get_space().get_simple_extent_type() == theirs.get_space().get_simple_extent_type()
        assert ours.shape == theirs.shape
        assert_same_value(left.attrs[name], right.attrs[name])


def assert_same_value(left: Any, right: Any) -> None:
    if isinstance(left, h5py.Empty):
        assert left == right
    elif isinstance(left, np.ndarray) and left.dtype.hasobject:
        for one, other in zip(left.flat, right.flat, strict=True):
            np.testing.assert_array_equal(one, other)
    else:
        np.testing.assert_array_equal(left, right, strict=isinstance(left, np.ndarray))


def assert_view_holds(path: Path, source: Source) -> None:
    """Plain h5py reads every numeric tensor of ``source`` from the HDF5 view, in its type and shape."""
    tensors = [tensor for tensor in source.tensors if tensor.dtype != "string"]
    named = hdf5.dataset_names([tensor.name for tensor in source.tensors])
    named |= {tensor.name: tensor.name for tensor in tensors if tensor.name in (source.groups or ())}
    with h5py.File(path, "r") as view:
        for tensor in tensors:
            dataset = view[named[tensor.name]]
            assert (dataset.dtype.newbyteorder("<"), dataset.shape) == storage(tensor.dtype, tensor.shape)
            np.testing.assert_array_equal(dataset[()], array(tensor))


def damaged(data: bytes, *, trials: int, seed: int = 0) -> Iterator[bytes]:
    """``data`` with one to eight bytes changed, the same ones on every run."""
    chosen = random.Random(seed)
    for _ in range(trials):
        copy = bytearray(data)
        for _ in range(chosen.choice((1, 1, 2, 8))):
            copy[chosen.randrange(len(copy))] = chosen.choice((0, 1, 255, chosen.randrange(256)))
        yield bytes(copy)


def wait_for_next_second() -> None:
    """Returns when the clock shows another second: what files record as their time would differ from then on."""
    now = int(time.time())
    while int(time.time()) == now:
        time.sleep(0.01)
