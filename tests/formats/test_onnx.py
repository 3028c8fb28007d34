"""ONNX: what is read from a model, what a hostile one cannot do, and that the ONNX view is the model it was made from."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import TensorProto, helper, numpy_helper

from gitmodel import runtime
from gitmodel.bundle.signature import Dim, TensorSpec
from gitmodel.errors import GitmodelError
from gitmodel.formats import onnx as onnx_format
from gitmodel.formats.dtypes import ONNX_NUMBERS
from gitmodel.formats.source import InvalidModel, Source
from tests import support
from tests.formats import building, keeping
from tests.formats.building import LARGE, by_name, large, matmul, write_onnx


def read(folder: Path, model: onnx.ModelProto) -> Source:
    return onnx_format.read(write_onnx(folder / "model.onnx", model))


def assert_same_answers(folder: Path, model: onnx.ModelProto, inputs: dict[str, np.ndarray]) -> Source:
    """The stored view opens in ONNX Runtime with its tensor files beside it, each with a second name as in a cache, and answers
    bit for bit like the original."""
    original = write_onnx(folder / "original.onnx", model)
    source = onnx_format.read(original)
    view = building.store(source, folder / "weights")
    for number, file in enumerate([path for path in view.rglob("*") if path.is_file()]):
        os.link(file, folder / f"second-{number}")
    expected = runtime.open_session(original).run(inputs)
    answers = runtime.open_session(view / "model.onnx").run(inputs)
    assert list(answers) == list(expected)
    for name, values in expected.items():
        np.testing.assert_array_equal(answers[name], values, strict=True)
    building.assert_view_holds(view / "weights.h5", source)
    return source


# --- reading -----------------------------------------------------------------------------------------------------------


def test_tensors_are_read_with_name_type_shape_and_bytes(tmp_path: Path) -> None:
    model = support.linear_model()
    source = read(tmp_path, model)
    assert (source.format, source.framework) == ("onnx", "tests")
    tensors = by_name(source)
    assert set(tensors) == {"weight", "bias"}
    for initializer in model.graph.initializer:
        tensor = tensors[initializer.name]
        np.testing.assert_array_equal(building.array(tensor), numpy_helper.to_array(initializer), strict=True)
        assert tensor.stored is None


def test_a_large_tensor_is_mapped_and_not_parsed(tmp_path: Path) -> None:
    source = read(tmp_path, matmul(weights={"w": large()}))
    np.testing.assert_array_equal(building.array(by_name(source)["w"]), large())
    assert not source.graph.graph.initializer[0].HasField("raw_data")


@pytest.mark.parametrize("dtype", sorted(set(ONNX_NUMBERS) - {"string"}))
@pytest.mark.parametrize("shape", [(3,), (), (0,), (2, 3)])
def test_typed_fields_give_the_bytes_of_raw_data(tmp_path: Path, dtype: str, shape: tuple[int, ...]) -> None:
    count = int(np.prod(shape))
    typed = helper.make_tensor("t", ONNX_NUMBERS[dtype], shape, [1, 0, 1, 1, 0, 1][:count])
    model = support.linear_model()
    model.graph.initializer.append(typed)
    tensor = by_name(read(tmp_path, model))["t"]
    assert (tensor.dtype, tensor.shape) == (dtype, shape)
    assert bytes(tensor.data) == numpy_helper.from_array(numpy_helper.to_array(typed)).raw_data


def test_texts_are_kept(tmp_path: Path) -> None:
    words: Any = [b"cat", "häuser".encode(), b""]
    model = support.linear_model()
    model.graph.initializer.append(helper.make_tensor("words", TensorProto.STRING, [3], words))
    tensor = by_name(read(tmp_path, model))["words"]
    assert (tensor.dtype, tensor.shape, bytes(tensor.data)) == ("string", (3,), "cat\0häuser\0".encode())


@pytest.mark.parametrize("size", [4, LARGE])
def test_a_default_location_that_is_said_changes_nothing(tmp_path: Path, size: int) -> None:
    model = support.wide_model(size=size)
    for tensor in model.graph.initializer:
        tensor.data_location = TensorProto.DEFAULT
    for name, tensor_data in by_name(read(tmp_path, model)).items():
        initializer = next(t for t in model.graph.initializer if t.name == name)
        assert bytes(tensor_data.data) == initializer.raw_data


def test_an_initializer_without_data_is_weightless(tmp_path: Path) -> None:
    model = support.linear_model()
    model.graph.initializer[0].ClearField("raw_data")
    assert set(by_name(read(tmp_path, model))) == {"bias"}


@pytest.mark.parametrize(("count", "dims"), [(2, [3]), (4, [3]), (1, [0])])
def test_too_few_or_too_many_texts_are_refused(tmp_path: Path, count: int, dims: list[int]) -> None:
    model = support.linear_model()
    words = model.graph.initializer.add(name="words", data_type=TensorProto.STRING, dims=dims)
    words.string_data.extend([b"w"] * count)
    with pytest.raises(InvalidModel, match=f"tensor 'words' has {count} texts, its shape needs {dims[0]}"):
        read(tmp_path, model)


@pytest.mark.parametrize("place", ["raw", "outside"])
def test_texts_as_raw_bytes_are_refused(tmp_path: Path, place: str) -> None:
    model = support.linear_model()
    words = model.graph.initializer.add(name="words", data_type=TensorProto.STRING, dims=[3])
    words.raw_data = bytes(70_000)
    if place == "outside":
        building.point_outside(words, location="w.bin")
        (tmp_path / "w.bin").write_bytes(bytes(70_000))
    with pytest.raises(InvalidModel, match="tensor 'words'"):
        read(tmp_path, model)


def test_texts_without_data_are_weightless(tmp_path: Path) -> None:
    model = support.linear_model()
    model.graph.initializer.add(name="words", data_type=TensorProto.STRING, dims=[3])
    assert "words" not in by_name(read(tmp_path, model))


def test_what_classical_models_learned_is_shown_as_tensors(tmp_path: Path) -> None:
    nodes = [
        helper.make_node(
            "LinearClassifier",
            ["x"],
            ["label", "scores"],
            domain="ai.onnx.ml",
            name=name,
            coefficients=[0.5, -0.5, 1.0, 2.0],
            intercepts=[0.0, 1.0],
            classlabels_ints=[0, 1],
        )
        for name in ("", "")
    ]
    nodes[1].output[:] = ["label2", "scores2"]
    for node in nodes:
        node.name = "classify"
    model = support.model(
        nodes, [support.value_info("x", "float32", ["n", 2])], [support.value_info("label", "int64", ["n"])]
    )
    model.opset_import.append(helper.make_opsetid("ai.onnx.ml", 3))
    tensors = by_name(read(tmp_path, model))
    assert set(tensors) == {f"classify.{kind}{n}" for kind in ("coefficients", "intercepts") for n in ("", "#2")}
    np.testing.assert_array_equal(
        building.array(tensors["classify.coefficients"]), np.array([0.5, -0.5, 1.0, 2.0], dtype="float32")
    )


def test_the_framework_is_the_producer() -> None:
    model = support.linear_model()
    model.producer_name, model.producer_version = "pytorch", "2.9.1"
    assert onnx_format.framework_of(model) == "pytorch 2.9.1"
    model.producer_name, model.producer_version = "x" * 200, ""
    assert onnx_format.framework_of(model) == "x" * 80


# --- the message classes by themselves ----------------------------------------------------------------------------------

_SAME_CLASSES = """
assert messages().ModelProto is onnx.ModelProto is onnx.onnx_ml_pb2.ModelProto
assert messages().TensorProto is onnx.TensorProto and messages().GraphProto is onnx.GraphProto
model = onnx.helper.make_model(onnx.helper.make_graph([], "graph", [], []))
assert isinstance(model, messages().ModelProto)
assert messages().ModelProto.FromString(model.SerializeToString()) == model
assert pickle.loads(pickle.dumps(messages().TensorProto(name="t"))).name == "t"
onnx.checker.check_model(onnx.ModelProto.FromString(onnx.parser.parse_model(
    '<ir_version: 10, opset_import: ["" : 21]> g (float[n] x) => (float[n] y) { y = Neg(x) }'
).SerializeToString()))
print("same")
"""
_OURS, _THEIRS = "import pickle\nfrom gitmodel.formats.onnx import messages\n", "import onnx\nimport onnx.parser\n"


@pytest.mark.parametrize(
    "first",
    [f"{_OURS}messages()\n{_THEIRS}", f"{_THEIRS}{_OURS}messages()\n", f"{_THEIRS}{_OURS}", f"{_OURS}{_THEIRS}"],
    ids=["ours first", "onnx first", "onnx first, ours late", "ours imported first and asked late"],
)
def test_the_classes_are_onnxs_own_whichever_is_imported_first(first: str) -> None:
    done = support.run("python", "-W", "error", "-c", first + _SAME_CLASSES)
    assert (done.stdout, done.stderr) == ("same\n", "")


def test_reading_a_model_imports_nothing_else_of_onnx(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "model.onnx", matmul(weights={"w": large()}))
    code = (
        "import sys; from pathlib import Path; from gitmodel.formats import onnx\n"
        "print(onnx.read(Path(sys.argv[1])).signature.outputs[0].name, 'onnx' in sys.modules)"
    )
    assert support.run("python", "-c", code, path).stdout == "y False\n"


def test_several_threads_may_ask_for_them_first() -> None:
    code = """
