"""Tensors as numpy arrays: the values onnx itself reads, in its types, without a copy where there need be none."""

from __future__ import annotations

import math

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import numpy_helper

from gitmodel.formats import arrays
from gitmodel.formats.arrays import array_of
from gitmodel.formats.dtypes import ONNX_DTYPES, ONNX_NUMBERS, nbytes
from gitmodel.formats.source import TensorData

SHAPES = [(), (0,), (1,), (7,), (3, 5), (2, 0, 3)]


def test_every_type_of_onnx_is_known() -> None:
    assert set(ONNX_DTYPES) == set(onnx.TensorProto.DataType.values()) - {onnx.TensorProto.UNDEFINED}


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("dtype", sorted(set(ONNX_NUMBERS) - {"string"}))
def test_an_array_has_the_values_and_the_type_that_onnx_reads(dtype: str, shape: tuple[int, ...]) -> None:
    size = nbytes(dtype, shape)
    body = np.random.default_rng(1).integers(0, 2 if dtype == "bool" else 256, size, dtype="uint8").tobytes()
    proto = onnx.TensorProto(data_type=ONNX_NUMBERS[dtype], dims=shape, raw_data=body)
    expected = numpy_helper.to_array(proto)
    found = array_of(TensorData("t", dtype, shape, memoryview(body)))
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    assert found.tobytes() == expected.tobytes()
    assert not found.flags.writeable


@pytest.mark.parametrize("dtype", ["float32", "bool", "complex64", "bfloat16", "float8e5m2"])
def test_an_array_is_a_view_where_the_elements_are_whole_bytes(dtype: str) -> None:
    body = bytearray(nbytes(dtype, (4,)))
    found = array_of(TensorData("t", dtype, (4,), memoryview(body)))
    body[:] = b"\1" * len(body)
    assert found.tobytes() == bytes(body)


def test_texts_are_text_objects_with_their_own_nul() -> None:
    data = memoryview("a\0\0é".encode() + b"\0x\xc0\x80y\0\xff")
    found = array_of(TensorData("t", "string", (5, 1), data))
    assert found.dtype == object
    assert found.ravel().tolist() == ["a", "", "é", "x\0y", "\udcff"]
    assert array_of(TensorData("t", "string", (), memoryview(b"one")))[()] == "one"
    assert array_of(TensorData("t", "string", (0, 2), memoryview(b""))).shape == (0, 2)


@given(st.sampled_from([2, 4, 6]), st.lists(st.integers(0, 255), max_size=20))
def test_packing_loses_only_the_bits_beyond_an_element(bits: int, codes: list[int]) -> None:
    given_codes = np.array(codes, dtype=np.uint8)
    packed = arrays.packed(given_codes, bits)
    assert packed.size == math.ceil(len(codes) * bits / 8)
    assert arrays.unpacked(packed, bits, len(codes)).tolist() == [code & (1 << bits) - 1 for code in codes]
