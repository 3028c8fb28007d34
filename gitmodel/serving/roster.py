"""Which workers there are: those that answer, those that were started and have not ended, and what those counted who are gone."""

from __future__ import annotations

import contextlib
import pickle
import threading
from collections.abc import Mapping
from concurrent.futures import wait

from gitmodel.serving import messages
from gitmodel.serving.link import LinkLost
from gitmodel.serving.member import FAILURES, Member
from gitmodel.serving.metrics import Workers
from gitmodel.serving.traffic import Traffic

_COUNT_SECONDS = 1.0


class Roster:
    """Asked by many threads."""

    def __init__(self) -> None:
        #: Guards all that follows.
        self._changed = threading.Condition()
        self._answering: list[Member] = []
        self._started: set[Member] = set()
        self._gone, self._replaced, self._failed = Traffic(), 0, ""

    def answering(self) -> list[Member]:
        with self._changed:
            return list(self._answering)

    def started(self) -> list[Member]:
        with self._changed:
            return list(self._started)

    def leaving(self) -> list[Member]:
        """Those that are to answer no more, but may still."""
        with self._changed:
            return [member for member in self._started if member.dismissed]

    def start(self, member: Member) -> None:
        with self._changed:
            self._started.add(member)

    def join(self, member: Member) -> None:
        """It answers from now on. Raises LinkLost when it is gone by now."""
        with self._changed:
            if member.lost.is_set():
                raise LinkLost
            self._answering.append(member)
            self._answering.sort(key=lambda one: one.number)
            self._changed.notify_all()

    def dismiss(self, member: Member) -> None:
        """It answers no more; what it counted stays."""
        with self._changed:
            if member in self._answering:
                self._answering.remove(member)
                self._gone.add(member.counted)
            member.dismissed = True
        member.end()

    def end(self, member: Member, seconds: float) -> None:
        """Dismisses it, and returns when it has ended, which it has after so long."""
        self.dismiss(member)
        member.wait(seconds)
        with self._changed:
            self._started.discard(member)

    def replaced(self) -> None:
        """One has taken another's place."""
        with self._changed:
            self._replaced += 1

    def failed(self, text: str) -> None:
        """One could not be started, or not brought to where the others are."""
        with self._changed:
            self._failed = text
            self._changed.notify_all()

    def await_all(self, count: int, seconds: float) -> str:
        """Returns when so many answer, or why they do not."""
        with self._changed:
            self._changed.wait_for(lambda: len(self._answering) == count or self._failed, seconds)
            return self._failed or ("" if len(self._answering) == count else "some workers do not start")

    def workers(self) -> Workers:
        with self._changed:
            return Workers({member.number: member.process.pid for member in self._answering}, self._replaced)

    def count(self, own: Traffic, *, newest: bool) -> tuple[Traffic, Mapping[int, int]]:
        """What all counted, with ``own`` and what those did who are gone; and the calls in flight, by their version's number. Who
        does not say so in time counts as it was. Without ``newest`` there are no percentiles in it."""
        kind, message = f"count {newest}", messages.Count(newest)
        asked = {member.ask_aside(kind, message): member for member in self.answering()}
        done, _ = wait(asked, _COUNT_SECONDS)
        total, in_flight = Traffic(), dict[int, int]()
        with self._changed:
            for answer in done:
                with contextlib.suppress(*FAILURES):
                    counted: messages.Counted = answer.result()
                    asked[answer].counted = pickle.loads(counted.traffic)  # noqa: S301  # a worker's
                    asked[answer].in_flight = dict(counted.in_flight)
            for part in (own, self._gone, *(member.counted for member in self._answering)):
                total.add(part)
            for member in self._answering:
                for number, calls in member.in_flight.items():
                    in_flight[number] = in_flight.get(number, 0) + calls
        return total, in_flight
