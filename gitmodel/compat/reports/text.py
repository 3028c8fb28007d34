"""The report as a person reads it in a terminal: verdict first, worst findings next, each with its mend."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from gitmodel.compat.reports import wording
from gitmodel.compat.rules import Finding, Severity, plain
from gitmodel.compat.verdict import Report, Verdict

_MARK = {Severity.ERROR: "✗", Severity.WARNING: "!", Severity.INFO: "·"}
_COLOUR = {Severity.ERROR: "31", Severity.WARNING: "33", Severity.INFO: "2"}
_VERDICT_COLOUR = {Verdict.COMPATIBLE: "32", Verdict.INCOMPATIBLE: "31", Verdict.UNJUDGED: "33"}


def render(reports: list[Report], *, colour: bool = False, snippets: bool = False) -> str:
    """One part per model, the worst first, below a line that sums them up when there are several. ``snippets`` adds
    the lines that show each break."""
    parts = ["\n".join(_report(report, colour, snippets)) for report in wording.worst_first(reports)]
    if len(reports) != 1:
        word, _, rest = wording.summary(reports).partition("  ")
        code = _VERDICT_COLOUR[wording.worst(reports) if reports else Verdict.UNJUDGED]
        parts.insert(0, f"{_paint(word, code, colour)}  {rest}")
    return "\n\n".join(parts)


def _report(report: Report, colour: bool, snippets: bool) -> Iterator[str]:
    word = _paint(str(report.verdict).upper(), _VERDICT_COLOUR[report.verdict], colour)
    yield f"{word}  {wording.sides(report)}  {wording.owed(report)}"
    if report.unjudged:
        yield f"  could not judge: {plain(report.unjudged)}"
    for found in report.findings:
        yield from _finding(found, colour, snippets)
    yield _paint(f"  {wording.counts(report)}", "2", colour)


def _finding(found: Finding, colour: bool, snippets: bool) -> Iterator[str]:
    mark = _paint(_MARK[found.severity], _COLOUR[found.severity], colour)
    direction = f"{found.direction}: " if found.direction else ""
    yield f"  {mark} {direction}{plain(found.message)}  [{found.rule}]"
    if found.severity is Severity.INFO:
        return
    if found.place is not None and found.place.line is not None:
        yield f"      at: {plain(found.place)}"
    values = wording.values(found)
    if values and not all(value in found.message for value in values):
        yield from _wrapped(f"was: {values[0]}; now: {values[1]}")
    yield from _wrapped(f"who: {wording.who(found)}. {found.why}")
    if found.witness:
        yield from _wrapped(f"seen: {plain(found.witness)}")
    yield from _wrapped(f"mend: {plain(found.fix)}")
    if snippets and found.snippet:
        yield "      try:"
        yield from (f"        {line}" for line in wording.exact(found.snippet))


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, 110, initial_indent="      ", subsequent_indent="        ")


def _paint(text: str, code: str, colour: bool) -> str:
    return f"\033[{code}m{text}\033[0m" if colour else text
