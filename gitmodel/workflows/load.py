"""``gitmodel.load``: a version in the hand: its signature, its session, its predictions."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gitmodel import registry
from gitmodel.bundle.bundle import Bundle
from gitmodel.bundle.signature import Signature
from gitmodel.git import NotARepository, Repository
from gitmodel.workflows.workspace import Workspace, opened

if TYPE_CHECKING:
    import numpy as np

    from gitmodel.runtime import Session


class LoadedModel:
    """A model at one revision. Weights are fetched and verified when they are first needed."""

    def __init__(self, place: Workspace | None, bundle: Bundle) -> None:
        self._place, self.bundle = place, bundle

    @property
    def signature(self) -> Signature | None:
        return self.bundle.signature

    @property
    def params(self) -> dict[str, Any]:
        return self.bundle.params

    @property
    def labels(self) -> list[str]:
        return self.bundle.labels

    @cached_property
    def session(self) -> Session:
        """Raises MissingWeights, NotServable, LoadFailed."""
        from gitmodel import runtime

        # The files stay mapped when their folder is gone; the objects themselves are in the cache.
        with opened(self._place, self.bundle) as path:
            return runtime.open_session(path, label=self.bundle.label)

    def predict(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Outputs by name. Raises RunFailed with the runtime's words when an input does not fit the signature."""
        return self.session.run(inputs)


def load(reference: str, *, repo: Path | str = ".") -> LoadedModel:
    """The model a reference names. Raises UnknownModel, UnknownVersion, UnknownRevision, InvalidModel."""
    try:
        place: Workspace | None = Workspace(Repository.open(Path(repo)))
    except NotARepository:
        place = None
    return LoadedModel(place, registry.resolve(place.repo if place else None, reference))