import sys, threading
from gitmodel.formats.onnx import messages
sys.setswitchinterval(1e-6)
start, wrong = threading.Barrier(9), []
def ask(importing):
    start.wait()
    try:
        if importing:
            import onnx
            assert onnx.ModelProto is onnx.onnx_ml_pb2.ModelProto
        messages().ModelProto, messages().TensorProto
    except Exception as error:
        wrong.append(repr(error))
threads = [threading.Thread(target=ask, args=[number == 8]) for number in range(9)]
for thread in threads: thread.start()
for thread in threads: thread.join()
import onnx
print(wrong, onnx.ModelProto is messages().ModelProto)
"""
    done = support.run("python", "-c", code)
    assert (done.stdout, done.stderr) == ("[] True\n", "")


# --- signatures --------------------------------------------------------------------------------------------------------


def signature_of(**changes: Any) -> Any:
    model = support.linear_model()
    for inputs in changes.get("inputs", []):
        model.graph.input.append(inputs)
    model.ir_version = changes.get("ir_version", model.ir_version)
    return onnx_format.signature_of(model, "model.onnx")


def test_a_signature_has_names_types_and_shapes_in_order() -> None:
    signature = signature_of()
    assert signature.inputs == (TensorSpec("x", "float32", ("batch", 4)),)
    assert signature.outputs == (TensorSpec("scores", "float32", ("batch", 3)),)


def test_an_initializer_that_is_also_an_input_is_optional() -> None:
    listed = support.value_info("weight", "float32", [4, 3])
    assert signature_of(inputs=[listed]).inputs[1] == TensorSpec("weight", "float32", (4, 3), optional=True)


@pytest.mark.parametrize(("ir_version", "names"), [(3, ["x"]), (4, ["x", "weight"])])
def test_before_ir_4_initializers_are_listed_and_are_no_inputs(ir_version: int, names: list[str]) -> None:
    listed = support.value_info("weight", "float32", [4, 3])
    assert [spec.name for spec in signature_of(inputs=[listed], ir_version=ir_version).inputs] == names


@pytest.mark.parametrize(
    ("declared", "shape"),
    [
        ([], ()),
        (["n", 4, None], ("n", 4, None)),
        ([0], (0,)),
        (["a b", ""], ("a b", None)),
        (None, None),
    ],
)
def test_dimensions_are_sizes_symbols_or_unknown(declared: list[Any] | None, shape: tuple[Dim, ...] | None) -> None:
    value = helper.make_tensor_value_info("v", TensorProto.FLOAT, declared)
    assert signature_of(inputs=[value]).input("v").shape == shape


def _type(build: Callable[[Any], Any]) -> onnx.ValueInfoProto:
    return helper.make_value_info("v", build(helper.make_tensor_type_proto(TensorProto.FLOAT, ["n", 2])))


@pytest.mark.parametrize(
    ("build", "spec"),
    [
        (lambda t: t, TensorSpec("v", "float32", ("n", 2))),
        (helper.make_sequence_type_proto, TensorSpec("v", "float32", ("n", 2), "sequence")),
        (helper.make_optional_type_proto, TensorSpec("v", "float32", ("n", 2), "optional")),
        (
            lambda t: helper.make_map_type_proto(TensorProto.STRING, t),
            TensorSpec("v", "float32", ("n", 2), "map", "string"),
        ),
        (
            lambda t: helper.make_sequence_type_proto(helper.make_map_type_proto(TensorProto.INT64, t)),
            TensorSpec("v", "float32", ("n", 2), "sequence", "int64"),
        ),
        (
            lambda t: helper.make_optional_type_proto(helper.make_sequence_type_proto(t)),
            TensorSpec("v", "float32", ("n", 2), "optional"),
        ),
        (
            lambda _: helper.make_sparse_tensor_type_proto(TensorProto.DOUBLE, [3]),
            TensorSpec("v", "float64", (3,)),
        ),
    ],
)
def test_kinds_of_values(build: Callable[[Any], Any], spec: TensorSpec) -> None:
    assert signature_of(inputs=[_type(build)]).input("v") == spec


def test_a_value_without_a_known_type_is_refused() -> None:
    opaque = onnx.ValueInfoProto(name="v")
    opaque.type.opaque_type.name = "secret"
    for value in (onnx.ValueInfoProto(name="v"), opaque, helper.make_tensor_value_info("v", 99, [])):
        with pytest.raises(InvalidModel, match=r"model\.onnx: 'v' has no known element type"):
            signature_of(inputs=[value])


def test_a_negative_dimension_is_refused() -> None:
    with pytest.raises(InvalidModel, match="'v' has the dimension -1"):
        signature_of(inputs=[helper.make_tensor_value_info("v", TensorProto.FLOAT, [-1])])


# --- files that are no model -------------------------------------------------------------------------------------------


def test_a_model_cut_short_anywhere_is_refused(tmp_path: Path) -> None:
    whole = support.linear_model().SerializeToString()
    path = tmp_path / "model.onnx"
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(InvalidModel, match=r"model\.onnx"):
            onnx_format.read(path)


@pytest.mark.parametrize(
    "data",
    [
        b"\x08\x0a",
        b"\x08",
        b"random text, no model\n",
        b"PK\x03\x04",
        b"\x89HDF\r\n\x1a\n",
        bytes(1000),
        b"\xff" * 1000,
    ],
)
def test_what_is_no_model_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "model.onnx").write_bytes(data)
    with pytest.raises(InvalidModel, match=r"model\.onnx"):
        onnx_format.read(tmp_path / "model.onnx")


def test_a_damaged_model_is_read_or_refused_and_never_a_crash(tmp_path: Path) -> None:
    path, outcomes = tmp_path / "model.onnx", {"read": 0, "refused": 0}
    for data in building.damaged(support.linear_model().SerializeToString(), trials=500):
        path.write_bytes(data)
        try:
            onnx_format.read(path)
            outcomes["read"] += 1
        except InvalidModel as error:
            outcomes["refused"] += 1
            assert "model.onnx" in str(error)
    assert min(outcomes.values()) > 50


def test_names_that_are_no_text_are_refused(tmp_path: Path) -> None:
    data = support.linear_model().SerializeToString()
    for old, new in ((b"weight", b"w\xff\xfeght"), (b"tests", b"t\xffsts"), (b"scores", b"sc\xffres")):
        (tmp_path / "model.onnx").write_bytes(data.replace(old, new))
        with pytest.raises(InvalidModel, match=r"model\.onnx"):
            onnx_format.read(tmp_path / "model.onnx")


def with_fields(model: onnx.ModelProto, **fields: Any) -> onnx.ModelProto:
    """The model with fields of its first initializer changed."""
    tensor = model.graph.initializer[0]
    for name, value in fields.items():
        if isinstance(value, list):
            tensor.ClearField(name)
            getattr(tensor, name).extend(value)
        else:
            setattr(tensor, name, value)
    return model


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"data_type": 99}, "unknown type 99"),
        ({"data_type": 0}, "unknown type 0"),
        ({"data_type": TensorProto.DOUBLE}, "has 48 bytes, its shape needs 96"),
        ({"dims": [-4, -3]}, "negative dimension"),
        ({"dims": [5, 3]}, "has 48 bytes, its shape needs 60"),
        ({"dims": [2**40, 2**40]}, "its shape needs"),
        ({"dims": [2**63 - 1]}, "its shape needs"),
        ({"raw_data": b"\0" * 47}, "has 47 bytes, its shape needs 48"),
    ],
)
def test_a_tensor_whose_bytes_do_not_fit_is_refused(tmp_path: Path, fields: dict[str, Any], reason: str) -> None:
    with pytest.raises(InvalidModel, match=f"tensor 'weight'.*{reason}"):
        read(tmp_path, with_fields(support.linear_model(), **fields))


@pytest.mark.parametrize("count", [1, 11, 13])
def test_a_tensor_with_too_few_or_too_many_typed_values_is_refused(tmp_path: Path, count: int) -> None:
    model = support.linear_model()
    model.graph.initializer[0].ClearField("raw_data")
    with pytest.raises(InvalidModel, match="tensor 'weight'"):
        read(tmp_path, with_fields(model, float_data=[1.0] * count))


# --- external data -----------------------------------------------------------------------------------------------------


def external(**entries: object) -> onnx.ModelProto:
    """``y = x @ w`` whose ``w`` (102400 bytes) points at a file."""
    model = matmul(weights={"w": large()})
    building.point_outside(model.graph.initializer[0], **entries)
    return model


@pytest.mark.parametrize(
    ("location", "before", "entries"),
    [
        ("w.bin", 0, {}),
        ("w.bin", 0, {"offset": 0, "length": 4 * LARGE**2}),
        ("w.bin", 4096, {"offset": 4096}),
        ("sub/w.bin", 10, {"offset": 10, "length": 4 * LARGE**2, "checksum": "ignored"}),
        ("..w.bin", 0, {}),
        ("./w.bin", 0, {}),
    ],
)
def test_external_data_is_mapped(tmp_path: Path, location: str, before: int, entries: dict[str, object]) -> None:
    target = tmp_path / location
    target.parent.mkdir(exist_ok=True)
    target.write_bytes(b"\1" * before + large().tobytes())
    source = read(tmp_path, external(location=location, **entries))
    np.testing.assert_array_equal(building.array(by_name(source)["w"]), large())


def test_small_external_tensors_move_into_the_view(tmp_path: Path) -> None:
    model = support.linear_model()
    raw = model.graph.initializer[0].raw_data
    (tmp_path / "w.bin").write_bytes(b"......" + raw)
    building.point_outside(model.graph.initializer[0], location="w.bin", offset=6)
    source = read(tmp_path, model)
    assert source.graph.graph.initializer[0].raw_data == raw
    view = onnx_format.write_view(source.graph, {}, by_name(source))
    assert onnx_format.locations_of(onnx_format.parse(bytes(view), "view")) == set()


def test_tensors_share_a_file(tmp_path: Path) -> None:
    model = support.wide_model(size=LARGE)
    raw = [tensor.raw_data for tensor in model.graph.initializer]
    (tmp_path / "w.bin").write_bytes(b"".join(raw))
    for number, tensor in enumerate(model.graph.initializer):
        building.point_outside(tensor, location="w.bin", offset=number * len(raw[0]), length=len(raw[0]))
    first, second = read(tmp_path, model).tensors
    assert [bytes(first.data), bytes(second.data)] == raw
    assert first.data.obj is second.data.obj


@pytest.mark.parametrize("entries", [{"location": "none.bin"}, {"location": "none/w.bin"}, {}, {"offset": 3}])
def test_a_place_that_is_not_there_leaves_the_tensor_weightless(tmp_path: Path, entries: dict[str, object]) -> None:
    assert by_name(read(tmp_path, external(**entries))) == {}


@pytest.mark.parametrize(
    "location",
    [
        "../w.bin",
        "sub/../../w.bin",
        "..",
        ".",
        "a\\..\\w.bin",
        "w.bin\0",
        "x" * 300,
        "x/" * 3000 + "x",
        "w.bin/",
        "sub",
    ],
)
def test_external_data_elsewhere_is_refused(tmp_path: Path, location: str) -> None:
    folder = tmp_path / "model"
    (folder / "sub").mkdir(parents=True)
    (tmp_path / "w.bin").write_bytes(large().tobytes())
    (folder / "w.bin").write_bytes(large().tobytes())
    with pytest.raises(InvalidModel, match=r"model\.onnx: tensor 'w'|is not a file"):
        read(folder, external(location=location))


def test_external_data_at_an_absolute_place_is_refused(tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(large().tobytes())
    with pytest.raises(InvalidModel, match="bad external data"):
        read(tmp_path, external(location=tmp_path / "w.bin"))


@pytest.mark.parametrize("link", ["file", "folder", "dangling"])
def test_external_data_behind_a_symbolic_link_is_refused(tmp_path: Path, link: str) -> None:
    outside, folder = tmp_path / "outside", tmp_path / "model"
    outside.mkdir()
    folder.mkdir()
    (outside / "w.bin").write_bytes(large().tobytes())
    if link == "folder":
        (folder / "sub").symlink_to(outside)
    else:
        (folder / "sub").mkdir()
        (folder / "sub" / "w.bin").symlink_to(outside / ("w.bin" if link == "file" else "none"))
    with pytest.raises(InvalidModel, match="symbolic link"):
        read(folder, external(location="sub/w.bin"))


@pytest.mark.parametrize(
    "entries",
    [
        {"offset": -1},
        {"offset": 1},
        {"offset": 4 * LARGE**2},
        {"offset": 2**63},
        {"offset": 10**30},
        {"offset": "9" * 5000},
        {"offset": "1e3"},
        {"offset": "x"},
        {"length": -1},
        {"length": 4 * LARGE**2 - 1},
        {"length": 4 * LARGE**2 + 1},
        {"length": 2**63},
        {"offset": -(4 * LARGE**2), "length": 4 * LARGE**2},
        {"offset": 2**63, "length": -(2**63)},
    ],
)
def test_a_place_that_is_not_in_the_file_is_refused(tmp_path: Path, entries: dict[str, object]) -> None:
    (tmp_path / "w.bin").write_bytes(large().tobytes())
    with pytest.raises(InvalidModel, match=r"model\.onnx: tensor 'w'"):
        read(tmp_path, external(location="w.bin", **entries))


def test_a_pointer_in_the_place_of_external_data_is_named(tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n")
    with pytest.raises(InvalidModel, match=r"w\.bin is a Git LFS pointer"):
        read(tmp_path, external(location="w.bin"))


@pytest.mark.parametrize("index", ["0", "-1", "x"])
def test_a_file_cannot_claim_the_data_of_another_tensor(tmp_path: Path, index: str) -> None:
    """The mark of a cut tensor is gitmodel's own; in a file it is a forgery."""
    model = matmul(weights={"other": large(1), "w": large()})
    building.point_outside(model.graph.initializer[1], **{"gitmodel-cut": index})
    try:
        source = read(tmp_path, model)
    except InvalidModel:
        return
    assert "w" not in by_name(source)


