"""Rules are data: one YAML file each beside this reader. A rule says what a fact means for whom, and what bump it owes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cache
from importlib import resources
from typing import Any

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


@dataclass(frozen=True)
class Finding:
    """A rule applied to a change. ``curable`` breaks are paid for by a large enough bump; others never pass."""

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


@dataclass(frozen=True)
class Rule:
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
        message, fix = (str(text).format_map(words) for text in (chosen["message"], self.fix))
        if of := change.args.get("of"):  # one of several signatures or class lists
            message = f"{of}: {message}"
        return Finding(
            self.id, change.at, Severity(chosen["severity"]), chosen["bump"], message, self.why, fix,
            change.old, change.new, str(change.args.get("witness", "")), chosen["curable"], change.args,
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


def _bumps(value: Any) -> dict[str, Bump]:
    """One word stands for all profiles."""
    if isinstance(value, str):
        return dict.fromkeys(PROFILES, Bump.parse(value))
    return {profile: Bump.parse(value[profile]) for profile in PROFILES}
