"""What is no longer asked for ends its calls, and its memory goes back to the system."""

from __future__ import annotations

import ctypes
import time

from gitmodel.serving.servable import Servable

DRAIN_SECONDS = 30.0
_LOOK_EVERY = 0.005
#: mallopt(3): blocks from this size on are of the system each by itself, and of what is free at its end the heap keeps so much.
_MMAP_THRESHOLD, _TRIM_THRESHOLD = (-3, 8 << 20), (-1, 32 << 20)


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


def keep() -> None:
    """Has the memory of one call's tensors, when it is freed, serve the next call: by default each gets pages from the system
    and gives them back, and a page's first use costs more than to copy what is put there (glibc only)."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return
    for option in (_MMAP_THRESHOLD, _TRIM_THRESHOLD):
        mallopt(*option)
