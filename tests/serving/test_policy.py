"""gitmodel.serving.policy: which version should be served, given what Git says."""

from __future__ import annotations

import os
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from msgspec.structs import replace

from gitmodel import registry
from gitmodel.git import Repository, TagRef
from gitmodel.registry import Release, StageMove
from gitmodel.serving.policy import AspiredVersion, InvalidPolicy, VersionPolicy
from gitmodel.versions import InvalidName, ReleaseTag, StageTag, Version
from tests import support

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)


def released(*versions: str) -> list[Release]:
    """Releases made in this order, a day apart, in the order a registry lists them."""
    found = []
    for day, text in enumerate(versions):
        version = Version.parse(text)
        ref = TagRef(f"fraud@{version}", f"commit of {text}", True, NOON + timedelta(days=day), "Ada")
        found.append(Release(ReleaseTag("fraud", version), ref, day + 1))
    return sorted(found, key=lambda release: release.version)


def standing(**stages: Release) -> dict[str, StageMove]:
    return {
        stage: StageMove(StageTag("fraud", stage, 1), release.ref, release.version) for stage, release in stages.items()
    }


def chosen(follow: str, releases: list[Release], stages: dict[str, StageMove] | None = None) -> list[str]:
    return [found.version for found in VersionPolicy(follow).aspired("fraud", releases, stages or {})]


def test_latest_is_the_highest_number_and_not_the_newest_or_the_last_by_letters() -> None:
    assert chosen("latest", released("10.0.0", "9.0.0", "9.1.0")) == ["v10.0.0"]


def test_latest_passes_over_pre_releases() -> None:
    assert chosen("latest", released("1.0.0", "2.0.0-rc.1")) == ["v1.0.0"]
    assert chosen("auto", released("1.0.0", "2.0.0-rc.1")) == ["v1.0.0"]
    assert chosen("latest", released("2.0.0-rc.1")) == []


def test_a_stage_may_stand_on_a_pre_release() -> None:
    releases = released("1.0.0", "2.0.0-rc.1")
    assert chosen("canary", releases, standing(canary=releases[1])) == ["v2.0.0-rc.1"]


def test_auto_follows_prod_once_there_is_one() -> None:
    releases = released("1.0.0", "1.1.0")
    assert chosen("auto", releases) == ["v1.1.0"]
    assert chosen("auto", releases, standing(staging=releases[0])) == ["v1.1.0"]
    assert chosen("auto", releases, standing(prod=releases[0])) == ["v1.0.0"]
    assert chosen("latest", releases, standing(prod=releases[0])) == ["v1.1.0"]


def test_a_commit_is_the_version_released_there_and_no_other() -> None:
    releases = released("1.0.0", "1.1.0")
    pinned = [replace(release, ref=replace(release.ref, commit=f"{i:040x}")) for i, release in enumerate(releases)]
    assert chosen(f"{0:040x}", pinned) == ["v1.0.0"]
    assert chosen(f"v1.1.0, {0:040x}", pinned) == ["v1.1.0", "v1.0.0"]
    assert chosen(f"{2:040x}", pinned) == []
    moved = [replace(pinned[0], ref=replace(pinned[0].ref, commit="f" * 40)), pinned[1]]
    assert chosen(f"{0:040x}", moved) == [], "its tag was forced onto another"
    with pytest.raises((InvalidPolicy, InvalidName)):
        VersionPolicy(f"{0:039x},v1.0.0")


def test_a_stage_nobody_set_serves_nothing() -> None:
    releases = released("1.0.0")
    assert chosen("canary", releases) == []
    assert chosen("canary", releases, standing(prod=releases[0])) == []


def test_a_stage_on_no_version_serves_nothing() -> None:
    releases = released("1.0.0")
    ref = TagRef("fraud#prod#1", "a commit without a version", True, NOON, "Ada")
    assert chosen("auto", releases, {"prod": StageMove(StageTag("fraud", "prod", 1), ref, None)}) == []


def test_without_releases_there_is_nothing_to_serve() -> None:
    assert chosen("auto", []) == []


def test_what_is_aspired_says_commit_number_and_stages() -> None:
    releases = released("1.0.0", "2.0.0", "1.0.1")
    stages = standing(prod=releases[1], green=releases[1], blue=releases[0])
    (found,) = VersionPolicy().aspired("fraud", releases, stages)
    assert found == AspiredVersion("fraud", "v1.0.1", "commit of 1.0.1", 3)
    assert found.stages == ("green", "prod")


@pytest.mark.parametrize("follow", ["", "a b", "../x", "-", "x" * 101])
def test_a_policy_must_be_a_name(follow: str) -> None:
    with pytest.raises(InvalidName, match="stage"):
        VersionPolicy(follow)


def commit(repo: Path, text: str) -> None:
    card = repo / "models" / "fraud" / "model.yaml"
    card.parent.mkdir(parents=True, exist_ok=True)
    card.write_text(text)
    support.git(repo, "add", "models")
    support.git(repo, "commit", "-qm", text)


def tag(repo: Path, name: str, day: int) -> None:
    date = f"2026-01-{day:02d}T12:00:00Z"
    done = support.run("git", "-C", repo, "tag", "-a", "-m", name, name, env={**os.environ, "GIT_COMMITTER_DATE": date})
    assert done.returncode == 0, done.stderr


