"""gitmodel.runtime against the real ONNX Runtime: what runs, and how its refusals read."""

from __future__ import annotations

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper

from gitmodel.runtime import LoadFailed, RunFailed, clean, open_session, version
from tests import support
from tests.workflows import state

X = np.linspace(-1, 1, 8, dtype="float32").reshape(2, 4)


@pytest.fixture
def linear(tmp_path: Path) -> Path:
    return state.write(support.linear_model(), tmp_path / "linear.onnx")


def test_a_session_gives_outputs_by_name(linear: Path) -> None:
    session = open_session(linear)
    assert (session.input_names, session.output_names) == (("x",), ("scores",))
    plain = onnxruntime.InferenceSession(str(linear)).run(None, {"x": X})[0]
    assert np.allclose(session.run({"x": X})["scores"], plain, rtol=1e-6)


def test_the_runtime_tells_nobody_of_the_models_it_runs(linear: Path, tmp_path: Path) -> None:
    """Its telemetry has a thread from the import on, and what waits to be sent lies in the user's cache."""
    code = (
        "import os, sys; from pathlib import Path; from gitmodel import runtime\n"
        "before = len(os.listdir('/proc/self/task'))\n"
        "runtime.load_library(); print(len(os.listdir('/proc/self/task')) - before)\n"
        "runtime.open_session(Path(sys.argv[1]))"
    )
    # It says nothing in tests and in what calls itself CI: this is a user's machine.
    loud = {key: value for key, value in os.environ.items() if key != "CI" and not key.startswith("ORT_")}
    given = {**loud, "HOME": str(tmp_path / "home"), "OPENBLAS_NUM_THREADS": "1"}
    given.pop("XDG_CACHE_HOME", None)
    command = [sys.executable, "-c", f"import numpy\n{code}", str(linear)]
    done = subprocess.run(command, env=given, capture_output=True, text=True, check=True)
    assert done.stdout == "0\n"
    assert not (tmp_path / "home").exists()


@pytest.mark.parametrize(("threads", "prepack"), [(1, False), (2, True)])
def test_how_it_is_opened_does_not_change_what_it_gives(tmp_path: Path, threads: int, prepack: bool) -> None:
    path = state.write(support.wide_model(), tmp_path / "wide.onnx")
    x = np.linspace(-1, 1, 600, dtype="float32").reshape(3, 200)
    usual, other = open_session(path), open_session(path, threads=threads, prepack=prepack)
    assert np.allclose(usual.run({"x": x})["h1"], other.run({"x": x})["h1"], rtol=1e-4, atol=1e-6)


def test_only_the_outputs_asked_for_are_given(tmp_path: Path) -> None:
    nodes = [helper.make_node("Neg", ["x"], ["minus"]), helper.make_node("Abs", ["x"], ["size"])]
    outputs = [support.value_info(name, "float32", ["n"]) for name in ("minus", "size")]
    path = state.write(
        support.model(nodes, [support.value_info("x", "float32", ["n"])], outputs), tmp_path / "two.onnx"
    )
    session = open_session(path)
    x = np.array([-1, 2], "float32")
    assert list(session.run({"x": x}, ["size"])) == ["size"]
    assert list(session.run({"x": x})) == ["minus", "size"]
    with pytest.raises(RunFailed, match="nothing"):
        session.run({"x": x}, ["nothing"])


def test_several_threads_may_run_one_session(linear: Path) -> None:
    session = open_session(linear)
    expected = session.run({"x": X})["scores"]
    with ThreadPoolExecutor(4) as pool:
        for outputs in pool.map(lambda _: session.run({"x": X}), range(50)):
            assert np.array_equal(outputs["scores"], expected)


@pytest.mark.parametrize(
    ("inputs", "said"),
    [
        ({}, "x"),
        ({"y": X}, "y"),
        ({"x": X[:, :3]}, "Got: 3 Expected: 4"),
        ({"x": X.astype("float64")}, "double"),
        ({"x": X[0]}, "rank"),
    ],
)
def test_a_refusal_is_one_line_in_the_runtimes_words(linear: Path, inputs: dict[str, np.ndarray], said: str) -> None:
    with pytest.raises(RunFailed) as caught:
        open_session(linear).run(inputs)
    assert said in caught.value.message
    assert_plain(caught.value.message)
    assert caught.value.code == "run-failed"


