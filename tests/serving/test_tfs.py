"""TensorFlow Serving's REST API: the forms its documentation shows, read and written here, and asked of a real server by curl."""

from __future__ import annotations

import base64
import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper

from gitmodel.formats import onnx as onnx_format
from gitmodel.serving import tfs
from gitmodel.serving.dataplane import Dataplane, DataplaneError
from gitmodel.serving.servable import Servable, State, VersionStatus
from tests import support
from tests.serving import production as place
from tests.serving.production import Production, Server, rows

Make = Callable[..., Servable]
DATAPLANE = Dataplane(dict, lambda _: [])


def echo(dtype: str, shape: list[int | str | None], output: str = "y") -> onnx.ModelProto:
    node = helper.make_node("Identity", ["x"], [output])
    return support.model([node], [support.value_info("x", dtype, shape)], [support.value_info(output, dtype, shape)])


def pair() -> onnx.ModelProto:
    """Two inputs and two outputs, by row."""
    nodes = [helper.make_node("Neg", ["a"], ["c"]), helper.make_node("Neg", ["b"], ["d"])]
    inputs = [support.value_info("a", "float32", ["n", 2]), support.value_info("b", "int64", ["n"])]
    outputs = [support.value_info("c", "float32", ["n", 2]), support.value_info("d", "int64", ["n"])]
    return support.model(nodes, inputs, outputs)


def predicted(servable: Servable, body: Any) -> Any:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    call = tfs.predict(data, servable)
    return json.loads(tfs.answer(call, DATAPLANE.infer(servable, call.inputs)))


def refused(servable: Servable, body: Any, read: Callable[[bytes, Servable], tfs.Call] = tfs.predict) -> str:
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    with pytest.raises(DataplaneError) as caught:
        read(data, servable)
    assert caught.value.code == "invalid_argument"
    return caught.value.message


def test_rows_of_one_input_go_and_come_without_a_name(servable: Make) -> None:
    model = servable(echo("float32", ["n", 2]))
    assert predicted(model, {"instances": [[1, 2], [3, 4.5]]}) == {"predictions": [[1, 2], [3, 4.5]]}
    assert predicted(model, {"instances": [{"x": [1, 2]}]}) == {"predictions": [[1, 2]]}


def test_columns_of_one_input_go_and_come_without_a_name(servable: Make) -> None:
    model = servable(echo("float32", ["n", 2]))
    for body in (
        {"inputs": [[1, 2]]},
        {"inputs": {"x": [[1, 2]]}},
        {"signature_name": "serving_default", "inputs": [[1, 2]]},
    ):
        assert predicted(model, body) == {"outputs": [[1, 2]]}
    assert predicted(servable(echo("float32", [])), {"inputs": 2.5}) == {"outputs": 2.5}


def test_several_inputs_and_outputs_are_named(servable: Make) -> None:
    model = servable(pair())
    instances = [{"a": [1, 2], "b": 3}, {"a": [4, 5], "b": 6}]
    assert predicted(model, {"instances": instances}) == {
        "predictions": [{"c": [-1, -2], "d": -3}, {"c": [-4, -5], "d": -6}]
    }
    assert predicted(model, {"inputs": {"a": [[1, 2]], "b": [3]}}) == {"outputs": {"c": [[-1, -2]], "d": [-3]}}


def test_nan_and_infinities_are_bare_tokens_both_ways(servable: Make) -> None:
    model = servable(echo("float32", ["n"]))
    call = tfs.predict(b'{"instances": [NaN, Infinity, -Infinity, 0.1]}', model)
    told = tfs.answer(call, DATAPLANE.infer(model, call.inputs))
    assert told == b'{"predictions":[NaN,Infinity,-Infinity,0.1]}'


def test_bytes_are_base64_and_so_are_outputs_called_so(servable: Make) -> None:
    plain, as_bytes = servable(echo("string", ["n"])), servable(echo("string", ["n"], "y_bytes"), version="v2.0.0")
    word = {"b64": base64.b64encode("grüße".encode()).decode()}
    assert predicted(plain, {"instances": [word, "plain"]}) == {"predictions": ["grüße", "plain"]}
    assert predicted(plain, {"inputs": [word]}) == {"outputs": ["grüße"]}
    assert predicted(as_bytes, {"instances": ["grüße"]}) == {"predictions": [word]}