@pytest.mark.parametrize("kind", ["function", "sparse"])
@pytest.mark.parametrize("location", ["../w.bin", "w.bin"])
def test_external_data_where_it_cannot_be_carried_along_is_refused(tmp_path: Path, kind: str, location: str) -> None:
    """ONNX Runtime would load it; a bundle would leave it behind."""
    tensor = numpy_helper.from_array(np.ones((4, 3) if kind == "function" else 3, dtype="float32"), "t")
    building.point_outside(tensor, location=location)
    model = building.function_model(tensor) if kind == "function" else building.sparse_model(tensor)
    (tmp_path / "model").mkdir()
    for target in (tmp_path / "w.bin", tmp_path / "model" / "w.bin"):
        target.write_bytes(bytes(48))
    with pytest.raises(InvalidModel, match=r"model\.onnx"):
        read(tmp_path / "model", model)


def test_external_locations_are_all_files_a_model_points_at(tmp_path: Path) -> None:
    view = building.store(read(tmp_path, support.wide_model(size=LARGE)), tmp_path / "weights")
    data = (view / "model.onnx").read_bytes()
    expected = {"tensors/layer0%2Fweight.h5", "tensors/layer1%2Fweight.h5"}
    assert onnx_format.locations_of(onnx_format.parse(data, "view")) == expected
    assert onnx_format.locations_of(onnx_format.parse(support.linear_model().SerializeToString(), "m")) == set()
    with pytest.raises(InvalidModel, match="m is not an ONNX model"):
        onnx_format.locations_of(onnx_format.parse(b"nothing", "m"))


