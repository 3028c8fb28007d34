"""The model card, ``model.yaml``: what the model is and by which measure its changes are judged."""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from typing import Any

from msgspec import Struct, field
from msgspec.structs import replace

from gitmodel.bundle import limits, meaning, yamlio
from gitmodel.bundle.limits import Budgets
from gitmodel.bundle.meaning import Meaning
from gitmodel.bundle.signature import DEFAULT

SCHEMA_VERSION = 1
#: Relative and absolute tolerance by dtype; everything not named here must be exactly equal.
DEFAULT_TOLERANCES: dict[str, tuple[float, float]] = {
    "float32": (1e-3, 1e-5),
    "float64": (1e-7, 1e-7),
    "float16": (1e-2, 1e-3),
    "bfloat16": (1.6e-2, 1e-2),
}
DEFAULT_AGREEMENT = 0.9
DEFAULT_DISTANCE = 0.3


@dataclasses.dataclass(frozen=True)
class Gates:
    """Thresholds of the golden replay.

    ``tolerance`` maps an output's name (or ``"*"``) to (rtol, atol). ``agreement`` is the share of rows, 0 to 1,
    whose decision (top-1 class, or exact value of a discrete output) must stay for a drift to count as minor;
    ``distance`` how far its values may move on average, as a share of OLD's own. ``agreement_set`` says that the card
    asks for it, be it as much as the default.
    """

    tolerance: Mapping[str, tuple[float, float]] = dataclasses.field(default_factory=dict)
    agreement: float = DEFAULT_AGREEMENT
    distance: float = DEFAULT_DISTANCE
    agreement_set: bool = dataclasses.field(default=False, compare=False)

    def tolerance_for(self, output: str, dtype: str) -> tuple[float, float]:
        """(rtol, atol) for one output: the card's for its name, the card's for ``*`` (floats only), its dtype's default."""
        if output in self.tolerance:
            return self.tolerance[output]
        # Numbers that stand for a choice (classes, flags, words) are exact unless their output is named.
        default = DEFAULT_TOLERANCES.get(dtype)
        return (0.0, 0.0) if default is None else self.tolerance.get("*", default)

    def over(self, new: Gates, known: Collection[str]) -> Gates:
        """These gates, with what ``new`` says of outputs that were not ``known`` when these were written."""
        added = {name: pair for name, pair in new.tolerance.items() if name not in known and name != "*"}
        return dataclasses.replace(self, tolerance={**added, **self.tolerance})

    def to_dict(self) -> dict[str, Any]:
        out: dict[str, Any] = {}
        if self.tolerance:
            out["tolerance"] = {name: {"rtol": r, "atol": a} for name, (r, a) in self.tolerance.items()}
        if self.agreement_set or self.agreement != DEFAULT_AGREEMENT:
            out["agreement"] = self.agreement
        if self.distance != DEFAULT_DISTANCE:
            out["distance"] = self.distance
        return out

    @classmethod
    def from_dict(cls, value: Any, where: str) -> Gates:
        """Raises InvalidYaml."""
        if not isinstance(value, dict):
            raise yamlio.InvalidYaml(f"{where} must be a mapping", hint="such as {agreement: 0.95}")
        yamlio.check_keys(value, {"tolerance", "agreement", "distance"}, where)
        tolerance: dict[str, tuple[float, float]] = {}
        named = value.get("tolerance", {})
        if not isinstance(named, dict):
            raise yamlio.InvalidYaml(
                f"{where}.tolerance must be a mapping", hint='such as {"*": {rtol: 1e-3, atol: 1e-5}}'
            )
        for name, pair in named.items():
            here = f"{where}.tolerance.{name}"
            if not isinstance(pair, dict):
                raise yamlio.InvalidYaml(f"{here} must be a mapping", hint="such as {rtol: 1e-3, atol: 1e-5}")
            yamlio.check_keys(pair, {"rtol", "atol"}, here)
            rtol, atol = (yamlio.finite(pair.get(key, 0.0), f"{here}.{key}") for key in ("rtol", "atol"))
            if rtol < 0 or atol < 0:
                raise yamlio.InvalidYaml(f"{here} is negative", hint="a tolerance is 0 or more")
            tolerance[str(name)] = (rtol, atol)
        agreement = yamlio.finite(value.get("agreement", DEFAULT_AGREEMENT), f"{where}.agreement")
        if not 0 <= agreement <= 1:
            raise yamlio.InvalidYaml(f"{where}.agreement is {agreement}", hint="it is a share between 0 and 1")
        distance = yamlio.finite(value.get("distance", DEFAULT_DISTANCE), f"{where}.distance")
        if distance < 0:
            raise yamlio.InvalidYaml(f"{where}.distance is {distance}", hint="it is 0 or more")
        return cls(tolerance, agreement, distance, "agreement" in value)


