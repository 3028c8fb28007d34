"""What is done with a stranger's model, one function each: they run in the sandbox, which has a model to itself. Arguments
and results are plain values and arrays; see isolated.py for who asks."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gitmodel.sandbox import jail
from gitmodel.sandbox.failures import OutOfMemory

if TYPE_CHECKING:
    import numpy as np

    from gitmodel.runtime import Session

#: The session of this process, once it is loaded, and one with other options.
_HELD: dict[str, Session] = {}


def prepare() -> None:
    """Imports what most models need and what starts no threads; ONNX Runtime, which does, has to wait for ``warm``."""
    import numpy  # noqa: F401

    from gitmodel import formats, runtime  # noqa: F401
    from gitmodel.formats import onnx, onnx_facts, wire  # noqa: F401

    onnx.messages()


def warm() -> None:
    """Imports what runs ONNX models, before there is one."""
    from gitmodel import runtime

    runtime.load_library()


def describe(path: str) -> dict[str, Any]:
    """Format, framework and signature of a file of any known format. Raises InvalidModel."""
    from gitmodel import formats

    if formats.ending(Path(path)) == ".onnx":
        from gitmodel.formats import onnx, onnx_facts

        model = _graph(Path(path), path)
        graph = onnx.signature_of(model, path).to_dict()
        size = onnx_facts.size(model, Path(path))
        return {"format": "onnx", "framework": onnx.framework_of(model), "signature": graph, "size": size}
    with closing(formats.read(Path(path))) as source:
        signature = source.signature.to_dict() if source.signature else None
        return {"format": source.format, "framework": source.framework, "signature": signature}


def tensors(path: str, digests: bool) -> list[list[Any]]:
    """[name, dtype, shape, digest] of every tensor, the last empty unless asked for. Raises InvalidModel, StorageFailed."""
    from gitmodel import formats
    from gitmodel.formats import hdf5

    with closing(formats.read(Path(path))) as source:
        return [[t.name, t.dtype, list(t.shape), hdf5.digest(t) if digests else ""] for t in source.tensors]


def load(path: str, label: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Opens an ONNX model for ``run``: its signature and facts, what the checker and the file system have against it, and
    as ``failed`` [message, hint] where it does not load. Raises InvalidModel."""
    from gitmodel import runtime
    from gitmodel.formats import onnx, onnx_facts

    jail.stop_writing()
    model = _graph(Path(path), label)
    found: dict[str, Any] = {
        "signature": onnx.signature_of(model, label).to_dict(),
        "facts": onnx_facts.facts_of(model).to_dict(),
        "outside": [[wrong.kind, wrong.text] for wrong in onnx_facts.outside(model, Path(path).parent)][:20],
        "complaint": onnx_facts.complaint(model),
        "size": onnx_facts.size(model, Path(path)),
        "failed": None,
    }
    if found["outside"]:
        text = f"{label}: {found['outside'][0][1]}"
        return {**found, "failed": [text, "keep the data beside the model, and export both together"]}
    try:
        _HELD["session"] = runtime.open_session(Path(path), label=label, **options)
    except runtime.LoadFailed as error:
        if runtime.is_want_of_memory(error):
            raise OutOfMemory(error.message) from None
        return {**found, "failed": [error.message, error.hint], "limits": runtime.probed().to_dict()}
    session = _HELD["session"]
    return {**found, "inputs": list(session.input_names), "outputs": list(session.output_names)}


def _graph(path: Path, label: str) -> Any:
    """The model's graph without its large data. Raises InvalidModel."""
    from gitmodel.formats import onnx, wire
    from gitmodel.formats.source import TENSOR_FILE_BYTES, map_file

    skeleton, _ = wire.cut(map_file(path), TENSOR_FILE_BYTES, label)
    return onnx.parse(skeleton, label)


def run(inputs: Mapping[str, np.ndarray], outputs: Sequence[str] | None) -> dict[str, Any]:
    """The outputs by name. Raises RunFailed, OutOfMemory."""
    from gitmodel import runtime

    try:
        return _HELD["session"].run(inputs, outputs)
    except runtime.RunFailed as error:
        if runtime.is_want_of_memory(error):
            raise OutOfMemory(error.message) from None
        raise


def load_again(path: str, options: Mapping[str, Any]) -> None:
    """Opens the model once more, for ``run_again``. Raises LoadFailed."""
    from gitmodel import runtime

    _HELD.pop("again", None)
    _HELD["again"] = runtime.open_session(Path(path), **options)


def run_again(inputs: Mapping[str, np.ndarray], outputs: Sequence[str]) -> dict[str, Any]:
    """As ``run``. Raises RunFailed."""
    return _HELD["again"].run(inputs, outputs or None)


def time_runs(inputs: Mapping[str, np.ndarray], repeats: int) -> float:
    """Seconds per run, over ``repeats`` of them. Raises RunFailed."""
    session = _HELD["session"]
    started = time.perf_counter()
    for _ in range(repeats):
        session.run(inputs)
    return (time.perf_counter() - started) / repeats


def time_load(path: str, options: Mapping[str, Any]) -> float:
    """Seconds that one more session takes to open. Raises LoadFailed."""
    from gitmodel import runtime

    started = time.perf_counter()
    runtime.open_session(Path(path), **options)
    return time.perf_counter() - started


def peak(path: str, options: Mapping[str, Any], inputs: Mapping[str, np.ndarray]) -> int:
    """Bytes of memory that opening the model and one run take at most, on Linux. Raises LoadFailed, RunFailed."""
    from gitmodel import runtime

    before = _memory("VmRSS")
    runtime.open_session(Path(path), **options).run(inputs)
    # getrusage would tell the parent's peak: a process keeps that of the one it was started from.
    return _memory("VmHWM") - before


def _memory(field: str) -> int:
    """Bytes, of proc_pid_status(5)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:")) << 10
