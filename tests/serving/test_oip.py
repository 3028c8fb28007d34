"""gitmodel.serving.oip: the codec of the Open Inference Protocol, against tritonclient's own and by its bytes."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Callable, Mapping
from typing import Any, cast

import numpy as np
import pytest
import tritonclient.http as triton
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from onnx import helper

from gitmodel.bundle.signature import Dim, Signature, TensorSpec
from gitmodel.runtime import Session
from gitmodel.serving import oip
from gitmodel.serving.dataplane import DataplaneError
from gitmodel.serving.http import ALIGNED, Bodies, aligned
from gitmodel.serving.servable import Servable
from tests import support

NUMERIC = {name: dtype for name, dtype in oip.DATATYPES.items() if dtype != "string"}
AS_JSON = sorted(set(NUMERIC) - {"FP16"})
#: No timed verdicts: the machine may be busy with other tests.
calm = settings(max_examples=60)
TEXT = st.text(st.characters(codec="utf-8"), max_size=8)


def version_of(dtype: str = "float32", shape: tuple[Dim, ...] | None = ("batch", 4), inputs: int = 1) -> Servable:
    """A version whose session is never asked: the codec only looks at names."""
    specs = tuple(TensorSpec(f"x{i}" if i else "x", dtype, shape) for i in range(inputs))
    signature = Signature(specs, (TensorSpec("y", dtype, shape),))
    return Servable(
        "fraud", "v1.2.0", 3, "c", "d", "onnxruntime_onnx", signature, cast(Session, None), 0.0, 0, 0
    )  # fmt: skip


def decode(body: Any, length: int | None = None, servable: Servable | None = None) -> oip.InferRequest:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    return oip.decode(data, length, servable or version_of())


def call(datatype: str, shape: list[Any], data: Any, **more: Any) -> dict[str, Any]:
    return {"inputs": [{"name": "x", "shape": shape, "datatype": datatype, "data": data}], **more}


def refused(body: Any, length: int | None = None, servable: Servable | None = None) -> str:
    """The message of a refusal that is the caller's fault."""
    with pytest.raises(DataplaneError) as caught:
        decode(body, length, servable)
    assert caught.value.code == "invalid_argument"
    return caught.value.message


@st.composite
def tensors(draw: st.DrawFn, datatypes: list[str], *, finite: bool = False) -> tuple[str, np.ndarray]:
    datatype = draw(st.sampled_from(datatypes))
    dtype = np.dtype(NUMERIC[datatype])
    shape = draw(arrays.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3))
    elements = None
    if dtype.kind == "f" and finite:
        elements = st.floats(width=dtype.itemsize * 8, allow_nan=False, allow_infinity=False)  # type: ignore[arg-type]  # 16, 32 or 64
    return datatype, draw(arrays.arrays(dtype, shape, elements=elements))


@st.composite
def texts(draw: st.DrawFn) -> np.ndarray:
    shape = draw(arrays.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=3))
    items = draw(st.lists(TEXT, min_size=math.prod(shape), max_size=math.prod(shape)))
    found = np.empty(len(items), dtype=object)
    found[:] = items
    return found.reshape(shape)


def same(got: np.ndarray, want: np.ndarray) -> None:
    assert got.shape == want.shape
    if want.dtype == object:
        assert got.tolist() == want.tolist()
    else:
        assert got.dtype == want.dtype
        assert got.tobytes() == want.tobytes()  # NaN's bits and the sign of zero count


@calm
@given(tensors(AS_JSON, finite=True), st.booleans())
def test_json_comes_back_as_it_went_flat_or_nested(tensor: tuple[str, np.ndarray], nested: bool) -> None:
    datatype, values = tensor
    data = values.tolist() if nested else values.reshape(-1).tolist()
    same(decode(call(datatype, list(values.shape), data)).inputs["x"], values)


@calm
@given(texts(), st.booleans())
def test_text_as_json_comes_back_as_it_went(values: np.ndarray, nested: bool) -> None:
    data = values.tolist() if nested else values.reshape(-1).tolist()
    same(decode(call("BYTES", list(values.shape), data)).inputs["x"], values)


