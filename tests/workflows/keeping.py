"""A model repository to damage and to clean: two releases that share a tensor, a stage, a remote that has them."""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path

from gitmodel.workflows.save import save
from gitmodel.workflows.transfer import push
from tests import support
from tests.workflows import state

CHANGED, SHARED, GRAPH = "tensors/layer0%2Fweight.h5", "tensors/layer1%2Fweight.h5", "model.onnx"


class Shop:
    """``folder/repo`` with ``fraud@v1.0.0`` (staged as prod) and ``fraud@v1.1.0`` (laid out); ``folder/storage``."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.repo, self.storage = folder, folder / "repo", folder / "storage"
        self.cache = self.repo / ".dvc" / "cache"
        self.weights = self.repo / "models" / "fraud" / "weights"
        self.quarantine = self.repo / ".git" / "gitmodel" / "quarantine"

    @classmethod
    def make(cls, folder: Path) -> Shop:
        shop = cls(folder)
        state.model_repository(folder)
        for number, version in enumerate(("v1.0.0", "v1.1.0")):
            shop.save(1.0 + number / 2, version)
            shop.git("tag", "-a", "-m", version, f"fraud@{version}")
        shop.git("tag", "-a", "-m", "prod", "fraud#prod#1", "fraud@v1.0.0^{commit}")
        push(repo=shop.repo)
        return shop

    def copied(self, target: Path) -> Shop:
        shutil.copytree(self.folder, target, symlinks=True)
        return Shop(target)

    def save(self, scale: float, message: str = "", name: str = "fraud") -> None:
        """A model whose first tensor is of its own scale; the second is the same for all."""
        model = support.wide_model()
        model.graph.initializer[0].CopyFrom(support.wide_model(scale=scale).graph.initializer[0])
        save(name, [state.write(model, self.folder / f"{scale}.onnx")], repo=self.repo, message=message)

    def git(self, *args: str) -> str:
        return support.git(self.repo, *args)

    def md5(self, path: str, revision: str = "HEAD", name: str = "fraud") -> str:
        lock = self.git("show", f"{revision}:models/{name}/weights.lock")
        return next(line.split()[-1] for line in lock.splitlines() if line.startswith(f"file {path} "))

    def object(self, path: str, revision: str = "HEAD", root: Path | None = None) -> Path:
        """Where the cache, or another place, has a file of a version."""
        return state.object_path(root or self.cache, self.md5(path, revision))

    def listing(self, revision: str = "HEAD", root: Path | None = None) -> Path:
        pointer = self.git("show", f"{revision}:models/fraud/weights.dvc")
        return state.object_path(root or self.cache, pointer.split("md5: ")[1].split()[0])

    def age(self, days: float = 60, root: Path | None = None) -> None:
        """Makes all stored files that old."""
        when = time.time() - days * 86400
        for path in (root or self.cache).rglob("*"):
            if path.is_file():
                os.utime(path, (when, when))
