"""The dtype names of signatures and locks, and what ONNX and numpy call them."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

#: onnx.TensorProto.DataType by number (onnx.proto, field values are frozen) to our names.
ONNX_DTYPES: dict[int, str] = {
    1: "float32", 2: "uint8", 3: "int8", 4: "uint16", 5: "int16", 6: "int32", 7: "int64", 8: "string", 9: "bool",
    10: "float16", 11: "float64", 12: "uint32", 13: "uint64", 14: "complex64", 15: "complex128", 16: "bfloat16",
    17: "float8e4m3fn", 18: "float8e4m3fnuz", 19: "float8e5m2", 20: "float8e5m2fnuz", 21: "uint4", 22: "int4",
    23: "float4e2m1", 24: "float8e8m0", 25: "uint2", 26: "int2",
    27: "float6e2m3", 28: "float6e3m2",
}  # fmt: skip
ONNX_NUMBERS = {name: number for number, name in ONNX_DTYPES.items()}

#: Types numpy lacks, stored as same-width integers; 6-, 4- and 2-bit types as packed bytes.
STORED_AS = {
    "bfloat16": "uint16", "float8e4m3fn": "uint8", "float8e4m3fnuz": "uint8", "float8e5m2": "uint8",
    "float8e5m2fnuz": "uint8", "float8e8m0": "uint8",
}  # fmt: skip
#: The types of the ml_dtypes package, as signatures name them.
ML_DTYPES = {
    "bfloat16": "bfloat16", "float8_e4m3fn": "float8e4m3fn", "float8_e4m3fnuz": "float8e4m3fnuz",
    "float8_e5m2": "float8e5m2", "float8_e5m2fnuz": "float8e5m2fnuz", "float8_e8m0fnu": "float8e8m0", "int4": "int4",
    "uint4": "uint4", "int2": "int2", "uint2": "uint2", "float4_e2m1fn": "float4e2m1",
    "float6_e2m3fn": "float6e2m3", "float6_e3m2fn": "float6e3m2",
}  # fmt: skip
_PACKED_BITS = {"float6e2m3": 6, "float6e3m2": 6, "uint4": 4, "int4": 4, "float4e2m1": 4, "uint2": 2, "int2": 2}
_WIDTH = {
    "bool": 1, "int8": 1, "uint8": 1, "int16": 2, "uint16": 2, "float16": 2, "bfloat16": 2, "int32": 4, "uint32": 4,
    "float32": 4, "int64": 8, "uint64": 8, "float64": 8, "complex64": 8, "complex128": 16,
}  # fmt: skip


def nbytes(dtype: str, shape: tuple[int, ...]) -> int:
    """Bytes of a tensor in ONNX's raw layout (6-, 4- and 2-bit elements packed, the last byte padded)."""
    count = math.prod(shape)
    if bits := _PACKED_BITS.get(dtype):
        return -(-count * bits // 8)
    return count * _WIDTH.get(dtype, 1)


def storage(dtype: str, shape: tuple[int, ...]) -> tuple[Any, tuple[int, ...]]:
    """The little-endian numpy dtype and the shape under which HDF5 keeps a tensor."""
    import numpy as np

    if dtype in _PACKED_BITS:
        return np.dtype("uint8"), (nbytes(dtype, shape),)
    return np.dtype(STORED_AS.get(dtype, dtype)).newbyteorder("<"), shape


@lru_cache(maxsize=64)
def dtype_name(dtype: Any) -> str:
    """A numpy dtype as signatures name it. numpy works its name out anew each time, which a request would feel."""
    return "string" if dtype.kind in "OU" else str(dtype.name)


def is_native(dtype: str) -> bool:
    """True when numpy and HDF5 have the type themselves."""
    return dtype not in STORED_AS and dtype not in _PACKED_BITS
