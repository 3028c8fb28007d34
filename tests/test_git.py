"""gitmodel.git against real repositories."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from gitmodel.git import GitFailed, NotARepository, Repository, UnknownRevision, batches, folders
from tests import support


def test_a_folder_outside_any_repository_is_named(tmp_path: Path) -> None:
    with pytest.raises(NotARepository, match=str(tmp_path)):
        Repository.open(tmp_path)


def committed(root: Path) -> tuple[Repository, str]:
    """A repository with one file in one commit."""
    (root / "m").mkdir()
    (root / "m" / "a").write_text("a")
    repo = Repository.open(root)
    return repo, repo.commit_folder("m", "one", but=["m/weights"])


def test_a_folder_is_committed_whole_and_nothing_else(git_repo: Path) -> None:
    committed(git_repo)
    (git_repo / "m" / "a").unlink()
    (git_repo / "m" / "ignored").write_text("i")
    (git_repo / ".gitignore").write_text("ignored\n")
    (git_repo / "m" / "weights").mkdir()
    (git_repo / "m" / "weights" / "w").write_text("w")
    (git_repo / "b").write_text("b")
    support.git(git_repo, "add", "b")
    repo = Repository.open(git_repo)
    assert repo.commit_folder("m", "two", but=["m/weights"]) == repo.head()
    assert support.git(git_repo, "show", "--name-status", "--format=", "--no-renames").split() == [
        "D", "m/a", "A", "m/ignored",
    ]  # fmt: skip
    assert set(repo.dirty()) == {"b", ".gitignore", "m/weights/w"}


def test_nothing_to_commit_makes_no_commit(git_repo: Path) -> None:
    repo, first = committed(git_repo)
    assert repo.commit_folder("m", "again", but=["m/weights"]) == ""
    assert repo.head() == first


def test_a_tag_that_exists_is_refused(git_repo: Path) -> None:
    repo, commit = committed(git_repo)
    repo.tag("fraud@v1.0.0", "first", commit=commit)
    with pytest.raises(GitFailed, match="already exists"):
        repo.tag("fraud@v1.0.0", "again", commit=commit)
    assert [tag.name for tag in repo.tags("fraud@*")] == ["fraud@v1.0.0"]


def test_a_tag_of_a_tag_is_on_the_commit_in_the_end(git_repo: Path) -> None:
    support.git(git_repo, "commit", "--allow-empty", "-qm", "one")
    for name, target in (("a", "HEAD"), ("b", "a"), ("c", "b")):
        support.git(git_repo, "tag", "-a", "-m", name, name, target)
    support.git(git_repo, "tag", "-a", "-m", "no commit", "tree", "HEAD^{tree}")
    support.git(git_repo, "tag", "-a", "-m", "of no commit", "of-tree", "tree")
    repo = Repository.open(git_repo)
    assert [(tag.name, tag.commit) for tag in repo.tags()] == [(name, repo.head()) for name in "abc"]


@pytest.mark.parametrize("revision", ["--help", "nothing", "HEAD~99", "$(id)", ""])
def test_a_strange_revision_is_only_unknown(git_repo: Path, revision: str) -> None:
    repo, _ = committed(git_repo)
    with pytest.raises(UnknownRevision):
        repo.commit_of(revision)


def test_a_folder_reads_git_objects_and_no_links(git_repo: Path) -> None:
    (git_repo / "models").mkdir()
    (git_repo / "models" / "a").write_text("a")
    (git_repo / "models" / "link").symlink_to("/etc/passwd")
    repo = Repository.open(git_repo)
    commit = repo.commit_folder("models", "one", but=["models/weights"])
    folder = repo.folder(commit, "models")
    (git_repo / "models" / "a").write_text("changed on disk")
    assert folder.read("a") == b"a"
    assert folder.read("link") is None
    assert folder.read("absent") is None
    assert not repo.folder(commit, "nowhere").exists


def test_a_name_with_a_line_break_is_one_question(git_repo: Path) -> None:
    names = ["a\nHEAD", "b\x1b", "x\udcff", "plain"]
    for name in names:
        (git_repo / name).mkdir()
        (git_repo / name / "file").write_text(ascii(name))
    support.git(git_repo, "add", "-A")
    support.git(git_repo, "commit", "-qm", "Names")
    repo = Repository.open(git_repo)
    head = repo.head()
    for _ in range(2):  # an answer that is left over would be given to the next question
        for name in names:
            assert repo.folder(head, name).read("file") == ascii(name).encode()
            assert not repo.folder(head, f"{name}/file").exists
            assert not repo.folder(head, f"no/{name}").exists


def test_a_tree_that_git_cannot_read_is_told_in_its_words(git_repo: Path) -> None:
    (git_repo / "models" / "m").mkdir(parents=True)
    (git_repo / "models" / "m" / "file").write_text("x")
    support.git(git_repo, "add", ".")
    support.git(git_repo, "commit", "-qm", "one")
    repository = Repository.open(git_repo)
    folder = repository.folder(repository.head(), "models/m")
    tree = folder.object_id
    (git_repo / ".git" / "objects" / tree[:2] / tree[2:]).unlink()
    with pytest.raises(GitFailed, match="git ls-tree failed"):
        folder.files()


def test_folders_are_read_together(git_repo: Path) -> None:
    files = {"a/one": b"1\n", "a/deep/two": b"\x00\xff", "b/one": b"", "c/one": b"1\n", "ab/one": b"no"}
    for name, data in files.items():
        (git_repo / name).parent.mkdir(parents=True, exist_ok=True)
        (git_repo / name).write_bytes(data)
    (git_repo / "a" / "link").symlink_to("one")
    support.git(git_repo, "add", "-A")
    support.git(git_repo, "commit", "-qm", "Files")
    repo = Repository.open(git_repo)
    found = folders(repo, repo.head(), ["a", "a/deep", "b", "missing", *(f"no{n}" for n in range(2500))])
    assert sorted(found) == ["a", "a/deep", "b"]
    assert found["a"].files() == ["deep/two", "link", "one"]
    assert [found["a"].read(path) for path in ("one", "deep/two", "link", "absent")] == [
        b"1\n",
        b"\x00\xff",
        None,
        None,
    ]
    assert (found["a/deep"].read("two"), found["b"].read("one")) == (b"\x00\xff", b"")
    assert found["a"].ids() == repo.folder(repo.head(), "a").ids()
    assert found["a"].ids("deep") == repo.folder(repo.head(), "a").ids("deep")
    assert (found["a"].has("one"), found["a"].has("deep")) == (True, False)
    assert folders(repo, repo.head(), []) == {}


def test_an_object_that_is_missing_is_named(git_repo: Path) -> None:
    support.git(git_repo, "commit", "-q", "--allow-empty", "-m", "Start")
    repo = Repository.open(git_repo)
    with pytest.raises(GitFailed, match="no blob 1234"):
        batches.read_all(repo, ["1234" * 10])
    with pytest.raises(GitFailed, match="no blob"):
        batches.read_all(repo, [repo.head()])


def test_the_commit_two_branches_grew_from(git_repo: Path) -> None:
    support.git(git_repo, "commit", "-q", "--allow-empty", "-m", "Start")
    repo = Repository.open(git_repo)
    start = repo.head()
    support.git(git_repo, "commit", "-q", "--allow-empty", "-m", "Next")
    assert repo.merge_base(start, repo.head()) == start
    tree = support.git(git_repo, "rev-parse", "HEAD^{tree}")
    assert repo.merge_base(start, support.git(git_repo, "commit-tree", "-m", "Alone", tree)) == ""


def test_working_trees_are_listed_while_they_are_there(git_repo: Path, tmp_path: Path) -> None:
    support.git(git_repo, "commit", "-q", "--allow-empty", "-m", "one")
    linked = tmp_path / "linked tree"
    support.git(git_repo, "worktree", "add", "-q", "--detach", str(linked))
    for root in (git_repo, linked):
        assert Repository.open(root).worktrees() == [git_repo.resolve(), linked.resolve()]
        assert Repository.open(root).is_linked is (root == linked)
    shutil.rmtree(linked)
    assert Repository.open(git_repo).worktrees() == [git_repo.resolve()]
    bare = tmp_path / "bare.git"
    support.git(tmp_path, "init", "-q", "--bare", str(bare))
    assert Repository.open(bare).worktrees() == []
