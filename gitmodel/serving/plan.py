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
    """What an input must be: the protocol's name of its type, numpy's, and its shape with -1 for what is free."""

    datatype: str
    dtype: Any
    shape: tuple[int, ...]


class Plan:
    """``decode`` takes bodies of one version's callers. For tensors of one kind of numbers and of known rank, none optional."""

    def __init__(self, signature: Signature, element: Any) -> None:
        tensor = msgspec.defstruct(
            "Tensor",
            [
                ("name", str),
                ("shape", list[int]),
                ("datatype", str),
                ("data", list[element]),
                ("parameters", dict[str, Any], {}),
            ],
        )
        call = msgspec.defstruct(
            "Call",
            [
                ("inputs", list[tensor]),  # type: ignore[valid-type]  # a class made just now
                ("id", str | None, None),
                ("parameters", dict[str, Any], {}),
                ("outputs", list[Any] | None, None),
            ],
        )
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
        import numpy as np

        try:
            call = self._decode(body)
            if call.parameters or call.outputs or len(call.inputs) != len(self._specs):
                return None
            inputs: dict[str, np.ndarray] = {}
            for tensor in call.inputs:
                spec = self._specs.get(tensor.name)
                if spec is None or tensor.datatype != spec.datatype or tensor.parameters or tensor.name in inputs:
                    return None
                shape = tensor.shape
                if len(shape) != len(spec.shape) or math.prod(shape) != len(tensor.data):
                    return None
                for want, got in zip(spec.shape, shape, strict=True):
                    if got < 0 or (want >= 0 and got != want):
                        return None
                inputs[tensor.name] = np.array(tensor.data, spec.dtype).reshape(shape)
        except (msgspec.MsgspecError, ValueError, ArithmeticError, RecursionError):
            return None
        return call.id, inputs


def _spec(spec: TensorSpec) -> _Spec:
    import numpy as np

    shape = tuple(d if isinstance(d, int) else -1 for d in spec.shape or ())
    return _Spec(NAMES[spec.dtype], np.dtype(spec.dtype), shape)