def from_git(path: Path, follow: str = "auto") -> list[tuple[str, int]]:
    repo = Repository.open(path)
    found = VersionPolicy(follow).aspired(
        "fraud", registry.versions(repo, "fraud").releases, registry.stages(repo, "fraud")
    )
    repo.close()
    return [(version.version, version.number) for version in found]


def test_real_tags_withdrawn_and_cancelled_are_not_followed(git_repo: Path) -> None:
    for number in (1, 2, 3):
        commit(git_repo, f"Version {number}")
        tag(git_repo, f"fraud@v{number}.0.0", number)
    assert from_git(git_repo) == [("v3.0.0", 3)]
    tag(git_repo, "fraud@v3.0.0!", 4)
    assert from_git(git_repo) == [("v2.0.0", 2)]
    support.git(git_repo, "tag", "-a", "-m", "live", "fraud#prod#1", "fraud@v1.0.0^{}")
    assert from_git(git_repo) == [("v1.0.0", 1)]
    assert from_git(git_repo, "latest") == [("v2.0.0", 2)]
    support.git(git_repo, "tag", "-a", "-m", "no more", "fraud#prod!#2", "fraud@v1.0.0^{}")
    assert from_git(git_repo) == [("v2.0.0", 2)]


def test_a_version_keeps_its_number_when_an_older_one_is_withdrawn(git_repo: Path) -> None:
    for number in (1, 2):
        commit(git_repo, f"Version {number}")
        tag(git_repo, f"fraud@v{number}.0.0", number)
    assert from_git(git_repo) == [("v2.0.0", 2)]
    tag(git_repo, "fraud@v1.0.0!", 3)
    assert from_git(git_repo) == [("v2.0.0", 2)]


def test_a_version_of_something_that_is_no_commit_is_not_followed(git_repo: Path) -> None:
    commit(git_repo, "Version 1")
    tag(git_repo, "fraud@v1.0.0", 1)
    support.git(git_repo, "tag", "-a", "-m", "a file", "fraud@v9.0.0", "HEAD:models/fraud/model.yaml")
    assert from_git(git_repo) == [("v1.0.0", 1)]


def test_the_latest_few_are_served_the_newest_by_default() -> None:
    releases = released("1.0.0", "1.1.0", "1.2.0", "2.0.0-rc.1")
    assert chosen("latest:2", releases) == ["v1.1.0", "v1.2.0"]
    assert chosen("latest:9", releases) == ["v1.0.0", "v1.1.0", "v1.2.0"]


def test_all_are_served_the_usual_one_by_default() -> None:
    releases = released("1.0.0", "1.1.0", "2.0.0-rc.1")
    assert chosen("all", releases) == ["v2.0.0-rc.1", "v1.0.0", "v1.1.0"]
    assert chosen("all", releases, standing(prod=releases[0])) == ["v2.0.0-rc.1", "v1.1.0", "v1.0.0"]


def test_where_prod_stands_on_nothing_no_unfinished_version_becomes_the_default() -> None:
    releases = released("1.0.0", "2.0.0-rc.1")
    ref = TagRef("fraud#prod#1", "a commit without a version", True, NOON, "Ada")
    nowhere = {"prod": StageMove(StageTag("fraud", "prod", 1), ref, None)}
    assert chosen("all", releases, nowhere)[-1] == "v1.0.0"
    assert chosen("stages", releases, nowhere | standing(a=releases[0], b=releases[1]))[-1] == "v1.0.0"


def test_a_stage_may_be_called_as_a_rule_begins() -> None:
    releases = released("1.0.0", "1.1.0")
    stages = {"latest-stable": next(iter(standing(x=releases[0]).values()))}
    assert chosen("latest-stable", releases, stages) == ["v1.0.0"]


def test_what_stages_stand_on_is_served_prod_by_default() -> None:
    releases = released("1.0.0", "1.1.0", "1.2.0")
    assert chosen("stages", releases) == []
    both = standing(prod=releases[0], canary=releases[2])
    assert chosen("stages", releases, both) == ["v1.2.0", "v1.0.0"]
    assert chosen("stages", releases, standing(canary=releases[2], shadow=releases[0])) == ["v1.0.0", "v1.2.0"]
    assert chosen("stages", releases, standing(prod=releases[0], canary=releases[0])) == ["v1.0.0"]
    aspired = VersionPolicy("stages").aspired("fraud", releases, both)
    assert [version.stages for version in aspired] == [("canary",), ("prod",)]


def test_versions_that_are_named_are_served_the_last_by_default() -> None:
    releases = released("1.0.0", "1.1.0", "1.2.0")
    assert chosen("v1.2.0,1.0.0", releases) == ["v1.2.0", "v1.0.0"]
    assert chosen("v1.1.0", releases) == ["v1.1.0"]
    assert chosen("v9.0.0", releases) == []


@pytest.mark.parametrize("follow", ["latest:0", "latest:", "latest:x", "latest:101", "latest:-1"])
def test_a_number_of_versions_is_a_number(follow: str) -> None:
    with pytest.raises(InvalidPolicy, match="such as latest:2"):
        VersionPolicy(follow)
