"""Named signatures over the wire: each is called by its name, in TensorFlow's form and in the Open Inference Protocol's."""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import numpy_helper

from gitmodel.workflows import save, transfer
from tests import support
from tests.serving import production as place
from tests.serving.production import Production, Server
from tests.workflows import state
from tests.workflows.test_save import write_embed

X = np.linspace(-1, 1, 400, dtype="float32").reshape(2, 200)
PREDICT, INFER = "/v1/models/fraud:predict", "/v2/models/fraud/infer"


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("signatures")
    production = Production.make(folder)
    whole = state.write(support.wide_model(), folder / "whole.onnx")
    embed = write_embed(folder / "embed.onnx", support.wide_model())
    save.save("fraud", [whole], repo=production.author, signatures={"embed": embed}, message="two signatures")
    transfer.push(["fraud"], repo=production.author)
    production.push(production.tag("fraud@v1.0.0"))
    with place.serving(production.bare) as started:
        yield started


def hidden() -> np.ndarray:
    """What the embedding is."""
    weights = {i.name: numpy_helper.to_array(i) for i in support.wide_model().graph.initializer}
    return np.asarray(X @ weights["layer0/weight"])


def predict(server: Server, **more: object) -> Any:
    answer = server.ask("POST", PREDICT, {"instances": X.tolist(), **more})
    return answer.json


def infer(server: Server, **parameters: object) -> Any:
    tensor = {"name": "x", "shape": list(X.shape), "datatype": "FP32", "data": X.ravel().tolist()}
    return server.ask("POST", INFER, {"inputs": [tensor], "parameters": parameters}).json


def test_a_named_signature_is_called_in_both_protocols(server: Server) -> None:
    own = predict(server)["predictions"]
    assert predict(server, signature_name="serving_default")["predictions"] == own
    embedded = np.array(predict(server, signature_name="embed")["predictions"])
    np.testing.assert_allclose(embedded, hidden(), rtol=1e-4, atol=1e-4)
    for _ in range(2):  # the second by the path that was called before
        (output,) = infer(server, signature_name="embed")["outputs"]
        assert output["name"] == "e"
        np.testing.assert_allclose(np.array(output["data"]).reshape(2, -1), hidden(), rtol=1e-4, atol=1e-4)
        (output,) = infer(server)["outputs"]
        assert output["name"] == "h1"
        np.testing.assert_allclose(np.array(output["data"]).reshape(2, -1), np.array(own), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["other", "", 7, None, ["embed"]])
def test_one_that_is_not_there_is_refused_with_those_that_are(server: Server, name: object) -> None:
    for body in (predict(server, signature_name=name), infer(server, signature_name=name)):
        if name == "":
            assert "error" not in body
        else:
            assert body["error"].startswith("the model has no signature ")
            assert body["error"].endswith("it has 'serving_default', 'embed'")


def test_what_is_asked_on_the_port_for_notices_is_a_signed_notice(tmp_path: Path) -> None:
    """Whatever was called before on the other; and Host is no matter there."""
    production = Production.make(tmp_path)
    production.push(production.release("fraud@v1.0.0"))
    secret = tmp_path / "secret"
    secret.write_text("n" * 40)
    secret.chmod(0o600)
    with place.serving(production.bare, "--notify", "127.0.0.1:0", "--notify-secret", str(secret)) as started:
        url = started.wait_for(re.compile(r"signed notices are taken on http://\S+").fullmatch).rpartition(" ")[2]
        assert started.ask("POST", INFER, place.infer(place.rows(1))).status == 200
        host, _, port = url.removeprefix("http://").partition(":")
        connection = http.client.HTTPConnection(host, int(port))
        connection.request("POST", INFER, json.dumps(place.infer(place.rows(1))), {"Host": "elsewhere.example"})
        assert connection.getresponse().status == 401
        connection.close()


def test_metadata_show_them_all(server: Server) -> None:
    found = server.ask("GET", "/v1/models/fraud/metadata").json["metadata"]["signature_def"]["signature_def"]
    assert found.keys() == {"serving_default", "embed"}
    assert list(found["embed"]["outputs"]) == ["e"]
    assert list(found["serving_default"]["outputs"]) == ["h1"]
