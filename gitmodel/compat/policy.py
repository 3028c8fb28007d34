"""By which terms a change is judged: all of them OLD's, so that a change cannot move its own goalposts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from typing import Any

from msgspec import Struct, field
from msgspec.structs import replace

from gitmodel.bundle import meaning
from gitmodel.bundle.signature import Signature
from gitmodel.compat import allow, consumers, modes, rules
from gitmodel.compat.changes import Change
from gitmodel.compat.consumers import Consumer, Listed
from gitmodel.compat.modes import Mode
from gitmodel.compat.rules import Finding
from gitmodel.compat.verdict import Report, owed, worst_first
from gitmodel.versions import Bump, Version

#: Keys of the card that say what a model is, or whose change a rule of its own tells of. Any other is policy: a new key
#: is until somebody says that it is not.
_NOT_POLICY = {
    "schema_version", "name", "description", "format", "framework", "licence", "signature", "signatures", "gates",
    *meaning.KEYS,
}  # fmt: skip


class Policy(Struct, frozen=True):
    """What OLD says about how NEW is judged, and what NEW would have liked. ``version`` is NEW's own, or else the latest
    there is; ``back`` are the changes from NEW to OLD, needed in mode ``full`` alone."""

    today: date
    lists: allow.Lists = field(default_factory=allow.Lists)
    listed: Listed = field(default_factory=Listed)
    signature: Signature | None = None
    changes: tuple[Change, ...] = ()
    mode: Mode = Mode.BACKWARD
    back: tuple[Change, ...] = ()
    version: Version | None = None


def settle(report: Report, policy: Policy) -> Report:
    """The report by these terms: rollback, consumers and the allow-list accounted for, in this order."""
    found = [finding for finding in report.findings if finding.rule != "bump-too-small"]
    if policy.mode is Mode.FULL:
        found = modes.with_rollback(found, policy.back, report.old)
    found += map(rules.judge, policy.changes)
    found = consumers.apply(found, policy.listed, policy.signature, report.profile)
    settled = allow.apply(found, policy.lists, policy.today, policy.version)
    if policy.version is None or report.declared is None:
        # What is allowed decides which version comes next, and that may be where an entry ends: then it is not allowed.
        while ahead := _ahead(report, settled, policy):
            policy = replace(policy, version=ahead)
            settled = allow.apply(found, policy.lists, policy.today, ahead)
    return _with_version(replace(report, mode=str(policy.mode)), settled)


def _ahead(report: Report, settled: Sequence[Finding], policy: Policy) -> Version | None:
    """The version these findings lead to, when it is beyond the one they were allowed for."""
    base = report.base
    if base is None or not policy.lists.counting.entries:
        return None
    version = base.bumped(max(owed(settled)[report.profile], Bump.PATCH))
    return version if policy.version is None or version > policy.version else None


def _with_version(report: Report, findings: Sequence[Finding]) -> Report:
    """The report with other findings, and with what that means for the bump it declares."""
    bump, found = owed(findings), list(findings)
    required = bump[report.profile]
    if report.declared is not None and report.declared < required and not report.unjudged:
        args = {"declared": report.declared, "required": required, "version": report.new, "base": report.old}
        found.append(rules.judge(Change("bump-too-small", "version", None, None, args)))
    return replace(report, findings=worst_first(found), bump=bump)


def card_changes(old: Mapping[str, Any], new: Mapping[str, Any]) -> Iterator[Change]:
    """One fact per key of the card that is policy and differs; the cards as their YAML has them."""
    for key in sorted({*old, *new} - _NOT_POLICY):
        if old.get(key) != new.get(key):
            yield Change("policy-changed", "model.yaml", old.get(key), new.get(key), {"name": key})


def list_changes(old: allow.AllowList, new: allow.AllowList, *, released: bool = False) -> Iterator[Change]:
    """That the allow-list differs; the entries that came do not count yet, except where NEW is being released."""
    if old == new:
        return
    come = [entry for entry in new.entries if entry not in old]
    gone = [entry for entry in old.entries if entry not in new]
    what = [f"{len(come)} added"] * bool(come) + [f"{len(gone)} removed"] * bool(gone) or ["other order"]
    before, after = ([entry.to_dict() for entry in side.entries] for side in (old, new))
    yield Change("allowlist-changed", allow.FILE, before, after, {"what": ", ".join(what), "released": released})


def consumer_changes(old: Sequence[Consumer], new: Sequence[Consumer]) -> Iterator[Change]:
    """That the list of consumers differs."""
    before, after = ([consumer.to_dict() for consumer in side] for side in (old, new))
    if before != after:
        come = [c.name for c in new if c not in old]
        gone = [c.name for c in old if c not in new]
        what = ", ".join([f"+{name}" for name in come] + [f"-{name}" for name in gone][:8])
        yield Change("consumers-changed", consumers.FOLDER, before, after, {"what": what})