@pytest.mark.parametrize("kind", ["function", "sparse"])
def test_external_locations_hide_nothing(kind: str) -> None:
    tensor = numpy_helper.from_array(np.ones((4, 3) if kind == "function" else 3, dtype="float32"), "t")
    building.point_outside(tensor, location="../w.bin")
    model = building.function_model(tensor) if kind == "function" else building.sparse_model(tensor)
    try:
        found = onnx_format.locations_of(onnx_format.parse(model.SerializeToString(), "m"))
    except InvalidModel:
        return
    assert found == {"../w.bin"}


# --- the ONNX view -----------------------------------------------------------------------------------------------------


def rows(width: int = LARGE, name: str = "x") -> dict[str, np.ndarray]:
    return {name: np.random.default_rng(3).normal(size=(5, width)).astype("float32")}


def constant(name: str, values: np.ndarray, output: str) -> onnx.NodeProto:
    return helper.make_node("Constant", [], [output], name=name, value=numpy_helper.from_array(values, "ignored"))


def chain(nodes: list[onnx.NodeProto], *factors: str) -> onnx.ModelProto:
    """``y = x @ factor @ factor ...`` after the nodes that make the factors."""
    flows = ["x", *(f"h{i}" for i in range(len(factors) - 1)), "y"]
    products = [helper.make_node("MatMul", [flows[i], f], [flows[i + 1]]) for i, f in enumerate(factors)]
    return support.model(
        [*nodes, *products],
        [support.value_info("x", "float32", ["batch", LARGE])],
        [support.value_info("y", "float32", ["batch", LARGE])],
    )


