"""One comment for a pull request, kept up to date by its hidden marker: verdict in line 1, the rest folded."""

from __future__ import annotations

import re
from collections.abc import Iterator

from gitmodel.compat import rules
from gitmodel.compat.reports import wording
from gitmodel.compat.rules import PROFILES, Finding, Severity
from gitmodel.compat.verdict import Report, Verdict
from gitmodel.versions import Bump

#: By this a comment made before is found again.
MARKER = "<!-- gitmodel check-compat -->"
#: GitHub takes comments of 65,536 characters.
MAX_CHARACTERS = 60_000
MAX_MODELS, MAX_FINDINGS, MAX_DETAILS = 40, 20, 10
_MARK = {Severity.ERROR: "❌", Severity.WARNING: "⚠️", Severity.INFO: "▫️"}
_VERDICT_MARK = {Verdict.COMPATIBLE: "✅", Verdict.INCOMPATIBLE: "❌", Verdict.UNJUDGED: "⚠️"}
_SYNTAX = re.compile(r"[\\`*_\[\]<>&|~$]|://|www\.")
_REFERENCE = re.compile(r"[@#]")


def render(reports: list[Report], *, colour: bool = False) -> str:  # noqa: ARG001  # Markdown has no colour
    ordered = wording.worst_first(reports)
    mark = _VERDICT_MARK[wording.worst(reports)] if reports else "⚪"
    word, _, rest = wording.summary(reports).partition("  ")
    parts = [f"## {mark} {word}: {escape(rest)} {MARKER}"]
    if len(ordered) == 1:
        parts += _one(ordered[0])
    elif ordered:
        parts.append(_table(ordered))
        told = [report for report in ordered if _matters(report)]
        parts += [_folded_model(report) for report in told[:MAX_DETAILS]]
        if len(told) > MAX_DETAILS:
            parts.append(f"Details of {len(told) - MAX_DETAILS} more models are in the whole report.")
    return "\n\n".join(_fitting(parts))


def _fitting(parts: list[str]) -> list[str]:
    """The parts that a comment has room for, from the top."""
    kept: list[str] = []
    room = MAX_CHARACTERS
    for number, part in enumerate(parts):
        room -= len(part) + 2
        if room < 0 and kept:
            return [*kept, f"{len(parts) - number} more parts are too long for a comment; see the whole report."]
        kept.append(part)
    return kept


def _matters(report: Report) -> bool:
    return report.verdict is not Verdict.COMPATIBLE or any(f.severity is not Severity.INFO for f in report.findings)


def _one(report: Report) -> Iterator[str]:
    """The parts below the headline of a single model."""
    if report.unjudged:
        yield f"**Could not judge**: {escape(report.unjudged)}"
    yield _bumps(report)
    if report.findings:
        yield _findings(report)
    shown = [found for found in report.findings if found.severity is not Severity.INFO]
    for found in shown[:MAX_DETAILS]:
        yield _details(found)
    yield _footer(report)


def _folded_model(report: Report) -> str:
    head = f"{_VERDICT_MARK[report.verdict]} <b>{escape(report.model)}</b>: {escape(wording.owed(report))}"
    body = "\n\n".join([_code(wording.sides(report)), *_one(report)])
    return f"<details><summary>{head}</summary>\n\n{body}\n\n</details>"


def _table(reports: list[Report]) -> str:
    rows = ["| | model | owes | next | worst finding |", "|---|---|---|---|---|"]
    for report in reports[:MAX_MODELS]:
        worst = report.unjudged or next((f.message for f in report.findings), wording.found(report))
        owes = "unknown" if report.unjudged else str(report.required_bump)
        version = report.next_version if report.required_bump is not Bump.NONE and not report.unjudged else None
        cells = [escape(report.model), owes, str(version or ""), _short(worst)]
        rows.append(f"| {_VERDICT_MARK[report.verdict]} | {' | '.join(cells)} |")
    if len(reports) > MAX_MODELS:
        rows.append(f"| | {len(reports) - MAX_MODELS} more | | | |")
    return "\n".join(rows)


def _bumps(report: Report) -> str:
    """The bump each kind of client is owed, the one judged for in bold."""
    names = [f"**{p}**" if p == report.profile else p for p in PROFILES]
    owed = ["unknown" if report.unjudged else str(report.bump.get(p, Bump.NONE)) for p in PROFILES]
    return f"| clients | {' | '.join(names)} |\n|---|---|---|---|\n| bump owed | {' | '.join(owed)} |"


def _findings(report: Report) -> str:
    rows = ["| | finding | place | who |", "|---|---|---|---|"]
    for found in report.findings[:MAX_FINDINGS]:
        place = _code(str(found.place)) if found.place else ""
        rows.append(f"| {_MARK[found.severity]} | {_short(found.message)} | {place} | {wording.who(found)} |")
    if len(report.findings) > MAX_FINDINGS:
        rows.append(f"| | {len(report.findings) - MAX_FINDINGS} more | | |")
    return "\n".join(rows)


def _details(found: Finding) -> str:
    head = f"{_MARK[found.severity]} {escape(found.message)} ({found.rule})"
    lines = []
    if values := wording.values(found):
        lines.append(f"- **was** {_code(values[0])}, **now** {_code(values[1])}")
    lines.append(f"- **why** {escape(found.why)}")
    if found.witness:
        lines.append(f"- **seen** {_code(found.witness)}")
    lines.append(f"- **mend** {escape(found.fix)}")
    body = "\n".join(lines)
    if found.snippet:
        body += f"\n\n{_fenced(wording.exact(found.snippet))}"
    return f"<details><summary>{head}</summary>\n\n{body}\n\n</details>"


def _footer(report: Report) -> str:
    return f"<sub>{wording.found(report)}; {escape(wording.counts(report))}</sub>"


def escape(text: object) -> str:
    """Text that Markdown and GitHub leave alone: no markup, no table cells, no mentions, no links."""
    quiet = _SYNTAX.sub(lambda found: "".join(f"&#{ord(c)};" for c in found[0]), rules.plain(text))
    return _REFERENCE.sub(lambda found: quoted if (quoted := _unlinked(found, quiet)) else found[0], quiet)


def _unlinked(found: re.Match[str], text: str) -> str:
    """``@name`` and ``#1`` become links after Markdown is done; a comment in between keeps them text."""
    follows = text[found.end() : found.end() + 1]
    is_entity = found[0] == "#" and text[found.start() - 1 : found.start()] == "&"
    return f"{found[0]}<!-- -->" if follows.isalnum() and not is_entity else ""


def _short(text: str, limit: int = 160) -> str:
    return escape(text if len(text) <= limit else f"{text[:limit]}…")


def _code(text: str) -> str:
    return f"<code>{escape(text)}</code>"


def _fenced(lines: list[str]) -> str:
    """A code block whose fence no line of it can close."""
    longest = max((len(run) for line in lines for run in re.findall(r"`+", line)), default=0)
    fence = "`" * max(3, longest + 1)
    return "\n".join([f"{fence}python", *lines, fence])
