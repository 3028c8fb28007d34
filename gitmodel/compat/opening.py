"""What the judge needs of whoever opens models: isolated.py does it in sandboxes, trusted.py in this process."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, Self

from gitmodel.bundle.bundle import Bundle
from gitmodel.bundle.lock import TensorEntry

if TYPE_CHECKING:
    import numpy as np

    from gitmodel.compat.isolated import Opened
    from gitmodel.compat.side_by_side import Runs
    from gitmodel.formats.source import Description


class Running(Protocol):
    """A model that runs."""

    opened: Opened

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
