"""What every benchmark shares: an isolated folder, child processes timed and bounded, medians, a table to print."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

#: The folder of the environment's commands: python, gitmodel, dvc.
BIN = Path(sys.executable).parent
_GIT_CONFIG = "[user]\n\tname = Ada\n\temail = ada@example.org\n[init]\n\tdefaultBranch = main\n"
#: DVC asks the network for its newest version now and then; a measurement must not.
_DVC_CONFIG = "[core]\n    analytics = false\n    check_update = false\n"


class Failed(Exception):
    """A command that was to be measured did not do its work."""


@dataclass(frozen=True)
class Timed:
    """One child: wall ``seconds``, and the peak resident ``memory`` of its largest process in bytes, mapped files included."""

    seconds: float
    memory: int


@contextlib.contextmanager
def isolated() -> Iterator[tuple[Path, dict[str, str]]]:
    """A temp folder, gone afterwards, and an environment in which no Git or DVC configuration of the user's counts.

    Ends in order on SIGTERM, too. ``TMPDIR`` chooses the file system.
    """
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with tempfile.TemporaryDirectory(prefix="gitmodel-benchmark-") as name:
        folder = Path(name)
        home = folder / "home"
        (home / "dvc-global").mkdir(parents=True)
        (home / "dvc-global" / "config").write_text(_DVC_CONFIG)
        (home / "gitconfig").write_text(_GIT_CONFIG)
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("GIT_", "DVC_", "PYTHON"))}
        yield (
            folder,
            {
                **kept,
                "PATH": f"{BIN}{os.pathsep}{kept.get('PATH', os.defpath)}",
                "GIT_CONFIG_GLOBAL": str(home / "gitconfig"),
                "GIT_CONFIG_NOSYSTEM": "1",
                "DVC_NO_ANALYTICS": "1",
                "DVC_GLOBAL_CONFIG_DIR": str(home / "dvc-global"),
                "DVC_SYSTEM_CONFIG_DIR": str(home / "dvc-system"),
                "DVC_SITE_CACHE_DIR": str(home / "dvc-site"),
            },
        )


def turns(count: int, limit: float) -> Iterator[int]:
    """0, 1, ... as long as there is time: nothing is begun after ``limit`` seconds, but for the first."""
    begun = time.monotonic()
    for number in range(count):
        if number and time.monotonic() - begun > limit:
            print(f"stopped after {number} of {count}: the limit of {limit:.0f} s is reached")
            return
        yield number


def apart(function: Callable[..., Any], *arguments: object) -> None:
    """Calls a module's function in a process of its own: a child that is measured would count its parent's peak memory."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        pool.submit(function, *arguments).result()


def shell(
    script: str,
    cwd: Path,
    env: Mapping[str, str],
    *,
    timeout: float = 120.0,
    watch: Callable[[int], None] | None = None,
) -> Timed:
    """Runs ``script`` as a person's shell would and times the whole of it. Raises Failed with what it said.

    ``watch`` is called with the shell's process id again and again as long as it lives.
    """
    with tempfile.TemporaryFile() as said:
        start = time.perf_counter()
        child = subprocess.Popen(
            ["sh", "-ec", script], cwd=cwd, env=env, stdin=subprocess.DEVNULL, stdout=said, stderr=said,
            start_new_session=True,
        )  # fmt: skip
        # The child leads a process group of its own, so that Git and DVC below it end with it.
        timer = threading.Timer(timeout, os.killpg, (child.pid, signal.SIGKILL))
        timer.start()
        watcher = _Watcher(watch, child.pid) if watch else contextlib.nullcontext()
        try:
            with watcher:
                _, status, usage = os.wait4(child.pid, 0)
        except BaseException:
            os.killpg(child.pid, signal.SIGKILL)
            raise
        finally:
            timer.cancel()
        seconds = time.perf_counter() - start
        child.returncode = os.waitstatus_to_exitcode(status)
        if child.returncode:
            said.seek(0)
            words = said.read().decode(errors="replace").strip()
            raise Failed(f"'{script}' ended with {child.returncode} after {seconds:.1f} s: {words[-2000:]}")
    return Timed(seconds, usage.ru_maxrss * 1024)


class _Watcher:
    """Calls ``watch`` every few milliseconds on a thread of its own while the block runs."""

    def __init__(self, watch: Callable[[int], None], pid: int) -> None:
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(watch, pid))

    def _run(self, watch: Callable[[int], None], pid: int) -> None:
        while not self._ended.wait(0.003):
            watch(pid)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()


def settle() -> float:
    """Waits until what was written is on the disk, and returns the seconds that took."""
    start = time.perf_counter()
    os.sync()
    return time.perf_counter() - start


def warm_memory(size: int) -> None:
    """Touches ``size`` bytes of memory and gives them back, so that the next command gets pages that are in use.

    In a virtual machine the first use of a page costs far more than the next: writing a file into fresh pages was
    seen at 0.35 GB/s, and at 5 GB/s into used ones. Without this the luck of the allocator decides a measurement.
    """
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    # In a process of its own: a child that is measured would count its parent's peak memory.
    program = (
        "import mmap, sys; mmap.mmap(-1, int(sys.argv[1]), mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE)"
    )
    subprocess.run([sys.executable, "-c", program, str(min(size, free // 2))], check=True, timeout=120)


def median(values: Sequence[float]) -> float:
    return statistics.median(values)


def spread(values: Sequence[float], digits: int = 2) -> str:
    """The median with the smallest and the largest value: ``2.10 (1.95-2.31)``."""
    return f"{median(values):.{digits}f} ({min(values):.{digits}f}-{max(values):.{digits}f})"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table, so that a result can be pasted into README.md as it is; it is aligned for the terminal, too."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    lines = [list(header), ["-" * width for width in widths], *map(list, rows)]
    return "\n".join(
        "| " + " | ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) + " |" for line in lines
    )


def load() -> str:
    """How busy the machine is, to stand beside every result."""
    return f"load average {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores"


def steadiness(seconds: float = 2.0) -> str:
    """How evenly the machine computes, while nothing else is asked of it: the same few microseconds of work over and over. A
    server's p99 can be no nearer to its p50."""
    turns = []
    end = (before := time.perf_counter()) + seconds
    while before < end:
        sum(range(4000))
        now = time.perf_counter()
        turns.append(now - before)
        before = now
    p50, p99 = (sorted(turns)[int((len(turns) - 1) * share)] * 1e6 for share in (0.5, 0.99))
    return f"the same piece of work took {p50:.0f} us, and in one turn of 100 more than {p99:.0f} us"
