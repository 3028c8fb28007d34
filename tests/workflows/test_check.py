"""``check-compat`` as a workflow: which sides are judged, what is run on them, and what never passes."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from gitmodel import runtime
from gitmodel.compat.drift import Gauge
from gitmodel.compat.rules import Finding, Severity
from gitmodel.compat.verdict import Report, Verdict
from gitmodel.errors import ExitCode
from gitmodel.git import UnknownRevision
from gitmodel.registry import UnknownModel, UnknownVersion
from gitmodel.versions import Bump
from gitmodel.workflows import check, release, save
from tests import support
from tests.compat import pairs
from tests.compat.pairs import scaled
from tests.workflows import state

Save = Callable[..., None]
ONE, MORE, FLIPPED = scaled("1.0"), scaled("1.0625"), scaled("-1.0")
RENAMED = "(float[batch,4] image) => (float[batch,4] y) <float scale = {1.0}> { y = Mul(image, scale) }"
ROWS = [[1.0, 2.0, 3.0, 4.0], [4.0, 3.0, 2.0, 1.0], [0.0, 9.0, 0.0, 0.0]]


@pytest.fixture
def put(repo: Path, tmp_path: Path) -> Save:
    """Saves and commits a model given as text: ``put(ONE, golden=True)``; the golden cases are three rows."""

    def put_(text: str | onnx.ModelProto, name: str = "fraud", *, golden: bool = False, commit: bool = True) -> None:
        path = tmp_path / f"{name}.onnx"
        path.write_bytes(pairs.model(text).SerializeToString())
        cases = pairs.cases(tmp_path, ROWS) if golden else None
        save.save(name, [path], repo=repo, golden=cases, message="Save" if commit else "")

    return put_


def rules_of(report: Report) -> set[str]:
    return {finding.rule for finding in report.findings}


def the(report: Report, rule: str) -> Finding:
    (found,) = [finding for finding in report.findings if finding.rule == rule]
    return found


def files(folder: Path, old: str | onnx.ModelProto, new: str | onnx.ModelProto, *, profile: str = "named") -> Report:
    """The report on two bare files, outside any repository."""
    pairs.files(folder, old, new)
    return check.check_compat(str(folder / "old.onnx"), str(folder / "new.onnx"), repo=folder, profile=profile)


# Which sides ----------------------------------------------------------------------------------------------------------


def test_two_files_need_no_repository(tmp_path: Path) -> None:
    report = files(tmp_path, ONE, RENAMED)
    assert (report.model, report.old, report.new) == ("new", f"{tmp_path}/old.onnx", f"{tmp_path}/new.onnx")
    assert (report.verdict, report.required_bump, report.exit_code) == (Verdict.INCOMPATIBLE, Bump.MAJOR, 1)
    assert (report.base, report.declared) == (None, None)


def test_two_versions_the_working_tree_a_revision_and_a_stage(repo: Path, put: Save) -> None:
    put(ONE)
    release.release("fraud", repo=repo)
    release.promote("fraud@v1.0.0", "prod", repo=repo)
    put(MORE)
    release.release("fraud", repo=repo)
    put(FLIPPED, commit=False)
    for old, new, expected in (
        ("fraud@v1.0.0", "fraud@v1.1.0", "golden-drift"),
        ("fraud@1.0", "fraud@latest", "golden-drift"),
        ("fraud#prod", "fraud@HEAD", "golden-drift"),
        ("fraud@HEAD~1", "fraud@v1.1.0", "golden-drift"),
        ("fraud@v1.0.0", "fraud", "golden-failed"),
        ("fraud#prod", "fraud", "golden-failed"),
    ):
        assert expected in rules_of(check.check_compat(old, new, repo=repo)), (old, new)


def test_a_version_against_a_file_and_a_folder(repo: Path, put: Save, tmp_path: Path) -> None:
    put(ONE)
    release.release("fraud", repo=repo)
    pairs.files(tmp_path, MORE, FLIPPED)
    report = check.check_compat("fraud@v1.0.0", str(tmp_path / "new.onnx"), repo=repo)
    assert (report.model, report.verdict) == ("new", Verdict.INCOMPATIBLE)
    folder = str(repo / "models" / "fraud")
    assert check.check_compat(str(tmp_path / "old.onnx"), folder, repo=repo).verdict is Verdict.COMPATIBLE


@pytest.mark.parametrize(
    ("old", "new", "error"),
    [
        ("nothing", "fraud", UnknownModel),
        ("fraud@v9.9.9", "fraud", UnknownVersion),
        ("fraud#prod", "fraud", UnknownVersion),
        ("fraud@no-such-branch", "fraud", UnknownRevision),
    ],
)
def test_a_mistake_in_a_reference_is_the_users_to_mend(
    repo: Path, put: Save, old: str, new: str, error: type[Exception]
) -> None:
    put(ONE)
    with pytest.raises(error) as raised:
        check.check_compat(old, new, repo=repo)
    assert getattr(raised.value, "exit_code", None) is ExitCode.USAGE


def test_a_name_means_nothing_outside_a_repository(tmp_path: Path) -> None:
    with pytest.raises(UnknownModel, match="no model file"):
        check.check_compat("fraud@v1.0.0", "fraud", repo=tmp_path)


def test_a_check_leaves_everything_as_it_was(repo: Path, put: Save) -> None:
    put(ONE, golden=True)
    release.release("fraud", repo=repo)
    put(FLIPPED)
    before = state.whole(repo)
    check.check_compat("fraud@v1.0.0", "fraud", repo=repo)
    check.check_changed(repo)
    assert state.whole(repo) == before
    assert not list((repo / ".git").rglob("staged-*"))


@pytest.mark.parametrize("ending", ["onnx", "h5"])
def test_a_file_can_be_written_again_right_after_a_check(ending: str, tmp_path: Path) -> None:
    kernel = np.arange(6, dtype="float32").reshape(2, 3)
    paths = [str(tmp_path / f"{side}.{ending}") for side in ("old", "new")]
    for factor, expected in ((1, Bump.NONE), (2, Bump.PATCH)):
        if ending == "h5":
            pairs.checkpoints(tmp_path, {"kernel": kernel}, {"kernel": kernel * factor})
        else:
            pairs.files(tmp_path, ONE, ONE if factor == 1 else scaled("1.0001220703125"))
        assert check.check_compat(paths[0], paths[1], repo=tmp_path).required_bump is expected


# Every changed model --------------------------------------------------------------------------------------------------


def test_without_any_model_there_is_nothing_to_compare(repo: Path) -> None:
    with pytest.raises(check.NothingToCompare, match="no model here"):
        check.check_changed(repo)


def test_models_that_did_not_change_are_left_out(repo: Path, put: Save) -> None:
    for name in ("fraud", "spam", "churn"):
        put(ONE, name)
        release.release(name, repo=repo)
    assert check.check_changed(repo) == []
    put(MORE, "spam")
    put(RENAMED, "churn", commit=False)
    reports = check.check_changed(repo)
    assert [(report.model, report.old, report.new) for report in reports] == [
        ("churn", "churn@v1.0.0", "churn"),
        ("spam", "spam@v1.0.0", "spam"),
    ]
    assert [report.verdict for report in reports] == [Verdict.INCOMPATIBLE, Verdict.COMPATIBLE]


def test_a_model_without_a_release_is_judged_by_itself(repo: Path, put: Save, tmp_path: Path) -> None:
    put(ONE)
    release.release("fraud", repo=repo)
    put(ONE, "spam", golden=True)
    (report,) = check.check_changed(repo)
    assert (report.old, report.new, report.verdict, report.cases_run) == ("nothing", "spam", Verdict.COMPATIBLE, 3)
    lying = tmp_path / "lying.npz"
    np.savez(lying, x=np.ones((2, 4), "float32"), y=np.zeros((2, 4), "float32"))
    save.save("spam", [tmp_path / "spam.onnx"], repo=repo, golden=lying)
    (report,) = check.check_changed(repo)
    assert (rules_of(report), report.exit_code) == ({"golden-self-failed"}, ExitCode.INCOMPATIBLE)


def test_a_file_git_does_not_know_yet_is_a_change(repo: Path, put: Save) -> None:
    put(ONE)
    release.release("fraud", repo=repo)
    (repo / "models" / "fraud" / "assets").mkdir()
    (repo / "models" / "fraud" / "assets" / "notes.txt").write_text("new")
    assert [report.model for report in check.check_changed(repo)] == ["fraud"]


def test_a_change_put_back_is_none(repo: Path, put: Save) -> None:
    put(ONE)
    release.release("fraud", repo=repo)
    put(MORE)
    put(ONE)
    assert check.check_changed(repo) == []


def test_against_a_revision(repo: Path, put: Save) -> None:
    put(ONE)
    support.git(repo, "branch", "base")
    put(RENAMED)
    (report,) = check.check_changed(repo, against="base")
    assert (report.old, report.new, report.verdict) == ("fraud@base", "fraud@HEAD", Verdict.INCOMPATIBLE)
    assert check.check_changed(repo, against="HEAD") == []
    with pytest.raises(UnknownRevision):
        check.check_changed(repo, against="no-such-branch")


def test_a_model_that_was_not_there_at_the_revision_is_judged_by_itself(repo: Path, put: Save) -> None:
    support.git(repo, "tag", "start")
    put(ONE)
    (report,) = check.check_changed(repo, against="start")
    assert (report.old, report.new, report.exit_code) == ("nothing", "fraud@HEAD", ExitCode.OK)


def test_a_model_that_is_gone_is_a_break(repo: Path, put: Save) -> None:
    put(ONE)
    release.release("fraud", repo=repo)
    shutil.rmtree(repo / "models" / "fraud")
    (report,) = check.check_changed(repo)
    assert (report.model, report.old, report.exit_code) == ("fraud", "fraud@v1.0.0", ExitCode.INCOMPATIBLE)
    assert rules_of(report) == {"model-removed"}


# Declared bumps -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("tag", "declared", "verdict", "code"),
    [
        ("fraud@v1.0.1", Bump.PATCH, Verdict.INCOMPATIBLE, 1),
        ("fraud@v1.1.0", Bump.MINOR, Verdict.INCOMPATIBLE, 1),
        ("fraud@v2.0.0", Bump.MAJOR, Verdict.INCOMPATIBLE, 0),
        ("fraud@v3.1.0", Bump.MAJOR, Verdict.INCOMPATIBLE, 0),
        ("fraud@v2.0.0-rc.1", Bump.MAJOR, Verdict.INCOMPATIBLE, 0),
    ],
)
def test_a_tag_declares_a_bump_that_must_be_large_enough(
    repo: Path, put: Save, tag: str, declared: Bump, verdict: Verdict, code: int
) -> None:
    put(ONE)
    release.release("fraud", repo=repo)
    put(RENAMED)
    pairs.tag(repo, tag)
    report = check.check_compat("fraud@v1.0.0", tag, repo=repo)
    assert (report.declared, report.verdict, report.exit_code) == (declared, verdict, code)
    assert ("bump-too-small" in rules_of(report)) is (code == 1)
    assert str(report.base) == "v1.0.0"


def test_a_bump_that_is_larger_than_owed_passes(repo: Path, put: Save) -> None:
    put(ONE)
    release.release("fraud", repo=repo)
    put(MORE)
    pairs.tag(repo, "fraud@v2.0.0")
    report = check.check_compat("fraud@v1.0.0", "fraud@v2.0.0", repo=repo)
    assert (report.verdict, report.declared, report.exit_code) == (Verdict.COMPATIBLE, Bump.MAJOR, 0)


def test_going_back_declares_nothing(repo: Path, put: Save) -> None:
    put(ONE)
    release.release("fraud", repo=repo)
    put(MORE)
    release.release("fraud", repo=repo)
    report = check.check_compat("fraud@v1.1.0", "fraud@v1.0.0", repo=repo)
    assert (report.declared, report.verdict, report.exit_code) == (None, Verdict.COMPATIBLE, 0)
    assert "bump-too-small" not in rules_of(report)


def test_versions_of_two_models_declare_nothing(repo: Path, put: Save) -> None:
    put(ONE)
    release.release("fraud", repo=repo)
    put(MORE, "spam")
    pairs.tag(repo, "spam@v1.0.1")
    assert check.check_compat("fraud@v1.0.0", "spam@v1.0.1", repo=repo).declared is None


# Witnesses ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rule", ["input-renamed", "input-removed", "input-dim-changed", "input-dtype-changed", "output-removed"]
)
def test_a_witness_is_what_the_runtime_itself_says(rule: str, tmp_path: Path) -> None:
    pairs.PAIRS[rule](tmp_path)
    old, new = (runtime.open_session(tmp_path / f"{side}.onnx") for side in ("old", "new"))
    report = check.check_compat(str(tmp_path / "old.onnx"), str(tmp_path / "new.onnx"), repo=tmp_path)
    shapes = {"x": (1, 4), "age": (1, 1)}
    inputs = {name: np.zeros(shapes[name], "float32") for name in old.input_names}
    with pytest.raises(runtime.RunFailed) as raised:
        new.run(inputs, list(old.output_names))
    assert the(report, rule).witness == f"case generated/0: {raised.value}"


def test_the_recorded_cases_are_the_first_to_bear_witness(repo: Path, put: Save) -> None:
    put(ONE, golden=True)
    release.release("fraud", repo=repo)
    put(RENAMED)
    found = the(check.check_compat("fraud@v1.0.0", "fraud", repo=repo), "input-renamed")
    assert found.witness.startswith("case cases/0: ")
    assert "image" in found.witness


def test_cases_are_tried_until_one_bears_witness(tmp_path: Path) -> None:
    fixed = the(files(tmp_path, ONE, ONE.replace("batch", "1")), "input-dim-fixed")
    assert "Got: 3 Expected: 1" in fixed.witness


def test_a_case_that_old_refuses_too_bears_no_witness(tmp_path: Path) -> None:
    picky = "(float[batch,4] %s) => (float[3,4] y) <int64[2] three = {3, 4}> { y = Reshape(%s, three) }"
    found = the(files(tmp_path, picky % ("x", "x"), picky % ("image", "image")), "input-renamed")
    assert found.witness.startswith("case generated/1: ")
    assert "['image']" in found.witness


def test_what_the_runtime_does_not_refuse_has_no_witness(repo: Path, tmp_path: Path, put: Save) -> None:
    labels = tmp_path / "labels.txt"
    for text, lines in ((ONE, "cat\ndog\nowl\npig\n"), (RENAMED, "cat\ndog\nowl\n")):
        labels.write_text(lines)
        put(text)
        save.save("fraud", [tmp_path / "fraud.onnx"], repo=repo, labels=labels, message="Labels")
        pairs.tag(repo, "fraud@v1.0.0" if text is ONE else "fraud@v2.0.0")
    report = check.check_compat("fraud@v1.0.0", "fraud@v2.0.0", repo=repo)
    assert the(report, "input-renamed").witness
    assert the(report, "label-removed").witness == ""


# What never passes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("side", ["old", "new"])
def test_a_model_that_does_not_load_is_not_judged(tmp_path: Path, side: str) -> None:
    broken = pairs.model(ONE)
    broken.ir_version = 99
    report = files(tmp_path, *((broken, ONE) if side == "old" else (ONE, broken)))
    assert (report.verdict, report.exit_code, report.cases_run) == (Verdict.UNJUDGED, ExitCode.INCOMPLETE, 0)
    found = the(report, "ir-exceeds-runtime")
    assert f"{side}.onnx has IR version 99" in found.message
    assert not found.curable


def test_a_graph_without_its_weights_is_not_judged(tmp_path: Path) -> None:
    for name in ("old", "new"):
        onnx.save(
            support.wide_model(), str(tmp_path / f"{name}.onnx"), save_as_external_data=True, location=f"{name}.bin"
        )
    (tmp_path / "new.bin").unlink()
    report = check.check_compat(str(tmp_path / "old.onnx"), str(tmp_path / "new.onnx"), repo=tmp_path)
    assert (report.verdict, report.exit_code) == (Verdict.UNJUDGED, 3)
    assert "new.bin" in report.unjudged


def test_missing_weights_are_not_judged_whatever_the_tag_declares(repo: Path, put: Save) -> None:
    put(support.wide_model(scale=1.0))
    release.release("fraud", repo=repo)
    put(support.wide_model(scale=2.0))
    pairs.tag(repo, "fraud@v9.0.0")
    shutil.rmtree(repo / ".dvc" / "cache")
    report = check.check_compat("fraud@v1.0.0", "fraud@v9.0.0", repo=repo)
    assert (report.verdict, report.exit_code, report.declared) == (Verdict.UNJUDGED, 3, Bump.MAJOR)
    assert report.unjudged
    assert report.next_version is not None


def test_weights_that_are_not_here_are_brought_from_the_remote(repo: Path, put: Save) -> None:
    from gitmodel.workflows import transfer

    put(support.wide_model(scale=1.0))
    release.release("fraud", repo=repo)
    put(support.wide_model(scale=1.0, tensors=3))
    transfer.push(repo=repo)
    shutil.rmtree(repo / ".dvc" / "cache")
    assert check.check_compat("fraud@v1.0.0", "fraud", repo=repo).cases_run == 16


def test_damaged_weights_are_not_judged(repo: Path, put: Save) -> None:
    put(ONE)
    release.release("fraud", repo=repo)
    put(MORE)
    for name in state.objects(repo):
        if not name.endswith(".dir"):
            state.damage(repo / ".dvc" / "cache" / "files" / "md5" / name)
    assert check.check_compat("fraud@v1.0.0", "fraud", repo=repo).verdict is Verdict.UNJUDGED


def test_a_bundle_outside_its_repository_is_judged_by_the_weights_it_has_with_it(
    repo: Path, put: Save, tmp_path: Path
) -> None:
    put(ONE)
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(repo / "models" / "fraud", elsewhere / "fraud")
    pairs.files(elsewhere, MORE, MORE)
    old, new = str(elsewhere / "old.onnx"), str(elsewhere / "fraud")
    report = check.check_compat(old, new, repo=elsewhere)
    assert (report.model, report.verdict, report.cases_run) == ("fraud", Verdict.COMPATIBLE, 16)
    state.damage(elsewhere / "fraud" / "weights" / "model.onnx")
    assert check.check_compat(old, new, repo=elsewhere).verdict is Verdict.UNJUDGED
    shutil.rmtree(elsewhere / "fraud" / "weights")
    report = check.check_compat(old, new, repo=elsewhere)
    assert (report.verdict, report.exit_code) == (Verdict.UNJUDGED, 3)


def test_without_cases_and_none_to_draw_nothing_passes(tmp_path: Path) -> None:
    unknown = pairs.model(ONE)
    unknown.graph.input[0].type.tensor_type.ClearField("shape")
    other = pairs.model(MORE)
    other.graph.input[0].type.tensor_type.ClearField("shape")
    report = files(tmp_path, unknown, other)
    assert (report.verdict, report.exit_code, report.cases_run) == (Verdict.UNJUDGED, 3, 0)
    assert "none can be generated" in report.unjudged


def test_when_old_refuses_every_case_nothing_passes(tmp_path: Path) -> None:
    picky = "(float[batch,4] x) => (float[7] y) <int64[1] seven = {7}> { y = Reshape(x, seven) }"
    report = files(tmp_path, picky, picky.replace("seven", "count"))
    assert (report.verdict, report.exit_code, report.cases_run) == (Verdict.UNJUDGED, 3, 0)
    assert "refuses every case" in report.unjudged


# Goalposts ------------------------------------------------------------------------------------------------------------


def loosen(repo: Path, gates: str) -> None:
    card = repo / "models" / "fraud" / "model.yaml"
    card.write_text(card.read_text() + gates)


@pytest.mark.parametrize(
    "gates",
    [
        "gates: {agreement: 0.0}\n",
        "gates: {distance: 1000.0, agreement: 0}\n",
        'gates:\n  tolerance:\n    "*": {rtol: 1000.0, atol: 1000.0}\n',
        "gates:\n  tolerance:\n    y: {atol: 1000.0}\n  agreement: 0.0\n",
    ],
)
def test_a_change_cannot_move_its_own_gates(repo: Path, put: Save, gates: str) -> None:
    put(ONE, golden=True)
    release.release("fraud", repo=repo)
    put(FLIPPED)
    loosen(repo, gates)
    report = check.check_compat("fraud@v1.0.0", "fraud", repo=repo)
    assert {"golden-failed", "gates-changed"} <= rules_of(report)
    assert report.required_bump is Bump.MAJOR


def test_a_change_cannot_choose_its_own_cases(repo: Path, put: Save, tmp_path: Path) -> None:
    put(ONE, golden=True)
    release.release("fraud", repo=repo)
    put(FLIPPED)
    zeros = tmp_path / "easy.npz"
    np.savez(zeros, x=np.zeros((2, 4), "float32"))
    save.save("fraud", [tmp_path / "fraud.onnx"], repo=repo, golden=zeros, message="Easy cases")
    report = check.check_compat("fraud@v1.0.0", "fraud", repo=repo)
    assert {"golden-failed", "goldens-changed"} <= rules_of(report)
    assert "golden-self-failed" not in rules_of(report)
    assert (report.cases_run, report.generated) == (3, False)


def test_a_change_cannot_drop_the_cases(repo: Path, put: Save) -> None:
    put(ONE, golden=True)
    release.release("fraud", repo=repo)
    put(FLIPPED)
    shutil.rmtree(repo / "models" / "fraud" / "golden")
    report = check.check_compat("fraud@v1.0.0", "fraud", repo=repo)
    assert {"golden-failed", "goldens-changed"} <= rules_of(report)
    assert (report.cases_run, report.generated) == (3, False)


def test_olds_own_gates_count(repo: Path, put: Save) -> None:
    put(ONE, golden=True)
    loosen(repo, 'gates:\n  tolerance:\n    "*": {rtol: 0.1, atol: 0.0}\n')
    support.git(repo, "commit", "-qam", "Set gates")
    release.release("fraud", repo=repo)
    put(MORE)
    assert rules_of(check.check_compat("fraud@v1.0.0", "fraud", repo=repo)) == {"golden-numeric-noise"}


def test_cases_that_only_new_has_are_not_olds(repo: Path, put: Save) -> None:
    put(ONE)
    release.release("fraud", repo=repo)
    put(FLIPPED, golden=True)
    report = check.check_compat("fraud@v1.0.0", "fraud", repo=repo)
    assert {"golden-failed", "goldens-missing"} <= rules_of(report)
    assert (report.cases_run, report.generated) == (16, True)


def test_a_default_that_changed_is_seen_though_the_cases_feed_it(repo: Path, tmp_path: Path) -> None:
    text = "(float[batch,4] x, float[1] scale = {%s}) => (float[batch,4] y) { y = Mul(x, scale) }"
    cases = tmp_path / "cases.npz"
    np.savez(cases, x=np.ones((3, 4), "float32"), scale=np.ones(1, "float32"))
    for number, default in enumerate(("2.0", "3.0")):
        path = tmp_path / "default.onnx"
        path.write_bytes(pairs.model(text % default).SerializeToString())
        save.save("fraud", [path], repo=repo, golden=cases, message="Save")
        pairs.tag(repo, f"fraud@v{number + 1}.0.0")
    report = check.check_compat("fraud@v1.0.0", "fraud@v2.0.0", repo=repo)
    assert "golden-identical" in rules_of(report)
    assert report.required_bump >= Bump.MINOR, "callers who leave it out get other answers"


def test_a_class_list_that_is_gone_is_a_break(repo: Path, put: Save, tmp_path: Path) -> None:
    labels = tmp_path / "labels.txt"
    labels.write_text("cat\ndog\nowl\npig\n")
    put(ONE)
    save.save("fraud", [tmp_path / "fraud.onnx"], repo=repo, labels=labels, message="Labels")
    pairs.tag(repo, "fraud@v1.0.0")
    (repo / "models" / "fraud" / "assets" / "labels.txt").unlink()
    report = check.check_compat("fraud@v1.0.0", "fraud", repo=repo)
    assert (report.verdict, report.required_bump) == (Verdict.INCOMPATIBLE, Bump.MAJOR)


# NEW against itself ---------------------------------------------------------------------------------------------------


def test_new_must_keep_its_own_golden_cases(repo: Path, put: Save) -> None:
    put(ONE, golden=True)
    release.release("fraud", repo=repo)
    put(MORE)
    report = check.check_compat("fraud@v1.0.0", "fraud", repo=repo)
    found = the(report, "golden-self-failed")
    assert (found.curable, found.severity) == (False, Severity.ERROR)
    assert "3 of 3" in found.message
    assert (report.verdict, report.required_bump) == (Verdict.INCOMPATIBLE, Bump.MINOR)


def test_golden_cases_that_lie_are_seen_though_the_weights_are_the_same(repo: Path, put: Save, tmp_path: Path) -> None:
    put(ONE, golden=True)
    release.release("fraud", repo=repo)
    lying = tmp_path / "lying.npz"
    np.savez(lying, x=np.ones((2, 4), "float32"), y=np.zeros((2, 4), "float32"))
    save.save("fraud", [tmp_path / "fraud.onnx"], repo=repo, golden=lying, message="Other cases")
    report = check.check_compat("fraud@v1.0.0", "fraud", repo=repo)
    assert rules_of(report) == {"golden-self-failed", "goldens-changed", "weights-unchanged"}
    assert (report.verdict, report.cases_run) == (Verdict.INCOMPATIBLE, 2)


def test_recorded_cases_of_new_are_not_called_generated(repo: Path, put: Save) -> None:
    put(ONE)
    release.release("fraud", repo=repo)
    put("(int32[batch,4] x) => (float[batch,4] y) { y = Cast<to = 1>(x) }")
    support.git(repo, "tag", "bare-bones")
    cases = repo.parent / "ints.npz"
    np.savez(cases, x=np.ones((5, 4), "int32"))
    save.save("fraud", [repo.parent / "fraud.onnx"], repo=repo, golden=cases, message="Cases")
    report = check.check_compat("fraud@v1.0.0", "fraud", repo=repo)
    assert "input-dtype-changed" in rules_of(report)
    assert (report.cases_run, report.generated) == (5, False)


def edit_signature(repo: Path, message: str = "") -> None:
    path = repo / "models" / "fraud" / "signature.yaml"
    path.write_text(path.read_text().replace("name: x", "name: features"))
    if message:
        support.git(repo, "commit", "-qam", message)


@pytest.mark.parametrize("text", [ONE, MORE], ids=["same weights", "other weights"])
def test_a_signature_that_is_not_the_models_own_never_passes(repo: Path, put: Save, text: str) -> None:
    put(ONE)
    release.release("fraud", repo=repo)
    put(text)
    edit_signature(repo)
    found = the(check.check_compat("fraud@v1.0.0", "fraud", repo=repo), "signature-stale")
    assert (found.severity, found.curable) == (Severity.ERROR, False)


def test_a_stale_signature_of_old_is_a_warning_for_it_can_no_longer_be_mended(repo: Path, put: Save) -> None:
    put(ONE)
    edit_signature(repo, "Edit")
    pairs.tag(repo, "fraud@v1.0.0")
    put(MORE)
    report = check.check_compat("fraud@v1.0.0", "fraud", repo=repo)
    found = the(report, "signature-stale")
    assert (found.severity, found.curable) == (Severity.WARNING, True)
    assert "fraud@v1.0.0" in found.message
    assert (report.unjudged, report.cases_run) == ("", 16), "OLD is run by the signature its model has"


def test_a_checkpoint_that_gets_a_graph_must_keep_its_golden_cases(repo: Path, tmp_path: Path) -> None:
    dense = "(float[batch,2] x) => (float[batch,3] y) <float[2,3] kernel> { y = MatMul(x, kernel) }"
    graph = pairs.model(dense.replace("kernel>", "kernel = {0, 1, 2, 3, 4, 5}>"))
    (tmp_path / "graph.onnx").write_bytes(graph.SerializeToString())
    pairs.checkpoint(tmp_path / "kernel.h5", {"kernel": np.arange(6, dtype="float32").reshape(2, 3)})
    save.save("fraud", [tmp_path / "kernel.h5"], repo=repo, message="Checkpoint")
    release.release("fraud", repo=repo)
    cases = tmp_path / "cases.npz"
    np.savez(cases, x=np.ones((2, 2), "float32"), y=np.zeros((2, 3), "float32"))
    save.save("fraud", [tmp_path / "graph.onnx", tmp_path / "kernel.h5"], repo=repo, golden=cases, message="Graph")
    report = check.check_compat("fraud@v1.0.0", "fraud", repo=repo)
    assert {"graph-added", "golden-self-failed"} <= rules_of(report)
    assert report.exit_code is ExitCode.INCOMPATIBLE


def test_checkpoints_are_judged_without_their_weights(repo: Path, tmp_path: Path) -> None:
    kernel = np.arange(6, dtype="float32").reshape(2, 3)
    for number, tensors in enumerate(({"kernel": kernel}, {"kernel": kernel * 2}, {"weight": kernel})):
        path = tmp_path / f"weights-{number}.h5"
        pairs.checkpoint(path, tensors)
        save.save("fraud", [path], repo=repo, message="Save")
        pairs.tag(repo, f"fraud@v{number + 1}.0.0")
    shutil.rmtree(repo / ".dvc" / "cache")
    retrained = check.check_compat("fraud@v1.0.0", "fraud@v2.0.0", repo=repo)
    assert (rules_of(retrained), retrained.required_bump) == ({"tensor-values-changed"}, Bump.PATCH)
    renamed = check.check_compat("fraud@v2.0.0", "fraud@v3.0.0", repo=repo)
    assert rules_of(renamed) == {"tensor-removed", "tensor-added"}
    assert rules_of(check.check_compat("fraud@v1.0.0", "fraud@v1.0.0", repo=repo)) == {"weights-unchanged"}


# Profiles -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "verdicts"),
    [
        ("input-reordered", {"positional": "incompatible", "named": "compatible", "json": "compatible"}),
        ("output-reordered", {"positional": "incompatible", "named": "compatible", "json": "compatible"}),
        ("input-renamed", {"positional": "compatible", "named": "incompatible", "json": "incompatible"}),
        ("output-renamed", {"positional": "compatible", "named": "incompatible", "json": "incompatible"}),
        ("input-removed", {"positional": "incompatible", "named": "incompatible", "json": "incompatible"}),
        ("golden-drift", {"positional": "compatible", "named": "compatible", "json": "compatible"}),
    ],
)
def test_the_same_change_breaks_some_clients_and_not_others(
    rule: str, verdicts: dict[str, str], tmp_path: Path
) -> None:
    old, new = pairs.MODELS[rule]()
    assert {profile: str(files(tmp_path, old, new, profile=profile).verdict) for profile in verdicts} == verdicts


@pytest.mark.parametrize(
    ("operator", "profile", "verdict"),
    [
        ("Neg", "named", "incompatible"),
        ("Neg", "json", "compatible"),
        ("Abs", "json", "incompatible"),
    ],
)
def test_a_wider_input_passes_for_json_only_if_the_answers_stay(
    operator: str, profile: str, verdict: str, tmp_path: Path
) -> None:
    old = "(float[batch,4] x) => (float[batch,4] y) { y = Neg(x) }"
    new = f"(double[batch,4] x) => (float[batch,4] y) {{ f = Cast<to = 1>(x) y = {operator}(f) }}"
    report = files(tmp_path, old, new, profile=profile)
    assert (str(report.verdict), report.cases_run) == (verdict, 16)


@pytest.mark.parametrize(("operator", "verdict"), [("Neg", "compatible"), ("Abs", "incompatible")])
def test_a_wider_output_passes_for_json_only_if_the_answers_stay(operator: str, verdict: str, tmp_path: Path) -> None:
    old = "(float[batch,4] x) => (float[batch,4] y) { y = Neg(x) }"
    new = f"(float[batch,4] x) => (double[batch,4] y) {{ f = {operator}(x) y = Cast<to = 11>(f) }}"
    assert str(files(tmp_path, old, new, profile="json").verdict) == verdict
    assert str(files(tmp_path, old, new).verdict) == "incompatible"


def test_an_input_that_is_renamed_and_moved_breaks_callers_by_position(tmp_path: Path) -> None:
    body = "=> (float[batch,4] y) { y = Sub(%s, b) }"
    old = f"(float[batch,4] a, float[batch,1] b) {body % 'a'}"
    new = f"(float[batch,1] b, float[batch,4] c) {body % 'c'}"
    report = files(tmp_path, old, new, profile="positional")
    assert {"input-renamed", "input-reordered", "golden-identical"} <= rules_of(report)
    assert report.required_bump is Bump.MAJOR


def test_an_output_that_became_a_sequence_does_not_hide_what_happened_to_another(tmp_path: Path) -> None:
    body = "(float[batch,4] x) => (%s y, float[batch,4] z) { m = Neg(x) y = %s(m) z = %s(x) }"
    report = files(
        tmp_path,
        body % ("float[batch,4]", "Identity", "Neg"),
        body % ("seq(float[batch,4])", "SequenceConstruct", "Abs"),
    )
    assert the(report, "golden-failed").at == "outputs.z"
    assert the(report, "value-kind-changed").at == "outputs.y"


@pytest.mark.parametrize(
    ("old", "new", "safe"),
    [
        (ONE, MORE, True),
        (ONE, RENAMED, False),
        (
            ONE,
            ONE.replace("(float[batch,4] y)", "(float[batch,4] y, float[batch,4] z)").replace("{ y", "{ z = Neg(x) y"),
            False,
        ),
        (
            ONE.replace("(float[batch,4] y)", "(float[batch,4] y, float[batch,4] z)").replace("{ y", "{ z = Neg(x) y"),
            ONE,
            True,
        ),
    ],
    ids=["drift", "renamed", "output added", "output removed"],
)
def test_whether_clients_can_be_put_back(old: str, new: str, safe: bool, tmp_path: Path) -> None:
    assert files(tmp_path, old, new).rollback_safe is safe


def test_a_model_with_maps_is_judged_by_their_keys(tmp_path: Path) -> None:
    zipmap = """(float[batch,2] x) => (seq(map(string, float)) y) {
        y = ai.onnx.ml.ZipMap<classlabels_strings = ["cat", "dog"]>(x)
    }"""
    other = pairs.model(zipmap)
    other.producer_name = "another"
    assert files(tmp_path, zipmap, other).verdict is Verdict.COMPATIBLE
    assert files(tmp_path, zipmap, zipmap.replace("dog", "fox")).verdict is Verdict.INCOMPATIBLE


def test_an_opset_a_node_uses_but_the_runtime_lacks_is_not_judged(tmp_path: Path) -> None:
    strange = pairs.model(ONE)
    strange.graph.node[0].CopyFrom(helper.make_node("Multiply", ["x", "scale"], ["y"], domain="com.example"))
    strange.opset_import.add(domain="com.example", version=1)
    report = files(tmp_path, ONE, strange)
    assert report.verdict is Verdict.UNJUDGED
    assert "com.example" in the(report, "custom-domain-used").message


def test_want_of_memory_on_this_side_is_unjudged(tmp_path: Path) -> None:
    """Each model gives 160 MB for the only case there is, and there is room for the two, and no more."""
    text = "(float[1] x) => (float[40000000] y) <int64[1] shape = {40000000}> { z = Expand(x, shape) y = %s(z) }"
    for name, operator in (("old", "Abs"), ("new", "Neg")):
        (tmp_path / f"{name}.onnx").write_bytes(pairs.model(text % operator).SerializeToString())
    code = (
        "import resource, sys; import numpy; from gitmodel.workflows import check\n"
        "pages = int(open('/proc/self/statm').read().split()[0])\n"
        "most = pages * resource.getpagesize() + (340 << 20)\n"
        "resource.setrlimit(resource.RLIMIT_AS, (most, resource.RLIM_INFINITY))\n"
        "report = check.check_compat('old.onnx', 'new.onnx', repo='.')\n"
        "print(report.verdict, report.unjudged)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("unjudged ")
    assert "memory" in done.stdout


def test_want_of_memory_while_comparing_is_unjudged(put: Save, repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(ONE)
    support.git(repo, "tag", "-am", "One", "fraud@v1.0.0")
    put(FLIPPED)

    def take(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr(Gauge, "take", take)
    report = check.check_compat("fraud@v1.0.0", "fraud", repo=repo)
    assert (report.verdict, report.exit_code) == (Verdict.UNJUDGED, ExitCode.INCOMPLETE)
    assert "memory enough to compare" in report.unjudged
