"""KServe's own REST inference client, unmodified, against a real server. It wants libraries of other versions than ours, so it runs
in a Python of its own: GITMODEL_KSERVE_PYTHON names one that has it (python -m venv X; X/bin/pip install kserve)."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator

import numpy as np
import pytest

from tests.serving import production as place
from tests.serving.production import Production, Server, rows

PYTHON = os.environ.get("GITMODEL_KSERVE_PYTHON", "")
pytestmark = pytest.mark.skipif(not PYTHON, reason="GITMODEL_KSERVE_PYTHON names no Python that has kserve")

#: Prints what the client makes of the server's answers. Arguments: the URL, the rows as JSON.
_CLIENT = """
import asyncio, json, sys
import numpy as np
from kserve import InferInput, InferRequest
from kserve.inference_client import InferenceRESTClient, RESTConfig

async def main(url, rows):
    x = np.array(rows, np.float32)
    said = {}
    for protocol in ("v2", "v1"):
        client = InferenceRESTClient(RESTConfig(protocol=protocol))
        if protocol == "v2":
            said["live"] = await client.is_server_live(url)
            said["ready"] = await client.is_server_ready(url)
            said["model"] = await client.is_model_ready(url, "fraud")
            for binary in (False, True):
                tensor = InferInput("x", list(x.shape), "FP32")
                tensor.set_data_from_numpy(x, binary_data=binary)
                request = InferRequest(model_name="fraud", infer_inputs=[tensor], request_id="one")
                answer = await client.infer(url, request, model_name="fraud")
                output = answer.outputs[0]
                said["binary" if binary else "json"] = [answer.id, answer.model_name, output.name, output.as_numpy().tolist()]
        else:
            said["v1"] = await client.infer(url, {"instances": rows}, model_name="fraud")
        await client.close()
    print(json.dumps(said))

asyncio.run(main(sys.argv[1], json.loads(sys.argv[2])))
"""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    production = Production.make(tmp_path_factory.mktemp("kserve"))
    production.push(production.release("fraud@v1.0.0"))
    with place.serving(production.bare) as started:
        yield started


def test_kserves_client_reads_what_we_answer(server: Server) -> None:
    x = rows(2)
    done = subprocess.run(
        [PYTHON, "-c", _CLIENT, server.url, json.dumps(x.tolist())], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    said = json.loads(done.stdout.splitlines()[-1])
    wanted = server.ask("POST", "/v1/models/fraud:predict", {"instances": x.tolist()}).json["predictions"]
    assert (said["live"], said["ready"], said["model"]) == (True, True, True)
    for kind in ("json", "binary"):
        name, model, output, values = said[kind]
        assert (name, model, output) == ("one", "fraud", "scores")
        assert np.array_equal(np.array(values, "float32"), np.array(wanted, "float32"))
    assert said["v1"] == {"predictions": wanted}
