"""gitmodel.serving.patience: who asks nothing or reads no answer is let go of; test_limits.py has real ones."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gitmodel.serving import patience
from gitmodel.serving.patience import end_the_slow


class Cycle:
    """As uvicorn's: a request at work."""

    def __init__(self, *, more_body: bool = False, started: bool = False, complete: bool = False) -> None:
        self.more_body, self.response_started, self.response_complete = more_body, started or complete, complete


class Connection:
    """As ours, and its own transport; ``timer`` is what uvicorn waits with for the next request."""

    def __init__(self, cycle: Cycle | None = None, *, timer: object = None, unread: int = 0, asked: int = 0) -> None:
        self.cycle, self.transport, self.timeout_keep_alive_task, self.unread = cycle, self, timer, unread
        self.asked = asked
        self.ended = ""

    def grow_impatient(self) -> None:
        """Nothing is held here."""

    def get_write_buffer_size(self) -> int:
        return self.unread

    def abort(self) -> None:
        self.ended = "aborted"


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "_LOOK_EVERY", 0.01)


def watched(made: dict[str, Connection], *, most: int = 100) -> dict[str, str]:
    """What became of each after a while; those called 'busy' do something now and then."""

    async def main() -> None:
        connections: set[Any] = set(made.values())
        task = asyncio.create_task(end_the_slow(connections, silent=0.15, most=most))
        for _ in range(12):
            await asyncio.sleep(0.05)
            for name, connection in made.items():
                if name.startswith("busy") and connection.unread:
                    connection.unread += 1
                elif name.startswith("busy"):
                    connection.asked += 1
        task.cancel()

    asyncio.run(main())
    return {name: connection.ended for name, connection in made.items() if connection.ended}


def test_who_keeps_us_waiting_is_let_go_of_and_nobody_else() -> None:
    made = {
        "asks nothing": Connection(),
        "never ends a second head": Connection(Cycle(complete=True)),
        "was answered at once, and asks no more": Connection(asked=5),
        "never reads": Connection(Cycle(complete=True), timer="uvicorn's", unread=5),
        "waits for us": Connection(Cycle()),
        "is answered": Connection(Cycle(more_body=True, started=True)),
        "may ask again": Connection(Cycle(complete=True), timer="uvicorn's"),
        "sends a body, which is another's to bound": Connection(Cycle(more_body=True)),
        "busy reading": Connection(Cycle(complete=True), unread=5),
        "busy being answered at once": Connection(asked=5),
        "busy so after another answer": Connection(Cycle(complete=True), asked=5),
    }
    assert watched(made) == {
        "asks nothing": "aborted",
        "never ends a second head": "aborted",
        "was answered at once, and asks no more": "aborted",
        "never reads": "aborted",
    }


def test_in_a_crowd_those_who_ask_nothing_leave_at_once() -> None:
    made = {f"idle {number}": Connection() for number in range(5)}
    made |= {"waits": Connection(Cycle()), "has asked": Connection(asked=1)}

    async def main() -> int:
        connections: set[Any] = set(made.values())
        task = asyncio.create_task(end_the_slow(connections, silent=60, most=4))
        await asyncio.sleep(0.015)
        task.cancel()
        return sum(bool(connection.ended) for connection in made.values())

    assert asyncio.run(main()) == 3
    assert not made["waits"].ended
    assert not made["has asked"].ended