@calm
@given(st.lists(tensors(sorted(NUMERIC)), min_size=1, max_size=4), texts())
def test_what_tritonclient_writes_in_bytes_is_read(numbers: list[tuple[str, np.ndarray]], text: np.ndarray) -> None:
    sent = {f"x{i}": tensor for i, tensor in enumerate(numbers)} | {"text": ("BYTES", text)}
    inputs = []
    for name, (datatype, values) in sent.items():
        tensor = triton.InferInput(name, list(values.shape), datatype)
        tensor.set_data_from_numpy(values)
        inputs.append(tensor)
    body, length = triton.InferenceServerClient.generate_request_body(inputs, request_id="7")
    request = decode(bytes(body), length)
    assert request.id == "7"
    assert request.outputs is None
    assert request.all_binary
    assert list(request.inputs) == list(sent)
    for name, (_, values) in sent.items():
        same(request.inputs[name], values)


@calm
@given(st.lists(tensors(sorted(NUMERIC)), min_size=1, max_size=4), texts())
def test_what_is_written_in_bytes_tritonclient_reads(numbers: list[tuple[str, np.ndarray]], text: np.ndarray) -> None:
    outputs = {f"y{i}": values for i, (_, values) in enumerate(numbers)} | {"text": text}
    head, parts = oip.encode(version_of(), oip.InferRequest("7", {}, None, frozenset(), True), outputs)
    result = triton.InferenceServerClient.parse_response_body(b"".join([head, *parts]), header_length=len(head))
    answer = result.get_response()
    assert (answer["model_name"], answer["model_version"], answer["id"]) == ("fraud", "v1.2.0", "7")
    for index, (datatype, _) in enumerate(numbers):
        assert answer["outputs"][index]["datatype"] == datatype
    for name, values in outputs.items():
        got = result.as_numpy(name)
        if name == "text":
            assert [item.decode() for item in got.reshape(-1)] == values.reshape(-1).tolist()
        else:
            same(got, values)


@calm
@given(tensors(AS_JSON, finite=True), texts())
def test_what_is_written_as_json_reads_back(tensor: tuple[str, np.ndarray], text: np.ndarray) -> None:
    datatype, values = tensor
    request = oip.InferRequest(None, {}, None, frozenset(), False)
    body, parts = oip.encode(version_of(), request, {"y": values, "text": text})
    assert parts == []
    answer = json.loads(body)
    assert "id" not in answer
    first, second = answer["outputs"]
    assert (first["name"], first["datatype"], second["datatype"]) == ("y", datatype, "BYTES")
    same(np.array(first["data"], values.dtype).reshape(first["shape"]), values)
    assert (second["shape"], second["data"]) == (list(text.shape), text.reshape(-1).tolist())


@calm
@given(st.binary(max_size=200), st.one_of(st.none(), st.integers(0, 200)))
def test_no_body_however_strange_is_more_than_refused(body: bytes, length: int | None) -> None:
    if length is not None and length > len(body):
        length = len(body)  # the front end has held it against the body's size
    try:
        oip.decode(body, length, version_of())
    except DataplaneError as error:
        assert error.code == "invalid_argument"


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=12,
)


@calm
@given(
    st.sampled_from([*oip.DATATYPES, "BF16", ""]),
    st.lists(st.integers(-3, 2**70) | st.integers(0, 3), max_size=80),
    _JSON,
)
def test_no_tensor_however_strange_is_more_than_refused(datatype: str, shape: list[int], data: Any) -> None:
    try:
        decode(call(datatype, shape, data))
    except DataplaneError as error:
        assert error.code == "invalid_argument"


@pytest.mark.parametrize(
    ("datatype", "smallest", "largest"),
    [(name, np.iinfo(d).min, np.iinfo(d).max) for name, d in NUMERIC.items() if np.dtype(d).kind in "iu"],
)
def test_the_limits_of_an_integer_pass_and_one_more_does_not(datatype: str, smallest: int, largest: int) -> None:
    assert decode(call(datatype, [3], [smallest, largest, 1])).inputs["x"].tolist() == [smallest, largest, 1]
    for value in (smallest - 1, largest + 1):
        assert "'x'" in refused(call(datatype, [2], [value, 1]))


@pytest.mark.parametrize("value", [1e39, -1e39, 10**39, 10**400], ids=["1e39", "-1e39", "10^39", "10^400"])
def test_a_number_beyond_a_floats_largest_does_not_fit_and_never_becomes_infinite(value: float) -> None:
    assert refused(call("FP32", [2], [value, 1])) == "input 'x': a value does not fit FP32"


