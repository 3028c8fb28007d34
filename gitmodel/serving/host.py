"""Where versions are opened and answer: what the manager asks of it, and the one that is this process itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Protocol

from gitmodel.serving.fetching import Fetcher
from gitmodel.serving.http import Answer
from gitmodel.serving.opening import Fetched, Opener
from gitmodel.serving.policy import AspiredVersion
from gitmodel.serving.servable import Servable, Serving, States
from gitmodel.serving.traffic import Traffic
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
    """One process does it all: whoever answers calls reads the manager's table itself, and counts into ``own``. What a ``Fleet`` can
    be asked besides has its answers here, too."""

    def __init__(self, fetcher: Fetcher, opener: Opener, own: Traffic) -> None:
        self._fetcher, self._opener, self._own = fetcher, opener, own

    def start(self, *_: object) -> None:
        """Nobody else is to be started."""

    def stop(self) -> None:
        """Nor ended."""

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

    def states(self, states: States) -> States:
        return states

    def show(self, _: States) -> None:
        """Whoever wants to know reads it from the manager."""

    def traffic(self, _: bool) -> Traffic:
        return self._own

    def workers(self) -> None:
        """There are none."""

    def looking(self, look: Callable[[str], Answer]) -> Callable[[str], Awaitable[Answer]]:
        """On the event loop, which alone counts."""

        async def looked(path: str) -> Answer:
            return look(path)

        return looked

    def _open(self, aspired: AspiredVersion, fetched: Fetched) -> Servable:
        servable = self._opener.open(fetched)

        def repack(servable: Servable, path: Path) -> None:
            self._opener.repack(servable, path, self._fetcher.fetch(aspired))

        if fetched.large:
            servable.repack = repack
        return servable
