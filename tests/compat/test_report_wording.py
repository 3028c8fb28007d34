"""The words all formats share, and that every format begins with the verdict and never takes nothing for no change."""

from __future__ import annotations

import json
from xml.etree import ElementTree as Xml

import pytest
from msgspec.structs import replace

from gitmodel.cli.review import ReportFormat
from gitmodel.compat import reports, rules
from gitmodel.compat.reports import wording
from gitmodel.compat.verdict import Report
from gitmodel.versions import Bump
from tests.compat.samples import ALL, BROKEN, CLEAN, FIRST, HOSTILE, RENAMED, STRANGE, UNJUDGED, report

BROKEN_LINE = "INCOMPATIBLE  fraud@v1.2.3 -> fraud  owes a major bump (v2.0.0), rollback unsafe"


def first(name: str, given: list[Report]) -> str:
    """What a reader of a format sees first of all."""
    text = reports.renderer(name).render(given)
    if name == "json":
        value = json.loads(text)
        return str(value.get("summary") or f"{value['verdict'].upper()}  {value['old']} -> {value['new']}")
    if name == "sarif":
        (run,) = json.loads(text)["runs"]
        assert next(iter(run)) == "properties"
        return str(run["properties"]["summary"])
    if name == "junit":
        return Xml.fromstring(text).attrib["name"]
    return text.splitlines()[0]


@pytest.mark.parametrize("name", reports.FORMATS)
def test_every_format_begins_with_the_verdict(name: str) -> None:
    line = first(name, [BROKEN])
    assert "INCOMPATIBLE" in line
    assert "fraud" in line
    if name != "json":
        assert "owes a major bump (v2.0.0), rollback unsafe" in line


@pytest.mark.parametrize("name", reports.FORMATS)
def test_every_format_sums_several_models_up_first(name: str) -> None:
    line = first(name, ALL)
    assert "INCOMPATIBLE" in line
    assert "5 models: 2 incompatible, 1 unjudged, 2 compatible" in line
    assert line.index("fraud owes a major bump (v2.0.0)") < line.index("spam bump unknown")


@pytest.mark.parametrize("name", reports.FORMATS)
def test_nothing_to_compare_is_not_no_change(name: str) -> None:
    nothing = reports.renderer(name).render([])
    assert "NOTHING COMPARED" in nothing
    assert "no rule and no case was run" in nothing
    assert "COMPATIBLE" not in nothing
    assert "no change found" not in nothing


@pytest.mark.parametrize("name", reports.FORMATS)
def test_no_format_says_compatible_of_what_could_not_be_judged(name: str) -> None:
    text = reports.renderer(name).render([UNJUDGED])
    assert "the remote" in text
    assert "no bump owed" not in text
    assert "no change found" not in text
    assert "UNJUDGED" in first(name, [UNJUDGED])


@pytest.mark.parametrize("name", [name for name in reports.FORMATS if name not in ("json", "sarif")])
def test_a_strange_name_only_shows(name: str) -> None:
    stuck = replace(UNJUDGED, unjudged=HOSTILE, old=HOSTILE, new=HOSTILE, model=HOSTILE)
    for given in ([STRANGE], [stuck], [STRANGE, stuck]):
        text = reports.renderer(name).render(given)
        assert not {c for c in text if c != "\n" and rules.plain(c) != c}


def test_the_formats_of_the_command_are_those_there_are() -> None:
    assert [str(format_) for format_ in ReportFormat] == list(reports.FORMATS)


def test_one_line_sums_up_whatever_was_judged() -> None:
    assert wording.summary([BROKEN]) == BROKEN_LINE
    assert wording.summary([CLEAN, CLEAN]) == "COMPATIBLE  2 models: 2 compatible; no bump owed"
    many = wording.summary([BROKEN] * 7)
    assert many.endswith(", 2 more owe a bump")


def test_the_first_version_of_a_model_says_that_there_was_nothing_before() -> None:
    assert wording.headline(FIRST) == "COMPATIBLE  nothing -> new  nothing to compare it with, owes a patch bump"


def test_a_version_that_is_paid_for_is_not_told_what_to_be() -> None:
    assert "(v2.0.0)" not in wording.owed(report([RENAMED], declared=Bump.MAJOR))
    assert "(v2.0.0), declared patch" in wording.owed(report([RENAMED], declared=Bump.PATCH))


def test_the_worst_model_stands_first() -> None:
    assert [r.model for r in wording.worst_first(ALL)] == ["fraud", "churn", "spam", "new", "mnist"]


def test_what_does_not_show_is_written_out() -> None:
    assert rules.plain("a\x00\x1b\n\u202e\u2028\ud800\U000e0001b") == "a\\x00\\x1b\\n\\u202e\\u2028\\ud800\\U000e0001b"
    assert rules.plain("Größe 測 🎉") == "Größe 測 🎉"
    assert len(rules.plain(HOSTILE).splitlines()) == 1


def test_values_are_shown_in_one_line_and_not_at_any_length() -> None:
    (renamed,) = report([RENAMED]).findings
    assert wording.values(renamed) == ("x", "features")
    assert wording.value(None) == "nothing"
    assert wording.value({"a": [1, None]}) == '{"a": [1, null]}'
    assert len(wording.value("long" * 1000)) == 201


def test_what_was_found_is_counted() -> None:
    assert wording.found(BROKEN) == "2 breaks, 1 warning, 1 remark"
    assert wording.found(CLEAN) == "no change found"
    assert wording.found(UNJUDGED) == "not judged"
    assert wording.found(replace(CLEAN, old="nothing")) == "nothing to compare"
