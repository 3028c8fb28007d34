"""A tensor as a numpy array: a view of its bytes wherever numpy, or the ml_dtypes package, has the type."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from gitmodel.formats.dtypes import ML_DTYPES, is_native, nbytes, storage
from gitmodel.formats.source import TensorData

if TYPE_CHECKING:
    import numpy as np

_NAMES = {ours: theirs for theirs, ours in ML_DTYPES.items()}
_BYTE_BITS = 8


def array_of(tensor: TensorData) -> np.ndarray:
    """The tensor's values, read-only, in its shape. Types that numpy lacks are those of ml_dtypes; texts are a copy, as
    ``str`` objects; elements of less than a byte are a copy, a byte each."""
    import numpy as np

    values: np.ndarray
    if tensor.dtype == "string":
        values = _texts(tensor)
    elif is_native(tensor.dtype):
        values = np.frombuffer(tensor.data, storage(tensor.dtype, ())[0])
    else:
        import ml_dtypes

        kind = np.dtype(getattr(ml_dtypes, _NAMES[tensor.dtype]))
        bits = nbytes(tensor.dtype, (_BYTE_BITS,))
        data = np.frombuffer(tensor.data, np.uint8)
        values = (unpacked(data, bits, math.prod(tensor.shape)) if bits < _BYTE_BITS else data).view(kind)
    values = values.reshape(tensor.shape)
    values.flags.writeable = False
    return values


def _texts(tensor: TensorData) -> np.ndarray:
    import numpy as np

    count = math.prod(tensor.shape)
    values = np.empty(count, dtype=object)
    if count:  # a text's own NUL was set apart from those between texts when the model was read
        values[:] = [
            text.replace(b"\xc0\x80", b"\0").decode(errors="surrogateescape")
            for text in bytes(tensor.data).split(b"\0")
        ]
    return values


def packed(codes: np.ndarray, bits: int) -> np.ndarray:
    """Elements of ``bits`` bits, given in bytes of their own, without room between them; the first stands in the lowest bits
    (onnx.proto, ``raw_data``)."""
    import numpy as np

    each, together = _group(bits)
    padded = np.pad(codes & (1 << bits) - 1, (0, -codes.size % together)).reshape(-1, together).astype(np.uint32)
    words = np.bitwise_or.reduce(padded << np.arange(0, each * _BYTE_BITS, bits, dtype=np.uint32), axis=1)
    parts = words[:, None] >> np.arange(0, each * _BYTE_BITS, _BYTE_BITS, dtype=np.uint32)
    data: np.ndarray = parts.astype(np.uint8).reshape(-1)
    return data[: -(-codes.size * bits // _BYTE_BITS)]


def unpacked(data: np.ndarray, bits: int, count: int) -> np.ndarray:
    """The inverse of ``packed``: the first ``count`` elements, in bytes of their own."""
    import numpy as np

    each, together = _group(bits)
    codes = np.empty((-(-data.size // each), together), np.uint8)
    padded = np.pad(data, (0, -data.size % each)).reshape(-1, each)
    for position in range(together):
        byte, shift = divmod(position * bits, _BYTE_BITS)
        codes[:, position] = padded[:, byte] >> shift
        if shift + bits > _BYTE_BITS:
            codes[:, position] |= padded[:, byte + 1] << (_BYTE_BITS - shift)
    elements: np.ndarray = codes.reshape(-1)[:count] & (1 << bits) - 1
    return elements


def _group(bits: int) -> tuple[int, int]:
    """The least number of whole bytes that hold whole elements, and how many elements."""
    each = math.lcm(bits, _BYTE_BITS) // _BYTE_BITS
    return each, each * _BYTE_BITS // bits