def branch(name: str, values: np.ndarray) -> onnx.GraphProto:
    """``out = x @ weight`` with a weight of its own, ``x`` from outside."""
    return helper.make_graph(
        [helper.make_node("MatMul", ["x", "weight"], ["out"])],
        name,
        [],
        [support.value_info("out", "float32", ["batch", LARGE])],
        [numpy_helper.from_array(values, "weight")],
    )


def test_a_small_model_answers_as_before(tmp_path: Path) -> None:
    assert_same_answers(tmp_path, support.linear_model(), rows(4))


def test_a_model_with_large_weights_answers_as_before(tmp_path: Path) -> None:
    assert_same_answers(tmp_path, support.wide_model(tensors=3, size=LARGE), rows())


def test_a_model_with_its_default_location_said_answers_as_before(tmp_path: Path) -> None:
    model = support.wide_model(size=LARGE)
    for tensor in model.graph.initializer:
        tensor.data_location = TensorProto.DEFAULT
    assert_same_answers(tmp_path, model, rows())


def test_a_model_with_typed_data_answers_as_before(tmp_path: Path) -> None:
    model = matmul(weights={"w": large()})
    values = numpy_helper.to_array(model.graph.initializer[0])
    model.graph.initializer[0].CopyFrom(helper.make_tensor("w", TensorProto.FLOAT, values.shape, values.ravel()))
    assert_same_answers(tmp_path, model, rows())


