"""What is no longer asked for ends its calls, and its memory goes back to the system."""

from __future__ import annotations

import ctypes
import time

from gitmodel.serving.servable import Servable

DRAIN_SECONDS = 30.0
_LOOK_EVERY = 0.005


def drain(servable: Servable) -> None:
    """Waits, for half a minute at most, until a servable has no calls in flight."""
    deadline = time.monotonic() + DRAIN_SECONDS
    while servable.in_flight and time.monotonic() < deadline:
        time.sleep(_LOOK_EVERY)


def trim() -> None:
    """Gives freed weights back to the system: without it a server that swaps keeps growing (glibc only)."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (OSError, AttributeError):
        return
