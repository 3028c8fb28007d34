"""The metrics as Prometheus' own parser reads them."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Callable
from typing import NamedTuple

from prometheus_client.parser import text_string_to_metric_families

from gitmodel.serving.metrics import Metrics, Workers
from gitmodel.serving.servable import Servable, Serving, State, VersionStatus
from gitmodel.serving.traffic import Traffic

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def samples(text: bytes) -> Samples:
    families = text_string_to_metric_families(text.decode())
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for family in families for s in family.samples}


class Said(NamedTuple):
    """What a server says of its versions."""

    versions: list[VersionStatus]
    is_ready: bool = True

    def statuses(self, model: str = "") -> list[VersionStatus]:
        return [status for status in self.versions if not model or status.model == model]

    def standing(self) -> dict[str, dict[str, str]]:
        return {}

    def ready(self) -> bool:
        return self.is_ready


def made(traffic: Traffic, statuses: list[VersionStatus], *servables: Servable, ready: bool = True) -> Samples:
    by_version = {servable.version: servable for servable in servables}
    table = {"fraud": Serving(servables[0], by_version)} if servables else {}
    return samples(Metrics(Said(statuses, ready), lambda: table, lambda: traffic, "0.1", lambda: Workers({}, 0)).text())


LIVE = VersionStatus("fraud", "v1.0.0", "c", State.AVAILABLE, seconds=0.5, golden_passed=3, golden_cases=4)
WHERE = (("model", "fraud"), ("version", "v1.0.0"))


def test_requests_are_told_with_their_status_and_duration(servable: Callable[..., Servable]) -> None:
    traffic, model = Traffic(), servable()
    for status, seconds in ((200, 0.002), (200, 0.3), (400, 20.0)):
        traffic.answered(model, status, seconds)
    traffic.errors[404] += 2
    model.in_flight = 5
    found = made(traffic, [LIVE], model)
    assert found["gitmodel_requests_total", tuple(sorted((*WHERE, ("status", "200"))))] == 2
    assert found["gitmodel_requests_total", tuple(sorted((*WHERE, ("status", "400"))))] == 1
    assert found["gitmodel_errors_total", (("status", "404"),)] == 2
    assert found["gitmodel_requests_in_flight", WHERE] == 5
    duration = "gitmodel_request_duration_seconds"
    buckets = {
        bound: found[f"{duration}_bucket", tuple(sorted((*WHERE, ("le", bound))))]
        for bound in ("0.001", "0.0025", "0.5", "10.0", "+Inf")
    }
    assert buckets == {"0.001": 0, "0.0025": 1, "0.5": 2, "10.0": 2, "+Inf": 3}
    assert found[f"{duration}_count", WHERE] == 3
    assert abs(found[f"{duration}_sum", WHERE] - 20.302) < 1e-9


def test_versions_are_told_with_their_state_and_golden_cases() -> None:
    failed = VersionStatus("fraud", "v2.0.0", "c", State.END, reason="golden cases fail")
    traffic = Traffic()
    traffic.told(LIVE)
    traffic.told(failed)
    found = made(traffic, [LIVE, failed], ready=False)
    assert found["gitmodel_ready", ()] == 0
    states = {
        dict(labels)["state"]: value
        for (name, labels), value in found.items()
        if name == "gitmodel_version_state" and WHERE[1] in labels
    }
    assert states == {"START": 0, "LOADING": 0, "AVAILABLE": 1, "UNLOADING": 0, "END": 0}
    assert found["gitmodel_version_load_seconds", WHERE] == 0.5
    assert found["gitmodel_version_golden_cases", WHERE] == 3
    assert found["gitmodel_loads_total", (("model", "fraud"), ("outcome", "available"))] == 1
    assert found["gitmodel_loads_total", (("model", "fraud"), ("outcome", "failed"))] == 1


def test_the_process_and_the_server_are_told() -> None:
    found = made(Traffic(), [])
    assert found["process_resident_memory_bytes", ()] > 0
    assert found["gitmodel_info", (("version", "0.1"),)] == 1


def test_names_that_would_break_a_line_are_escaped() -> None:
    strange = VersionStatus('a"\n\\b', "v1.0.0", "c", State.START)
    found = made(Traffic(), [strange])
    assert ("gitmodel_version_state", (("model", 'a"\n\\b'), ("state", "START"), ("version", "v1.0.0"))) in found


def test_a_version_whose_tag_was_forced_elsewhere_is_told_once() -> None:
    twice = [
        VersionStatus("fraud", "v1.0.0", "old", State.END, since=1.0),
        VersionStatus("fraud", "v1.0.0", "new", State.AVAILABLE, since=2.0),
    ]
    metrics = Metrics(Said(twice), dict, Traffic, "0.1", lambda: Workers({}, 0))
    lines = [line for line in metrics.text().decode().splitlines() if line.startswith("gitmodel_version_state{")]
    assert len(lines) == len({line.rpartition(" ")[0] for line in lines}) == len(State)
    assert samples(metrics.text())["gitmodel_version_state", tuple(sorted((*WHERE, ("state", "AVAILABLE"))))] == 1


def test_each_worker_is_told() -> None:
    with subprocess.Popen(["sleep", "60"]) as other:
        try:
            metrics = Metrics(Said([]), dict, Traffic, "0.1", lambda: Workers({1: os.getpid(), 2: other.pid}, 5))
            found = samples(metrics.text())
        finally:
            other.kill()
    assert found["gitmodel_workers", ()] == 2
    assert found["gitmodel_worker_restarts_total", ()] == 5
    own, its = (found["gitmodel_worker_process_resident_memory_bytes", (("worker", number),)] for number in "12")
    assert own > its > 0
    assert found["gitmodel_worker_process_cpu_seconds_total", (("worker", "1"),)] > 0


def test_a_worker_that_has_just_ended_is_left_out() -> None:
    with subprocess.Popen(["true"]) as gone:
        gone.wait()
    found = samples(Metrics(Said([]), dict, Traffic, "0.1", lambda: Workers({1: gone.pid}, 0)).text())
    assert found["gitmodel_workers", ()] == 1
    assert not any(name.startswith("gitmodel_worker_process_") for name, _ in found)
