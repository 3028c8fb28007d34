"""SARIF 2.1.0 for code scanning: one run, a rule with its help for each that found something, a result per finding.

Source: OASIS SARIF 2.1.0 (errata 01); section numbers in comments are its own.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any
from urllib.parse import quote

from gitmodel.compat import rules
from gitmodel.compat.reports import wording
from gitmodel.compat.rules import Finding, Severity
from gitmodel.compat.verdict import Report
from gitmodel.errors import ExitCode

SCHEMA = "https://docs.oasis-open.org/sarif/sarif/v2.1.0/errata01/os/schemas/sarif-schema-2.1.0.json"
DOCS = "https://gitmodel.example/docs"
_LEVEL = {Severity.ERROR: "error", Severity.WARNING: "warning", Severity.INFO: "note"}
_ROOT = "%SRCROOT%"


def render(reports: list[Report], *, colour: bool = False) -> str:  # noqa: ARG001  # JSON has no colour
    return json.dumps({"$schema": SCHEMA, "version": "2.1.0", "runs": [_run(reports)]}, indent=2, allow_nan=False)


def _run(reports: list[Report]) -> dict[str, Any]:
    used = sorted({found.rule for report in reports for found in report.findings})
    return {
        "properties": {"summary": wording.summary(reports), "compared": len(reports)},
        "tool": {"driver": _driver(used)},
        "invocations": [_invocation(reports)],
        "automationDetails": {"id": "gitmodel/check-compat/"},  # 3.17.3: the last part names the run, and is nobody's
        "columnKind": "unicodeCodePoints",
        "originalUriBaseIds": {_ROOT: {"description": {"text": "The root of the repository."}}},
        "results": [_result(report, found, used) for report in reports for found in report.findings],
    }


def _driver(used: list[str]) -> dict[str, Any]:
    import gitmodel

    return {
        "name": "gitmodel check-compat",
        "semanticVersion": str(gitmodel.__version__),
        "informationUri": DOCS,
        "rules": [_rule(rules.load(name)) for name in used],
    }


def _rule(rule: rules.Rule) -> dict[str, Any]:
    bumps = ", ".join(f"{profile} {bump}" for profile, bump in rule.bump.items())
    help_ = f"{rule.why}\n\nMend: {rule.fix}\n\nBump owed: {bumps}."
    return {
        "id": rule.id,
        "name": "".join(word.capitalize() for word in rule.id.split("-")),
        "shortDescription": {"text": rule.id.replace("-", " ").capitalize()},
        "fullDescription": {"text": rule.why},
        "help": {"text": help_, "markdown": help_},
        "helpUri": f"{DOCS}/reference/rules.md#{rule.id}",
        "defaultConfiguration": {"level": _LEVEL[rule.severity]},
        "properties": {"tags": ["model-compatibility", *(wording.WHO[w].replace(" ", "-") for w in rule.who.split())]},
    }


def _invocation(reports: list[Report]) -> dict[str, Any]:
    """What could not be judged is no result but a failure of the tool to give one (3.20.21)."""
    notes = [
        {"level": "error", "message": {"text": f"could not judge {wording.sides(r)}: {rules.plain(r.unjudged)}"}}
        for r in reports
        if r.unjudged
    ]
    if not reports:
        notes = [{"level": "warning", "message": {"text": wording.summary([])}}]
    return {
        "executionSuccessful": not any(report.unjudged for report in reports),
        "exitCode": int(max((report.exit_code for report in reports), default=ExitCode.OK)),
        "exitCodeDescription": wording.summary(reports),
        "toolExecutionNotifications": notes,
    }


def _result(report: Report, found: Finding, used: list[str]) -> dict[str, Any]:
    result: dict[str, Any] = {
        "ruleId": found.rule,
        "ruleIndex": used.index(found.rule),
        "level": _LEVEL[found.severity],
        "message": {"text": _message(report, found)},
        "locations": [_location(report, found)],
        "partialFingerprints": {"gitmodel/v1": _fingerprint(report, found)},
        "properties": _properties(report, found),
    }
    return result


def _message(report: Report, found: Finding) -> str:
    """Ends its first sentence early: viewers show that one in lists (3.11.3)."""
    lines = [f"{report.model}: {found.message}.", f"{found.why} Who: {wording.who(found)}."]
    if values := wording.values(found):
        lines.insert(1, f"Was: {values[0]}; now: {values[1]}.")
    lines += [f"Seen: {found.witness}"] if found.witness else []
    return "\n".join(rules.plain(line) for line in [*lines, f"Mend: {found.fix}"])


def _location(report: Report, found: Finding) -> dict[str, Any]:
    logical = {"fullyQualifiedName": f"{report.model}.{found.at}", "kind": "member"}
    location: dict[str, Any] = {"logicalLocations": [logical]}
    place = found.place
    if place is not None:
        # An absolute path is of this machine alone; 3.4.4 wants it without a base.
        artifact = {"uri": quote(place.path)} | ({} if place.path.startswith("/") else {"uriBaseId": _ROOT})
        physical: dict[str, Any] = {"artifactLocation": artifact}
        if place.line is not None:
            physical["region"] = {"startLine": place.shown or 1}
        location["physicalLocation"] = physical
    return location


def _fingerprint(report: Report, found: Finding) -> str:
    """The finding's own, told apart by model: two models may break alike."""
    return hashlib.sha256(f"{report.model}\0{found.fingerprint}".encode()).hexdigest()[:32]


def _properties(report: Report, found: Finding) -> dict[str, Any]:
    return {
        "model": report.model,
        "old": report.old,
        "new": report.new,
        "bump": {profile: str(bump) for profile, bump in found.bump.items()},
        "fingerprint": found.fingerprint,
        "witness": found.witness or None,
        "snippet": found.snippet or None,
    }
