"""What a person and Prometheus see of a whole server, all its processes together."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from gitmodel.serving import page
from gitmodel.serving.http import Answer
from gitmodel.serving.metrics import CONTENT_TYPE, Metrics, Workers
from gitmodel.serving.servable import Serving, States, in_order
from gitmodel.serving.traffic import Traffic


class Overview:
    """``traffic(newest)`` gives what was counted until now, with the newest times or without; ``table`` has who is served, and how
    many calls each is at."""

    def __init__(
        self,
        states: States,
        table: Callable[[], Mapping[str, Serving]],
        traffic: Callable[[bool], Traffic],
        version: str,
        workers: Callable[[], Workers],
    ) -> None:
        self._states, self._table, self._traffic, self._version = states, table, traffic, version
        self._metrics = Metrics(states, table, lambda: traffic(False), version, workers)

    def answer(self, path: str) -> Answer:
        """To one of ``rest.PATHS``."""
        if path == "/metrics":
            return 200, [(b"content-type", CONTENT_TYPE)], self._metrics.text()
        headers = [(b"content-type", b"text/html; charset=utf-8"), (b"content-security-policy", page.POLICY)]
        traffic = self._traffic(True)  # which counts what is in flight as well: before the table is looked at
        statuses, ready = in_order(self._states.statuses()), self._states.ready()
        return 200, headers, page.render(statuses, self._table(), traffic, ready=ready, version=self._version)