@pytest.mark.parametrize(
    ("datatype", "data"),
    [
        ("INT64", [1.5]), ("INT64", [1.0]), ("INT64", ["1"]), ("INT64", [True]), ("INT64", [1, True]), ("INT64", [None]),
        ("INT64", [{}]), ("INT64", "1"), ("FP32", [True]), ("FP32", [1.5, True]), ("FP32", ["1.5"]), ("FP32", [None]),
        ("FP32", {"a": 1}), ("BOOL", [1]), ("BOOL", ["true"]), ("BYTES", [1]), ("BYTES", [None]), ("BYTES", [["a"], ["b", "c"]]),
        ("FP32", [1e39]), ("FP32", [-1e39]), ("FP16", [1.0]),
    ],
)  # fmt: skip
def test_values_of_another_type_are_refused(datatype: str, data: Any) -> None:
    size = len(data) if isinstance(data, list) else 1
    assert refused(call(datatype, [size], data)).startswith("input 'x'")


def test_whole_numbers_of_any_size_are_floats_too() -> None:
    assert decode(call("FP64", [3], [2**70, -1, 0.5])).inputs["x"].tolist() == [2.0**70, -1.0, 0.5]


@pytest.mark.parametrize(
    ("shape", "elements"),
    [
        ([2], 3), ([], 3), ([-1], 1), ([-1, -1], 1), ([1, -1], 1), ([0], 1), ([3], 4), ([2**64], 1), ([10**30], 1),
        ([1] * 70, 1), ([0, 2**40, 2**40], 0), ([0, 2**70], 0), ([-1, 0], 0), ([1.0], 1), (["1"], 1), ([True], 1),
        ("1", 1), (None, 1), (1, 1),
    ],
)  # fmt: skip
def test_a_shape_the_data_do_not_fill_is_refused(shape: Any, elements: int) -> None:
    refused({"inputs": [{"name": "x", "shape": shape, "datatype": "FP32", "data": [1.0] * elements}]})


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "not valid"),
        (b"{", "not valid"),
        (b"[]", "expected `object`"),
        (b'"text"', "expected `object`"),
        (b"null", "expected `object`"),
        (b"\xff\xfe", "not valid"),
        (b'{"inputs": [], "inputs"', "not valid"),
        ({}, "inputs"),
        ({"inputs": {}}, "expected `array`"),
        ({"inputs": [1]}, "expected `object`"),
        ({"inputs": [{"name": "x", "shape": [1], "datatype": "FP32"}]}, "no data"),
        ({"inputs": [{"shape": [1], "datatype": "FP32", "data": [1]}]}, "name"),
        ({"inputs": [{"name": "x", "datatype": "FP32", "data": [1]}]}, "shape"),
        ({"inputs": [{"name": "x", "shape": [1], "data": [1]}]}, "datatype"),
        (call("FLOAT", [1], [1.0]), "datatype 'FLOAT' is not supported"),
        (call("fp32", [1], [1.0]), "datatype 'fp32' is not supported"),
        (call("BF16", [1], [1.0]), "BF16"),
        (call("FP32", [3], [[1.0], [2.0, 3.0]]), "ragged"),
        ({"inputs": [*call("FP32", [1], [1.0])["inputs"] * 2]}, "'x' stands twice"),
        (call("FP32", [1], [1.0], outputs=[{"name": "y"}, {"name": "y"}]), "asked for twice"),
        (call("FP32", [1], [1.0], outputs=["y"]), "expected `object`"),
        (call("FP32", [1], [1.0], id=7), "$.id"),
        (call("FP32", [1], [1.0], parameters=[]), "$.parameters"),
        (b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[NaN]}]}', "not valid"),
    ],
)
def test_a_request_that_is_none_is_refused_with_the_reason(body: Any, says: str) -> None:
    assert says.lower() in refused(body).lower()


@pytest.mark.parametrize("key", ["data", "parameters", "unknown"])
def test_json_a_million_deep_is_refused(key: str) -> None:
    deep = b"[" * 1_000_000 + b"]" * 1_000_000
    refused(b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","%s":%s}]}' % (key.encode(), deep))


def test_lists_deeper_than_any_tensor_are_refused() -> None:
    refused(b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":' + b"[" * 500 + b"1" + b"]" * 500 + b"}]}")