@pytest.mark.parametrize("dtype", ["float16", "float64", "int8", "uint64", "bool"])
def test_numbers_of_every_kind_come_back(servable: Make, dtype: str) -> None:
    values = [True, False] if dtype == "bool" else [0, 1, 100]
    assert predicted(servable(echo(dtype, ["n"])), {"instances": values}) == {"predictions": values}


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"", "not valid"),
        (b"[" * 100_000, "not valid"),
        ([], "must be a JSON object"),
        ({}, "either 'instances'"),
        ({"instances": [[1, 2]], "inputs": [[1, 2]]}, "either 'instances'"),
        ({"instances": []}, "at least one"),
        ({"instances": 5}, "at least one"),
        ({"instances": [{"x": [1, 2]}, {"z": [1, 2]}]}, "do not all have the same inputs"),
        ({"instances": [{"x": [1, 2]}, [1, 2]]}, "do not all have the same inputs"),
        ({"instances": [[1, 2], [3]]}, "ragged"),
        ({"instances": [["a", "b"]]}, "not DT_FLOAT"),
        ({"instances": [[True, 2]]}, "not DT_FLOAT"),
        ({"instances": [[1e39, 2]]}, "input 'x': a value does not fit DT_FLOAT"),
        ({"instances": [[10**400, 2]]}, "input 'x': a value does not fit DT_FLOAT"),
        (b'{"instances": [[1e400, 2]]}', "the request is not valid: Number out of range"),
        (b'{"inputs": [[NaN, -1e400]]}', "the request is not valid: Number out of range"),
        ({"inputs": {"z": [[1, 2]]}}, "has no input 'z'; it wants x"),
        ({"inputs": [[1, 2]], "signature_name": "other"}, "no signature 'other'; it has 'serving_default'"),
    ],
)
def test_a_call_that_is_none_is_refused_with_the_reason(servable: Make, body: Any, says: str) -> None:
    assert says in refused(servable(echo("float32", ["n", 2])), body)


def test_what_the_original_does_not_know_is_passed_over(servable: Make) -> None:
    model = servable(echo("float32", ["n", 2]))
    assert predicted(model, {"instances": [[1, 2]], "parameters": {"debug": True}}) == {"predictions": [[1, 2]]}


def test_a_bare_value_for_several_inputs_is_refused(servable: Make) -> None:
    for body, says in (({"instances": [1]}, "each instance is an object"), ({"inputs": [1]}, "'inputs' is an object")):
        assert says in refused(servable(pair()), body)


def test_a_scalar_input_has_no_rows_and_wants_columns(servable: Make) -> None:
    model = servable(echo("float32", []))
    assert predicted(model, {"inputs": 2.5}) == {"outputs": 2.5}
    for instances in ([2.5], [{"x": 2.5}]):
        said = refused(model, {"instances": instances})
        assert said == "input 'x' is a scalar, which has no rows: ask with 'inputs' instead"


def test_an_output_without_a_row_for_each_instance_wants_columns(servable: Make) -> None:
    node = helper.make_node("ReduceSum", ["x"], ["y"], keepdims=0)
    model = servable(
        support.model([node], [support.value_info("x", "float32", ["n"])], [support.value_info("y", "float32", [])])
    )
    assert predicted(model, {"inputs": [1, 2]}) == {"outputs": 3}
    with pytest.raises(DataplaneError, match="ask with 'inputs'"):
        predicted(model, {"instances": [1, 2]})


def test_classify_gives_labels_with_scores(servable: Make) -> None:
    model = servable(echo("float32", ["n", 2]))
    body = json.dumps({"context": {}, "examples": [{"x": [0.25, 0.75]}]}).encode()
    call = tfs.examples(body, model)
    outputs = DATAPLANE.infer(model, call.inputs)
    assert json.loads(tfs.classes(call, outputs, ["no", "yes"])) == {"results": [[["no", 0.25], ["yes", 0.75]]]}
    assert json.loads(tfs.classes(call, outputs, [])) == {"results": [[["0", 0.25], ["1", 0.75]]]}
    with pytest.raises(DataplaneError, match="use predict"):
        tfs.regressions(call, outputs)


