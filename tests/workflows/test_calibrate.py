"""When noise is measured: wherever it costs little, and of a large model where it could turn the verdict."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from gitmodel.compat.trusted import OwnModels
from gitmodel.compat.verdict import Report, Verdict
from gitmodel.workflows import calibrate, check
from tests.compat import pairs
from tests.compat.pairs import scaled
from tests.compat.pairs_noise import CROWDED

#: Both grow with the number of rows; one by a hair, one by more than any tolerance.
HAIR, MUCH = CROWDED.format(step=2**-17), CROWDED.format(step=2**-10)


def judged(folder: Path, old: str, new: str) -> Report:
    pairs.files(folder, old, new)
    old_file, new_file = str(folder / "old.onnx"), str(folder / "new.onnx")
    return check.check_compat(
        old_file, new_file, repo=folder, models=OwnModels()
    )  # in this process, where it can be watched


def rules_of(report: Report) -> set[str]:
    return {finding.rule for finding in report.findings} - {"goldens-missing"}


def scale(text: str, by: float) -> str:
    """The same model, its output multiplied."""
    return text.replace("one = {1.0}", f"one = {{{1 + by}}}")


def test_nothing_is_measured_where_nothing_differs(tmp_path: Path) -> None:
    report = judged(tmp_path, scaled("-1.0"), "(float[batch,4] x) => (float[batch,4] y) { y = Neg(x) }")
    assert report.noise == ""


def test_a_small_model_is_always_measured(tmp_path: Path) -> None:
    report = judged(tmp_path, scaled("1.0"), scaled("-1.0"))
    assert report.noise.startswith("noise floor of OLD measured on 4 cases")
    assert report.drifts[0].floor == 0.0


def test_a_floor_near_the_tolerance_turns_drift_into_noise(tmp_path: Path) -> None:
    """OLD differs from itself by about 7 steps of 2^-13; NEW by 1.5 per mille, which is beyond the tolerance of one."""
    noisy = CROWDED.format(step=2**-13)
    assert rules_of(judged(tmp_path, scaled("1.0"), scaled("1.0015"))) == {"golden-drift"}
    report = judged(tmp_path, noisy, scale(noisy, 0.0015))
    assert rules_of(report) == {"golden-numeric-noise"}
    (noise,) = [finding for finding in report.findings if finding.rule == "golden-numeric-noise"]
    assert "hardly more than OLD does from itself" in noise.message
    assert 0 < report.drifts[0].floor_share < 1e-3


def test_a_floor_above_the_tolerance_is_told_and_does_not_hide_drift(tmp_path: Path) -> None:
    report = judged(tmp_path, MUCH, scale(MUCH, 0.004))
    assert rules_of(report) == {"golden-drift", "batch-variance"}
    assert report.verdict is Verdict.COMPATIBLE


@pytest.fixture
def large(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every model counts as a large one."""
    monkeypatch.setattr(calibrate, "SMALL", 0)


@pytest.mark.usefixtures("large")
def test_a_large_model_is_not_measured_on_cases_that_were_drawn(tmp_path: Path) -> None:
    for factor in ("1.0015", "-1.0"):
        report = judged(tmp_path, scaled("1.0"), scaled(factor))
        assert report.noise == "no noise was measured: the model is large, and its cases are drawn"


@pytest.mark.usefixtures("large")
@pytest.mark.parametrize(
    ("factor", "said"),
    [("-1.0", "equal runs compared; no noise floor was measured"), ("1.0015", "noise floor of OLD measured")],
)
def test_recorded_cases_of_a_large_model_are_measured_where_that_could_turn_the_verdict(
    tmp_path: Path, repo: Path, factor: str, said: str
) -> None:
    from gitmodel.workflows import save

    for text, version in ((scaled("1.0"), "v1.0.0"), (scaled(factor), "v2.0.0")):
        (tmp_path / "given.onnx").write_bytes(pairs.model(text).SerializeToString())
        golden = pairs.cases(tmp_path, [[1, 2, 3, 4]])
        save.save("fraud", [tmp_path / "given.onnx"], repo=repo, golden=golden, message="Save")
        pairs.tag(repo, f"fraud@{version}")
    report = check.check_compat("fraud@v1.0.0", "fraud@v2.0.0", repo=repo)
    assert report.noise.startswith(said)


def test_a_runtime_that_will_not_open_it_otherwise_measures_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gitmodel import runtime

    usual = runtime.open_session

    def only_optimised(path: Path, *, optimise: bool = True, **options: object) -> runtime.Session:
        if not optimise:
            raise runtime.LoadFailed("it needs its optimisations", hint="none")
        return usual(path, **options)  # type: ignore[arg-type]  # passed on

    monkeypatch.setattr(runtime, "open_session", only_optimised)
    report = judged(tmp_path, scaled("1.0"), scaled("1.0625"))
    assert report.noise == "no noise floor was measured: it needs its optimisations: none"
    assert rules_of(report) == {"golden-drift"}


def test_the_other_number_of_threads_is_that_of_the_machine_within_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    for count, expected in ((None, 2), (1, 2), (4, 4), (64, 8)):
        monkeypatch.setattr("os.cpu_count", lambda count=count: count)
        assert calibrate.threads() == expected


@pytest.mark.realdata
def test_a_real_retrained_model_keeps_its_verdict_and_its_noise_is_told(real_data: Path) -> None:
    folder = real_data / "magika"
    report = check.check_compat(
        str(folder / "standard_v3_0" / "model.onnx"), str(folder / "standard_v3_3" / "model.onnx"), repo=folder
    )
    assert "golden-failed" in rules_of(report)
    (drift,) = report.drifts
    assert drift.kl is not None
    assert drift.flipped > 0
    assert drift.flips[0].margin >= drift.flips[-1].margin > 0
    assert replace(drift, floor=0.0).tolerance == (1e-3, 1e-5)