def binary(size: Any, blob: bytes, *, datatype: str = "FP32", shape: Any = (2,)) -> tuple[bytes, int]:
    tensor = {"name": "x", "shape": list(shape), "datatype": datatype, "parameters": {"binary_data_size": size}}
    head = json.dumps({"inputs": [tensor]}).encode()
    return head + blob, len(head)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (binary(8, b"\0" * 4), "does not fit the body"),
        (binary(8, b""), "does not fit the body"),
        (binary(-1, b"\0" * 8), "does not fit the body"),
        (binary(True, b"\0" * 8), "does not fit the body"),
        (binary("8", b"\0" * 8), "does not fit the body"),
        (binary(8.0, b"\0" * 8), "does not fit the body"),
        (binary(8, b"\0" * 12), "4 bytes follow"),
        (binary(4, b"\0" * 4), "does not fit 1 elements"),
        (binary(7, b"\0" * 7), "no whole number of FP32"),
        (binary(5, b"\x09\0\0\0a", datatype="BYTES", shape=[1]), "runs past"),
        (binary(3, b"\0\0\0", datatype="BYTES", shape=[1]), "runs past"),
        (binary(5, b"\x01\0\0\0\xff", datatype="BYTES", shape=[1]), "not UTF-8"),
        (binary(5, b"\x01\0\0\0a", datatype="BYTES", shape=[2]), "does not fit 1 elements"),
        (binary(2, b"\0\0", datatype="BF16", shape=[1]), "BF16"),
    ],
)
def test_bytes_that_do_not_fit_are_refused(body: tuple[bytes, int], says: str) -> None:
    assert says in refused(*body)


def test_a_size_without_any_bytes_after_the_json_is_refused() -> None:
    body, _ = binary(8, b"")
    assert "does not fit the body" in refused(body)


def test_bytes_and_json_mix_in_one_request() -> None:
    head = json.dumps(
        {
            "inputs": [
                {"name": "a", "shape": [2], "datatype": "UINT16", "parameters": {"binary_data_size": 4}},
                {"name": "b", "shape": [1], "datatype": "INT8", "data": [-3]},
                {"name": "c", "shape": [1], "datatype": "BYTES", "parameters": {"binary_data_size": 6}},
            ]
        }
    ).encode()
    request = decode(head + b"\x01\x00\x00\x01" + b"\x02\0\0\0hi", len(head))
    assert {name: values.tolist() for name, values in request.inputs.items()} == {"a": [1, 256], "b": [-3], "c": ["hi"]}


@pytest.mark.parametrize(
    ("asked", "everything", "binary_names"),
    [
        ([{"name": "y"}, {"name": "z"}], None, set()),
        ([{"name": "y", "parameters": {"binary_data": True}}, {"name": "z"}], None, {"y"}),
        ([{"name": "y"}, {"name": "z"}], True, {"y", "z"}),
        ([{"name": "y", "parameters": {"binary_data": False}}, {"name": "z"}], True, {"z"}),
        ([{"name": "y", "parameters": {"binary_data": True}}, {"name": "z"}], False, {"y"}),
        (None, True, {"y", "z"}),
        ([], True, {"y", "z"}),
        (None, False, set()),
    ],
)
def test_what_an_output_asks_for_wins_over_the_whole_request(
    asked: list[dict[str, Any]] | None, everything: bool | None, binary_names: set[str]
) -> None:
    body = call("FP32", [1], [1.0])
    if asked is not None:
        body["outputs"] = asked
    if everything is not None:
        body["parameters"] = {"binary_data_output": everything}
    outputs = {"y": np.ones(2, "float32"), "z": np.ones(3, "int64")}
    head, parts = oip.encode(version_of(), decode(body), outputs)
    described = json.loads(head)["outputs"]
    assert {entry["name"] for entry in described if "data" not in entry} == binary_names
    sizes = [entry["parameters"]["binary_data_size"] for entry in described if "parameters" in entry]
    assert len(parts) == len(binary_names)
    assert [len(part) for part in parts] == sizes


def test_an_empty_list_of_outputs_asks_for_all() -> None:
    assert decode(call("FP32", [1], [1.0], outputs=[])).outputs is None