def test_regress_gives_a_number_for_each_example(servable: Make) -> None:
    shapes: list[list[int | str | None]] = [["n"], ["n", 1]]
    for shape in shapes:
        model = servable(echo("float32", shape))
        for value in (2.5, [2.5]):
            call = tfs.examples(json.dumps({"examples": [{"x": value}, {"x": 1}]}).encode(), model)
            outputs = DATAPLANE.infer(model, call.inputs)
            assert json.loads(tfs.regressions(call, outputs)) == {"results": [2.5, 1]}
    with pytest.raises(DataplaneError, match="use predict"):
        tfs.classes(call, {"y": np.zeros(2, "float32")}, [])


def test_what_examples_share_stands_in_the_context(servable: Make) -> None:
    body = {"context": {"b": 7}, "examples": [{"a": [1, 2]}, {"a": [3, 4], "b": 8}]}
    call = tfs.examples(json.dumps(body).encode(), servable(pair()))
    assert (call.rows, call.inputs["b"].tolist()) == (2, [7, 8])


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"examples": []}, "one at least"),
        ({"examples": [[1]]}, "list of objects"),
        ({"context": [], "examples": [{"a": [1, 2]}]}, "'context' is an object"),
        ({"examples": [{"a": [1, 2]}, {"b": 1}]}, "feature 'a' is not in every example"),
        ({"examples": [{"z": 1}]}, "no input 'z'"),
    ],
)
def test_examples_that_are_none_are_refused(servable: Make, body: Any, says: str) -> None:
    assert says in refused(servable(pair()), body, tfs.examples)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["x", "a", "b64", "b"]), inner, max_size=3)
    ),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["instances", "inputs", "examples", "context", "signature_name"]), json_values))
def test_no_document_however_strange_is_more_than_refused(document: dict[str, Any]) -> None:
    for model in (echo("float32", ["n", 2]), echo("string", ["n"]), pair()):
        servable = Servable(
            "m", "v1.0.0", 1, "c", "d", "onnx", onnx_format.signature_of(model, "m"), None, 0.0, 0, 0  # type: ignore[arg-type]  # nothing is run
        )  # fmt: skip
        for read in (tfs.predict, tfs.examples):
            try:
                call = read(json.dumps(document).encode(), servable)
            except DataplaneError as error:
                assert error.code == "invalid_argument"
            else:
                assert all(isinstance(value, np.ndarray) for value in call.inputs.values())


@given(st.binary(max_size=64))
def test_no_bytes_however_strange_are_more_than_refused(body: bytes) -> None:
    model = onnx_format.signature_of(echo("float32", ["n"]), "m")
    servable = Servable("m", "v1.0.0", 1, "c", "d", "onnx", model, None, 0.0, 0, 0)  # type: ignore[arg-type]  # nothing is run
    refused(servable, body)


def test_metadata_nests_twice_as_the_original_does(servable: Make) -> None:
    found = tfs.metadata(servable(echo("float32", ["n", 2]), number=3))
    assert found["model_spec"] == {"name": "fraud", "signature_name": "", "version": "3"}
    signature = found["metadata"]["signature_def"]["signature_def"]["serving_default"]
    dims = [{"size": "-1", "name": "n"}, {"size": "2", "name": ""}]
    told = {"dtype": "DT_FLOAT", "tensor_shape": {"dim": dims, "unknown_rank": False}, "name": "x"}
    assert signature["inputs"] == {"x": told}
    assert signature["method_name"] == "tensorflow/serving/predict"


def test_a_status_carries_its_reason() -> None:
    failed = VersionStatus("m", "v1.0.0", "c", State.END, reason="golden cases fail", number=7)
    assert tfs.status([failed]) == {
        "model_version_status": [
            {
                "version": "7",
                "state": "END",
                "status": {"error_code": "INTERNAL", "error_message": "golden cases fail"},
            }
        ]
    }


