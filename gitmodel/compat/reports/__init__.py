"""One module per report format; each has ``render(reports) -> str``, whose first words are the verdict."""

from __future__ import annotations

from importlib import import_module
from typing import Protocol

from gitmodel.compat.verdict import Report

FORMATS = {
    "text": "gitmodel.compat.reports.text",
    "json": "gitmodel.compat.reports.json",
    "markdown": "gitmodel.compat.reports.markdown",
    "github": "gitmodel.compat.reports.github",
    "junit": "gitmodel.compat.reports.junit",
    "sarif": "gitmodel.compat.reports.sarif",
    "html": "gitmodel.compat.reports.html",
}


class Renderer(Protocol):
    """A module that turns reports into one document."""

    def render(self, reports: list[Report], *, colour: bool = False) -> str: ...


def renderer(name: str) -> Renderer:
    module: Renderer = import_module(FORMATS[name])
    return module