def test_half_floats_go_out_as_bytes_only() -> None:
    request = oip.InferRequest(None, {}, None, frozenset(), False)
    with pytest.raises(DataplaneError, match="ask for binary_data") as caught:
        oip.encode(version_of(), request, {"y": np.ones(1, "float16")})
    assert caught.value.code == "invalid_argument"


def test_an_output_that_is_no_tensor_is_unimplemented() -> None:
    request = oip.InferRequest(None, {}, None, frozenset(), False)
    with pytest.raises(DataplaneError, match="'y' is no tensor") as caught:
        oip.encode(version_of(), request, cast(Mapping[str, Any], {"y": [{"a": 1.0}]}))  # type: ignore[arg-type]  # what the runtime gives for a map
    assert caught.value.code == "unimplemented"


def test_a_raw_body_takes_its_free_dimension_from_its_length() -> None:
    request = decode(np.arange(8, dtype="float32").tobytes(), 0)
    same(request.inputs["x"], np.arange(8, dtype="float32").reshape(2, 4))
    assert request.all_binary
    assert decode(b"", 0).inputs["x"].shape == (0, 4)
    assert decode(b"\x01\x00", 0, version_of("bool", (2,))).inputs["x"].tolist() == [True, False]


@pytest.mark.parametrize(
    ("size", "servable"),
    [
        (15, version_of()),
        (20, version_of()),
        (16, version_of(inputs=2)),
        (16, version_of(inputs=0)),
        (16, version_of("string")),
        (16, version_of(shape=("a", "b"))),
        (16, version_of(shape=None)),
        (12, version_of(shape=(2, 2))),
        (16, version_of("bfloat16")),
        (16, version_of("float8e5m2")),
        (16, version_of(shape=("batch", 0))),
    ],
    ids=["half", "row", "two", "none", "text", "free", "rank", "fixed", "bfloat16", "float8", "nothing"],
)
def test_a_raw_body_that_does_not_tell_its_shape_is_refused(size: int, servable: Servable) -> None:
    refused(b"\0" * size, 0, servable)


def test_metadata_names_types_and_free_dimensions_as_the_protocol_does(servable: Callable[..., Servable]) -> None:
    described = oip.metadata(servable(), ["v1.0.0"])
    assert described == {
        "name": "fraud",
        "versions": ["v1.0.0"],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}],
        "outputs": [{"name": "scores", "datatype": "FP32", "shape": [-1, 3]}],
    }
    strange = oip.metadata(version_of("bfloat16", None), [])
    assert strange["inputs"] == [{"name": "x", "datatype": "BF16", "shape": []}]


@pytest.mark.parametrize("extra", range(0, 20, 3))
def test_tensors_lie_as_they_should_wherever_their_bytes_begin(extra: int, servable: Callable[..., Servable]) -> None:
    """Where a tensor begins in memory decides in which parts ONNX Runtime sums it up, and so the last digits of the sum."""
    first, second = (np.random.default_rng(seed).normal(size=(1, 333 + seed)).astype("float32") for seed in (1, 2))
    nodes = [helper.make_node("ReduceSum", [name], [f"s{name}"], keepdims=0) for name in ("a", "b")]
    model = support.model(
        nodes,
        [support.value_info(name, "float32", ["n", None]) for name in ("a", "b")],
        [support.value_info(f"s{name}", "float32", []) for name in ("a", "b")],
    )
    found = servable(model)
    tensors = [
        {"name": name, "shape": list(value.shape), "datatype": "FP32", "parameters": {"binary_data_size": value.nbytes}}
        for name, value in (("a", first), ("b", second))
    ]
    head = json.dumps({"inputs": tensors, "id": "i" * extra}).encode()
    pieces = [head[:7], head[7:] + first.tobytes()[:5], first.tobytes()[5:] + second.tobytes()]

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": pieces.pop(0), "more_body": bool(pieces)}

    body = aligned(len(head), asyncio.run(Bodies(1 << 20, 60).read(receive)))
    request = oip.decode(body, len(head), found)
    assert [value.__array_interface__["data"][0] % ALIGNED for value in request.inputs.values()] == [0, 0]
    answer = found.session.run(request.inputs)
    wanted = found.session.run({"a": first, "b": second})
    assert {name: float(value) for name, value in answer.items()} == {n: float(v) for n, v in wanted.items()}
