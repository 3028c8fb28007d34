"""uvicorn's connection, with a shorter way for the call that nearly all calls are: on a path where calls came in before, here whole
in one read or in large ones that follow each other, and quick. It is answered where it was parsed. A scope, a task, an event,
messages and a second look at every header, as ASGI has them, would take longer than the model, and joining a body read by read
longer than a copy of it; whatever is not usual takes that way, which is uvicorn's own. What one client may have waiting here, in
either way, is bounded."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sized
from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from gitmodel.serving.http import CLOSE

if TYPE_CHECKING:
    from gitmodel.serving.http import Answer
    from gitmodel.serving.rest import App

#: Requests that are answered at once of what one turn of the event loop brought: more of one client's would keep the others waiting.
_AT_ONCE = 8
#: A read of so many bytes may be followed by another in the same turn.
_LARGE = 64 << 10
#: Bytes of a body that may be waited for here, as long as it comes in large reads.
_MOST_HELD = 2 << 20
#: Requests that wait for the one before: a client sends that many before it has read an answer, or is let go of.
_MOST_WAITING = 1024
#: Bytes of a request besides its body: head, trailers, what chunks come in. As much again of these for every byte of it.
_MOST_AROUND, _AROUND_A_BYTE = 512 << 10, 8


class Connection(HttpToolsProtocol):
    """Reads are uvicorn's, and so is every answer but those that can be given at once. ``asked`` counts requests whose
    head was whole."""

    app: App

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        #: Of the request that may be answered at once, its headers, and the pieces of its body so far; None where uvicorn has it.
        self._given: list[tuple[bytes, bytes]] = []
        self._held: list[bytes] | None = None
        #: What was held when it was last looked at, and how many bytes of it the app counts.
        self._stale: list[bytes] | None = None
        self._kept = 0
        self._left = _AT_ONCE
        self.asked, self._whole, self._allowed = 0, True, 0
        self.url = b""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as uvicorn's
        super().connection_made(transport)
        self.flow = _Flow(transport, self.pipeline)

    def connection_lost(self, exc: Exception | None) -> None:
        if self._held:
            self._told_of(400, "the client went away")
        self._let_go()
        self.pipeline.clear()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        self._left = _AT_ONCE
        super().data_received(data)
        if (self._whole and len(data) < _LARGE) or self.transport.is_closing():
            return
        if self._held is not None and not (len(data) >= _LARGE and self._may_hold(self._held)):
            self._hand_over(self._held)  # more of it is to come, and nobody knows when
        if not self._whole:
            self._allowed -= len(data)
            if self._allowed < 0:
                self._refuse(431, f"a request may have {_MOST_AROUND} bytes besides its body")
        if self._left < _AT_ONCE and len(data) >= _LARGE:
            self.flow.pause_reading()
            self.loop.call_soon(self.flow.resume_reading)

    def on_message_begin(self) -> None:
        self._whole, self._allowed = False, _MOST_AROUND
        self.url, self.headers = b"", []
        self.expect_100_continue = False

    def on_headers_complete(self) -> None:
        self.asked += 1
        if self.transport.is_closing():
            self._held = []  # nobody would read the answer
        elif self._left and self.app.is_usual(self.url) and self._is_plain():
            self._held = []
            self._given, self.headers = self.headers, []  # what follows the body is no header
        else:
            self._begin(self.headers)

    def on_body(self, body: bytes) -> None:
        self._allowed += _AROUND_A_BYTE * len(body)
        if self._held is None:
            super().on_body(body)
        else:
            self._held.append(body)

    def on_message_complete(self) -> None:
        self._whole = True
        if self._held is None:
            super().on_message_complete()
        elif self.transport.is_closing():
            self._let_go()
        elif self.parser.should_keep_alive() and (answer := self._at_once(self._held)) is not None:
            self._let_go()
            self._send(answer)
        else:
            self._hand_over(self._held)
            super().on_message_complete()

    def grow_impatient(self) -> None:
        """To be called now and then: a body that is waited for here for longer than since the last time is uvicorn's to wait for."""
        if self._held is not None and self._stale is self._held:
            self._hand_over(self._held)
        self._stale = self._held

    def _may_hold(self, held: list[bytes]) -> bool:
        size = sum(map(len, held))
        if size > _MOST_HELD or not self.app.bodies.hold(size - self._kept):
            return False
        self._kept = size
        return True

    def _let_go(self) -> None:
        """What was held is answered, or uvicorn has it."""
        self._held = self._stale = None
        if self._kept:
            self.app.bodies.let_go(self._kept)
            self._kept = 0

    def _is_plain(self) -> bool:
        """Whether the request whose head is here may be answered before uvicorn has seen it."""
        parser = self.parser
        return (
            parser.get_method() == b"POST"
            and parser.get_http_version() == "1.1"
            and not parser.should_upgrade()
            and not self.expect_100_continue
            and getattr(self.cycle, "response_complete", True)  # there may have been none yet
            and not self.flow.write_paused
        )

    def _at_once(self, held: list[bytes]) -> Answer | None:
        scope = {
            "method": "POST", "path": self.url.decode("ascii"), "raw_path": self.url, "headers": self._given,
            "server": self.server, "client": self.client,
        }  # fmt: skip
        try:
            return self.app.at_once(scope, held)
        except Exception:
            self.logger.exception("Exception in an answer at once")
            return 500, [CLOSE, (b"content-length", b"0")], b""

    def _hand_over(self, held: list[bytes]) -> None:
        self._let_go()
        self.expect_100_continue = False  # which only what follows the body can have asked for
        self._begin(self._given)
        super().on_body(held[0] if len(held) == 1 else b"".join(held))

    def _begin(self, headers: list[tuple[bytes, bytes]]) -> None:
        """Has uvicorn take the request whose head was here."""
        url, expects = self.url, self.expect_100_continue
        super().on_message_begin()
        self.url, self.expect_100_continue = url, expects
        self.headers.extend(headers)
        self.scope["headers"] = list(headers)
        super().on_headers_complete()
        if self.parser.should_upgrade():
            self.cycle.keep_alive = False  # whatever follows is no HTTP, or a request that hides behind this one
        if len(self.pipeline) > _MOST_WAITING:
            self.transport.abort()

    def _send(self, answer: Answer) -> None:
        """Names and values of these headers are ours, or were looked at when they came."""
        status, headers, body = answer
        self._left -= 1
        self.server_state.total_requests += 1
        lines: list[bytes | memoryview] = [STATUS_LINE[status]]
        for name, value in (*self.server_state.default_headers, *headers):
            lines += (name, b": ", value, b"\r\n")
        lines.append(b"\r\n")
        if isinstance(body, bytes):
            self.transport.write(b"".join([*lines, body]))
        else:
            self.transport.writelines([b"".join([*lines, body[0]]), *body[1:]])
        if CLOSE in headers:
            self.transport.close()

    def send_400_response(self, msg: str) -> None:
        """Called by uvicorn where the parser gave up, whose words say more than ``msg``."""
        error = sys.exception()
        why = getattr(error, "__context__", None) or error or msg  # what a callback raised is the context
        self._refuse(400, f"this is no valid HTTP request: {why}"[:200])

    def _refuse(self, status: int, reason: str) -> None:
        """What came is no request, or has too much around its body; nothing more is read."""
        cycle = self.cycle
        if not getattr(cycle, "response_complete", True) and (
            self.pipeline or cycle.response_started or not cycle.more_body
        ):
            self.transport.abort()  # an answer is on its way, and another one's would be taken for its rest
            return
        self._send(self._told_of(status, reason))

    def _told_of(self, status: int, reason: str) -> Answer:
        """The last answer here, counted and noted."""
        # Of a message that has not begun, the parser still has the one before.
        method, path = b"-", b"-"
        if not self._whole and self.url:
            method, path = self.parser.get_method(), self.url.partition(b"?")[0]
        asked = {"method": method.decode("ascii"), "path": path.decode("latin-1"), "client": self.client}
        return self.app.unreadable(asked, status, reason)


class _Flow(FlowControl):
    """uvicorn reads on whenever a request is taken up, however many still wait behind it."""

    def __init__(self, transport: asyncio.Transport, waiting: Sized) -> None:
        super().__init__(transport)
        self._waiting = waiting

    def resume_reading(self) -> None:
        if not self._waiting and not self._transport.is_closing():
            super().resume_reading()
