"""Two ends that ask each other, as processes do."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import pytest

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
