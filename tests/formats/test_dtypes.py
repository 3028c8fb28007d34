"""Type names and their sizes agree with what ONNX itself says about them."""

from __future__ import annotations

import math

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from gitmodel.bundle.signature import DTYPES
from gitmodel.formats.dtypes import ONNX_DTYPES, ONNX_NUMBERS, dtype_name, is_native, nbytes, storage

SIZED = sorted(set(ONNX_NUMBERS) - {"string"})


def test_every_type_of_onnx_has_its_own_name() -> None:
    known = {name: number for name, number in onnx.TensorProto.DataType.items() if name != "UNDEFINED"}
    renamed = {"FLOAT": "float32", "DOUBLE": "float64"}
    assert {renamed.get(name, name.lower()): number for name, number in known.items()} == ONNX_NUMBERS
    assert {number: name for name, number in ONNX_NUMBERS.items()} == ONNX_DTYPES
    assert set(ONNX_NUMBERS) == DTYPES


@pytest.mark.parametrize("dtype", SIZED)
@settings(max_examples=10)
@given(shape=st.lists(st.integers(0, 5), max_size=3).map(tuple))
def test_bytes_are_those_of_onnx_raw_data(dtype: str, shape: tuple[int, ...]) -> None:
    count = math.prod(shape)
    tensor = helper.make_tensor("t", ONNX_NUMBERS[dtype], shape, [1] * count)
    raw = numpy_helper.from_array(numpy_helper.to_array(tensor)).raw_data
    assert nbytes(dtype, shape) == len(raw)
    kept, stored_shape = storage(dtype, shape)
    assert kept.itemsize * math.prod(stored_shape) == len(raw)
    assert kept.newbyteorder("<") == kept


def test_types_numpy_has_are_native_and_the_others_are_not() -> None:
    assert {dtype for dtype in SIZED if not is_native(dtype)} == {
        "bfloat16", "float8e4m3fn", "float8e4m3fnuz", "float8e5m2", "float8e5m2fnuz", "float8e8m0",
        "int4", "uint4", "int2", "uint2", "float4e2m1", "float6e2m3", "float6e3m2",
    }  # fmt: skip


def test_a_type_of_numpy_has_the_name_of_signatures() -> None:
    for dtype in SIZED:
        if is_native(dtype):
            assert dtype_name(np.dtype(dtype)) == dtype_name(np.dtype(dtype).newbyteorder(">")) == dtype
    assert {dtype_name(np.array(words).dtype) for words in (["a"], np.array(["a"], dtype=object))} == {"string"}
