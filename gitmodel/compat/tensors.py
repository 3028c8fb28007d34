"""Facts about the tensors of OLD and NEW: what a loader that restores by name meets, and defaults of inputs. Pure, as changes.py."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping

from gitmodel.bundle.lock import TensorEntry
from gitmodel.bundle.signature import Signature
from gitmodel.compat.changes import Change


def compare_defaults(
    old: Signature, new: Signature, before: Iterable[TensorEntry], after: Iterable[TensorEntry]
) -> list[Change]:
    """Inputs that may be left out on both sides and then stand for other values; the tensors are OLD's and NEW's."""
    olds, news = {t.name: t.sha256 for t in before}, {t.name: t.sha256 for t in after}
    kept = [s.name for s in old.inputs if s.optional and (other := new.input(s.name)) and other.optional]
    return [
        Change("input-default-changed", f"inputs.{name}", olds[name][:12], news[name][:12], {"name": name})
        for name in kept
        if name in olds and name in news and olds[name] != news[name]
    ]


def compare_tensors(old: Iterable[TensorEntry], new: Iterable[TensorEntry]) -> list[Change]:
    """What a loader that restores a checkpoint by name would meet."""
    before, after = {t.name: t for t in old}, {t.name: t for t in new}
    renamed = _renamed(before, after)
    changes = [
        Change("tensor-renamed", f"tensors.{name}", name, other, {"name": name}) for name, other in renamed.items()
    ]
    for name in sorted((before.keys() | after.keys()) - renamed.keys() - set(renamed.values())):
        a, b, at, args = before.get(name), after.get(name), f"tensors.{name}", {"name": name}
        if a is None or b is None:
            kind = "tensor-removed" if b is None else "tensor-added"
            changes.append(Change(kind, at, _tensor_text(a), _tensor_text(b), args))
        elif a.shape != b.shape:
            changes.append(Change("tensor-shape-changed", at, list(a.shape), list(b.shape), args))
        elif a.dtype != b.dtype:
            changes.append(Change("tensor-dtype-changed", at, a.dtype, b.dtype, args))
    both = ((before[name], after[name]) for name in before.keys() & after.keys())
    moved = sum(a.sha256 != b.sha256 for a, b in both if (a.dtype, a.shape) == (b.dtype, b.shape))
    if moved:
        changes.append(Change("tensor-values-changed", "tensors", None, None, {"count": moved, "total": len(before)}))
    return changes


def _renamed(before: Mapping[str, TensorEntry], after: Mapping[str, TensorEntry]) -> dict[str, str]:
    """Tensors that live on under another name: same bytes, type and shape, gone here and new there. Several alike (biases
    that are all zero) are told apart by how much of their names' ends agree, as a prefix is what most often changes."""
    new = [entry for name, entry in sorted(after.items()) if name not in before]
    pairs: dict[str, str] = {}
    for name, entry in sorted(before.items()):
        if name in after:
            continue
        alike = [other for other in new if other.name not in pairs.values() and _values(other) == _values(entry)]
        if alike:
            pairs[name] = max(alike, key=lambda other: _common_end(name, other.name)).name
    return pairs


def _values(entry: TensorEntry) -> tuple[object, ...]:
    return entry.sha256, entry.dtype, entry.shape


def _common_end(one: str, other: str) -> int:
    same = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(reversed(one), reversed(other), strict=False))
    return sum(1 for _ in same)


def _tensor_text(tensor: TensorEntry | None) -> str | None:
    return None if tensor is None else f"{tensor.dtype}{list(tensor.shape)}"
