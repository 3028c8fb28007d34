"""The reviewer's commands as a person types them: check-compat, release, promote."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import support
from tests.cli.command import Command
from tests.workflows import state


@pytest.fixture
def released(
    repo: Path,
    save_model: Callable[..., object],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> Command:
    """``fraud@v1.0.0``, then weights that drift a little, committed."""
    gitmodel = Command(repo, monkeypatch, capfd)
    for scale in (1.0, 1.01):
        save_model(scale=scale, golden=support.cases_npz(tmp_path / "cases.npz"))
        if scale == 1.0:
            assert gitmodel("release", "fraud")
    return gitmodel


def test_a_release_prints_its_tag_alone_on_stdout(released: Command) -> None:
    done = released("release", "fraud", "-m", "Trained on June")
    assert (done.code, done.out) == (0, "fraud@v1.1.0\n")
    assert "next: gitmodel push; git push REMOTE HEAD 'fraud@v1.1.0'" in done.err
    assert "golden-drift" in done.err, "the report is for the person"


def test_a_release_in_a_linked_worktree_says_where_alone_its_bytes_are(
    released: Command, repo: Path, tmp_path: Path
) -> None:
    released.folder = tmp_path / "linked"
    support.git(repo, "worktree", "add", "-q", "-b", "side", str(released.folder))
    assert "worktree" not in released("release", "fraud").err, "the main working tree has them"
    path = state.write(support.linear_model(scale=1.02), tmp_path / "side.onnx")
    said = released("save", "fraud", path, "--golden", tmp_path / "cases.npz", "-m", "side", "--release", "auto")
    (tag,) = said.out.split()
    assert said.err.splitlines()[-1] == (
        f"warning: of the caches here a linked worktree's alone has the bytes of {tag}, and 'git worktree remove' deletes it: "
        f"run 'gitmodel push {tag}' before, unless the remote has them"
    )
    # A second linked worktree that has them goes the same way.
    support.git(repo, "worktree", "add", "-q", "--detach", str(tmp_path / "second"), "side")
    shutil.copytree(released.folder / ".dvc" / "cache", tmp_path / "second" / ".dvc" / "cache")
    assert released(
        "save", "fraud", path, "--golden", tmp_path / "cases.npz", "--description", "As before.", "-m", "again"
    )
    assert "worktree" in released("release", "fraud").err
    support.git(repo, "clone", "-q", "--bare", str(repo), str(tmp_path / "production"))
    support.git(repo, "remote", "add", "production", str(tmp_path / "production"))
    state.write(support.linear_model(scale=1.015), path)
    assert released("save", "fraud", path, "--golden", tmp_path / "cases.npz", "-m", "more")
    done = released("release", "fraud", "--push", "production")
    assert done
    assert "worktree" not in done.err, "the remote has them"
    shutil.copytree(released.folder / ".dvc" / "cache", tmp_path / "shared")
    assert support.run("dvc", "config", "cache.dir", str(tmp_path / "shared"), cwd=released.folder).returncode == 0
    state.write(support.linear_model(scale=1.012), path)
    assert released("save", "fraud", path, "--golden", tmp_path / "cases.npz", "-m", "most")
    done = released("release", "fraud")
    assert done
    assert "worktree" not in done.err, "its cache lies elsewhere"


def test_a_release_in_a_shallow_clone_says_that_its_number_may_be_taken(
    released: Command, repo: Path, tmp_path: Path
) -> None:
    assert released("push")
    assert "shallow" not in released("release", "fraud").err
    released.folder = state.shallow_clone(repo, tmp_path / "shallow", "fraud@v1.0.0")
    path = state.write(support.linear_model(scale=1.02), tmp_path / "other.onnx")
    said = released("save", "fraud", path, "--golden", tmp_path / "cases.npz", "-m", "other", "--release", "auto")
    assert said.out == "fraud@v1.1.0\n"
    assert said.err.splitlines()[-1] == (
        "warning: this clone is shallow, versions may be left out: 'git fetch --unshallow --tags' brings all there is; "
        "fraud@v1.1.0 may be taken where it came from"
    )


def test_a_quiet_release_prints_nothing_else(released: Command) -> None:
    done = released("release", "fraud", "-q")
    assert (done.out, done.err) == ("fraud@v1.1.0\n", "")


def test_a_refused_release_shows_the_report_and_the_bump_that_pays(released: Command, repo: Path) -> None:
    done = released("release", "fraud", "patch")
    assert (done.code, done.out) == (1, "")
    assert "INCOMPATIBLE" in done.err
    assert done.err.splitlines()[-1].startswith("error[gate-refused]: fraud@v1.0.1 is refused: ")
    assert "gitmodel release fraud minor" in done.err.splitlines()[-1]
    assert support.git(repo, "tag", "--list") == "fraud@v1.0.0"


def test_a_release_may_be_judged_for_a_rollback_too(released: Command, repo: Path) -> None:
    assert released("release", "fraud", "--mode", "full")
    assert "\nMode: full\n" in support.git(repo, "tag", "--list", "--format=%(contents)", "fraud@v1.1.0") + "\n"
    assert released("release", "fraud", "--mode", "transitive").code == 2


def test_a_push_shows_what_git_said(released: Command, repo: Path, tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", "--bare", str(tmp_path / "bare.git")], check=True)
    support.git(repo, "remote", "add", "production", str(tmp_path / "bare.git"))
    done = released("release", "fraud", "--push", "production")
    assert done
    assert "fraud@v1.1.0 -> fraud@v1.1.0" in done.err
    assert "next:" not in done.err
    done = released("promote", "fraud@v1.1.0", "prod", "--push", "production")
    assert done
    assert "fraud#prod#1 -> fraud#prod#1" in done.err


def test_a_promotion_prints_its_tag(released: Command, repo: Path) -> None:
    done = released("promote", "fraud@1", "prod", "-m", "It is time")
    assert (done.code, done.out, done.err) == (0, "fraud#prod#1\n", "prod is on v1.0.0\n")
    assert support.git(repo, "tag", "-l", "--format=%(contents:subject)", "fraud#prod#1") == "It is time"


def test_a_rollback_prints_its_tag_and_where_the_stage_is(released: Command) -> None:
    assert released("release", "fraud")
    done = released("rollback", "fraud")
    assert (done.code, done.out) == (0, "fraud#prod#1\n")
    assert done.err.splitlines() == ["prod is back on v1.0.0; it was on v1.1.0", "next: git push REMOTE 'fraud#prod#1'"]
    assert released("rollback", "fraud").code == 2


def test_a_compatible_change_passes(released: Command) -> None:
    done = released("check-compat")
    assert done.code == 0
    assert done.out.startswith("COMPATIBLE  fraud@v1.0.0 -> fraud")
    for sides in (["fraud@v1.0.0", "fraud"], ["fraud@v1.0.0"], ["fraud"], ["fraud@latest"]):
        again = released("check-compat", *sides).out
        assert again.replace(", remembered from an earlier check", "") == done.out


def test_one_file_is_not_two_sides(released: Command, tmp_path: Path) -> None:
    done = released("check-compat", tmp_path / "fraud-1.0.onnx")
    assert (done.code, done.out) == (2, "")
    assert "name NEW, too" in done.err


def test_a_bare_repository_without_its_remote_cannot_judge(released: Command, repo: Path, tmp_path: Path) -> None:
    assert released("release", "fraud")
    subprocess.run(["git", "clone", "-q", "--bare", str(repo), str(tmp_path / "bare.git")], check=True)
    done = released("check-compat", "fraud@v1.0.0", "fraud@v1.1.0", "--repo", tmp_path / "bare.git")
    assert done.code == 3
    assert "could not judge: the remote 'storage'" in done.out


def test_the_document_is_alone_on_stdout(released: Command, tmp_path: Path) -> None:
    done = released("check-compat", "fraud@v1.0.0", "fraud", "--format", "json")
    body = json.loads(done.out)
    assert (body["schema"], body["verdict"], body["required_bump"]) == (1, "compatible", "minor")
    assert done.err == ""


def test_a_breaking_change_fails(released: Command, repo: Path, tmp_path: Path) -> None:
    path = state.write(support.linear_model(input_name="features"), tmp_path / "renamed.onnx")
    done = released("check-compat", "fraud", path)
    assert done.code == 1
    assert "input-renamed" in done.out
    files = [state.write(support.linear_model(), tmp_path / "old.onnx"), path]
    bare = released("check-compat", *files)
    assert bare.code == 1
    assert released("check-compat", *files, "--profile", "positional").code == 0


def test_nothing_changed_is_nothing_to_judge(released: Command) -> None:
    assert released("release", "fraud")
    done = released("check-compat")
    assert (done.code, done.out) == (0, "NOTHING COMPARED  no model differs from its latest release\n")
    against = released("check-compat", "--against", "HEAD")
    assert "differs from HEAD" in against.out
    assert released("check-compat", "--against", "HEAD~1").code == 0


def test_a_revision_and_two_sides_do_not_go_together(released: Command) -> None:
    done = released("check-compat", "fraud@v1.0.0", "fraud", "--against", "HEAD")
    assert done.code == 2
    assert "not both" in done.err


def test_what_cannot_be_judged_is_code_three(released: Command, repo: Path, tmp_path: Path) -> None:
    state.clone(repo, tmp_path / "clone")
    released.folder = tmp_path / "clone"
    done = released("check-compat", "fraud@v1.0.0", "fraud@HEAD")
    assert done.code == 3
    assert done.out.startswith("UNJUDGED")
