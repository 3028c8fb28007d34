"""What is open in this process when a release begins, handed from the save to the judge. Who opens it is not said here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from gitmodel.errors import GitmodelError

if TYPE_CHECKING:
    import numpy as np

    from gitmodel.bundle.lock import Lock
    from gitmodel.compat.side_by_side import Runs

#: What a session gave, or how it refused, by ``side_by_side.key_of`` the inputs.
Answers = dict[bytes, dict[str, Any] | GitmodelError]


class Sessions:
    """Sessions that are open already, without prepacking, by the digest of the lock and the name of the ONNX view: those that a
    save has opened, for the release that follows."""

    def __init__(self) -> None:
        self._open: dict[tuple[str, str], Runs] = {}

    def expect(self, before: Lock | None) -> None:
        """Called while a save hashes what it was given; ``before`` is the lock of what was saved last."""

    def keep(self, digest: str, view: str, session: Runs) -> None:
        self._open[digest, view] = session

    def find(self, digest: str, view: str) -> Runs | None:
        return self._open.get((digest, view))


class Prefetched:
    """A session that was asked something before anybody wanted to know. Each of its answers is given once: whoever asks
    again wants to see whether the model says the same."""

    def __init__(self, session: Runs, answers: Future[Answers]) -> None:
        self._session, self._answers = session, answers

    def run(self, inputs: Mapping[str, np.ndarray], outputs: Sequence[str] | None = None) -> dict[str, Any]:
        """As the session itself. Raises RunFailed."""
        from gitmodel.compat.side_by_side import key_of

        answers = self._answers.result()
        known = answers.pop(key_of(inputs), None) if answers and outputs is None else None
        if isinstance(known, GitmodelError):
            raise known
        return self._session.run(inputs, outputs) if known is None else known
