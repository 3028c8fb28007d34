"""Golden cases as values: recorded inputs with the outputs they must give. Reading and writing them is formats/."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np


@dataclass(frozen=True, eq=False)
class GoldenCase:
    """One call. ``inputs`` and ``outputs`` map tensor names to arrays; ``generated`` cases have no outputs."""

    name: str
    inputs: Mapping[str, np.ndarray]
    outputs: Mapping[str, np.ndarray]
