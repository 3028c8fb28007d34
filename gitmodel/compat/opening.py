"""What the judge needs of whoever opens models: isolated.py does it in sandboxes, trusted.py in this process."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

from msgspec import Struct

from gitmodel.bundle.bundle import Bundle
from gitmodel.bundle.lock import TensorEntry
from gitmodel.bundle.signature import Signature
from gitmodel.errors import ExitCode, GitmodelError
from gitmodel.formats.onnx_facts import Facts
from gitmodel.runtime import RuntimeLimits

if TYPE_CHECKING:
    import numpy as np

    from gitmodel.compat.side_by_side import Runs
    from gitmodel.formats.source import Description


class CannotOpen(GitmodelError):
    """A model was read, but does not open; ``opened`` has what is known of it all the same."""

    code = "cannot-open"
    exit_code = ExitCode.INCOMPLETE

    def __init__(self, message: str, hint: str, opened: Opened) -> None:
        super().__init__(message, hint=hint)
        self.opened = opened


class Opened(Struct, frozen=True):
    """What is said of a model by whoever opened it. ``outside`` are [kind, text] of data that are not where they should be;
    ``limits`` are the runtime's, asked for only when it refused the model."""

    label: str
    signature: Signature
    facts: Facts
    complaint: str = ""
    outside: tuple[tuple[str, str], ...] = ()
    limits: RuntimeLimits | None = None
    loads: bool = True
    #: Bytes of its files.
    size: int = 0

    @classmethod
    def from_dict(cls, said: Mapping[str, Any], label: str) -> Opened:
        limits = RuntimeLimits.from_dict(said["limits"]) if "limits" in said else None
        outside = tuple((str(kind), str(text)) for kind, text in said["outside"])
        signature = Signature.from_dict(said["signature"], label)
        facts, complaint = Facts.from_dict(said["facts"]), str(said["complaint"])
        return cls(label, signature, facts, complaint, outside, limits, said["failed"] is None, int(said["size"]))


class Running(Protocol):
    """A model that runs."""

    opened: Opened
    #: Why it could not answer, where that was for want of memory.
    starved: str

    def run(self, inputs: Mapping[str, np.ndarray], outputs: Sequence[str] | None = None) -> dict[str, Any]:
        """Raises RunFailed and kin."""
        ...

    def again(self, **options: Any) -> Runs:
        """The same model with other options of ``runtime.open_session``. Raises LoadFailed and kin."""
        ...


class Opens(Protocol):
    """Opens the models of one pair; what it holds is let go of at the end of the block."""

    def __enter__(self) -> Self: ...

    def __exit__(self, *_: object) -> None: ...

    def read_soon(self, paths: Iterable[Path]) -> None:
        """These bare files will be read."""
        ...

    def run_soon(self, count: int, folder: Path, size: int) -> None:
        """So many models of at most ``size`` bytes will be opened somewhere below ``folder``."""
        ...

    def describe(self, path: Path) -> Description:
        """What a bare file says of itself. Raises InvalidModel and kin."""
        ...

    def tensors(self, path: Path, *, digests: bool = True) -> tuple[TensorEntry, ...]:
        """The tensors of a bare file. Raises InvalidModel and kin."""
        ...

    def open(self, path: Path, bundle: Bundle, **options: Any) -> Running:
        """A model that runs. Raises CannotOpen, InvalidModel and kin."""
        ...

    @property
    def failure(self) -> str:
        """Why a pair could not be judged to the end though its models opened; '' where it could."""
        ...


def want_of_memory(models: Sequence[Running]) -> str:
    """Why NEW could not answer where it had no memory and OLD had; '' otherwise: what OLD has no memory for, either, is no input of
    its callers. ``models`` are as they were opened: OLD and then NEW for each signature, or NEW alone."""
    old = None
    for model in models:
        if len(models) > 1 and model.opened.label == models[0].opened.label:
            old = model
        elif model.starved and not (old and old.starved):
            return model.starved
    return ""
