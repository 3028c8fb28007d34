"""Modes of judging: OLD's callers on NEW, as ever; NEW's callers put back on OLD, too; every version a stage still points at."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum

from msgspec.structs import replace

from gitmodel.compat import rules
from gitmodel.compat.changes import Change
from gitmodel.compat.rules import PROFILES, Finding, Severity
from gitmodel.versions import Bump

FORWARD, BACK, BOTH = "OLD->NEW", "NEW->OLD", "both ways"
#: Who is hit when callers are put back.
_ROLLBACK = "F"


class Mode(StrEnum):
    """``backward``: OLD's callers use NEW. ``full``: NEW's callers may be put back on OLD, too. ``transitive``: backward,
    against each version that a stage still points at as well."""

    BACKWARD = "backward"
    FULL = "full"
    TRANSITIVE = "transitive"


def with_rollback(findings: Sequence[Finding], back: Sequence[Change], old: str) -> list[Finding]:
    """``findings`` of OLD to NEW, with what NEW's callers would meet on OLD: ``back`` are the changes from NEW to OLD.

    One fact stays one finding: what breaks both ways says so; what is harmless forwards and breaks on the way back becomes an
    error; the rest is added. Each break has its direction.
    """
    breaks = {_key(finding): finding for finding in map(rules.judge, back) if _breaks(finding)}
    out = []
    for finding in findings:
        found = breaks.pop((finding.at, _text(finding.old), _text(finding.new)), None)
        out.append(_joined(finding, found, old) if found else _directed(finding))
    return out + list(_alone(breaks.values(), old))


def _key(found: Finding) -> tuple[str, str, str]:
    """The place and the two values as the finding of the other direction has them."""
    at = found.at
    if found.rule in ("input-renamed", "output-renamed"):
        at = f"{at.partition('.')[0]}.{found.new}"
    return at, _text(found.new), _text(found.old)


def _text(value: object) -> str:
    return str(value)


def _breaks(finding: Finding) -> bool:
    return any(bump is Bump.MAJOR for bump in finding.bump.values())


def _directed(finding: Finding) -> Finding:
    return replace(finding, direction=FORWARD) if _breaks(finding) else finding


def _joined(finding: Finding, back: Finding, old: str) -> Finding:
    bump = {profile: max(finding.bump[profile], back.bump[profile]) for profile in PROFILES}
    if finding.severity is Severity.ERROR:
        who = finding.who if _ROLLBACK in finding.who.split() else f"{finding.who} {_ROLLBACK}"
        return replace(finding, bump=bump, who=who, direction=BOTH)
    return replace(
        finding, severity=back.severity, bump=bump, who=_ROLLBACK, direction=BOTH if _breaks(finding) else BACK,
        message=f"{finding.message}; for clients put back on {old}: {back.message}", why=back.why, fix=back.fix,
    )  # fmt: skip


def _alone(breaks: Iterable[Finding], old: str) -> Iterator[Finding]:
    for back in breaks:
        message = f"for clients put back on {old}: {back.message}"
        yield replace(back, who=_ROLLBACK, direction=BACK, message=message)
