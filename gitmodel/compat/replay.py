"""Golden replay: the same inputs through OLD and NEW, side by side; and a version against its own recorded outputs."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from gitmodel.bundle.card import Gates
from gitmodel.bundle.golden import GoldenCase
from gitmodel.bundle.signature import Signature, TensorSpec
from gitmodel.errors import GitmodelError

if TYPE_CHECKING:
    import numpy as np

GENERATED = 16
_FREE_SIZES = (1, 3)


class Runs(Protocol):
    """What replay needs of a session (runtime.Session)."""

    def run(self, inputs: Mapping[str, np.ndarray], outputs: Sequence[str] | None = None) -> dict[str, np.ndarray]: ...


@dataclass(frozen=True)
class OutputDrift:
    """How one output differs over all cases.

    ``max_abs`` is the largest absolute difference, found in case ``worst``; ``agreement`` the share, 0 to 1, of rows
    whose decision stays (top-1 of the last axis, the value itself for discrete outputs; for other numbers the share
    of elements within tolerance).
    """

    name: str
    equal: bool = True
    within: bool = True
    max_abs: float = 0.0
    worst: str = ""
    agreed: int = 0
    rows: int = 0
    nan: bool = False
    inf: bool = False

    @property
    def agreement(self) -> float:
        return self.agreed / self.rows if self.rows else 1.0


@dataclass(frozen=True)
class Replay:
    """What running the cases showed. ``errors`` are cases OLD answers and NEW refuses, with the runtime's words."""

    cases: int
    generated: bool
    outputs: tuple[OutputDrift, ...]
    errors: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class SelfCheck:
    """A version against its own recorded outputs: how many cases passed, and what is wrong with the others."""

    cases: int
    failures: tuple[str, ...] = field(default_factory=tuple)

    @property
    def passed(self) -> int:
        return self.cases - len(self.failures)

    def __str__(self) -> str:
        return f"{self.passed}/{self.cases} golden cases"


def replay(
    old: Runs,
    new: Runs,
    cases: Sequence[GoldenCase],
    signature: Signature,
    gates: Gates,
    *,
    renamed_inputs: Mapping[str, str] | None = None,
    renamed_outputs: Mapping[str, str] | None = None,
    generated: bool = False,
) -> Replay:
    """Runs every case through both; ``signature`` is OLD's. Cases OLD itself refuses are left out.

    Renamed tensors are fed and read under their new names, so that a mere renaming shows equal outputs.
    """
    inputs, outputs = renamed_inputs or {}, renamed_outputs or {}
    drifts: dict[str, OutputDrift] = {}
    errors, ran = [], 0
    for case in cases:
        try:
            before = old.run(case.inputs)
        except GitmodelError:
            continue
        ran += 1
        try:
            after = new.run({inputs.get(name, name): value for name, value in case.inputs.items()})
        except GitmodelError as error:
            errors.append((case.name, str(error)))
            continue
        for spec in signature.outputs:
            name = outputs.get(spec.name, spec.name)
            if spec.name in before and name in after:
                drift = drifts.get(spec.name, OutputDrift(spec.name))
                drifts[spec.name] = _extend(drift, case.name, before[spec.name], after[name], gates, spec)
    return Replay(ran, generated, tuple(drifts.values()), tuple(errors))


def check_self(session: Runs, cases: Sequence[GoldenCase], signature: Signature, gates: Gates) -> SelfCheck:
    """Runs a version's own cases and holds the outputs against the recorded ones, within the card's tolerance."""
    failures = []
    for case in cases:
        try:
            outputs = session.run(case.inputs)
        except GitmodelError as error:
            failures.append(f"case {case.name}: {error}")
            continue
        for spec in signature.outputs:
            if spec.name not in case.outputs:
                continue
            if spec.name not in outputs:
                failures.append(f"case {case.name}: no output '{spec.name}'")
                break
            drift = _extend(OutputDrift(spec.name), case.name, case.outputs[spec.name], outputs[spec.name], gates, spec)
            if not drift.within:
                size = f"by up to {drift.max_abs:.3g}" if math.isfinite(drift.max_abs) else "in shape, type or NaN"
                failures.append(f"case {case.name}: output '{spec.name}' differs {size}")
                break
    return SelfCheck(len(cases), tuple(failures))


