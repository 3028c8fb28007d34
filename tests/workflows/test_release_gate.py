"""The gate of ``release``: which version a change may become, what is refused, and that a refusal leaves no trace."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gitmodel.compat.verdict import Report, Verdict
from gitmodel.errors import ExitCode
from gitmodel.versions import Bump
from gitmodel.workflows import release, save
from gitmodel.workflows.release import GateRefused, VersionExists
from tests import support
from tests.compat import pairs
from tests.compat.pairs import scaled
from tests.workflows import state
from tests.workflows.state import judged

Save = Callable[..., None]
ONE, DRIFT, FLIPPED = scaled("1.0"), scaled("1.0625"), scaled("-1.0")
RENAMED = "(float[batch,4] image) => (float[batch,4] y) <float scale = {1.0}> { y = Mul(image, scale) }"
#: What may become of ``ONE``, by what it means.
CHANGES = {
    "same answers": "(float[batch,4] x) => (float[batch,4] y) { y = Identity(x) }",
    "noise": scaled("1.0001220703125"),
    "drift": DRIFT,
    "other answers": FLIPPED,
    "renamed": RENAMED,
}


@pytest.fixture
def put(repo: Path, tmp_path: Path) -> Save:
    """Saves and commits a model given as text, with or without fresh golden cases (recorded, or as ``y`` says)."""

    def put_(text: str, *, golden: bool = False, y: float | None = None) -> None:
        path, cases = tmp_path / "model.onnx", tmp_path / "cases.npz"
        path.write_bytes(pairs.model(text).SerializeToString())
        rows = np.array([[1, 2, 3, 4], [4, 3, 2, 1]], "float32")
        if y is None:
            np.savez(cases, x=rows)
        else:
            np.savez(cases, x=rows, y=rows * np.float32(y))
        save.save("fraud", [path], repo=repo, golden=cases if golden else None, message="Save")

    return put_


def tags(repo: Path) -> list[str]:
    return support.git(repo, "tag", "--list").split()


def refused(repo: Path, step: str = "auto") -> GateRefused:
    """The refusal of a release, after which everything must be as it was."""
    before = state.whole(repo)
    with pytest.raises(GateRefused) as raised:
        release.release("fraud", step, repo=repo)
    assert state.whole(repo) == before
    assert raised.value.exit_code == raised.value.report.exit_code != ExitCode.OK
    return raised.value


def refused_for_every_step(repo: Path) -> list[GateRefused]:
    return [refused(repo, step) for step in ("auto", "patch", "minor", "major", "7.0.0")]


# The first release ----------------------------------------------------------------------------------------------------


def test_the_first_release_is_1_0_0(repo: Path, put: Save) -> None:
    put(ONE, golden=True)
    done = release.release("fraud", repo=repo)
    assert (done.tag, tags(repo)) == ("fraud@v1.0.0", ["fraud@v1.0.0"])
    assert (judged(done).old, judged(done).verdict, judged(done).cases_run) == ("nothing", Verdict.COMPATIBLE, 2)
    assert judged(done).findings == ()
    assert done.commit == support.git(repo, "rev-parse", "fraud@v1.0.0^{commit}")


@pytest.mark.parametrize(
    ("step", "tag"), [("patch", "v1.0.0"), ("major", "v1.0.0"), ("0.3.0", "v0.3.0"), ("v2.0.0-rc.1",) * 2]
)
def test_the_first_release_may_be_given_its_version(repo: Path, put: Save, step: str, tag: str) -> None:
    put(ONE)
    assert release.release("fraud", step, repo=repo).tag == f"fraud@{tag}"


def test_a_first_release_without_golden_cases_says_so(repo: Path, put: Save) -> None:
    put(ONE)
    (finding,) = judged(release.release("fraud", repo=repo)).findings
    assert finding.rule == "goldens-missing"
    assert "generated" not in finding.message


def test_a_first_release_must_keep_its_own_golden_cases(repo: Path, put: Save) -> None:
    put(ONE, golden=True, y=3.0)
    for error in refused_for_every_step(repo):
        assert [finding.rule for finding in error.report.findings] == ["golden-self-failed"]
        assert error.exit_code is ExitCode.INCOMPATIBLE
    assert tags(repo) == []


def test_a_first_release_needs_its_weights(repo: Path, put: Save) -> None:
    put(ONE)
    shutil.rmtree(repo / ".dvc" / "cache")
    assert refused(repo).exit_code is ExitCode.INCOMPLETE


def test_a_first_release_of_a_checkpoint_has_nothing_to_run(repo: Path, tmp_path: Path) -> None:
    pairs.checkpoint(tmp_path / "weights.h5", {"kernel": np.ones((2, 3), "float32")})
    save.save("fraud", [tmp_path / "weights.h5"], repo=repo, message="Save")
    done = release.release("fraud", repo=repo)
    assert (done.tag, judged(done).cases_run, judged(done).verdict) == ("fraud@v1.0.0", 0, Verdict.COMPATIBLE)


# auto -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "tag", "verdict"),
    [
        ("same answers", "fraud@v1.0.1", "compatible"),
        ("noise", "fraud@v1.0.1", "compatible"),
        ("drift", "fraud@v1.1.0", "compatible"),
        ("other answers", "fraud@v2.0.0", "incompatible"),
        ("renamed", "fraud@v2.0.0", "incompatible"),
    ],
)
def test_auto_takes_the_bump_that_is_owed(repo: Path, put: Save, change: str, tag: str, verdict: str) -> None:
    put(ONE)
    release.release("fraud", repo=repo)
    put(CHANGES[change])
    done = release.release("fraud", repo=repo)
    assert (done.tag, str(judged(done).verdict)) == (tag, verdict)
    assert judged(done).declared is judged(done).required_bump
    assert tags(repo) == ["fraud@v1.0.0", tag]


def test_auto_counts_from_the_highest_version(repo: Path, put: Save) -> None:
    put(ONE)
    release.release("fraud", "9.9.9", repo=repo)
    put(CHANGES["noise"])
    assert release.release("fraud", repo=repo).tag == "fraud@v9.9.10"
    put(DRIFT)
    assert release.release("fraud", repo=repo).tag == "fraud@v9.10.0"


def test_other_figures_alone_owe_a_patch(repo: Path, put: Save, tmp_path: Path) -> None:
    put(ONE)
    release.release("fraud", repo=repo)
    save.save("fraud", [tmp_path / "model.onnx"], repo=repo, metrics={"accuracy": 0.9}, message="Measure")
    done = release.release("fraud", repo=repo)
    assert (done.tag, judged(done).required_bump) == ("fraud@v1.0.1", Bump.NONE)


# A step the author chose ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "step", "tag"),
    [
        ("noise", "patch", "v1.0.1"),
        ("noise", "minor", "v1.1.0"),
        ("drift", "minor", "v1.1.0"),
        ("drift", "major", "v2.0.0"),
        ("renamed", "major", "v2.0.0"),
        ("renamed", "2.0.0", "v2.0.0"),
        ("renamed", "v5.1.2", "v5.1.2"),
        ("renamed", "2.0.0-rc.1", "v2.0.0-rc.1"),
    ],
)
def test_a_step_that_is_large_enough_passes(repo: Path, put: Save, change: str, step: str, tag: str) -> None:
    put(ONE)
    release.release("fraud", repo=repo)
    put(CHANGES[change])
    assert release.release("fraud", step, repo=repo).tag == f"fraud@{tag}"


@pytest.mark.parametrize(
    ("change", "step", "owed"),
    [
        ("drift", "patch", "v1.1.0"),
        ("drift", "1.0.7", "v1.1.0"),
        ("renamed", "patch", "v2.0.0"),
        ("renamed", "minor", "v2.0.0"),
        ("renamed", "1.9.0", "v2.0.0"),
        ("other answers", "minor", "v2.0.0"),
    ],
)
def test_a_step_that_is_too_small_is_refused(repo: Path, put: Save, change: str, step: str, owed: str) -> None:
    put(ONE)
    release.release("fraud", repo=repo)
    put(CHANGES[change])
    error = refused(repo, step)
    assert (error.exit_code, tags(repo)) == (ExitCode.INCOMPATIBLE, ["fraud@v1.0.0"])
    assert "bump-too-small" in [finding.rule for finding in error.report.findings]
    assert owed in error.hint
    assert release.release("fraud", str(error.report.required_bump), repo=repo).tag == f"fraud@{owed}"


def test_the_report_is_told_before_the_tag_is_made(repo: Path, put: Save) -> None:
    put(ONE)
    release.release("fraud", repo=repo)
    put(RENAMED)
    told: list[tuple[Report, list[str]]] = []
    for step in ("patch", "major"):
        try:
            release.release("fraud", step, repo=repo, told=lambda report: told.append((report, tags(repo))))
        except GateRefused as error:
            assert error.report is told[0][0]
    assert [made for _, made in told] == [["fraud@v1.0.0"], ["fraud@v1.0.0"]]
    assert [int(report.exit_code) for report, _ in told] == [1, 0]


def test_the_tag_carries_the_verdict(repo: Path, put: Save) -> None:
    put(ONE, golden=True)
    release.release("fraud", repo=repo)
    put(DRIFT, golden=True)
    release.release("fraud", repo=repo, message="A retrained model.\n\nVerdict: from a person")
    message = support.git(repo, "for-each-ref", "--format=%(contents)", "refs/tags/fraud@v1.1.0")
    assert message.startswith("fraud v1.1.0\n\nA retrained model.")
    trailers = support.git(repo, "for-each-ref", "--format=%(contents:trailers)", "refs/tags/fraud@v1.1.0")
    fields = dict(line.split(": ", 1) for line in trailers.splitlines() if line)
    assert fields.pop("Weights").startswith("sha256:")
    assert fields == {
        "Gitmodel-Schema": "1",
        "Model": "fraud",
        "Version": "v1.1.0",
        "Verdict": "compatible",
        "Required-Bump": "minor",
        "Cases-Run": "2",
        "Base": "v1.0.0",
    }


# What no step pays for ------------------------------------------------------------------------------------------------


def test_golden_cases_that_fail_are_refused_for_every_step(repo: Path, put: Save) -> None:
    put(ONE, golden=True)
    release.release("fraud", repo=repo)
    put(DRIFT)
    for error in refused_for_every_step(repo):
        assert error.exit_code is ExitCode.INCOMPATIBLE
        assert "no version number pays for this" in error.hint


def test_golden_cases_that_fail_are_refused_though_the_weights_are_the_same(repo: Path, put: Save) -> None:
    put(ONE, golden=True)
    release.release("fraud", repo=repo)
    put(ONE, golden=True, y=3.0)
    for error in refused_for_every_step(repo):
        assert "golden-self-failed" in [finding.rule for finding in error.report.findings]


def test_a_signature_edited_by_hand_is_refused_for_every_step(repo: Path, put: Save) -> None:
    put(ONE)
    release.release("fraud", repo=repo)
    signature = repo / "models" / "fraud" / "signature.yaml"
    signature.write_text(signature.read_text().replace("name: x", "name: features"))
    support.git(repo, "commit", "-qam", "Edit the signature")
    for error in refused_for_every_step(repo):
        assert "signature-stale" in [finding.rule for finding in error.report.findings]


def test_what_cannot_be_judged_is_refused_for_every_step(repo: Path, put: Save) -> None:
    put(ONE)
    release.release("fraud", repo=repo)
    put(DRIFT)
    shutil.rmtree(repo / ".dvc" / "cache")
    for error in refused_for_every_step(repo):
        assert (error.report.verdict, error.exit_code) == (Verdict.UNJUDGED, ExitCode.INCOMPLETE)
        assert "what cannot be judged is not released" in error.hint


def test_loosened_gates_do_not_help(repo: Path, put: Save) -> None:
    put(ONE, golden=True)
    release.release("fraud", repo=repo)
    put(FLIPPED)
    card = repo / "models" / "fraud" / "model.yaml"
    card.write_text(card.read_text() + 'gates:\n  tolerance:\n    "*": {atol: 1000.0}\n  agreement: 0\n')
    support.git(repo, "commit", "-qam", "Loosen")
    error = refused(repo, "minor")
    assert error.report.required_bump is Bump.MAJOR
    assert {"golden-failed", "gates-changed"} <= {finding.rule for finding in error.report.findings}


def test_a_stale_signature_of_the_last_version_does_not_lock_the_next_out(repo: Path, put: Save) -> None:
    put(ONE)
    signature = repo / "models" / "fraud" / "signature.yaml"
    signature.write_text(signature.read_text().replace("name: y", "name: scores"))
    support.git(repo, "commit", "-qam", "Edit the signature")
    pairs.tag(repo, "fraud@v1.0.0")
    put(DRIFT)
    assert release.release("fraud", "major", repo=repo).tag == "fraud@v2.0.0"


# Versions that stand apart --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["auto", "major", "1.0.0"])
def test_a_pre_release_is_finished_by_its_own_version(repo: Path, put: Save, step: str) -> None:
    put(ONE)
    release.release("fraud", "1.0.0-rc.1", repo=repo)
    put(RENAMED)
    assert release.release("fraud", step, repo=repo).tag == "fraud@v1.0.0"


def test_a_break_does_not_fit_between_two_pre_releases_of_a_minor_version(repo: Path, put: Save) -> None:
    put(ONE)
    release.release("fraud", "1.1.0-rc.1", repo=repo)
    put(RENAMED)
    refused(repo, "1.1.0")
    assert release.release("fraud", repo=repo).tag == "fraud@v2.0.0"


def test_a_pre_release_is_no_base_once_there_is_a_version(repo: Path, put: Save) -> None:
    put(ONE)
    release.release("fraud", "1.0.0", repo=repo)
    put(RENAMED)
    release.release("fraud", "2.0.0-rc.1", repo=repo)
    put(FLIPPED)
    done = release.release("fraud", repo=repo)
    assert str(judged(done).base) == "v1.0.0"


def test_the_number_of_a_withdrawn_version_is_not_given_again(repo: Path, put: Save) -> None:
    put(ONE)
    release.release("fraud", repo=repo)
    put(DRIFT)
    release.release("fraud", repo=repo)
    support.git(repo, "tag", "-a", "-m", "Withdrawn", "fraud@v1.1.0!", "fraud@v1.1.0^{}")
    put(scaled("1.03125"))
    with pytest.raises(VersionExists):
        release.release("fraud", "1.1.0", repo=repo)
    done = release.release("fraud", repo=repo)
    assert str(judged(done).base) == "v1.0.0"
    assert done.tag not in ("fraud@v1.0.0", "fraud@v1.1.0")
    assert judged(done).exit_code is ExitCode.OK


# The command ----------------------------------------------------------------------------------------------------------


def test_the_command_refuses_with_the_verdict_the_mend_and_exit_code_1(repo: Path, put: Save) -> None:
    put(ONE)
    release.release("fraud", repo=repo)
    put(RENAMED)
    done = support.gitmodel("release", "fraud", "minor", cwd=repo)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("INCOMPATIBLE  fraud@v1.0.0 -> fraud")
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error[gate-refused]: fraud@v1.1.0 is refused: ")
    assert "gitmodel release fraud major" in last
    assert tags(repo) == ["fraud@v1.0.0"]
    again = support.gitmodel("release", "fraud", "major", cwd=repo)
    assert (again.returncode, again.stdout.strip()) == (0, "fraud@v2.0.0")
