"""What NEW costs: the interval is a theorem's, the measuring is of models that differ tenfold."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from gitmodel.bundle.bundle import Bundle
from gitmodel.bundle.folder import MemoryFolder
from gitmodel.bundle.golden import GoldenCase
from gitmodel.bundle.limits import Budgets
from gitmodel.compat import budgets
from gitmodel.compat.budgets import Race, compared, in_turns
from gitmodel.compat.changes import Change
from gitmodel.compat.isolated import Models
from tests.compat import pairs_limits

X = {"x": np.ones((32, 512), "float32")}


def test_the_interval_holds_the_median_as_often_as_it_says() -> None:
    for count in range(6, 40):
        skip = budgets._skipped(count)
        outside = 2 * sum(math.comb(count, k) for k in range(skip + 1)) / 2**count
        assert outside <= 0.05, count
        wider = 2 * sum(math.comb(count, k) for k in range(skip + 2)) / 2**count
        assert wider > 0.05, f"{count}: a narrower one would do"


def test_noise_that_hits_both_alike_is_no_difference() -> None:
    random = np.random.default_rng(3)
    noise = np.exp(random.normal(0, 1, 15))
    found = compared(list(noise), list(noise * 1.1))
    assert found.low == pytest.approx(1.1)
    assert found.high == pytest.approx(1.1)


def test_noise_of_each_widens_the_interval() -> None:
    random = np.random.default_rng(4)
    found = compared(list(np.exp(random.normal(0, 1, 15))), list(np.exp(random.normal(0, 1, 15))))
    assert found.low < 1 < found.high


def test_who_comes_first_changes_by_turns() -> None:
    order: list[str] = []
    ticks = itertools.count(1)

    def timed(name: str) -> float:
        order.append(name)
        return float(next(ticks))

    in_turns(lambda: timed("old"), lambda: timed("new"), 4)
    assert order == ["old", "new", "new", "old"] * 2


def told(ratio: float, low: float, high: float, budget: float) -> list[Change]:
    found = budgets.Measured(ratio, low, high, 1.0, ratio)
    return list(budgets._told("load_time", found, budget, budgets._seconds))


def test_a_budget_is_overdrawn_only_when_that_is_shown() -> None:
    assert told(1.0, 0.9, 1.1, 1.2) == []
    assert told(1.1, 0.5, 9.0, 1.2) == []
    (maybe,) = told(1.5, 1.1, 2.0, 1.2)
    assert (maybe.kind, maybe.at, maybe.args["shown"]) == ("load-time-regressed", "budgets.load_time", False)
    (surely,) = told(1.5, 1.3, 2.0, 1.2)
    assert surely.args["shown"]
    assert (surely.args["before"], surely.args["after"]) == ("1e+03 ms", "1.5e+03 ms")


@pytest.fixture(scope="module")
def race(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Models, Race]]:
    """Three unit matrices against thirty-six."""
    folder = tmp_path_factory.mktemp("race")
    with Models() as models:
        sides = []
        for count in (3, 36):
            path = folder / f"{count}.onnx"
            path.write_bytes(pairs_limits._layers(count).SerializeToString())
            bundle = Bundle(path.stem, str(path), MemoryFolder({}), file=path)
            sides.append(models.open(path, bundle, prepack=False))
        yield models, Race(sides[0], sides[1], X, X)


@pytest.mark.parametrize("what", ["latency", "memory", "load_time", "size"])
def test_what_costs_ten_times_as_much_is_over_twice_the_budget(what: str, race: tuple[Models, Race]) -> None:
    (found,) = budgets.changes(*race, Budgets(**{what: 2.0}))
    assert found.kind == f"{what.replace('_', '-')}-regressed"
    assert found.args["shown"]
    assert found.args["low"] > 2


def test_what_is_cheaper_is_within_every_budget(race: tuple[Models, Race]) -> None:
    models, forth = race
    back = Race(forth.new, forth.old, X, X)
    assert list(budgets.changes(models, back, Budgets(1.0, 1.0, 1.0, 1.0))) == []


def test_without_a_budget_nothing_is_measured(race: tuple[Models, Race]) -> None:
    assert list(budgets.changes(*race, Budgets())) == []


def test_the_call_that_is_measured_is_one_that_both_answer(race: tuple[Models, Race]) -> None:
    _, both = race
    cases = [GoldenCase("wrong", {"x": X["x"][:1, :7]}, {}), GoldenCase("right", X, {})]
    found = budgets.race(both.old, both.new, cases, lambda inputs: inputs)
    assert found is not None
    assert found.old_inputs is X
    assert budgets.race(both.old, both.new, cases[:1], lambda inputs: inputs) is None


def test_files_are_where_they_were(race: tuple[Models, Race]) -> None:
    assert Path(race[1].old.path).exists()
