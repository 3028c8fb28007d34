"""The page: whole in itself, harmless whatever a model is called, its pictures saying what the numbers say."""

from __future__ import annotations

import math
import re
from html.parser import HTMLParser
from xml.etree import ElementTree as Xml

import pytest
from msgspec.structs import replace

from gitmodel.compat import rules
from gitmodel.compat.drift import CaseDrift, OutputDrift
from gitmodel.compat.reports import html, plots
from gitmodel.compat.verdict import Report
from gitmodel.versions import Bump
from tests.compat.samples import (
    ALL,
    BROKEN,
    CLEAN,
    HOSTILE,
    RENAMED,
    SNIPPET,
    STRANGE,
    UNJUDGED,
    WITNESS,
    drift,
    report,
)

VOID = {"meta", "img", "br"}


class Page(HTMLParser):
    """Tags in order, with a check that each is closed where it belongs; attributes; text."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str]] = []
        self.text = ""
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(key, str(value)) for key, value in attrs]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += [(key, str(value)) for key, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data


@pytest.mark.parametrize(
    "given", [[], [CLEAN], [BROKEN], [STRANGE], ALL], ids=["none", "clean", "broken", "strange", "all"]
)
def test_the_page_is_whole_and_asks_for_nothing(given: list[Report]) -> None:
    source = html.render(given)
    page = Page(source)
    assert page.open == []
    assert not set(page.tags) & {"script", "img", "link", "iframe", "object", "form", "base"}
    assert all(value.startswith("#") for key, value in page.attributes if key in ("href", "src", "xlink:href"))
    assert not [key for key, _ in page.attributes if key.startswith("on")]
    assert "@import" not in source
    assert "url(" not in source
    assert "default-src 'none'" in source


def test_the_verdict_stands_on_top() -> None:
    source = html.render([BROKEN])
    assert source.startswith("<!doctype html>")
    assert "<title>INCOMPATIBLE  fraud@v1.2.3 -&gt; fraud  owes a major bump" in source.split("\n")[0]
    body = source[source.index("<body>") :]
    assert re.match(r'<body><main>\n<header class="banner incompatible"><h1><span class="word">INCOMPATIBLE', body)


def test_a_break_has_everything_a_person_acts_on() -> None:
    page = Page(html.render([BROKEN]))
    for said in (WITNESS, SNIPPET, "models/fraud/signature.yaml:5", "input-renamed", "Rename it back when exporting",
                 "2 breaks, 1 warning, 1 remark; 59 rules, 37 golden cases run", "v2.0.0"):  # fmt: skip
        assert said in page.text
    assert page.tags.count("article") == 3
    assert page.tags.count("li") == 1


def test_a_hostile_name_is_text() -> None:
    page = Page(html.render([STRANGE]))
    assert rules.plain(HOSTILE) in page.text


def test_several_models_have_a_table_and_a_section_each() -> None:
    page = Page(html.render(ALL))
    links = [value for key, value in page.attributes if key == "href"]
    ids = [f"#{value}" for key, value in page.attributes if key == "id"]
    assert links == ids == [f"#model-{number}" for number in range(len(ALL))]
    assert "Could not judge" in page.text


def test_cards_say_what_was_declared_and_whether_one_can_go_back() -> None:
    page = Page(html.render([report([RENAMED], declared=Bump.MINOR)]))
    assert "declared bumpminor" in page.text
    assert "rollbackunsafe" in page.text
    assert Page(html.render([UNJUDGED])).text.count("unknown") == 5, "three cards, title and first line"


def test_statistics_and_flips_are_shown() -> None:
    page = Page(html.render([BROKEN]))
    for said in ("0.0002", "cases/3[0, 17]", "2.1%", "75.0%", "0.999870", "1.23e+03", "2 more",
                 "The smallest that would pass: 0.001 relative, 0.0002 absolute."):  # fmt: skip
        assert said in page.text
    assert page.tags.count("svg") == 2, "an output that is equal needs no picture"


def svg(source: str) -> Xml.Element:
    return Xml.fromstring(source)


def test_a_picture_has_a_mark_per_case_of_the_kind_it_is() -> None:
    shown = drift(count=10)
    root = svg(plots.by_case(shown))
    within = [case for case in shown.by_case if case.within]
    assert len(root.findall("circle")) == len(within)
    assert len(root.findall("path")) == len(shown.by_case) - len(within)
    titles = [title.text for title in root.iter("title")]
    assert "cases/4, row 1: not comparable" in titles


def test_height_follows_size() -> None:
    scale = plots.Scale.of([1e-6, 1e-2])
    heights = [scale.y(value) for value in (0.0, 1e-6, 1e-4, 1e-2, math.inf)]
    assert heights == sorted(heights, reverse=True)
    assert len(set(heights)) == 5
    assert scale.y(1e-4) == pytest.approx((scale.y(1e-6) + scale.y(1e-2)) / 2)
    assert all(plots.TOP <= height <= plots.HEIGHT - plots.BOTTOM for height in heights)


@pytest.mark.parametrize("values", [[], [0.0], [1e-5], [1e-300, 1e300], [math.inf, math.nan]], ids=str)
def test_a_scale_fits_any_values(values: list[float]) -> None:
    scale = plots.Scale.of(values)
    assert 1 < len(scale.ticks) <= plots._MAX_TICKS + 2
    for value in values:
        assert plots.TOP <= scale.y(value) <= plots.HEIGHT - plots.BOTTOM


def test_tolerance_and_noise_are_lines_where_they_belong() -> None:
    shown = drift()
    root = svg(plots.by_case(shown))
    lines = {line.get("class"): float(str(line.get("y1"))) for line in root.findall("line")}
    assert lines["tolerance"] < lines["floor"], "the larger is higher up"
    bare = svg(plots.by_case(replace(shown, floor=0.0, tolerance=(0.0, 0.0))))
    assert {line.get("class") for line in bare.findall("line")} == {"grid"}


@pytest.mark.parametrize("floor", [1e-5, 1.01e-5, 0.99e-5])
def test_names_of_lines_that_are_close_do_not_cover_each_other(floor: float) -> None:
    root = svg(plots.by_case(replace(drift(), floor=floor)))
    heights = [
        float(str(text.get("y"))) for text in root.findall("text") if str(text.get("class", "")).startswith("tone")
    ]
    assert abs(heights[0] - heights[1]) >= 11


def test_the_worst_cases_are_bars_by_size() -> None:
    cases = tuple(CaseDrift(f"c/{i}", 0, size, size < 3) for i, size in enumerate((1.0, 4.0, 2.0, 0.0, 3.0, 0.5, 0.1)))
    root = svg(plots.worst_cases(OutputDrift("y", by_case=cases)))
    widths = [float(str(bar.get("width"))) for bar in root.findall("rect")]
    assert len(widths) == 5
    assert widths == sorted(widths, reverse=True)
    assert widths[1] == pytest.approx(widths[0] * 0.75, abs=0.1)
    assert [bar.get("class") for bar in root.findall("rect")] == ["bar-out"] * 2 + ["bar-in"] * 3


def test_a_long_case_name_is_cut() -> None:
    root = svg(plots.worst_cases(OutputDrift("y", by_case=(CaseDrift("x" * 99 + "/7", 0, 1.0, True),))))
    assert next(root.iter("text")).text == f"…{'x' * 20}/7, row 0"
