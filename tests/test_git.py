"""gitmodel.git against real repositories."""

from __future__ import annotations

from pathlib import Path

import pytest

from gitmodel.git import GitFailed, NotARepository, Repository, UnknownRevision
from tests import support


def test_a_folder_outside_any_repository_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotARepository, match=str(tmp_path)):
        Repository.open(tmp_path)


def test_commit_takes_only_the_named_paths(git_repo: Path) -> None:
    (git_repo / "a").write_text("a")
    (git_repo / "b").write_text("b")
    support.git(git_repo, "add", "b")
    repo = Repository.open(git_repo)
    repo.commit(["a"], "only a")
    assert support.git(git_repo, "show", "--name-only", "--format=") == "a"
    assert repo.dirty() == ["b"]


def test_a_tag_that_exists_is_refused(git_repo: Path) -> None:
    (git_repo / "a").write_text("a")
    repo = Repository.open(git_repo)
    commit = repo.commit(["a"], "one")
    repo.tag("fraud@v1.0.0", "first", commit=commit)
    with pytest.raises(GitFailed, match="already exists"):
        repo.tag("fraud@v1.0.0", "again", commit=commit)
    assert [tag.name for tag in repo.tags("fraud@*")] == ["fraud@v1.0.0"]


@pytest.mark.parametrize("revision", ["--help", "nothing", "HEAD~99", "$(id)", ""])
def test_a_strange_revision_is_only_unknown(git_repo: Path, revision: str) -> None:
    (git_repo / "a").write_text("a")
    repo = Repository.open(git_repo)
    repo.commit(["a"], "one")
    with pytest.raises(UnknownRevision):
        repo.commit_of(revision)


def test_a_folder_reads_git_objects_and_no_links(git_repo: Path) -> None:
    (git_repo / "models").mkdir()
    (git_repo / "models" / "a").write_text("a")
    (git_repo / "models" / "link").symlink_to("/etc/passwd")
    repo = Repository.open(git_repo)
    commit = repo.commit(["models"], "one")
    folder = repo.folder(commit, "models")
    (git_repo / "models" / "a").write_text("changed on disk")
    assert folder.read("a") == b"a"
    assert folder.read("link") is None
    assert folder.read("absent") is None
    assert not repo.folder(commit, "nowhere").exists
