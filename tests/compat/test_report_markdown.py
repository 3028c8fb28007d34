"""The comment on a pull request, read as GitHub would: marker, verdict, table, folded details, and nothing a name can do."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from markdown_it import MarkdownIt

from gitmodel.compat import rules
from gitmodel.compat.reports import markdown, wording
from gitmodel.compat.verdict import Report
from tests.compat.samples import ALL, BROKEN, CLEAN, HOSTILE, RENAMED, RESIZED, SNIPPET, STRANGE, WITNESS, report


class Page(HTMLParser):
    """What is left of the comment when it is shown: its tags, and its text without them."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.text, self.links = "", []  # type: tuple[str, list[str]]
        shown = MarkdownIt("commonmark", {"html": True}).enable("table").render(source)
        self.feed(shown)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.links += [str(value) for key, value in attrs if key in ("href", "src")]

    def handle_data(self, data: str) -> None:
        self.text += data


ALLOWED = {"h2", "table", "thead", "tbody", "tr", "th", "td", "details", "summary", "b", "code", "pre", "p", "ul", "li",
           "strong", "sub"}  # fmt: skip


def test_the_first_line_has_the_verdict_and_the_marker() -> None:
    line = markdown.render([BROKEN]).splitlines()[0]
    assert line.startswith("## ❌ INCOMPATIBLE: fraud@")
    assert line.endswith(f"(v2.0.0), rollback unsafe {markdown.MARKER}")
    assert Page(line).text.strip() == f"❌ INCOMPATIBLE: {wording.summary([BROKEN]).partition('  ')[2]}"


@pytest.mark.parametrize("given", [[], [CLEAN], [BROKEN], ALL], ids=["none", "clean", "broken", "all"])
def test_the_marker_stands_once(given: list[Report]) -> None:
    assert markdown.render(given).count(markdown.MARKER) == 1


def test_a_break_has_its_place_values_witness_mend_and_snippet() -> None:
    page = Page(markdown.render([BROKEN]))
    for said in ("models/fraud/signature.yaml:5", "was x, now features", WITNESS, SNIPPET, "Rename it back when exporting",
                 "2 breaks, 1 warning, 1 remark; 59 rules, 37 golden cases run"):  # fmt: skip
        assert said in page.text
    assert page.tags.count("details") == 3, "remarks are not worth one"


def test_every_kind_of_client_has_its_bump() -> None:
    page = markdown.render([report([RENAMED])])
    assert (
        "| clients | positional | **named** | json |\n|---|---|---|---|\n| bump owed | none | major | major |" in page
    )
    assert "| bump owed | unknown | unknown | unknown |" in markdown.render([report([], unjudged="no weights")])


def test_several_models_are_a_table_the_worst_first() -> None:
    rows = [line for line in markdown.render(ALL).splitlines() if line.startswith("| ")][1:6]
    assert [row.split("|")[1].strip() for row in rows] == ["❌", "❌", "⚠️", "✅", "✅"]
    assert [row.split("|")[2].strip() for row in rows] == ["fraud", "churn", "spam", "new", "mnist"]
    assert "| major | v2.0.0 |" in rows[0]
    assert "| unknown |  |" in rows[2]


def test_only_models_that_matter_have_details() -> None:
    heads = re.findall(r"<summary>\S+ <b>(\w+)</b>", markdown.render(ALL))
    assert heads == ["fraud", "churn", "spam"]


@pytest.mark.parametrize("given", [[STRANGE], ALL], ids=["alone", "among others"])
def test_a_hostile_name_is_shown_as_it_is_and_does_nothing(given: list[Report]) -> None:
    source = markdown.render(given)
    page = Page(source)
    assert set(page.tags) <= ALLOWED
    assert page.links == []
    assert rules.plain(HOSTILE)[:100] in page.text
    assert page.tags.count("td") % 4 == (0 if len(given) == 1 else 1), "a table cell was torn apart"


def test_what_github_links_after_markdown_is_kept_apart() -> None:
    quiet = markdown.escape("@org/team fraud@v1.2.0 a@b.example #12 http://x www.x # @ &#35;1")
    assert Page(quiet).text.strip() == "@org/team fraud@v1.2.0 a@b.example #12 http://x www.x # @ &#35;1"
    shown = MarkdownIt("commonmark", {"html": True}).render(quiet)
    assert not re.search(r"[@#]\w", shown), shown
    assert "://" not in quiet
    assert "www." not in quiet


def test_a_snippet_cannot_close_its_fence() -> None:
    text = markdown._fenced(["a = '````'"])
    assert text.splitlines()[0] == "`````python"


def test_long_reports_are_cut_and_say_so() -> None:
    many = report([RENAMED, *[RESIZED] * 60])
    source = markdown.render([many])
    assert "| | 41 more | | |" in source
    assert source.count("<details>") == markdown.MAX_DETAILS
    models = [report([RENAMED], f"model{i}") for i in range(60)]
    source = markdown.render(models)
    assert "| | 20 more | | | |" in source
    assert "Details of 50 more models are in the whole report." in source


def test_a_comment_is_never_larger_than_github_takes() -> None:
    long = "x" * 3000
    broken = [
        report([RENAMED.__class__("input-removed", "inputs.x", long, None, {"name": long, "witness": long * 3})] * 9)
    ]
    source = markdown.render(broken)
    assert len(source) < 65_536
    assert source.endswith("more parts are too long for a comment; see the whole report.")
