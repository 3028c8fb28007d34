"""gitmodel.serving.rest over the wire: a real server asked by the standard library's HTTP client, by curl and by tritonclient."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import socket
import struct
import subprocess
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, cast

import numpy as np
import onnx
import pytest
import tritonclient.http as triton
from onnx import helper
from tritonclient.utils import InferenceServerException

from gitmodel import __version__, endpoint
from gitmodel.bundle.lock import Lock
from gitmodel.serving import http
from gitmodel.serving.dataplane import Dataplane
from gitmodel.serving.guard import Guard
from gitmodel.serving.host import Host
from gitmodel.serving.manager import Manager
from gitmodel.serving.oip import DATATYPES
from gitmodel.serving.rest import App
from gitmodel.serving.servable import Serving
from gitmodel.serving.traffic import Traffic
from tests import support
from tests.serving import production as place
from tests.serving.production import Answer, Production, Server, array, infer, rows, tensors

FRAUD = "/v2/models/fraud/infer"
LIMIT = 64 << 20
#: Values of every datatype, the awkward ones included.
SAMPLES: dict[str, np.ndarray] = {
    "BOOL": np.array([True, False, True]),
    "UINT8": np.array([0, 1, 255], "uint8"),
    "UINT16": np.array([0, 1, 65535], "uint16"),
    "UINT32": np.array([0, 1, 2**32 - 1], "uint32"),
    "UINT64": np.array([0, 1, 2**64 - 1], "uint64"),
    "INT8": np.array([-128, 0, 127], "int8"),
    "INT16": np.array([-(2**15), 0, 2**15 - 1], "int16"),
    "INT32": np.array([-(2**31), 0, 2**31 - 1], "int32"),
    "INT64": np.array([-(2**63), 0, 2**63 - 1], "int64"),
    "FP16": np.array([-65504.0, 6e-8, 1.5], "float16"),
    "FP32": np.array([-3.4e38, 1e-45, 0.1], "float32"),
    "FP64": np.array([-1.7e308, 5e-324, 0.1], "float64"),
    "BYTES": np.array(["", "grüße", 'quote " and \\ and \n'], object),
}


def echo(dtype: str, shape: list[int | str | None]) -> onnx.ModelProto:
    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    return support.model(nodes, [support.value_info("x", dtype, shape)], [support.value_info("y", dtype, shape)])


def pair() -> onnx.ModelProto:
    """Two inputs of different types, and their negatives."""
    nodes = [helper.make_node("Neg", ["a"], ["minus_a"]), helper.make_node("Neg", ["b"], ["minus_b"])]
    inputs = [support.value_info("a", "float32", ["n", 2]), support.value_info("b", "int64", ["m"])]
    outputs = [support.value_info("minus_a", "float32", ["n", 2]), support.value_info("minus_b", "int64", ["m"])]
    return support.model(nodes, inputs, outputs)


def table() -> onnx.ModelProto:
    nodes = [helper.make_node("Gather", ["table", "x"], ["y"])]
    return support.model(
        nodes,
        [support.value_info("x", "int64", ["n"])],
        [support.value_info("y", "float32", ["n"])],
        {"table": np.arange(3, dtype="float32")},
    )


def pairs_of_scores() -> onnx.ModelProto:
    """Gives a sequence, which the protocol cannot carry."""
    sequence = helper.make_tensor_sequence_value_info("y", onnx.TensorProto.FLOAT, ["n"])
    node = helper.make_node("SequenceConstruct", ["x", "x"], ["y"])
    return support.model([node], [support.value_info("x", "float32", ["n"])], [sequence])


@pytest.fixture(scope="module")
def production(tmp_path_factory: pytest.TempPathFactory) -> Production:
    """fraud v1.0.0 and v1.1.0; a model for every datatype; others with something special each; one that is broken."""
    made = Production.make(tmp_path_factory.mktemp("rest"))
    tags = [made.release("fraud@v1.0.0"), made.release("fraud@v1.1.0", scale=2.0)]
    models = {f"echo-{name}": echo(dtype, ["n"]) for name, dtype in DATATYPES.items()}
    models |= {"scalar": echo("float32", []), "cube": echo("int32", [2, "n", 2]), "pair": pair(), "table": table()}
    models |= {"sequence": pairs_of_scores(), "half": echo("bfloat16", ["n"])}
    for name, model in models.items():
        made.save(model, name)
        tags.append(made.tag(f"{name}@v1.0.0"))
    tags.append(made.release("broken@v1.0.0", broken=True))
    made.push(*tags)
    return made


@pytest.fixture(scope="module")
def server(production: Production) -> Iterator[Server]:
    with place.serving(production.bare) as running:
        yield running


@pytest.fixture(scope="module")
def client(server: Server) -> Iterator[Any]:
    with contextlib.closing(triton.InferenceServerClient(server.url.removeprefix("http://"))) as opened:
        yield opened


@pytest.fixture(scope="module")
def expected(production: Production) -> np.ndarray:
    """What the version that serves gives for ``rows(2)``."""
    return place.expected(production, scale=2.0)


# The server and its models


def test_the_server_lives_and_says_what_it_is(server: Server) -> None:
    assert server.ask("GET", "/v2/health/live").json == {"live": True}
    assert server.ask("GET", "/v2").json == {
        "name": "gitmodel",
        "version": __version__,
        "extensions": ["model_repository", "binary_tensor_data"],
    }
    assert server.ask("GET", "/v2/").json == server.ask("GET", "/v2").json


def test_a_server_with_a_model_that_will_not_load_is_not_ready(server: Server) -> None:
    answer = server.ask("GET", "/v2/health/ready")
    assert (answer.status, answer.json) == (400, {"ready": False})


@pytest.mark.parametrize("version", ["", "/versions/v1.1.0", "/versions/2", "/versions/v1%2e1%2E0"])
def test_metadata_by_tag_by_number_and_by_default(server: Server, version: str) -> None:
    answer = server.ask("GET", f"/v2/models/fraud{version}")
    assert answer.status == 200
    assert answer.who[0] == "v1.1.0"
    assert answer.json == {
        "name": "fraud",
        "versions": ["v1.1.0"],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}],
        "outputs": [{"name": "scores", "datatype": "FP32", "shape": [-1, 3]}],
    }
    assert server.ask("GET", f"/v2/models/fraud{version}/ready").json == {"name": "fraud", "ready": True}


def test_head_is_get_without_the_body(server: Server) -> None:
    answer = server.ask("HEAD", "/v2/models/fraud")
    assert (answer.status, answer.body) == (200, b"")
    assert answer.headers["content-length"] == str(len(server.ask("GET", "/v2/models/fraud").body))


def test_a_model_that_would_not_load_says_why_wherever_it_is_asked(server: Server) -> None:
    reason = "4 of 4 golden cases fail"
    ready = server.ask("GET", "/v2/models/broken/ready")
    assert (ready.status, ready.json["ready"]) == (400, False)
    assert reason in ready.json["error"]
    for method, path in (("GET", "/v2/models/broken"), ("POST", "/v2/models/broken/versions/1/infer")):
        answer = server.ask(method, path, {} if method == "POST" else None)
        assert answer.status == 503
        assert reason in answer.error


def test_every_answer_names_tag_commit_and_weights_as_git_has_them(server: Server, production: Production) -> None:
    lock = support.git(production.bare, "show", "fraud@v1.1.0:models/fraud/weights.lock") + "\n"
    commit = support.git(production.bare, "rev-parse", "fraud@v1.1.0^{commit}")
    want = ("v1.1.0", commit, f"sha256:{Lock.from_text(lock, 'Git').digest}")
    for answer in (
        server.ask("GET", "/v2/models/fraud"),
        server.ask("GET", "/v2/models/fraud/ready"),
        server.ask("POST", FRAUD, infer(rows(1))),
        server.ask("POST", FRAUD, b"not JSON"),
        server.ask("POST", FRAUD, infer(rows(1), "other")),
    ):
        assert answer.who == want
    assert server.ask("GET", "/v2").who == (None, None, None)


def test_the_index_lists_versions_with_state_and_reason(server: Server) -> None:
    everything = server.ask("POST", "/v2/repository/index")
    assert everything.status == 200
    by_name = {(row["name"], row["version"]): row for row in everything.json}
    assert by_name["fraud", "v1.1.0"] == {"name": "fraud", "version": "v1.1.0", "state": "READY", "reason": ""}
    broken = by_name["broken", "v1.0.0"]
    assert broken["state"] == "UNAVAILABLE"
    assert "golden cases fail" in broken["reason"]
    ready = server.ask("POST", "/v2/repository/index", {"ready": True}).json
    assert {row["state"] for row in ready} == {"READY"}
    assert [row for row in everything.json if row["state"] == "READY"] == ready


def test_the_page_and_the_metrics_are_of_this_server(server: Server) -> None:
    server.ask("POST", FRAUD, infer(rows(1)))
    page = server.ask("GET", "/")
    assert (page.status, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert page.headers["content-security-policy"].startswith("default-src 'none'")
    assert b"4 of 4 golden cases fail" in page.body
    metrics = server.ask("GET", "/metrics")
    assert metrics.headers["content-type"].startswith("text/plain; version=0.0.4")
    lines = metrics.body.decode().splitlines()
    (asked,) = [x for x in lines if x.startswith("gitmodel_requests_total") and 'model="fraud",status="200"' in x]
    assert float(asked.rpartition(" ")[2]) >= 1
    assert 'gitmodel_loads_total{model="broken",outcome="failed"} 1.0' in lines
    assert server.ask("POST", "/metrics").status == 405


# tritonclient, unmodified


def test_tritonclient_asks_about_server_and_models(client: Any) -> None:
    assert client.is_server_live()
    assert not client.is_server_ready()  # one of the models is broken
    assert client.is_model_ready("fraud")
    assert client.is_model_ready("fraud", "2")
    assert client.is_model_ready("fraud", "v1.1.0")
    assert not client.is_model_ready("broken")
    assert not client.is_model_ready("nothing")
    assert client.get_server_metadata()["name"] == "gitmodel"
    assert client.get_model_metadata("fraud", "2")["versions"] == ["v1.1.0"]
    assert "fraud" in {row["name"] for row in client.get_model_repository_index()}


@pytest.mark.parametrize("as_bytes", [True, False], ids=["bytes", "JSON"])
@pytest.mark.parametrize("version", ["", "2", "v1.1.0"])
def test_tritonclient_gets_the_models_own_answer(
    client: Any, expected: np.ndarray, as_bytes: bool, version: str
) -> None:
    tensor = triton.InferInput("x", [2, 4], "FP32")
    tensor.set_data_from_numpy(rows(2), binary_data=as_bytes)
    wanted = [triton.InferRequestedOutput("scores", binary_data=as_bytes)]
    result = client.infer("fraud", [tensor], outputs=wanted, model_version=version, request_id="seven")
    assert result.as_numpy("scores").tobytes() == expected.tobytes()
    assert result.get_response()["id"] == "seven"
    assert result.get_response()["model_version"] == "v1.1.0"


@pytest.mark.parametrize("datatype", sorted(DATATYPES))
def test_tritonclient_carries_every_datatype(client: Any, datatype: str) -> None:
    values = SAMPLES[datatype]
    for as_bytes in (True, False) if datatype != "FP16" else (True,):
        tensor = triton.InferInput("x", [3], datatype)
        tensor.set_data_from_numpy(values, binary_data=as_bytes)
        got = client.infer("echo-" + datatype, [tensor]).as_numpy("y")
        if datatype == "BYTES":
            assert [item.decode() for item in got] == values.tolist()
        else:
            assert (got.dtype, got.tobytes()) == (values.dtype, values.tobytes())


@pytest.mark.parametrize("how", [{}, {"response_compression_algorithm": "gzip"}])
def test_tritonclient_hears_of_its_mistakes_in_words(client: Any, how: dict[str, str]) -> None:
    tensor = triton.InferInput("x", [1, 5], "FP32")
    tensor.set_data_from_numpy(np.zeros((1, 5), "float32"))
    with pytest.raises(InferenceServerException) as caught:
        client.infer("fraud", [tensor], **how)
    assert caught.value.status() == "400"
    assert "has shape [1, 5]" in caught.value.message()


@pytest.mark.parametrize("as_bytes", [True, False], ids=["bytes", "JSON"])
@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_tritonclient_that_compresses_is_told_to_leave_that(client: Any, coding: str, as_bytes: bool) -> None:
    tensor = triton.InferInput("x", [2, 4], "FP32")
    tensor.set_data_from_numpy(rows(2), binary_data=as_bytes)
    with pytest.raises(InferenceServerException) as caught:
        client.infer("fraud", [tensor], request_compression_algorithm=coding)
    assert caught.value.status() == "415"
    assert caught.value.message() == f"Content-Encoding '{coding}' is not supported: send the body uncompressed"


def test_tritonclient_hears_that_there_are_no_sequences_classifications_and_shared_memory(client: Any) -> None:
    def said(output: Any, tensor: Any, **more: Any) -> str:
        with pytest.raises(InferenceServerException) as caught:
            client.infer("fraud", [tensor], outputs=[output], **more)
        assert caught.value.status() == "400"
        return str(caught.value.message())

    tensor, scores = triton.InferInput("x", [2, 4], "FP32"), triton.InferRequestedOutput("scores")
    tensor.set_data_from_numpy(rows(2))
    assert said(scores, tensor, sequence_id=5).startswith("the parameter 'sequence_id' is not supported")
    best = triton.InferRequestedOutput("scores", class_count=2)
    assert said(best, tensor).startswith("output 'scores': the parameter 'classification' is not supported: ask for")
    scores.set_shared_memory("region", 24)
    assert said(scores, tensor).startswith("output 'scores': the parameter 'shared_memory_region' is not supported")
    tensor.set_shared_memory("region", 32)
    assert said(best, tensor).startswith("input 'x': the parameter 'shared_memory_region' is not supported")


def test_a_parameter_that_asks_for_nothing_or_that_nobody_knows_is_passed_over(server: Server) -> None:
    nothing = {"sequence_id": 0, "sequence_start": False, "sequence_end": False, "trace": "on"}
    outputs = [{"name": "scores", "parameters": {"classification": 0, "colour": "red"}}]
    assert server.ask("POST", FRAUD, infer(rows(1), parameters=nothing, outputs=outputs)).status == 200
    for name in ("sequence_id", "sequence_start", "sequence_end"):
        answer = server.ask("POST", FRAUD, infer(rows(1), parameters={name: 1}))
        said = f"the parameter '{name}' is not supported: each call stands for itself; leave it out"
        assert (answer.status, answer.error) == (400, said)


def test_tritonclient_may_not_load_or_unload(client: Any) -> None:
    for forbidden in (client.load_model, client.unload_model):
        with pytest.raises(InferenceServerException) as caught:
            forbidden("fraud")
        assert caught.value.status() in ("403", "501")
    assert client.is_model_ready("fraud")


# Calls in JSON


def test_curl_is_client_enough(server: Server, expected: np.ndarray) -> None:
    if shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    body = json.dumps(infer(rows(2), id="7"))
    command = ["curl", "-sS", "-w", "\n%{http_code} %header{gitmodel-version}", "-d", body, server.url + FRAUD]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    text, _, code = done.stdout.rpartition("\n")
    assert code == "200 v1.1.0"
    answer = json.loads(text)
    assert {key: answer[key] for key in ("model_name", "model_version", "id")} == {
        "model_name": "fraud",
        "model_version": "v1.1.0",
        "id": "7",
    }
    assert array(answer["outputs"][0]).tobytes() == expected.tobytes()


@pytest.mark.parametrize("nested", [rows(2).tolist(), rows(2).reshape(-1).tolist(), rows(2).reshape(4, 2).tolist()])
def test_data_may_be_nested_or_flat(server: Server, expected: np.ndarray, nested: list[Any]) -> None:
    body = {"inputs": [{"name": "x", "shape": [2, 4], "datatype": "FP32", "data": nested}]}
    answer = server.ask("POST", FRAUD, body)
    assert answer.headers["content-type"] == "application/json"
    assert tensors(answer)["scores"]["shape"] == [2, 3]
    assert array(tensors(answer)["scores"]).tobytes() == expected.tobytes()


@pytest.mark.parametrize("id_", ["", "7", "ünïcödé", "x" * 5000])
def test_the_id_is_echoed(server: Server, id_: str) -> None:
    assert server.ask("POST", FRAUD, infer(rows(1), id=id_)).json["id"] == id_


def test_without_an_id_there_is_none(server: Server) -> None:
    assert "id" not in server.ask("POST", FRAUD, infer(rows(1))).json


@pytest.mark.parametrize("datatype", sorted(set(DATATYPES) - {"FP16"}))
def test_every_datatype_goes_through_json_unharmed(server: Server, datatype: str) -> None:
    values = SAMPLES[datatype]
    body = {"inputs": [{"name": "x", "shape": [3], "datatype": datatype, "data": values.tolist()}]}
    output = tensors(server.ask("POST", f"/v2/models/echo-{datatype}/infer", body))["y"]
    assert (output["datatype"], output["shape"]) == (datatype, [3])
    if datatype == "BYTES":
        assert output["data"] == values.tolist()
    else:
        assert array(output, str(values.dtype)).tobytes() == values.tobytes()


def test_several_inputs_and_outputs_are_bound_by_name(server: Server) -> None:
    path = "/v2/models/pair/infer"
    a = {"name": "a", "shape": [1, 2], "datatype": "FP32", "data": [[1, 2.5]]}
    b = {"name": "b", "shape": [3], "datatype": "INT64", "data": [1, 2, 3]}
    for inputs in ([a, b], [b, a]):
        found = tensors(server.ask("POST", path, {"inputs": inputs}))
        assert {name: tensor["data"] for name, tensor in found.items()} == {
            "minus_a": [-1, -2.5],
            "minus_b": [-1, -2, -3],
        }
    for asked in (["minus_b"], ["minus_b", "minus_a"]):
        answer = server.ask("POST", path, {"inputs": [a, b], "outputs": [{"name": name} for name in asked]})
        assert list(tensors(answer)) == asked
    assert list(tensors(server.ask("POST", path, {"inputs": [a, b], "outputs": []}))) == ["minus_a", "minus_b"]


def test_scalars_and_empty_batches_are_tensors_too(server: Server) -> None:
    scalar = {"inputs": [{"name": "x", "shape": [], "datatype": "FP32", "data": 2.5}]}
    assert tensors(server.ask("POST", "/v2/models/scalar/infer", scalar))["y"] == {
        "name": "y",
        "datatype": "FP32",
        "shape": [],
        "data": [2.5],
    }
    assert tensors(server.ask("POST", FRAUD, infer(rows(0))))["scores"] == {
        "name": "scores",
        "datatype": "FP32",
        "shape": [0, 3],
        "data": [],
    }
    cube = {"inputs": [{"name": "x", "shape": [2, 0, 2], "datatype": "INT32", "data": [[], []]}]}
    assert tensors(server.ask("POST", "/v2/models/cube/infer", cube))["y"]["shape"] == [2, 0, 2]


def test_a_large_call_is_answered_like_any_other(server: Server) -> None:
    values = rows(5000)
    whole = array(tensors(server.ask("POST", FRAUD, infer(values)))["scores"])
    parts_of_it = [array(tensors(server.ask("POST", FRAUD, infer(part)))["scores"]) for part in np.split(values, 20)]
    np.testing.assert_allclose(whole, np.concatenate(parts_of_it), rtol=1e-5)


# Calls in bytes


def parts(answer: Answer) -> tuple[dict[str, Any], bytes]:
    """The JSON and the bytes of an answer of both."""
    assert answer.headers["content-type"] == "application/octet-stream"
    length = int(answer.headers["inference-header-content-length"])
    return json.loads(answer.body[:length]), answer.body[length:]


def blob(values: np.ndarray) -> bytes:
    """The bytes of a tensor as the protocol has them."""
    if values.dtype != object:
        return values.astype(values.dtype.newbyteorder("<")).tobytes()
    encoded = [str(item).encode() for item in values]
    return b"".join(struct.pack("<I", len(item)) + item for item in encoded)


def in_bytes(name: str, datatype: str, values: np.ndarray) -> dict[str, Any]:
    size = {"binary_data_size": len(blob(values))}
    return {"name": name, "shape": list(values.shape), "datatype": datatype, "parameters": size}


@pytest.mark.parametrize("datatype", sorted(DATATYPES))
def test_every_datatype_goes_through_bytes_unharmed(server: Server, datatype: str) -> None:
    values = SAMPLES[datatype]
    head = json.dumps(
        {"inputs": [in_bytes("x", datatype, values)], "parameters": {"binary_data_output": True}}
    ).encode()
    answer = server.ask("POST", f"/v2/models/echo-{datatype}/infer", head + blob(values), length=len(head))
    described, data = parts(answer)
    assert described["outputs"] == [in_bytes("y", datatype, values) | {"name": "y"}]
    assert data == blob(values)


def test_bytes_and_json_mix_both_ways(server: Server) -> None:
    a = np.array([[1, 2]], "float32")
    body = {
        "inputs": [in_bytes("a", "FP32", a), {"name": "b", "shape": [2], "datatype": "INT64", "data": [3, 4]}],
        "outputs": [{"name": "minus_a"}, {"name": "minus_b", "parameters": {"binary_data": True}}],
    }
    head = json.dumps(body).encode()
    described, data = parts(server.ask("POST", "/v2/models/pair/infer", head + blob(a), length=len(head)))
    first, second = described["outputs"]
    assert first == {"name": "minus_a", "datatype": "FP32", "shape": [1, 2], "data": [-1, -2]}
    assert second["parameters"] == {"binary_data_size": 16}
    assert np.frombuffer(data, "<i8").tolist() == [-3, -4]


def test_an_output_of_its_own_wish_wins_over_the_whole_request(server: Server) -> None:
    a = {"name": "a", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}
    b = {"name": "b", "shape": [1], "datatype": "INT64", "data": [3]}
    asked = [{"name": "minus_a", "parameters": {"binary_data": False}}, {"name": "minus_b"}]
    body = {"inputs": [a, b], "outputs": asked, "parameters": {"binary_data_output": True}}
    described, data = parts(server.ask("POST", "/v2/models/pair/infer", body))
    assert described["outputs"][0]["data"] == [-1, -2]
    assert data == blob(np.array([-3]))


def test_an_empty_tensor_has_no_bytes(server: Server) -> None:
    body = infer(rows(0), parameters={"binary_data_output": True})
    described, data = parts(server.ask("POST", FRAUD, body))
    assert described["outputs"][0]["parameters"] == {"binary_data_size": 0}
    assert data == b""


def test_a_raw_body_is_one_tensor_and_answered_in_bytes(server: Server, expected: np.ndarray) -> None:
    described, data = parts(server.ask("POST", FRAUD, blob(rows(2)), length=0))
    assert described["outputs"][0]["shape"] == [2, 3]
    assert data == expected.tobytes()


# Bad requests: each is refused with the right status and in words, and the connection goes on


def bad(datatype: str = "FP32", shape: Any = (1, 4), data: Any = (0.0,) * 4, name: str = "x") -> dict[str, Any]:
    return {"inputs": [{"name": name, "shape": shape, "datatype": datatype, "data": data}]}


BAD: dict[str, tuple[str, Any, str]] = {
    "wrong dtype": (FRAUD, bad("FP64"), "'x' is float64, the model wants float32"),
    "wrong dtype, right width": (FRAUD, bad("INT32", data=[0] * 4), "is int32, the model wants float32"),
    "text for numbers": (FRAUD, bad("BYTES", data=["a"] * 4), "is string, the model wants float32"),
    "unknown datatype": (FRAUD, bad("FLOAT"), "'FLOAT' is not supported"),
    "wrong width": (FRAUD, bad(shape=[1, 5], data=[0.0] * 5), "shape [1, 5], the model wants [-1, 4]"),
    "wrong rank": (FRAUD, bad(shape=[4]), "shape [4], the model wants [-1, 4]"),
    "shape and data differ": (FRAUD, bad(shape=[2, 4]), "shape [2, 4] does not fit 4 elements"),
    "negative shape": (FRAUD, bad(shape=[-1, 4]), "shape [-1, 4] does not fit"),
    "two negatives": (FRAUD, bad(shape=[-1, -4]), "does not fit"),
    "huge shape": (FRAUD, bad(shape=[2**62, 4]), "does not fit"),
    "impossible empty shape": (FRAUD, bad(shape=[0, 2**62, 2**62], data=[]), "'x'"),
    "shape of text": (FRAUD, bad(shape=["1", "4"]), "$.inputs[0].shape[0]"),
    "wrong name": (FRAUD, bad(name="y"), "'x' is missing; the model wants x: float32[batch, 4]"),
    "one name too many": (FRAUD, {"inputs": bad()["inputs"] + bad(name="z")["inputs"]}, "no input 'z'"),
    "no inputs": (FRAUD, {"inputs": []}, "'x' is missing"),
    "no inputs at all": (FRAUD, {}, "inputs"),
    "duplicate input": (FRAUD, {"inputs": bad()["inputs"] * 2}, "'x' stands twice"),
    "missing second input": ("/v2/models/pair/infer", bad(name="a", shape=[2, 2]), "'b' is missing"),
    "ragged data": (FRAUD, bad(data=[[0.0], [0.0, 0.0]]), "ragged"),
    "no data": (FRAUD, {"inputs": [{"name": "x", "shape": [1, 4], "datatype": "FP32"}]}, "no data"),
    "null among numbers": (FRAUD, bad(data=[0.0, None, 0.0, 0.0]), "not FP32"),
    "float for int": ("/v2/models/echo-INT64/infer", bad("INT64", [1], [1.5]), "not INT64"),
    "whole float for int": ("/v2/models/echo-INT64/infer", bad("INT64", [1], [1.0]), "not INT64"),
    "int8 out of range": ("/v2/models/echo-INT8/infer", bad("INT8", [1], [128]), "does not fit INT8"),
    "negative for unsigned": ("/v2/models/echo-UINT8/infer", bad("UINT8", [1], [-1]), "does not fit UINT8"),
    "beyond 64 bits": ("/v2/models/echo-UINT64/infer", bad("UINT64", [1], [2**64]), "UINT64"),
    "half as JSON": ("/v2/models/echo-FP16/infer", bad("FP16", [1], [1.0]), "binary data only"),
    "unknown output": (FRAUD, bad() | {"outputs": [{"name": "z"}]}, "no output 'z'; it gives scores"),
    "output twice": (FRAUD, bad() | {"outputs": [{"name": "scores"}] * 2}, "twice"),
    "number as id": (FRAUD, bad() | {"id": 7}, "$.id"),
    "index out of range": ("/v2/models/table/infer", bad("INT64", [1], [9]), "out of data bounds"),
    "bfloat16 as JSON": ("/v2/models/half/infer", bad("BF16", [1], [1.0]), "BF16"),
    "empty": (FRAUD, b"", "not valid"),
    "no JSON": (FRAUD, b"name=x&data=1", "not valid"),
    "cut short": (FRAUD, json.dumps(bad()).encode()[:-1], "not valid"),
    "two documents": (FRAUD, json.dumps(bad()).encode() * 2, "not valid"),
    "not UTF-8": (FRAUD, b'{"inputs": "\xff"}', "not valid"),
    "NaN": (FRAUD, b'{"inputs":[{"name":"x","shape":[1],"datatype":"FP32","data":[NaN]}]}', "not valid"),
    "a list": (FRAUD, b"[]", "not valid"),
    "a string": (FRAUD, b'"inputs"', "not valid"),
    "a million deep": (FRAUD, b'{"inputs":' + b"[" * 1_000_000, "not valid"),
    "a million deep and whole": (FRAUD, b'{"id":%s%s,"inputs":[]}' % (b"[" * 1_000_000, b"]" * 1_000_000), "not valid"),
}


@pytest.mark.parametrize("case", sorted(BAD))
def test_a_bad_request_is_refused_in_words(server: Server, case: str) -> None:
    path, body, says = BAD[case]
    with contextlib.closing(server.connect()) as connection:
        answer = place.ask(connection, "POST", path, body)
        assert answer.status == 400
        assert says in answer.error
        assert len(answer.error) < 1000
        assert place.ask(connection, "POST", FRAUD, infer(rows(1))).status == 200


def with_size(size: Any, data: bytes, datatype: str = "FP32", shape: Any = (1, 4)) -> tuple[bytes, int]:
    tensor = {"name": "x", "shape": shape, "datatype": datatype, "parameters": {"binary_data_size": size}}
    head = json.dumps({"inputs": [tensor]}).encode()
    return head + data, len(head)


ZEROS = b"\0" * 16
BAD_BYTES: dict[str, tuple[str, bytes, int, str]] = {
    "too few": (FRAUD, *with_size(16, ZEROS[:12]), "binary_data_size 16 does not fit the body"),
    "too many": (FRAUD, *with_size(16, ZEROS + b"\0"), "1 bytes follow the last tensor"),
    "negative": (FRAUD, *with_size(-16, ZEROS), "binary_data_size -16 does not fit"),
    "no number": (FRAUD, *with_size("16", ZEROS), "binary_data_size '16' does not fit"),
    "less than the shape": (FRAUD, *with_size(12, ZEROS[:12]), "shape [1, 4] does not fit 3 elements"),
    "no whole number": (FRAUD, *with_size(15, ZEROS[:15]), "no whole number of FP32"),
    "text past its end": ("/v2/models/echo-BYTES/infer", *with_size(5, b"\xff\0\0\0a", "BYTES", [1]), "runs past"),
    "text not UTF-8": ("/v2/models/echo-BYTES/infer", *with_size(5, b"\1\0\0\0\xff", "BYTES", [1]), "not UTF-8"),
    "header too short": (FRAUD, with_size(16, ZEROS)[0], 10, "not valid"),
    "header past the body": (FRAUD, ZEROS, 17, "does not fit the body"),
    "raw, no whole row": (FRAUD, ZEROS[:12], 0, "does not fit 3 elements"),
    "raw, two inputs": ("/v2/models/pair/infer", ZEROS, 0, "one numeric input"),
    "raw, text": ("/v2/models/echo-BYTES/infer", ZEROS, 0, "one numeric input"),
    "raw, bfloat16": ("/v2/models/half/infer", ZEROS, 0, ""),
}  # fmt: skip


@pytest.mark.parametrize("case", sorted(BAD_BYTES))
def test_bytes_that_do_not_fit_are_refused_in_words(server: Server, case: str) -> None:
    path, body, length, says = BAD_BYTES[case]
    with contextlib.closing(server.connect()) as connection:
        answer = place.ask(connection, "POST", path, body, length=length)
        assert answer.status == 400
        assert says in answer.error
        assert place.ask(connection, "POST", FRAUD, infer(rows(1))).status == 200


@pytest.mark.parametrize("value", ["-1", "+1", "1.0", "1e1", "x", "", "9" * 5000])
def test_a_header_length_that_is_no_number_is_refused(server: Server, value: str) -> None:
    answer = server.ask("POST", FRAUD, infer(rows(1)), headers={"Inference-Header-Content-Length": value})
    assert answer.status == 400
    assert "Inference-Header-Content-Length" in answer.error


@pytest.mark.parametrize(
    ("method", "path", "says"),
    [
        ("GET", "/v2/models/nothing", "there is no model 'nothing' here; models: "),
        ("GET", "/v2/models/nothing/ready", "no model 'nothing'"),
        ("POST", "/v2/models/nothing/infer", "no model 'nothing'"),
        ("GET", "/v2/models/fraud/versions/v9.9.9", "no version 'v9.9.9' here; available: v1.1.0"),
        ("GET", "/v2/models/fraud/versions/9", "no version '9' here"),
        ("GET", "/v2/models/fraud/versions/1.1.0", "no version '1.1.0' here"),
        ("POST", "/v2/models/fraud/versions/9/infer", "no version '9' here"),
        ("GET", "/index.html", "nothing at /index.html"),
        ("GET", "/v1/fraud", "nothing at /v1/fraud"),
        ("GET", "/v2/models", "nothing at /v2/models"),
        ("GET", "/v2/models/fraud/config", "nothing at"),
        ("GET", "/v2/models/fraud/stats", "nothing at"),
        ("GET", "/v2/models//infer", "nothing at"),
        ("GET", "/v2/models/../../etc/passwd", "nothing at"),
        ("POST", "/v2/repository/nothing", "nothing at"),
        ("GET", "/" + "x" * 5000, "nothing at /xxx"),
    ],
)
def test_what_is_not_there_is_404(server: Server, method: str, path: str, says: str) -> None:
    answer = server.ask(method, path, {} if method == "POST" else None)
    assert answer.status == 404
    assert says in answer.error
    assert len(answer.error) < 500


@pytest.mark.parametrize(
    ("path", "allowed"),
    [
        (FRAUD, "POST"),
        ("/v2/models/nothing/infer", "POST"),
        ("/v2/models/fraud", "GET, HEAD"),
        ("/v2/models/fraud/ready", "GET, HEAD"),
        ("/v2/health/live", "GET, HEAD"),
        ("/v2/health/ready", "GET, HEAD"),
        ("/v2", "GET, HEAD"),
        ("/v2/gitmodel/status", "GET, HEAD"),
        ("/v2/repository/index", "POST"),
    ],
)
def test_a_wrong_verb_is_405_with_the_right_ones(server: Server, path: str, allowed: str) -> None:
    for method in {"GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS"} - set(allowed.split(", ")):
        answer = server.ask(method, path)
        assert (method, answer.status, answer.headers["allow"]) == (method, 405, allowed)
        assert answer.error == f"use {allowed.partition(',')[0]}"


def test_a_body_over_the_limit_is_413_and_one_at_the_limit_is_read(server: Server) -> None:
    for size, status in ((LIMIT, 400), (LIMIT + 1, 413)):
        answer = server.ask("POST", FRAUD, b" " * size)
        assert answer.status == status
        assert answer.error
    assert str(LIMIT) in answer.error
    assert answer.headers["connection"] == "close"


def test_a_body_in_chunks_is_counted_too(server: Server) -> None:
    def chunks(count: int) -> Iterator[bytes]:
        yield from (b" " * (1 << 20) for _ in range(count))
        yield json.dumps(infer(rows(1))).encode()

    with contextlib.closing(server.connect()) as connection:
        connection.request("POST", FRAUD, chunks(3), {"Transfer-Encoding": "chunked"}, encode_chunked=True)
        answer = connection.getresponse()
        assert answer.status == 200
        assert json.loads(answer.read())["model_name"] == "fraud"


def test_a_client_that_goes_away_in_the_middle_harms_nobody(server: Server) -> None:
    for half in (
        b"POST " + FRAUD.encode() + b" HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n{",
        b"POST /v2",
    ):
        with socket.create_connection(server.address, timeout=place.PATIENCE) as connection:
            connection.sendall(half)
    assert server.ask("POST", FRAUD, infer(rows(1))).status == 200


@pytest.mark.parametrize("lengths", [("4", "5"), ("-1",), ("x",)])
def test_a_nonsense_content_length_is_400(server: Server, lengths: tuple[str, ...]) -> None:
    headers = "".join(f"Content-Length: {length}\r\n" for length in lengths)
    with socket.create_connection(server.address, timeout=place.PATIENCE) as connection:
        connection.sendall(f"POST {FRAUD} HTTP/1.1\r\nHost: localhost\r\n{headers}\r\n{{}}".encode())
        assert connection.recv(4096).startswith(b"HTTP/1.1 400")
    assert server.ask("GET", "/v2/health/live").status == 200


# What the protocol cannot carry


def test_an_output_that_is_no_tensor_is_501(server: Server) -> None:
    answer = server.ask("POST", "/v2/models/sequence/infer", bad(shape=[4]))
    assert answer.status == 501
    assert "'y' is no tensor" in answer.error
    assert answer.who[0] == "v1.0.0"


def test_half_floats_are_not_written_as_json(server: Server) -> None:
    head, length = with_size(2, b"\0\x3c", "FP16", [1])
    answer = server.ask("POST", "/v2/models/echo-FP16/infer", head, length=length)
    assert answer.status == 400
    assert "ask for binary_data" in answer.error


# Management


def manage(server: Server, path: str, body: Any = None) -> Answer:
    """A request on the management socket, as it is answered."""
    with contextlib.closing(endpoint._UnixConnection(server.admin, place.PATIENCE)) as connection:
        return place.ask(connection, "POST", path, body)


LOAD = "/v2/repository/models/fraud/load"


@pytest.mark.parametrize("verb", ["load", "unload"])
def test_the_data_port_neither_loads_nor_unloads(server: Server, verb: str) -> None:
    answer = server.ask("POST", f"/v2/repository/models/fraud/{verb}", {})
    assert answer.status == 403
    assert "management socket" in answer.error


def test_unloading_is_git_s_affair(server: Server) -> None:
    answer = manage(server, "/v2/repository/models/fraud/unload", {})
    assert answer.status == 501
    assert "Git" in answer.error


@pytest.mark.parametrize(
    "parameters",
    [
        {"file:1/model.onnx": "AAAA"},
        {"config": "{}"},
        {"url": "https://example.org/model.onnx"},
        {"wait": 1, "file:model.onnx": ""},
        ["wait"],
        "wait",
    ],
)
def test_neither_files_nor_urls_are_loaded_from_a_request(server: Server, parameters: Any) -> None:
    for answer in (manage(server, LOAD, {"parameters": parameters}),):
        assert answer.status == 400
        assert "files and URLs are never loaded" in answer.error
    assert server.ask("POST", LOAD, {"parameters": parameters}).status == 403


@pytest.mark.parametrize("wait", [-1, 601, "1", True, None, [1]])
def test_a_wait_that_is_no_sensible_number_is_refused(server: Server, wait: Any) -> None:
    answer = manage(server, LOAD, {"parameters": {"wait": wait}})
    assert answer.status == 400
    assert "wait is a number of seconds" in answer.error


@pytest.mark.parametrize("body", [b"[]", b"{", b"\xff", b"[" * 1_000_000, b'{"ready": true} {}'])
def test_a_management_request_that_is_none_is_refused(server: Server, body: bytes) -> None:
    for path in (LOAD, "/v2/repository/index"):
        answer = manage(server, path, body)
        assert answer.status == 400
        assert answer.error.startswith("the request ")


def test_a_load_answers_with_what_came_of_it(server: Server) -> None:
    found: Mapping[str, Any] = manage(server, LOAD, {"parameters": {"wait": 60}}).json
    assert (found["name"], found["settled"], found["aspired"], found["serving"]) == (
        "fraud",
        True,
        ["v1.1.0"],
        "v1.1.0",
    )
    assert [(row["version"], row["state"], row["number"]) for row in found["versions"]] == [("v1.1.0", "AVAILABLE", 2)]


def test_a_load_of_a_model_nobody_knows_finds_nothing(server: Server) -> None:
    found = manage(server, "/v2/repository/models/nothing/load").json
    assert (found["settled"], found["aspired"], found["serving"], found["versions"]) == (True, [], None, [])


def test_a_repository_that_cannot_be_read_is_the_servers_fault_and_the_old_version_serves(
    server: Server, production: Production
) -> None:
    away = production.bare.with_name("away.git")
    production.bare.rename(away)
    try:
        with contextlib.closing(endpoint._UnixConnection(str(_moved(server, away)), place.PATIENCE)) as connection:
            answer = place.ask(connection, "POST", LOAD)
        assert answer.status == 500
        assert "no folder" in answer.error
        assert server.ask("POST", FRAUD, infer(rows(1))).status == 200
    finally:
        away.rename(production.bare)


def test_an_accident_is_500_in_words_and_nobody_elses_affair() -> None:
    def broken() -> Mapping[str, Serving]:
        raise RuntimeError("an accident")

    manager = Manager(cast(Host, None))

    async def look(_: str) -> http.Answer:
        raise RuntimeError("an accident")

    app = App(
        Dataplane(broken, manager.statuses), manager, look, traffic=Traffic(), guard=Guard("10.0.0.5"), version="1"
    )
    sent: list[dict[str, Any]] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    async def send(message: dict[str, Any]) -> None:
        sent.append(message)

    def call(path: str, method: str = "GET", kind: str = "http") -> tuple[int, dict[str, Any]]:
        sent.clear()
        asyncio.run(app({"type": kind, "path": path, "method": method, "headers": []}, receive, send))
        return (sent[0]["status"], json.loads(sent[1]["body"])) if sent else (0, {})

    assert call("/v2/models/fraud") == (500, {"error": "RuntimeError: an accident"})
    assert call("/v2/health/live") == (200, {"live": True})
    assert call(FRAUD, "POST") == (500, {"error": "RuntimeError: an accident"})
    assert call("/v2/repository/index", "POST") == (400, {"error": "the client went away"})
    assert call("/v2", kind="websocket") == (0, {})


def _moved(server: Server, away: Path) -> Path:
    """The management socket lies inside the repository unless its path is too long for one."""
    admin = Path(server.admin)
    return admin if admin.exists() else away / "gitmodel" / "servers" / admin.name


def test_the_status_of_every_version_is_told(server: Server) -> None:
    answer = server.ask("GET", "/v2/gitmodel/status")
    assert answer.json["ready"] is False
    by_model = {row["model"]: row for row in answer.json["versions"]}
    assert (by_model["fraud"]["state"], by_model["fraud"]["golden_passed"]) == ("AVAILABLE", 4)
    assert "golden cases fail" in by_model["broken"]["reason"]


#: How long a call takes hangs on the value of x alone.
_WORK = """
<ir_version: 8, opset_import: ["" : 17]>
work (int64[] n) => (float[16,16] y) {
  keep = Constant<value = bool {1}> ()
  start = Constant<value = float {1.0}> ()
  shape = Constant<value = int64[2] {16, 16}> ()
  first = Expand(start, shape)
  y = Loop(n, keep, first) <body = one (int64 i, bool going, float[16,16] before) => (bool again, float[16,16] after) {
    again = Identity(going)
    product = MatMul(before, before)
    most = ReduceMax<keepdims = 0>(product)
    after = Div(product, most)
  }>
}
"""


def test_one_whose_calls_turn_out_slow_keeps_nobody_waiting(tmp_path: Path) -> None:
    production = Production.make(tmp_path)
    model = onnx.parser.parse_model(_WORK)
    production.save(model, golden={"n": np.array(1)})  # so that it is taken for a quick one
    production.push(production.tag("fraud@v1.0.0"))

    def call(count: int) -> dict[str, Any]:
        return infer(np.array(count), "n", "INT64")

    with place.serving(production.bare) as server, ThreadPoolExecutor(1) as pool:
        started = time.perf_counter()
        assert server.ask("POST", "/v2/models/fraud/infer", call(2000)).status == 200
        count = int(2000 * 1.5 / (time.perf_counter() - started))  # some 1.5 s of work
        assert server.ask("POST", "/v2/models/fraud/infer", call(count)).status == 200
        slow = pool.submit(server.ask, "POST", "/v2/models/fraud/infer", call(count))
        time.sleep(0.2)
        assert server.ask("GET", "/v2/health/live").status == 200
        assert not slow.done()
        assert slow.result().status == 200
