"""Where versions are opened and answer: what the manager asks of it, and the one that is this process itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from gitmodel.serving.fetching import Fetcher
from gitmodel.serving.opening import Fetched, Opener
from gitmodel.serving.policy import AspiredVersion
from gitmodel.serving.servable import Servable, Serving
from gitmodel.serving.unloading import drain


class Host(Protocol):
    """Asked by one thread, the manager's."""

    def load(self, aspired: AspiredVersion) -> Servable:
        """A version that has shown all it has to show, and that no call reaches yet. Raises whatever goes wrong."""

    def publish(self, table: Mapping[str, Serving]) -> None:
        """From now on calls are answered from this table, of versions that were loaded. Raises nothing."""

    def unload(self, servable: Servable) -> None:
        """Waits until what stands in no table any more is through with its calls, and lets go of it. Raises nothing."""


class Alone:
    """One process does it all: whoever answers calls reads the manager's table itself."""

    def __init__(self, fetcher: Fetcher, opener: Opener) -> None:
        self._fetcher, self._opener = fetcher, opener

    def load(self, aspired: AspiredVersion) -> Servable:
        """Raises GitmodelError of many kinds; whatever it is, nothing that serves is touched."""
        # No caller of what fetches may hold the session: DVC leaves frames in circles of references, with all their callers',
        # and a session's memory would stay until Python comes to look for such.
        return self._open(aspired, self._fetcher.fetch(aspired))

    def publish(self, table: Mapping[str, Serving]) -> None:
        """Nothing: the manager has it."""

    def unload(self, servable: Servable) -> None:
        """Waits for its calls; its memory goes with the last reference."""
        drain(servable)

    def _open(self, aspired: AspiredVersion, fetched: Fetched) -> Servable:
        servable = self._opener.open(fetched)

        def repack(servable: Servable, path: Path) -> None:
            self._opener.repack(servable, path, self._fetcher.fetch(aspired))

        if fetched.large:
            servable.repack = repack
        return servable
