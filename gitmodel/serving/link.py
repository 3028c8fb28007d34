"""Two processes of one server that ask each other, over a pair of sockets. They trust each other: what they send is pickled."""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import struct
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future
from multiprocessing.connection import Connection
from typing import Any

from gitmodel.errors import GitmodelError

#: Seconds after which somebody who does not read what is sent is taken for dead.
_SEND_SECONDS = 10.0


class LinkLost(Exception):
    """The other side is gone."""


class Refused(GitmodelError):
    """The other side could not do what it was asked, in its words."""

    code = "refused"


class Link:
    """``answer`` is given what the other side asks and tells; what it returns goes back to who asked, what it raises as Refused.
    It is called by ``executor(message)``, or where that is None by the thread that reads, which must not wait for anything.
    ``lost`` is called once, by that thread."""

    def __init__(
        self,
        end: socket.socket,
        answer: Callable[[Any], Any],
        *,
        executor: Callable[[Any], Executor | None],
        lost: Callable[[], None],
    ) -> None:
        seconds, rest = divmod(_SEND_SECONDS, 1)
        end.setblocking(True)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", int(seconds), int(rest * 1e6)))
        self._end, self._connection = end, Connection(os.dup(end.fileno()))
        self._answer, self._executor, self._lost = answer, executor, lost
        self._sending, self._numbers = threading.Lock(), itertools.count(1)
        self._asked: dict[int, Future[Any]] = {}
        self._is_lost = False
        self._reader = threading.Thread(target=self._read, name="link", daemon=True)

    def start(self) -> None:
        self._reader.start()

    def ask(self, message: Any) -> Future[Any]:
        """The answer to come; its exception is Refused or LinkLost."""
        number, asked = next(self._numbers), Future[Any]()
        asked.set_running_or_notify_cancel()  # whoever stops waiting for the answer does not keep it from coming
        self._asked[number] = asked
        if self._is_lost or not self._send(("asks", number, message)):
            self._give_up()
        return asked

    def tell(self, message: Any) -> None:
        """Without an answer; nothing where nobody listens any more."""
        self._send(("tells", 0, message))

    def close(self) -> None:
        """Ends it for both sides: what was asked is answered with LinkLost."""
        with contextlib.suppress(OSError):  # it is closed
            self._end.shutdown(socket.SHUT_RDWR)

    def _send(self, frame: tuple[str, int, Any]) -> bool:
        try:
            with self._sending:
                self._connection.send(frame)
        except (OSError, ValueError, TypeError) as error:
            # Gone, or it does not read: what follows half a frame could not be understood. A TypeError, where the reader closes it in
            # the very moment in which it is written to.
            if isinstance(error, TypeError) and not self._connection.closed:
                raise
            self.close()
            return False
        return True

    def _read(self) -> None:
        try:
            while True:
                kind, number, message = self._connection.recv()
                if kind == "answers":
                    self._settle(number, message)
                elif (executor := self._executor(message)) is None:
                    self._handle(kind, number, message)
                else:
                    executor.submit(self._handle, kind, number, message)
        except Exception:  # the end of the stream, mostly; whatever it is, nobody is understood any more
            self.close()
        finally:
            self._is_lost = True
            self._connection.close()
            self._end.close()
            self._give_up()
            self._lost()

    def _settle(self, number: int, message: tuple[bool, Any]) -> None:
        asked = self._asked.pop(number, None)
        if asked is not None:
            good, value = message
            if good:
                asked.set_result(value)
            else:
                asked.set_exception(Refused(value))

    def _handle(self, kind: str, number: int, message: Any) -> None:
        try:
            answer = (True, self._answer(message))
        except Exception as error:  # it is the other side's to deal with
            answer = (False, error.message if isinstance(error, GitmodelError) else f"{type(error).__name__}: {error}")
        if kind == "asks":
            self._send(("answers", number, answer))

    def _give_up(self) -> None:
        while self._asked:
            with contextlib.suppress(KeyError):
                _, asked = self._asked.popitem()
                asked.set_exception(LinkLost("the other process is gone"))
