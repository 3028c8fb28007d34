"""uvicorn as it is run here, in the process that serves alone, in workers and in their parent."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import resource
import socket
import sys
import time
from collections.abc import Callable
from typing import cast

import uvicorn

from gitmodel.serving.accepting import Acceptor
from gitmodel.serving.connection import Connection
from gitmodel.serving.journal import Journal
from gitmodel.serving.patience import end_the_slow
from gitmodel.serving.rest import App
from gitmodel.serving.settings import Settings
from gitmodel.serving.unloading import keep

#: Seconds that a connection may stay without a request.
_KEEP_ALIVE = 75
#: Seconds that calls in flight have when the server ends.
GRACE_SECONDS = 10
_SAME_AGAIN = 60.0
_NO_HTTP = "Invalid HTTP request received."
_SWITCH = 0.005


def say_in(journal: Journal) -> None:
    """What uvicorn logs goes there."""
    logging.getLogger("uvicorn").addHandler(_Said(journal))


def settle_down() -> None:
    """For a process that answers calls: what was imported is no garbage and is not searched for any, the event loop keeps
    the interpreter for Python's usual time, though threads that load a model would like to have it sooner, and memory that was
    freed stays for the next call."""
    keep()
    sys.setswitchinterval(_SWITCH)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with contextlib.suppress(ValueError, OSError):  # a descriptor per connection, and some for models
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    gc.collect()
    gc.freeze()


class _Said(logging.Handler):
    """What uvicorn logs, in the journal; the same words, which many clients may cause, once a minute."""

    def __init__(self, journal: Journal) -> None:
        super().__init__(logging.WARNING)
        self._journal, self._last = journal, ("", 0.0)

    def emit(self, record: logging.LogRecord) -> None:
        text, now = record.getMessage(), time.monotonic()
        if text == _NO_HTTP:  # said of each, with the reason, by who answers it
            return
        if text != self._last[0] or now - self._last[1] > _SAME_AGAIN:
            self._last = (text, now)
            self._journal.warned(text)


class Server(uvicorn.Server):
    """uvicorn, that lets nobody stay connected who asks nothing or never reads. Its own limit of connections
    would lock out who manages the server, too: the app and the watch see to that. ``begun`` is called when its event loop runs;
    ``shared`` says that other processes accept from the same sockets."""

    def __init__(self, app: App, settings: Settings, begun: Callable[[], None], *, shared: bool = False) -> None:
        config = uvicorn.Config(
            app, loop="uvloop", http=Connection, ws="none", lifespan="off", log_config=None, log_level="warning",
            access_log=False, server_header=False, proxy_headers=False, timeout_keep_alive=_KEEP_ALIVE,
            timeout_graceful_shutdown=GRACE_SECONDS,
        )  # fmt: skip
        super().__init__(config)
        self._most, self._begun, self._shared = settings.connections, begun, shared

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup([] if self._shared else sockets)
        if self._shared:
            loop = asyncio.get_running_loop()
            acceptors = [Acceptor(loop, listener, self._connection) for listener in sockets or ()]
            self.servers = cast("list[asyncio.base_events.Server]", acceptors)

    def _connection(self) -> Connection:
        """As uvicorn makes them."""
        return Connection(self.config, self.server_state, self.lifespan.state)

    async def main_loop(self) -> None:
        self._begun()
        watch = end_the_slow(self.server_state.connections, silent=_KEEP_ALIVE, most=self._most)
        watching = asyncio.create_task(watch)
        try:
            await super().main_loop()
        finally:
            watching.cancel()
