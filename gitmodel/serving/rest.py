"""The ASGI application: routes, limits and status codes. No framework stands on the hot path.

Source: Open Inference Protocol v2 (REST) and its model repository extension; TensorFlow Serving's REST API v1. Loading is
asked for on the management socket alone; the data port answers it with 403.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import msgspec
import orjson
from msgspec.structs import asdict

from gitmodel.errors import GitmodelError
from gitmodel.serving import oip, openapi, page, tfs
from gitmodel.serving.dataplane import Dataplane, DataplaneError
from gitmodel.serving.guard import Guard, Notices, Refused, port_of
from gitmodel.serving.journal import Journal
from gitmodel.serving.manager import Manager
from gitmodel.serving.metrics import CONTENT_TYPE, Metrics
from gitmodel.serving.servable import Servable, State, VersionStatus
from gitmodel.serving.source import Source
from gitmodel.serving.traffic import Traffic
from gitmodel.signing import NotSigned

_STATUS = {"not_found": 404, "unavailable": 503, "invalid_argument": 400, "unimplemented": 501, "internal": 500}
_REPOSITORY_STATES = {State.AVAILABLE: "READY", State.LOADING: "LOADING", State.UNLOADING: "UNLOADING"}
_MODEL = re.compile(r"/v2/models/(?P<model>[^/]+)(?:/versions/(?P<version>[^/]+))?(?P<verb>/ready|/infer)?")
_V1 = re.compile(
    r"/v1/models/(?P<model>[^/:]+)(?:/versions/(?P<version>[^/:]+)|/labels/(?P<label>[^/:]+))?"
    r"(?P<verb>:predict|:classify|:regress|/metadata)?"
)
_LOAD = re.compile(r"/v2/repository/models/(?P<model>[^/]+)/(?P<verb>load|unload)")
#: A call leaves the event loop for a thread when its servable is not quick, or its body larger than this, in bytes: decoding it
#: would keep everybody else waiting.
INLINE_BYTES = 64 << 10
#: The same where rows are written one by one, each under its names.
INLINE_ROW_BYTES = 4 << 10
MAX_WAIT = 600.0
#: Bytes of a notice that comes over the network: it holds one number.
_MOST_NOTICE = 4 << 10
_MOST_USUAL = 1000
#: Bodies of the largest size that may be on their way at a time.
_BODIES = 8
_JSON = (b"content-type", b"application/json")

Send = Callable[[dict[str, Any]], Awaitable[None]]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Headers = list[tuple[bytes, bytes]]
#: A request's headers by their names in small letters; of one that is there twice the last.
Given = Mapping[bytes, bytes]
#: HTTP status, headers, body.
Answer = tuple[int, Headers, bytes]
#: Decodes a body for a servable, runs it, encodes the answer; the headers are those that tell how it is encoded.
Answering = Callable[[Servable, bytes], tuple[bytes, Headers]]


class HttpError(Exception):
    """An answer that is an error, with its status."""

    def __init__(self, status: int, message: str, headers: Headers | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.headers = status, message, headers or []


class App:
    """``max_body`` in bytes."""

    def __init__(
        self,
        dataplane: Dataplane,
        manager: Manager,
        source: Source,
        *,
        traffic: Traffic,
        guard: Guard,
        version: str,
        notices: Notices | None = None,
        journal: Journal | None = None,
        max_body: int = 64 << 20,
        threads: int = 2,
    ) -> None:
        self._dataplane, self._manager, self._source = dataplane, manager, source
        self._traffic, self._version, self._max_body = traffic, version, max_body
        self._guard, self._notices, self._journal = guard, notices, journal
        #: The server's connections, and how many there may be before callers are turned away.
        self.connections: Collection[object] = ()
        self.most_connections = 1000
        #: Bytes of bodies that are being read.
        self._reading = 0
        self._notes_all = journal is not None and journal.requests
        self._metrics = Metrics(traffic, manager.statuses, dataplane.models, manager.ready, version)
        #: Paths that calls came in on, and how their servable is found: patterns take longer than the rest of the routing.
        self._usual: dict[str, Callable[[], Servable]] = {}
        self._pool = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="infer")
        self._management = ThreadPoolExecutor(max_workers=8, thread_name_prefix="management")

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        name, reason = b"", ""
        try:
            given = dict(scope["headers"])
            find = self._usual.get(scope["path"]) if scope["method"] == "POST" else None
            if self._notices is not None and port_of(scope) == self._notices.port:
                find = None
            else:  # for a notice the signature says more than Host and Origin
                name = self._guard.check(scope, given, crowded=len(self.connections) > self.most_connections)
            if find is not None:
                status, headers, body = await self._usual_call(find, given, receive)
            else:
                status, headers, body = await self._route(scope, given, receive)
        except Exception as error:  # one request's accident must not be the server's
            status, headers, reason = _refusal(error)
            body = _error(reason)
        if status >= 400:
            self._traffic.errors[status] += 1
        if reason or self._notes_all:
            name = name or self._guard.name()
            if self._journal is not None:
                self._journal.answered(name, scope, status, reason)
        if name:
            headers.append((b"x-request-id", name))
        if not headers or headers[0][0] != b"content-type":  # where it is given it stands first
            headers = [_JSON, *headers]
        headers.append((b"content-length", b"%d" % len(body)))
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})

    async def _route(self, scope: dict[str, Any], given: Given, receive: Receive) -> Answer:
        path, method = scope["path"], scope["method"]
        if self._notices is not None and port_of(scope) == self._notices.port:
            return await self._notice(self._notices, scope, given, receive)
        if found := _MODEL.fullmatch(path):
            return await self._model(found, scope, given, receive)
        if found := _V1.fullmatch(path):
            return await self._tensorflow(found, method, receive)
        if path.startswith("/v2/repository/"):
            return await self._repository(path, method, scope, receive)
        return self._server(path, method)

    def _server(self, path: str, method: str) -> Answer:
        pages: Mapping[str, Callable[[], Answer]] = {
            "/": self._page,
            "/metrics": lambda: (200, [(b"content-type", CONTENT_TYPE)], self._metrics.text()),
            "/openapi.json": lambda: (200, [], openapi.document(self._version)),
            "/v2": self._about,
            "/v2/": self._about,
            "/v2/health/live": lambda: (200, [], b'{"live":true}'),
            "/v2/health/ready": self._ready,
            "/v2/gitmodel/status": self._status,
        }
        found = pages.get(path)
        if found is None:
            raise HttpError(404, f"there is nothing at {path[:200]}; see /v2")
        _expect(method, "GET", "HEAD")
        return found()

    def _page(self) -> Answer:
        headers = [(b"content-type", b"text/html; charset=utf-8"), (b"content-security-policy", page.POLICY)]
        table, ready = self._dataplane.models(), self._manager.ready()
        body = page.render(self._manager.statuses(), table, self._traffic, ready=ready, version=self._version)
        return 200, headers, body

    def _about(self) -> Answer:
        extensions = ["model_repository", "binary_tensor_data"]
        return 200, [], orjson.dumps({"name": "gitmodel", "version": self._version, "extensions": extensions})

    def _ready(self) -> Answer:
        ready = self._manager.ready()
        return 200 if ready else 400, [], orjson.dumps({"ready": ready})

    def _status(self) -> Answer:
        statuses = [asdict(status) for status in self._manager.statuses()]
        return 200, [], orjson.dumps({"ready": self._manager.ready(), "versions": statuses})

    def _model_ready(self, model: str, version: str) -> Answer:
        try:
            servable = self._dataplane.find(model, version)
        except DataplaneError as error:
            if error.code != "unavailable":
                raise
            return 400, [], orjson.dumps({"name": model, "ready": False, "error": error.message})
        return 200, [*servable.headers], orjson.dumps({"name": model, "ready": True})

    async def _model(self, asked: re.Match[str], scope: dict[str, Any], given: Given, receive: Receive) -> Answer:
        model, version, verb = asked["model"], asked["version"] or "", asked["verb"]
        if verb == "/infer":
            _expect(scope["method"], "POST")
            find, answering = partial(self._dataplane.find, model, version), partial(self._infer, given)
            answer = await self._call(find, answering, receive)
            if len(self._usual) < _MOST_USUAL:
                self._usual[scope["path"]] = find
            return answer
        _expect(scope["method"], "GET", "HEAD")
        if verb == "/ready":
            return self._model_ready(model, version)
        servable = self._dataplane.find(model, version)
        serving = self._dataplane.models().get(model)  # of this moment: it may be gone since
        versions = list(serving.by_version) if serving else [servable.version]
        return 200, [*servable.headers], orjson.dumps(oip.metadata(servable, versions))

    async def _tensorflow(self, asked: re.Match[str], method: str, receive: Receive) -> Answer:
        model, version, label, verb = (asked[name] or "" for name in ("model", "version", "label", "verb"))
        find = partial(self._dataplane.find, model, version)
        if label:
            find = partial(self._dataplane.labelled, model, label)
        if verb.startswith(":"):
            _expect(method, "POST")
            return await self._call(find, partial(self._predict, verb), receive, INLINE_ROW_BYTES)
        _expect(method, "GET", "HEAD")
        if verb:
            servable = find()
            return 200, [*servable.headers], orjson.dumps(tfs.metadata(servable))
        return 200, [], orjson.dumps(tfs.status(self._dataplane.known(model, version, label)))

    async def _usual_call(self, find: Callable[[], Servable], given: Given, receive: Receive) -> Answer:
        """What ``_call`` does for a path that was called before, with nothing between the body and the answer when the body
        is as nearly all are: three in four microseconds would go into what is done for the others."""
        message = await receive()
        body = message.get("body", b"")
        servable = find()
        decode = servable.usual
        if (
            decode is None
            or message.get("more_body")
            or message["type"] != "http.request"
            or not servable.quick
            or len(body) > INLINE_BYTES
            or _header_length(given, len(body)) is not None
        ):
            return await self._call(find, partial(self._infer, given), _again(message, receive))
        started = time.perf_counter()
        if (call := decode(body)) is None:
            return await self._call(find, partial(self._infer, given), _again(message, receive))
        servable.in_flight += 1
        status = 400
        try:
            name, inputs = call
            answer = oip.answer(servable, name, self._dataplane.run(servable, inputs))
            status = 200
        except DataplaneError as error:
            raise HttpError(_STATUS[error.code], error.message, [*servable.headers]) from error
        finally:
            servable.in_flight -= 1
            self._traffic.answered(servable, status, time.perf_counter() - started)
        return 200, [_JSON, *servable.headers], answer

    async def _call(
        self, find: Callable[[], Servable], answering: Answering, receive: Receive, inline: int = INLINE_BYTES
    ) -> Answer:
        find()  # nobody sends a body for what is not here
        body = await self._body(receive)
        # Read once, here: from now on everything about this answer comes from this one servable.
        servable = find()
        servable.in_flight += 1
        started, status = time.perf_counter(), 500
        try:
            if not servable.quick or len(body) > inline:
                loop = asyncio.get_running_loop()
                answer, headers = await loop.run_in_executor(self._pool, answering, servable, body)
            else:
                answer, headers = answering(servable, body)
            status = 200
        except DataplaneError as error:
            status = _STATUS[error.code]
            raise HttpError(status, error.message, [*servable.headers]) from error
        except HttpError as error:
            status = error.status
            raise
        finally:
            servable.in_flight -= 1
            self._traffic.answered(servable, status, time.perf_counter() - started)
        return 200, [*headers, *servable.headers], answer

    def _infer(self, given: Given, servable: Servable, body: bytes) -> tuple[bytes, Headers]:
        request = oip.decode(body, _header_length(given, len(body)), servable)
        called = tfs.named(servable, request.signature)
        outputs = self._dataplane.infer(called, request.inputs, request.outputs)
        answer, split = oip.encode(servable, request, outputs)
        if split is None:
            return answer, []
        return answer, [(b"content-type", b"application/octet-stream"), (oip.LENGTH_HEADER, str(split).encode())]

    def _predict(self, verb: str, servable: Servable, body: bytes) -> tuple[bytes, Headers]:
        call = tfs.predict(body, servable) if verb == ":predict" else tfs.examples(body, servable)
        outputs = self._dataplane.infer(call.servable, call.inputs)
        if verb == ":predict":
            return tfs.answer(call, outputs), []
        if verb == ":classify":
            return tfs.classes(call, outputs, servable.labels), []
        return tfs.regressions(call, outputs), []

    async def _repository(self, path: str, method: str, scope: dict[str, Any], receive: Receive) -> Answer:
        _expect(method, "POST")
        body = _json(await self._body(receive))
        if path == "/v2/repository/index":
            return 200, [], orjson.dumps(self._index(bool(body.get("ready", False))))
        found = _LOAD.fullmatch(path)
        if not found:
            raise HttpError(404, f"there is nothing at {path[:200]}; see /v2")
        if port_of(scope) is not None:  # not the management socket
            raise HttpError(403, "loading is asked for on the management socket; 'gitmodel status' names it")
        return await self._load(found, body)

    async def _notice(self, notices: Notices, scope: dict[str, Any], given: Given, receive: Receive) -> Answer:
        """On the port for notices: a signed request to load, and nothing else."""
        body = await self._body(receive, _MOST_NOTICE)
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in given.items()}
        try:
            notices.verifier.check(scope["method"], scope["raw_path"].decode("latin-1"), body, headers)
        except NotSigned as error:
            raise HttpError(401, error.message, [(b"www-authenticate", b"Gitmodel-Signature")]) from error
        found = _LOAD.fullmatch(scope["path"])
        if found is None or scope["method"] != "POST":
            raise HttpError(404, "notices alone are taken here: POST /v2/repository/models/NAME/load")
        return await self._load(found, _json(body))

    async def _load(self, found: re.Match[str], body: dict[str, Any]) -> Answer:
        if found["verb"] == "unload":
            raise HttpError(501, "what is served is what Git says: move a stage or withdraw the version's tag")
        parameters = body.get("parameters") or {}
        if not isinstance(parameters, dict) or set(parameters) - {"wait"}:
            raise HttpError(
                400, "parameters may hold 'wait', in seconds; files and URLs are never loaded from a request"
            )
        wait = parameters.get("wait", 60.0)
        if isinstance(wait, bool) or not isinstance(wait, int | float) or not 0 <= wait <= MAX_WAIT:
            raise HttpError(400, f"wait is a number of seconds from 0 to {MAX_WAIT:.0f}")
        loop = asyncio.get_running_loop()
        answer = await loop.run_in_executor(self._management, self._look, found["model"], float(wait))
        return 200, [], orjson.dumps(answer)

    def _look(self, model: str, wait: float) -> dict[str, Any]:
        """A notice is only a hint: the refs are read anew, whatever it said."""
        try:
            settled = self._manager.wait(self._source.look(model), wait)
        except GitmodelError as error:
            raise HttpError(500, str(error)) from error
        return {
            "name": model,
            "settled": settled,
            "aspired": self._manager.aspired(model),
            "serving": self._serving(model),
            "versions": [asdict(status) for status in self._manager.statuses(model)],
        }

    def _serving(self, model: str) -> str | None:
        serving = self._dataplane.models().get(model)
        return serving.default.version if serving else None

    def _index(self, ready_only: bool) -> list[dict[str, Any]]:
        rows = [_index_row(status) for status in self._manager.statuses()]
        return [row for row in rows if row["state"] == "READY" or not ready_only]

    async def _body(self, receive: Receive, most: int | None = None) -> bytes:
        most, chunks, size = most or self._max_body, [], 0
        try:
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise HttpError(400, "the client went away")
                chunk = message.get("body", b"")
                size += len(chunk)
                self._reading += len(chunk)
                if size > most:
                    raise HttpError(413, f"the body has more than {most} bytes", [(b"connection", b"close")])
                if self._reading > _BODIES * self._max_body:
                    raise HttpError(503, "too many large bodies at a time; try again", [(b"connection", b"close")])
                chunks.append(chunk)
                if not message.get("more_body"):
                    return chunks[0] if len(chunks) == 1 else b"".join(chunks)
        finally:
            self._reading -= size


def _refusal(error: Exception) -> tuple[int, Headers, str]:
    """Status, headers and words of the answer that an error becomes."""
    if isinstance(error, HttpError):
        return error.status, error.headers, error.message
    if isinstance(error, DataplaneError):
        return _STATUS[error.code], [], error.message
    if isinstance(error, Refused):
        return error.status, [(b"connection", b"close")], error.message
    return 500, [], f"{type(error).__name__}: {error}"[:500]


def _again(message: dict[str, Any], receive: Receive) -> Receive:
    """``receive`` with a message put back before all others."""
    put_back = [message]

    async def first() -> dict[str, Any]:
        return put_back.pop() if put_back else await receive()

    return first


def _error(message: str) -> bytes:
    """What a caller sent may stand in it, half a character too."""
    return orjson.dumps({"error": message.encode("utf-8", "replace").decode()})


def _index_row(status: VersionStatus) -> dict[str, Any]:
    state = _REPOSITORY_STATES.get(status.state, "UNAVAILABLE")
    return {"name": status.model, "version": status.version, "state": state, "reason": status.reason}


def _header_length(given: Given, size: int) -> int | None:
    value = given.get(oip.LENGTH_HEADER)
    if value is None:
        return None
    if not value.isdigit() or len(value) > 18 or int(value) > size:
        raise HttpError(400, "Inference-Header-Content-Length does not fit the body")
    return int(value)


def _json(body: bytes) -> dict[str, Any]:
    try:
        value = msgspec.json.decode(body) if body.strip() else {}
    except (msgspec.MsgspecError, RecursionError) as error:
        raise HttpError(400, f"the request is not valid: {error}") from None
    if not isinstance(value, dict):
        raise HttpError(400, "the request must be a JSON object")
    return value


def _expect(method: str, *allowed: str) -> None:
    if method not in allowed:
        raise HttpError(405, f"use {allowed[0]}", [(b"allow", ", ".join(allowed).encode())])
