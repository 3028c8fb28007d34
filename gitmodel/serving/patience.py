"""How long clients may take to ask anything and to read an answer. All connections are looked at once a second, so that a request
pays nothing for it. How long a body may take, whoever reads it sees to."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any
from weakref import WeakKeyDictionary

_LOOK_EVERY = 1.0
#: What somebody is at who has asked nothing yet; the second is what tells it from the next time.
_ASKS_NOTHING = ("asks nothing", 0)


async def end_the_slow(connections: Collection[Any], *, silent: float, most: int) -> None:
    """Ends, until it is cancelled, connections on which for ``silent`` seconds no request has begun, or no byte of an
    answer was taken (uvicorn's own limit counts between an answer and the next byte only); and of more than ``most`` those that
    ask nothing."""
    since: WeakKeyDictionary[Any, tuple[object, float]] = WeakKeyDictionary()
    while True:
        await asyncio.sleep(_LOOK_EVERY)
        now = asyncio.get_running_loop().time()
        spare = len(connections) - most
        for connection in list(connections):
            connection.grow_impatient()
            doing = _doing(connection)
            before, begun = since.get(connection, (None, now))
            if doing != before:
                begun = now
            since[connection] = (doing, begun)
            crowded = spare > 0 and doing == _ASKS_NOTHING
            if doing is not None and (crowded or now - begun > silent):
                spare -= crowded
                connection.transport.abort()
            del connection  # or the last one would live on until the next look, with all that it holds


def _doing(connection: Any) -> tuple[str, int] | None:
    """What a client is waited for with, as long as that stays the same; None where it is our turn, or it sends a body."""
    cycle, unread = connection.cycle, connection.transport.get_write_buffer_size()
    if unread:
        return "reads", unread
    if cycle is None:
        return "asks nothing", connection.asked
    # With a timer uvicorn waits itself; without one it was cancelled by the first byte of a next request.
    if cycle.response_complete and connection.timeout_keep_alive_task is None:
        return "begins", connection.asked
    return None
