"""TensorFlow Serving's REST API, v1: rows or columns of JSON to arrays and back, status and metadata. No routing here.

Source: tensorflow.org/tfx/serving/api_rest, and what its server does: ``instances`` are rows, ``inputs`` columns; NaN and
infinities are bare tokens, both ways; bytes are ``{"b64": ...}``.
"""

from __future__ import annotations

import base64
import binascii
import json
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec
import orjson
from msgspec import Struct

from gitmodel.bundle.signature import DEFAULT, TensorSpec
from gitmodel.formats.dtypes import dtype_name
from gitmodel.serving import lists
from gitmodel.serving.dataplane import DataplaneError
from gitmodel.serving.servable import Servable, VersionStatus

if TYPE_CHECKING:
    import numpy as np

#: The one signature's name, as TensorFlow's own export has it.
DTYPES = {
    "float16": "DT_HALF", "float32": "DT_FLOAT", "float64": "DT_DOUBLE", "bfloat16": "DT_BFLOAT16", "int8": "DT_INT8",
    "int16": "DT_INT16", "int32": "DT_INT32", "int64": "DT_INT64", "uint8": "DT_UINT8", "uint16": "DT_UINT16",
    "uint32": "DT_UINT32", "uint64": "DT_UINT64", "bool": "DT_BOOL", "string": "DT_STRING", "complex64": "DT_COMPLEX64",
    "complex128": "DT_COMPLEX128",
}  # fmt: skip
#: What TensorFlow calls a model's own signature.
SIGNATURE = "serving_default"
_LISTED = DTYPES.keys() - {"bfloat16", "complex64", "complex128"}
_BYTES = "_bytes"


class Call(Struct, frozen=True):
    """A decoded call: arrays by input name, for ``servable``, which answers the signature that was named; ``rows`` is how many
    instances came, None when columns did."""

    inputs: dict[str, np.ndarray]
    rows: int | None
    servable: Servable


def predict(body: bytes, servable: Servable) -> Call:
    """Raises DataplaneError (invalid_argument) naming what is wrong."""
    document, servable = _document(body, servable)
    by_row, by_column = "instances" in document, "inputs" in document
    if by_row == by_column:
        raise _bad("give either 'instances' (rows) or 'inputs' (columns)")
    if by_column:
        value = document["inputs"]
        columns = value if _is_object(value) else {_only_input(servable, "'inputs' is an object"): value}
        return Call(_arrays(columns, servable), None, servable)
    rows = document["instances"]
    if not isinstance(rows, list) or not rows:
        raise _bad("'instances' is a list of at least one instance")
    if not _is_object(rows[0]):
        columns = {_only_input(servable, "each instance is an object"): rows}
    elif all(isinstance(row, dict) and row.keys() == rows[0].keys() for row in rows):
        columns = {name: [row[name] for row in rows] for name in rows[0]}
    else:
        raise _bad("the instances do not all have the same inputs")
    for name in columns:
        if _spec(servable, name).shape == ():
            raise _bad(f"input '{name}' is a scalar, which has no rows: ask with 'inputs' instead")
    return Call(_arrays(columns, servable), len(rows), servable)


def examples(body: bytes, servable: Servable) -> Call:
    """The features of classify and regress, by example, with those they share. Raises DataplaneError."""
    document, servable = _document(body, servable)
    context, given = document.get("context", {}), document.get("examples")
    if not isinstance(context, dict):
        raise _bad("'context' is an object of features")
    if not isinstance(given, list) or not given or not all(isinstance(example, dict) for example in given):
        raise _bad("'examples' is a list of objects, one at least")
    merged = [{**context, **example} for example in given]
    columns: dict[str, Any] = {}
    for name in dict.fromkeys(key for example in merged for key in example):
        if not all(name in example for example in merged):
            raise _bad(f"feature '{name}' is not in every example")
        spec = _spec(servable, name)
        columns[name] = [_feature(example[name], spec) for example in merged]
    return Call(_arrays(columns, servable), len(merged), servable)


def answer(call: Call, outputs: Mapping[str, Any]) -> bytes:
    """``predictions`` for rows, ``outputs`` for columns; an output that is alone goes without its name."""
    values = {name: _tensor(name, value) for name, value in outputs.items()}
    finite = all(map(_is_finite, values.values()))
    alone = next(iter(values.values())) if len(values) == 1 else None
    if call.rows is None:
        return _dumps({"outputs": values if alone is None else alone}, finite)
    for name, value in values.items():
        if not value.ndim or len(value) != call.rows:
            raise _bad(f"output '{name}' has no row for each instance; ask with 'inputs' instead")
    if alone is not None:
        return _dumps({"predictions": alone}, finite)
    return _dumps(
        {"predictions": [{name: value[i] for name, value in values.items()} for i in range(call.rows)]}, finite
    )


