"""Golden cases as values: recorded inputs with the outputs they must give, and the slice of callers a group of them stands
for. Reading and writing them is formats/."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from gitmodel.bundle import yamlio

if TYPE_CHECKING:
    import numpy as np

#: The file in a group's folder that makes it a slice: ``golden/GROUP/slice.yaml``.
SLICE = "slice.yaml"


class Slice(Struct, frozen=True):
    """Some of the callers, such as ``country=DE``, with thresholds of their own; see card.Gates for what they mean.
    None leaves that one to the card."""

    name: str
    agreement: float | None = None
    distance: float | None = None

    def to_yaml(self) -> str:
        out: dict[str, Any] = {"slice": self.name, "agreement": self.agreement, "distance": self.distance}
        return yamlio.dump({key: value for key, value in out.items() if value is not None})

    @classmethod
    def from_yaml(cls, data: bytes | str, where: str) -> Slice:
        """Raises InvalidYaml."""
        value = yamlio.load_mapping(data, where)
        yamlio.check_keys(value, {"slice", "agreement", "distance"}, where)
        name = value.get("slice")
        if not isinstance(name, str) or not name.strip():
            raise yamlio.InvalidYaml(f"{where} names no slice", hint="write it as 'slice: country=DE'")
        agreement, distance = (
            yamlio.finite(value[key], f"{where}: {key}") if key in value else None for key in ("agreement", "distance")
        )
        if agreement is not None and not 0 <= agreement <= 1:
            raise yamlio.InvalidYaml(f"{where}: agreement is {agreement}", hint="it is a share between 0 and 1")
        if distance is not None and distance < 0:
            raise yamlio.InvalidYaml(f"{where}: distance is {distance}", hint="it is 0 or more")
        return cls(name, agreement, distance)


class GoldenCase(Struct, frozen=True, eq=False):
    """One call. ``inputs`` and ``outputs`` map tensor names to arrays; ``generated`` cases have no outputs."""

    name: str
    inputs: Mapping[str, np.ndarray]
    outputs: Mapping[str, np.ndarray]
    slice: Slice | None = None
