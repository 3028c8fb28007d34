"""``init``: a Git repository becomes a model repository, twice as well as once, and what the user has stays."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from gitmodel.git import NotARepository
from gitmodel.workflows.init import init
from gitmodel.workflows.workspace import NeedsWorkingTree
from tests import support
from tests.workflows import state


def test_what_is_written_is_staged_and_not_committed(git_repo: Path) -> None:
    result = init(git_repo, remote="/srv/storage")
    assert len(result.done) == 3
    staged = support.git(git_repo, "diff", "--cached", "--name-only").splitlines()
    assert {".dvc/config", ".gitattributes"} <= set(staged)
    assert support.git(git_repo, "status", "--porcelain", "--untracked-files=all").count("??") == 0
    assert support.git(git_repo, "rev-parse", "--verify", "-q", "HEAD", check=False) == ""


@pytest.mark.parametrize("remote", ["", "../storage", "/srv/storage", "s3://bucket/weights"])
def test_a_second_time_changes_nothing(git_repo: Path, remote: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(git_repo)
    init(remote=remote)
    before = state.whole(git_repo)
    assert init(remote=remote).done == ()
    assert state.whole(git_repo) == before


def test_the_users_attributes_and_dvc_settings_stay(git_repo: Path) -> None:
    support.run("dvc", "init", "-q", cwd=git_repo)
    support.run("dvc", "config", "core.autostage", "true", cwd=git_repo)
    (git_repo / ".gitattributes").write_text("*.png binary")
    result = init(git_repo, remote="/srv/storage")
    assert "DVC set up (.dvc/)" not in result.done
    lines = (git_repo / ".gitattributes").read_text().splitlines()
    assert lines[0] == "*.png binary"
    assert "models/**/weights.lock text eol=lf -merge" in lines
    assert "autostage = true" in (git_repo / ".dvc" / "config").read_text()


def test_the_attributes_keep_locks_and_goldens_as_they_are(repo: Path) -> None:
    shown = support.git(repo, "check-attr", "text", "eol", "merge", "--", "models/fraud/weights.lock").splitlines()
    assert [line.rpartition(": ")[2] for line in shown] == ["set", "lf", "unset"]
    golden = "models/fraud/golden/x/test_data_set_0/input_0.pb"
    assert support.git(repo, "check-attr", "text", "--", golden).endswith("text: unset")


def test_a_folder_deep_in_the_repository_will_do(git_repo: Path) -> None:
    (git_repo / "a" / "b").mkdir(parents=True)
    assert init(git_repo / "a" / "b").root == git_repo
    assert (git_repo / ".dvc" / "config").is_file()
    assert not (git_repo / "a" / "b" / ".dvc").exists()


def test_a_bare_repository_and_no_repository_are_refused(tmp_path: Path) -> None:
    bare = tmp_path / "bare.git"
    subprocess.run(["git", "init", "-q", "--bare", str(bare)], check=True)
    with pytest.raises(NeedsWorkingTree):
        init(bare)
    with pytest.raises(NotARepository, match="git init"):
        init(tmp_path)
    with pytest.raises(NotARepository, match="there is no folder"):
        init(tmp_path / "absent")