def test_a_model_with_external_data_answers_as_before(tmp_path: Path) -> None:
    (tmp_path / "w.bin").write_bytes(b"\0" * 64 + large().tobytes())
    assert_same_answers(tmp_path, external(location="w.bin", offset=64), rows())


def test_constants_are_tensors_too(tmp_path: Path) -> None:
    source = assert_same_answers(tmp_path, chain([constant("", large(), "a")], "a"), rows())
    assert set(by_name(source)) == {"Constant_0.value"}


def test_constants_of_one_name_do_not_take_each_others_place(tmp_path: Path) -> None:
    nodes = [constant("same", large(seed), f"c{seed}") for seed in range(3)]
    source = assert_same_answers(tmp_path, chain(nodes, "c0", "c1", "c2"), rows())
    assert set(by_name(source)) == {"same.value", "same.value#2", "same.value#3"}
    view = onnx.load(tmp_path / "weights" / "model.onnx", load_external_data=False)
    locations = [
        e.value for n in view.graph.node for a in n.attribute for e in a.t.external_data if e.key == "location"
    ]
    assert len(set(locations)) == 3


def test_a_name_that_looks_like_the_second_of_another_keeps_its_own_tensor(tmp_path: Path) -> None:
    nodes = [constant(name, large(i), f"c{i}") for i, name in enumerate(["a", "a", "a.value#2"])]
    model = chain(nodes, "c0", "c1", "c2", "a.value#2")
    model.graph.initializer.append(numpy_helper.from_array(large(7), "a.value#2"))
    source = assert_same_answers(tmp_path, model, rows())
    assert len(by_name(source)) == 4


@pytest.mark.parametrize("chosen", [True, False])
def test_weights_of_both_branches_are_tensors(tmp_path: Path, chosen: bool) -> None:
    node = helper.make_node(
        "If", ["c"], ["y"], name="choose", then_branch=branch("t", large(1)), else_branch=branch("e", large(2))
    )
    model = support.model(
        [node],
        [support.value_info("x", "float32", ["batch", LARGE]), support.value_info("c", "bool", [])],
        [support.value_info("y", "float32", ["batch", LARGE])],
    )
    source = assert_same_answers(tmp_path, model, {**rows(), "c": np.array(chosen)})
    assert set(by_name(source)) == {"choose.then_branch/weight", "choose.else_branch/weight"}


