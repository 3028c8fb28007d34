"""The server answers what its OpenAPI document says, to whatever schemathesis makes of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import openapi_spec_validator
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from gitmodel import __version__
from gitmodel.serving import openapi
from tests.serving import production as place
from tests.serving.production import Production, Server

OPERATIONS = [
    (method, path)
    for path, item in json.loads(openapi.document("0.1"))["paths"].items()
    for method in ("get", "post")
    if method in item
]
_CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """fraud v1.0.0, which is the stage prod; one that is broken."""
    made = Production.make(tmp_path_factory.mktemp("openapi"))
    tags = [made.release("fraud@v1.0.0"), made.release("broken@v1.0.0", broken=True)]
    made.push(*tags, made.tag("fraud#prod#1", "fraud@v1.0.0^{commit}"))
    with place.serving(made.bare) as running:
        yield running


@pytest.fixture(scope="module")
def api(server: Server) -> Any:
    document = server.ask("GET", "/openapi.json").json
    assert document["info"]["version"] == __version__
    parameters = document["components"]["parameters"]
    # Names that mean something are asked for; which names there are is no part of the protocol.
    parameters["model"]["schema"] = {"enum": ["fraud", "broken", "nothing"]}
    parameters["version"]["schema"] = {"enum": ["1", "v1.0.0", "9"]}
    parameters["label"]["schema"] = {"enum": ["prod", "nowhere"]}
    found = schemathesis.openapi.from_dict(document)
    found.config.update(base_url=server.url)
    return found


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_every_answer_is_one_the_document_has(api: Any, method: str, path: str) -> None:
    @settings(max_examples=15, suppress_health_check=list(HealthCheck))
    @given(api[path][method].as_strategy())
    def holds(case: Any) -> None:
        response = case.call()
        # 503 is in the document: a version that is known and would not load.
        checks = _CHECKS[1:] if response.status_code == 503 else _CHECKS
        case.validate_response(response, checks=checks)

    holds()


def test_every_path_of_the_document_is_there(server: Server) -> None:
    """And with another method it says which one to use: none is written down that the server does not know."""
    document = server.ask("GET", "/openapi.json").json
    for path, item in document["paths"].items():
        asked = path.replace("{model}", "fraud").replace("{version}", "1").replace("{label}", "prod")
        answer = server.ask("DELETE", asked)
        allowed = "POST" if "post" in item else "GET"
        assert (answer.status, answer.headers.get("allow", "").partition(",")[0]) == (405, allowed), path


def test_whatever_can_be_asked_of_a_model_can_be_of_a_version_and_in_v1_of_a_stage_too() -> None:
    paths = {path for _, path in OPERATIONS}
    prefixes = {"/v1": ("/versions/{version}", "/labels/{label}"), "/v2": ("/versions/{version}",)}
    whole = [path for path in paths if path.startswith(tuple(f"{v}/models/{{model}}" for v in prefixes))]
    missing = [
        (path, which)
        for path in whole
        if "/versions/" not in path and "/labels/" not in path
        for which in prefixes[path[:3]]
        if path.replace("{model}", "{model}" + which) not in paths
    ]
    assert not missing
    assert {f"/v2/repository/models/{{model}}/{verb}" for verb in ("load", "unload")} <= paths


def test_the_document_is_valid_openapi() -> None:
    openapi_spec_validator.validate(json.loads(openapi.document("0.1")))