def assert_plain(text: str) -> None:
    """Words for a user: one line, no source paths, no C++."""
    assert "\n" not in text
    for noise in ("/onnxruntime/", ".cc:", "std::", "onnxruntime::", "const ", "[ONNXRuntimeError]"):
        assert noise not in text, text


def newer_ir(model: onnx.ModelProto) -> None:
    model.ir_version = 99


def newer_opset(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 999


def unknown_operator(model: onnx.ModelProto) -> None:
    model.graph.node[0].op_type = "NoSuchOperator"


def foreign_domain(model: onnx.ModelProto) -> None:
    model.graph.node[0].domain = "com.example.custom"


def missing_edge(model: onnx.ModelProto) -> None:
    model.graph.node[0].input[0] = "from-nowhere"


def wrong_type(model: onnx.ModelProto) -> None:
    model.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.STRING


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (newer_ir, "Unsupported model IR version: 99"),
        (newer_opset, "Opset 999"),
        (unknown_operator, "NoSuchOperator"),
        (foreign_domain, "com.example.custom"),
        (missing_edge, "from-nowhere"),
        (wrong_type, "scores"),
    ],
)
def test_a_model_the_runtime_will_not_load_is_named_with_the_reason(tmp_path: Path, change: object, said: str) -> None:
    model = support.linear_model()
    change(model)  # type: ignore[operator]  # pytest's parameters are objects
    path = state.write(model, tmp_path / "odd.onnx")
    with pytest.raises(LoadFailed) as caught:
        open_session(path)
    assert said in caught.value.message
    assert "odd.onnx" in caught.value.message
    assert_plain(caught.value.message)
    with pytest.raises(LoadFailed, match="fraud@v1"):
        open_session(path, label="fraud@v1")


def test_a_newer_model_gets_the_advice_to_export_for_this_runtime(tmp_path: Path) -> None:
    for change in (newer_ir, newer_opset):
        model = support.linear_model()
        change(model)
        with pytest.raises(LoadFailed) as caught:
            open_session(state.write(model, tmp_path / "new.onnx"))
        assert f"ONNX Runtime {onnxruntime.__version__}" in caught.value.hint
        assert "older opset and IR version" in caught.value.hint


@pytest.mark.parametrize("data", [b"", b"not a model", bytes(range(256)) * 8])
def test_what_is_no_model_is_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "junk.onnx"
    path.write_bytes(data)
    with pytest.raises(LoadFailed, match=r"junk\.onnx") as caught:
        open_session(path)
    assert_plain(caught.value.message)
    with pytest.raises(LoadFailed, match=r"absent\.onnx"):
        open_session(tmp_path / "absent.onnx")


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        ("[ONNXRuntimeError] : 2 : INVALID_ARGUMENT : Invalid input name: y", "Invalid input name: y"),
        ("Load model from /tmp/a.onnx failed:Protobuf parsing failed.", "Protobuf parsing failed."),
        ("/x/onnxruntime/core/a.cc:12 Run it was empty", "it was empty"),
        ("/x/onnxruntime/core/a.cc:12 ns::Model(const P&, f(int)) Unsupported", "Unsupported"),
        ("two\n  lines", "two lines"),
        ("plain (with words)", "plain (with words)"),
        ("x" * 1000, "x" * 400),
    ],
)
def test_messages_are_cleaned_of_what_is_not_for_a_user(raw: str, text: str) -> None:
    assert clean(raw) == text


def test_the_version_is_that_of_the_runtime() -> None:
    assert version() == onnxruntime.__version__


def test_the_version_is_known_without_the_runtime_and_without_a_parser_of_mail() -> None:
    code = "import sys; from gitmodel import runtime; print(runtime.version(), {'onnxruntime', 'email.parser'} & sys.modules.keys())"
    assert support.run("python", "-c", code).stdout == f"{onnxruntime.__version__} set()\n"


def test_a_graph_that_is_not_optimised_answers_the_same(linear: Path) -> None:
    x = np.ones((2, 4), "float32")
    usual, plain = (open_session(linear, optimise=optimise).run({"x": x})["scores"] for optimise in (True, False))
    np.testing.assert_allclose(usual, plain, rtol=1e-6)
