"""Nested lists, as JSON has them, to arrays of one type: a value that is not one of the type's is refused, never bent."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

_KINDS = {"b": "b", "u": "iu", "i": "iu", "f": "iuf"}
_LEAVES: dict[str, set[type]] = {"b": {bool}, "u": {int}, "i": {int}, "f": {int, float}}


def array(data: Any, dtype: str, called: str) -> np.ndarray:
    """``called`` is what the protocol calls the type, for whoever reads the error. Raises ValueError."""
    import numpy as np

    try:
        return _strings(data, called) if dtype == "string" else _numbers(data, np.dtype(dtype), called)
    except (OverflowError, FloatingPointError):  # in words of Python's and numpy's
        raise ValueError(f"a value does not fit {called}") from None
    except (ValueError, TypeError) as error:
        ragged = "inhomogeneous" in str(error)
        raise ValueError("the lists are ragged" if ragged else str(error)) from None


def _strings(data: Any, called: str) -> np.ndarray:
    import numpy as np

    values = np.array(data, dtype=object)
    if not all(isinstance(item, str) for item in values.reshape(-1)):
        raise ValueError(f"{called} takes strings")
    return values


def _numbers(data: Any, wanted: np.dtype, called: str) -> np.ndarray:
    """The values in the wanted type, if each of them is one of its values. Raises ValueError, OverflowError and kin."""
    import numpy as np

    values = np.array(data)
    if values.size == 0:
        return values.astype(wanted)
    if values.dtype.kind not in _KINDS[wanted.kind] or _hides_a_bool(data, values):
        # numpy mixes what it finds (true among numbers, large among small integers): look at the leaves themselves.
        leaves = np.array(data, dtype=object)
        if not all(type(leaf) in _LEAVES[wanted.kind] for leaf in leaves.reshape(-1)):
            raise ValueError(f"the data are not {called}")
        values = leaves
    if wanted.kind in "iu" and (int(values.min()) < np.iinfo(wanted).min or int(values.max()) > np.iinfo(wanted).max):
        raise ValueError(f"a value does not fit {called}")
    with np.errstate(over="raise"):
        return values.astype(wanted)


def _hides_a_bool(data: Any, values: np.ndarray) -> bool:
    """Whether ``true`` could have been taken for 1: a flat list of numbers is looked through, at C speed."""
    if values.dtype.kind == "b":
        return False
    flat = data if values.ndim == 1 else _flat(data)
    return bool in set(map(type, flat))


def _flat(data: Any) -> list[Any]:
    while isinstance(data, list) and data and isinstance(data[0], list):
        data = [leaf for row in data for leaf in row]
    return data if isinstance(data, list) else [data]
