"""Whether outputs have the shapes their signature declares: ONNX Runtime returns what the graph gives, whatever was declared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from gitmodel.bundle.signature import Signature, TensorSpec

if TYPE_CHECKING:
    import numpy as np


class Lie(Struct, frozen=True):
    """An output of NEW, by OLD's name, that is ``declared`` (as its type reads) and came in another shape."""

    name: str
    declared: str
    got: tuple[int, ...]
    case: str


@dataclass
class Witness:
    """Watches one output on both sides. Whose OLD did not keep to its own declaration either have learnt to live with it."""

    name: str
    lie: Lie | None = None
    old_lied: bool = False

    @property
    def news(self) -> Lie | None:
        return None if self.old_lied else self.lie

    def watch(self, case: str, old: tuple[TensorSpec, Any, Sizes], new: tuple[TensorSpec, Any, Sizes]) -> None:
        self.old_lied |= not _keeps(*old)
        if self.lie is None and not _keeps(*new):
            self.lie = Lie(self.name, new[0].type, tuple(new[1].shape), case)


class Sizes(Struct, frozen=True):
    """What size each symbol of a signature has in one call, by its inputs; None where they disagree."""

    by_symbol: Mapping[str, int | None] = msgspec.field(default_factory=dict)

    @classmethod
    def of(cls, signature: Signature, inputs: Mapping[str, np.ndarray]) -> Sizes:
        found: dict[str, int | None] = {}
        for spec in signature.inputs:
            shape = getattr(inputs.get(spec.name), "shape", None)
            if spec.kind != "tensor" or spec.shape is None or shape is None or len(shape) != len(spec.shape):
                continue
            for dim, size in zip(spec.shape, shape, strict=True):
                if isinstance(dim, str):
                    found[dim] = size if found.get(dim, size) == size else None
        return cls(found)


def _keeps(spec: TensorSpec, value: Any, sizes: Sizes) -> bool:
    shape = getattr(value, "shape", None)
    if spec.kind != "tensor" or spec.shape is None or shape is None:
        return True
    if len(shape) != len(spec.shape):
        return False
    promised = (sizes.by_symbol.get(dim) if isinstance(dim, str) else dim for dim in spec.shape)
    return all(wanted is None or wanted == size for wanted, size in zip(promised, shape, strict=True))