def loop(values: np.ndarray) -> onnx.NodeProto:
    """``y = x + values + values``."""
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["going"], ["goes_on"]),
            helper.make_node("Add", ["before", "step"], ["after"]),
        ],
        "body",
        [support.value_info("number", "int64", []), support.value_info("going", "bool", []), before(values)],
        [support.value_info("goes_on", "bool", []), support.value_info("after", "float32", values.shape)],
        [numpy_helper.from_array(values, "step")],
    )
    return helper.make_node("Loop", ["times", "", "x"], ["y"], name="loop", body=body)


def scan(values: np.ndarray) -> onnx.NodeProto:
    """``y = x + values + values``, the values a constant of the body."""
    body = helper.make_graph(
        [constant("", values, "step"), helper.make_node("Add", ["before", "step"], ["after"]),
         helper.make_node("Identity", ["number"], ["out"])],
        "body",
        [before(values), support.value_info("number", "int64", [])],
        [support.value_info("after", "float32", values.shape), support.value_info("out", "int64", [])],
    )  # fmt: skip
    return helper.make_node("Scan", ["x", "numbers"], ["y", "rest"], name="scan", body=body, num_scan_inputs=1)


def before(values: np.ndarray) -> onnx.ValueInfoProto:
    return support.value_info("before", "float32", values.shape)


@pytest.mark.parametrize("kind", ["Loop", "Scan"])
def test_tensors_of_loops_stay_in_the_graph(tmp_path: Path, kind: str) -> None:
    """ONNX Runtime refuses data outside for them where files have a second name."""
    values = np.arange(LARGE * LARGE, dtype="float32")
    model = support.model(
        [loop(values) if kind == "Loop" else scan(values)],
        [support.value_info("x", "float32", values.shape)],
        [support.value_info("y", "float32", values.shape)],
        {"times": np.array(2), "numbers": np.arange(2)},
    )
    source = assert_same_answers(tmp_path, model, {"x": np.ones_like(values)})
    assert {"Loop": "loop.body/step", "Scan": "scan.body/Constant_0.value"}[kind] in by_name(source)
    view = onnx.load(tmp_path / "weights" / "model.onnx", load_external_data=False)
    assert onnx_format.locations_of(view) == set()
    keeping.assert_same_model(view, model)


def test_a_view_that_no_library_could_parse_is_refused(tmp_path: Path) -> None:
    node = helper.make_node("If", ["c"], ["y"], then_branch=branch("t", large(1)), else_branch=branch("e", large(2)))
    source = read(tmp_path, support.model([node], [], [support.value_info("y", "float32", [])]))
    limit = len(onnx_format.write_view(source.graph, {}, by_name(source)))
    assert onnx_format.write_view(source.graph, {}, by_name(source), limit=limit)
    with pytest.raises(InvalidModel, match=f"the graph would have {limit} bytes"):
        onnx_format.write_view(source.graph, {}, by_name(source), limit=limit - 1)


def test_large_tensor_attributes_of_classical_models_answer_as_before(tmp_path: Path) -> None:
    count = 20_000
    node = helper.make_node(
        "LabelEncoder",
        ["x"],
        ["y"],
        domain="ai.onnx.ml",
        keys_tensor=numpy_helper.from_array(np.arange(count, dtype="int64")),
        values_tensor=numpy_helper.from_array(np.arange(count, dtype="float32")[::-1].copy()),
        default_tensor=numpy_helper.from_array(np.array([-1], dtype="float32")),
    )
    model = support.model(
        [node], [support.value_info("x", "int64", ["n"])], [support.value_info("y", "float32", ["n"])]
    )
    model.opset_import.append(helper.make_opsetid("ai.onnx.ml", 4))
    assert_same_answers(tmp_path, model, {"x": np.array([0, 5, count - 1, count], dtype="int64")})


def test_functions_and_sparse_weights_answer_as_before(tmp_path: Path) -> None:
    for name, model in (
        ("function", building.function_model(numpy_helper.from_array(large(), "c"))),
        ("sparse", building.sparse_model(numpy_helper.from_array(np.array([1, 2, 3], dtype="float32"), "s"))),
    ):
        (tmp_path / name).mkdir()
        assert_same_answers(tmp_path / name, model, rows(LARGE if name == "function" else 4))


def test_an_optional_input_keeps_its_default(tmp_path: Path) -> None:
    model = matmul(weights={"w": large()}, inputs=("w",))
    source = assert_same_answers(tmp_path, model, rows())
    session = runtime.open_session(tmp_path / "weights" / "model.onnx")
    fed = session.run({**rows(), "w": np.eye(LARGE, dtype="float32")})
    np.testing.assert_array_equal(fed["y"], rows()["x"])
    assert source.signature is not None
    assert [spec.optional for spec in source.signature.inputs] == [False, True]


def test_the_view_is_the_same_bytes_every_time(tmp_path: Path) -> None:
    made = []
    for number in range(2):
        source = read(tmp_path, support.wide_model(size=LARGE))
        made.append((building.store(source, tmp_path / str(number)) / "model.onnx").read_bytes())
    assert made[0] == made[1]
    assert len(made[0]) < 2000


