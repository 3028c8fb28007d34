"""How long clients may take: to send a request, once they have connected, and to send its body. One look a second for all, so that
a request pays next to nothing for it."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any, cast
from weakref import WeakKeyDictionary

_LOOK_EVERY = 1.0


class Patience:
    """``seconds`` for a body, from its head on. For one event loop, from whose thread alone it is used."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._reading: dict[asyncio.Task[Any], float] = {}
        self._late: set[asyncio.Task[Any]] = set()
        self._looking = False

    def begin(self) -> asyncio.Task[Any]:
        """The task at work, which waits for a body from now on; it is cancelled when that takes too long."""
        task = cast("asyncio.Task[Any]", asyncio.current_task())
        loop = task.get_loop()
        self._reading[task] = loop.time() + self._seconds
        if not self._looking:
            self._looking = True
            loop.call_later(_LOOK_EVERY, self._look, loop)
        return task

    def end(self, task: asyncio.Task[Any]) -> bool:
        """The task waits no longer; returns whether it was cancelled for having waited too long."""
        self._reading.pop(task, None)
        if task in self._late:
            self._late.discard(task)
            task.uncancel()
            return True
        return False

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        now = loop.time()
        for task in [task for task, until in self._reading.items() if until < now]:
            del self._reading[task]
            self._late.add(task)
            task.cancel()
        self._looking = bool(self._reading)
        if self._looking:
            loop.call_later(_LOOK_EVERY, self._look, loop)


async def close_silent(connections: Collection[Any], seconds: float) -> None:
    """Closes, until it is cancelled, connections of uvicorn's on which no request has begun for so long after they were opened:
    its own limit counts from the first answer on."""
    since: WeakKeyDictionary[Any, float] = WeakKeyDictionary()
    while True:
        await asyncio.sleep(_LOOK_EVERY)
        now = asyncio.get_running_loop().time()
        for connection in list(connections):
            if connection.cycle is not None:
                since.pop(connection, None)
            elif now - since.setdefault(connection, now) > seconds:
                connection.transport.close()
