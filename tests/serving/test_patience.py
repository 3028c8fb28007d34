"""gitmodel.serving.patience: a client that sends its body drop by drop is told off, one that asks nothing is let go of."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from gitmodel.serving import patience
from gitmodel.serving.patience import Patience, close_silent


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "_LOOK_EVERY", 0.01)


def test_a_task_that_waits_too_long_is_cancelled_and_knows_why() -> None:
    async def reads(patient: Patience, seconds: float) -> str:
        task = patient.begin()
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            return "late" if patient.end(task) else "cancelled"
        return "late" if patient.end(task) else "done"

    async def main() -> list[str]:
        patient = Patience(0.1)
        first = await asyncio.gather(reads(patient, 60), reads(patient, 0), reads(patient, 60))
        other = asyncio.create_task(reads(patient, 60))
        await asyncio.sleep(0.02)
        other.cancel()
        again = await reads(patient, 60)
        assert not patient._reading
        assert not patient._late
        return [*first, await other, again]

    assert asyncio.run(main()) == ["late", "done", "late", "cancelled", "late"]


class Connection:
    """As uvicorn's: ``cycle`` is the request at work, if any."""

    def __init__(self, cycle: object = None) -> None:
        self.cycle, self.transport, self.closed = cycle, self, False

    def close(self) -> None:
        self.closed = True


def test_a_connection_on_which_nothing_is_asked_is_closed() -> None:
    async def main(connections: set[Any]) -> None:
        task = asyncio.create_task(close_silent(connections, 0.05))
        await asyncio.sleep(0.3)
        task.cancel()

    silent, busy = Connection(), Connection(cycle="a request")
    asyncio.run(main({silent, busy}))
    assert (silent.closed, busy.closed) == (True, False)
