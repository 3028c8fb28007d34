"""The call that nearly all calls are: JSON, flat lists of numbers, all outputs wanted. A plan made once per version decodes it with
the checks done by the decoder; whatever does not fit the plan takes the general way, whose errors say what is wrong."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
from msgspec import Meta, Struct

from gitmodel.bundle.signature import Signature, TensorSpec
from gitmodel.serving.oip import NAMES

if TYPE_CHECKING:
    import numpy as np

_INTEGERS = {"int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"}
#: The largest finite float32: what is beyond it is refused, never made infinite.
_LARGEST = 3.4028234663852886e38
_KINDS: tuple[tuple[set[str], Any], ...] = (
    ({"float32"}, Annotated[float, Meta(ge=-_LARGEST, le=_LARGEST)]),
    ({"float64"}, float),
    (_INTEGERS, int),
)


class _Spec(Struct, frozen=True):
    """What an input must be: the protocol's name of its type, numpy's, its rank, and the sizes that are fixed, by axis.
    ``loose`` where several are not, so that two could be negative and their product right."""

    datatype: str
    dtype: Any
    rank: int
    fixed: tuple[tuple[int, int], ...]
    loose: bool


class Plan:
    """``decode`` takes bodies of one version's callers. For tensors of one kind of numbers and of known rank, none optional."""

    def __init__(self, signature: Signature, element: Any) -> None:
        tensor = msgspec.defstruct(
            "Tensor",
            [("name", str), ("shape", list[int]), ("datatype", str), ("data", list[element])],
            forbid_unknown_fields=True,
            gc=False,
        )
        call = msgspec.defstruct(
            "Call",
            [("inputs", list[tensor]), ("id", str | None, None)],  # type: ignore[valid-type]  # a class made just now
            forbid_unknown_fields=True,
            gc=False,
        )
        import numpy as np

        self._array = np.array
        self._decode: Any = msgspec.json.Decoder(call).decode
        self._specs = {spec.name: _spec(spec) for spec in signature.inputs}

    @classmethod
    def of(cls, signature: Signature) -> Plan | None:
        """None for a signature that is not as simple."""
        inputs = signature.inputs
        simple = all(s.kind == "tensor" and s.shape is not None and not s.optional for s in inputs)
        for dtypes, element in _KINDS if inputs and simple else ():
            if all(spec.dtype in dtypes for spec in inputs):
                return cls(signature, element)
        return None

    def decode(self, body: bytes) -> tuple[str | None, dict[str, np.ndarray]] | None:
        """The call's id and its arrays by input name, which fit the signature; None when the body does not fit the plan."""
        try:
            call = self._decode(body)
            inputs: dict[str, np.ndarray] = {}
            for tensor in call.inputs:
                spec, shape, data = self._specs[tensor.name], tensor.shape, tensor.data
                if tensor.datatype != spec.datatype or len(shape) != spec.rank or math.prod(shape) != len(data):
                    return None
                for axis, size in spec.fixed:
                    if shape[axis] != size:
                        return None
                if spec.loose and min(shape) < 0:
                    return None
                inputs[tensor.name] = self._array(data, spec.dtype).reshape(shape)
        except (msgspec.MsgspecError, KeyError, ValueError, ArithmeticError, RecursionError):
            return None
        if len(inputs) != len(self._specs) or len(inputs) != len(call.inputs):
            return None
        return call.id, inputs


def _spec(spec: TensorSpec) -> _Spec:
    import numpy as np

    sizes = spec.shape or ()
    fixed = tuple((axis, size) for axis, size in enumerate(sizes) if isinstance(size, int))
    return _Spec(NAMES[spec.dtype], np.dtype(spec.dtype), len(sizes), fixed, len(sizes) - len(fixed) > 1)
