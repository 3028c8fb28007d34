"""Sources drawn at random: tensors of every type, with names and metadata that nobody would choose."""

from __future__ import annotations

import math

from hypothesis import strategies as st

from gitmodel.bundle.signature import DTYPES
from gitmodel.formats.dtypes import nbytes
from gitmodel.formats.source import Source, TensorData

ALL_DTYPES = sorted(DTYPES)
SHAPES = st.lists(st.integers(0, 4), max_size=4).map(tuple)
NAMES = (
    st.text("ab/%.\\ \0", max_size=6)
    | st.text(max_size=8)
    | st.sampled_from(
        ["a", "a.npy", "gitmodel.json", "gitmodel", "..", "../a", "a/../b", "C:\\a", "a/b", "%2F", "é" * 9, ""]
    )
)
TEXTS = st.dictionaries(st.text(max_size=5), st.text(max_size=9), max_size=3)


@st.composite
def tensors(draw: st.DrawFn, name: str) -> TensorData:
    """One tensor. Texts are any bytes but NUL, which ends one."""
    dtype, shape = draw(st.sampled_from(ALL_DTYPES)), draw(SHAPES)
    if dtype == "string":
        text = st.text(max_size=4).map(str.encode) | st.binary(max_size=4)
        texts = [draw(text).replace(b"\0", b"\xc0\x80") for _ in range(math.prod(shape))]
        return TensorData(name, dtype, shape, memoryview(b"\0".join(texts)))
    size = nbytes(dtype, shape)
    return TensorData(name, dtype, shape, memoryview(draw(st.binary(min_size=size, max_size=size))))


@st.composite
def sources(draw: st.DrawFn) -> Source:
    """A checkpoint of a few tensors with metadata."""
    names = draw(st.lists(NAMES, max_size=4, unique=True))
    return Source("drawn", "", tuple(draw(tensors(name)) for name in names), metadata=draw(TEXTS))


def content(source: Source) -> tuple[list[tuple[str, str, tuple[int, ...], bytes]], dict[str, str]]:
    """All that a format has to give back, in order."""
    return [(t.name, t.dtype, t.shape, bytes(t.data)) for t in source.tensors], dict(source.metadata)
