"""Accepts connections from a socket that several worker processes wait at."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gitmodel.serving.connection import Connection

#: Seconds without looking for connections after one could not be had, for want of descriptors or memory.
_PAUSE = 1.0
#: Seconds that others have to take the next one; only for the first of many within ``_WINDOW`` seconds: whoever opens one for each
#: call is not to wait for each.
_TURN, _WINDOW, _SHARED_OUT = 0.001, 0.1, 32


class Acceptor:
    """Takes one connection and leaves the next to others for a moment, so that workers share those that come together: uvloop's
    own takes all there are, and the other worker, which has to wake up first, stands idle. To be used as an
    ``asyncio.Server``; what has not been accepted when it is closed waits for another worker."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, listener: socket.socket, make: Callable[[], Connection]
    ) -> None:
        self._loop, self._listener, self._make = loop, listener, make
        self._closed, self._since, self._count = False, 0.0, 0
        self._opening: set[asyncio.Task[None]] = set()
        listener.setblocking(False)
        loop.add_reader(listener, self._accept)

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._loop.remove_reader(self._listener)

    async def wait_closed(self) -> None:
        if self._opening:
            await asyncio.wait(self._opening)

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionError):  # another worker has it, or the client is gone
            return
        except OSError:
            self._rest(_PAUSE)
            return
        opening = self._loop.create_task(self._open(connection))
        self._opening.add(opening)
        opening.add_done_callback(self._opening.discard)
        now = self._loop.time()
        if now - self._since > _WINDOW:
            self._since, self._count = now, 0
        self._count += 1
        if self._count <= _SHARED_OUT:
            self._rest(_TURN)

    async def _open(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        _, protocol = await self._loop.connect_accepted_socket(self._make, connection)
        if self._closed:
            protocol.shutdown()

    def _rest(self, seconds: float) -> None:
        self._loop.remove_reader(self._listener)
        self._loop.call_later(seconds, self._go_on)

    def _go_on(self) -> None:
        if not self._closed:
            self._loop.add_reader(self._listener, self._accept)
