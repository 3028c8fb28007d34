"""Where versions are opened and answer, as the manager sees it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from gitmodel.serving.policy import AspiredVersion
from gitmodel.serving.servable import Servable, Serving


class Host(Protocol):
    """Asked by one thread, the manager's."""

    def load(self, aspired: AspiredVersion) -> Servable:
        """A version that has shown all it has to show, and that no call reaches yet. Raises whatever goes wrong."""

    def publish(self, table: Mapping[str, Serving]) -> None:
        """From now on calls are answered from this table, of versions that were loaded. Raises nothing."""

    def unload(self, servable: Servable) -> None:
        """Waits until what stands in no table any more is through with its calls, and lets go of it. Raises nothing."""