def classes(call: Call, outputs: Mapping[str, Any], labels: Sequence[str]) -> bytes:
    """For each example the labels with their scores: those of the first output that has a score for each class."""
    scores = next((v for v in map(_numeric, outputs.values()) if v is not None and v.ndim == 2), None)
    if scores is None or len(scores) != call.rows:
        raise _bad("the model has no output with scores by class; use predict")
    names = list(labels) if len(labels) == scores.shape[1] else [str(i) for i in range(scores.shape[1])]
    rows = [[[label, row[i]] for i, label in enumerate(names)] for row in scores]
    return _dumps({"results": rows}, _is_finite(scores))


def regressions(call: Call, outputs: Mapping[str, Any]) -> bytes:
    """One number for each example: the only output that has such."""
    found = [v for v in map(_numeric, outputs.values()) if v is not None and v.size == call.rows]
    if len(found) != 1:
        raise _bad("the model has no single output with one number for each example; use predict")
    return _dumps({"results": found[0].reshape(-1)}, _is_finite(found[0]))


def status(versions: Sequence[VersionStatus]) -> dict[str, Any]:
    """The states of a model's versions; a version's number is its place in the order of release."""
    return {"model_version_status": [_status(version) for version in versions]}


def metadata(servable: Servable) -> dict[str, Any]:
    signatures = {
        name: {
            "inputs": {spec.name: _info(spec) for spec in found.signature.inputs},
            "outputs": {spec.name: _info(spec) for spec in found.signature.outputs},
            "method_name": "tensorflow/serving/predict",
        }
        for name, found in _signatures(servable).items()
    }
    spec = {"name": servable.model, "signature_name": "", "version": str(servable.number)}
    return {"model_spec": spec, "metadata": {"signature_def": {"signature_def": signatures}}}


def _signatures(servable: Servable) -> dict[str, Servable]:
    own = {} if servable.called == DEFAULT else {servable.called: servable}
    return {SIGNATURE: servable, **own, **servable.named}


def _status(version: VersionStatus) -> dict[str, Any]:
    code = "INTERNAL" if version.reason else "OK"
    said = {"error_code": code, "error_message": version.reason}
    return {"version": str(version.number), "state": str(version.state), "status": said}


def _info(spec: TensorSpec) -> dict[str, Any]:
    dims = [
        {"size": str(d if isinstance(d, int) else -1), "name": d if isinstance(d, str) else ""}
        for d in spec.shape or ()
    ]
    shape = {"dim": dims, "unknown_rank": spec.shape is None}
    return {"dtype": DTYPES.get(spec.dtype, "DT_INVALID"), "tensor_shape": shape, "name": spec.name}


def _document(body: bytes, servable: Servable) -> tuple[dict[str, Any], Servable]:
    """The call, and who answers the signature it names. What else stands in it is passed over, as in the original."""
    try:
        value = _loads(body)
    except (ValueError, RecursionError) as error:
        raise _bad(f"the request is not valid: {error}") from None
    if not isinstance(value, dict):
        raise _bad("the request must be a JSON object")
    return value, named(servable, value.get("signature_name", ""))


def named(servable: Servable, name: object) -> Servable:
    """Who answers the signature of that name; TensorFlow's own is the model's own, unless another is called so. Raises
    DataplaneError."""
    if name == SIGNATURE and name not in servable.named:
        return servable
    try:
        return servable.by_signature(name) if isinstance(name, str) else servable.named[""]
    except KeyError:
        known = ", ".join(repr(known) for known in _signatures(servable))
        raise _bad(f"the model has no signature {str(name)[:80]!r}; it has {known}") from None


def _loads(body: bytes) -> Any:
    """JSON, with NaN, Infinity and -Infinity, which a strict parser refuses. Raises ValueError, RecursionError."""
    try:
        return msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return json.loads(body, parse_float=_finite)


def _finite(text: str) -> float:
    """Raises ValueError for a number too large for any type, which Python would take for infinity."""
    if math.isinf(value := float(text)):
        raise ValueError("Number out of range")
    return value


