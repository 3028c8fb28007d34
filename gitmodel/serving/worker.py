"""A process that answers calls and does nothing else: it knows no repository, and serves what its server has it open.

Every version is opened here before the server lets the epoch come in which calls reach it; from then on a call reads the epoch
once, and is answered wholly from that epoch's table.
"""

from __future__ import annotations

import asyncio
import os
import pickle
import signal
import socket
import sys
import threading
from collections.abc import Mapping
from concurrent.futures import Executor, ThreadPoolExecutor
from types import MappingProxyType
from typing import Any

from gitmodel import runtime
from gitmodel.serving import messages
from gitmodel.serving.dataplane import DataplaneError
from gitmodel.serving.epoch import Epoch
from gitmodel.serving.front import Front
from gitmodel.serving.http import Answer, HttpError
from gitmodel.serving.journal import Journal
from gitmodel.serving.link import Link, LinkLost
from gitmodel.serving.messages import Setup
from gitmodel.serving.opening import Opener
from gitmodel.serving.priority import stand_back
from gitmodel.serving.servable import Servable, Serving, VersionStatus
from gitmodel.serving.traffic import Traffic
from gitmodel.serving.unloading import drain, trim
from gitmodel.serving.web import GRACE_SECONDS, say_in

#: How long a page of the whole server may take.
_LOOK_SECONDS = 10.0
_TRIES = 100


def main(link: int, listener: int, epoch: int) -> None:
    """A worker's whole life. The descriptors are those of its link, of the socket it accepts from, and of the epoch's page; its
    Setup comes pickled on standard input."""
    setup: Setup = pickle.load(sys.stdin.buffer)  # noqa: S301  # its parent's
    Worker(setup, socket.socket(fileno=link), socket.socket(fileno=listener), Epoch(epoch)).run()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # whatever a thread is still at, there is nobody to answer


class _States:
    """What the server said last."""

    def __init__(self) -> None:
        self.shown = messages.Show((), ready=False, standing={})

    def statuses(self, model: str = "") -> list[VersionStatus]:
        return [status for status in self.shown.statuses if not model or status.model == model]

    def standing(self) -> Mapping[str, Mapping[str, str]]:
        return self.shown.standing

    def ready(self) -> bool:
        return self.shown.ready


class Worker:
    """``answer`` is called by its link; what takes long by one thread of its own, in the order in which it was asked."""

    def __init__(self, setup: Setup, link: socket.socket, listener: socket.socket, epoch: Epoch) -> None:
        settings = setup.settings
        self._listener, self._epoch = listener, epoch
        self._link = Link(link, self.answer, executor=self._executor, lost=self._forsaken)
        journal = Journal(
            lambda line: self._link.tell(messages.Say(line)), as_json=setup.log_json, requests=setup.log_requests
        )
        say_in(journal)
        self._states, self._traffic = _States(), Traffic()
        self._opener = Opener(
            settings.threads, settings.batch_rows,
            journal.warned if setup.number == 1 else lambda _: None,
        )  # fmt: skip
        self._held: dict[int, Servable] = {}
        self._tables: dict[int, Mapping[str, Serving]] = {}
        # One thread for all loads and unloads: the runtime's memory is returned only when they share one.
        # Where there are several per operator, the runtime starts those from this one, and calls use them: they stay as they are.
        self._opening = ThreadPoolExecutor(
            max_workers=1, thread_name_prefix="opening", initializer=stand_back if settings.threads == 1 else None
        )
        self._aside = ThreadPoolExecutor(max_workers=2, thread_name_prefix="aside")
        self._told_to_start = threading.Event()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._front = Front(
            settings, setup.version, self.table, self._states, self._look, traffic=self._traffic, journal=journal,
            begun=self._begin, shared=True,
        )  # fmt: skip

    def run(self) -> None:
        """Until it is told to end, or its server is gone."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self._end())
        runtime.load_library()
        self._link.start()
        self._told_to_start.wait()
        self._front.run([self._listener])
        self._front.stop()

    def table(self) -> Mapping[str, Serving]:
        """That of the epoch. Every epoch's is here before it comes; one that is gone by the time it is looked for was
        superseded in between."""
        for _ in range(_TRIES):
            if (found := self._tables.get(self._epoch.get())) is not None:
                return found
        raise DataplaneError("unavailable", "this worker is out of step; try again")

    def answer(self, message: Any) -> Any:
        """To the server. Raises GitmodelError."""
        match message:
            case messages.Hello():
                return self._pulse()
            case messages.Open(number, fetched):
                return self._open(number, fetched)
            case messages.Repack(number, path, fetched):
                return self._opener.repack(self._held[number], path, fetched)
            case messages.Unload(number):
                return self._unload(number)
            case messages.Prepare(epoch, table):
                self._tables[epoch] = MappingProxyType({name: self._serving(entry) for name, entry in table.items()})
            case messages.Retire(epoch):
                for old in [number for number in self._tables if number < epoch]:
                    del self._tables[old]
            case messages.Accept():
                self._told_to_start.set()
            case messages.Show():
                self._states.shown = message
            case messages.Count(newest):
                return self._count(newest)
        return None

    def _executor(self, message: Any) -> Executor | None:
        match message:
            case messages.Open() | messages.Repack() | messages.Unload():
                return self._opening
            case messages.Count() | messages.Hello():
                return self._aside
        return None

    def _open(self, number: int, fetched: Any) -> messages.Opened:
        try:
            servable = self._held[number] = self._opener.open(fetched)
        except BaseException:
            trim()
            raise
        return messages.Opened(servable.digest, servable.golden_passed, servable.golden_cases)

    def _unload(self, number: int) -> None:
        servable = self._held.pop(number, None)
        if servable is not None:
            drain(servable)
        del servable
        trim()

    def _serving(self, entry: messages.Entry) -> Serving:
        by_version, by_stage = (
            MappingProxyType({name: self._held[number] for name, number in numbers.items()})
            for numbers in (entry.by_version, entry.by_stage)
        )
        return Serving(self._held[entry.default], by_version, by_stage)

    def _pulse(self) -> None:
        """It lives if its event loop does."""
        if self._loop is not None:
            asyncio.run_coroutine_threadsafe(asyncio.sleep(0), self._loop).result()

    def _count(self, newest: bool) -> messages.Counted:
        async def counted() -> tuple[Traffic, dict[int, int]]:  # on the event loop, which alone counts
            in_flight = {number: servable.in_flight for number, servable in list(self._held.items())}
            return self._traffic.copy(newest=newest), in_flight

        if self._loop is None:
            return messages.Counted(pickle.dumps(self._traffic), {})
        traffic, in_flight = asyncio.run_coroutine_threadsafe(counted(), self._loop).result()
        return messages.Counted(pickle.dumps(traffic), in_flight)

    async def _look(self, path: str) -> Answer:
        """A page of the whole server is the server's to write."""
        asked = asyncio.wrap_future(self._link.ask(messages.Look(path)))
        try:
            answer: Answer = await asyncio.wait_for(asked, _LOOK_SECONDS)
        except (TimeoutError, LinkLost):
            raise HttpError(503, "the server did not answer its worker in time; try again") from None
        return answer

    def _begin(self) -> None:
        self._loop = asyncio.get_running_loop()

    def _forsaken(self) -> None:
        """Its server is gone. What is in flight may end; what hangs must not keep the port for long."""
        self._end()
        timer = threading.Timer(GRACE_SECONDS + 1, os._exit, (1,))
        timer.daemon = True
        timer.start()

    def _end(self) -> None:
        self._front.end()
        self._told_to_start.set()
