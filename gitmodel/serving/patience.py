"""How long clients may take: to ask anything, to send a body, to read an answer. All connections are looked at once a second, so
that a request pays nothing for it."""

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


#: What somebody is at who has asked nothing yet; the second is what tells it from the next time.
_ASKS_NOTHING = ("asks nothing", 0)


async def end_the_slow(connections: Collection[Any], *, silent: float, body: float, most: int) -> None:
    """Ends, until it is cancelled, connections on which for ``silent`` seconds no request has begun, or no byte of an
    answer was taken (uvicorn's own limit counts between an answer and the next byte only); those whose request's body is not whole
    after ``body`` seconds, with 408; and of more than ``most`` those that ask nothing."""
    since: WeakKeyDictionary[Any, tuple[object, float]] = WeakKeyDictionary()
    while True:
        await asyncio.sleep(_LOOK_EVERY)
        now = asyncio.get_running_loop().time()
        spare = len(connections) - most
        for connection in list(connections):
            doing, allowed = _doing(connection, silent, body)
            before, begun = since.get(connection, (None, now))
            if doing != before:
                begun = now
            since[connection] = (doing, begun)
            crowded = spare > 0 and doing == _ASKS_NOTHING
            if doing is not None and (crowded or now - begun > allowed):
                spare -= crowded
                _end(connection, late=doing[0] == "sends")
            del connection  # or the last one would live on until the next look, with all that it holds


def _doing(connection: Any, silent: float, body: float) -> tuple[tuple[str, int] | None, float]:
    """What a client is waited for with, as long as that stays the same, and for how many seconds; None where it is our turn."""
    cycle, unread = connection.cycle, connection.transport.get_write_buffer_size()
    if unread:
        return ("reads", unread), silent
    if cycle is None:
        return ("asks nothing", connection.asked), silent
    if cycle.response_complete:
        # With a timer uvicorn waits itself; without one it was cancelled by the first byte of a next request.
        asking = connection.timeout_keep_alive_task is None
        return (("begins", connection.asked) if asking else None), silent
    if cycle.more_body and not cycle.response_started:
        return ("sends", connection.asked), body
    return None, silent


def _end(connection: Any, *, late: bool) -> None:
    if late:
        connection.transport.write(_TOO_LATE)
        connection.transport.close()
        connection.cycle.disconnected = True  # for whoever waits for the rest
        connection.cycle.message_event.set()
    else:
        connection.transport.abort()
