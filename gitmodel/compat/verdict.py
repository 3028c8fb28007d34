"""From findings to a verdict: what is owed per profile, and whether the version declared pays it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import StrEnum

from msgspec import Struct, field

from gitmodel.compat.drift import OutputDrift
from gitmodel.compat.rules import PROFILES, Finding, Severity
from gitmodel.errors import ExitCode
from gitmodel.versions import Bump, Version

#: What stands for a side that is not there: OLD of a model that is new, NEW of one that is gone.
NOTHING = "nothing"


class Verdict(StrEnum):
    """``unjudged`` means nobody could tell, and never passes."""

    COMPATIBLE = "compatible"
    INCOMPATIBLE = "incompatible"
    UNJUDGED = "unjudged"


class Report(Struct, frozen=True):
    """All that a check found. ``base`` is OLD's version and ``declared`` the bump NEW's own tag makes, if it has one.
    ``drifts`` are the statistics of every output that was replayed, ``noise`` says how noise was measured or why not;
    ``remembered`` that nothing was run, for an earlier check had."""

    model: str
    old: str
    new: str
    profile: str
    findings: tuple[Finding, ...]
    rules_run: int
    cases_run: int
    generated: bool = False
    unjudged: str = ""
    base: Version | None = None
    declared: Bump | None = None
    bump: Mapping[str, Bump] = field(default_factory=dict)
    rollback_safe: bool | None = None
    drifts: tuple[OutputDrift, ...] = ()
    mode: str = "backward"
    noise: str = ""
    remembered: bool = False

    @property
    def required_bump(self) -> Bump:
        return self.bump.get(self.profile, Bump.NONE)

    @property
    def verdict(self) -> Verdict:
        if self.unjudged:
            return Verdict.UNJUDGED
        breaks = self.required_bump is Bump.MAJOR or self.incurable
        short = self.declared is not None and not self.paid
        return Verdict.INCOMPATIBLE if breaks or short else Verdict.COMPATIBLE

    @property
    def incurable(self) -> bool:
        """True when a finding stands that no bump pays for."""
        return any(f.severity is Severity.ERROR and not f.curable for f in self.findings)

    @property
    def paid(self) -> bool:
        """True when the declared bump is at least the one owed."""
        return self.declared is not None and self.declared >= self.required_bump

    @property
    def next_version(self) -> Version | None:
        """The version to tag, when there is one to count from."""
        return self.base.bumped(max(self.required_bump, Bump.PATCH)) if self.base else None

    @property
    def exit_code(self) -> ExitCode:
        if self.verdict is Verdict.UNJUDGED:
            return ExitCode.INCOMPLETE
        if self.incurable or (self.verdict is Verdict.INCOMPATIBLE and not self.paid):
            return ExitCode.INCOMPATIBLE
        return ExitCode.OK


_ORDER = {Severity.ERROR: 0, Severity.WARNING: 1, Severity.INFO: 2}


def worst_first(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """Errors before warnings before remarks; within each the larger bump first, then in the order found."""
    return tuple(sorted(findings, key=lambda f: (_ORDER[f.severity], -max(f.bump.values()))))


def owed(findings: Sequence[Finding]) -> dict[str, Bump]:
    """The largest bump any finding owes, per profile."""
    return {p: max((f.bump[p] for f in findings), default=Bump.NONE) for p in PROFILES}
