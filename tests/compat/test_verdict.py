"""From findings to verdict, bump owed and exit code."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from msgspec.structs import replace

from gitmodel.compat.rules import PROFILES, Finding, Severity
from gitmodel.compat.verdict import Report, Verdict, owed, worst_first
from gitmodel.errors import ExitCode
from gitmodel.versions import Bump, Version


def finding(
    rule: str = "made-up", bump: Bump = Bump.NONE, severity: Severity = Severity.INFO, *, curable: bool = True
) -> Finding:
    return Finding(rule, "model", severity, dict.fromkeys(PROFILES, bump), "it is so", "why", "fix", curable=curable)


BREAK = finding("break", Bump.MAJOR, Severity.ERROR)
DRIFT = finding("drift", Bump.MINOR, Severity.WARNING)
NOISE = finding("noise", Bump.PATCH)
STALE = finding("stale", Bump.NONE, Severity.ERROR, curable=False)


def report(*findings: Finding, declared: Bump | None = None, unjudged: str = "", profile: str = "named") -> Report:
    return Report(
        "fraud", "fraud@v1.2.3", "fraud", profile, findings, 50, 16,
        unjudged=unjudged, base=Version(1, 2, 3), declared=declared, bump=owed(findings),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("findings", "verdict", "bump", "code"),
    [
        ([], "compatible", "none", 0),
        ([NOISE], "compatible", "patch", 0),
        ([NOISE, DRIFT], "compatible", "minor", 0),
        ([BREAK, DRIFT], "incompatible", "major", 1),
        ([STALE], "incompatible", "none", 1),
        ([STALE, BREAK], "incompatible", "major", 1),
    ],
)
def test_a_change_that_no_version_declares(findings: Sequence[Finding], verdict: str, bump: str, code: int) -> None:
    found = report(*findings)
    assert (str(found.verdict), str(found.required_bump), found.exit_code) == (verdict, bump, code)


@pytest.mark.parametrize(
    ("findings", "declared", "verdict", "code"),
    [
        ([BREAK], Bump.MAJOR, "incompatible", 0),
        ([BREAK], Bump.MINOR, "incompatible", 1),
        ([DRIFT], Bump.MAJOR, "compatible", 0),
        ([DRIFT], Bump.MINOR, "compatible", 0),
        ([DRIFT], Bump.PATCH, "incompatible", 1),
        ([NOISE], Bump.PATCH, "compatible", 0),
        ([NOISE], Bump.NONE, "incompatible", 1),
        ([], Bump.NONE, "compatible", 0),
        ([], Bump.PATCH, "compatible", 0),
        ([STALE], Bump.MAJOR, "incompatible", 1),
        ([STALE, BREAK], Bump.MAJOR, "incompatible", 1),
    ],
)
def test_a_declared_bump_pays_for_what_is_owed_and_nothing_else(
    findings: Sequence[Finding], declared: Bump, verdict: str, code: int
) -> None:
    found = report(*findings, declared=declared)
    assert (str(found.verdict), found.exit_code) == (verdict, code)


@pytest.mark.parametrize("findings", [[], [NOISE], [BREAK], [STALE]])
@pytest.mark.parametrize("declared", [None, *Bump])
def test_what_nobody_could_judge_never_passes(findings: Sequence[Finding], declared: Bump | None) -> None:
    found = report(*findings, declared=declared, unjudged="the weights are missing")
    assert found.verdict is Verdict.UNJUDGED
    assert found.exit_code is ExitCode.INCOMPLETE


def test_a_curable_error_that_owes_nothing_is_no_break() -> None:
    assert report(finding(severity=Severity.ERROR)).exit_code is ExitCode.OK


def test_the_verdict_is_that_of_the_profile() -> None:
    reordered = replace(NOISE, bump={"positional": Bump.MAJOR, "named": Bump.NONE, "json": Bump.MINOR})
    verdicts = {profile: report(reordered, profile=profile) for profile in PROFILES}
    assert {p: str(r.verdict) for p, r in verdicts.items()} == {
        "positional": "incompatible",
        "named": "compatible",
        "json": "compatible",
    }
    assert {p: str(r.required_bump) for p, r in verdicts.items()} == {
        "positional": "major",
        "named": "none",
        "json": "minor",
    }


@pytest.mark.parametrize(
    ("findings", "version"),
    [([], "v1.2.4"), ([NOISE], "v1.2.4"), ([DRIFT], "v1.3.0"), ([BREAK], "v2.0.0")],
)
def test_the_next_version_is_counted_from_olds(findings: Sequence[Finding], version: str) -> None:
    assert str(report(*findings).next_version) == version


def test_there_is_no_next_version_without_one_to_count_from() -> None:
    assert replace(report(), base=None).next_version is None


def test_the_largest_bump_is_owed_in_each_profile() -> None:
    mixed = replace(NOISE, bump={"positional": Bump.MAJOR, "named": Bump.NONE, "json": Bump.NONE})
    assert owed([mixed, DRIFT]) == {"positional": Bump.MAJOR, "named": Bump.MINOR, "json": Bump.MINOR}
    assert owed([]) == dict.fromkeys(PROFILES, Bump.NONE)


def test_the_worst_finding_comes_first_and_equals_stay_in_their_order() -> None:
    second = replace(DRIFT, rule="second drift")
    louder = replace(STALE, rule="owes nothing")
    assert worst_first([NOISE, DRIFT, louder, second, BREAK]) == (BREAK, louder, DRIFT, second, NOISE)
