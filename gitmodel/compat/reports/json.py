"""The report as JSON, schema 1 (docs/reference/check-compat.schema.json)."""

from __future__ import annotations

import json
from typing import Any

from gitmodel.compat.rules import Finding
from gitmodel.compat.verdict import Report

SCHEMA = 1


def render(reports: list[Report], *, colour: bool = False) -> str:  # noqa: ARG001  # JSON has no colour
    body: dict[str, Any]
    body = document(reports[0]) if len(reports) == 1 else {"models": [document(report) for report in reports]}
    return json.dumps({"schema": SCHEMA, **body}, indent=2, allow_nan=False)


def document(report: Report) -> dict[str, Any]:
    return {
        "model": report.model,
        "old": report.old,
        "new": report.new,
        "verdict": str(report.verdict),
        "profile": report.profile,
        **({"mode": report.mode} if report.mode != "backward" else {}),
        "bump": {profile: str(bump) for profile, bump in report.bump.items()},
        "required_bump": str(report.required_bump),
        "declared_bump": None if report.declared is None else str(report.declared),
        "next_version": str(report.next_version) if report.next_version else None,
        "rollback_safe": report.rollback_safe,
        "unjudged": report.unjudged or None,
        "rules_run": report.rules_run,
        "cases_run": report.cases_run,
        "cases_generated": report.generated,
        "findings": [finding(f) for f in report.findings],
    }


def finding(found: Finding) -> dict[str, Any]:
    return {
        "rule": found.rule,
        "at": found.at,
        "severity": str(found.severity),
        "bump": {profile: str(bump) for profile, bump in found.bump.items()},
        "message": found.message,
        "why": found.why,
        "fix": found.fix,
        "old": found.old,
        "new": found.new,
        "witness": found.witness or None,
        "fingerprint": found.fingerprint,
        **({"direction": found.direction} if found.direction else {}),
        **({"allowed": found.allowed} if found.allowed else {}),
        **({"hits": list(found.hits)} if found.hits or found.spared else {}),
    }
