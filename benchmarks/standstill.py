"""When the machine itself stood still: a process on each processor that asks for nothing, goes before all others, and is late all
the same. In a virtual machine that is what the host gave to somebody else, or took to find a page. Run as a program it watches
one processor until its standard input ends.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import select
import subprocess
import sys
import time

_EVERY_NS = 1_000_000
#: Shorter delays are not told of.
_LATE_NS = 2_000_000


class Standstill:
    """Watches from ``with`` on until ``end``."""

    def __init__(self) -> None:
        self._watchers = [
            subprocess.Popen(
                [sys.executable, __file__, str(cpu)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                start_new_session=True,
            )
            for cpu in sorted(os.sched_getaffinity(0))
        ]
        #: Of any processor, in nanoseconds of the monotonic clock: when it was due, and when it came.
        self._late: list[tuple[int, int]] = []

    def __enter__(self) -> Standstill:
        return self

    def end(self) -> None:
        for watcher in self._watchers:
            told, _ = watcher.communicate(timeout=30)
            self._late += [(due, came) for due, came in json.loads(told)]

    def longest(self, window: tuple[int, int]) -> float:
        """Milliseconds that a processor stood still without a break, of those that began in the window."""
        return max((came - due for due, came in self._late if window[0] <= due <= window[1]), default=0) / 1e6

    def __exit__(self, *_: object) -> None:
        for watcher in self._watchers:
            if watcher.poll() is None:
                watcher.kill()
            watcher.communicate()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("cpu", type=int)
    cpu = parser.parse_args().cpu
    os.sched_setaffinity(0, {cpu})
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))
    except PermissionError:  # then it is late for others' sake, too, if not by much
        with contextlib.suppress(OSError):
            os.nice(-20)
    clock, late, end = time.monotonic_ns, list[tuple[int, int]](), select.poll()
    end.register(sys.stdin)
    due = clock() + _EVERY_NS
    while not end.poll(0):
        time.sleep(max(0, due - clock()) / 1e9)
        came = clock()
        if came - due > _LATE_NS:
            late.append((due, came))
        due = came + _EVERY_NS
    print(json.dumps(late))


if __name__ == "__main__":
    main()
