"""Workflow commands that make GitHub Actions annotate the lines of the committed files.

Format: https://docs.github.com/actions/reference/workflow-commands-for-github-actions, escaped as @actions/core does.
"""

from __future__ import annotations

from collections.abc import Iterator

from gitmodel.compat import rules
from gitmodel.compat.reports import wording
from gitmodel.compat.rules import Finding, Severity
from gitmodel.compat.verdict import Report, Verdict

#: GitHub shows ten errors and ten warnings of a step; the verdict takes one of each.
LIMIT = 9
_COMMAND = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "notice"}
_VERDICT_COMMAND = {Verdict.COMPATIBLE: "notice", Verdict.INCOMPATIBLE: "error", Verdict.UNJUDGED: "warning"}


def render(reports: list[Report], *, colour: bool = False) -> str:  # noqa: ARG001  # a log has no use for it
    return "\n".join(_commands(wording.worst_first(reports)))


def _commands(reports: list[Report]) -> Iterator[str]:
    verdict = wording.worst(reports) if reports else Verdict.UNJUDGED
    yield _command(_VERDICT_COMMAND[verdict], wording.summary(reports), title="check-compat")
    for report in reports:
        if report.unjudged:
            yield _command("warning", rules.plain(report.unjudged), title=f"could not judge {report.model}")
    for severity in (Severity.ERROR, Severity.WARNING):
        found = [(r, f) for r in reports for f in r.findings if f.severity is severity]
        for report, finding in found[:LIMIT]:
            yield _annotation(report, finding)
        if len(found) > LIMIT:
            yield _command("notice", f"{len(found) - LIMIT} more {severity}s are in the report", title="check-compat")


def _annotation(report: Report, found: Finding) -> str:
    lines = [found.message, f"who: {wording.who(found)}. {found.why}"]
    if values := wording.values(found):
        lines.insert(1, f"was: {values[0]}; now: {values[1]}")
    lines += [f"seen: {found.witness}"] if found.witness else []
    lines.append(f"mend: {found.fix}")
    properties: dict[str, object] = {}
    if found.place is not None and found.place.line is not None:
        properties = {"file": found.place.path, "line": found.place.shown or 1}
        lines += [f"the line is {found.place}"] if found.place.side == "old" else []
    text = "\n".join(rules.plain(line) for line in lines)
    return _command(_COMMAND[found.severity], text, **properties, title=f"{found.rule} ({report.model})")


def _command(name: str, text: str, **properties: object) -> str:
    shown = ",".join(f"{key}={_property(rules.plain(value))}" for key, value in properties.items())
    return f"::{name} {shown}::{_data(text)}"


def _data(text: str) -> str:
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def _property(text: str) -> str:
    return _data(text).replace(":", "%3A").replace(",", "%2C")
