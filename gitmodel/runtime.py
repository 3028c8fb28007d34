"""The one module that opens ONNX Runtime sessions: how they are configured, run, how refusals read, and where its limits are."""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct
from msgspec.structs import asdict

from gitmodel.errors import ExitCode, GitmodelError

if TYPE_CHECKING:
    import numpy as np


class LoadFailed(GitmodelError):
    """ONNX Runtime will not load the model."""

    code = "model-load-failed"
    exit_code = ExitCode.INCOMPLETE


class RunFailed(GitmodelError):
    """ONNX Runtime refused the inputs or failed on them; the message is its own."""

    code = "run-failed"
    exit_code = ExitCode.INCOMPATIBLE


#: What helps where memory was asked for and not given, which says nothing of the model; and how the runtime says so.
MORE_MEMORY = "use smaller golden cases, or a machine with more memory"
_NO_MEMORY = re.compile(r"bad_alloc|bad allocation|Failed to allocate memory|MemoryError")


def is_want_of_memory(error: LoadFailed | RunFailed) -> bool:
    return bool(_NO_MEMORY.search(error.message))


class Session:
    """A loaded model. Safe to run from several threads at once."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self.input_names: tuple[str, ...] = tuple(i.name for i in session.get_inputs())
        self._names = [o.name for o in session.get_outputs()]
        self.output_names: tuple[str, ...] = tuple(self._names)

    def run(self, inputs: Mapping[str, np.ndarray], outputs: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """Returns the named outputs (all of them by default) by name. Raises RunFailed with the runtime's words."""
        names = list(outputs) if outputs else self._names
        try:
            values = self._session.run(names, inputs if type(inputs) is dict else dict(inputs))
        except Exception as error:  # the runtime's exceptions share no base but Exception
            raise RunFailed(clean(str(error))) from error
        return dict(zip(names, values, strict=True))


def version() -> str:
    """The installed runtime's, without importing it."""
    if (library := sys.modules.get("onnxruntime")) is not None:
        return str(library.__version__)
    spec = find_spec("onnxruntime")
    folder = Path(spec.origin).parents[1] if spec and spec.origin else Path()
    # As installers write it (the wheel's format, "The .dist-info directory").
    found = [path.stem.partition("-")[2] for path in folder.glob("onnxruntime-*.dist-info")]
    if len(found) == 1:
        return found[0]
    from importlib import metadata  # which needs all of email: 20 ms

    return metadata.version("onnxruntime")


def load_library() -> Any:
    """ONNX Runtime, imported; asked for early, so that who needs it in a moment does not wait.

    From 1.29 on its binaries send the names and digests of every model to their maker, and keep them in the user's
    ~/.cache meanwhile, unless they are told before they are loaded.
    """
    os.putenv("ORT_DISABLE_TELEMETRY", "1")
    import onnxruntime

    return onnxruntime


