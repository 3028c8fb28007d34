"""How long clients may take: to ask anything once they are connected, and to send a body once they have begun. All connections
are looked at once a second, so that a request pays nothing for it."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any
from weakref import WeakKeyDictionary

_LOOK_EVERY = 1.0
_LATE = b'{"error":"the body took too long to come"}'
_TOO_LATE = (
    b"HTTP/1.1 408 Request Timeout\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%s"
    % (
        len(_LATE),
        _LATE,
    )
)


async def end_the_slow(connections: Collection[Any], *, silent: float, body: float) -> None:
    """Closes, until it is cancelled, connections of uvicorn's on which no request has begun for ``silent`` seconds (its own
    limit counts from the first answer on), or whose request's body is not whole after ``body`` seconds, with 408."""
    since: WeakKeyDictionary[Any, float] = WeakKeyDictionary()
    while True:
        await asyncio.sleep(_LOOK_EVERY)
        now = asyncio.get_running_loop().time()
        for connection in list(connections):
            cycle = connection.cycle
            if cycle is None:
                if now - since.setdefault(connection, now) > silent:
                    connection.transport.close()
            elif cycle.more_body and not cycle.response_started and now - since.setdefault(cycle, now) > body:
                connection.transport.write(_TOO_LATE)
                connection.transport.close()
                cycle.disconnected = True  # for whoever waits for the rest
                cycle.message_event.set()
