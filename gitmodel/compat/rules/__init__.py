"""Rules are data: one YAML file each beside this reader. A rule says what a fact means for whom, and what bump it owes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from enum import StrEnum
from functools import cache
from importlib import resources
from typing import Any

from msgspec import Struct, field

from gitmodel.bundle import yamlio
from gitmodel.compat.changes import Change
from gitmodel.versions import Bump

PROFILES = ("positional", "named", "json")
DEFAULT_PROFILE = "named"
_KEYS = {"id", "who", "severity", "bump", "message", "why", "fix", "variants", "curable", "mirror"}


class Severity(StrEnum):
    """How loud a finding is; only errors make a change incompatible."""

    ERROR = "error"
    WARNING = "warning"
    INFO = "info"


class Place(Struct, frozen=True):
    """Where in the committed files a finding lies; ``compat.places`` finds it.

    ``path`` is relative to the repository. ``line`` counts from 1 and is None in a file that has no lines (a bare model).
    ``side`` is ``old`` where only OLD's file has that line; ``nearest`` is then the line of NEW's file closest to it.
    """

    path: str
    line: int | None = None
    side: str = "new"
    nearest: int | None = None

    @property
    def shown(self) -> int | None:
        """The line to point at in NEW's file."""
        return self.line if self.side == "new" else self.nearest

    def __str__(self) -> str:
        line = "" if self.line is None else f":{self.line}"
        return f"{self.path}{line}{' of OLD' if self.side == 'old' else ''}"


class Finding(Struct, frozen=True):
    """A rule applied to a change. ``curable`` breaks are paid for by a large enough bump; others never pass.

    ``direction`` is given in mode ``full`` (see ``modes``), ``allowed`` is the reason the allow-list has, ``hits`` are the
    consumers it breaks, ``spared`` says that it breaks none of a complete list.
    """

    rule: str
    at: str
    severity: Severity
    bump: Mapping[str, Bump]
    message: str
    why: str
    fix: str
    old: Any = None
    new: Any = None
    witness: str = ""
    curable: bool = True
    args: Mapping[str, Any] = field(default_factory=dict)
    who: str = ""
    direction: str = ""
    allowed: str = ""
    hits: tuple[str, ...] = ()
    spared: bool = False
    place: Place | None = None

    @property
    def snippet(self) -> str:
        """A few lines of Python that show the break; empty when nothing was run."""
        return str(self.args.get("snippet", ""))

    @property
    def fingerprint(self) -> str:
        """Names this very break whatever its message says, on any machine: 16 hex digits over rule, place, old and new."""
        named = json.dumps([self.rule, self.at, self.old, self.new])
        return hashlib.sha256(named.encode()).hexdigest()[:16]


class Rule(Struct, frozen=True):
    """See ``docs/reference/rules.md``. ``who``: C callers, O output consumers, R runtimes, F rollback, B behaviour, H hygiene."""

    id: str
    who: str
    severity: Severity
    bump: Mapping[str, Bump]
    message: str
    why: str
    fix: str
    curable: bool = True
    mirror: str = ""
    variants: tuple[Mapping[str, Any], ...] = ()

    @classmethod
    def from_yaml(cls, data: bytes, where: str) -> Rule:
        value = yamlio.load_mapping(data, where)
        yamlio.check_keys(value, _KEYS, where)
        value |= {"severity": Severity(value["severity"]), "bump": _bumps(value["bump"])}
        value["variants"] = tuple(
            {**v, **({"bump": _bumps(v["bump"])} if "bump" in v else {})} for v in value.get("variants", ())
        )
        return cls(**value)

    def apply(self, change: Change) -> Finding:
        """The finding this rule makes of a change of its kind."""
        names = ("severity", "bump", "message", "curable")
        chosen: dict[str, Any] = {name: getattr(self, name) for name in names}
        for variant in self.variants:
            if all(change.args.get(key) == wanted for key, wanted in variant["when"].items()):
                chosen |= {key: value for key, value in variant.items() if key != "when"}
                break
        words = {"old": change.old, "new": change.new, "at": change.at, **change.args}
        message, fix = (plain(str(text).format_map(words)) for text in (chosen["message"], self.fix))
        if of := change.args.get("of"):  # one of several signatures or class lists
            message = f"{plain(of)}: {message}"
        return Finding(
            self.id, change.at, Severity(chosen["severity"]), chosen["bump"], message, self.why, fix,
            change.old, change.new, plain(change.args.get("witness", "")), chosen["curable"], change.args, self.who,
        )  # fmt: skip


@cache
def names() -> tuple[str, ...]:
    """The ids of all rules."""
    files = resources.files(__name__).iterdir()
    return tuple(sorted(f.name.removesuffix(".yaml") for f in files if f.name.endswith(".yaml")))


@cache
def load(rule_id: str) -> Rule:
    """One rule, read when first needed: most checks meet few of them."""
    data = resources.files(__name__).joinpath(f"{rule_id}.yaml").read_bytes()
    return Rule.from_yaml(data, f"{rule_id}.yaml")


def judge(change: Change) -> Finding:
    """The finding of the rule that is named like the change."""
    return load(change.kind).apply(change)


def plain(text: object) -> str:
    """One line of characters that only show: whoever sends a model chooses the names in it, and they must not steer a terminal
    or the log of a CI."""
    shown = str(text)
    return shown if shown.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in shown)


def _bumps(value: Any) -> dict[str, Bump]:
    """One word stands for all profiles."""
    if isinstance(value, str):
        return dict.fromkeys(PROFILES, Bump.parse(value))
    return {profile: Bump.parse(value[profile]) for profile in PROFILES}
