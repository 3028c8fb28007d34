"""The operator's page."""

from __future__ import annotations

from collections.abc import Callable
from html.parser import HTMLParser

from gitmodel.serving import page
from gitmodel.serving.servable import Servable, Serving, State, VersionStatus
from gitmodel.serving.traffic import Traffic


class Read(HTMLParser):
    """The cells of all rows, and every tag's name."""

    def __init__(self, text: bytes) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.tags: list[str] = []
        self.open: list[str] = []
        self.feed(text.decode())
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # the parser's form
        self.tags.append(tag)
        if tag not in ("meta",):
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if {"td", "th"} & set(self.open):
            self.rows[-1][-1] += data


def test_a_row_has_all_an_operator_asks_for(servable: Callable[..., Servable]) -> None:
    model, traffic = servable(), Traffic()
    for status in (200, 200, 503):
        traffic.answered(model, status, 0.0042)
    statuses = [
        VersionStatus(
            "fraud",
            "v1.0.0",
            "a" * 40,
            State.AVAILABLE,
            seconds=0.5,
            golden_passed=4,
            golden_cases=4,
            stages=("prod", "canary"),
        ),
        VersionStatus("fraud", "v2.0.0", "b" * 40, State.END, reason="4 of 4 golden cases fail"),
    ]
    read = Read(page.render(statuses, {"fraud": Serving(model, {"v1.0.0": model})}, traffic, ready=True, version="0.1"))
    head, live, failed, why = read.rows
    assert dict(zip(head, live, strict=True)) == {
        "version": "v1.0.0", "state": "AVAILABLE", "stages": "prodcanary", "golden cases": "4 of 4", "loaded in": "0.50 s",
        "requests": "3", "errors": "1", "in flight": "0", "p50": "4.2 ms", "p99": "4.2 ms", "commit": "a" * 10,
    }  # fmt: skip
    assert failed[1] == "END"
    assert why == ["4 of 4 golden cases fail"]


def test_what_git_and_the_runtime_say_is_text_and_nothing_else() -> None:
    evil = "<script>alert(1)</script>"
    statuses = [VersionStatus(evil, evil, evil, State.END, reason=evil, stages=(evil,))]
    read = Read(page.render(statuses, {}, Traffic(), ready=False, version=evil))
    assert not {"script", "img", "link", "iframe"} & set(read.tags)
    assert read.rows[2] == [evil]


def test_without_a_model_it_says_what_to_do() -> None:
    assert b"gitmodel release NAME" in page.render([], {}, Traffic(), ready=True, version="0.1")
