"""The words all formats share: verdict and bumps in one line, who breaks, what was, counts; and text that cannot misbehave."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence

from gitmodel.compat.rules import PROFILES, Finding, Severity, load, plain
from gitmodel.compat.verdict import NOTHING, Report, Verdict
from gitmodel.versions import Bump

#: Stands where a verdict stands when no model had anything to be compared with.
NOTHING_COMPARED = "NOTHING COMPARED"
NOTHING_DIFFERS = "no model differs from what it was to be compared with; no rule and no case was run"
#: How many models a summary names.
_NAMED = 5
#: How much of an old or new value is shown.
_VALUE = 200
_WORST = {Verdict.INCOMPATIBLE: 0, Verdict.UNJUDGED: 1, Verdict.COMPATIBLE: 2}
WHO = {
    "C": "callers",
    "O": "output consumers",
    "R": "runtimes",
    "F": "rollback",
    "B": "behaviour",
    "H": "the repository",
}
_COUNTED = {Severity.ERROR: "break", Severity.WARNING: "warning", Severity.INFO: "remark"}


def headline(report: Report) -> str:
    """The first line on one model: verdict, sides, bumps owed by profile, next version."""
    return f"{str(report.verdict).upper()}  {sides(report)}  {owed(report)}"


def summary(reports: Sequence[Report]) -> str:
    """The first line of a document, whatever it is about: one model, several, or none."""
    if not reports:
        return f"{NOTHING_COMPARED}  {NOTHING_DIFFERS}"
    if len(reports) == 1:
        return headline(reports[0])
    return f"{str(worst(reports)).upper()}  {_tally(reports)}; {_debts(reports)}"


def worst(reports: Iterable[Report]) -> Verdict:
    return min((report.verdict for report in reports), key=_WORST.__getitem__)


def worst_first(reports: Iterable[Report]) -> list[Report]:
    """What breaks first, then what nobody could judge; within these the larger bump."""
    return sorted(reports, key=lambda report: (_WORST[report.verdict], -report.required_bump))


def _tally(reports: Sequence[Report]) -> str:
    verdicts = Counter(report.verdict for report in reports)
    return f"{len(reports)} models: {', '.join(f'{verdicts[v]} {v}' for v in _WORST if verdicts[v])}"


def _debts(reports: Sequence[Report]) -> str:
    """What each model owes, the worst by name."""
    owing = [r for r in worst_first(reports) if r.unjudged or r.required_bump is not Bump.NONE]
    named = [f"{plain(r.model)} {owed(r)}" for r in owing[:_NAMED]]
    more = [f"{len(owing) - _NAMED} more owe a bump"] if len(owing) > _NAMED else []
    return ", ".join([*named, *more]) or "no bump owed"


def sides(report: Report) -> str:
    return f"{plain(report.old)} -> {plain(report.new)}"


def owed(report: Report) -> str:
    """``owes a major bump (v2.0.0) [positional: none]``: brackets name the profiles that owe another one."""
    required = report.required_bump
    if report.unjudged:
        return "bump unknown"
    text = "no bump owed" if required is Bump.NONE else f"owes a {required} bump"
    if report.old == NOTHING:
        text = f"nothing to compare it with, {text}"
    if report.next_version and required is not Bump.NONE and (report.declared is None or not report.paid):
        text += f" ({report.next_version})"
    if report.declared is not None:
        text += f", declared {report.declared}"
    differing = [f"{p}: {report.bump[p]}" for p in PROFILES if p != report.profile and report.bump.get(p) != required]
    text += f" [{', '.join(differing)}]" if differing and report.bump else ""
    return text + (", rollback unsafe" if report.rollback_safe is False else "")


def counts(report: Report) -> str:
    """How much was done for the verdict."""
    kind = "generated cases" if report.generated else "golden cases"
    told = f"{report.rules_run} rules, {report.cases_run} {kind} run"
    told += ", remembered from an earlier check" if report.remembered else ""
    return f"{told}; {report.noise}" if report.noise else told


def found(report: Report) -> str:
    """``1 break, 2 warnings``; what there is none of is left out."""
    numbers = Counter(finding.severity for finding in report.findings)
    parts = [f"{numbers[s]} {word}{'' if numbers[s] == 1 else 's'}" for s, word in _COUNTED.items() if numbers[s]]
    if parts:
        return ", ".join(parts)
    return "not judged" if report.unjudged else "nothing to compare" if report.old == NOTHING else "no change found"


def who(finding: Finding) -> str:
    """Who breaks, in words."""
    return ", ".join(WHO[letter] for letter in load(finding.rule).who.split())


def values(finding: Finding) -> tuple[str, str] | None:
    """What it was and what it is, each in one line; None when the finding is not about values."""
    if finding.old is None and finding.new is None:
        return None
    return value(finding.old), value(finding.new)


def value(given: object) -> str:
    text = "nothing" if given is None else given if isinstance(given, str) else json.dumps(given, default=str)
    return plain(text if len(text) <= _VALUE else f"{text[:_VALUE]}…")


def exact(text: str) -> list[str]:
    """The lines of a snippet, which are code, each safe to show."""
    return [plain(line) for line in text.split("\n")] if text else []
