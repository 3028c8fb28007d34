"""Facts about OLD and NEW signatures. Pure: no rule, no severity, no opinion lives here."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any

from msgspec import Struct, field

from gitmodel.bundle.signature import Dim, Signature, TensorSpec

_FAMILIES = (
    ("int8", "int16", "int32", "int64"),
    ("uint8", "uint16", "uint32", "uint64"),
    ("float16", "float32", "float64"),
    ("bfloat16", "float32", "float64"),
)


class Change(Struct, frozen=True):
    """One fact. ``kind`` names it, ``at`` is the place (``inputs.pixels``), ``args`` say more for rules and messages."""

    kind: str
    at: str
    old: Any = None
    new: Any = None
    args: Mapping[str, Any] = field(default_factory=dict)


class Comparison(Struct, frozen=True):
    """All changes, and which OLD names are believed to live on under a NEW one."""

    changes: tuple[Change, ...]
    renamed_inputs: Mapping[str, str]
    renamed_outputs: Mapping[str, str]


#: (dtype, shape) of tensors by name.
Tensors = Mapping[str, tuple[str, tuple[int, ...]]]


def compare(old: Signature, new: Signature, tensors: Tensors | None = None) -> Comparison:
    """The changes from ``old`` to ``new``, inputs before outputs, each side in its own order. ``tensors`` are NEW's: an input
    that is gone and stands among them, in a type and size that could be fed, became a constant of the graph."""
    constants = {s.name for s in old.inputs if tensors and s.name in tensors and _is_value_of(s, *tensors[s.name])}
    inputs, renamed_inputs = _side("input", old.inputs, new.inputs, constants)
    outputs, renamed_outputs = _side("output", old.outputs, new.outputs)
    symbols = _symbols(old, new, renamed_inputs, renamed_outputs)
    return Comparison((*inputs, *outputs, *symbols), renamed_inputs, renamed_outputs)


def _is_value_of(spec: TensorSpec, dtype: str, shape: tuple[int, ...]) -> bool:
    if spec.dtype != dtype or spec.shape is None:
        return spec.dtype == dtype
    fits = (not isinstance(a, int) or a == b for a, b in zip(spec.shape, shape, strict=False))
    return len(spec.shape) == len(shape) and all(fits)


def _side(
    side: str, old: Sequence[TensorSpec], new: Sequence[TensorSpec], constants: Collection[str] = ()
) -> tuple[list[Change], dict[str, str]]:
    before, after = {s.name: s for s in old}, {s.name: s for s in new}
    removed = [s for s in old if s.name not in after and s.name not in constants]
    added = [s for s in new if s.name not in before]
    renamed = _renames(removed, added)
    changes: list[Change] = []
    for spec in old:
        at = f"{side}s.{spec.name}"
        if spec.name in after:
            changes += _tensor(side, at, spec, after[spec.name])
        elif spec.name in renamed:
            changes.append(Change(f"{side}-renamed", at, spec.name, renamed[spec.name], {"name": spec.name}))
        else:
            kind = "input-became-constant" if spec.name in constants else f"{side}-removed"
            changes.append(Change(kind, at, str(spec), None, {"name": spec.name}))
    kept = [s.name for s in new if s.name in before or s.name in renamed.values()]
    appended_from = max((i for i, s in enumerate(new) if s.name in before or s.name in renamed.values()), default=-1)
    for index, spec in enumerate(new):
        if spec.name in before or spec.name in renamed.values():
            continue
        kind = (
            "input-added-with-default"
            if spec.optional
            else "input-added-required"
            if side == "input"
            else "output-added"
        )
        args = {"name": spec.name, "appended": index > appended_from}
        changes.append(Change(kind, f"{side}s.{spec.name}", None, str(spec), args))
    if kept != [renamed.get(s.name, s.name) for s in old if s.name in after or s.name in renamed]:
        changes.append(Change(f"{side}-reordered", f"{side}s", [s.name for s in old], [s.name for s in new]))
    return changes, renamed


def _renames(removed: Sequence[TensorSpec], added: Sequence[TensorSpec]) -> dict[str, str]:
    """Pairs that can only be each other: one gone, one new, alike in all but name, and no second candidate."""
    pairs = {}
    for spec in removed:
        candidates = [s for s in added if _alike(spec, s)]
        rivals = [s for s in removed if _alike(spec, s)]
        if len(candidates) == 1 and len(rivals) == 1:
            pairs[spec.name] = candidates[0].name
    return pairs


def _alike(a: TensorSpec, b: TensorSpec) -> bool:
    if (a.dtype, a.kind, a.key, a.optional) != (b.dtype, b.kind, b.key, b.optional):
        return False
    if a.shape is None or b.shape is None:
        return a.shape is b.shape
    return len(a.shape) == len(b.shape) and all(
        x == y or not (isinstance(x, int) or isinstance(y, int)) for x, y in zip(a.shape, b.shape, strict=True)
    )


def _tensor(side: str, at: str, old: TensorSpec, new: TensorSpec) -> Iterator[Change]:
    name = {"name": old.name}
    if (old.kind, old.key) != (new.kind, new.key):
        yield Change("value-kind-changed", at, old.type, new.type, name)
        return
    if old.optional != new.optional:
        kind = "input-became-optional" if new.optional else "input-became-required"
        yield Change(kind, at, old.optional, new.optional, name)
    if old.dtype != new.dtype:
        if "string" in (old.dtype, new.dtype):
            yield Change("string-tensor-changed", at, old.dtype, new.dtype, name)
        else:
            yield Change(
                f"{side}-dtype-changed",
                at,
                old.dtype,
                new.dtype,
                {**name, "direction": _direction(old.dtype, new.dtype)},
            )
    yield from _dims(side, at, old, new)


def _dims(side: str, at: str, old: TensorSpec, new: TensorSpec) -> Iterator[Change]:
    name = {"name": old.name}
    if old.shape is None and new.shape is None:
        return
    if new.shape is None:
        yield Change(f"{side}-rank-relaxed" if side == "input" else "output-rank-changed", at, old.type, new.type, name)
        return
    if old.shape is None and side == "output":
        yield Change("output-rank-fixed", at, old.type, new.type, name)
        return
    if old.shape is None or len(old.shape) != len(new.shape):
        yield Change(f"{side}-rank-changed", at, old.type, new.type, name)
        return
    for axis, (a, b) in enumerate(zip(old.shape, new.shape, strict=True)):
        kind = _dim_kind(a, b)
        if kind:
            shown = [("any" if not isinstance(d, int) else d) for d in (a, b)]
            yield Change(f"{side}-dim-{kind}", f"{at}[{axis}]", shown[0], shown[1], {**name, "axis": axis})


def _dim_kind(old: Dim, new: Dim) -> str:
    if isinstance(old, int) and isinstance(new, int):
        return "changed" if old != new else ""
    if isinstance(old, int):
        return "relaxed"
    return "fixed" if isinstance(new, int) else ""


def _direction(old: str, new: str) -> str:
    for family in _FAMILIES:
        if old in family and new in family:
            return "widened" if family.index(old) < family.index(new) else "narrowed"
    return "other"


def _symbols(
    old: Signature, new: Signature, renamed_inputs: Mapping[str, str], renamed_outputs: Mapping[str, str]
) -> Iterator[Change]:
    """What the free dimensions promise about each other. Names do not matter, only which ones are equal."""
    places = [*_places("inputs", old.inputs, new.inputs, renamed_inputs)]
    outputs = [*_places("outputs", old.outputs, new.outputs, renamed_outputs)]
    unified, separated = set(), set()
    for i, (at, a, b) in enumerate(places):
        for other, c, d in places[:i]:
            if _linked(b, d) and not _linked(a, c):
                unified.add((other, at))
            elif _linked(a, c) and not _linked(b, d):
                separated.add((other, at))
    for first, second in sorted(unified):
        yield Change("input-dims-unified", first, None, None, {"first": first, "second": second})
    for first, second in sorted(separated):
        yield Change("input-dims-separated", first, None, None, {"first": first, "second": second})
    for at, a, b in outputs:
        loose = [other for other, c, d in places if _linked(a, c) and not _linked(b, d)]
        if loose and not any(_linked(b, d) for _, c, d in places if _linked(a, c)):
            yield Change("output-dim-unlinked", at, None, None, {"first": loose[0], "second": at})


def _linked(a: Dim, b: Dim) -> bool:
    return isinstance(a, str) and a == b


def _places(
    side: str, old: Iterable[TensorSpec], new: Iterable[TensorSpec], renamed: Mapping[str, str]
) -> Iterator[tuple[str, Dim, Dim]]:
    """(place, old dim, new dim) of every dimension that is free on both sides."""
    after = {s.name: s for s in new}
    for spec in old:
        other = after.get(renamed.get(spec.name, spec.name))
        if other is None or spec.shape is None or other.shape is None or len(spec.shape) != len(other.shape):
            continue
        for axis, (a, b) in enumerate(zip(spec.shape, other.shape, strict=True)):
            if not isinstance(a, int) and not isinstance(b, int):
                yield f"{side}.{spec.name}[{axis}]", a, b
