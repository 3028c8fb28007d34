"""Consumers, ``consumers/*.yaml``: what a client feeds and reads, so that a break names whom it hits, or that it hits nobody."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from gitmodel.bundle import yamlio
from gitmodel.bundle.signature import Signature
from gitmodel.compat import rules
from gitmodel.compat.changes import Change
from gitmodel.compat.modes import BACK
from gitmodel.compat.rules import DEFAULT_PROFILE, PROFILES, Finding, Severity
from gitmodel.versions import Bump

FOLDER = "consumers"
_KEYS = {"name", "model", "inputs", "outputs", "profile", "labels"}
#: Facts about an input that hit those who do not feed it: whoever feeds it does not notice.
_LEFT_OUT = ("input-became-required", "input-default-changed", "input-became-constant")
#: Facts about an input that nobody can have fed yet.
_ALL = ("input-added-required", "input-added-with-default")
#: Facts about the order of inputs or outputs, or about what is new: whoever counts places notices.
_BY_PLACE = ("input-reordered", "output-reordered", "output-added")


class Consumer(Struct, frozen=True):
    """A client of one model: the ``inputs`` it feeds and the ``outputs`` it reads by name, all of them when None; how it
    calls; whether it looks at class ``labels``."""

    name: str
    model: str
    inputs: tuple[str, ...] | None = None
    outputs: tuple[str, ...] | None = None
    profile: str = DEFAULT_PROFILE
    labels: bool = True

    def to_dict(self) -> dict[str, Any]:
        out: dict[str, Any] = {"name": self.name, "model": self.model}
        out |= {side: list(names) for side in ("inputs", "outputs") if (names := getattr(self, side)) is not None}
        if self.profile != DEFAULT_PROFILE:
            out["profile"] = self.profile
        return out if self.labels else {**out, "labels": False}

    @classmethod
    def from_yaml(cls, data: bytes | str, where: str, model: str = "") -> Consumer:
        """``model`` is the one whose folder the file lies in. Raises InvalidYaml."""
        value = yamlio.load_mapping(data, where)
        yamlio.check_keys(value, _KEYS, where)
        for key, default in (("name", None), ("model", model), ("profile", DEFAULT_PROFILE)):
            value.setdefault(key, default)
            if not isinstance(value[key], str) or not value[key]:
                raise yamlio.InvalidYaml(f"{where} has no {key}", hint=f"write '{key}: ...'")
        if value["profile"] not in PROFILES:
            raise yamlio.InvalidYaml(
                f"{where}: unknown profile '{value['profile']}'", hint=f"use {', '.join(PROFILES)}"
            )
        if not isinstance(value.get("labels", True), bool):
            raise yamlio.InvalidYaml(f"{where}: labels must be true or false", hint="does it look at class names?")
        for side in ("inputs", "outputs"):
            if side in value:
                value[side] = _names(value[side], f"{where}: {side}")
        return cls(**value)

    def touches(self, finding: Finding) -> bool:
        """Whether the finding is about something this client uses; in doubt it is."""
        side, _, rest = finding.at.partition(".")
        if finding.rule in _BY_PLACE:
            return self.profile == "positional"
        if side == "labels":
            return self.labels
        used = {"inputs": self.inputs, "outputs": self.outputs}.get(side)
        if used is None or not rest or finding.rule in _ALL or "first" in finding.args:
            return True
        name = str(finding.args.get("name", rest))
        return name not in used if finding.rule in _LEFT_OUT else name in used

    def hit_by(self, finding: Finding) -> bool:
        """Whether the finding breaks this very client, by the way it calls."""
        return finding.bump[self.profile] is Bump.MAJOR and self.touches(finding)


class Listed(Struct, frozen=True):
    """Those who are listed for a model. ``complete`` is the card's promise that there are no others."""

    consumers: tuple[Consumer, ...] = ()
    complete: bool = False


def apply(findings: Sequence[Finding], listed: Listed, old: Signature | None, profile: str) -> list[Finding]:
    """The findings with whom they hit. A break that hits none of a complete list is a warning that owes a minor bump; one
    that hits somebody counts, whatever profile is asked for.

    A list that names what OLD does not have is wrong, so it spares nobody.
    """
    if not listed.consumers:
        return list(findings)
    wrong = list(_wrong(listed.consumers, old)) if old is not None else []
    complete = listed.complete and not wrong
    out = [_told(finding, listed.consumers, profile, complete=complete) for finding in findings]
    return out + [rules.judge(change) for change in wrong]


def _told(finding: Finding, consumers: Sequence[Consumer], profile: str, *, complete: bool) -> Finding:
    if finding.who == "H" or finding.direction == BACK or not finding.curable:
        return finding  # nobody's in particular
    hits = tuple(consumer.name for consumer in consumers if consumer.hit_by(finding))
    if hits:
        bump = {**finding.bump, profile: Bump.MAJOR}
        message = f"{finding.message}; it hits {_some(hits)}"
        return replace(finding, severity=Severity.ERROR, bump=bump, hits=hits, message=message)
    if not complete or finding.bump[profile] is not Bump.MAJOR:
        return finding
    bump = {name: min(owed, Bump.MINOR) for name, owed in finding.bump.items()}
    count = (
        f"the {len(consumers)} listed consumers"
        if len(consumers) > 1
        else f"the one listed consumer, {consumers[0].name}"
    )
    message = (
        f"{finding.message}; it hits none of {count}"
        if len(consumers) > 1
        else f"{finding.message}; it does not hit {count}"
    )
    return replace(finding, severity=Severity.WARNING, bump=bump, message=message, spared=True)


def _wrong(consumers: Iterable[Consumer], old: Signature) -> Iterable[Change]:
    """What the list says and OLD is not: a name it does not have, or an input it needs that nobody could leave out."""
    known = {"inputs": {spec.name for spec in old.inputs}, "outputs": {spec.name for spec in old.outputs}}
    needed = {spec.name for spec in old.inputs if not spec.optional}
    for consumer in consumers:
        for side, names in known.items():
            said = getattr(consumer, side)
            strange = sorted(set(said or ()) - names)
            missing = sorted(needed - set(said)) if side == "inputs" and said is not None else []
            if strange or missing:
                what = (
                    f"names '{strange[0]}', which is none of its {side}" if strange else f"does not feed '{missing[0]}'"
                )
                args = {"name": consumer.name, "what": what}
                yield Change("consumer-mismatch", FOLDER, consumer.to_dict(), sorted(names), args)


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:5])
    return f"{shown} and {len(names) - 5} more" if len(names) > 5 else shown


def _names(value: Any, where: str) -> tuple[str, ...]:
    if not isinstance(value, list) or not all(isinstance(name, str) and name for name in value):
        raise yamlio.InvalidYaml(f"{where} must be a list of names", hint="such as [x]; leave it out for all of them")
    return tuple(value)
