"""Prometheus' view of a server. Names end in their unit; labels hold models and versions that Git knows, nothing a caller made up."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any

from msgspec import Struct
from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector, generate_latest
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from gitmodel.serving.servable import Serving, State, States, VersionStatus
from gitmodel.serving.traffic import BOUNDS, Traffic

#: For the header of the answer.
CONTENT_TYPE = b"text/plain; version=0.0.4; charset=utf-8"


class Workers(Struct, frozen=True):
    """Processes that answer calls: the id of each, by its number, and how many ended and were replaced."""

    answering: Mapping[int, int]
    replaced: int


class Metrics(Collector):
    """Collects when it is asked; nothing is counted here."""

    def __init__(
        self,
        states: States,
        table: Callable[[], Mapping[str, Serving]],
        traffic: Callable[[], Traffic],
        version: str,
        workers: Callable[[], Workers],
    ) -> None:
        self._states, self._table, self._traffic, self._version, self._workers = (
            states,
            table,
            traffic,
            version,
            workers,
        )
        self._registry = CollectorRegistry(auto_describe=False)
        ProcessCollector(registry=self._registry)
        PlatformCollector(registry=self._registry)
        self._registry.register(self)

    def text(self) -> bytes:
        """The exposition format's text."""
        return generate_latest(self._registry)

    def describe(self) -> Iterable[Any]:
        return ()

    def collect(self) -> Iterator[Any]:
        # A tag that was forced onto another commit is the same version twice; the newest change comes last.
        statuses = list({(status.model, status.version): status for status in self._states.statuses()}.values())
        yield InfoMetricFamily("gitmodel", "The server.", {"version": self._version})
        yield GaugeMetricFamily(
            "gitmodel_ready", "1 when every model that must be served is.", float(self._states.ready())
        )
        workers = self._workers()
        yield GaugeMetricFamily("gitmodel_workers", "Worker processes that answer calls.", len(workers.answering))
        yield CounterMetricFamily("gitmodel_worker_restarts", "Workers that ended and were replaced.", workers.replaced)
        yield from _processes(workers)
        traffic = self._traffic()
        yield from self._requests(traffic)
        yield from self._loads(traffic, statuses)

    def _requests(self, traffic: Traffic) -> Iterator[Any]:
        names = ["model", "version"]
        answered = CounterMetricFamily("gitmodel_requests", "Inference requests, by status.", labels=[*names, "status"])
        took = HistogramMetricFamily(
            "gitmodel_request_duration_seconds", "From the whole body to the answer.", labels=names
        )
        for model, version, tally in traffic.each():
            for status, count in sorted(tally.statuses.items()):
                answered.add_metric([model, version, str(status)], count)
            total, buckets = 0, []
            for bound, count in zip([*map(str, BOUNDS), "+Inf"], tally.counts, strict=True):
                total += count
                buckets.append((bound, total))
            took.add_metric([model, version], buckets, tally.seconds)
        yield answered
        yield took
        errors = CounterMetricFamily("gitmodel_errors", "Answers that were errors, to any path.", labels=["status"])
        for status, count in sorted(traffic.errors.items()):
            errors.add_metric([str(status)], count)
        yield errors
        flying = GaugeMetricFamily("gitmodel_requests_in_flight", "Requests being answered.", labels=names)
        for model, serving in sorted(self._table().items()):
            for version, servable in serving.by_version.items():
                flying.add_metric([model, version], servable.in_flight)
        yield flying

    def _loads(self, traffic: Traffic, statuses: list[VersionStatus]) -> Iterator[Any]:
        names = ["model", "version"]
        states = GaugeMetricFamily("gitmodel_version_state", "1 for the state it is in.", labels=[*names, "state"])
        took = GaugeMetricFamily("gitmodel_version_load_seconds", "How long it took to load.", labels=names)
        cases = GaugeMetricFamily("gitmodel_version_golden_cases", "Golden cases that it kept.", labels=names)
        for status in statuses:
            where = [status.model, status.version]
            for state in State:
                states.add_metric([*where, str(state)], float(state is status.state))
            if status.seconds:
                took.add_metric(where, status.seconds)
            cases.add_metric(where, status.golden_passed)
        loads = CounterMetricFamily("gitmodel_loads", "Loads that ended, by outcome.", labels=["model", "outcome"])
        for (model, good), count in sorted(traffic.loads.items()):
            loads.add_metric([model, "available" if good else "failed"], count)
        yield from (states, took, cases, loads)


def _processes(workers: Workers) -> Iterator[Any]:
    """What the server's own process is told to be, of each worker."""
    found: dict[str, Metric] = {}
    for number, pid in workers.answering.items():
        for told in ProcessCollector(namespace="gitmodel_worker", pid=partial(int, pid), registry=None).collect():
            family = found.setdefault(told.name, Metric(told.name, told.documentation, told.type))
            for sample in told.samples:
                family.add_sample(sample.name, {"worker": str(number)}, sample.value)
    yield from found.values()
