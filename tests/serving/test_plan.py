"""gitmodel.serving.plan: what it decodes is what the general way decodes, and what it does not take the general way judges."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gitmodel.bundle.signature import Signature, TensorSpec
from gitmodel.serving import dataplane, oip
from gitmodel.serving.dataplane import DataplaneError
from gitmodel.serving.plan import Plan
from gitmodel.serving.servable import Servable

#: numpy's names of the types that plans are made for, with the protocol's.
NUMBERS = {dtype: name for name, dtype in oip.DATATYPES.items() if dtype not in ("bool", "string", "float16")}


def signature(*specs: tuple[str, str, tuple[int | str | None, ...]], **more: Any) -> Signature:
    return Signature(tuple(TensorSpec(name, dtype, shape, **more) for name, dtype, shape in specs), ())


def servable(model: Signature) -> Servable:
    return Servable("m", "v1.0.0", 1, "c", "d", "onnx", model, None, 0.0, 0, 0)  # type: ignore[arg-type]  # nothing is run


def general(model: Signature, body: bytes) -> dict[str, np.ndarray]:
    """Raises DataplaneError."""
    request = oip.decode(body, None, servable(model))
    dataplane.check(model, request.inputs, request.outputs)
    return request.inputs


def call(data: Any, shape: Any, datatype: Any = "FP32", name: Any = "x", **more: Any) -> bytes:
    return json.dumps({"inputs": [{"name": name, "shape": shape, "datatype": datatype, "data": data}], **more}).encode()


ONE = signature(("x", "float32", ("batch", 2)))


@pytest.mark.parametrize("dtype", NUMBERS)
def test_each_type_of_numbers_is_decoded_as_the_general_way_does(dtype: str) -> None:
    kind: Any = np.finfo(dtype) if dtype.startswith("float") else np.iinfo(dtype)
    data = [*np.array([kind.min, kind.max], dtype).tolist(), 0, 1]
    model = signature(("x", dtype, ("batch", 2)))
    plan = Plan.of(model)
    assert plan is not None
    decoded = plan.decode(call(data, [2, 2], NUMBERS[dtype], id="a"))
    assert decoded is not None
    name, inputs = decoded
    assert name == "a"
    wanted = general(model, call(data, [2, 2], NUMBERS[dtype]))
    assert inputs["x"].dtype == wanted["x"].dtype == dtype
    assert np.array_equal(inputs["x"], wanted["x"])


@pytest.mark.parametrize(
    "model",
    [
        signature(),
        signature(("x", "string", (1,))),
        signature(("x", "bool", (1,))),
        signature(("x", "float16", (1,))),
        signature(("x", "float32", (1,)), ("y", "int64", (1,))),
        signature(("x", "float32", (1,)), optional=True),
        Signature((TensorSpec("x", "float32", None),), ()),
        Signature((TensorSpec("x", "float32", (1,), kind="sequence"),), ()),
    ],
)
def test_what_is_not_as_simple_has_no_plan(model: Signature) -> None:
    assert Plan.of(model) is None


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        call([1.0, True], [1, 2]),
        call([1.0, "2"], [1, 2]),
        call([[1.0, 2.0]], [1, 2]),
        call([1.0, None], [1, 2]),
        call([1e39, 0.0], [1, 2]),
        b'{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":[1e400,0]}]}',
        b'{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":[NaN,0]}]}',
        call([1.0, 2.0], [2, 1]),
        call([1.0, 2.0], [2]),
        call([1.0, 2.0], [-1, -2]),
        call([1.0, 2.0], [1, 3]),
        call([1.0, 2.0], [10**30, 2]),
        call([1.0, 2.0], [1, 2], "FP64"),
        call([1.0, 2.0], [1, 2], "FP99"),
        call([1.0, 2.0], [1, 2], name="y"),
        call([1.0, 2.0], [1, 2], parameters={"binary_data_output": True}),
        call([1.0, 2.0], [1, 2], outputs=[{"name": "y"}]),
        json.dumps({"inputs": json.loads(call([1.0, 2.0], [1, 2]))["inputs"] * 2}).encode(),
        json.dumps({"inputs": []}).encode(),
        b"[" * 100_000,
    ],
)
def test_what_does_not_fit_goes_the_general_way(body: bytes) -> None:
    plan = Plan.of(ONE)
    assert plan is not None
    assert plan.decode(body) is None


_LEAF = st.one_of(st.floats(), st.integers(), st.booleans(), st.none(), st.text(max_size=2))
_DATA = st.one_of(st.lists(_LEAF, max_size=6), st.lists(st.floats(width=32, allow_nan=False), max_size=6), _LEAF)
_SHAPE = st.one_of(st.lists(st.integers(-2, 6), max_size=3), st.integers(1, 3).map(lambda n: [n, 2]))


@given(_DATA, _SHAPE, st.sampled_from([*oip.DATATYPES, "x"]), st.sampled_from([*NUMBERS]))
def test_what_it_takes_the_general_way_takes_alike(data: Any, shape: Any, datatype: str, dtype: str) -> None:
    model = signature(("x", dtype, ("batch", 2)))
    plan = Plan.of(model)
    assert plan is not None
    body = call(data, shape, datatype)
    decoded = plan.decode(body)
    if decoded is None:
        return
    try:
        wanted = general(model, body)
    except DataplaneError as error:
        raise AssertionError(f"the general way refuses it: {error.message}") from None
    assert np.array_equal(decoded[1]["x"], wanted["x"])
    assert decoded[1]["x"].dtype == wanted["x"].dtype


@given(st.lists(st.floats(width=32, allow_nan=False, allow_infinity=False), min_size=2, max_size=40))
def test_usual_calls_are_taken(values: list[float]) -> None:
    plan = Plan.of(ONE)
    assert plan is not None
    values = values[: len(values) // 2 * 2]
    decoded = plan.decode(call(values, [len(values) // 2, 2]))
    assert decoded is not None
    assert np.array_equal(decoded[1]["x"], np.array(values, "float32").reshape(-1, 2))
