"""gitmodel.serving.priority: what loads stands back behind what answers."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from gitmodel.serving.priority import stand_back
from tests.serving import production as place
from tests.serving.production import Production


def _niceness(thread: int) -> int:
    return os.getpriority(os.PRIO_PROCESS, thread)


@pytest.mark.parametrize(("threads", "more"), [(1, 5), (2, 0)])
def test_a_thread_and_those_it_starts_stand_back_and_nobody_else(threads: int, more: int) -> None:
    before, found = _niceness(0), []

    def below() -> None:
        found.append(_niceness(threading.get_native_id()))

    def start_another() -> None:
        another = threading.Thread(target=below)
        another.start()
        another.join()

    with ThreadPoolExecutor(max_workers=1, initializer=stand_back, initargs=(threads,)) as pool:
        pool.submit(below).result()
        pool.submit(start_another).result()
    assert found == [min(before + more, 19) if more else before] * 2
    assert _niceness(threading.get_native_id()) == before


@pytest.mark.parametrize("options", [(), ("--workers", "2")])
def test_in_a_server_the_thread_that_loads_stands_back_and_that_which_answers_does_not(
    production: Production, options: tuple[str, ...]
) -> None:
    production.push(production.release("fraud@v1.0.0"))
    with place.serving(production.bare, *options) as server:
        assert server.ask("GET", "/v2/models/fraud/ready").status == 200
        own = _niceness(0)
        threads = {int(task.name): task for task in Path(f"/proc/{server.pid}/task").iterdir()}
        assert _niceness(server.pid) == own  # the main thread, which answers
        assert own + 5 in {_niceness(thread) for thread in threads}
