"""MLServer with one ONNX model: `python mlserver_server.py MODEL PORT FOLDER [WORKERS]`, 0 WORKERS for inference in the
process that listens. Writes its settings to FOLDER and becomes `mlserver start FOLDER`."""

from __future__ import annotations

import json
import os
import shutil
import socket
import sys
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent


def main() -> None:
    path, port, name, *workers = sys.argv[1:]
    folder = Path(name)
    folder.mkdir()
    for file in ("mlserver_model.py", "onnx_session.py"):
        shutil.copy(HERE / file, folder)
    settings: dict[str, Any] = {
        "host": "127.0.0.1",
        "http_port": int(port),
        "grpc_port": _free(),
        "metrics_port": _free(),
        "metrics_dir": str(folder),
        "debug": False,  # it logs every request
    }
    if workers:
        settings["parallel_workers"] = int(workers[0])
    model = {"name": "digits", "implementation": "mlserver_model.OnnxModel", "parameters": {"uri": path}}
    (folder / "settings.json").write_text(json.dumps(settings))
    (folder / "model-settings.json").write_text(json.dumps(model))
    # The processes that it starts for inference import the runtime by its name.
    os.environ["PYTHONPATH"] = str(folder)
    os.chdir(folder)
    os.execv(Path(sys.executable).with_name("mlserver"), ["mlserver", "start", str(folder)])


def _free() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


if __name__ == "__main__":
    main()
