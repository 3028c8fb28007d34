"""uvicorn's connection, with a shorter way for the call that nearly all calls are: on a path where calls came in before, here whole
in one read, and quick. It is answered where it was parsed. A scope, a task, an event, messages and a second look at every header,
as ASGI has them, would take longer than the model; whatever is not usual takes that way, which is uvicorn's own."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from gitmodel.serving.http import CLOSE

if TYPE_CHECKING:
    from gitmodel.serving.http import Answer
    from gitmodel.serving.rest import App

#: Requests that are answered at once of what one read brought: more of one client's would keep the others waiting.
_AT_ONCE = 8


class Connection(HttpToolsProtocol):
    """Reads are uvicorn's, and so is every answer but those that can be given at once."""

    app: App

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        #: Of the request that may be answered at once, the pieces of its body so far; None where uvicorn has it.
        self._held: list[bytes] | None = None
        #: Answers that were given at once: of all, and those still allowed for this read.
        self.answered, self._left = 0, 0

    def data_received(self, data: bytes) -> None:
        self._left = _AT_ONCE
        super().data_received(data)
        if self._held is not None and not self.transport.is_closing():
            self._hand_over(self._held)  # more of it is to come

    def on_message_begin(self) -> None:
        self.url, self.headers = b"", []
        self.expect_100_continue = False

    def on_headers_complete(self) -> None:
        if self._left and self.app.is_usual(self.url) and self._is_plain():
            self._held = []
        else:
            self._begin()

    def on_body(self, body: bytes) -> None:
        if self._held is None:
            super().on_body(body)
        else:
            self._held.append(body)

    def on_message_complete(self) -> None:
        if self._held is not None:
            scope = {
                "method": "POST", "path": self.url.decode("ascii"), "raw_path": self.url, "headers": self.headers,
                "server": self.server, "client": self.client,
            }  # fmt: skip
            answer = self.app.at_once(scope, self._held)
            if answer is not None:
                self._held = None
                self._send(answer)
                return
            self._hand_over(self._held)
        super().on_message_complete()

    def _is_plain(self) -> bool:
        """Whether the request whose head is here may be answered before uvicorn has seen it, and leaves the connection open."""
        parser = self.parser
        return (
            parser.get_method() == b"POST"
            and parser.get_http_version() == "1.1"
            and parser.should_keep_alive()
            and not parser.should_upgrade()
            and not self.expect_100_continue
            and getattr(self.cycle, "response_complete", True)  # there may have been none yet
            and not self.flow.write_paused
        )

    def _begin(self) -> None:
        """Has uvicorn take the request whose head is here."""
        url, headers, expects = self.url, self.headers, self.expect_100_continue
        super().on_message_begin()
        self.url, self.expect_100_continue = url, expects
        self.headers.extend(headers)
        super().on_headers_complete()

    def _hand_over(self, held: list[bytes]) -> None:
        self._held = None
        self._begin()
        for body in held:
            super().on_body(body)

    def _send(self, answer: Answer) -> None:
        """Names and values of these headers are ours, or were looked at when they came."""
        status, headers, body = answer
        self.answered += 1
        self._left -= 1
        self.server_state.total_requests += 1
        lines: list[bytes | memoryview] = [STATUS_LINE[status]]
        for name, value in (*self.server_state.default_headers, *headers):
            lines += (name, b": ", value, b"\r\n")
        lines.append(b"\r\n")
        self.transport.write(b"".join([*lines, body] if isinstance(body, bytes) else [*lines, *body]))
        if CLOSE in headers:
            self.transport.close()
