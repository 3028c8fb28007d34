"""Modes: callers put back on OLD, and every version a stage still points at."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from gitmodel.compat import changes, labels, modes, rules
from gitmodel.compat.rules import Finding, Severity
from gitmodel.compat.verdict import Report, Verdict
from gitmodel.versions import Bump
from gitmodel.workflows import check, release
from tests.compat import pairs
from tests.compat.conftest import signature
from tests.compat.pairs import scaled
from tests.compat.pairs_policy import ALLOW, RENAMED, entry, write

BASE = "(float[n,4] x) => (float[n,4] y)"


def full(old: str, new: str) -> list[Finding]:
    before, after = signature(old), signature(new)
    found = [rules.judge(change) for change in changes.compare(before, after).changes]
    return modes.with_rollback(found, changes.compare(after, before).changes, "fraud@v1.0.0")


@pytest.mark.parametrize(
    ("new", "rule", "forwards"),
    [
        ("(float[n,4] x, float b = {0.0}) => (float[n,4] y)", "input-added-with-default", Bump.MINOR),
        ("(float[n,4] x) => (float[n,4] y, float[n,4] z)", "output-added", Bump.MINOR),
        ("(float[n,m] x) => (float[n,4] y)", "input-dim-relaxed", Bump.MINOR),
    ],
)
def test_what_is_harmless_forwards_is_an_error_on_the_way_back(new: str, rule: str, forwards: Bump) -> None:
    (forward,) = [rules.judge(c) for c in changes.compare(signature(BASE), signature(new)).changes]
    assert forward.bump["named"] is forwards
    (found,) = full(BASE, new)
    assert (found.rule, found.direction, found.who) == (rule, "NEW->OLD", "F")
    assert (found.severity, found.bump["named"]) == (Severity.ERROR, Bump.MAJOR)
    assert found.message.startswith(f"{forward.message}; for clients put back on fraud@v1.0.0: ")
    assert found.fingerprint == forward.fingerprint


@pytest.mark.parametrize(
    ("new", "rule", "direction"),
    [
        ("(float[n,4] image) => (float[n,4] y)", "input-renamed", "both ways"),
        ("(int32[n,4] x) => (float[n,4] y)", "input-dtype-changed", "both ways"),
        ("(float[n,5] x) => (float[n,4] y)", "input-dim-changed", "both ways"),
        ("(float[n,4] x, float[n,1] b) => (float[n,4] y)", "input-added-required", "both ways"),
        ("(float[1,4] x) => (float[n,4] y)", "input-dim-fixed", "OLD->NEW"),
    ],
)
def test_each_break_has_its_direction(new: str, rule: str, direction: str) -> None:
    found = {finding.rule: finding for finding in full(BASE, new)}
    assert found[rule].direction == direction
    assert not [f for f in found.values() if f.rule != rule and f.bump["named"] is Bump.MAJOR]


def test_what_has_no_match_forwards_is_added() -> None:
    (found,) = modes.with_rollback([], labels.compare_labels(["a", "b"], ["a"]), "fraud@v1.0.0")
    assert (found.rule, found.direction, found.who) == ("label-removed", "NEW->OLD", "F")


def test_nothing_changed_is_nothing_in_any_mode() -> None:
    assert full(BASE, BASE.replace("n", "batch")) == []


def rules_of(report: Report) -> set[str]:
    return {finding.rule for finding in report.findings}


def test_a_mode_is_asked_for(tmp_path: Path) -> None:
    old, new = pairs.MODELS["input-added-with-default"]()
    pairs.files(tmp_path, old, new)
    sides = str(tmp_path / "old.onnx"), str(tmp_path / "new.onnx")
    backward, both = (check.check_compat(*sides, repo=tmp_path, mode=mode) for mode in ("backward", "full"))
    assert (backward.verdict, backward.mode) == (Verdict.COMPATIBLE, "backward")
    assert (both.verdict, both.mode) == (Verdict.INCOMPATIBLE, "full")
    assert rules_of(backward) == rules_of(both)
    with pytest.raises(ValueError, match="sideways"):
        check.check_compat(*sides, repo=tmp_path, mode="sideways")


def test_labels_count_on_the_way_back(tmp_path: Path) -> None:
    old, new = pairs.PAIRS["label-appended"](tmp_path)
    report = check.check_compat(old, new, repo=tmp_path, mode="full")
    (found,) = [f for f in report.findings if f.at == "labels"]
    assert found.direction == "both ways"


@pytest.fixture
def staged(tmp_path: Path) -> Path:
    """``v1.0.0`` on ``prod`` reads ``x``, ``v2.0.0`` on ``canary`` and in the working tree reads ``image``."""
    pairs.repository(tmp_path)
    for text, stage in ((scaled("1.0"), "prod"), (RENAMED, "canary")):
        pairs.save(tmp_path, text)
        release.promote(pairs.release(tmp_path), stage, repo=tmp_path)
    pairs.save(tmp_path, RENAMED.replace("{1.0}", "{1.0001220703125}"))
    return tmp_path


def test_every_version_a_stage_is_on_counts(staged: Path) -> None:
    found = check.check_all("fraud@v2.0.0", "fraud", repo=staged, mode="transitive")
    assert [(report.old, report.verdict) for report in found] == [
        ("fraud@v2.0.0", Verdict.COMPATIBLE),
        ("fraud#prod", Verdict.INCOMPATIBLE),
    ]
    assert "input-renamed" in rules_of(found[1])
    again = check.check_compat("fraud@v2.0.0", "fraud", repo=staged, mode="transitive")
    assert again == replace(found[1], remembered=True)
    assert check.check_compat("fraud@v2.0.0", "fraud", repo=staged).verdict is Verdict.COMPATIBLE


def test_all_changed_models_are_held_against_all_stages(staged: Path) -> None:
    for against, olds in (("", ["fraud@v2.0.0", "fraud#prod"]), ("HEAD~1", ["fraud@HEAD~1", "fraud#prod"])):
        found = check.check_changed(staged, against=against, mode="transitive")
        assert [report.old for report in found] == olds
        assert {report.mode for report in found} == {"transitive"}


def test_the_list_of_the_base_counts_for_every_stage(staged: Path) -> None:
    write(staged, {ALLOW: entry()}, "Allow the old break on prod")
    pairs.save(staged, RENAMED.replace("{1.0}", "{1.000244140625}"))
    found = check.check_all("fraud@HEAD~1", "fraud", repo=staged, mode="transitive")
    assert [(report.old, report.verdict) for report in found] == [
        ("fraud@HEAD~1", Verdict.COMPATIBLE),
        ("fraud#canary", Verdict.COMPATIBLE),
        ("fraud#prod", Verdict.COMPATIBLE),
    ]
    assert [f.allowed for f in found[2].findings if f.rule == "input-renamed"] == ["the one client moves along"]


def test_two_files_have_no_stages(tmp_path: Path) -> None:
    pairs.files(tmp_path, scaled("1.0"), RENAMED)
    sides = str(tmp_path / "old.onnx"), str(tmp_path / "new.onnx")
    assert len(check.check_all(*sides, repo=tmp_path, mode="transitive")) == 1
