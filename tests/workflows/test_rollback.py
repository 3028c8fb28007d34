"""Rolling back: where a stage goes, how far, and what is left behind."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gitmodel.registry import UnknownModel
from gitmodel.versions import InvalidName, Version
from gitmodel.workflows.release import promote, release
from gitmodel.workflows.rollback import NothingBefore, _path, rollback
from tests import support
from tests.workflows.conftest import Change


@pytest.fixture
def three(released: Path, change: Change) -> Path:
    """fraud v1.0.0, v1.1.0 and v1.2.0."""
    for scale in (1.01, 1.02):
        change(scale)
        release("fraud", repo=released)
    return released


def test_a_stage_goes_back_to_where_it_stood_and_history_goes_on(three: Path) -> None:
    for version in ("v1.0.0", "v1.2.0"):
        promote(f"fraud@{version}", "prod", repo=three)
    done = rollback("fraud", repo=three)
    assert (done.tag, done.version, done.left, done.pushed) == ("fraud#prod#3", "v1.0.0", "v1.2.0", "")
    assert support.git(three, "rev-parse", "fraud#prod#3^{}") == support.git(three, "rev-parse", "fraud@v1.0.0^{}")
    assert "Roll prod of fraud back from v1.2.0" in support.git(three, "cat-file", "tag", "fraud#prod#3")


def test_again_goes_further_back_and_not_to_and_fro(three: Path) -> None:
    for version in ("v1.0.0", "v1.1.0", "v1.2.0"):
        promote(f"fraud@{version}", "prod", repo=three)
    assert [rollback("fraud", repo=three).version for _ in range(2)] == ["v1.1.0", "v1.0.0"]
    with pytest.raises(
        NothingBefore, match=r"it is on v1\.0\.0 since its first move: .*gitmodel promote fraud@VERSION prod"
    ):
        rollback("fraud", repo=three)


def test_without_a_stage_it_goes_back_from_the_latest_release(three: Path) -> None:
    """A server follows the latest release until there is a stage ``prod``."""
    assert rollback("fraud", repo=three, message="It is wrong").version == "v1.1.0"
    assert "It is wrong" in support.git(three, "cat-file", "tag", "fraud#prod#1")


def test_each_stage_has_its_own_history(three: Path) -> None:
    for version, stage in (("v1.0.0", "canary"), ("v1.2.0", "prod"), ("v1.1.0", "canary")):
        promote(f"fraud@{version}", stage, repo=three)
    assert rollback("fraud", "canary", repo=three).version == "v1.0.0"


def test_a_version_that_was_withdrawn_is_passed_over(three: Path) -> None:
    for version in ("v1.0.0", "v1.1.0", "v1.2.0"):
        promote(f"fraud@{version}", "prod", repo=three)
    support.git(three, "tag", "-a", "-m", "leaks", "fraud@v1.1.0!", "fraud@v1.1.0^{}")
    assert rollback("fraud", repo=three).version == "v1.0.0"


def test_where_the_present_version_was_withdrawn_it_goes_to_the_one_before(three: Path) -> None:
    for version in ("v1.0.0", "v1.1.0"):
        promote(f"fraud@{version}", "prod", repo=three)
    support.git(three, "tag", "-a", "-m", "leaks", "fraud@v1.1.0!", "fraud@v1.1.0^{}")
    done = rollback("fraud", repo=three)
    assert (done.version, done.left) == ("v1.0.0", "a version that was withdrawn")


def test_a_stage_that_was_taken_away_comes_back_where_it_was(three: Path) -> None:
    promote("fraud@v1.1.0", "prod", repo=three)
    support.git(three, "tag", "-a", "-m", "off", "fraud#prod!#2", "fraud@v1.1.0^{}")
    done = rollback("fraud", repo=three)
    assert (done.tag, done.version, done.left) == ("fraud#prod#3", "v1.1.0", "nothing")


def test_a_stage_that_never_was_is_not_made_by_going_back(three: Path) -> None:
    with pytest.raises(NothingBefore, match="nothing to roll fraud#prdo back to: it was never put on a version"):
        rollback("fraud", "prdo", repo=three)
    assert "prdo" not in support.git(three, "tag", "--list")


def test_what_is_not_there_is_told(three: Path) -> None:
    with pytest.raises(UnknownModel):
        rollback("nothing", repo=three)
    with pytest.raises(InvalidName):
        rollback("fraud", "a stage", repo=three)


def test_a_single_release_has_nothing_before_it(released: Path) -> None:
    with pytest.raises(NothingBefore, match="nothing to roll fraud#prod back to"):
        rollback("fraud", repo=released)


def test_a_push_takes_the_stage_along(three: Path, tmp_path: Path) -> None:
    support.git(tmp_path, "init", "-q", "--bare", "elsewhere.git")
    support.git(three, "remote", "add", "elsewhere", str(tmp_path / "elsewhere.git"))
    done = rollback("fraud", repo=three, push="elsewhere")
    assert done.tag in done.pushed
    assert done.tag in support.git(tmp_path / "elsewhere.git", "tag", "--list")


@given(st.lists(st.integers(0, 5), max_size=12))
def test_the_way_back_names_each_version_once_and_ends_where_the_stage_is(numbers: list[int]) -> None:
    moves = [Version(1, number, 0) for number in numbers]
    path = _path(moves)
    assert len(path) == len(set(path))
    assert path[-1:] == moves[-1:]
