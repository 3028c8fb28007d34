"""The author's own models, opened in this very process: saving them has done so already, and a release waits for no child."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from msgspec.structs import replace

from gitmodel import runtime
from gitmodel.bundle.bundle import Bundle
from gitmodel.bundle.lock import TensorEntry
from gitmodel.compat.isolated import Models
from gitmodel.compat.opening import CannotOpen, Opened, Opens, want_of_memory
from gitmodel.compat.sessions import Sessions
from gitmodel.compat.side_by_side import Runs
from gitmodel.formats.source import Description

if TYPE_CHECKING:
    import numpy as np


@dataclass
class OwnModel:
    """A model that runs here; see ``opening.Running``."""

    opened: Opened
    path: Path
    options: Mapping[str, Any]
    session: Runs
    starved: str = ""

    def run(self, inputs: Mapping[str, np.ndarray], outputs: Sequence[str] | None = None) -> dict[str, Any]:
        """Raises RunFailed."""
        try:
            return self.session.run(inputs, outputs)
        except runtime.RunFailed as error:
            if runtime.is_want_of_memory(error):
                self.starved = (
                    f"{self.opened.label} needs more memory than there is ({error.message}): {runtime.MORE_MEMORY}"
                )
            raise

    def again(self, **options: Any) -> runtime.Session:
        """Raises LoadFailed."""
        return runtime.open_session(self.path, **{**self.options, **options})


class OwnModels:
    """For bundles of the author's own repository; see ``opening.Opens``. ONNX's own checker, which warns of what the runtime
    loads all the same, is left to check-compat. ``sessions`` are those that saving has opened."""

    def __init__(self, sessions: Sessions | None = None) -> None:
        self._sessions = sessions or Sessions()
        self._models: list[OwnModel] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._models.clear()

    def read_soon(self, paths: Iterable[Path]) -> None:
        """Nothing has to wake up for it."""

    def run_soon(self, count: int, folder: Path, size: int) -> None:
        """Nothing has to wake up for it."""

    def describe(self, path: Path) -> Description:
        """Raises InvalidModel."""
        from gitmodel import registry

        return registry.described(path)

    def tensors(self, path: Path, *, digests: bool = True) -> tuple[TensorEntry, ...]:
        """Raises InvalidModel."""
        from gitmodel import formats
        from gitmodel.formats import hdf5

        with contextlib.closing(formats.read(path)) as source:
            held = source.tensors
            return tuple(TensorEntry(t.name, t.dtype, t.shape, hdf5.digest(t) if digests else "", "") for t in held)

    def open(self, path: Path, bundle: Bundle, **options: Any) -> OwnModel:
        """Raises CannotOpen, InvalidModel, and LoadFailed for want of memory, which is no fault of the model."""
        from gitmodel.formats import onnx, onnx_facts

        graph = onnx.parse(path.read_bytes(), bundle.label)
        facts, size = onnx_facts.facts_of(graph), onnx_facts.size(graph, path)
        opened = Opened(bundle.label, onnx.signature_of(graph, bundle.label), facts, size=size)
        try:
            session = self._open_already(bundle, **options) or runtime.open_session(path, label=bundle.label, **options)
        except runtime.LoadFailed as error:
            if runtime.is_want_of_memory(error):
                raise
            refused = replace(opened, limits=runtime.probed(), loads=False)
            raise CannotOpen(error.message, error.hint, refused) from error
        self._models.append(OwnModel(opened, path, options, session))
        return self._models[-1]

    @property
    def failure(self) -> str:
        """Why a pair could not be judged to the end though its models opened; '' where it could."""
        return want_of_memory(self._models)

    def _open_already(self, bundle: Bundle, *, prepack: bool) -> Runs | None:
        return None if prepack or bundle.file else self._sessions.find(bundle.lock.digest, bundle.view)


def for_release(budgeted: Bundle, sessions: Sessions) -> Opens:
    """Budgets, those of ``budgeted``, are measured in children, whoever made the models."""
    return Models() if budgeted.card.budgets.to_dict() else OwnModels(sessions)
