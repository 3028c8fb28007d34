"""What the card asks of every version beyond its answers: runtimes that must load it, and what it may cost."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from gitmodel.bundle import yamlio

_TARGET = re.compile(r"onnxruntime [0-9]{1,3}\.[0-9]{1,3}")


class Budgets(Struct, frozen=True):
    """At most how many times OLD's latency, peak memory, time to load and size NEW may have; None where nothing is asked.

    Ratios, because seconds and bytes of a machine say little about another one.
    """

    latency: float | None = None
    memory: float | None = None
    load_time: float | None = None
    size: float | None = None

    def to_dict(self) -> dict[str, float]:
        return {name: value for name in self.__struct_fields__ if (value := getattr(self, name)) is not None}

    @classmethod
    def from_dict(cls, value: Any, where: str) -> Budgets:
        """Raises InvalidYaml."""
        if not isinstance(value, dict):
            raise yamlio.InvalidYaml(f"{where} must be a mapping", hint="such as {latency: 1.2, size: 1.1}")
        yamlio.check_keys(value, set(cls.__struct_fields__), where)
        found: Mapping[str, float] = {key: yamlio.finite(ratio, f"{where}.{key}") for key, ratio in value.items()}
        for key, ratio in found.items():
            if ratio <= 0:
                raise yamlio.InvalidYaml(
                    f"{where}.{key} is {ratio}", hint="it is how many times OLD's NEW may have, such as 1.2"
                )
        return cls(**found)


def names(value: Any, where: str) -> tuple[str, ...]:
    """A list of different texts. Raises InvalidYaml."""
    if not isinstance(value, list) or not all(isinstance(name, str) and name for name in value):
        raise yamlio.InvalidYaml(f"{where} must be a list of names", hint="such as [com.microsoft]")
    if len(set(value)) != len(value):
        raise yamlio.InvalidYaml(f"{where} names one twice", hint="name each once")
    return tuple(value)


def targets(value: Any, where: str) -> tuple[str, ...]:
    """Runtimes by release, ``onnxruntime 1.16``. Raises InvalidYaml."""
    found = names(value, where)
    for name in found:
        if not _TARGET.fullmatch(name):
            raise yamlio.InvalidYaml(f"{where} has {name!r}", hint="write it as 'onnxruntime 1.16'")
    return found
