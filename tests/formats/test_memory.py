"""Objects as sources: a ModelProto gives what its file gives and stays as it is; arrays become tensors bit by bit."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import ml_dtypes
import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as drawn_arrays
from onnx import helper, numpy_helper

from gitmodel.formats import memory, wire
from gitmodel.formats import onnx as onnx_format
from gitmodel.formats.dtypes import ONNX_DTYPES
from gitmodel.formats.source import TENSOR_FILE_BYTES, InvalidModel, Source, TensorData
from tests import support
from tests.formats import building, strategies

_ML_TYPES = [
    "bfloat16", "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu", "int4",
    "uint4", "int2", "uint2", "float4_e2m1fn",
]  # fmt: skip


def told(source: Source) -> list[tuple[str, str, tuple[int, ...], bytes]]:
    return [(tensor.name, tensor.dtype, tensor.shape, bytes(tensor.data)) for tensor in source.tensors]


def only(array: Any) -> TensorData:
    (tensor,) = memory.of({"a": array}).tensors
    return tensor


def refused(model: object) -> str:
    with pytest.raises(InvalidModel) as caught:
        memory.of(model)
    assert caught.value.hint
    assert "\n" not in str(caught.value)
    return str(caught.value)


# onnx.ModelProto ------------------------------------------------------------------------------------------------------


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(model=strategies.models())
def test_a_message_gives_what_its_file_gives_and_stays_as_it_is(
    tmp_path_factory: pytest.TempPathFactory, model: onnx.ModelProto
) -> None:
    before = model.SerializeToString(deterministic=True)
    path = tmp_path_factory.mktemp("drawn") / "model.onnx"
    path.write_bytes(model.SerializeToString())
    from_file, from_memory = onnx_format.read(path), memory.of(model)
    assert told(from_memory) == told(from_file)
    assert (from_memory.signature, from_memory.framework) == (from_file.signature, from_file.framework)
    assert from_memory.graph.SerializeToString(deterministic=True) == from_file.graph.SerializeToString(
        deterministic=True
    )
    assert model.SerializeToString(deterministic=True) == before


def test_large_tensors_are_cut_out_wherever_they_stand() -> None:
    inner = building.matmul(weights={"w": building.large(1)}).graph
    branch = helper.make_node("If", ["c"], ["z"], name="choice", then_branch=inner, else_branch=inner)
    constant = helper.make_node("Constant", [], ["k"], name="k", value=numpy_helper.from_array(building.large(2), "k"))
    model = building.matmul(weights={"w": building.large(), "small": np.ones(3, "float32")})
    model.graph.node.extend([branch, constant])
    source = memory.of(model)
    assert [tensor.name for tensor in source.tensors] == [
        "w", "small", "choice.else_branch/w", "choice.then_branch/w", "k.value",
    ]  # fmt: skip
    assert len(source.graph.SerializeToString()) < TENSOR_FILE_BYTES
    assert np.array_equal(building.array(source.tensors[2]), building.large(1))


def test_numbers_in_typed_fields_are_read_too() -> None:
    model = building.matmul(weights={})
    values = np.linspace(-1, 1, building.LARGE**2, dtype="float32")
    model.graph.initializer.append(helper.make_tensor("w", 1, [building.LARGE] * 2, values))
    (tensor,) = memory.of(model).tensors
    assert np.array_equal(building.array(tensor).ravel(), values)


def test_the_callers_model_can_change_after_it_was_read() -> None:
    model = building.matmul(weights={"w": building.large(), "small": np.ones(3, "float32")})
    source = memory.of(model)
    before = told(source)
    for tensor in model.graph.initializer:
        tensor.raw_data = bytes(len(tensor.raw_data))
    assert told(source) == before


def test_external_data_that_is_not_loaded_is_refused(tmp_path: Path) -> None:
    model = support.wide_model()
    onnx.save_model(model, str(tmp_path / "m.onnx"), save_as_external_data=True, location="m.data", size_threshold=0)
    said = refused(onnx.load(str(tmp_path / "m.onnx"), load_external_data=False))
    assert said.startswith("the ModelProto: tensor 'layer0/weight' keeps its data in m.data, which is not loaded: ")
    assert "onnx.load" in said
    assert told(memory.of(onnx.load(str(tmp_path / "m.onnx")))) == told(memory.of(support.wide_model()))


def test_external_data_is_never_fetched_from_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "secret").write_bytes(bytes(building.large().nbytes))
    model = building.matmul(weights={"w": building.large()})
    building.point_outside(model.graph.initializer[0], location="secret", offset=0)
    assert "secret, which is not loaded" in refused(model)


def test_a_place_without_data_is_left_for_weights_of_that_name() -> None:
    model = building.matmul(weights={"w": building.large()})
    building.point_outside(model.graph.initializer[0])
    assert memory.of(model).tensors == ()


def _empty(model: onnx.ModelProto) -> None:
    model.Clear()


def _short(model: onnx.ModelProto) -> None:
    model.graph.initializer[0].raw_data = model.graph.initializer[0].raw_data[:-4]


def _marked(model: onnx.ModelProto) -> None:
    building.point_outside(model.graph.initializer[0], **{wire.CUT_KEY: 0})


def _deep(model: onnx.ModelProto) -> None:
    graph = model.graph
    for _ in range(40):
        node = graph.node.add(op_type="If")
        node.attribute.add(name="then_branch", type=onnx.AttributeProto.GRAPH)
        graph = node.attribute[0].g
        graph.name = "inner"


def _no_opset(model: onnx.ModelProto) -> None:
    del model.opset_import[:]


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_empty, "no graph with outputs"), (_short, "its shape needs"), (_marked, "marked gitmodel-cut already"),
        (_deep, "nest more than 60"), (_no_opset, "names no opset"),
    ],
)  # fmt: skip
def test_a_message_that_is_no_whole_model_is_refused(spoil: Callable[[onnx.ModelProto], None], words: str) -> None:
    model = building.matmul(weights={"w": building.large()})
    spoil(model)
    assert words in refused(model)


# Arrays ---------------------------------------------------------------------------------------------------------------

_natives = st.sampled_from([
    *(np.dtype(f"{order}{kind}") for order in "<>" for kind in ("f2", "f4", "f8", "i2", "u4", "i8", "c8", "c16")),
    np.dtype("i1"), np.dtype("u1"), np.dtype("?"),
])  # fmt: skip


@given(
    array=drawn_arrays.arrays(_natives, drawn_arrays.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)),
    turned=st.booleans(), stepped=st.booleans(), fortran=st.booleans(),
)  # fmt: skip
def test_numbers_of_any_order_keep_their_values(array: np.ndarray, turned: bool, stepped: bool, fortran: bool) -> None:
    array = np.asfortranarray(array) if fortran and array.ndim else array
    array = array.T if turned else array
    array = array[::-1, ...] if stepped and array.ndim else array
    tensor = only(array)
    assert (tensor.dtype, tensor.shape) == (array.dtype.newbyteorder("=").name, array.shape)
    assert bytes(tensor.data) == np.array(array, array.dtype.newbyteorder("<"), order="C").tobytes()


@pytest.mark.parametrize("name", _ML_TYPES)
@pytest.mark.parametrize("shape", [(), (0,), (1,), (7,), (3, 5), (2, 2, 3)], ids=str)
def test_types_that_numpy_lacks_are_kept_as_onnx_packs_them(name: str, shape: tuple[int, ...]) -> None:
    dtype = np.dtype(getattr(ml_dtypes, name))
    values = np.random.default_rng(0).integers(-2 if name.startswith("int") else 0, 2, shape)
    array = np.asfortranarray(values.astype(dtype)).T if len(shape) > 1 else values.astype(dtype)
    tensor = only(array)
    expected = numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), "a")
    assert ONNX_DTYPES[expected.data_type] == tensor.dtype
    assert bytes(tensor.data) == expected.raw_data
    assert tensor.shape == array.shape


def test_bfloat16_of_the_other_byte_order_is_turned_round() -> None:
    array = np.arange(5).astype(ml_dtypes.bfloat16)
    other = array.astype(array.dtype.newbyteorder(">" if sys.byteorder == "little" else "<"))
    assert other.tobytes() != array.tobytes()
    assert bytes(only(other).data) == bytes(only(array).data)


@pytest.mark.parametrize(
    "array",
    [
        np.array(["yes", "nö", ""]), np.array(["yes", "nö", ""], ">U5"), np.array(["yes", "nö", ""], object),
        np.array(["yes", "nö", ""], np.dtypes.StringDType()), np.array([b"yes", "nö".encode(), b""], "S4"),
        np.array([b"yes", "nö", np.str_("")], object), np.array(["yes", "-", "nö", "-", ""], object)[::2],
    ],
    ids=["U", "other order", "objects", "variable", "bytes", "mixed", "stepped"],
)  # fmt: skip
def test_texts_are_kept(array: np.ndarray) -> None:
    tensor = only(array)
    assert (tensor.dtype, tensor.shape, bytes(tensor.data)) == ("string", (3,), "yes\0nö\0".encode())


def test_a_text_with_a_nul_inside_is_one_text() -> None:
    assert bytes(only(np.array(["a\0b", "c"], object)).data) == b"a\xc0\x80b\0c"


def test_scalars_and_one_text_have_no_dimension() -> None:
    assert (only(np.float32(1.5)).shape, bytes(only(np.float32(1.5)).data)) == ((), np.float32(1.5).tobytes())
    assert (only(np.array("word")).dtype, only(np.array("word")).shape) == ("string", ())
    assert bytes(only(np.str_("word")).data) == b"word"


def test_what_lies_as_it_should_is_not_copied(tmp_path: Path) -> None:
    array = np.zeros(6, "float32")
    tensor = only(array)
    array[2] = 5
    assert building.array(tensor)[2] == 5
    assert tensor.data.readonly
    np.save(tmp_path / "a.npy", building.large())
    mapped = np.load(tmp_path / "a.npy", mmap_mode="r")
    assert np.shares_memory(np.frombuffer(only(mapped).data, "uint8"), mapped)


def test_names_with_slashes_are_groups_in_the_view(tmp_path: Path) -> None:
    arrays: dict[str, Any] = {
        "dense/kernel": building.large(),
        "dense/bias": np.arange(3.0),
        "steps": np.int64(4),
        "a b\n": np.ones(1),
    }
    source = memory.of(arrays)
    assert (source.format, source.graph, source.signature) == ("numpy", None, None)
    folder = building.store(source, tmp_path / "weights")
    building.assert_view_holds(folder / "weights.h5", source)
    with h5py.File(folder / "weights.h5") as view:
        assert np.array_equal(view["dense/kernel"][()], arrays["dense/kernel"])


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (np.array([1, "a"], object), "it holds objects that are no texts, of type int"),
        (np.array([None], object), "no texts, of type NoneType"),
        (np.zeros(2, [("a", "f4")]), "which no tensor has"),
        (np.zeros(2, "M8[s]"), "which no tensor has"),
        (np.zeros(2, np.longdouble), "float128, which no tensor has"),
        (np.zeros(2, ml_dtypes.float8_e3m4), "float8_e3m4, which no tensor has"),
        (np.ma.masked_array([1, 2], [True, False]), "is a MaskedArray, no plain numpy array"),
        (np.zeros((1,) * 33), "33 dimensions"),
        (np.array(["\ud800"], object), "'a' is no tensor"),
        ([1.0, 2.0], "'a' is a list, no plain numpy array"),
        ({"b": np.ones(2)}, "'a' is a dict, no plain numpy array"),
        (None, "'a' is a NoneType"),
    ],
)  # fmt: skip
def test_what_is_no_tensor_is_refused_by_name(value: Any, words: str) -> None:
    assert words in refused({"a": value})


def test_names_that_are_none_are_refused() -> None:
    assert "has the key 3" in refused({3: np.ones(2)})
    assert "is no text" in refused({"\ud800": np.ones(2)})
    assert "has no arrays" in refused({})


# Everything else ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", [object(), 3, None, onnx.GraphProto(), np.ones(3)], ids=lambda m: type(m).__name__)
def test_another_object_is_refused_and_the_line_says_what_is_taken(model: object) -> None:
    said = refused(model)
    assert f"{type(model).__name__} is no model that can be saved" in said
    assert "onnx.ModelProto" in said


def test_looking_at_an_object_imports_nothing() -> None:
    code = """
import sys
from gitmodel.errors import GitmodelError
from gitmodel.formats import memory
try:
    memory.of(object())
except GitmodelError:
    print([name for name in ("onnx", "numpy", "torch", "sklearn", "skl2onnx", "keras", "tensorflow") if name in sys.modules])
"""
    done = support.run(sys.executable, "-c", code)
    assert (done.stdout, done.stderr) == ("[]\n", "")
