"""A bundle: one model at one revision, its small files parsed, its weights only named."""

from __future__ import annotations

import hashlib
from functools import cached_property
from pathlib import Path
from typing import Any

from msgspec import Struct

from gitmodel.bundle import yamlio
from gitmodel.bundle.card import Card
from gitmodel.bundle.folder import Folder, Identified
from gitmodel.bundle.lock import FileEntry, InvalidLock, Lock, is_shared
from gitmodel.bundle.signature import DEFAULT, Signature, Signatures
from gitmodel.errors import GitmodelError

CARD, SIGNATURE, PARAMS, METRICS, LOCK = "model.yaml", "signature.yaml", "params.yaml", "metrics.yaml", "weights.lock"
WEIGHTS, GOLDEN, ASSETS, LABELS = "weights", "golden", "assets", "assets/labels.txt"
NEW = ".new"
ONNX_VIEW, HDF5_VIEW = "model.onnx", "weights.h5"


def view_of(signature: str) -> str:
    """The ONNX view of a signature that has a graph of its own."""
    return ONNX_VIEW if signature == DEFAULT else f"model.{signature}.onnx"


def graph_files(lock: Lock) -> list[FileEntry]:
    """The files that the graphs of a bundle read: not the HDF5 view, unless they share small tensors with it."""
    shared = any(tensor.file == HDF5_VIEW and is_shared(tensor.dtype, tensor.shape) for tensor in lock.tensors)
    return [entry for entry in lock.files if shared or entry.path != HDF5_VIEW]


class NotServable(GitmodelError):
    """A bundle without an ONNX graph was asked to run."""

    code = "not-servable"


class NoBundle(GitmodelError):
    """There is no model where a bundle was asked for."""

    code = "no-bundle"


class Bundle(Struct, frozen=True, eq=False, dict=True):
    """``label`` is how messages name it (``fraud@v1.2.0``); ``commit`` is empty for the working tree; ``file`` is
    set for a bare model file, which has no lock; ``called`` names a signature other than the one its card declares."""

    name: str
    label: str
    folder: Folder
    commit: str = ""
    file: Path | None = None
    called: str = ""

    def _text(self, path: str) -> bytes:
        data = self.folder.read(path)
        if data is None:
            mend = "take another version: what is committed stays as it is" if self.commit else "save the model again"
            raise NoBundle(f"{self.label} has no {path}", hint=mend)
        return data

    @cached_property
    def card(self) -> Card:
        return Card.from_yaml(self._text(CARD), f"{self.label}: {CARD}")

    @cached_property
    def signatures(self) -> Signatures:
        return Signatures.from_yaml(self._text(SIGNATURE), f"{self.label}: {SIGNATURE}")

    @property
    def signature(self) -> Signature | None:
        """The one it is called by, else the one the card declares; None for a checkpoint without a graph."""
        return self.signatures.by_name.get(self.called or self.card.signature)

    @property
    def view(self) -> str:
        """The ONNX view that answers calls of ``signature``: its own, or the one it is a group of."""
        own = view_of(self.called or self.card.signature)
        return ONNX_VIEW if self.file is not None or self.lock.file(own) is None else own

    @cached_property
    def lock(self) -> Lock:
        return Lock.from_text(self._text(LOCK), f"{self.label}: {LOCK}")

    @cached_property
    def params(self) -> dict[str, Any]:
        return yamlio.load_mapping(self.folder.read(PARAMS) or b"", f"{self.label}: {PARAMS}")

    @cached_property
    def metrics(self) -> dict[str, Any]:
        return yamlio.load_mapping(self.folder.read(METRICS) or b"", f"{self.label}: {METRICS}")

    @cached_property
    def labels(self) -> list[str]:
        """Class names, one per line of ``assets/labels.txt``; empty when there are none."""
        return (self.folder.read(LABELS) or b"").decode(errors="replace").splitlines()

    def golden_paths(self) -> list[str]:
        """What Git keeps of the golden cases; answers that wait for a review (``*.new``) are nobody's promise."""
        return [path for path in self.folder.files(GOLDEN) if not path.endswith(NEW)]

    @cached_property
    def golden_digests(self) -> dict[str, str]:
        """sha256 of each file of the golden cases, by path."""
        return {path: hashlib.sha256(self.folder.read(path) or b"").hexdigest() for path in self.golden_paths()}

    def same_goldens(self, other: Bundle) -> bool:
        """Whether both keep the same golden cases."""
        paths = self.golden_paths()
        if paths != other.golden_paths():
            return False
        if isinstance(self.folder, Identified) and isinstance(other.folder, Identified):
            ids, others = self.folder.ids(GOLDEN), other.folder.ids(GOLDEN)
            return all(ids[path] == others[path] for path in paths)
        return all(self.folder.read(path) == other.folder.read(path) for path in paths)

    def graph_files(self) -> list[FileEntry]:
        """The files a session needs: the ONNX view and the tensor files. Raises NotServable."""
        if self.lock.file(ONNX_VIEW) is None:
            raise NotServable(
                f"{self.label} is a checkpoint without a graph", hint="save it again with an ONNX graph beside it"
            )
        return graph_files(self.lock)


def unreadable(bundle: Bundle) -> str:
    """Why a bundle's lock does not say what its weights are; '' where it does. A tag keeps whatever it was put on."""
    try:
        bundle.lock  # noqa: B018  # read once
    except (NoBundle, InvalidLock) as error:
        return error.message
    return ""