def test_the_view_of_a_view_is_the_view(tmp_path: Path) -> None:
    source = read(tmp_path, support.wide_model(size=LARGE))
    first = building.store(source, tmp_path / "first")
    second = building.store(onnx_format.read(first / "model.onnx"), tmp_path / "second")
    for path in sorted(p.relative_to(first) for p in first.rglob("*") if p.is_file()):
        assert (first / path).read_bytes() == (second / path).read_bytes()


# --- single tensors ----------------------------------------------------------------------------------------------------

_arrays = st.sampled_from(
    ["bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64"]
).flatmap(lambda dtype: hnp.arrays(dtype, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)))


@given(st.text(max_size=10), _arrays)
def test_a_tensor_is_decoded_as_it_was_encoded(name: str, values: np.ndarray) -> None:
    decoded_name, decoded = onnx_format.decode_tensor(onnx_format.encode_tensor(name, values), "t.pb")
    assert decoded_name == name
    np.testing.assert_array_equal(decoded, values, strict=True)


def test_texts_are_decoded_as_they_were_encoded() -> None:
    words = np.array([["a", "é"], ["", "b\0c"]], dtype=object)
    _, decoded = onnx_format.decode_tensor(onnx_format.encode_tensor("words", words), "t.pb")
    np.testing.assert_array_equal(decoded, words)


def test_what_is_no_tensor_is_refused() -> None:
    good = helper.make_tensor("t", TensorProto.FLOAT, [2], [1.0, 2.0])
    outside = helper.make_tensor("t", TensorProto.FLOAT, [2], [1.0, 2.0])
    building.point_outside(outside, location="/etc/passwd")
    bad: list[bytes] = [b"", b"\xff", outside.SerializeToString(), good.SerializeToString()[:-1]]
    for changes in ({"data_type": 999}, {"data_type": -1}, {"dims": [-1]}, {"dims": [3]}, {"dims": [2**62, 2**62]}):
        model = onnx.ModelProto()
        model.graph.initializer.append(good)
        bad.append(with_fields(model, **changes).graph.initializer[0].SerializeToString())
    for data in bad:
        with pytest.raises(InvalidModel, match=r"^t\.pb is no tensor"):
            onnx_format.decode_tensor(data, "t.pb")


def test_a_damaged_tensor_is_decoded_or_refused() -> None:
    data = helper.make_tensor("name", TensorProto.INT64, [2, 2], [1, 2, 3, 4]).SerializeToString()
    for changed in building.damaged(data, trials=500):
        try:
            onnx_format.decode_tensor(changed, "t.pb")
        except GitmodelError as error:
            assert str(error).startswith("t.pb")


# --- real models -------------------------------------------------------------------------------------------------------

MAGIKA = ["standard_v1", "standard_v2_0", "standard_v2_1", "standard_v3_0", "standard_v3_3"]


@pytest.mark.realdata
@pytest.mark.parametrize("generation", MAGIKA)
def test_the_tensors_of_a_real_model_are_those_onnx_reads(real_data: Path, generation: str) -> None:
    path = real_data / "magika" / generation / "model.onnx"
    source = onnx_format.read(path)
    tensors, original = by_name(source), onnx.load(path)
    assert len(original.graph.initializer) > 5
    for initializer in original.graph.initializer:
        expected = numpy_helper.to_array(initializer)
        np.testing.assert_array_equal(building.array(tensors[initializer.name]), expected, strict=True)
    attributes = [a.t for node in original.graph.node for a in node.attribute if a.type == onnx.AttributeProto.TENSOR]
    assert len(tensors) == len(original.graph.initializer) + len(attributes)


@pytest.mark.realdata
@pytest.mark.parametrize("generation", MAGIKA)
def test_the_view_of_a_real_model_answers_like_the_original(real_data: Path, tmp_path: Path, generation: str) -> None:
    path = real_data / "magika" / generation / "model.onnx"
    source = onnx_format.read(path)
    assert source.signature is not None
    (spec,) = source.signature.inputs
    assert spec.shape is not None
    width = spec.shape[1]
    assert isinstance(width, int)
    inputs = {spec.name: np.random.default_rng(0).integers(0, 256, (4, width)).astype(spec.dtype)}
    view = building.store(source, tmp_path / "weights")
    expected = runtime.open_session(path).run(inputs)
    for name, values in runtime.open_session(view / "model.onnx").run(inputs).items():
        np.testing.assert_array_equal(values, expected[name], strict=True)
    building.assert_view_holds(view / "weights.h5", source)


@pytest.mark.realdata
def test_the_view_of_a_real_model_gives_the_publishers_results(real_data: Path, tmp_path: Path) -> None:
    folder = real_data / "magika" / "standard_v3_3"
    view = building.store(onnx_format.read(folder / "model.onnx"), tmp_path / "weights")
    session = runtime.open_session(view / "model.onnx")
    with np.load(folder / "reference.npz") as reference:
        for row, score in zip(reference["bytes"], reference["score"], strict=True):
            (probabilities,) = session.run({"bytes": row[None]}).values()
            assert probabilities.max() == pytest.approx(score, abs=1e-6)