def generate(signature: Signature, seed: int = 0, count: int = GENERATED) -> Iterator[GoldenCase]:
    """Cases drawn from the signature alone, the same for the same seed: zeros, ones, several scales, batch 1 and n."""
    import numpy as np

    random = np.random.default_rng(seed)
    for number in range(count):
        sizes: dict[Any, int] = {}
        free = _FREE_SIZES[number % 2]
        inputs = {s.name: _draw(s, number, free, sizes, random) for s in signature.inputs if not s.optional}
        yield GoldenCase(f"generated/{number}", inputs, {})


def can_generate(signature: Signature) -> bool:
    """Whether inputs can be drawn at all: dense tensors of types numpy has."""
    from gitmodel.formats.dtypes import is_native

    return all(s.kind == "tensor" and s.shape is not None and is_native(s.dtype) for s in signature.inputs)


def _draw(spec: TensorSpec, number: int, free: int, sizes: dict[Any, int], random: np.random.Generator) -> np.ndarray:
    import numpy as np

    shape = tuple(d if isinstance(d, int) else sizes.setdefault(d, free) for d in spec.shape or ())
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
        return random.integers(0, (2, 10, 100, 256)[number % 4], shape).astype(dtype)
    scale = (1.0, 0.1, 10.0, 100.0)[number % 4]
    drawn = random.uniform(0, scale, shape) if number % 3 else random.normal(0, scale, shape)
    return drawn.astype(dtype)


def _extend(drift: OutputDrift, case: str, old: Any, new: Any, gates: Gates, spec: TensorSpec) -> OutputDrift:
    """The drift with one more case taken in."""
    import numpy as np

    a, b = _array(old), _array(new)
    if a.shape != b.shape or a.dtype.kind != b.dtype.kind:
        return _failed(drift, case)
    rows = a.shape[0] if a.ndim else 1
    if a.dtype.kind not in "biufc":
        same = int(np.sum(np.all((a == b).reshape(rows, -1), axis=1))) if a.size else rows
        equal = same == rows
        return _merge(drift, case, equal, equal, 0.0 if equal else math.inf, same, rows)
    equal = bool(np.array_equal(a, b, equal_nan=a.dtype.kind in "fc"))
    if equal:
        return _merge(drift, case, True, True, 0.0, rows, rows)
    x, y = (
        a.astype(np.complex128 if a.dtype.kind == "c" else np.float64),
        b.astype(np.complex128 if a.dtype.kind == "c" else np.float64),
    )
    rtol, atol = gates.tolerance_for(spec.name, spec.dtype)
    close = np.isclose(y, x, rtol=rtol, atol=atol, equal_nan=True)
    both = np.isfinite(x) & np.isfinite(y)
    max_abs = float(np.max(np.abs(x - y)[both], initial=0.0))
    nan = bool(np.any(np.isnan(y) & ~np.isnan(x)))
    inf = bool(np.any(np.isinf(y) & ~np.isinf(x)))
    agreed, decisions = _agreement(a, b, close)
    merged = _merge(drift, case, False, bool(close.all()), math.inf if nan or inf else max_abs, agreed, decisions)
    return OutputDrift(**{**merged.__dict__, "nan": drift.nan or nan, "inf": drift.inf or inf})


def _agreement(a: np.ndarray, b: np.ndarray, close: np.ndarray) -> tuple[int, int]:
    import numpy as np

    if a.dtype.kind in "bi" or a.dtype.kind == "u":
        return int(np.sum(a == b)), a.size
    if a.dtype.kind == "f" and a.ndim > 1 and a.shape[-1] > 1:
        return int(np.sum(a.argmax(-1) == b.argmax(-1))), a[..., 0].size
    return int(np.sum(close)), close.size


def _merge(
    drift: OutputDrift, case: str, equal: bool, within: bool, max_abs: float, agreed: int, rows: int
) -> OutputDrift:
    worse = max_abs > drift.max_abs or (not within and drift.within)
    return OutputDrift(
        drift.name, drift.equal and equal, drift.within and within, max(max_abs, drift.max_abs),
        case if worse else drift.worst, drift.agreed + agreed, drift.rows + rows, drift.nan, drift.inf,
    )  # fmt: skip


def _failed(drift: OutputDrift, case: str) -> OutputDrift:
    return _merge(drift, case, False, False, math.inf, 0, 1)


def _array(value: Any) -> np.ndarray:
    """An array for comparison; a list of maps (ONNX's ZipMap) becomes rows of its values in key order."""
    import numpy as np

    if isinstance(value, list) and value and isinstance(value[0], dict):
        keys = sorted(value[0])
        return np.array([[row.get(key, np.nan) for key in keys] for row in value])
    return np.asarray(value)
