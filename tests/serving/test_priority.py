"""gitmodel.serving.priority: what loads stands back behind what answers, and what packs behind all."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gitmodel.serving.priority import stand_back
from tests.serving import production as place
from tests.serving.production import Production


def _niceness(thread: int) -> int:
    return os.getpriority(os.PRIO_PROCESS, thread)


def test_a_thread_and_those_it_starts_stand_back_and_nobody_else() -> None:
    before, found = _niceness(0), []

    def below() -> None:
        found.append(_niceness(threading.get_native_id()))

    def start_another() -> None:
        another = threading.Thread(target=below)
        another.start()
        another.join()

    with ThreadPoolExecutor(max_workers=1, initializer=stand_back) as pool:
        pool.submit(below).result()
        pool.submit(start_another).result()
    assert found == [min(before + 5, 19)] * 2
    assert _niceness(threading.get_native_id()) == before


@pytest.mark.parametrize(("options", "opens_behind"), [((), True), (("--threads", "2"), False)])
def test_who_loads_stands_back_and_who_answers_does_not(
    production: Production, options: tuple[str, ...], opens_behind: bool
) -> None:
    """Threads per operator are started by the one that opens a version, and calls use them."""
    production.push(production.release("fraud@v1.0.0"))
    with place.serving(production.bare, *options) as server:
        assert server.ask("GET", "/v2/models/fraud/ready").status == 200
        own = _niceness(0)
        assert own + 5 in _threads(server.pid), "the one that fetches"
        (worker,) = (int(match[1]) for line in server.lines if (match := re.search(r"answers \(pid (\d+)\)", line)))
        assert _niceness(worker) == own, "the one that answers"
        assert (own + 5 in _threads(worker)) is opens_behind


def _threads(pid: int) -> set[int]:
    return {_niceness(int(task.name)) for task in Path(f"/proc/{pid}/task").iterdir()}


def test_who_packs_weights_takes_what_nobody_else_wants() -> None:
    told = subprocess.run(
        [
            sys.executable, "-c",
            "import os; from gitmodel import runtime; from gitmodel.serving import prepacking\n"
            "runtime.save_prepacked = lambda *_, **__: print(os.sched_getscheduler(0), os.getpriority(os.PRIO_PROCESS, 0))\n"
            "prepacking.pack('from', 'to', 1, os.getppid())",
        ],
        check=True, capture_output=True, text=True,
    ).stdout  # fmt: skip
    assert told.split() == [str(os.SCHED_IDLE), "19"]
