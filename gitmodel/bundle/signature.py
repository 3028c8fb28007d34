"""Signatures: what goes in and what comes out. Values and their YAML; how to read one from a model file is formats/."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct, field

from gitmodel.bundle import yamlio

#: A dimension: a fixed size, a symbol that may take any size, or None where nothing is said.
Dim = int | str | None
SCHEMA_VERSION = 1
DEFAULT = "default"
KINDS = ("tensor", "sequence", "map", "optional")
#: numpy's names, plus ONNX's own types that numpy lacks.
DTYPES = frozenset(
    {
        "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32",
        "float64", "complex64", "complex128", "string", "bfloat16", "float8e4m3fn", "float8e4m3fnuz", "float8e5m2",
        "float8e5m2fnuz", "float8e8m0", "int4", "uint4", "int2", "uint2", "float4e2m1",
        "float6e2m3", "float6e3m2",
    }
)  # fmt: skip


class TensorSpec(Struct, frozen=True):
    """One named input or output.

    ``shape`` has one entry per dimension, or is None when the rank is unknown. ``optional`` inputs have a
    default inside the model (an initializer of the same name). ``kind`` is ``tensor`` unless the value is a
    sequence, map or optional; then ``dtype`` is that of its elements and ``key`` the key type of a map.
    """

    name: str
    dtype: str
    shape: tuple[Dim, ...] | None
    kind: str = "tensor"
    key: str = ""
    optional: bool = False

    def to_dict(self) -> dict[str, Any]:
        out: dict[str, Any] = {"name": self.name, "dtype": self.dtype}
        if self.shape is not None:
            out["shape"] = list(self.shape)
        if self.kind != "tensor":
            out["kind"] = self.kind
        if self.key:
            out["key"] = self.key
        if self.optional:
            out["optional"] = True
        return out

    @classmethod
    def from_dict(cls, value: Any, where: str) -> TensorSpec:
        """Raises InvalidYaml."""
        if not isinstance(value, dict):
            raise yamlio.InvalidYaml(
                f"{where} must be a mapping", hint="write {name: x, dtype: float32, shape: [batch, 4]}"
            )
        yamlio.check_keys(value, {"name", "dtype", "shape", "kind", "key", "optional"}, where)
        name, dtype, shape = value.get("name"), value.get("dtype"), value.get("shape")
        if not isinstance(name, str) or not name:
            raise yamlio.InvalidYaml(f"{where} has no name", hint="give it the name the model uses")
        if not isinstance(dtype, str) or dtype not in DTYPES:
            raise yamlio.InvalidYaml(
                f"{where} '{name}' has dtype {dtype!r}", hint="use a dtype such as float32 or int64"
            )
        kind, key, optional = value.get("kind", "tensor"), value.get("key", ""), value.get("optional", False)
        if kind not in KINDS or not isinstance(key, str) or not isinstance(optional, bool):
            raise yamlio.InvalidYaml(
                f"{where} '{name}' has a bad kind, key or optional", hint=f"kinds: {', '.join(KINDS)}"
            )
        return cls(name, dtype, _shape(shape, f"{where} '{name}'"), kind, key, optional)

    @property
    def type(self) -> str:
        """The type as a person writes it: ``float32[batch, 64]``."""
        dims = "?" if self.shape is None else ", ".join("?" if d is None else str(d) for d in self.shape)
        kind = "" if self.kind == "tensor" else f"{self.kind} of "
        return f"{kind}{self.dtype}[{dims}]"

    def __str__(self) -> str:
        return f"{self.name}: {self.type}"


class Signature(Struct, frozen=True):
    """Inputs and outputs in the order the model has them."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def input(self, name: str) -> TensorSpec | None:
        return next((spec for spec in self.inputs if spec.name == name), None)

    def to_dict(self) -> dict[str, Any]:
        return {"inputs": [s.to_dict() for s in self.inputs], "outputs": [s.to_dict() for s in self.outputs]}

    @classmethod
    def from_dict(cls, value: Any, where: str) -> Signature:
        """Raises InvalidYaml."""
        if not isinstance(value, dict):
            raise yamlio.InvalidYaml(f"{where} must have inputs and outputs", hint="save the model again")
        yamlio.check_keys(value, {"inputs", "outputs"}, where)
        sides = []
        for side in ("inputs", "outputs"):
            specs = value.get(side, [])
            if not isinstance(specs, list):
                raise yamlio.InvalidYaml(f"{where}: {side} must be a list", hint="save the model again")
            parsed = tuple(TensorSpec.from_dict(spec, f"{where}: {side}[{i}]") for i, spec in enumerate(specs))
            if len({spec.name for spec in parsed}) != len(parsed):
                raise yamlio.InvalidYaml(f"{where}: a name stands twice in {side}", hint="names must differ")
            sides.append(parsed)
        return cls(sides[0], sides[1])


class Signatures(Struct, frozen=True):
    """The named signatures of a bundle (``signature.yaml``). A checkpoint without a graph has none."""

    by_name: Mapping[str, Signature] = field(default_factory=dict)

    def to_yaml(self) -> str:
        body = {name: signature.to_dict() for name, signature in self.by_name.items()}
        return yamlio.dump({"schema_version": SCHEMA_VERSION, "signatures": body})

    @classmethod
    def from_yaml(cls, data: bytes | str, where: str) -> Signatures:
        """Raises InvalidYaml."""
        value = yamlio.load_mapping(data, where)
        yamlio.check_keys(value, {"schema_version", "signatures"}, where)
        if value.get("schema_version") != SCHEMA_VERSION:
            raise yamlio.InvalidYaml(
                f"{where} has schema_version {value.get('schema_version')!r}",
                hint=f"this gitmodel reads {SCHEMA_VERSION}",
            )
        signatures = value.get("signatures") or {}
        if not isinstance(signatures, dict):
            raise yamlio.InvalidYaml(f"{where}: signatures must be a mapping", hint="save the model again")
        return cls({str(name): Signature.from_dict(body, f"{where}: {name}") for name, body in signatures.items()})


def _shape(value: Any, where: str) -> tuple[Dim, ...] | None:
    if value is None:
        return None
    if not isinstance(value, list):
        raise yamlio.InvalidYaml(f"{where}: shape must be a list", hint="such as [batch, 64]")
    for dim in value:
        known = (
            dim is None
            or isinstance(dim, str)
            or (isinstance(dim, int) and not isinstance(dim, bool) and 0 <= dim < 2**63)
        )
        if not known:
            raise yamlio.InvalidYaml(f"{where}: dimension {dim!r}", hint="a dimension is a size, a symbol or empty")
    return tuple(value)
