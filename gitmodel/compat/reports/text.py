"""The report as a person reads it in a terminal: verdict first, worst findings next, each with its mend."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator

from gitmodel.compat.rules import PROFILES, Finding, Severity
from gitmodel.compat.verdict import Report, Verdict
from gitmodel.versions import Bump

_MARK = {Severity.ERROR: "✗", Severity.WARNING: "!", Severity.INFO: "·"}
_COLOUR = {Severity.ERROR: "31", Severity.WARNING: "33", Severity.INFO: "2"}
_VERDICT_COLOUR = {Verdict.COMPATIBLE: "32", Verdict.INCOMPATIBLE: "31", Verdict.UNJUDGED: "33"}
_WHO = {
    "C": "callers",
    "O": "output consumers",
    "R": "runtimes",
    "F": "rollback",
    "B": "behaviour",
    "H": "the repository",
}


def render(reports: list[Report], *, colour: bool = False) -> str:
    return "\n\n".join("\n".join(_report(report, colour)) for report in reports)


def _report(report: Report, colour: bool) -> Iterator[str]:
    word = _paint(str(report.verdict).upper(), _VERDICT_COLOUR[report.verdict], colour)
    yield f"{word}  {report.old} -> {report.new}  {_owed(report)}"
    if report.unjudged:
        yield f"  could not judge: {report.unjudged}"
    for found in report.findings:
        yield from _finding(found, colour)
    yield _paint(f"  {_counts(report)}", "2", colour)


def _owed(report: Report) -> str:
    required = report.required_bump
    if report.unjudged:
        return "bump unknown"
    text = "no bump owed" if required is Bump.NONE else f"owes a {required} bump"
    if report.next_version and required is not Bump.NONE and report.declared is None:
        text += f" ({report.next_version})"
    if report.declared is not None:
        text += f", declared {report.declared}"
    differing = [f"{p}: {report.bump[p]}" for p in PROFILES if p != report.profile and report.bump.get(p) != required]
    text += f" [{', '.join(differing)}]" if differing else ""
    return text + (", rollback unsafe" if report.rollback_safe is False else "")


def _finding(found: Finding, colour: bool) -> Iterator[str]:
    from gitmodel.compat.rules import load

    mark = _paint(_MARK[found.severity], _COLOUR[found.severity], colour)
    yield f"  {mark} {found.message}  [{found.rule}]"
    if found.severity is Severity.INFO:
        return
    who = ", ".join(_WHO[w] for w in load(found.rule).who.split())
    yield from _wrapped(f"who: {who}. {found.why}")
    if found.witness:
        yield from _wrapped(f"seen: {found.witness}")
    yield from _wrapped(f"mend: {found.fix}")


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, 110, initial_indent="      ", subsequent_indent="        ")


def _counts(report: Report) -> str:
    kind = "generated cases" if report.generated else "golden cases"
    told = f"{report.rules_run} rules, {report.cases_run} {kind} run"
    told += ", remembered from an earlier check" if report.remembered else ""
    return f"{told}; {report.noise}" if report.noise else told


def _paint(text: str, code: str, colour: bool) -> str:
    return f"\033[{code}m{text}\033[0m" if colour else text
