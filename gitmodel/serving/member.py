"""A worker as its server sees it: started, asked as long as it gives signs of life, ended."""

from __future__ import annotations

import contextlib
import pickle
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, Self

from gitmodel.serving import messages
from gitmodel.serving.link import Link, LinkLost, Refused
from gitmodel.serving.traffic import Traffic

#: How often a worker at work is asked whether it lives, and how long it has to say so, in seconds.
_PULSE = 5.0
_SOON = 1.0


#: What can go wrong with a call.
FAILURES = (Refused, LinkLost, TimeoutError)


class Member:
    """``number`` is 0 for one that never answers calls; ``dismissed`` is whoever is to answer no more. ``counted`` and ``in_flight``
    are what it counted when it was asked last; ``lost`` is set when it cannot be asked any more."""

    def __init__(self, number: int, process: subprocess.Popen[bytes]) -> None:
        self.number, self.process, self.began = number, process, time.monotonic()
        self.counted, self.in_flight = Traffic(), dict[int, int]()
        self.lost = threading.Event()
        self._link: Link
        self._pulse: Future[Any] = Future()
        self._pulse.set_result(None)
        self._pulse_asked = 0.0
        self._aside: dict[str, Future[Any]] = {}
        self.dismissed = False

    @classmethod
    def begin(
        cls,
        setup: messages.Setup,
        inherited: tuple[int, int],
        answer: Callable[[Any], Any],
        executor: Callable[[Any], Executor | None],
        lost: Callable[[Self], None],
    ) -> Self:
        """Starts its process; ``inherited`` are the descriptors of the socket it will accept from and of the epoch's page. The
        rest is as in ``Link``. Raises OSError."""
        ours, its = socket.socketpair()
        descriptors = (its.fileno(), *inherited)
        call = f"from gitmodel.serving.worker import main; main({', '.join(map(str, descriptors))})"
        try:
            with its:
                process = subprocess.Popen(
                    # Without -P Python would look for modules in the folder the server was started in first.
                    [sys.executable, "-P", "-c", call], stdin=subprocess.PIPE, pass_fds=descriptors,
                    # What is typed at the terminal is its server's to deal with. In the same session, or Linux would give the server's
                    # loads as much of a processor as calls (sched(7), autogroup), however nice they are.
                    process_group=0,
                )  # fmt: skip
        except OSError:
            ours.close()
            raise
        if process.stdin is not None:
            with contextlib.suppress(BrokenPipeError), process.stdin as pipe:
                pipe.write(pickle.dumps(setup))
        member = cls(setup.number, process)

        def gone() -> None:
            lost(member)
            member.lost.set()

        member._link = Link(ours, answer, executor=executor, lost=gone)
        member._link.start()
        return member

    def __str__(self) -> str:
        return f"{f'worker {self.number}' if self.number else 'a process apart'} (pid {self.process.pid})"

    def ask(self, message: Any) -> Future[Any]:
        return self._link.ask(message)

    def ask_aside(self, kind: str, message: Any) -> Future[Any]:
        """Asks unless the last message of this kind is still unanswered: then that is what comes back, and nobody waits for one
        who does not read."""
        before = self._aside.get(kind)
        if before is not None and not before.done():
            return before
        self._aside[kind] = asked = self._link.ask(message)
        return asked

    def tell(self, message: Any) -> None:
        self._link.tell(message)

    def call(self, message: Any, seconds: float) -> Any:
        """Raises Refused, LinkLost, TimeoutError."""
        return self.result(self.ask(message), time.monotonic() + seconds)

    def result(self, asked: Future[Any], deadline: float) -> Any:
        """Waits until the deadline (monotonic seconds), as long as it gives signs of life; else it is killed. Raises Refused,
        LinkLost, TimeoutError."""
        while True:
            left = deadline - time.monotonic()
            try:
                return asked.result(max(0.0, min(_PULSE, left)))
            except TimeoutError:
                if left <= _PULSE:
                    raise
                try:
                    with contextlib.suppress(Refused):
                        self.ask(messages.Hello()).result(_PULSE)
                except TimeoutError:
                    self.process.kill()  # it would not hear a signal that asks
                    raise

    def hangs(self) -> bool:
        """Whether it has not said for a while that it lives; to be asked again and again."""
        if self._pulse.done():
            self._pulse, self._pulse_asked = self.ask(messages.Hello()), time.monotonic()
        return time.monotonic() - self._pulse_asked > 3 * _PULSE

    def end(self) -> None:
        """Asks it to end, when it is through with its calls."""
        if self.process.poll() is None:
            self.process.terminate()

    def wait(self, seconds: float) -> None:
        """Until it has ended, which it has after so long."""
        try:
            self.process.wait(max(0.0, seconds))
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def fate(self) -> str:
        try:
            code = self.process.wait(_SOON)
        except subprocess.TimeoutExpired:
            return "did not answer in time"
        return f"ended with signal {-code}" if code < 0 else f"ended with exit code {code}"