def _dumps(value: Any, finite: bool) -> bytes:
    """JSON, with NaN and infinities as bare tokens where there are any."""
    if finite:
        return orjson.dumps(value, option=orjson.OPT_SERIALIZE_NUMPY, default=_plain)
    return json.dumps(value, default=_plain, separators=(",", ":")).encode()


def _is_finite(value: np.ndarray) -> bool:
    import numpy as np

    return value.dtype.kind != "f" or bool(np.isfinite(value).all())


def _plain(value: Any) -> Any:
    """Arrays and numbers of numpy that the encoder does not know; floats by their shortest text, as it writes them."""
    import numpy as np

    if isinstance(value, np.ndarray):
        return [_plain(item) for item in value] if value.ndim else _plain(value[()])
    if isinstance(value, np.floating):
        return float(str(value))
    return value.item() if isinstance(value, np.generic) else value


def _arrays(columns: Mapping[str, Any], servable: Servable) -> dict[str, np.ndarray]:
    inputs = {}
    for name, data in columns.items():
        spec = _spec(servable, name)
        if spec.dtype not in _LISTED:
            raise DataplaneError("unimplemented", f"input '{name}' is {spec.dtype}, which JSON does not carry here")
        try:
            inputs[name] = lists.array(
                _decoded(data) if spec.dtype == "string" else data, spec.dtype, DTYPES[spec.dtype]
            )
        except ValueError as error:
            raise _bad(f"input '{name}': {error}") from None
    return inputs


def _decoded(data: Any) -> Any:
    """``{"b64": ...}`` anywhere in the lists becomes the text it holds. Raises ValueError."""
    if isinstance(data, list):
        return [_decoded(item) for item in data]
    if not _is_b64(data):
        return data
    try:
        return base64.b64decode(data["b64"], validate=True).decode()
    except (binascii.Error, UnicodeDecodeError, TypeError, ValueError):
        raise ValueError("a 'b64' does not hold UTF-8 text in base64") from None


def _feature(value: Any, spec: TensorSpec) -> Any:
    """A feature of one example as a row of the input: a list where the input has columns, a bare value where it has none."""
    if spec.shape is None:
        return value
    if len(spec.shape) == 1 and isinstance(value, list) and len(value) == 1:
        return value[0]
    return [value] if len(spec.shape) == 2 and not isinstance(value, list) else value


def _tensor(name: str, value: Any) -> Any:
    """The output as JSON takes it. Raises DataplaneError."""
    import numpy as np

    if not isinstance(value, np.ndarray):
        raise DataplaneError("unimplemented", f"output '{name}' is no tensor; this protocol carries tensors only")
    kind = dtype_name(value.dtype)
    if kind not in _LISTED:
        raise DataplaneError("unimplemented", f"output '{name}' is {kind}, which JSON does not carry here")
    if kind == "string" and name.endswith(_BYTES):
        return _each(value, lambda item: {"b64": base64.b64encode(str(item).encode()).decode()})
    return value if kind == "string" or value.flags.c_contiguous else value.copy()


def _each(values: np.ndarray, make: Callable[[Any], Any]) -> np.ndarray:
    import numpy as np

    made = np.empty(values.shape, object)
    made.reshape(-1)[:] = [make(item) for item in values.reshape(-1)]
    return made


def _numeric(value: Any) -> np.ndarray | None:
    import numpy as np

    return value if isinstance(value, np.ndarray) and value.dtype.kind == "f" else None


def _only_input(servable: Servable, otherwise: str) -> str:
    """The name of the input that goes without it."""
    specs = servable.signature.inputs
    wanted = [spec for spec in specs if not spec.optional] or list(specs)
    if len(wanted) != 1:
        names = ", ".join(spec.name for spec in specs)
        raise _bad(f"the model has several inputs ({names}): {otherwise} that names them")
    return wanted[0].name


def _spec(servable: Servable, name: str) -> TensorSpec:
    spec = servable.signature.input(name)
    if spec is None:
        names = ", ".join(spec.name for spec in servable.signature.inputs)
        raise _bad(f"the model has no input '{name[:80]}'; it wants {names}")
    return spec


def _is_object(value: Any) -> bool:
    return isinstance(value, dict) and not _is_b64(value)


def _is_b64(value: Any) -> bool:
    return isinstance(value, dict) and value.keys() == {"b64"}


def _bad(message: str) -> DataplaneError:
    return DataplaneError("invalid_argument", message)
