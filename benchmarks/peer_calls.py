"""What peers.py types for those peers that are libraries: run by the Python each of them is installed in, never imported.

`python peer_calls.py PEER start` sets a store up in the working folder, `python peer_calls.py PEER save VERSION` saves
the model.onnx there.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

MODEL = "model.onnx"


def xet_start() -> None:
    Path("store").mkdir()


def xet_save(_: str) -> None:
    """The chunks into a local store; what names them into a file for Git."""
    session = import_module("hf_xet").XetSession()
    with session.new_upload_commit(endpoint=f"local://{Path('store').resolve()}") as commit:
        upload = commit.start_upload_file(MODEL)
    info = upload.result().xet_info
    Path(f"{MODEL}.xet").write_text(f"hash: {info.hash}\nsize: {info.file_size}\n")


def oxen_start() -> None:
    oxen = import_module("oxen")
    oxen.user.config_user("Ada", "ada@example.org")
    oxen.Repo(".").init()


def oxen_save(version: str) -> None:
    repo = import_module("oxen").Repo(".")
    repo.add(MODEL)
    repo.commit(version)


def mlflow_start() -> None:
    mlflow = import_module("mlflow")
    mlflow.set_tracking_uri("sqlite:///mlflow.db")
    mlflow.create_experiment("m", artifact_location=Path("artifacts").resolve().as_uri())
    mlflow.MlflowClient().create_registered_model("m")


def mlflow_save(version: str) -> None:
    """A run with the file as its artifact, and a version of a registered model that names it."""
    mlflow = import_module("mlflow")
    mlflow.set_tracking_uri("sqlite:///mlflow.db")
    mlflow.set_experiment("m")
    with mlflow.start_run(run_name=version) as run:
        mlflow.log_artifact(MODEL)
        mlflow.MlflowClient().create_model_version("m", f"{run.info.artifact_uri}/{MODEL}", run.info.run_id)


STARTS: dict[str, Callable[[], None]] = {"xet": xet_start, "oxen": oxen_start, "mlflow": mlflow_start}
SAVES: dict[str, Callable[[str], None]] = {"xet": xet_save, "oxen": oxen_save, "mlflow": mlflow_save}

if __name__ == "__main__":
    peer, verb, *rest = sys.argv[1:]
    if verb == "start":
        STARTS[peer]()
    else:
        SAVES[peer](*rest)
