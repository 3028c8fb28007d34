"""Two ends that ask each other, as processes do."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

from gitmodel.serving import link
from gitmodel.serving.link import Link, LinkLost, Refused
from gitmodel.serving.recording import CannotRecord
from tests.serving.production import PATIENCE


@contextmanager
def linked(
    answer: Callable[[Any], Any], other: Callable[[Any], Any] = lambda _: None
) -> Iterator[tuple[Link, Link, threading.Event]]:
    """``answer`` is the second end's; the event is set when the first has noticed that the second is gone."""
    pool, lost = ThreadPoolExecutor(max_workers=1), threading.Event()
    ends = socket.socketpair()
    one = Link(ends[0], other, executor=lambda _: None, lost=lost.set)
    two = Link(ends[1], answer, executor=lambda message: pool if message == "slow" else None, lost=lambda: None)
    one.start()
    two.start()
    try:
        yield one, two, lost
    finally:
        one.close()
        two.close()
        pool.shutdown()
        assert lost.wait(PATIENCE)


def test_answers_find_whom_they_are_for() -> None:
    gate = threading.Event()

    def answer(message: Any) -> Any:
        return gate.wait(PATIENCE) if message == "slow" else message * 2

    with linked(answer) as (one, _, _):
        slow, many = one.ask("slow"), [one.ask(number) for number in range(500)]
        assert [asked.result(PATIENCE) for asked in many] == [number * 2 for number in range(500)]
        assert not slow.done()
        gate.set()
        assert slow.result(PATIENCE) is True


def test_who_stops_waiting_breaks_nothing() -> None:
    gate = threading.Event()

    def answer(message: Any) -> Any:
        return gate.wait(PATIENCE) if message == "slow" else message

    async def wait_a_little(asked: Future[Any]) -> None:
        await asyncio.wait_for(asyncio.wrap_future(asked), 0.01)

    with linked(answer) as (one, _, lost):
        given_up = one.ask("slow")
        with pytest.raises(TimeoutError):
            asyncio.run(wait_a_little(given_up))
        gate.set()
        assert one.ask("again").result(PATIENCE) == "again"
        assert given_up.result(PATIENCE) is True
        assert not lost.is_set()


def test_who_is_lost_is_told_of_though_somebody_stopped_waiting() -> None:
    gate = threading.Event()
    with linked(lambda _: gate.wait(PATIENCE)) as (one, two, lost):
        one.ask("slow").cancel()
        two.close()
        assert lost.wait(PATIENCE)
        gate.set()


def test_both_sides_may_ask_and_tell() -> None:
    told, heard = [], threading.Event()

    def other(message: Any) -> Any:
        told.append(message)
        heard.set()
        return "yes"

    with linked(lambda message: message, other) as (one, two, _):
        two.tell("news")
        assert heard.wait(PATIENCE)
        assert two.ask("is it?").result(PATIENCE) == "yes"
        assert one.ask(b"x" * (4 << 20)).result(PATIENCE) == b"x" * (4 << 20), "more than a socket holds"
    assert told == ["news", "is it?"]


@pytest.mark.parametrize(
    ("error", "words"),
    [(CannotRecord("no such folder", hint="name another"), "no such folder"), (ValueError("3"), "ValueError: 3")],
)
def test_what_goes_wrong_there_is_told_here(error: Exception, words: str) -> None:
    def answer(_: Any) -> Any:
        raise error

    with linked(answer) as (one, _, _):
        with pytest.raises(Refused) as caught:
            one.ask("slow").result(PATIENCE)
        assert str(caught.value) == words


def test_who_is_gone_answers_nothing_and_nobody_waits() -> None:
    gate = threading.Event()
    with linked(lambda _: gate.wait(PATIENCE)) as (one, two, lost):
        asked = one.ask("slow")
        two.close()
        with pytest.raises(LinkLost):
            asked.result(PATIENCE)
        assert lost.wait(PATIENCE)
        with pytest.raises(LinkLost):
            one.ask("more").result(PATIENCE)
        one.tell("no one")
        gate.set()


def test_one_that_is_closed_in_the_moment_it_is_written_to_tells_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    with linked(lambda message: message) as (one, two, lost):
        with pytest.raises(TypeError, match="pickle"):
            one.tell(threading.Lock())  # a mistake of ours
        two.close()
        assert lost.wait(PATIENCE)

        def too_late(_: object) -> None:
            raise TypeError("'NoneType' object cannot be interpreted as an integer")

        monkeypatch.setattr(one._connection, "send", too_late)
        one.tell("no one")


def test_who_does_not_read_is_lost_on_both_sides(monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a frame must not be followed by another: nobody could tell them apart."""
    monkeypatch.setattr(link, "_SEND_SECONDS", 0.2)
    gate = threading.Event()
    with linked(lambda _: gate.wait(PATIENCE)) as (one, two, lost):
        asked = [
            one.ask(b"x" * (1 << 20)) for _ in range(8)
        ]  # the first keeps its reader busy, the rest fill the socket
        assert lost.wait(PATIENCE)
        for each in asked:
            with pytest.raises(LinkLost):
                each.result(PATIENCE)
        gate.set()
        with pytest.raises(LinkLost):
            two.ask("anybody?").result(PATIENCE)


def test_what_cannot_be_understood_ends_it() -> None:
    ends, lost = socket.socketpair(), threading.Event()
    one = Link(ends[0], lambda _: None, executor=lambda _: None, lost=lost.set)
    one.start()
    ends[1].sendall((12).to_bytes(4, "big") + b"no pickle at")
    assert lost.wait(PATIENCE)
    with pytest.raises(LinkLost):
        one.ask("more").result(PATIENCE)
    ends[1].close()
