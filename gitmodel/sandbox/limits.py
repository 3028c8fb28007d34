"""How much a child may take, and what it may see."""

from __future__ import annotations

from typing import Any

from msgspec import Struct
from msgspec.structs import asdict, replace

SECONDS = 10.0
MEMORY = 4 << 30
#: More of each for a large model: a second per this many bytes, and this many times the bytes.
_BYTES_PER_SECOND = 10_000_000
_TIMES = 4
_SHARE = 4
#: Where a machine is shared, ten seconds of work may take a minute.
_PATIENCE = 6


class Limits(Struct, frozen=True):
    """``seconds`` of processor time for each request, ``memory`` bytes of address space, ``files`` open at once,
    ``file_bytes`` for each file it writes, which it may below ``writable`` alone; it reads below ``readable``."""

    seconds: float = SECONDS
    memory: int = MEMORY
    files: int = 256
    file_bytes: int = 0
    readable: tuple[str, ...] = ()
    writable: tuple[str, ...] = ()

    @property
    def patience(self) -> float:
        """Seconds by the clock after which a request is given up."""
        return self.seconds * _PATIENCE

    @property
    def answer(self) -> int:
        """Bytes of arrays that one answer may have: whoever asked has to hold it, and several others."""
        return self.memory // _SHARE

    def scaled(self, size: int) -> Limits:
        """The limits for a model of ``size`` bytes."""
        return replace(self, seconds=self.seconds + size / _BYTES_PER_SECOND, memory=self.memory + _TIMES * size)

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, value: dict[str, Any]) -> Limits:
        return cls(**{**value, "readable": tuple(value["readable"]), "writable": tuple(value["writable"])})
