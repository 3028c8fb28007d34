"""Connections from a socket that several wait at: shared out, none lost, whatever happens."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import socket
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar, cast

import pytest
import uvloop

from gitmodel.serving import listening
from gitmodel.serving.accepting import _SHARED_OUT, Acceptor

PATIENCE = 20.0


class Taken(asyncio.Protocol):
    """Counts the connections of one worker, and those it was told to let go of."""

    def __init__(self, worker: Worker) -> None:
        self.worker = worker

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.worker.taken.append(transport)

    def shutdown(self) -> None:
        self.worker.let_go += 1


class Worker:
    #: Those that have not ended: an event loop does not close around a socket that it still looks at.
    begun: ClassVar[list[Worker]] = []

    def __init__(self, listener: socket.socket) -> None:
        self.begun.append(self)
        self.taken: list[asyncio.BaseTransport] = []
        self.let_go = 0
        self.listener = listener.dup()
        self.acceptor = Acceptor(
            asyncio.get_running_loop(), self.listener, cast("Callable[[], Any]", lambda: Taken(self))
        )

    def end(self) -> None:
        self.acceptor.close()
        self.acceptor.close()  # as often as one likes
        for transport in self.taken:
            cast("asyncio.Transport", transport).abort()
        self.listener.close()


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with contextlib.closing(listening.listen("127.0.0.1", 0)) as found:
        yield found


@pytest.fixture
def connect(listener: socket.socket) -> Iterator[Callable[[int], list[socket.socket]]]:
    made: list[socket.socket] = []

    def connected(count: int) -> list[socket.socket]:
        made.extend(socket.create_connection(listener.getsockname()[:2]) for _ in range(count))
        return made[-count:]

    yield connected
    for one in made:
        one.close()


async def until(reached: Callable[[], bool]) -> None:
    async with asyncio.timeout(PATIENCE):
        while not reached():
            await asyncio.sleep(0.002)


def run(work: Callable[[], Awaitable[None]]) -> None:
    async def whole() -> None:
        try:
            await work()
        finally:
            while Worker.begun:
                Worker.begun.pop().end()
            await asyncio.sleep(0)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(whole())


def test_those_that_come_together_are_shared_out(
    listener: socket.socket, connect: Callable[[int], list[socket.socket]]
) -> None:
    connect(16)

    async def work() -> None:
        workers = [Worker(listener), Worker(listener)]
        await until(lambda: sum(len(worker.taken) for worker in workers) == 16)
        assert all(7 <= len(worker.taken) <= 9 for worker in workers)

    run(work)


def test_one_alone_takes_them_all_however_many(
    listener: socket.socket, connect: Callable[[int], list[socket.socket]]
) -> None:
    clients = connect(3 * _SHARED_OUT)

    async def work() -> None:
        worker = Worker(listener)
        await until(lambda: len(worker.taken) == len(clients))

    run(work)


def test_who_is_closed_takes_no_more_and_lets_go_of_what_just_came(
    listener: socket.socket, connect: Callable[[int], list[socket.socket]]
) -> None:
    async def work() -> None:
        worker = Worker(listener)
        connect(1)
        worker.acceptor._accept()
        worker.acceptor.close()  # before the event loop has had a turn
        for _ in range(2):
            await worker.acceptor.wait_closed()
            assert (len(worker.taken), worker.let_go) == (1, 1)
        connect(2)
        other = Worker(listener)
        await until(lambda: len(other.taken) == 2)
        assert len(worker.taken) == 1

    run(work)


def test_a_client_that_went_away_again_is_no_error(
    listener: socket.socket, connect: Callable[[int], list[socket.socket]]
) -> None:
    (gone,) = connect(1)
    gone.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
    gone.close()  # with a reset
    connect(1)

    async def work() -> None:
        worker = Worker(listener)
        await until(lambda: len(worker.taken) == 2)

    run(work)


def _number(descriptor: Path) -> int:
    return int(descriptor.name)


def test_without_descriptors_it_waits_until_there_are_some(
    listener: socket.socket, connect: Callable[[int], list[socket.socket]]
) -> None:
    before = resource.getrlimit(resource.RLIMIT_NOFILE)

    async def work() -> None:
        worker = Worker(listener)
        await asyncio.sleep(0)
        connect(1)
        used: list[int] = []
        resource.setrlimit(
            resource.RLIMIT_NOFILE, (int(max(Path("/proc/self/fd").iterdir(), key=_number).name) + 2, before[1])
        )
        try:
            with contextlib.suppress(OSError):
                while True:
                    used.append(os.open("/dev/null", os.O_RDONLY))
            await asyncio.sleep(0.05)
            assert worker.taken == []
        finally:
            for descriptor in used:
                os.close(descriptor)
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
        await until(lambda: len(worker.taken) == 1)

    run(work)
