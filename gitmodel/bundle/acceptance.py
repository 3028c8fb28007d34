"""Why recorded outputs are what they are: who accepted them and for what reason, ``golden/GROUP/accepted.yaml``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from gitmodel.bundle import yamlio

#: The file in a group's folder.
ACCEPTED = "accepted.yaml"
_KEYS = {"cases", "reason", "by", "weights"}


class Acceptance(Struct, frozen=True):
    """``cases`` are numbers within the group; ``by`` is Git's author, ``weights`` the digest of the weights whose outputs
    they are. When is Git's to say."""

    cases: tuple[int, ...]
    reason: str
    by: str
    weights: str

    def to_dict(self) -> dict[str, Any]:
        return {"cases": list(self.cases), "reason": self.reason, "by": self.by, "weights": self.weights}

    @classmethod
    def from_dict(cls, value: Any, where: str) -> Acceptance:
        """Raises InvalidYaml."""
        if not isinstance(value, dict):
            raise yamlio.InvalidYaml(f"{where} must be a mapping", hint="restore it from Git")
        yamlio.check_keys(value, _KEYS, where)
        cases = value.get("cases")
        numbers = isinstance(cases, list) and all(isinstance(n, int) and not isinstance(n, bool) for n in cases)
        if not numbers or not all(isinstance(value.get(key), str) for key in _KEYS - {"cases"}):
            raise yamlio.InvalidYaml(f"{where} lacks cases, reason, by or weights", hint="restore it from Git")
        return cls(tuple(value["cases"]), value["reason"], value["by"], value["weights"])


def read(data: bytes | str, where: str) -> tuple[Acceptance, ...]:
    """Raises InvalidYaml."""
    entries = yamlio.load(data, where) or []
    if not isinstance(entries, list):
        raise yamlio.InvalidYaml(f"{where} must be a list", hint="restore it from Git")
    return tuple(Acceptance.from_dict(entry, where) for entry in entries)


def dump(entries: Iterable[Acceptance]) -> str:
    """Equal values give equal bytes."""
    return yamlio.dump([entry.to_dict() for entry in entries])


def add(entries: Sequence[Acceptance], new: Acceptance) -> tuple[Acceptance, ...]:
    """With the newest word on each case alone: what was said of it before is in Git's history. Cases accepted for one
    reason stand in one entry."""
    same = [e for e in entries if (e.reason, e.by, e.weights) == (new.reason, new.by, new.weights)]
    numbers = sorted({n for entry in (*same, new) for n in entry.cases})
    left = (replace(e, cases=tuple(n for n in e.cases if n not in new.cases)) for e in entries if e not in same)
    return (*(entry for entry in left if entry.cases), replace(new, cases=tuple(numbers)))


def without(entries: Sequence[Acceptance], case: int, weights: str) -> tuple[Acceptance, ...]:
    """Without what was said of a case's outputs of these weights: they were not taken after all."""
    left = (replace(e, cases=tuple(n for n in e.cases if n != case or e.weights != weights)) for e in entries)
    return tuple(entry for entry in left if entry.cases)
