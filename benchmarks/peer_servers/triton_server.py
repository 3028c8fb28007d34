"""NVIDIA Triton with one ONNX model: `python triton_server.py MODEL PORT FOLDER`, of an environment with nvidia-pytriton.

Writes a model repository to FOLDER and becomes the tritonserver that is in that wheel, without PyTriton around it. The
wheel has the Python backend and no other, and its stubs, one for each Python, apart from the backend: they are put together.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from onnx_session import DATATYPES, Model

HERE = Path(__file__).resolve().parent


def main() -> None:
    path, port, name = sys.argv[1:]
    folder = Path(name)
    package = _package() / "tritonserver"
    backends = _backends(folder, package)
    repository = _repository(folder, path)
    binary = package / "bin" / "tritonserver"
    options = [
        f"--model-repository={repository}",
        f"--backend-directory={backends}",
        f"--http-port={port}",
        "--http-address=127.0.0.1",
        "--allow-grpc=false",
        "--allow-metrics=false",
        "--disable-auto-complete-config",
        # Shared memory is a name that all of this machine's Tritons have in common.
        f"--backend-config=python,shm-region-prefix-name=benchmark{os.getpid()}",
    ]
    # The stub finds its Python, and so what is installed there, as a shell would.
    search = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    libraries = package.parent.parent / "nvidia_pytriton.libs"
    os.execve(binary, [str(binary), *options], {**os.environ, "PATH": search, "LD_LIBRARY_PATH": str(libraries)})


def _package() -> Path:
    found = importlib.util.find_spec("pytriton")
    if found is None or found.origin is None:
        raise SystemExit("nvidia-pytriton is not installed")
    return Path(found.origin).parent


def _backends(folder: Path, package: Path) -> Path:
    backend = folder / "backends" / "python"
    backend.mkdir(parents=True)
    stub = package / "python_backend_stubs" / f"{sys.version_info[0]}.{sys.version_info[1]}"
    for file in [*(package / "backends" / "python").glob("*.*"), stub / "triton_python_backend_stub"]:
        (backend / file.name).symlink_to(file)
    return backend.parent


def _repository(folder: Path, path: str) -> Path:
    repository = folder / "models"
    version = repository / "digits" / "1"
    version.mkdir(parents=True)
    shutil.copy(HERE / "triton_model.py", version / "model.py")
    shutil.copy(HERE / "onnx_session.py", version)
    model = Model(path)
    config = [
        'name: "digits"',
        'backend: "python"',
        # Waiting calls go to the model's process together, though each is run by itself.
        "max_batch_size: 16",
        "dynamic_batching { }",
        "instance_group [{ kind: KIND_CPU, count: 1 }]",
        f'parameters {{ key: "path" value: {{ string_value: "{path}" }} }}',
        *_tensors("input", model.inputs),
        *_tensors("output", model.outputs),
    ]
    (version.parent / "config.pbtxt").write_text("\n".join(config) + "\n")
    return repository


def _tensors(kind: str, described: Iterable[Any]) -> list[str]:
    """The first dimension is that of the batch, which Triton wants left out, and some other one in its place."""
    lines = []
    for tensor in described:
        name = f'name: "{tensor.name}" data_type: TYPE_{DATATYPES[tensor.type]}'
        dims = f"dims: [ {', '.join(map(str, tensor.shape[1:]))} ]"
        if len(tensor.shape) == 1:
            dims = "dims: [ 1 ] reshape: { shape: [ ] }"
        lines.append(f"{kind} [{{ {name} {dims} }}]")
    return lines


if __name__ == "__main__":
    main()
