"""What ``fsck`` finds, one value per fact, and the report over all of them."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from msgspec import Struct
from msgspec.structs import asdict

from gitmodel.errors import ExitCode

#: What each kind means; those up to ``lock`` matter: a version cannot be had whole, or not from where it should be.
KINDS = {
    "missing": "an object a version needs is not there",
    "corrupt": "an object has other bytes than its name says, or cannot be read",
    "clash": "an object is what its name says, and other than weights.lock says",
    "listing": "DVC's listing of a version's files is missing or damaged",
    "pointer": "weights.dvc and weights.lock of a version name different files",
    "lock": "weights.lock of a version cannot be read",
    "workspace": "a file in a weights folder is not what weights.lock says",
    "absent": "a version is not wholly in this cache; it may be in the remote",
    "unreferenced": "an object that nothing in the whole history names",
    "left-over": "a file somebody began to write and never finished",
    "foreign": "a file among the objects that is none",
}
MATTERS = ("missing", "corrupt", "clash", "listing", "pointer", "lock")


class Finding(Struct, frozen=True):
    """``where`` is a place (the cache, a remote, a folder), ``objects`` what it is about there, ``size`` in bytes.
    ``versions`` suffer from it, in their ``files``. ``mended`` says how it was mended, ``moved`` where damaged bytes went."""

    kind: str
    where: str
    message: str
    objects: tuple[str, ...] = ()
    path: str = ""
    size: int = 0
    versions: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    mend: str = ""
    mended: str = ""
    moved: str = ""

    @property
    def matters(self) -> bool:
        return self.kind in MATTERS


class Read(Struct, frozen=True):
    """How much of a place was read afresh; ``size`` in bytes."""

    where: str
    objects: int
    size: int


class Report(Struct, frozen=True):
    """``incomplete`` is why not all could be looked at; ``partial``: Git has a part of the history only; ``versions`` is
    how many names of bundles there are; ``root`` the repository."""

    findings: tuple[Finding, ...]
    read: tuple[Read, ...]
    incomplete: str
    partial: bool
    versions: int
    root: Path

    @property
    def open(self) -> list[Finding]:
        """What matters and is not mended."""
        return [finding for finding in self.findings if finding.matters and not finding.mended]

    @property
    def exit_code(self) -> ExitCode:
        if self.incomplete:
            return ExitCode.INCOMPLETE
        return ExitCode.INCOMPATIBLE if self.open else ExitCode.OK

    def to_dict(self) -> dict[str, Any]:
        return {
            "schema": 1,
            "clean": not self.open and not self.incomplete,
            "incomplete": self.incomplete or None,
            "partial_history": self.partial,
            "versions": self.versions,
            "read": [asdict(item) for item in self.read],
            "findings": [asdict(finding) | {"matters": finding.matters} for finding in self.findings],
        }


def worst_first(findings: Iterable[Finding]) -> tuple[Finding, ...]:
    order = list(KINDS)
    return tuple(sorted(dict.fromkeys(findings), key=lambda f: (order.index(f.kind), f.where, f.path, f.objects)))
