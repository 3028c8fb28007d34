"""What files say of their tensors is checked before it is believed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gitmodel.formats import declared
from gitmodel.formats.source import TensorData
from tests.formats.drawn import tensors

_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(), _json, max_size=4))
def test_json_comes_back_from_text_and_from_bytes(value: dict[str, Any]) -> None:
    text = declared.dump_json(value)
    assert declared.load_json(text) == declared.load_json(text.encode()) == value


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "Expecting value"),
        (b"\xff{}", "can't decode"),
        (b"[]", "it is no object"),
        (b'"x"', "it is no object"),
        (b'{"a": 1, "a": 1}', "'a' stands in it twice"),
        (b'{"x": {"a": 1, "b": 2, "a": 1}}', "'a' stands in it twice"),
        (b'{"a": NaN}', "NaN is no JSON"),
        (b'{"a": -Infinity}', "-Infinity is no JSON"),
        (b'{"a": ' * 200_000, "nests too deep"),
        (b'{"a": ' + b"9" * 5000 + b"}", "integer string conversion"),
    ],
)
def test_what_parsers_disagree_about_is_refused(data: bytes, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        declared.load_json(data)


@pytest.mark.parametrize("value", [None, [], "a", {"a": 1}, {"a": None}, {"a": "\ud800"}, {"\udfff": "a"}])
def test_only_text_to_text_is_text_to_text(value: Any) -> None:
    with pytest.raises(ValueError, match="text"):
        declared.texts(value)


@pytest.mark.parametrize("value", [[], [0], [3, 4], (2,), [1] * 32, [0, 1 << 57]])
def test_a_shape_is_a_shape(value: Any) -> None:
    assert declared.shape(value) == tuple(value)


@pytest.mark.parametrize(
    "value", [None, 3, "3", [-1], [1.0], [True], ["1"], [[1]], [1] * 33, [1 << 58, 2], [0, 1 << 62]]
)
def test_what_no_format_can_hold_is_no_shape(value: Any) -> None:
    with pytest.raises(ValueError, match=r"shape|dimensions"):
        declared.shape(value)


@given(st.data())
def test_a_marked_tensor_comes_back(data: st.DataObject) -> None:
    given_tensor = data.draw(tensors("t"))
    said = json.loads(json.dumps(declared.mark(given_tensor)))
    found = declared.marked(said, "t", given_tensor.data)
    assert (found.name, found.dtype, found.shape) == ("t", given_tensor.dtype, given_tensor.shape)


@pytest.mark.parametrize(
    ("dtype", "shape", "data"),
    [
        ("int4", (3,), b"abc"),
        ("bfloat16", (3,), b"abc"),
        ("string", (2,), b"abc"),
        ("string", (0,), b"abc"),
        ("string", (), b"a\0b"),
        ("complex128", (1,), b"abc"),
    ],
)
def test_a_mark_that_does_not_fit_is_refused(dtype: str, shape: tuple[int, ...], data: bytes) -> None:
    said = declared.mark(TensorData("t", dtype, shape, memoryview(b"")))
    with pytest.raises(ValueError, match=r"is marked .* bytes of something else"):
        declared.marked(said, "t", memoryview(data))


@pytest.mark.parametrize(
    "said", [None, [], {}, {"dtype": "int4"}, {"dtype": "int5", "shape": [1]}, {"dtype": [], "shape": [1]},
             {"dtype": "int4", "shape": [1], "more": 1}],
)  # fmt: skip
def test_what_is_no_mark_is_refused(said: Any) -> None:
    with pytest.raises(ValueError, match="no type and shape"):
        declared.marked(said, "t", memoryview(b"a"))
