"""What Hypothesis draws for the values of a bundle: texts that YAML could misread, plain values, signatures, cards."""

from __future__ import annotations

import math
from typing import Any

from hypothesis import strategies as st

from gitmodel.bundle.card import Card, Gates, Group
from gitmodel.bundle.meaning import WHERE, Meaning
from gitmodel.bundle.signature import DTYPES, KINDS, Signature, Signatures, TensorSpec

#: Characters that make numbers, booleans, markers, comments, quotes and line breaks of YAML.
_TRICKY = "0123456789_.-+eExobnyNOfaltruesY:~#&*!|>'\"%@`{}[], \n\r\t?=<T/\\\x00\x07\x85\u2028\ufeffé😀"

tricky_texts = st.text(st.sampled_from(_TRICKY), max_size=8)
texts = tricky_texts | st.text(max_size=30)
names = texts.filter(bool)
scalars = st.none() | st.booleans() | st.integers() | st.floats() | texts


def _containers(children: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.lists(children, max_size=4) | st.dictionaries(texts, children, max_size=4)


values = st.recursive(scalars, _containers, max_leaves=12)

dimensions = st.none() | st.integers(0, 2**63 - 1) | texts
tensor_specs = st.builds(
    TensorSpec,
    name=names,
    dtype=st.sampled_from(sorted(DTYPES)),
    shape=st.none() | st.lists(dimensions, max_size=4).map(tuple),
    kind=st.sampled_from(KINDS),
    key=st.sampled_from(["", "int64", "string"]),
    optional=st.booleans(),
)
_sides = st.lists(tensor_specs, max_size=3, unique_by=lambda spec: spec.name).map(tuple)
signatures = st.dictionaries(texts, st.builds(Signature, _sides, _sides), max_size=3).map(Signatures)

_tolerance = st.floats(0, allow_infinity=False)
gates = st.builds(
    Gates,
    tolerance=st.dictionaries(texts, st.tuples(_tolerance, _tolerance), max_size=3),
    agreement=st.floats(0, 1),
    distance=_tolerance,
)
_listed = st.lists(texts, max_size=3, unique=True).map(tuple)
groups = st.dictionaries(texts, st.builds(Group, _listed, _listed), max_size=3)
#: What a free mapping of the card may hold.
_plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    _containers,
    max_leaves=6,
)
_free = st.dictionaries(texts.filter(lambda text: text != "where"), _plain, max_size=3)
_paths = st.lists(st.from_regex(r"[a-z][a-z.]{0,5}", fullmatch=True), min_size=1, max_size=2).map("/".join)
_pairs = st.lists(texts, max_size=6, unique=True).map(lambda found: dict(zip(found[::2], found[1::2], strict=False)))
meanings = st.builds(
    Meaning,
    preprocessing=_free | st.builds(lambda free, where: free | {"where": where}, _free, st.sampled_from(WHERE)),
    postprocessing=_free,
    labels=st.dictionaries(texts, _paths, max_size=2),
    labels_extensible=st.booleans(),
    meaning=st.dictionaries(texts, texts, max_size=3),
    state=_pairs,
    inference_params=_listed,
)
cards = st.builds(
    Card,
    name=texts,
    description=texts,
    format=texts,
    framework=texts,
    licence=texts,
    signature=names,
    gates=gates,
    signatures=groups,
    meaning=meanings,
    consumers_complete=st.booleans(),
)


def same(left: Any, right: Any) -> bool:
    """Equal in type and value all the way down, NaN being equal to itself and the order of keys counting."""
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return list(left) == list(right) and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, float) and math.isnan(left):
        return math.isnan(right)
    return bool(left == right)
