"""What is counted of requests and loads."""

from __future__ import annotations

import pickle
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from gitmodel.serving.servable import Servable, State, VersionStatus
from gitmodel.serving.traffic import BOUNDS, Tally, Traffic


def test_answers_are_counted_by_version_and_status(servable: Callable[..., Servable]) -> None:
    traffic, one, two = Traffic(), servable(), servable(version="v2.0.0")
    for status in (200, 200, 400):
        traffic.answered(one, status, 0.002)
    traffic.answered(two, 200, 99.0)
    found = {(model, version): tally for model, version, tally in traffic.each()}
    assert found["fraud", "v1.0.0"].statuses == {200: 2, 400: 1}
    assert found["fraud", "v1.0.0"].counts[BOUNDS.index(0.0025)] == 3
    assert found["fraud", "v2.0.0"].counts[-1] == 1
    assert found["fraud", "v2.0.0"].seconds == 99.0


def test_who_swaps_a_thousand_times_keeps_no_thousand_tallies(servable: Callable[..., Servable]) -> None:
    traffic, one = Traffic(), servable()
    for number in range(1000):
        one.version = f"v{number}.0.0"
        traffic.answered(one, 200, 0.1)
    kept = [version for _, version, _ in traffic.each()]
    assert len(kept) == 256
    assert "v999.0.0" in kept
    assert "v0.0.0" not in kept


def test_loads_are_counted_by_their_outcome() -> None:
    traffic = Traffic()
    for state, reason in (
        (State.LOADING, ""),
        (State.AVAILABLE, ""),
        (State.END, "golden cases fail"),
        (State.END, ""),
    ):
        traffic.told(VersionStatus("m", "v1.0.0", "c", state, reason=reason))
    assert traffic.loads == {("m", True): 1, ("m", False): 1}


def test_there_is_no_percentile_of_nothing() -> None:
    assert Tally().percentile(0.5) is None


@given(st.lists(st.floats(0, 100), min_size=1, max_size=50), st.floats(0, 1))
def test_a_percentile_is_one_of_the_times_and_so_many_are_not_above_it(times: list[float], share: float) -> None:
    tally = Tally()
    tally.newest.extend(times)
    found = tally.percentile(share)
    assert found in times
    assert sum(time <= found for time in times) >= share * len(times)


def test_what_other_processes_counted_is_counted_in(servable: Callable[..., Servable]) -> None:
    parts, one = [Traffic(), Traffic()], servable()
    for number, part in enumerate(parts, 1):
        for _ in range(number):
            part.answered(one, 200, 0.002)
        part.errors[404] += number
        part.loads["fraud", True] += 1
    parts[1].answered(servable(version="v2.0.0"), 500, 0.3)
    total = Traffic()
    for part in parts:
        total.add(pickle.loads(pickle.dumps(part)))
    assert total.of("fraud", "v1.0.0").statuses == {200: 3}
    assert total.of("fraud", "v1.0.0").counts[BOUNDS.index(0.0025)] == 3
    assert total.of("fraud", "v1.0.0").percentile(0.5) == 0.002
    assert total.of("fraud", "v2.0.0").statuses == {500: 1}
    assert total.errors == {404: 3}
    assert total.loads == {("fraud", True): 2}
    assert parts[0].of("fraud", "v1.0.0").statuses == {200: 1}, "the parts stay as they are"