class Group(Struct, frozen=True):
    """A named signature over the model's own graph: some of its inputs and outputs; all of them where nothing is named."""

    inputs: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        sides = {"inputs": list(self.inputs), "outputs": list(self.outputs)}
        return {side: names for side, names in sides.items() if names}

    @classmethod
    def from_dict(cls, value: Any, where: str) -> Group:
        """Raises InvalidYaml."""
        hint = "such as {outputs: [embedding]}"
        if not isinstance(value, dict):
            raise yamlio.InvalidYaml(f"{where} must be a mapping", hint=hint)
        yamlio.check_keys(value, {"inputs", "outputs"}, where)
        sides = []
        for side in ("inputs", "outputs"):
            names = value.get(side, [])
            if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
                raise yamlio.InvalidYaml(f"{where}.{side} must be a list of names", hint=hint)
            if len(set(names)) != len(names):
                raise yamlio.InvalidYaml(f"{where}.{side} names one twice", hint=hint)
            sides.append(tuple(names))
        return cls(sides[0], sides[1])


_TEXT_KEYS = ("name", "description", "format", "framework", "licence", "signature")
_OWN_KEYS = ("schema_version", "gates", "signatures", "consumers_complete", "targets", "domains", "budgets")
#: All that ``model.yaml`` may have.
KEYS = frozenset({*_OWN_KEYS, *meaning.KEYS, *_TEXT_KEYS})


class Card(Struct, frozen=True):
    """``model.yaml``. ``format`` is the kind of file it was saved from; ``signature`` the one clients get by default;
    ``signatures`` are further ones over the same graph; ``meaning`` is what no graph can say. ``consumers_complete``
    promises that whoever uses the model is listed in ``consumers/``. ``targets`` are the oldest runtimes that must still load
    it, ``domains`` those of custom operators it may use, ``budgets`` what a new version may cost."""

    name: str
    description: str = ""
    format: str = ""
    framework: str = ""
    licence: str = ""
    signature: str = DEFAULT
    gates: Gates = field(default_factory=Gates)
    signatures: Mapping[str, Group] = field(default_factory=dict)
    consumers_complete: bool = False
    meaning: Meaning = field(default_factory=Meaning)
    targets: tuple[str, ...] = ()
    domains: tuple[str, ...] = ()
    budgets: Budgets = field(default_factory=Budgets)

    def with_source(self, source_format: str, framework: str) -> Card:
        """The card after saving from another kind of file; what a person wrote stays."""
        return replace(self, format=source_format, framework=framework or self.framework)

    def described(self, text: str) -> Card:
        return replace(self, description=text)

    def to_yaml(self) -> str:
        out: dict[str, Any] = {"schema_version": SCHEMA_VERSION}
        out |= {key: getattr(self, key) for key in _TEXT_KEYS if getattr(self, key)}
        if gates := self.gates.to_dict():
            out["gates"] = gates
        if self.signatures:
            out["signatures"] = {name: group.to_dict() for name, group in self.signatures.items()}
        if self.consumers_complete:
            out["consumers_complete"] = True
        out |= {key: list(names) for key in ("targets", "domains") if (names := getattr(self, key))}
        if budgets := self.budgets.to_dict():
            out["budgets"] = budgets
        return yamlio.dump(out | self.meaning.to_dict())

    @classmethod
    def from_yaml(cls, data: bytes | str, where: str) -> Card:
        """Raises InvalidYaml."""
        value = yamlio.load_mapping(data, where)
        yamlio.check_keys(value, KEYS, where)
        if value.get("schema_version") != SCHEMA_VERSION:
            raise yamlio.InvalidYaml(
                f"{where} has schema_version {value.get('schema_version')!r}",
                hint=f"this gitmodel reads {SCHEMA_VERSION}",
            )
        texts: dict[str, str] = {}
        for key in _TEXT_KEYS:
            text = value.get(key, DEFAULT if key == "signature" else "")
            if not isinstance(text, str):
                raise yamlio.InvalidYaml(f"{where}: {key} must be text, not {text!r}", hint="quote it")
            texts[key] = text
        groups = value.get("signatures", {})
        if not isinstance(groups, dict):
            raise yamlio.InvalidYaml(f"{where}: signatures must be a mapping", hint="such as {embed: {outputs: [e]}}")
        signatures = {str(name): Group.from_dict(body, f"{where}: signatures.{name}") for name, body in groups.items()}
        complete = value.get("consumers_complete", False)
        if not isinstance(complete, bool):
            raise yamlio.InvalidYaml(
                f"{where}: consumers_complete must be true or false", hint="are all of them listed?"
            )
        return cls(
            **texts,
            gates=Gates.from_dict(value.get("gates", {}), f"{where}: gates"),
            signatures=signatures,
            consumers_complete=complete,
            meaning=Meaning.from_dict(value, where),
            targets=limits.targets(value.get("targets", []), f"{where}: targets"),
            domains=limits.names(value.get("domains", []), f"{where}: domains"),
            budgets=Budgets.from_dict(value.get("budgets", {}), f"{where}: budgets"),
        )
