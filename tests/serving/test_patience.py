"""gitmodel.serving.patience: who asks nothing is let go of, who sends a body drop by drop is told so; test_limits.py has real ones."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gitmodel.serving import patience
from gitmodel.serving.patience import end_the_slow


class Cycle:
    """As uvicorn's: a request at work."""

    def __init__(self, *, more_body: bool, response_started: bool = False) -> None:
        self.more_body, self.response_started = more_body, response_started
        self.disconnected, self.message_event = False, asyncio.Event()


class Connection:
    """As uvicorn's, and its own transport."""

    def __init__(self, cycle: Cycle | None = None) -> None:
        self.cycle, self.transport, self.closed, self.sent = cycle, self, False, b""

    def write(self, data: bytes) -> None:
        self.sent += data

    def close(self) -> None:
        self.closed = True


def test_who_asks_nothing_or_sends_no_whole_body_is_let_go_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "_LOOK_EVERY", 0.01)

    async def main() -> dict[str, Connection]:
        made = {
            "silent": Connection(),
            "slow": Connection(Cycle(more_body=True)),
            "thinking": Connection(Cycle(more_body=False)),
            "answered": Connection(Cycle(more_body=True, response_started=True)),
        }
        connections: set[Any] = set(made.values())
        task = asyncio.create_task(end_the_slow(connections, silent=0.1, body=0.1))
        await asyncio.sleep(0.05)
        assert not any(connection.closed for connection in connections)
        await asyncio.sleep(0.3)
        task.cancel()
        return made

    made = asyncio.run(main())
    assert {name for name, connection in made.items() if connection.closed} == {"silent", "slow"}
    assert made["silent"].sent == b""
    assert made["slow"].sent.startswith(b"HTTP/1.1 408 ")
    assert made["slow"].cycle is not None
    assert made["slow"].cycle.disconnected
    assert made["slow"].cycle.message_event.is_set()
