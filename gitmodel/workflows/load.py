"""``gitmodel.load``: a version in the hand: its signature, its session, its predictions."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property, lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gitmodel import registry
from gitmodel.bundle.bundle import ASSETS, ONNX_VIEW, Bundle, view_of
from gitmodel.bundle.lock import TensorEntry
from gitmodel.bundle.signature import DEFAULT, Signature
from gitmodel.errors import GitmodelError
from gitmodel.git import NotARepository, Repository
from gitmodel.workflows.workspace import Workspace, opened, weights_of

if TYPE_CHECKING:
    import numpy as np

    from gitmodel.runtime import Session


class UnknownSignature(GitmodelError):
    """The model cannot be called that way."""

    code = "unknown-signature"


class Weights(Mapping[str, "np.ndarray"]):
    """Read-only arrays by name. Names cost nothing; an array's file is fetched, verified and mapped when it is asked for,
    and no other. Types numpy lacks are those of ml_dtypes, texts are objects."""

    def __init__(self, tensors: Mapping[str, Any], get: Callable[[str], np.ndarray]) -> None:
        self._tensors, self._get = tensors, get

    def __len__(self) -> int:
        return len(self._tensors)

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __contains__(self, name: object) -> bool:
        return name in self._tensors

    def __getitem__(self, name: str) -> np.ndarray:
        """Raises KeyError, MissingWeights and kin."""
        if name not in self._tensors:
            raise KeyError(name)
        return self._get(name)


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
    def assets(self) -> Mapping[str, bytes]:
        """What was saved with the model, by path below ``assets/``; the labels are among it."""
        read = {path: self.bundle.folder.read(path) for path in self.bundle.folder.files(ASSETS)}
        return {path.removeprefix(f"{ASSETS}/"): data for path, data in read.items() if data is not None}

    @cached_property
    def weights(self) -> Weights:
        """Arrays by name, each fetched when it is asked for."""
        from gitmodel import formats
        from gitmodel.formats.arrays import array_of

        if self.bundle.file is None:
            entries = {entry.name: entry for entry in self.bundle.lock.tensors}
            return Weights(entries, lambda name: self._array(entries[name]))
        with contextlib.closing(formats.read(self.bundle.file)) as source:
            tensors = {tensor.name: tensor for tensor in source.tensors}
        return Weights(tensors, lambda name: array_of(tensors[name]))

    def _array(self, entry: TensorEntry) -> np.ndarray:
        from gitmodel.formats import stored
        from gitmodel.formats.arrays import array_of

        files = [file for file in self.bundle.lock.files if file.path == entry.file]
        with weights_of(self._place, self.bundle, files) as folder:
            return array_of(stored.tensor(folder, entry))

    @cached_property
    def session(self) -> Session:
        """Raises MissingWeights, NotServable, LoadFailed."""
        return self._session_of(ONNX_VIEW)

    def predict(
        self, inputs: Mapping[str, np.ndarray] | np.ndarray | Sequence[Any], *, signature: str = ""
    ) -> dict[str, np.ndarray]:
        """Outputs by name; ``inputs`` are arrays by name, or one array for a model with one input. ``signature`` names one
        of ``signatures``, the card's own otherwise.

        Raises UnknownSignature, and RunFailed with the runtime's words when an input does not fit.
        """
        name = signature or self.bundle.card.signature
        if self.bundle.file is not None or (not signature and name == DEFAULT):
            return self.session.run(self._by_name(inputs, self.session))
        called = self.signatures.get(name)
        if called is None:
            raise UnknownSignature(
                f"{self.bundle.label} has no signature '{name}'", hint=f"it has {', '.join(self.signatures) or 'none'}"
            )
        own = self.bundle.lock.file(view_of(name)) is not None
        session = self._sessions(view_of(name)) if own and name != DEFAULT else self.session
        return session.run(self._by_name(inputs, session), [spec.name for spec in called.outputs])

    def _by_name(self, inputs: Mapping[str, np.ndarray] | Any, session: Session) -> Mapping[str, np.ndarray]:
        if isinstance(inputs, Mapping):
            return inputs
        import numpy as np

        from gitmodel.runtime import RunFailed

        if len(session.input_names) != 1:
            names = ", ".join(session.input_names) or "none"
            raise RunFailed(
                f"{self.bundle.label} has several inputs ({names})", hint="give a mapping of names to arrays"
            )
        return {session.input_names[0]: np.asarray(inputs)}

    @property
    def signatures(self) -> Mapping[str, Signature]:
        """All signatures by name."""
        return self.bundle.signatures.by_name

    @cached_property
    def _sessions(self) -> Callable[[str], Session]:
        return lru_cache(maxsize=None)(self._session_of)

    def _session_of(self, view: str) -> Session:
        from gitmodel import runtime

        # The files stay mapped when their folder is gone; the objects themselves are in the cache.
        with opened(self._place, self.bundle) as path:
            return runtime.open_session(path.with_name(view) if view != ONNX_VIEW else path, label=self.bundle.label)


def load(reference: str, *, repo: Path | str = ".") -> LoadedModel:
    """The model a reference names. Raises UnknownModel, UnknownVersion, UnknownRevision, InvalidModel."""
    try:
        place: Workspace | None = Workspace(Repository.open(Path(repo)))
    except NotARepository:
        place = None
    return LoadedModel(place, registry.resolve(place.repo if place else None, reference))