# A real server


@pytest.fixture(scope="module")
def production(tmp_path_factory: pytest.TempPathFactory) -> Production:
    """fraud v1.0.0 and v1.1.0, the latter on the stage ``prod``; one that is broken."""
    made = Production.make(tmp_path_factory.mktemp("tfs"))
    tags = [
        made.release("fraud@v1.0.0"),
        made.release("fraud@v1.1.0", scale=2.0),
        made.release("broken@v1.0.0", broken=True),
    ]
    support.git(made.author, "tag", "-a", "fraud#prod#1", "-m", "live", "fraud@v1.1.0^{commit}")
    made.push(*tags, "fraud#prod#1")
    return made


@pytest.fixture(scope="module")
def server(production: Production) -> Iterator[Server]:
    with place.serving(production.bare) as running:
        yield running


@pytest.fixture(scope="module")
def expected(production: Production) -> list[list[float]]:
    """What the version that serves gives for ``rows(2)``."""
    found: list[list[float]] = place.expected(production, scale=2.0).tolist()
    return found


@pytest.mark.parametrize("which", ["", "/versions/2", "/versions/v1.1.0", "/labels/prod"])
def test_each_way_to_name_a_version_predicts(server: Server, expected: list[list[float]], which: str) -> None:
    answer = server.ask("POST", f"/v1/models/fraud{which}:predict", {"instances": rows(2).tolist()})
    assert np.array(answer.json["predictions"], "float32").tolist() == expected
    assert answer.who[0] == "v1.1.0"


def test_curl_is_client_enough(server: Server, expected: list[list[float]]) -> None:
    body = json.dumps({"signature_name": "serving_default", "instances": rows(2).tolist()})
    command = ["curl", "-sS", "-d", body, "-X", "POST", f"{server.url}/v1/models/fraud:predict"]
    told = json.loads(subprocess.run(command, check=True, capture_output=True, timeout=60).stdout)
    assert np.array(told["predictions"], "float32").tolist() == expected


def test_classify_and_regress_are_asked_alike(server: Server, expected: list[list[float]]) -> None:
    body = {"examples": [{"x": row} for row in rows(2).tolist()]}
    told = server.ask("POST", "/v1/models/fraud:classify", body).json["results"]
    assert [[label for label, _ in row] for row in told] == [["0", "1", "2"]] * 2
    assert np.array([[score for _, score in row] for row in told], "float32").tolist() == expected
    assert "use predict" in server.ask("POST", "/v1/models/fraud:regress", body).error


