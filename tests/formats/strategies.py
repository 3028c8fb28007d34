"""What Hypothesis draws for the formats: ONNX models with tensors wherever one can stand, HDF5 files of every kind."""

from __future__ import annotations

import math
from typing import Any

import h5py
import numpy as np
import onnx
from hypothesis import strategies as st
from onnx import helper

from gitmodel.formats.dtypes import ONNX_DTYPES, nbytes
from tests import support

#: A tensor of as many bytes gets a file of its own.
LARGE_BYTES = 66_000
_NUMERIC = sorted(set(ONNX_DTYPES) - {onnx.TensorProto.STRING})
_shapes = st.lists(st.integers(0, 5), max_size=3).map(tuple)
#: Names as files of other tools have them; a tensor may be called anything.
names = st.text(st.sampled_from("ab./%:~ \u00e9\U0001f600\t#"), max_size=6) | st.text(max_size=8)


@st.composite
def tensors(draw: st.DrawFn, name: str | None = None) -> onnx.TensorProto:
    """Of every type, small and large, as raw data and number by number, with texts of any bytes."""
    tensor = onnx.TensorProto(name=draw(names) if name is None else name)
    if draw(st.integers(0, 9)) == 0:
        texts = draw(st.lists(st.binary(max_size=8) | st.just(b"a\0b"), max_size=4))
        tensor.data_type = onnx.TensorProto.STRING
        tensor.dims.append(len(texts))
        tensor.string_data.extend(texts)
    elif draw(st.integers(0, 4)) == 0:
        count = draw(st.integers(0, 5) | st.just(LARGE_BYTES // 8))
        tensor.data_type = onnx.TensorProto.INT64
        tensor.dims.append(count)
        tensor.int64_data.extend(range(-1, count - 1))
    else:
        tensor.data_type = draw(st.sampled_from(_NUMERIC))
        dtype, shape = ONNX_DTYPES[tensor.data_type], draw(_shapes)
        if draw(st.integers(0, 4)) == 0:
            shape = (math.ceil(LARGE_BYTES / nbytes(dtype, (8,)) * 8), *(1 for _ in shape))
        tensor.dims.extend(shape)
        tensor.raw_data = _body(dtype, nbytes(dtype, shape), draw(st.integers(0, 3)))
    if draw(st.booleans()):
        tensor.doc_string = draw(st.text(max_size=8))
    if draw(st.booleans()):
        tensor.metadata_props.add(key="k", value=draw(st.text(max_size=4)))
    return tensor


def _body(dtype: str, size: int, seed: int) -> bytes:
    random = np.random.default_rng(seed)
    return random.integers(0, 2 if dtype == "bool" else 256, size, dtype="uint8").tobytes()


@st.composite
def _nodes(draw: st.DrawFn, depth: int) -> list[onnx.NodeProto]:
    nodes = []
    for number in range(draw(st.integers(0, 2))):
        node = helper.make_node("Op", ["a"], [f"b{number}"], name=draw(st.text("ab", max_size=2)), domain="test")
        node.attribute.append(helper.make_attribute("n", draw(st.integers(-3, 3))))
        if draw(st.booleans()):
            node.attribute.append(helper.make_attribute("floats", draw(st.lists(st.floats(width=32), min_size=1))))
        if draw(st.booleans()):
            node.attribute.append(helper.make_attribute("value", draw(tensors())))
        if draw(st.booleans()):
            node.attribute.append(helper.make_attribute("values", draw(st.lists(tensors(), min_size=1, max_size=2))))
        if depth < 2 and draw(st.booleans()):
            node.attribute.append(helper.make_attribute("then_branch", draw(graphs(depth + 1))))
        if depth < 1 and draw(st.booleans()):
            node.attribute.append(helper.make_attribute("all", [draw(graphs(2)), draw(graphs(2))]))
        nodes.append(node)
    return nodes


@st.composite
def graphs(draw: st.DrawFn, depth: int = 0) -> onnx.GraphProto:
    """Initializers of distinct names, nodes with tensors and graphs in their attributes, documentation."""
    infos = [support.value_info("x", "float32", ["batch", 4])]
    held = [draw(tensors(name)) for name in draw(st.lists(names, max_size=3, unique=True))]
    graph = helper.make_graph(draw(_nodes(depth)), "graph", infos, infos, held, doc_string=draw(st.text(max_size=4)))
    if draw(st.booleans()):
        graph.value_info.append(support.value_info("b0", "int8", [None, 2]))
        graph.metadata_props.add(key="graph", value="value")
    if depth == 0 and draw(st.booleans()):
        entry = graph.quantization_annotation.add(tensor_name="x")
        entry.quant_parameter_tensor_names.add(key="SCALE_TENSOR", value="s")
    return graph


@st.composite
def models(draw: st.DrawFn) -> onnx.ModelProto:
    """Whole models: functions, sparse initializers, several opsets, metadata, fields that no onnx.proto has yet."""
    opsets = [helper.make_opsetid("", support.OPSET), helper.make_opsetid("test", 1)]
    model = helper.make_model(
        draw(graphs()), ir_version=support.IR_VERSION, opset_imports=opsets, producer_name=draw(st.text(max_size=4))
    )
    helper.set_model_props(model, draw(st.dictionaries(st.text(max_size=3), st.text(max_size=6), max_size=2)))
    model.doc_string = draw(st.text(max_size=8))
    if draw(st.booleans()):
        model.functions.append(
            helper.make_function("d", "F", [], ["b"], [helper.make_node("C", [], ["b"], value=draw(tensors()))], opsets)
        )
    if draw(st.booleans()):
        sparse = model.graph.sparse_initializer.add()
        sparse.values.CopyFrom(draw(tensors("s").filter(lambda t: t.data_type != onnx.TensorProto.STRING)))
        sparse.dims.append(9)
    if draw(st.booleans()):  # an unknown field of the model, and one of the graph
        model.MergeFromString(b"\xa2\x06\x03new")
        model.graph.MergeFromString(b"\xa8\x06\x07")
    return model


_SHAPES: list[tuple[int, ...]] = [(), (0,), (3,), (2, 3), (LARGE_BYTES, 1), (4, LARGE_BYTES // 4)]
_DTYPES = ["<f4", ">f4", "<f8", ">i2", "i1", "u8", "?", "c8", "f2"]
_links = st.text(st.sampled_from("ab%. \u00e9"), min_size=1, max_size=3).filter(lambda name: name not in (".", ".."))


@st.composite
def _attributes(draw: st.DrawFn) -> dict[str, Any]:
    drawn: Any = st.one_of(
        st.integers(-9, 9), st.floats(allow_nan=False),
        st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=5),
        st.just(np.arange(6, dtype=">i4").reshape(2, 3)), st.just(h5py.Empty("f4")), st.just(np.bytes_(b"abc")),
        st.just(np.array(["x", "\u00fc"], dtype=object)), st.just(True), st.just(np.float16(1.5)),
        st.just(np.array([(1, b"q")], dtype=[("a", "<i8"), ("b", "S2")])),
    )  # fmt: skip
    found: dict[str, Any] = draw(st.dictionaries(_links, drawn, max_size=3))
    return found


@st.composite
def datasets(draw: st.DrawFn) -> tuple[dict[str, Any], dict[str, Any]]:
    """(what ``create_dataset`` is given, attributes) of a dataset: numbers of either byte order, plain, chunked or
    compressed, small and large; texts, records, nothing at all."""
    kind = draw(st.integers(0, 9))
    given: dict[str, Any] = {"track_times": draw(st.booleans())}
    if kind == 0:
        given["data"] = draw(st.sampled_from(["text", np.bytes_(b"fixed"), h5py.Empty("f8")]))
    elif kind == 1:
        given["data"] = np.array([(1.0, b"q")] * 3, dtype=[("a", "<f4"), ("b", "S2")])
    elif kind == 2:
        given |= {"data": np.array(["x", "yz"], dtype=object), "dtype": h5py.string_dtype()}
    else:
        dtype = np.dtype(draw(st.sampled_from(_DTYPES)))
        shape: tuple[int, ...] = draw(st.sampled_from(_SHAPES))
        size = math.prod(shape) * dtype.itemsize
        given["data"] = np.frombuffer(_body(dtype.name, size, draw(st.integers(0, 3))), dtype).reshape(shape)
        if draw(st.booleans()):
            given["fillvalue"] = np.zeros((), dtype)[()]
        if shape and 0 not in shape and draw(st.booleans()):
            given |= {"chunks": tuple(max(1, side // 3) for side in shape), "shuffle": draw(st.booleans())}
            given["maxshape"] = tuple(None if draw(st.booleans()) else side for side in shape)
            given["compression"] = draw(st.sampled_from([None, "gzip"]))
            given["fletcher32"] = draw(st.booleans())
    return given, draw(_attributes())


@st.composite
def hdf5_trees(draw: st.DrawFn, depth: int = 0) -> dict[str, Any]:
    """A group: whether it keeps its order, attributes, and by name datasets and further groups."""
    inner = datasets() if depth > 1 else datasets() | hdf5_trees(depth + 1)
    return {
        "ordered": draw(st.booleans()),
        "attributes": draw(_attributes()),
        "members": draw(st.dictionaries(_links, inner, max_size=3)),
    }


def fill(group: Any, tree: dict[str, Any]) -> None:
    """Makes what ``hdf5_trees`` drew inside an HDF5 group."""
    group.attrs.update(tree["attributes"])
    for name, member in tree["members"].items():
        if isinstance(member, dict):
            fill(group.create_group(name, track_order=member["ordered"]), member)
        else:
            given, attributes = member
            group.create_dataset(name, **given).attrs.update(attributes)
