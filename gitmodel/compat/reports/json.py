"""The report as JSON, schema 1 (docs/reference/check-compat.schema.json)."""

from __future__ import annotations

import json
import math
from typing import Any

from gitmodel.compat.drift import OutputDrift
from gitmodel.compat.reports import wording
from gitmodel.compat.rules import Finding
from gitmodel.compat.verdict import Report

SCHEMA = 1
#: How many cases of each output are told, the worst first.
CASES = 5


def render(reports: list[Report], *, colour: bool = False) -> str:  # noqa: ARG001  # JSON has no colour
    body = document(reports[0]) if len(reports) == 1 else _several(reports)
    return json.dumps({"schema": SCHEMA, **body}, indent=2, allow_nan=False)


def _several(reports: list[Report]) -> dict[str, Any]:
    """No model, or several: the verdict over all of them first, so that an empty list is not taken for a clean one."""
    return {
        "verdict": str(wording.worst(reports)) if reports else "nothing-compared",
        "compared": len(reports),
        "summary": wording.summary(reports),
        "models": [document(report) for report in reports],
    }


def document(report: Report) -> dict[str, Any]:
    return {
        "model": report.model,
        "old": report.old,
        "new": report.new,
        "verdict": str(report.verdict),
        "profile": report.profile,
        "mode": report.mode,
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
        "outputs": [output(drift) for drift in report.drifts],
    }


def finding(found: Finding) -> dict[str, Any]:
    return {
        "rule": found.rule,
        "at": found.at,
        "place": place(found),
        "severity": str(found.severity),
        "bump": {profile: str(bump) for profile, bump in found.bump.items()},
        "message": found.message,
        "who": wording.who(found),
        "why": found.why,
        "fix": found.fix,
        "old": found.old,
        "new": found.new,
        "witness": found.witness or None,
        "snippet": found.snippet or None,
        "fingerprint": found.fingerprint,
        "direction": found.direction or None,
        "allowed": found.allowed or None,
        "hits": list(found.hits) if found.hits or found.spared else None,
    }


def place(found: Finding) -> dict[str, Any] | None:
    if found.place is None:
        return None
    return {"path": found.place.path, "line": found.place.line, "side": found.place.side}


def output(drift: OutputDrift) -> dict[str, Any]:
    """One output over all cases. Distances that are not finite are null: the values cannot be held side by side."""
    cases = sorted(drift.by_case, key=lambda case: -case.max_abs)[:CASES]
    return {
        "name": drift.name,
        "equal": drift.equal,
        "within": drift.within,
        "max_abs": _finite(drift.max_abs),
        "worst": drift.worst or None,
        "at": list(drift.at),
        "max_rel": _finite(drift.max_rel),
        "ulp_p99": _finite(drift.ulp_p99),
        "ulp_max": _finite(drift.ulp_max),
        "cosine": _finite(drift.cosine),
        "mismatched": _finite(drift.mismatched),
        "agreement": _finite(drift.agreement),
        "distance": _finite(drift.distance),
        "flipped": drift.flipped,
        "flips": [{"case": f.case, "row": f.row, "old": f.old, "new": f.new} for f in drift.flips],
        "kl": _finite(drift.kl),
        "js": _finite(drift.js),
        "smallest": pair(drift.smallest),
        "tolerance": pair(drift.tolerance),
        "floor": _finite(drift.floor),
        "nan": drift.nan,
        "inf": drift.inf,
        "worst_cases": [
            {"case": c.case, "row": c.row, "max_abs": _finite(c.max_abs), "within": c.within} for c in cases
        ],
    }


def pair(tolerance: tuple[float, float] | None) -> dict[str, float | None] | None:
    return None if tolerance is None else {"rtol": _finite(tolerance[0]), "atol": _finite(tolerance[1])}


def _finite(number: float | None) -> float | None:
    return number if number is not None and math.isfinite(number) else None
