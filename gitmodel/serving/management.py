"""Who may have a server look at its refs, and what it says of it: over its own socket, or signed over the network."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import orjson
from msgspec.structs import asdict

from gitmodel.errors import GitmodelError
from gitmodel.serving.guard import Notices
from gitmodel.serving.http import Answer, Given, HttpError
from gitmodel.serving.manager import Manager
from gitmodel.serving.source import Source
from gitmodel.signing import NotSigned

MAX_WAIT = 600.0


class Management:
    """``settled`` is called before an answer tells how a load ended: whoever reads it finds the same everywhere."""

    def __init__(
        self,
        manager: Manager,
        source: Source,
        notices: Notices | None = None,
        settled: Callable[[], object] = lambda: None,
    ) -> None:
        self._manager, self._source, self._notices, self._settled = manager, source, notices, settled
        self._pool = ThreadPoolExecutor(max_workers=8, thread_name_prefix="management")

    @property
    def notice_port(self) -> int | None:
        return self._notices.port if self._notices else None

    def verify(self, scope: dict[str, Any], given: Given, body: bytes) -> None:
        """Raises HttpError for a notice without a signature that holds."""
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in given.items()}
        try:
            if self._notices is not None:
                path = scope["raw_path"].decode("latin-1")
                self._notices.verifier.check(scope["method"], path, body, headers)
        except NotSigned as error:
            raise HttpError(401, error.message, [(b"www-authenticate", b"Gitmodel-Signature")]) from error

    async def load(self, model: str, verb: str, body: dict[str, Any]) -> Answer:
        """Raises HttpError."""
        if verb == "unload":
            raise HttpError(501, "what is served is what Git says: move a stage or withdraw the version's tag")
        parameters = body.get("parameters") or {}
        if not isinstance(parameters, dict) or set(parameters) - {"wait"}:
            raise HttpError(
                400, "parameters may hold 'wait', in seconds; files and URLs are never loaded from a request"
            )
        wait = parameters.get("wait", 60.0)
        if isinstance(wait, bool) or not isinstance(wait, int | float) or not 0 <= wait <= MAX_WAIT:
            raise HttpError(400, f"wait is a number of seconds from 0 to {MAX_WAIT:.0f}")
        answer = await asyncio.get_running_loop().run_in_executor(self._pool, self._look, model, float(wait))
        return 200, [], orjson.dumps(answer)

    def _look(self, model: str, wait: float) -> dict[str, Any]:
        """A notice is only a hint: the refs are read anew, whatever it said."""
        try:
            tags = self._source.tags(model)  # first: the look that follows has seen them all
            settled = self._manager.wait(self._source.look(model), wait)
        except GitmodelError as error:
            raise HttpError(500, str(error)) from error
        self._settled()
        serving = self._manager.table.get(model)
        return {
            "name": model,
            "settled": settled,
            "tags": tags,
            "aspired": self._manager.aspired(model),
            "serving": serving.default.version if serving else None,
            "versions": [asdict(status) for status in self._manager.statuses(model)],
        }
