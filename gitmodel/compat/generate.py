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
#: The same for the cases at the edges: no row at all, many of everything, much of everything but the first.
_EDGES = {"batch-0": (0, 2), "long": (33, 0), "wide": (1, 33), "smallest": (1, 0), "largest": (1, 0)}
#: What no model should be asked to make room for.
_MOST = 1 << 20


def cases(signature: Signature, seed: int = 0, count: int = COUNT * REDRAWS) -> Iterator[GoldenCase]:
    """The same for the same seed: zeros, ones, several distributions, batch 1 and n. Check ``possible`` first."""
    import numpy as np

    random = np.random.default_rng(seed)
    for number in range(count):
        first, step = _SIZES[number % len(_SIZES)]
        sizes: dict[Any, int] = {}
        inputs = {
            s.name: _draw(s, number, _shape(s, first, step, sizes), random) for s in signature.inputs if not s.optional
        }
        yield GoldenCase(f"generated/{number}", inputs, {})


def edges(signature: Signature, seed: int = 0) -> Iterator[GoldenCase]:
    """Cases that models often refuse: no row at all, many rows, long other dimensions, and the limits of integers. Each
    is there only if the signature has room for it. Check ``possible`` first."""
    import numpy as np

    random = np.random.default_rng(seed)
    specs = [s for s in signature.inputs if not s.optional]
    free = any(not isinstance(dim, int) for s in specs for dim in s.shape or ())
    limited = any(np.dtype(s.dtype).kind in "iu" for s in specs if s.dtype != "string")
    for name, (first, step) in _EDGES.items():
        if not (limited if name in ("smallest", "largest") else free):
            continue
        sizes: dict[Any, int] = {}
        shapes = {s.name: _shape(s, first, step, sizes) for s in specs}
        if sum(math.prod(shape) for shape in shapes.values()) > _MOST:
            continue
        if name in ("smallest", "largest"):
            inputs = {s.name: _limit(s, shapes[s.name], random, largest=name == "largest") for s in specs}
        else:
            inputs = {s.name: _draw(s, 2, shapes[s.name], random) for s in specs}
        yield GoldenCase(f"generated/{name}", inputs, {})


def possible(signature: Signature) -> bool:
    """Whether inputs can be drawn at all: dense tensors of types numpy has."""
    from gitmodel.formats.dtypes import is_native

    return all(s.kind == "tensor" and s.shape is not None and is_native(s.dtype) for s in signature.inputs)


def _shape(spec: TensorSpec, first: int, step: int, sizes: dict[Any, int]) -> tuple[int, ...]:
    return tuple(d if isinstance(d, int) else sizes.setdefault(d, first + step * len(sizes)) for d in spec.shape or ())


def _draw(spec: TensorSpec, number: int, shape: tuple[int, ...], random: np.random.Generator) -> np.ndarray:
    import numpy as np

    if spec.dtype == "string":
        return np.array([f"text {i}" for i in range(math.prod(shape))], dtype=object).reshape(shape)
    dtype = np.dtype(spec.dtype)
    if number < 2:
        return np.full(shape, number, dtype)
    if dtype.kind == "b":
        return random.integers(0, 2, shape).astype(dtype)
    if dtype.kind in "iu":
        # Integer inputs are mostly indices (tokens, bytes): small ranges first, so that most are accepted.
        return random.integers(0, (2, 10, 100, 127)[number % 4], shape).astype(dtype)
    return _floats(number, shape, random).astype(dtype)


def _floats(number: int, shape: tuple[int, ...], random: np.random.Generator) -> np.ndarray:
    """By turns normal, positive, of one sign, sparse, far from zero and tiny, in scales that half precision holds."""
    import numpy as np

    scale = (1.0, 0.1, 10.0, 100.0)[number % 4]
    match number % 7:
        case 0 | 3:
            return random.normal(0, scale, shape)
        case 4:
            return -random.uniform(0, scale, shape)
        case 5:
            return np.where(random.uniform(0, 1, shape) < 0.1, random.normal(0, scale, shape), 0.0)
        case 6:
            return random.normal(scale, 0.1, shape) * (1e-4 if scale < 1 else 1.0)
        case _:
            return random.uniform(0, scale, shape)


def _limit(spec: TensorSpec, shape: tuple[int, ...], random: np.random.Generator, *, largest: bool) -> np.ndarray:
    """The limits of integers; of anything else plain values, for sums of the largest floats are no longer any."""
    import numpy as np

    if spec.dtype == "string" or (dtype := np.dtype(spec.dtype)).kind not in "iu":
        return _draw(spec, 2, shape, random)
    limits = np.iinfo(dtype)
    return np.full(shape, limits.max if largest else limits.min, dtype)
