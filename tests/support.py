"""What tests build with: real models made with the onnx library, real commands."""

from __future__ import annotations

import contextlib
import resource
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

#: What ONNX Runtime in the lock file reads; the onnx library writes newer ones by default.
IR_VERSION, OPSET = 10, 21
BIN = Path(sys.executable).parent


@contextlib.contextmanager
def memory(more: int) -> Iterator[None]:
    """This process gets ``more`` bytes of addresses beyond those it has, and no others."""
    before = resource.getrlimit(resource.RLIMIT_AS)
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + more, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def git(repo: Path, *args: str, check: bool = True) -> str:
    """Runs real Git and returns its stdout."""
    done = subprocess.run(["git", "-C", str(repo), *args], capture_output=True, text=True, check=False)
    if check and done.returncode:
        raise AssertionError(f"git {' '.join(args)}: {done.stderr}")
    return done.stdout.strip()


def run(*argv: str | Path, cwd: Path | None = None, **options: Any) -> subprocess.CompletedProcess[str]:
    """Runs a command of the environment (``gitmodel``, ``dvc``, ``gto``, ``python``) as a user would."""
    command = [str(BIN / argv[0]) if (BIN / argv[0]).exists() else str(argv[0]), *map(str, argv[1:])]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, check=False, **options)


def gitmodel(*args: str | Path, cwd: Path) -> subprocess.CompletedProcess[str]:
    return run("gitmodel", *args, cwd=cwd)


def identity(path: Path) -> tuple[int, int, int, int]:
    """What changes when a file is written again or replaced, but not when somebody reads it: inode, mode, size, mtime."""
    found = path.stat()
    return found.st_ino, found.st_mode, found.st_size, found.st_mtime_ns


def value_info(name: str, dtype: str, shape: Sequence[int | str | None]) -> onnx.ValueInfoProto:
    from gitmodel.formats.dtypes import ONNX_NUMBERS

    return helper.make_tensor_value_info(name, ONNX_NUMBERS[dtype], list(shape))


def model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[onnx.ValueInfoProto],
    outputs: Sequence[onnx.ValueInfoProto],
    weights: dict[str, np.ndarray] | None = None,
    **options: Any,
) -> onnx.ModelProto:
    """A whole ONNX model for the runtime in use."""
    initializers = [numpy_helper.from_array(values, name) for name, values in (weights or {}).items()]
    graph = helper.make_graph(list(nodes), "graph", list(inputs), list(outputs), initializer=initializers)
    opsets = [helper.make_opsetid("", options.pop("opset", OPSET))]
    return helper.make_model(graph, ir_version=options.pop("ir_version", IR_VERSION), opset_imports=opsets, **options)


def linear_model(
    *,
    width: int = 4,
    classes: int = 3,
    scale: float = 1.0,
    seed: int = 0,
    input_name: str = "x",
    output_name: str = "scores",
) -> onnx.ModelProto:
    """``scores = softmax(x @ weight * scale + bias)``: float32 [batch, width] to float32 [batch, classes]."""
    random = np.random.default_rng(seed)
    weights = {
        "weight": (random.normal(size=(width, classes)) * scale).astype("float32"),
        "bias": random.normal(size=(classes,)).astype("float32"),
    }
    nodes = [
        helper.make_node("MatMul", [input_name, "weight"], ["product"]),
        helper.make_node("Add", ["product", "bias"], ["sum"]),
        helper.make_node("Softmax", ["sum"], [output_name], axis=-1),
    ]
    shape: list[int | str | None] = ["batch", width]
    return model(
        nodes,
        [value_info(input_name, "float32", shape)],
        [value_info(output_name, "float32", ["batch", classes])],
        weights,
        producer_name="tests",
    )


def wide_model(*, scale: float = 1.0, tensors: int = 2, size: int = 200) -> onnx.ModelProto:
    """A chain of ``tensors`` square MatMuls whose weights are large enough (size² · 4 bytes) for files of their own."""
    random = np.random.default_rng(1)
    weights, nodes, flow = {}, [], "x"
    for index in range(tensors):
        weights[f"layer{index}/weight"] = (random.normal(size=(size, size)) * scale / size).astype("float32")
        nodes.append(helper.make_node("MatMul", [flow, f"layer{index}/weight"], [f"h{index}"]))
        flow = f"h{index}"
    return model(
        nodes, [value_info("x", "float32", ["batch", size])], [value_info(flow, "float32", ["batch", size])], weights
    )


def cases_npz(path: Path, *, width: int = 4, rows: int = 16, name: str = "x") -> Path:
    """Inputs for golden cases of ``linear_model``; outputs are recorded by running it."""
    values = np.random.default_rng(2).normal(size=(rows, width)).astype("float32")
    np.savez(path, allow_pickle=False, **{name: values})
    return path
