"""Calls of models, from body to answer: in both protocols, on the event loop or in a thread, each counted."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Generic, TypeVar

from msgspec import Struct

from gitmodel.serving import oip, tfs
from gitmodel.serving.dataplane import Dataplane, DataplaneError
from gitmodel.serving.http import STATUS, Answer, Bodies, Given, Headers, HttpError, Parts, Receive, aligned
from gitmodel.serving.servable import SLOW_SECONDS, Servable
from gitmodel.serving.traffic import Traffic

#: A call leaves the event loop for a thread when its servable is not quick, or its body larger than this, in bytes: decoding it
#: would keep everybody else waiting.
INLINE_BYTES = 64 << 10
#: The same where rows are written one by one, each under its names.
INLINE_ROW_BYTES = 4 << 10

#: Gives the servable of this moment. Raises DataplaneError.
Find = Callable[[], Servable]
#: What a body is read into.
Body = TypeVar("Body", bound=bytes | memoryview)


class Call(Struct, Generic[Body]):
    """A call before its body is read. ``whole`` joins the pieces of that; ``answering`` decodes it for a servable, runs it and
    encodes the answer, the headers are those that tell how; ``quick`` says whether so many bytes are answered on the event loop."""

    find: Find
    whole: Callable[[Iterable[bytes]], Body]
    answering: Callable[[Servable, Body], tuple[bytes | Parts, Headers]]
    quick: Callable[[Servable, int], bool]


class Calls:
    """One per process. ``threads`` are for what is not answered on the event loop."""

    def __init__(self, dataplane: Dataplane, traffic: Traffic, bodies: Bodies, threads: int) -> None:
        self._dataplane, self._traffic, self._bodies = dataplane, traffic, bodies
        self._pool = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="infer")

    def infer(self, find: Find, given: Given) -> Call[bytes] | Call[memoryview]:
        """Of the Open Inference Protocol. Raises HttpError."""
        length = _header_length(given)
        if length is None:
            return Call(find, b"".join, self._infer, _quick_call)
        return Call(find, partial(aligned, length), partial(self._infer_binary, length), Servable.quick_with)

    def predict(self, find: Find, verb: str, _: Given) -> Call[bytes]:
        """Of TensorFlow Serving's API: ``:predict``, ``:classify`` or ``:regress``."""
        return Call(find, b"".join, partial(self._predict, verb), _quick_row)

    def at_once(self, call: Call[Body], pieces: Sequence[bytes]) -> Answer | None:
        """The answer to a call whose body is here, if it is to be had on the event loop. Raises HttpError, DataplaneError."""
        servable, size = call.find(), sum(map(len, pieces))
        if size > self._bodies.most or not call.quick(servable, size):
            return None
        return self._inline(call, servable, call.whole(pieces))

    async def answer(self, call: Call[Body], receive: Receive) -> Answer:
        """Raises HttpError, DataplaneError."""
        call.find()  # nobody sends a body for what is not here
        body = call.whole(await self._bodies.read(receive))
        # Read once, here: from now on everything about this answer comes from this one servable.
        servable = call.find()
        if call.quick(servable, len(body)):
            return self._inline(call, servable, body)
        servable.in_flight += 1
        started = time.perf_counter()
        servable.comes_back(started)
        try:
            loop = asyncio.get_running_loop()
            answer, headers = await loop.run_in_executor(self._pool, call.answering, servable, body)
        except BaseException as error:
            self._refuse(servable, started, error)
            raise
        return self._answered(servable, started, answer, headers)

    def _inline(self, call: Call[Body], servable: Servable, body: Body) -> Answer:
        servable.in_flight += 1
        started = time.perf_counter()
        try:
            answer, headers = call.answering(servable, body)
        except BaseException as error:
            self._refuse(servable, started, error)
            raise
        finally:
            now = time.perf_counter()
            if now - started > SLOW_SECONDS:
                servable.kept_others(now - started, now)
        return self._answered(servable, started, answer, headers)

    def _answered(self, servable: Servable, started: float, answer: bytes | Parts, headers: Headers) -> Answer:
        servable.in_flight -= 1
        self._traffic.answered(servable, 200, time.perf_counter() - started)
        return 200, [*headers, *servable.headers], answer

    def _refuse(self, servable: Servable, started: float, error: BaseException) -> None:
        """Counts a call that ended with an error. Raises HttpError for a DataplaneError, which says who refused."""
        servable.in_flight -= 1
        refused = error
        if isinstance(error, DataplaneError):
            refused = HttpError(STATUS[error.code], error.message, [*servable.headers])
        status = refused.status if isinstance(refused, HttpError) else 500
        self._traffic.answered(servable, status, time.perf_counter() - started)
        if refused is not error:
            raise refused from error

    def _infer(self, servable: Servable, body: bytes) -> tuple[bytes | Parts, Headers]:
        if servable.usual is not None and (call := servable.usual(body)) is not None:
            return oip.answer(servable, call[0], self._dataplane.run(servable, call[1])), []
        return self._run(servable, oip.decode(body, None, servable))

    def _infer_binary(self, length: int, servable: Servable, body: memoryview) -> tuple[bytes | Parts, Headers]:
        if length > len(body):
            raise _not_fitting()
        return self._run(servable, oip.decode(body, length, servable))

    def _run(self, servable: Servable, request: oip.InferRequest) -> tuple[bytes | Parts, Headers]:
        called = tfs.named(servable, request.signature)
        outputs = self._dataplane.infer(called, request.inputs, request.outputs)
        head, tensors = oip.encode(servable, request, outputs)
        if not tensors:
            return head, []
        length = (oip.LENGTH_HEADER, str(len(head)).encode())
        return [head, *tensors], [(b"content-type", b"application/octet-stream"), length]

    def _predict(self, verb: str, servable: Servable, body: bytes) -> tuple[bytes | Parts, Headers]:
        call = tfs.predict(body, servable) if verb == ":predict" else tfs.examples(body, servable)
        outputs = self._dataplane.infer(call.servable, call.inputs)
        if verb == ":predict":
            return tfs.answer(call, outputs), []
        if verb == ":classify":
            return tfs.classes(call, outputs, servable.labels), []
        return tfs.regressions(call, outputs), []


def _quick_call(servable: Servable, size: int) -> bool:
    return servable.quick and size <= INLINE_BYTES


def _quick_row(servable: Servable, size: int) -> bool:
    return servable.quick and size <= INLINE_ROW_BYTES


def _header_length(given: Given) -> int | None:
    """None for a body without tensors as bytes. Raises HttpError."""
    value = given.get(oip.LENGTH_HEADER)
    if value is None:
        return None
    if not value.isdigit() or len(value) > 18:
        raise _not_fitting()
    return int(value)


def _not_fitting() -> HttpError:
    return HttpError(400, "Inference-Header-Content-Length does not fit the body")
