"""Who gets a processor first: calls, or what is loaded beside them."""

from __future__ import annotations

import contextlib
import os
import threading

#: A third of the share that others have (sched(7)). With less, what holds the interpreter's lock would keep calls waiting where other
#: processes are busy.
_NICE = 5


def stand_back() -> None:
    """Has the calling thread, and those it starts, take a processor after the threads that answer calls. (Linux counts niceness by
    thread: setpriority(2), notes.)"""
    with contextlib.suppress(OSError):  # a sandbox may forbid it
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)
