"""Calls of models, from body to answer: in both protocols, on the event loop or in a thread, each counted."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TypeVar

from gitmodel.serving import oip, tfs
from gitmodel.serving.dataplane import Dataplane, DataplaneError
from gitmodel.serving.http import JSON, STATUS, Answer, Bodies, Given, Headers, HttpError, Parts, Receive, again
from gitmodel.serving.servable import Servable
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
#: Decodes a body for a servable, runs it, encodes the answer; the headers are those that tell how it is encoded.
Answering = Callable[[Servable, Body], tuple[bytes | Parts, Headers]]


class Calls:
    """One per process. ``threads`` are for what is not answered on the event loop."""

    def __init__(self, dataplane: Dataplane, traffic: Traffic, bodies: Bodies, threads: int) -> None:
        self._dataplane, self._traffic, self._bodies = dataplane, traffic, bodies
        self._pool = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="infer")

    async def infer(self, find: Find, given: Given, receive: Receive) -> Answer:
        """A call of the Open Inference Protocol. Raises HttpError, DataplaneError."""
        length = _header_length(given)
        if length is None:
            return await self._answer(find, self._infer, partial(self._bodies.read, receive), _quick_call)
        read = partial(self._bodies.read_aligned, receive, length)
        return await self._answer(find, partial(self._infer_binary, length), read, Servable.quick_with)

    async def usual(self, find: Find, given: Given, receive: Receive) -> Answer:
        """The same where the last one went well: nothing is asked before the body is here, and a small one is answered without
        a detour. Raises HttpError, DataplaneError."""
        message = await receive()
        body = message.get("body", b"")
        if message.get("more_body") or message["type"] != "http.request" or len(body) > INLINE_BYTES:
            return await self.infer(find, given, again(message, receive))
        servable = find()
        started = time.perf_counter()
        call = servable.usual(body) if servable.usual and servable.quick and oip.LENGTH_HEADER not in given else None
        if call is None:
            return await self.infer(find, given, again(message, receive))
        servable.in_flight += 1
        try:
            answer = oip.answer(servable, call[0], self._dataplane.run(servable, call[1]))
        except BaseException as error:
            self._refuse(servable, started, error)
            raise
        servable.in_flight -= 1
        self._traffic.answered(servable, 200, time.perf_counter() - started)
        return 200, [JSON, *servable.headers], answer

    async def predict(self, find: Find, verb: str, receive: Receive) -> Answer:
        """A call of TensorFlow Serving's API: ``:predict``, ``:classify`` or ``:regress``. Raises HttpError, DataplaneError."""
        read = partial(self._bodies.read, receive)
        return await self._answer(find, partial(self._predict, verb), read, _quick_row)

    async def _answer(
        self,
        find: Find,
        answering: Answering[Body],
        read: Callable[[], Awaitable[Body]],
        quick: Callable[[Servable, int], bool],
    ) -> Answer:
        """``quick`` says whether a body of that size is answered on the event loop."""
        find()  # nobody sends a body for what is not here
        body = await read()
        # Read once, here: from now on everything about this answer comes from this one servable.
        servable = find()
        servable.in_flight += 1
        started = time.perf_counter()
        try:
            if quick(servable, len(body)):
                answer, headers = answering(servable, body)
            else:
                loop = asyncio.get_running_loop()
                answer, headers = await loop.run_in_executor(self._pool, answering, servable, body)
        except BaseException as error:
            self._refuse(servable, started, error)
            raise
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
