"""Annotations, read back as the runner of GitHub Actions reads them."""

from __future__ import annotations

import re

from msgspec.structs import replace

from gitmodel.compat import rules
from gitmodel.compat.reports import github, wording
from gitmodel.compat.rules import Place
from gitmodel.compat.verdict import Report
from tests.compat.samples import ALL, BROKEN, CLEAN, HOSTILE, RENAMED, RESIZED, STRANGE, UNJUDGED, WITNESS, report

Command = tuple[str, dict[str, str], str]


def commands(given: list[Report]) -> list[Command]:
    """As ActionCommand.TryParseV2 of actions/runner does: every line must be a command."""
    return [parse(line) for line in github.render(given).split("\n")]


def parse(line: str) -> Command:
    match = re.fullmatch(r"::(\w+) ([^:]*)::(.*)", line)
    assert match, line
    properties = dict(item.split("=", 1) for item in match[2].split(","))
    return match[1], {key: unescape(value) for key, value in properties.items()}, unescape(match[3])


def unescape(text: str) -> str:
    for code, character in (("%0D", "\r"), ("%0A", "\n"), ("%3A", ":"), ("%2C", ","), ("%25", "%")):
        text = text.replace(code, character)
    return text


def test_the_verdict_comes_first_and_is_an_error_when_it_is_one() -> None:
    assert commands([BROKEN])[0] == ("error", {"title": "check-compat"}, wording.summary([BROKEN]))
    assert commands([CLEAN])[0][0] == "notice"
    assert commands([UNJUDGED])[0][0] == "warning"


def test_a_break_is_on_its_line_with_all_there_is_to_say() -> None:
    name, properties, text = commands([BROKEN])[1]
    assert name == "error"
    assert properties == {"file": "models/fraud/signature.yaml", "line": "5", "title": "input-renamed (fraud)"}
    assert text.split("\n") == [
        "input 'x' is now called 'features'",
        "was: x; now: features",
        "who: callers. Callers feed inputs by name; the old name is refused. Callers by position do not notice.",
        f"seen: {WITNESS}",
        "mend: Rename it back when exporting, or release a major version.",
    ]


def test_warnings_come_after_breaks_and_remarks_not_at_all() -> None:
    assert [name for name, _, _ in commands([BROKEN])] == ["error", "error", "error", "warning"]


def test_what_could_not_be_judged_says_why() -> None:
    assert ("warning", {"title": "could not judge spam"}, UNJUDGED.unjudged) in commands([UNJUDGED])


def test_a_line_that_only_old_has_is_near_and_said() -> None:
    place = Place("models/fraud/signature.yaml", 9, "old", nearest=4)
    (found, *_) = report([RENAMED]).findings
    _, properties, text = commands([report([], findings=(replace(found, place=place),))])[1]
    assert properties["line"] == "4"
    assert text.endswith("\nthe line is models/fraud/signature.yaml:9 of OLD")


def test_a_bare_file_has_no_line_to_annotate() -> None:
    (found,) = report([RENAMED]).findings
    bare = report([], findings=(replace(found, place=Place("new.onnx")),))
    assert commands([bare])[1][1] == {"title": "input-renamed (fraud)"}


def test_a_hostile_name_makes_no_command_and_no_property() -> None:
    found = commands([STRANGE])
    assert len(found) == 2
    assert set(found[1][1]) == {"file", "line", "title"}
    assert rules.plain(HOSTILE) in found[1][2]


def test_github_shows_ten_of_a_kind_and_the_rest_is_counted() -> None:
    many = report([*[RESIZED] * 30])
    found = commands([many, *ALL])
    assert [name for name, _, _ in found].count("error") == 10
    assert ("notice", {"title": "check-compat"}, "24 more errors are in the report") in found
