"""The one module that opens ONNX Runtime sessions: how they are configured, run, and how their refusals read."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

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


class Session:
    """A loaded model. Safe to run from several threads at once."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self.input_names: tuple[str, ...] = tuple(i.name for i in session.get_inputs())
        self.output_names: tuple[str, ...] = tuple(o.name for o in session.get_outputs())

    def run(self, inputs: Mapping[str, np.ndarray], outputs: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        """Returns the named outputs (all of them by default) by name. Raises RunFailed with the runtime's words."""
        names = list(outputs or self.output_names)
        try:
            values = self._session.run(names, dict(inputs))
        except Exception as error:  # the runtime's exceptions share no base but Exception
            raise RunFailed(clean(str(error))) from error
        return dict(zip(names, values, strict=True))


def version() -> str:
    """The installed runtime's, without importing it."""
    return metadata.version("onnxruntime")


def preload() -> None:
    """Imports ONNX Runtime, so that who needs it in a moment does not wait."""
    import onnxruntime  # noqa: F401


def open_session(
    path: Path, *, threads: int = 1, prepack: bool = True, optimise: bool = True, label: str = ""
) -> Session:
    """Loads ``path`` on the CPU, sequentially, with ``threads`` threads per operator.

    Without ``prepack`` large weights stay mapped (a load in milliseconds, runs somewhat slower); without ``optimise``
    the graph is run as it is written. ``label`` names the model in errors. Raises LoadFailed.
    """
    import onnxruntime as ort

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
        raise LoadFailed(
            f"ONNX Runtime {ort.__version__} does not load {label or path.name} ({text})", hint=mend
        ) from error


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
