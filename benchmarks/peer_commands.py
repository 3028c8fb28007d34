"""The peers of peers.py as data: where each comes from, and what a person types to save a version with it."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path

_CALLS = f'"$PYTHON" "{Path(__file__).with_name("peer_calls.py")}"'
_GIT = "git init -q ."
_START = "git add -A && git commit -qm start"
_COMMIT = "git commit -qm {version} && git tag -a {version} -m {version}"


@dataclass(frozen=True)
class Part:
    """Something to install: Python packages in an environment of their own, or a program from a Debian package.
    ``command`` is what must be there afterwards. ``interpreter`` is the Python of that environment, the one that runs
    this by default."""

    name: str
    command: str = "python"
    packages: tuple[str, ...] = ()
    debian: str = ""
    interpreter: str = sys.executable


@dataclass(frozen=True, eq=False)
class Peer:
    """``parts`` is empty for what the project's own environment has. ``start`` is not timed; ``save`` is, with
    ``{version}`` in it. ``stores`` are the folders that keep what was saved."""

    name: str
    title: str
    start: str
    save: str
    stores: tuple[str, ...]
    parts: tuple[Part, ...] = ()
    model: str = "model.onnx"
    env: dict[str, str] = field(default_factory=dict)


_LFS = Part("git-lfs", "git-lfs", debian="git-lfs")
_DVC = (".dvc/cache/files", ".git/objects")

PEERS = (
    Peer(
        "gitmodel",
        "gitmodel save -m, release",
        f"{_GIT} && gitmodel init && {_START}",
        "gitmodel save m model.onnx -m {version} --release auto",
        _DVC,
    ),
    # None of the others judges what it is given.
    Peer(
        "gitmodel-save",
        "gitmodel save -m, git tag",
        f"{_GIT} && gitmodel init && {_START}",
        "gitmodel save m model.onnx -m {version} && git tag -a {version} -m {version}",
        _DVC,
    ),
    Peer(
        "dvc",
        "DVC",
        f"{_GIT} && dvc init -q && {_START}",
        f"dvc add -q model.onnx && git add model.onnx.dvc .gitignore && {_COMMIT}",
        _DVC,
    ),
    Peer(
        "dvc-split",
        "DVC, a file per tensor",
        f"{_GIT} && dvc init -q && {_START}",
        f"dvc add -q tensors && git add tensors.dvc .gitignore && {_COMMIT}",
        _DVC,
        model="tensors",
    ),
    Peer(
        "git-lfs",
        "Git LFS",
        f"{_GIT} && git lfs install --local && git lfs track '*.onnx' && {_START}",
        f"git add model.onnx && {_COMMIT}",
        (".git/lfs", ".git/objects"),
        (_LFS,),
    ),
    Peer(
        "xet",
        "Xet client, local store",
        f"{_GIT} && printf '/store\\n/*.onnx\\n' >.gitignore && {_CALLS} xet start && {_START}",
        f"{_CALLS} xet save {{version}} && git add model.onnx.xet && {_COMMIT}",
        ("store", ".git/objects"),
        (Part("hf-xet", packages=("hf-xet",)),),
    ),
    Peer(
        "borg",
        "Borg",
        "borg init --encryption none store",
        "borg create store::{version} model.onnx",
        ("store",),
        (Part("borgbackup", "borg", packages=("borgbackup",)),),
        env={"BORG_UNKNOWN_UNENCRYPTED_REPO_ACCESS_IS_OK": "yes"},
    ),
    Peer(
        "restic",
        "restic",
        "restic -q init --repo store",
        "restic -q backup --repo store --tag {version} model.onnx",
        ("store",),
        (Part("restic", "restic", debian="restic"),),
        env={"RESTIC_PASSWORD": "of no use to anybody"},
    ),
    Peer(
        "oxen",
        "Oxen",
        f"{_CALLS} oxen start",
        f"{_CALLS} oxen save {{version}}",
        (".oxen",),
        (Part("oxenai", packages=("oxenai",)),),
    ),
    Peer(
        "git-theta",
        "git-theta, safetensors",
        f"{_GIT} && git lfs install --local && git theta install && git theta track model.safetensors && {_START}",
        f"git add model.safetensors && {_COMMIT}",
        (".git/lfs", ".git/objects"),
        (Part("git-theta", "git-theta", packages=("git-theta[safetensors]",)), _LFS),
        model="model.safetensors",
        env={"GIT_THETA_CHECKPOINT_TYPE": "safetensors"},
    ),
    Peer(
        "mlflow",
        "MLflow, artifact and version",
        f"{_CALLS} mlflow start",
        f"{_CALLS} mlflow save {{version}}",
        ("artifacts",),
        (Part("mlflow", packages=("mlflow",)),),
        env={"MLFLOW_DISABLE_TELEMETRY": "true"},
    ),
)
