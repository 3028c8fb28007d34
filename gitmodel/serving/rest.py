"""The ASGI application: routes, limits and status codes. No framework stands on the hot path.

Source: Open Inference Protocol v2 (REST) and its model repository extension; TensorFlow Serving's REST API v1. Loading is
asked for on the management socket alone; the data port answers it with 403.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import orjson
from msgspec.structs import asdict

from gitmodel.serving import oip, openapi, tfs
from gitmodel.serving.calls import Call, Calls
from gitmodel.serving.dataplane import Dataplane, DataplaneError
from gitmodel.serving.guard import Guard, port_of
from gitmodel.serving.http import (
    CLOSE,
    JSON,
    Answer,
    Bodies,
    Given,
    HttpError,
    Parts,
    Receive,
    Send,
    error_body,
    expect,
    json_object,
    refusal,
)
from gitmodel.serving.journal import Journal
from gitmodel.serving.servable import State, States, VersionStatus, in_order
from gitmodel.serving.traffic import Traffic

if TYPE_CHECKING:
    from gitmodel.serving.management import Management

_REPOSITORY_STATES = {State.AVAILABLE: "READY", State.LOADING: "LOADING", State.UNLOADING: "UNLOADING"}
_MODEL = re.compile(r"/v2/models/(?P<model>[^/]+)(?:/versions/(?P<version>[^/]+))?(?P<verb>/ready|/infer)?")
_V1 = re.compile(
    r"/v1/models/(?P<model>[^/:]+)(?:/versions/(?P<version>[^/:]+)|/labels/(?P<label>[^/:]+))?"
    r"(?P<verb>:[^/:]*|/metadata)?"
)
_V1_VERBS = (":predict", ":classify", ":regress")
_LOAD = re.compile(r"/v2/repository/models/(?P<model>[^/]+)/(?P<verb>load|unload)")
#: Makes a call of a request's headers.
Making = Callable[[Given], Call[Any]]
#: Bytes of a notice that comes over the network: it holds one number.
MOST_NOTICE = 4 << 10
#: What ``overview`` answers: counts of the whole server stand there.
PATHS = ("/", "/metrics")
_MOST_USUAL = 1000


class App:
    """``overview`` answers the ``PATHS``. ``max_body`` in bytes, ``body_seconds`` for it to come; ``crowded`` says whether there are
    more connections than callers may have. Without ``management`` nobody can ask for a load here. ``bodies`` counts those on their
    way, whoever reads them."""

    def __init__(
        self,
        dataplane: Dataplane,
        states: States,
        overview: Callable[[str], Awaitable[Answer]],
        *,
        traffic: Traffic,
        guard: Guard,
        version: str,
        management: Management | None = None,
        journal: Journal | None = None,
        crowded: Callable[[], bool] = lambda: False,
        max_body: int = 64 << 20,
        body_seconds: float = 30.0,
        threads: int = 2,
    ) -> None:
        self._dataplane, self._states, self._overview = dataplane, states, overview
        self._traffic, self._version, self._crowded = traffic, version, crowded
        self._guard, self._management, self._journal = guard, management, journal
        self._notice_port = management.notice_port if management else None
        self._notes_all = journal is not None and journal.requests
        #: Paths that calls came in on, and what makes a call of their headers: patterns take longer than the rest of the routing.
        self._usual: dict[bytes, Making] = {}
        self.bodies = Bodies(max_body, body_seconds)
        self._calls = Calls(dataplane, traffic, self.bodies, threads)

    async def __call__(self, scope: dict[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        name, reason = b"", ""
        try:
            given = dict(scope["headers"])
            if self._notice_port is not None and port_of(scope) == self._notice_port:
                answer = self._notice(scope, given, receive)  # its signature says more than Host and Origin
            else:
                name = self._guard.check(scope, given, crowded=self._crowded())
                answer = self._route(scope, given, receive)
            answered = await answer
        except Exception as error:  # one request's accident must not be the server's
            answered, reason = _refused(error)
        status, headers, body = self._finished(scope, name, answered, reason)
        await send({"type": "http.response.start", "status": status, "headers": headers})
        if isinstance(body, bytes):
            await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})
        else:
            await _send_parts(body, send)

    def is_usual(self, path: bytes) -> bool:
        """Whether calls came in on that path, which has no query."""
        return path in self._usual

    def at_once(self, scope: dict[str, Any], pieces: Sequence[bytes]) -> Answer | None:
        """The whole answer to a POST on a usual path whose body is here in pieces, if nothing has to be waited for. What is asked of
        ``scope`` is ``raw_path``, ``path``, ``method``, ``headers``, ``server`` and ``client``."""
        name, reason = b"", ""
        try:
            given = dict(scope["headers"])
            if self._notice_port is not None and port_of(scope) == self._notice_port:
                return None
            name = self._guard.check(scope, given, crowded=self._crowded())
            answered = self._calls.at_once(self._usual[scope["raw_path"]](given), pieces)
            if answered is None:
                return None
        except Exception as error:
            answered, reason = _refused(error)
        return self._finished(scope, name, answered, reason)

    def unreadable(self, scope: dict[str, Any], status: int, reason: str) -> Answer:
        """The last answer on a connection on which something came that is no request. What is asked of ``scope`` is ``method``,
        ``path`` and ``client``."""
        return self._finished(scope, b"", (status, [CLOSE], error_body(reason)), reason)

    def _finished(self, scope: dict[str, Any], name: bytes, answered: Answer, reason: str) -> Answer:
        """With all its headers, counted and told of. ``name`` is the client's id for its request, or b''; ``reason`` why it was
        refused, or ''."""
        status, headers, body = answered
        if status >= 400:
            self._traffic.errors[status] += 1
        if reason or self._notes_all:
            name = name or self._guard.name()
            if self._journal is not None:
                self._journal.answered(name, scope, status, reason)
        if name:
            headers.append((b"x-request-id", name))
        if not headers or headers[0][0] != b"content-type":  # where it is given it stands first
            headers = [JSON, *headers]
        size = len(body) if isinstance(body, bytes) else sum(len(part) for part in body)
        headers.append((b"content-length", b"%d" % size))
        return status, headers, body

    async def _route(self, scope: dict[str, Any], given: Given, receive: Receive) -> Answer:
        path, method = scope["path"], scope["method"]
        if found := _MODEL.fullmatch(path):
            return await self._model(found, scope, given, receive)
        if found := _V1.fullmatch(path):
            return await self._tensorflow(found, scope, given, receive)
        if path.startswith("/v2/repository/"):
            return await self._repository(path, method, scope, receive)
        if path in PATHS:
            expect(method, "GET", "HEAD")
            return await self._overview(path)
        return self._server(path, method)

    def _server(self, path: str, method: str) -> Answer:
        pages: Mapping[str, Callable[[], Answer]] = {
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
        expect(method, "GET", "HEAD")
        return found()

    def _about(self) -> Answer:
        extensions = ["model_repository", "binary_tensor_data"]
        return 200, [], orjson.dumps({"name": "gitmodel", "version": self._version, "extensions": extensions})

    def _ready(self) -> Answer:
        ready = self._states.ready()
        return 200 if ready else 400, [], orjson.dumps({"ready": ready})

    def _status(self) -> Answer:
        statuses = [asdict(status) for status in in_order(self._states.statuses())]
        return 200, [], orjson.dumps({"ready": self._states.ready(), "versions": statuses})

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
            expect(scope["method"], "POST")
            making = partial(self._calls.infer, partial(self._dataplane.find, model, version))
            return await self._call(making, scope, given, receive)
        expect(scope["method"], "GET", "HEAD")
        if verb == "/ready":
            return self._model_ready(model, version)
        servable = self._dataplane.find(model, version)
        serving = self._dataplane.models().get(model)  # of this moment: it may be gone since
        versions = list(serving.by_version) if serving else [servable.version]
        return 200, [*servable.headers], orjson.dumps(oip.metadata(servable, versions))

    async def _call(self, making: Making, scope: dict[str, Any], given: Given, receive: Receive) -> Answer:
        answer = await self._calls.answer(making(given), receive)
        path = scope["raw_path"]
        if path not in self._usual and path == scope["path"].encode():  # one spelling of each
            if len(self._usual) >= _MOST_USUAL:
                del self._usual[next(iter(self._usual))]
            self._usual[path] = making
        return answer

    async def _tensorflow(self, asked: re.Match[str], scope: dict[str, Any], given: Given, receive: Receive) -> Answer:
        model, version, label, verb = (asked[name] or "" for name in ("model", "version", "label", "verb"))
        if verb.startswith(":") and verb not in _V1_VERBS:
            raise HttpError(404, f"there is no verb '{verb[:80]}'; /v1 has {', '.join(_V1_VERBS)}")
        find = partial(self._dataplane.find, model, version)
        if label:
            find = partial(self._dataplane.labelled, model, label)
        if verb.startswith(":"):
            expect(scope["method"], "POST")
            return await self._call(partial(self._calls.predict, find, verb), scope, given, receive)
        expect(scope["method"], "GET", "HEAD")
        if verb:
            servable = find()
            return 200, [*servable.headers], orjson.dumps(tfs.metadata(servable))
        return 200, [], orjson.dumps(tfs.status(self._dataplane.known(model, version, label)))

    async def _repository(self, path: str, method: str, scope: dict[str, Any], receive: Receive) -> Answer:
        expect(method, "POST")
        body = json_object(b"".join(await self.bodies.read(receive)))
        if path == "/v2/repository/index":
            return 200, [], orjson.dumps(self._index(bool(body.get("ready", False))))
        found = _LOAD.fullmatch(path)
        if not found:
            raise HttpError(404, f"there is nothing at {path[:200]}; see /v2")
        if self._management is None or port_of(scope) is not None:  # not the management socket
            raise HttpError(403, "loading is asked for on the management socket; 'gitmodel status' names it")
        return await self._management.load(found["model"], found["verb"], body)

    async def _notice(self, scope: dict[str, Any], given: Given, receive: Receive) -> Answer:
        """On the port for notices: a signed request to load, and nothing else."""
        if self._management is None:
            raise HttpError(404, "no notices are taken here")
        body = b"".join(await self.bodies.read(receive, MOST_NOTICE))
        self._management.verify(scope, given, body)
        found = _LOAD.fullmatch(scope["path"])
        if found is None or scope["method"] != "POST":
            raise HttpError(404, "notices alone are taken here: POST /v2/repository/models/NAME/load")
        return await self._management.load(found["model"], found["verb"], json_object(body))

    def _index(self, ready_only: bool) -> list[dict[str, Any]]:
        rows = [_index_row(status) for status in in_order(self._states.statuses())]
        return [row for row in rows if row["state"] == "READY" or not ready_only]


def _refused(error: Exception) -> tuple[Answer, str]:
    """And why."""
    refused = refusal(error)
    return (refused.status, refused.headers, error_body(refused.message)), refused.message


async def _send_parts(body: Parts, send: Send) -> None:
    for part in body[:-1]:
        await send({"type": "http.response.body", "body": part, "more_body": True})
    await send({"type": "http.response.body", "body": body[-1]})


def _index_row(status: VersionStatus) -> dict[str, Any]:
    state = _REPOSITORY_STATES.get(status.state, "UNAVAILABLE")
    return {"name": status.model, "version": status.version, "state": state, "reason": status.reason}
