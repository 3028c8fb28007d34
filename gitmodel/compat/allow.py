"""The allow-list, ``allow.yaml`` of a model: breaks somebody with a say has accepted, each with a reason and an end."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import date
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from gitmodel.bundle import yamlio
from gitmodel.compat import rules
from gitmodel.compat.changes import Change
from gitmodel.compat.rules import PROFILES, Finding, Severity
from gitmodel.versions import Bump, InvalidVersion, Version

FILE = "allow.yaml"
_KEYS = ("rule", "at", "fingerprint", "reason", "expires", "until")
_FINGERPRINT = re.compile(r"[0-9a-f]{16}")
#: What the list itself and the version are judged by cannot be allowed in the list.
_NEVER = ("allow-expired", "allow-unmatched", "allowlist-changed", "bump-too-small")


class Entry(Struct, frozen=True):
    """One break that is allowed: the finding's rule, place and fingerprint, and why. ``expires`` is the last day it
    counts, ``until`` the version at which it ends."""

    rule: str
    at: str
    fingerprint: str
    reason: str
    expires: date | None = None
    until: Version | None = None

    def to_dict(self) -> dict[str, str]:
        out = {"rule": self.rule, "at": self.at, "fingerprint": self.fingerprint, "reason": self.reason}
        if self.expires:
            out["expires"] = self.expires.isoformat()
        if self.until:
            out["until"] = str(self.until)
        return out

    @classmethod
    def from_dict(cls, value: Any, where: str) -> Entry:
        """Raises InvalidYaml."""
        if not isinstance(value, dict):
            raise yamlio.InvalidYaml(f"{where} must be a mapping", hint=f"with {', '.join(_KEYS)}")
        yamlio.check_keys(value, set(_KEYS), where)
        texts = {key: value.get(key) for key in _KEYS[:4]}
        for key, text in texts.items():
            if not isinstance(text, str) or not text.strip():
                raise yamlio.InvalidYaml(
                    f"{where} has no {key}", hint="'gitmodel check-compat -v' prints whole entries"
                )
        if not _FINGERPRINT.fullmatch(str(texts["fingerprint"])):
            raise yamlio.InvalidYaml(
                f"{where}: fingerprint is not 16 hexadecimal digits", hint="quote it, copy it whole"
            )
        return cls(
            **{key: str(text) for key, text in texts.items()},
            expires=_date(value.get("expires"), where),
            until=_version(value.get("until"), where),
        )

    def fits(self, finding: Finding) -> bool:
        return (finding.fingerprint, finding.rule, finding.at) == (self.fingerprint, self.rule, self.at)

    def ended(self, today: date, version: Version | None) -> str:
        """Why it counts no longer, on that day and for that version; '' when it counts."""
        if self.expires and today > self.expires:
            return f"it expired on {self.expires.isoformat()}"
        if self.until and version and version >= self.until:
            return f"it ended at {self.until}, and this is {version}"
        return ""


class AllowList(Struct, frozen=True):
    """The entries of one file, in its order."""

    entries: tuple[Entry, ...] = ()

    def __contains__(self, entry: Entry) -> bool:
        return entry in self.entries

    def to_yaml(self) -> str:
        return yamlio.dump([entry.to_dict() for entry in self.entries])

    @classmethod
    def from_yaml(cls, data: bytes | str, where: str) -> AllowList:
        """Raises InvalidYaml."""
        value = yamlio.load(data, where)
        if value is None:
            return cls()
        if not isinstance(value, list):
            raise yamlio.InvalidYaml(f"{where} must be a list of entries", hint="begin each with '- rule: ...'")
        entries = tuple(Entry.from_dict(item, f"{where}: entry {number}") for number, item in enumerate(value, 1))
        if len({entry.fingerprint for entry in entries}) != len(entries):
            raise yamlio.InvalidYaml(f"{where}: a fingerprint stands twice", hint="keep one entry")
        return cls(entries)


class Lists(Struct, frozen=True):
    """``counting`` is the list of the side that is trusted. An entry that the version under test ``keeps`` must still be
    good for something; one that the latest version had already, ``spent``, has had its release."""

    counting: AllowList = AllowList()
    kept: AllowList = AllowList()
    spent: AllowList = AllowList()


def apply(findings: Sequence[Finding], lists: Lists, today: date, version: Version | None) -> list[Finding]:
    """The findings with those that are allowed counting for nothing, and what is wrong with the list itself.

    ``version`` is what NEW is or will be, if that is known.
    """
    live = {e.fingerprint: e for e in lists.counting.entries if not e.ended(today, version)}
    met: set[str] = set()
    out = []
    for finding in findings:
        entry = live.get(finding.fingerprint)
        if entry is None or not entry.fits(finding) or finding.rule in _NEVER:
            out.append(finding)
        else:
            met.add(entry.fingerprint)
            out.append(_allowed(finding, entry))
    for entry in lists.counting.entries:
        args = {"name": entry.rule, "where": entry.at, "fingerprint": entry.fingerprint, "reason": entry.reason}
        if entry not in lists.kept:
            continue  # the change takes it out: that is the mend
        if why := entry.ended(today, version):
            out.append(rules.judge(Change("allow-expired", FILE, entry.to_dict(), None, {**args, "error": why})))
        elif entry.fingerprint not in met:
            stale = entry in lists.spent
            out.append(rules.judge(Change("allow-unmatched", FILE, entry.to_dict(), None, {**args, "stale": stale})))
    return out


def _allowed(finding: Finding, entry: Entry) -> Finding:
    """The finding as it stays visible: it owes nothing and stops nothing."""
    until = " ".join(
        ([f"until {entry.until}"] if entry.until else []) + ([f"to {entry.expires}"] if entry.expires else [])
    )
    why = f"{entry.reason}, {until}" if until else entry.reason
    return replace(
        finding, severity=Severity.INFO, bump=dict.fromkeys(PROFILES, Bump.NONE), curable=True, allowed=entry.reason,
        message=f"allowed ({why}): {finding.message}",
    )  # fmt: skip


def to_paste(findings: Sequence[Finding]) -> str:
    """The YAML that would allow what counts of these findings; a person writes the reasons. '' when there is nothing."""
    entries = [Entry(f.rule, f.at, f.fingerprint, "WHY") for f in findings if _counts(f)]
    return AllowList(tuple(entries)).to_yaml().rstrip() if entries else ""


def _counts(finding: Finding) -> bool:
    counts = finding.severity is Severity.ERROR or Bump.MAJOR in finding.bump.values()
    return counts and finding.rule not in _NEVER


def _date(value: Any, where: str) -> date | None:
    if value is None:
        return None
    try:
        return date.fromisoformat(value)
    except (TypeError, ValueError):
        raise yamlio.InvalidYaml(f"{where}: expires is no day ({value!r:.40})", hint="write 2026-12-31") from None


def _version(value: Any, where: str) -> Version | None:
    if value is None:
        return None
    try:
        return Version.parse(value if isinstance(value, str) else "")
    except InvalidVersion:
        raise yamlio.InvalidYaml(f"{where}: until is no version ({value!r:.40})", hint="write v3.0.0") from None
