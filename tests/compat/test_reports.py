"""Reports: JSON that keeps its published schema, text a person reads from the top."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from msgspec.structs import replace

from gitmodel.compat import rules
from gitmodel.compat.changes import Change
from gitmodel.compat.drift import OutputDrift
from gitmodel.compat.reports import json as json_report
from gitmodel.compat.reports import text as text_report
from gitmodel.compat.rules import PROFILES
from gitmodel.compat.verdict import Report, owed, worst_first
from gitmodel.versions import Bump, Version
from tests.compat import pairs

SCHEMA: dict[str, Any] = json.loads(
    (Path(__file__).parents[2] / "docs" / "reference" / "check-compat.schema.json").read_text()
)
VALIDATOR = jsonschema.Draft202012Validator(SCHEMA)

RENAMED = Change("input-renamed", "inputs.x", "x", "features", {"name": "x", "witness": "Invalid input name: x"})
MISSING = Change("goldens-missing", "golden", None, None, {"cases": 16, "label": "fraud@v1.2.3"})
IDENTICAL = Change("golden-identical", "behaviour", None, None, {"cases": 16})


def report(*changes: Change, **fields: Any) -> Report:
    findings = worst_first([rules.judge(change) for change in changes])
    base = Report(
        "fraud", "fraud@v1.2.3", "fraud", "named", findings, 57, 16, base=Version(1, 2, 3), bump=owed(findings)
    )
    return replace(base, **fields)


def lines(*given: Report, colour: bool = False) -> list[str]:
    return text_report.render(list(given), colour=colour).splitlines()


# JSON -----------------------------------------------------------------------------------------------------------------


def test_the_schema_is_a_schema() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize("rule", sorted(pairs.PAIRS))
def test_the_report_on_every_pair_keeps_the_schema(rule: str) -> None:
    document = json.loads(pairs.snapshot(rule).read_text())
    VALIDATOR.validate({**document, "rules_run": 57})


@pytest.mark.parametrize("count", [0, 2])
def test_none_or_several_models_are_a_list(count: int) -> None:
    document = json.loads(json_report.render([report(IDENTICAL)] * count))
    VALIDATOR.validate(document)
    assert len(document["models"]) == count


def test_every_field_is_in_the_schema_and_the_reverse() -> None:
    document = json.loads(json_report.render([report(RENAMED)]))
    definitions = SCHEMA["$defs"]
    assert (
        set(document) - {"schema"} == set(definitions["report"]["properties"]) == set(definitions["report"]["required"])
    )
    finding = definitions["finding"]
    assert set(document["findings"][0]) == set(finding["properties"]) == set(finding["required"])
    output = definitions["output"]
    assert set(json_report.output(OutputDrift("y"))) == set(output["properties"]) == set(output["required"])


@pytest.mark.parametrize(
    "damage",
    [
        {"verdict": "fine"},
        {"schema": 2},
        {"required_bump": "huge"},
        {"bump": {"named": "major"}},
        {"rules_run": 0},
        {"unjudged": "the weights are missing"},
        {"verdict": "unjudged"},
        {"findings": [{}]},
    ],
    ids=str,
)
def test_the_schema_refuses_what_no_report_may_say(damage: dict[str, Any]) -> None:
    document = json.loads(json_report.render([report(RENAMED)])) | damage
    with pytest.raises(jsonschema.ValidationError):
        VALIDATOR.validate(document)


def test_an_unjudged_report_says_why() -> None:
    document = json.loads(json_report.render([report(unjudged="the weights are missing")]))
    VALIDATOR.validate(document)
    assert (document["verdict"], document["unjudged"]) == ("unjudged", "the weights are missing")


def test_the_fields_of_a_report() -> None:
    document = json.loads(json_report.render([report(RENAMED, declared=Bump.MINOR, rollback_safe=False)]))
    findings = document.pop("findings")
    assert document.pop("outputs") == []
    assert document == {
        "schema": 1,
        "model": "fraud",
        "old": "fraud@v1.2.3",
        "new": "fraud",
        "verdict": "incompatible",
        "profile": "named",
        "mode": "backward",
        "bump": {"positional": "none", "named": "major", "json": "major"},
        "required_bump": "major",
        "declared_bump": "minor",
        "next_version": "v2.0.0",
        "rollback_safe": False,
        "unjudged": None,
        "rules_run": 57,
        "cases_run": 16,
        "cases_generated": False,
    }
    assert findings[0]["witness"] == "Invalid input name: x"
    assert (findings[0]["old"], findings[0]["new"]) == ("x", "features")


def fingerprint(change: Change) -> str:
    return rules.judge(change).fingerprint


def test_a_fingerprint_names_the_break_and_not_its_words() -> None:
    other_words = replace(RENAMED, args={"name": "x", "witness": "case 7: another message"})
    assert fingerprint(RENAMED) == fingerprint(other_words)
    others = [replace(RENAMED, at="inputs.y"), replace(RENAMED, new="image"), replace(RENAMED, kind="output-renamed")]
    assert len({fingerprint(change) for change in (RENAMED, *others)}) == 4


def test_a_fingerprint_is_the_same_wherever_the_files_lie(tmp_path: Path) -> None:
    found = []
    for place in ("here", "there"):
        (tmp_path / place).mkdir()
        found.append([f["fingerprint"] for f in pairs.report("graph-removed", tmp_path / place)["findings"]])
    assert found[0] == found[1]
    assert fingerprint(Change("graph-removed", "model", None, None, {"label": "a"})) == found[0][0]


def test_numbers_that_json_lacks_are_never_written() -> None:
    drifted = {"name": "y", "max_abs": float("inf"), "worst": "cases/0", "agreement": 0.0, "threshold": 0.9}
    change = Change(
        "golden-failed", "outputs.y", None, None, {**drifted, "distance": float("inf"), "limit": 0.1, "far": False}
    )
    VALIDATOR.validate(json.loads(json_report.render([report(change)])))


# Text -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "first"),
    [
        (report(), "COMPATIBLE  fraud@v1.2.3 -> fraud  no bump owed"),
        (report(IDENTICAL), "COMPATIBLE  fraud@v1.2.3 -> fraud  owes a patch bump (v1.2.4)"),
        (
            report(RENAMED),
            "INCOMPATIBLE  fraud@v1.2.3 -> fraud  owes a major bump (v2.0.0) [positional: none]",
        ),
        (
            report(RENAMED, declared=Bump.MAJOR),
            "INCOMPATIBLE  fraud@v1.2.3 -> fraud  owes a major bump, declared major [positional: none]",
        ),
        (
            report(RENAMED, declared=Bump.MINOR),
            "INCOMPATIBLE  fraud@v1.2.3 -> fraud  owes a major bump (v2.0.0), declared minor [positional: none]",
        ),
        (
            report(IDENTICAL, old="nothing", base=None),
            "COMPATIBLE  nothing -> fraud  nothing to compare it with, owes a patch bump",
        ),
        (report(RENAMED, base=None), "INCOMPATIBLE  fraud@v1.2.3 -> fraud  owes a major bump [positional: none]"),
        (report(IDENTICAL, unjudged="no weights"), "UNJUDGED  fraud@v1.2.3 -> fraud  bump unknown"),
    ],
    ids=["nothing", "patch", "major", "declared", "too small", "first", "no version", "unjudged"],
)
def test_the_first_line_is_the_verdict(given: Report, first: str) -> None:
    assert lines(given)[0] == first


def test_an_unsafe_rollback_is_said_in_the_first_line() -> None:
    assert lines(report(RENAMED, rollback_safe=False))[0].endswith(", rollback unsafe")
    assert "rollback" not in lines(report(RENAMED, rollback_safe=True))[0]


def test_a_break_says_who_why_what_was_seen_and_what_mends_it() -> None:
    assert lines(report(RENAMED))[1:] == [
        "  ✗ input 'x' is now called 'features'  [input-renamed]",
        "      who: callers. Callers feed inputs by name; the old name is refused. Callers by position do not notice.",
        "      seen: Invalid input name: x",
        "      mend: Rename it back when exporting, or release a major version.",
        "  57 rules, 16 golden cases run",
    ]


def test_a_remark_is_one_line_and_the_worst_stands_first() -> None:
    shown = lines(report(IDENTICAL, MISSING, RENAMED))
    marks = [line[2] for line in shown if line.startswith("  ") and line[2] in "✗!·"]
    assert marks == ["✗", "!", "·"]
    assert shown[-2:] == [
        "  · all 16 cases give bit-equal outputs  [golden-identical]",
        "  57 rules, 16 golden cases run",
    ]


def test_why_nobody_could_judge_stands_second() -> None:
    assert lines(report(unjudged="the weights are missing"))[1] == "  could not judge: the weights are missing"


def test_generated_cases_are_called_so() -> None:
    assert lines(report(generated=True))[-1] == "  57 rules, 16 generated cases run"


def test_long_lines_are_wrapped() -> None:
    change = replace(RENAMED, args={"name": "x", "witness": "word " * 60})
    assert max(len(line) for line in lines(report(change))) <= 110


def test_several_reports_are_set_apart() -> None:
    text = text_report.render([report(IDENTICAL), report(RENAMED)], colour=False)
    assert [part.split()[0] for part in text.split("\n\n")] == ["INCOMPATIBLE", "INCOMPATIBLE", "COMPATIBLE"]


def test_colour_adds_nothing_but_colour() -> None:
    import re

    coloured = text_report.render([report(RENAMED, MISSING)], colour=True)
    assert "\033[31mINCOMPATIBLE\033[0m" in coloured
    assert re.sub(r"\033\[\d+m", "", coloured).splitlines() == lines(report(RENAMED, MISSING))


def test_every_profile_has_its_bump_in_the_report() -> None:
    assert set(json.loads(json_report.render([report(RENAMED)]))["bump"]) == set(PROFILES)
