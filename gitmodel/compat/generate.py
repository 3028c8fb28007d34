"""Cases drawn from a signature, for models that have none recorded: they can show a difference, not prove there is none."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from gitmodel.bundle.golden import GoldenCase
from gitmodel.bundle.signature import Signature, TensorSpec

if TYPE_CHECKING:
    import numpy as np

COUNT = 16
#: How many more are drawn when the model refuses some.
REDRAWS = 3
#: Sizes of the free dimensions, by turns: one row, several, and every symbol another size.
_SIZES = ((1, 0), (3, 0), (2, 1), (1, 0))


def cases(signature: Signature, seed: int = 0, count: int = COUNT * REDRAWS) -> Iterator[GoldenCase]:
    """The same for the same seed: zeros, ones, several scales, batch 1 and n. Check ``possible`` first."""
    import numpy as np

    random = np.random.default_rng(seed)
    for number in range(count):
        first, step = _SIZES[number % len(_SIZES)]
        sizes: dict[Any, int] = {}
        inputs = {s.name: _draw(s, number, first, step, sizes, random) for s in signature.inputs if not s.optional}
        yield GoldenCase(f"generated/{number}", inputs, {})


def possible(signature: Signature) -> bool:
    """Whether inputs can be drawn at all: dense tensors of types numpy has."""
    from gitmodel.formats.dtypes import is_native

    return all(s.kind == "tensor" and s.shape is not None and is_native(s.dtype) for s in signature.inputs)


def _draw(
    spec: TensorSpec, number: int, first: int, step: int, sizes: dict[Any, int], random: np.random.Generator
) -> np.ndarray:
    import numpy as np

    shape = tuple(d if isinstance(d, int) else sizes.setdefault(d, first + step * len(sizes)) for d in spec.shape or ())
    if spec.dtype == "string":
        return np.array([f"text {i}" for i in range(math.prod(shape))], dtype=object).reshape(shape)
    dtype = np.dtype(spec.dtype)
    if number == 0:
        return np.zeros(shape, dtype)
    if number == 1:
        return np.ones(shape, dtype)
    if dtype.kind == "b":
        return random.integers(0, 2, shape).astype(dtype)
    if dtype.kind in "iu":
        # Integer inputs are mostly indices (tokens, bytes): small ranges first, so that most are accepted.
        return random.integers(0, (2, 10, 100, 127)[number % 4], shape).astype(dtype)
    scale = (1.0, 0.1, 10.0, 100.0)[number % 4]
    drawn = random.uniform(0, scale, shape) if number % 3 else random.normal(0, scale, shape)
    return drawn.astype(dtype)
