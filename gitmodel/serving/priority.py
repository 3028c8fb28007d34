"""Who gets a processor first: calls, what is loaded beside them, or what is made ready for later."""

from __future__ import annotations

import contextlib
import os
import threading

#: A third of the share that others have (sched(7)). With less, what holds the interpreter's lock would keep calls waiting where other
#: processes are busy.
_NICE = 5
#: The least share there is.
_LAST = 19


def stand_back() -> None:
    """Has the calling thread, and those it starts, take a processor after the threads that answer calls. (Linux counts niceness by
    thread: setpriority(2), notes.)"""
    with contextlib.suppress(OSError):  # a sandbox may forbid it
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)


def stay_behind() -> None:
    """Has this process take what processors nobody else wants. One that runs nothing but such a process is idle in Linux's eyes:
    whoever wakes up, or waits elsewhere for its turn, is put there at once. Beside niceness alone a worker stayed where the caller
    was, on the other one (SCHED_IDLE in sched(7); sched_idle_cpu in kernel/sched/fair.c)."""
    os.nice(_LAST)
    with contextlib.suppress(OSError, AttributeError):  # a sandbox may forbid it, and only Linux has it
        os.sched_setscheduler(0, os.SCHED_IDLE, os.sched_param(0))
