"""Inference without a transport: checks a call against the signature, runs it, returns who answered. Front ends only convert types."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from gitmodel.bundle.signature import Signature, TensorSpec
from gitmodel.errors import GitmodelError
from gitmodel.formats.dtypes import dtype_name
from gitmodel.runtime import RunFailed
from gitmodel.serving.batching import Batcher
from gitmodel.serving.servable import Servable, Serving, State, VersionStatus, in_order

if TYPE_CHECKING:
    import numpy as np


class DataplaneError(GitmodelError):
    """``code`` is one of not_found, unavailable, invalid_argument, unimplemented, internal; each edge maps it."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class Dataplane:
    """One per process. ``table`` gives the manager's table of this moment; it is read once per call. With a ``batcher`` calls of
    servables that allow it are run together. ``standing`` is that of ``States``."""

    def __init__(
        self,
        table: Callable[[], Mapping[str, Serving]],
        statuses: Callable[[str], list[VersionStatus]],
        batcher: Batcher | None = None,
        standing: Callable[[], Mapping[str, Mapping[str, str]]] = dict,
    ) -> None:
        self._table, self._statuses, self._batcher, self._standing = table, statuses, batcher, standing

    def models(self) -> Mapping[str, Serving]:
        return self._table()

    def find(self, model: str, version: str = "") -> Servable:
        """The servable a call is for. Raises DataplaneError: not_found, or unavailable with the reason."""
        serving = self._table().get(model)
        if serving is not None:
            if not version:
                return serving.default
            found = serving.by_version.get(version) or _by_number(serving, version)
            if found is not None:
                return found
        known = self._statuses(model)
        asked = [status for status in known if not version or version in (status.version, str(status.number))]
        if not known:
            names = ", ".join(sorted(self._table())) or "none"
            raise DataplaneError("not_found", f"there is no model '{model}' here; models: {names}")
        if not asked:
            available = ", ".join(serving.by_version) if serving else "none"
            raise DataplaneError(
                "not_found", f"model '{model}' has no version '{version}' here; available: {available}"
            )
        status = asked[-1]
        said = f": {status.reason}" if status.reason else ""
        state = (
            "no longer served" if status.state is State.END and not status.reason else f"not available ({status.state})"
        )
        raise DataplaneError("unavailable", f"{model} {status.version} is {state}{said}")

    def labelled(self, model: str, label: str) -> Servable:
        """The servable that a label, which is a stage, stands on. Raises DataplaneError, as ``find`` does."""
        serving = self._table().get(model)
        found = serving.by_stage.get(label) if serving else None
        return found or self.find(model, self.known(model, label=label)[0].version)

    def known(self, model: str, version: str = "", label: str = "") -> list[VersionStatus]:
        """The states of a model's versions; of one alone, by its tag's version, its number or its label. Raises
        DataplaneError (not_found)."""
        every = in_order(self._statuses(model))
        if not every:
            self.find(model)
        if label:
            found = [status for status in every if label in status.stages]
            stands = self._standing().get(model, {}).get(label)
            why = f" here: stage '{label}' stands on {stands}, which is not loaded" if stands else ""
            labels = ", ".join(sorted({stage for status in every for stage in status.stages})) or "none"
            missing = f"label '{label}'{why}; labels: {labels}"
        else:
            found = [status for status in every if not version or version in (status.version, str(status.number))]
            missing = f"version '{version}' here; known: {', '.join(status.version for status in every)}"
        if not found:
            raise DataplaneError("not_found", f"model '{model}' has no {missing}")
        return found

    def infer(
        self, servable: Servable, inputs: Mapping[str, np.ndarray], outputs: Sequence[str] | None = None
    ) -> dict[str, np.ndarray]:
        """Runs one call. Raises DataplaneError: invalid_argument for a call that does not fit the signature."""
        check(servable.signature, inputs, outputs)
        return self.run(servable, inputs, outputs)

    def run(
        self, servable: Servable, inputs: Mapping[str, np.ndarray], outputs: Sequence[str] | None = None
    ) -> dict[str, np.ndarray]:
        """``infer`` for a call that was held against the signature already. Raises DataplaneError."""
        wanted = outputs or servable.outputs
        try:
            if self._batcher is not None and servable.batch_rows and not servable.quick:
                return self._batcher.run(servable, inputs, wanted, servable.session.run)
            return servable.session.run(inputs, wanted)
        except RunFailed as error:
            raise DataplaneError("invalid_argument", str(error)) from error


def check(signature: Signature, inputs: Mapping[str, np.ndarray], outputs: Sequence[str] | None) -> None:
    """Holds a call against the signature, so that the error names the tensor and what it should be."""
    for spec in signature.inputs:
        value = inputs.get(spec.name)
        if value is None:
            if not spec.optional:
                raise DataplaneError(
                    "invalid_argument", f"input '{spec.name}' is missing; the model wants {_inputs(signature)}"
                )
            continue
        _check_tensor(spec, value)
    for name in inputs:
        if signature.input(name) is None:
            raise DataplaneError("invalid_argument", f"the model has no input '{name}'; it wants {_inputs(signature)}")
    if outputs is None:
        return
    known = [spec.name for spec in signature.outputs]
    for name in outputs:
        if name not in known:
            raise DataplaneError("invalid_argument", f"the model has no output '{name}'; it gives {', '.join(known)}")


def _check_tensor(spec: TensorSpec, value: np.ndarray) -> None:
    dtype = dtype_name(value.dtype)
    if spec.kind == "tensor" and dtype != spec.dtype:
        raise DataplaneError("invalid_argument", f"input '{spec.name}' is {dtype}, the model wants {spec.dtype}")
    if spec.shape is None:
        return
    fits = len(spec.shape) == value.ndim and all(
        not isinstance(want, int) or want == got for want, got in zip(spec.shape, value.shape, strict=True)
    )
    if not fits:
        wanted = ", ".join(str(d) if isinstance(d, int) else "-1" for d in spec.shape)
        raise DataplaneError(
            "invalid_argument", f"input '{spec.name}' has shape {list(value.shape)}, the model wants [{wanted}]"
        )


def _inputs(signature: Signature) -> str:
    return "; ".join(str(spec) for spec in signature.inputs)


def _by_number(serving: Serving, version: str) -> Servable | None:
    return next((s for s in serving.by_version.values() if str(s.number) == version), None)
