"""What all that answers HTTP here shares: the forms of ASGI, an answer that is an error, bodies with their limits."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

import msgspec
import orjson

from gitmodel.serving.dataplane import DataplaneError

Send = Callable[[dict[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Headers = list[tuple[bytes, bytes]]
#: A request's headers by their names in small letters; of one that is there twice the last.
Given = Mapping[bytes, bytes]
#: A body that is sent piece by piece, none of it copied.
Parts = list[bytes | memoryview]
#: HTTP status, headers (the content type first, if it is no JSON), body.
Answer = tuple[int, Headers, bytes | Parts]

#: HTTP's status for a DataplaneError.
STATUS = {"not_found": 404, "unavailable": 503, "invalid_argument": 400, "unimplemented": 501, "internal": 500}
JSON = (b"content-type", b"application/json")
#: For a client that is not to go on on this connection.
CLOSE = (b"connection", b"close")
#: Tensors begin at multiples of this in memory: how they are read in parts depends on that, and so do an answer's last digits.
ALIGNED = 16
#: Bodies of the largest size that may be on their way at a time.
_AT_A_TIME = 8


class HttpError(Exception):
    """An answer that is an error, with its status."""

    def __init__(self, status: int, message: str, headers: Headers | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.headers = status, message, headers or []


def refusal(error: Exception) -> HttpError:
    """The answer that an error becomes."""
    if isinstance(error, HttpError):
        return error
    if isinstance(error, DataplaneError):
        return HttpError(STATUS[error.code], error.message)
    return HttpError(500, f"{type(error).__name__}: {error}"[:500])


def error_body(message: str) -> bytes:
    """What a caller sent may stand in it, half a character too."""
    return orjson.dumps({"error": message.encode("utf-8", "replace").decode()})


def json_object(body: bytes) -> dict[str, Any]:
    """Raises HttpError."""
    try:
        value = msgspec.json.decode(body) if body.strip() else {}
    except (msgspec.MsgspecError, RecursionError) as error:
        raise HttpError(400, f"the request is not valid: {error}") from None
    if not isinstance(value, dict):
        raise HttpError(400, "the request must be a JSON object")
    return value


def expect(method: str, *allowed: str) -> None:
    """Raises HttpError for another method."""
    if method not in allowed:
        raise HttpError(405, f"use {allowed[0]}", [(b"allow", ", ".join(allowed).encode())])


def aligned(lead: int, chunks: Iterable[bytes]) -> memoryview:
    """A body of which what follows the first ``lead`` bytes lies in memory as tensors should."""
    pad = -lead % ALIGNED
    return memoryview(b"".join([bytes(pad), *chunks]))[pad:]


class Bodies:
    """Reads bodies of at most ``most`` bytes that come within so many ``seconds``, and of all together not more than memory is to be
    had for. For one event loop."""

    def __init__(self, most: int, seconds: float) -> None:
        self.most, self._seconds, self._reading = most, seconds, 0

    def hold(self, size: int) -> bool:
        """Counts so many more bytes among those of bodies on their way, unless they would be too many."""
        if self._reading + size > _AT_A_TIME * self.most:
            return False
        self._reading += size
        return True

    def let_go(self, size: int) -> None:
        """Of bytes that were held."""
        self._reading -= size

    async def read(self, receive: Receive, most: int | None = None) -> list[bytes]:
        """The pieces of one, which may be made smaller yet with ``most``. Raises HttpError."""
        most = most or self.most
        chunks: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self._seconds):
                while True:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise HttpError(400, "the client went away")
                    chunk = message.get("body", b"")
                    if size + len(chunk) > most:
                        raise HttpError(413, f"the body has more than {most} bytes", [CLOSE])
                    if not self.hold(len(chunk)):
                        raise HttpError(503, "too many large bodies at a time; try again", [CLOSE])
                    size += len(chunk)
                    chunks.append(chunk)
                    if not message.get("more_body"):
                        return chunks
        except TimeoutError:
            raise HttpError(
                408, f"the body took too long to come: send all of it within {self._seconds:g} s", [CLOSE]
            ) from None
        finally:
            self.let_go(size)
