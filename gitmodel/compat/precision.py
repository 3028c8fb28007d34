"""In which type a model keeps its weights, and whether that changed behind the same signature. Pure, from the lock's lines."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence

from gitmodel.bundle.lock import TensorEntry
from gitmodel.bundle.signature import Signature
from gitmodel.compat.changes import Change

#: Types of weights; the others are shapes, axes, indices, flags and words.
_WEIGHTS = frozenset(
    {
        "float16", "float32", "float64", "bfloat16", "float8e4m3fn", "float8e4m3fnuz", "float8e5m2", "float8e5m2fnuz",
        "float4e2m1", "float6e2m3", "float6e3m2", "int8", "uint8", "int4", "uint4", "int2", "uint2",
    }
)  # fmt: skip


def compare_precision(
    old: Signature, new: Signature, before: Iterable[TensorEntry], after: Iterable[TensorEntry]
) -> list[Change]:
    """That most weights, or some of the same name and shape, have another type; nothing where the signature's own types
    changed, which says more."""
    if _border(old) != _border(new):
        return []
    fed = {spec.name for spec in (*old.inputs, *new.inputs)}  # what stands for an input is a default, no weight
    olds, news = ([t for t in side if _is_weight(t) and t.name not in fed] for side in (before, after))
    if not olds or not news:
        return []
    was, is_ = _most(olds), _most(news)
    if was != is_:
        return [_change(was, is_, _share(news, is_))]
    known = {t.name: t for t in olds}
    moved = [t for t in news if t.name in known and known[t.name].dtype != t.dtype and known[t.name].shape == t.shape]
    if not moved:
        return []
    is_ = _most(moved)
    return [_change(_most([known[t.name] for t in moved]), is_, _size(moved) / _size(news))]


def _change(old: str, new: str, share: float) -> Change:
    return Change("precision-changed", "weights", old, new, {"share": share})


def _is_weight(tensor: TensorEntry) -> bool:
    """A single number is a constant of the computation, whatever its type."""
    return tensor.dtype in _WEIGHTS and math.prod(tensor.shape) > 1


def _border(signature: Signature) -> Counter[str]:
    return Counter(spec.dtype for spec in (*signature.inputs, *signature.outputs))


def _size(tensors: Iterable[TensorEntry]) -> int:
    return sum(math.prod(t.shape) for t in tensors)


def _share(tensors: Sequence[TensorEntry], dtype: str) -> float:
    return _size(t for t in tensors if t.dtype == dtype) / max(_size(tensors), 1)


def _most(tensors: Iterable[TensorEntry]) -> str:
    """The type most elements have."""
    sizes: Counter[str] = Counter()
    for tensor in tensors:
        sizes[tensor.dtype] += math.prod(tensor.shape)
    return max(sorted(sizes), key=sizes.__getitem__)