def open_session(
    path: Path, *, threads: int = 1, prepack: bool = True, optimise: bool = True, label: str = ""
) -> Session:
    """Loads ``path`` on the CPU, sequentially, with ``threads`` threads per operator.

    Without ``prepack`` large weights stay mapped (a load in milliseconds, runs somewhat slower); without ``optimise``
    the graph is run as it is written. ``label`` names the model in errors. Raises LoadFailed.
    """
    ort = load_library()
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.execution_mode = ort.ExecutionMode.ORT_SEQUENTIAL
    options.log_severity_level = 4  # what is fatal is raised; the rest is not for a user's terminal
    if not optimise:
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    if not prepack:
        options.add_session_config_entry("session.disable_prepacking", "1")
    try:
        return Session(ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"]))
    except Exception as error:  # the runtime's exceptions share no base but Exception
        text = clean(str(error))
        mend = "export the model again"
        if "IR version" in text or "opset" in text.lower():
            mend = (
                f"export it for ONNX Runtime {ort.__version__} (an older opset and IR version), or install a newer one"
            )
        if _NO_MEMORY.search(text):
            mend = "use a machine with more memory"
        raise LoadFailed(
            f"ONNX Runtime {ort.__version__} does not load {label or path.name} ({text})", hint=mend
        ) from error


def save_prepacked(source: Path, target: Path, weights: str, *, threads: int = 1) -> None:
    """Writes the optimised model to ``target`` and its weights beside it, into the file ``weights``, in the order in which this
    runtime computes with them on this processor: opened from there they need not be packed, and stay mapped. Raises
    LoadFailed."""
    ort = load_library()
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 4
    options.optimized_model_filepath = str(target)
    for key, value in (
        ("optimized_model_external_initializers_file_name", weights),
        ("optimized_model_external_initializers_min_size_in_bytes", "1024"),
        ("save_external_prepacked_constant_initializers", "1"),
    ):
        options.add_session_config_entry(f"session.{key}", value)
    try:
        ort.InferenceSession(str(source), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # the runtime's exceptions share no base but Exception
        raise LoadFailed(f"ONNX Runtime cannot pack the weights ({clean(str(error))})") from error


class RuntimeLimits(Struct, frozen=True):
    """The newest IR, ONNX opset and ai.onnx.ml opset that an ONNX Runtime of this version loads."""

    version: str
    ir: int
    opset: int
    ml: int

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> RuntimeLimits:
        return cls(str(value["version"]), *(int(value[key]) for key in ("ir", "opset", "ml")))


@cache
def probed() -> RuntimeLimits:
    """The limits of the installed runtime, found by having it load models of one node: no table is as new as it is."""
    ort = load_library()
    return RuntimeLimits(
        ort.__version__,
        _newest(lambda number: _one_node("Not", "", number, _OLDEST_OPSET), _OLD_IR),
        _newest(lambda number: _one_node("Not", "", _OLD_IR, number), _OLDEST_OPSET),
        _newest(lambda number: _one_node("Binarizer", "ai.onnx.ml", _OLD_IR, _OLDEST_OPSET, number), 1),
    )


#: What every runtime there is still loads.
_OLD_IR, _OLDEST_OPSET = 4, 7
_MOST = 512
_BOOL, _FLOAT = 9, 1


def _newest(model: Callable[[int], bytes], least: int) -> int:
    """The largest number with which the model loads: by doubling, then by halving."""
    step = 1
    while step < _MOST and _loads(model(least + step)):
        step *= 2
    lower, upper = least + step // 2 if step > 1 else least, least + step
    while upper - lower > 1:
        middle = (lower + upper) // 2
        lower, upper = (middle, upper) if _loads(model(middle)) else (lower, middle)
    return lower


def _loads(model: bytes) -> bool:
    ort = load_library()
    options = ort.SessionOptions()
    options.log_severity_level = 4
    try:
        ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    except Exception:  # the runtime's exceptions share no base but Exception
        return False
    return True


def _one_node(kind: str, domain: str, ir: int, opset: int, ml: int = 0) -> bytes:
    """A model of one node whose definition has never changed, so that the numbers alone decide."""
    from gitmodel.formats import onnx

    model = onnx.messages().ModelProto(ir_version=ir)
    model.opset_import.add(domain="", version=opset)
    if ml:
        model.opset_import.add(domain="ai.onnx.ml", version=ml)
    model.graph.name = "probe"
    model.graph.node.add(op_type=kind, domain=domain, input=["x"], output=["y"])
    for value in (model.graph.input.add(name="x"), model.graph.output.add(name="y")):
        value.type.tensor_type.elem_type = _FLOAT if domain else _BOOL
        value.type.tensor_type.shape.dim.add(dim_value=1)
    data: bytes = model.SerializeToString()
    return data


def clean(text: str) -> str:
    """The runtime's message without its own source paths, in one line."""
    text = re.sub(r"\[ONNXRuntimeError\] : \d+ : \w+ : ", "", text)
    text = re.sub(r"(?:Load model from \S+ failed:\s*)", "", text)
    while found := re.search(r"\S*/onnxruntime/\S+:\d+ ", text):
        text = text[: found.start()] + _after_signature(text[found.end() :])
    return " ".join(text.split())[:400]


def _after_signature(text: str) -> str:
    """What follows a C++ function's name and parameters, ``ns::Model(const Path &, ...) text``."""
    head, parenthesis, _ = text.partition("(")
    if not parenthesis or "::" not in head:
        return text.partition(" ")[2]
    depth = 0
    for position, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if depth == 0 and character == ")":
            return text[position + 1 :].lstrip()
    return text
