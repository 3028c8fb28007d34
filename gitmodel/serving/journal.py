"""What a server tells whoever runs it: lines for people, or one JSON object a line for programs."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from gitmodel.endpoint import Endpoint
from gitmodel.serving.servable import State, VersionStatus


class Journal:
    """``write`` takes a line and may be called from several threads. ``as_json`` for programs; ``requests`` notes every request,
    not only those that failed for a reason of the server's."""

    def __init__(self, write: Callable[[str], object], *, as_json: bool = False, requests: bool = False) -> None:
        self.write, self.as_json, self.requests = write, as_json, requests

    def started(self, repo: Path, endpoint: Endpoint, missing: Sequence[str]) -> None:
        """``missing`` says what was asked for and is not there."""
        for text in missing:
            self.warned(text)
        text = f"serving {repo} on {endpoint.url} (management: {endpoint.admin}, pid {endpoint.pid})"
        self._note("started", text, repo=str(repo), url=endpoint.url, admin=endpoint.admin, pid=endpoint.pid)

    def listening(self, url: str) -> None:
        """Signed notices are taken there."""
        self._note("notices", f"signed notices are taken on {url}", url=url)

    def told(self, found: VersionStatus) -> None:
        """A version's state changed."""
        more = f": {found.reason}" if found.reason else ""
        if found.state is State.AVAILABLE:
            counted = f"{found.golden_passed}/{found.golden_cases} golden cases"
            more = f" in {found.seconds:.2f} s, {counted if found.golden_cases else 'no golden cases recorded'}"
        self._note(
            "version", f"{time.strftime('%H:%M:%S')} {found.model} {found.version} {found.state}{more}",
            model=found.model, version=found.version, commit=found.commit, state=str(found.state), reason=found.reason,
            seconds=round(found.seconds, 6), golden_passed=found.golden_passed, golden_cases=found.golden_cases,
        )  # fmt: skip

    def joined(self, number: int, pid: int) -> None:
        """A worker answers calls."""
        self._note("worker", f"worker {number} answers (pid {pid})", number=number, pid=pid)

    def warned(self, text: str) -> None:
        self._note("warning", f"warning: {text}", message=text)

    def stopped(self) -> None:
        self._note("stopped", "stopped")

    def answered(self, name: bytes, scope: Mapping[str, Any], status: int, reason: str) -> None:
        """A request with the id ``name`` was answered; ``reason`` says why not, if it was refused."""
        if status < 500 and not self.requests:
            return
        # What a caller sent must not make lines of its own, nor move the terminal's cursor.
        method, path = (ascii(str(scope[key])[:500])[1:-1] for key in ("method", "path"))
        words = ascii(reason[:500])[1:-1]
        client = scope.get("client")
        who = client[0] if client else "local"
        text = f"{time.strftime('%H:%M:%S')} {method} {path} {status} [{name.decode('ascii')}]" + (
            f": {words}" if words else ""
        )
        self._note(
            "request", text, id=name.decode("ascii"), method=method, path=path, status=status, client=who, reason=words
        )

    def _note(self, event: str, text: str, **fields: object) -> None:
        if self.as_json:
            moment = datetime.now(UTC).isoformat(timespec="milliseconds")
            text = json.dumps({"time": moment, "event": event, **fields})
        with contextlib.suppress(OSError, ValueError):  # a log that cannot be written must not end what it tells of
            self.write(text)
