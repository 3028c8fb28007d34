"""SARIF: against the official schema where it is at hand, and always against what code scanning asks of a producer.

The official schema (OASIS, sarif-schema-2.1.0.json) is no file of this repository. It is read from ``sarif/`` in the
folder of GITMODEL_REALDATA. ``PROFILE`` below is written from the text of the standard, and stricter than the schema: no
property but those this producer means to write.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import jsonschema
import pytest
from msgspec.structs import replace

from gitmodel.compat import rules
from gitmodel.compat.reports import sarif, wording
from gitmodel.compat.rules import Place
from gitmodel.compat.verdict import Report
from tests.compat import pairs
from tests.compat.samples import ALL, BROKEN, CLEAN, RENAMED, STRANGE, UNJUDGED, report

GIVEN = {"none": [], "clean": [CLEAN], "broken": [BROKEN], "unjudged": [UNJUDGED], "all": ALL}


def closed(required: dict[str, Any], optional: dict[str, Any] | None = None) -> dict[str, Any]:
    properties = {**required, **(optional or {})}
    return {"type": "object", "properties": properties, "required": list(required), "additionalProperties": False}


TEXT = {"type": "string", "minLength": 1}
MESSAGE = closed({"text": TEXT})
BAG = {"type": "object"}
LEVEL = {"enum": ["none", "note", "warning", "error"]}
RULE = closed(
    {
        "id": TEXT, "name": {"type": "string", "pattern": "^[A-Z][A-Za-z]*$"}, "shortDescription": MESSAGE,
        "fullDescription": MESSAGE, "help": closed({"text": TEXT, "markdown": TEXT}), "helpUri": TEXT,
        "defaultConfiguration": closed({"level": LEVEL}),
        "properties": closed({"tags": {"type": "array", "items": TEXT, "uniqueItems": True, "maxItems": 20}}),
    }
)  # fmt: skip
LOCATION = closed(
    {"logicalLocations": {"type": "array", "minItems": 1, "items": closed({"fullyQualifiedName": TEXT, "kind": TEXT})}},
    {
        "physicalLocation": closed(
            {"artifactLocation": closed({"uri": TEXT}, {"uriBaseId": {"const": "%SRCROOT%"}})},
            {"region": closed({"startLine": {"type": "integer", "minimum": 1}})},
        )
    },
)
RESULT = closed(
    {
        "ruleId": TEXT, "ruleIndex": {"type": "integer", "minimum": 0}, "level": LEVEL, "message": MESSAGE,
        "locations": {"type": "array", "minItems": 1, "maxItems": 1, "items": LOCATION},
        "partialFingerprints": closed({"gitmodel/v1": {"type": "string", "pattern": "^[0-9a-f]{32}$"}}),
        "properties": BAG,
    }
)  # fmt: skip
INVOCATION = closed(
    {
        "executionSuccessful": {"type": "boolean"}, "exitCode": {"type": "integer"}, "exitCodeDescription": TEXT,
        "toolExecutionNotifications": {"type": "array", "items": closed({"level": LEVEL, "message": MESSAGE})},
    }
)  # fmt: skip
DRIVER = closed(
    {"name": TEXT, "semanticVersion": TEXT, "informationUri": TEXT, "rules": {"type": "array", "items": RULE}}
)
RUN = closed(
    {
        "properties": BAG, "tool": closed({"driver": DRIVER}),
        "invocations": {"type": "array", "minItems": 1, "maxItems": 1, "items": INVOCATION},
        "automationDetails": closed({"id": TEXT}), "columnKind": {"enum": ["utf16CodeUnits", "unicodeCodePoints"]},
        "originalUriBaseIds": BAG, "results": {"type": "array", "items": RESULT},
    }
)  # fmt: skip
PROFILE = closed(
    {"$schema": TEXT, "version": {"const": "2.1.0"}, "runs": {"type": "array", "minItems": 1, "items": RUN}}
)


def log(given: list[Report]) -> dict[str, Any]:
    value: dict[str, Any] = json.loads(sarif.render(given))
    jsonschema.Draft202012Validator(PROFILE).validate(value)
    return value


def run(given: list[Report]) -> dict[str, Any]:
    found: dict[str, Any] = log(given)["runs"][0]
    return found


@pytest.fixture
def official(real_data: Path) -> jsonschema.Draft4Validator:
    path = real_data / "sarif" / "sarif-schema-2.1.0.json"
    if not path.is_file():
        pytest.skip(f"no {path}: it is OASIS's, from https://docs.oasis-open.org/sarif/sarif/v2.1.0/")
    schema = json.loads(path.read_text())
    assert schema["id"] == sarif.SCHEMA
    return jsonschema.Draft4Validator(schema)


@pytest.mark.realdata
@pytest.mark.parametrize("name", GIVEN)
def test_the_official_schema_is_kept(name: str, official: jsonschema.Draft4Validator) -> None:
    official.validate(log(GIVEN[name]))


@pytest.mark.realdata
def test_the_official_schema_is_kept_by_every_rule(official: jsonschema.Draft4Validator) -> None:
    for rule in rules.names():
        official.validate(
            {
                "version": "2.1.0",
                "runs": [{"tool": {"driver": {"name": "x", "rules": [sarif._rule(rules.load(rule))]}}}],
            }
        )


@pytest.mark.realdata
def test_the_official_schema_refuses_what_is_wrong(official: jsonschema.Draft4Validator) -> None:
    value = log([BROKEN])
    value["runs"][0]["results"][0]["level"] = "fatal"
    with pytest.raises(jsonschema.ValidationError):
        official.validate(value)


@pytest.mark.parametrize("name", GIVEN)
def test_only_what_is_meant_is_written(name: str) -> None:
    log(GIVEN[name])


@pytest.mark.parametrize("rule", rules.names())
def test_every_rule_has_its_help(rule: str) -> None:
    described = sarif._rule(rules.load(rule))
    jsonschema.Draft202012Validator(RULE).validate(described)
    assert urlsplit(described["helpUri"]).fragment == rule
    assert "Bump owed: positional" in described["help"]["text"]


def test_results_point_at_their_rule_line_and_file() -> None:
    found = run([BROKEN])
    listed = found["tool"]["driver"]["rules"]
    assert [rule["id"] for rule in listed] == sorted({f.rule for f in BROKEN.findings})
    assert len(found["results"]) == len(BROKEN.findings)
    for result, finding in zip(found["results"], BROKEN.findings, strict=True):
        assert listed[result["ruleIndex"]]["id"] == result["ruleId"] == finding.rule
        (location,) = result["locations"]
        assert finding.place is not None
        physical = location["physicalLocation"]
        assert (physical["artifactLocation"]["uri"], physical["region"]["startLine"]) == (
            finding.place.path,
            finding.place.line,
        )
        assert location["logicalLocations"][0]["fullyQualifiedName"] == f"fraud.{finding.at}"
    assert [result["level"] for result in found["results"]] == ["error", "error", "warning", "note"]


def test_a_fingerprint_stays_when_lines_move_and_differs_between_models() -> None:
    def fingerprints(given: Report) -> list[str]:
        return [result["partialFingerprints"]["gitmodel/v1"] for result in run([given])["results"]]

    moved = replace(BROKEN, findings=tuple(replace(f, place=Place("elsewhere.yaml", 99)) for f in BROKEN.findings))
    assert fingerprints(BROKEN) == fingerprints(moved)
    assert len(set(fingerprints(BROKEN))) == len(BROKEN.findings)
    assert not set(fingerprints(BROKEN)) & set(fingerprints(replace(BROKEN, model="churn")))


def test_a_path_is_a_uri() -> None:
    (finding,) = report([RENAMED]).findings
    place = Place("models/a b#%ü.onnx")
    (result,) = run([report([], findings=(replace(finding, place=place),))])["results"]
    artifact = result["locations"][0]["physicalLocation"]["artifactLocation"]
    assert unquote(artifact["uri"]) == place.path
    assert urlsplit(artifact["uri"]).fragment == ""
    assert "region" not in result["locations"][0]["physicalLocation"]
    absolute = report([], findings=(replace(finding, place=Place("/tmp/new.onnx")),))
    (result,) = run([absolute])["results"]
    assert "uriBaseId" not in result["locations"][0]["physicalLocation"]["artifactLocation"]


def test_what_could_not_be_judged_is_a_run_that_failed() -> None:
    (invocation,) = run([UNJUDGED])["invocations"]
    assert (invocation["executionSuccessful"], invocation["exitCode"]) == (False, 3)
    assert UNJUDGED.unjudged in invocation["toolExecutionNotifications"][0]["message"]["text"]
    (invocation,) = run([BROKEN])["invocations"]
    assert (invocation["executionSuccessful"], invocation["exitCode"]) == (True, 1)
    assert invocation["exitCodeDescription"] == wording.summary([BROKEN])


def test_nothing_compared_is_told() -> None:
    found = run([])
    assert found["results"] == []
    assert "NOTHING COMPARED" in found["invocations"][0]["toolExecutionNotifications"][0]["message"]["text"]


def test_a_hostile_name_stays_inside_its_text() -> None:
    (result,) = run([STRANGE])["results"]
    assert len(result["message"]["text"].split("\n")) == 5
    assert "\x1b" not in result["message"]["text"]


def test_the_rules_of_all_pairs_are_known() -> None:
    assert set(pairs.PAIRS) <= set(rules.names())