def test_status_lists_what_is_known_and_why_it_is_not_served(server: Server) -> None:
    (live,) = server.ask("GET", "/v1/models/fraud").json["model_version_status"]
    assert live == {"version": "2", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    for which in ("/versions/2", "/labels/prod"):
        assert server.ask("GET", f"/v1/models/fraud{which}").json["model_version_status"] == [live]
    (broken,) = server.ask("GET", "/v1/models/broken").json["model_version_status"]
    assert "golden cases fail" in broken["status"]["error_message"]


def test_metadata_is_that_of_the_version_that_serves(server: Server) -> None:
    answer = server.ask("GET", "/v1/models/fraud/metadata")
    assert (answer.json["model_spec"]["version"], answer.who[0]) == ("2", "v1.1.0")


@pytest.mark.parametrize(
    ("method", "path", "status", "says"),
    [
        ("POST", "/v1/models/nothing:predict", 404, "there is no model 'nothing' here"),
        ("GET", "/v1/models/nothing", 404, "there is no model 'nothing' here"),
        ("POST", "/v1/models/fraud/versions/9:predict", 404, "no version '9'"),
        ("GET", "/v1/models/fraud/versions/9", 404, "no version '9'"),
        ("POST", "/v1/models/fraud/labels/canary:predict", 404, "no label 'canary'; labels: prod"),
        ("POST", "/v1/models/broken:predict", 503, "golden cases fail"),
        ("GET", "/v1/models/fraud:predict", 405, "use POST"),
        ("POST", "/v1/models/fraud", 405, "use GET"),
        ("POST", "/v1/models/fraud:train", 404, "no verb ':train'; /v1 has :predict, :classify, :regress"),
        ("GET", "/v1/models/fraud/labels/prod:", 404, "no verb ':'; /v1 has :predict"),
        ("POST", "/v1/models/fraud:predict:predict", 404, "there is nothing at"),
    ],
)
def test_mistakes_are_answered_in_words(server: Server, method: str, path: str, status: int, says: str) -> None:
    answer = server.ask(method, path, {} if method == "POST" else None)
    assert answer.status == status
    assert says in answer.error


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_stage_on_a_version_that_is_not_loaded_is_no_label_and_says_why(tmp_path: Path, workers: str) -> None:
    made = Production.make(tmp_path)
    made.push(made.release("fraud@v1.0.0"), made.tag("fraud#prod#1"))
    made.push(made.release("fraud@v1.1.0", scale=2.0), made.tag("fraud#staging#1"))
    says = "model 'fraud' has no label 'staging' here: stage 'staging' stands on {}, which is not loaded; labels: prod"
    with place.serving(made.bare, "--workers", workers) as server:
        answer = server.ask("POST", "/v1/models/fraud/labels/staging:predict", {})
        assert (answer.status, answer.error) == (404, says.format("v1.1.0"))
        made.push(made.release("fraud@v1.2.0", scale=3.0), made.tag("fraud#staging#2"))
        server.look()
        answer = server.ask("GET", "/v1/models/fraud/labels/staging")
        assert (answer.status, answer.error) == (404, says.format("v1.2.0"))
        answer = server.ask("GET", "/v1/models/fraud/labels/other")
        assert (answer.status, answer.error) == (404, "model 'fraud' has no label 'other'; labels: prod")


def test_half_a_character_in_a_name_comes_back_as_words(server: Server) -> None:
    body = b'{"inputs": {"\\ud800": [1]}}'
    answer = server.ask("POST", "/v1/models/fraud:predict", body)
    assert (answer.status, answer.error) == (400, "the model has no input '?'; it wants x")


def test_a_body_that_does_not_fit_names_who_refused_it(server: Server) -> None:
    answer = server.ask("POST", "/v1/models/fraud:predict", {"instances": [[1, 2]]})
    assert answer.status == 400
    assert "input 'x' has shape [1, 2], the model wants [-1, 4]" in answer.error
    assert answer.who[0] == "v1.1.0"


def test_a_model_saved_with_labels_answers_by_them(tmp_path: Path) -> None:
    made = Production.make(tmp_path)
    labels = tmp_path / "labels.txt"
    labels.write_text("no\nmaybe\nyes\n")
    made.save(support.linear_model(), labels=labels)
    made.push(made.tag("fraud@v1.0.0"))
    with place.serving(made.bare) as running:
        told = running.ask("POST", "/v1/models/fraud:classify", {"examples": [{"x": rows(1)[0].tolist()}]})
        assert [label for label, _ in told.json["results"][0]] == ["no", "maybe", "yes"]


def test_stages_are_labels_and_each_has_its_version(production: Production) -> None:
    support.git(production.author, "tag", "-a", "fraud#canary#2", "-m", "try", "fraud@v1.0.0^{commit}")
    production.push("fraud#canary#2")
    with place.serving(production.bare, "--follow", "stages", "--model", "fraud") as running:

        def version(which: str) -> str | None:
            return running.ask("POST", f"/v1/models/fraud{which}:predict", {"instances": rows(1).tolist()}).who[0]

        assert [version(which) for which in ("", "/labels/prod", "/labels/canary", "/versions/1")] == [
            "v1.1.0", "v1.1.0", "v1.0.0", "v1.0.0",
        ]  # fmt: skip
        versions = running.ask("GET", "/v1/models/fraud").json["model_version_status"]
        assert {row["version"]: row["state"] for row in versions} == {"1": "AVAILABLE", "2": "AVAILABLE"}
