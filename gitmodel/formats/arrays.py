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
    ``str`` objects; 4- and 2-bit elements are a copy, a byte each."""
    import numpy as np

    values: np.ndarray
    if tensor.dtype == "string":
        values = _texts(tensor)
    elif is_native(tensor.dtype):
        values = np.frombuffer(tensor.data, storage(tensor.dtype, ())[0])
    else:
        import ml_dtypes

        kind = np.dtype(getattr(ml_dtypes, _NAMES[tensor.dtype]))
        values = _unpacked(tensor).view(kind)
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


def _unpacked(tensor: TensorData) -> np.ndarray:
    """The bits of each element in bytes of their own; the first element stands in the lowest bits (onnx.proto)."""
    import numpy as np

    bits = nbytes(tensor.dtype, (_BYTE_BITS,))
    if bits >= _BYTE_BITS:
        return np.frombuffer(tensor.data, storage(tensor.dtype, ())[0])
    packed = np.frombuffer(tensor.data, np.uint8)[:, None]
    parts = packed >> np.arange(0, _BYTE_BITS, bits, dtype=np.uint8) & (1 << bits) - 1
    return parts.astype(np.uint8).reshape(-1)[: math.prod(tensor.shape)]
