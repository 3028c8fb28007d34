"""What stands between callers and a table of servables, as the settings say: dataplane, app and HTTP server."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

from gitmodel.serving.batching import Batcher
from gitmodel.serving.dataplane import Dataplane
from gitmodel.serving.guard import Guard
from gitmodel.serving.http import Answer
from gitmodel.serving.journal import Journal
from gitmodel.serving.recording import Recorder, RecordingDataplane
from gitmodel.serving.rest import App
from gitmodel.serving.servable import Serving, States
from gitmodel.serving.settings import Settings
from gitmodel.serving.traffic import Traffic
from gitmodel.serving.web import Server, settle_down

if TYPE_CHECKING:
    from gitmodel.serving.management import Management

#: Threads for calls that are not run on the event loop: as many as run at once, or as may wait to be run together.
_RUNNING, _WAITING = 2, 64


class Front:
    """One per process. ``table`` is read once per call. ``begun`` is called on the event loop as soon as it runs. For the rest
    see ``App``."""

    def __init__(
        self,
        settings: Settings,
        release: str,
        table: Callable[[], Mapping[str, Serving]],
        states: States,
        overview: Callable[[str], Awaitable[Answer]],
        *,
        traffic: Traffic,
        journal: Journal,
        management: Management | None = None,
        begun: Callable[[], None] = lambda: None,
        shared: bool = False,
    ) -> None:
        self._recorder = None
        if settings.record is not None:
            self._recorder = Recorder(
                settings.record, every=settings.record_every, limit=settings.record_limit, warned=journal.warned
            )
        kind = Dataplane if self._recorder is None else partial(RecordingDataplane, self._recorder)
        batcher = Batcher(settings.batch_wait) if settings.batch_rows else None
        app = App(
            kind(table, states.statuses, batcher, states.standing), states, overview, traffic=traffic,
            guard=Guard(settings.host, settings.hosts), management=management, journal=journal, version=release,
            max_body=settings.max_body, body_seconds=settings.body_seconds, threads=_WAITING if batcher else _RUNNING,
            crowded=lambda: len(self._server.server_state.connections) > settings.connections,
        )  # fmt: skip
        self._server = Server(app, settings, begun, shared=shared)

    def run(self, sockets: list[socket.socket]) -> None:
        """Until it is asked to end, and what is in flight has ended."""
        settle_down()
        if not self._server.should_exit:
            self._server.run(sockets=sockets)

    def end(self) -> None:
        """Asks it to end; from any thread, or a signal's handler."""
        self._server.should_exit = True

    def stop(self) -> None:
        """Writes what is waiting to be recorded."""
        if self._recorder is not None:
            self._recorder.stop()
