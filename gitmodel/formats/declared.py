"""What a file says of its tensors in JSON, believed only after it was checked; and the marks of types a format lacks."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from typing import Any, NoReturn

from gitmodel.bundle.signature import DTYPES
from gitmodel.formats.dtypes import nbytes
from gitmodel.formats.source import TensorData, blocks

#: What HDF5 takes, where every tensor ends.
MAX_RANK = 32
_MAX_BYTES = 1 << 62
_WIDEST = 16


def load_json(data: bytes | str) -> dict[str, Any]:
    """The object in ``data``. Raises ValueError for all else, and for what parsers disagree about: a key that stands
    twice, NaN, half a surrogate pair."""
    try:
        value = json.loads(
            data.decode() if isinstance(data, bytes) else data,
            object_pairs_hook=_unique,
            parse_constant=_refuse_constant,
        )
    except RecursionError:
        raise ValueError("it nests too deep") from None
    if not isinstance(value, dict):
        raise ValueError("it is no object")  # noqa: TRY004 (a fact about the data, as all others here)
    return value


def dump_json(value: Any) -> str:
    """Compact, as serde_json writes it."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def texts(value: Any) -> dict[str, str]:
    """``value`` if it maps text to text. Raises ValueError."""
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise ValueError("it does not map text to text")
    check_text(*value, *value.values())
    return value


def check_text(*given: str) -> None:
    """Raises ValueError for half a surrogate pair, which is no text."""
    for text in given:
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ValueError(f"{text[:40]!r} is no text") from None


def shape(value: Any) -> tuple[int, ...]:
    """``value`` if it is a shape that every format and numpy can hold. Raises ValueError."""
    if not isinstance(value, (list, tuple)) or not all(type(dim) is int and dim >= 0 for dim in value):
        raise ValueError(f"{str(value)[:60]} is no shape")
    if len(value) > MAX_RANK:
        raise ValueError(f"it has {len(value)} dimensions, at most {MAX_RANK} can be kept")
    if math.prod(dim or 1 for dim in value) * _WIDEST > _MAX_BYTES:
        raise ValueError(f"the shape {list(value)} is beyond all memory")
    return tuple(value)


def mark(tensor: TensorData) -> dict[str, Any]:
    """What has to be said of a tensor that is kept as integers."""
    return {"dtype": tensor.dtype, "shape": list(tensor.shape)}


def marked(said: Any, name: str, data: memoryview) -> TensorData:
    """The tensor that ``mark`` describes. Raises ValueError when ``data`` cannot be it."""
    if not isinstance(said, dict) or said.keys() != {"dtype", "shape"} or said["dtype"] not in sorted(DTYPES):
        raise ValueError(f"it is marked {str(said)[:60]}, which is no type and shape")
    dtype, dims = said["dtype"], shape(said["shape"])
    is_text = dtype == "string" and math.prod(dims) > 0  # one empty text and none at all have the same bytes
    if not (_count_texts(data) == math.prod(dims) if is_text else len(data) == nbytes(dtype, dims)):
        raise ValueError(f"it is marked {dtype}{list(dims)} but has {len(data)} bytes of something else")
    return TensorData(name, dtype, dims, data)


def _count_texts(data: memoryview) -> int:
    """How many texts joined by NUL these are, if any."""
    return sum(bytes(block).count(0) for block in blocks(data)) + 1


def _unique(pairs: Iterable[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"{key[:60]!r} stands in it twice")
        found[key] = value
    return found


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")
