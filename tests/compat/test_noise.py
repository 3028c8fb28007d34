"""The noise floor of real models in ONNX Runtime, what it allows, and equal runs that differ."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from gitmodel import runtime
from gitmodel.bundle.card import Gates
from gitmodel.bundle.golden import GoldenCase
from gitmodel.bundle.signature import Signature, TensorSpec
from gitmodel.compat import behaviour, noise
from gitmodel.compat.drift import FLOORS, Gauge, OutputDrift
from gitmodel.compat.noise import Floor, Noise, calibrate, settled, unsteady, worst_cases
from gitmodel.compat.replay import calibrated, replay
from gitmodel.compat.side_by_side import Runs
from tests.compat import pairs
from tests.compat.conftest import signature
from tests.compat.pairs import scaled
from tests.compat.pairs_noise import CROWDED, RANDOM

#: Each further row adds 2^-10 of the output to itself.
STEP = 2**-10


def cases(*rows: int) -> list[GoldenCase]:
    return [GoldenCase(f"cases/{i}", {"x": np.full((count, 4), i + 1, "float32")}, {}) for i, count in enumerate(rows)]


class Opener:
    """Opens one model over and over, and remembers how."""

    def __init__(self, path: Path, text: str) -> None:
        path.write_bytes(pairs.model(text).SerializeToString())
        self.path, self.signature, self.asked = path, signature(text), list[tuple[bool, int]]()
        self.usual = runtime.open_session(path)

    @contextlib.contextmanager
    def reopened(self, optimised: bool, threads: int) -> Iterator[Runs]:
        self.asked.append((optimised, threads))
        yield runtime.open_session(self.path, threads=threads, optimise=optimised)

    def floors(self, given: list[GoldenCase]) -> tuple[Floor, ...]:
        return calibrate(self.reopened, self.usual, given, self.signature, 2)


@pytest.fixture
def crowded(tmp_path: Path) -> Opener:
    return Opener(tmp_path / "crowded.onnx", CROWDED.format(step=STEP))


def test_a_steady_model_has_no_floor(tmp_path: Path) -> None:
    opener = Opener(tmp_path / "steady.onnx", scaled("3.0"))
    assert opener.floors(cases(1, 3, 1)) == ()
    assert opener.asked == [(True, 1), (True, 2), (False, 1), (False, 2)]


def test_rows_one_by_one_and_together_show_what_the_batch_does(crowded: Opener) -> None:
    (floor,) = crowded.floors(cases(1, 1, 1))
    # Three cases are repeated to nine rows; alone each was scaled by 1 + STEP.
    assert floor.relative == pytest.approx(8 * STEP / (1 + STEP), rel=1e-3)
    assert floor.absolute == pytest.approx(3 * 8 * STEP, rel=1e-3)
    assert floor.setting.startswith("batch 8 or more, 1 thread")
    (alone,) = crowded.floors(cases(9))
    assert alone.relative == pytest.approx(8 * STEP / (1 + 9 * STEP), rel=1e-3)
    assert alone.setting.startswith("batch 1")


def test_a_model_without_rows_is_run_as_it_is(tmp_path: Path) -> None:
    opener = Opener(tmp_path / "fixed.onnx", "(float[4] x) => (float[4] y) { y = Neg(x) }")
    assert opener.floors([GoldenCase("cases/0", {"x": np.ones(4, "float32")}, {})]) == ()


def test_cases_of_several_widths_are_not_joined(tmp_path: Path) -> None:
    text = CROWDED.format(step=STEP).replace("batch,4", "batch,width")
    given = [GoldenCase(f"cases/{w}", {"x": np.ones((1, w), "float32")}, {}) for w in (2, 3)]
    (floor,) = Opener(tmp_path / "wide.onnx", text).floors(given)
    assert floor.relative == pytest.approx(7 * STEP / (1 + STEP), rel=1e-3)


def test_what_the_model_refuses_says_nothing(tmp_path: Path) -> None:
    text = "(int64[n] i) => (float[n] y) <float[4] table = {0, 1, 2, 3}> { y = Gather(table, i) }"
    given = [GoldenCase(f"cases/{i}", {"i": np.array([i])}, {}) for i in (1, 9)]
    assert Opener(tmp_path / "table.onnx", text).floors(given) == ()


@pytest.mark.realdata
def test_a_real_model_differs_between_batch_sizes_by_what_its_publisher_saw(real_data: Path) -> None:
    folder = real_data / "magika" / "standard_v3_3"
    with np.load(folder / "reference.npz") as published:
        given = [GoldenCase(f"reference/{i}", {"bytes": row[None]}, {}) for i, row in enumerate(published["bytes"])]
    session = runtime.open_session(folder / "model.onnx")
    sig = Signature((TensorSpec("bytes", "int32", ("n", 2048)),), (TensorSpec("target_label", "float32", ("n", 214)),))

    @contextlib.contextmanager
    def reopened(optimised: bool, threads: int) -> Iterator[Runs]:
        yield (
            session
            if optimised and threads == 1
            else runtime.open_session(folder / "model.onnx", threads=threads, optimise=optimised)
        )

    (floor,) = calibrate(reopened, session, given, sig, 2)
    assert 4e-3 < floor.absolute < 6e-3
    assert floor.setting.startswith("batch 8 or more")


# What a floor allows --------------------------------------------------------------------------------------------------


def drift(old: float, new: float, gates: Gates | None = None) -> OutputDrift:
    gauge = Gauge(TensorSpec("y", "float32", None), gates or Gates())
    gauge.take("cases/0", np.array([old, old / 2], "float32"), np.array([new, old / 2], "float32"))
    return gauge.drift()


def noisy(relative: float) -> Noise:
    return Noise("measured", (Floor("y", relative * 8, relative, "batch 1"),))


def test_what_old_differs_from_itself_by_is_no_difference_of_new() -> None:
    (shown,) = settled([drift(8.0, 8.012)], noisy(0.0009))
    assert (shown.within, shown.noise) == (False, True)
    assert shown.floor == pytest.approx(0.0072)
    (other,) = settled([drift(8.0, 8.012)], noisy(0.0007))
    assert not other.noise


def test_a_large_floor_counts_only_as_far_as_the_tolerance_goes() -> None:
    (shown,) = settled([drift(8.0, 8.1)], noisy(0.5))
    assert shown.floor_share == pytest.approx(1e-3 + 1e-5 / 8)
    assert shown.floor == pytest.approx(8e-3 + 1e-5)
    assert not shown.noise, "noise does not hide drift"


def test_the_floor_of_another_output_says_nothing() -> None:
    assert settled([drift(1.0, 2.0)], Noise("", (Floor("z", 1.0, 1.0, ""),))) == (drift(1.0, 2.0),)


def test_a_floor_is_asked_for_where_it_could_turn_the_verdict() -> None:
    allowed = 8 * FLOORS * 1e-3
    assert not noise.matters([drift(8.0, 8.001)])
    assert noise.matters([drift(8.0, 8.0 + 0.9 * allowed)])
    assert not noise.matters([drift(8.0, 8.0 + 1.1 * allowed)])
    assert not noise.matters([drift(0.0, 1.0)])


def test_the_cases_that_differ_most_are_run_again() -> None:
    gauges = [Gauge(TensorSpec(name, "float32", None), Gates()) for name in "yz"]
    given = [GoldenCase(f"cases/{i}", {}, {}) for i in range(6)]
    for case, y, z in zip(given, (0, 1, 0, 3, 0, 2), (0, 0, 9, 0, 0, 0), strict=True):
        for gauge, size in zip(gauges, (y, z), strict=True):
            gauge.take(case.name, np.zeros(1, "float32"), np.array([size], "float32"))
    drifts = [gauge.drift() for gauge in gauges]
    assert [case.name for case in worst_cases(iter(given), drifts, 3)] == ["cases/2", "cases/3", "cases/5"]
    assert len(worst_cases(given, drifts)) == 4


# Equal runs -----------------------------------------------------------------------------------------------------------


def test_equal_runs_that_differ_are_told(tmp_path: Path) -> None:
    chance = Opener(tmp_path / "chance.onnx", RANDOM)
    (found,) = unsteady("NEW", chance.usual, cases(1, 1), dict)
    assert (found.side, found.name, found.case) == ("NEW", "y", "cases/0")
    assert 0 < found.max_abs < 2**-7
    assert list(unsteady("OLD", Opener(tmp_path / "calm.onnx", scaled("1.0")).usual, cases(1, 1), dict)) == []


def test_a_case_that_is_refused_is_not_unsteady(tmp_path: Path) -> None:
    calm = Opener(tmp_path / "calm.onnx", scaled("1.0"))
    assert list(unsteady("OLD", calm.usual, [GoldenCase("c", {"z": np.ones(1)}, {})], dict)) == []


def test_the_facts_about_noise_name_the_side_and_the_setting(tmp_path: Path, crowded: Opener) -> None:
    given = cases(1, 1)
    other = Opener(tmp_path / "other.onnx", CROWDED.format(step=2**-8))
    shown = replay(crowded.usual, other.usual, given, crowded.signature, Gates())
    measured = Noise("measured", crowded.floors(given), tuple(unsteady("OLD", crowded.usual, given, dict)))
    kinds = [change.kind for change in behaviour.changes(calibrated(shown, measured), Gates())]
    assert kinds == ["golden-drift", "batch-variance"]
    loose = Gates(tolerance={"y": (1e-3, 0.1)})
    shown = replay(crowded.usual, other.usual, given, crowded.signature, loose)
    assert [c.kind for c in behaviour.changes(calibrated(shown, measured), loose)] == ["golden-numeric-noise"]
