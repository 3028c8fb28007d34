"""gitmodel.hooks.sending and hooks/pre-push: the bytes of a version are at the DVC remote before its tag is at the Git remote."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import pytest

from gitmodel import hooks
from gitmodel.workflows import release, save
from tests import support
from tests.hooks.test_hooks import lines_of, record_calls, script
from tests.serving.production import Production
from tests.workflows import state


@pytest.fixture
def production(tmp_path: Path) -> Production:
    made = Production.make(tmp_path)
    hooks.install(made.author)
    return made


def saved(production: Production, scale: float = 1.0, name: str = "fraud") -> None:
    """A model whose weights are here alone."""
    path = state.write(support.linear_model(scale=scale), production.author.parent / "model.onnx")
    save.save(name, [path], repo=production.author, message=f"{name} {scale}")


def stored(production: Production) -> int:
    return sum(path.is_file() for path in production.storage.rglob("*"))


def test_weights_go_before_the_tag(production: Production) -> None:
    saved(production)
    production.push()
    assert stored(production) == 0, "a branch alone sends nothing"
    production.tag("fraud@v1.0.0")
    (line,) = lines_of(production.push("fraud@v1.0.0"))
    assert line.startswith("sent the weights of fraud@v1.0.0: 0.0 MB new")
    assert stored(production) > 0
    clone = production.author.parent / "clone"
    support.run("git", "clone", "-q", production.bare, clone)
    assert support.gitmodel("pull", "fraud@v1.0.0", cwd=clone).returncode == 0


def test_several_tags_go_at_once_and_what_is_there_is_not_said_again(production: Production) -> None:
    saved(production)
    production.tag("fraud@v1.0.0")
    saved(production, 2.0)
    production.tag("fraud@v1.1.0")
    (line,) = lines_of(production.push("--tags"))
    assert line.startswith("sent the weights of fraud@v1.0.0, fraud@v1.1.0: ")
    production.tag("fraud@v1.1.1")
    assert lines_of(production.push("--tags")) == []


def test_a_remote_that_is_down_keeps_the_tag_here(production: Production) -> None:
    saved(production)
    production.tag("fraud@v1.0.0")
    production.lose_remote()
    production.storage.write_text("in the way")
    pushed = production.try_push("fraud@v1.0.0")
    assert pushed.returncode != 0
    (line,) = lines_of(pushed.stderr)
    assert line.startswith("the weights of fraud@v1.0.0 could not be sent, so nothing is pushed (")
    assert "--no-verify" in line
    assert support.git(production.bare, "tag") == ""
    production.push("--no-verify", "fraud@v1.0.0")
    assert support.git(production.bare, "tag") == "fraud@v1.0.0"


def test_weights_that_are_nowhere_keep_the_tag_here(production: Production) -> None:
    saved(production)
    production.tag("fraud@v1.0.0")
    shutil.rmtree(production.author / ".dvc" / "cache")
    pushed = production.try_push("fraud@v1.0.0")
    assert pushed.returncode != 0
    assert "fraud@v1.0.0" in lines_of(pushed.stderr)[0]


def test_without_a_dvc_remote_the_push_says_so_and_goes_on(production: Production) -> None:
    saved(production)
    support.run("dvc", "remote", "remove", "storage", cwd=production.author)
    production.tag("fraud@v1.0.0")
    (line,) = lines_of(production.push("fraud@v1.0.0"))
    assert line.startswith("the weights of fraud@v1.0.0 are not sent: ")
    assert support.git(production.bare, "tag") == "fraud@v1.0.0"


def test_a_release_that_is_pushed_sends_once(production: Production, tmp_path: Path) -> None:
    saved(production)
    calls = record_calls(production.author / ".git", tmp_path)
    release.release("fraud", repo=production.author, push="production")
    assert "pre-push" not in (calls.read_text() if calls.exists() else "")
    assert stored(production) > 0


def test_only_release_tags_start_python(production: Production, tmp_path: Path) -> None:
    saved(production)
    for name in ("notes", "fraud#prod#1", "other@v1.0.0", "fraud@v1.0.0!"):
        production.tag(name)
    calls = record_calls(production.author / ".git", tmp_path)
    production.push("notes", "fraud#prod#1")
    assert not calls.exists()
    production.push(":notes", "other@v1.0.0")
    assert calls.read_text().startswith("-P -m gitmodel hook pre-push\n")
    assert "notes" not in calls.read_text()
    path = production.author / ".git" / "hooks" / "pre-push"
    path.write_text(path.read_text().replace(str(tmp_path / "python"), sys.executable))
    assert lines_of(production.push("fraud@v1.0.0!")) == [], (
        "a tag without a model, or that withdraws one, has no weights"
    )


def test_a_foreign_pre_push_gets_the_same_and_may_refuse(production: Production, tmp_path: Path) -> None:
    hooks.uninstall(production.author)
    seen = tmp_path / "seen"
    script(production.author / ".git" / "hooks" / "pre-push", f"{{ echo \"$1\"; cat; }} >'{seen}'; exit 1")
    hooks.install(production.author)
    saved(production)
    production.tag("fraud@v1.0.0")
    assert production.try_push("fraud@v1.0.0").returncode != 0
    remote, first, second = seen.read_text().splitlines()
    assert remote == "production"
    assert (first.split()[2], second.split()[2]) == ("refs/heads/main", "refs/tags/fraud@v1.0.0")
    assert stored(production) == 0


def test_an_interpreter_that_is_gone_is_told_and_the_push_goes_on(production: Production) -> None:
    saved(production)
    path = production.author / ".git" / "hooks" / "pre-push"
    path.write_text(path.read_text().replace(sys.executable, "/gone/python"))
    production.tag("fraud@v1.0.0")
    assert "/gone/python is gone" in production.push("fraud@v1.0.0")


def test_a_name_with_blanks_and_strange_tags_hide_no_weights(production: Production) -> None:
    saved(production)
    support.git(production.author, "push", "-q", "production", "HEAD")
    done = support.run(
        "git", "-C", production.author, "push", "production", "main@{0 seconds ago}:refs/tags/fraud@v1.0.0"
    )
    assert done.returncode == 0, done.stderr
    assert lines_of(done.stderr)[0].startswith("sent the weights of fraud@v1.0.0")
    blob = support.git(production.author, "rev-parse", "HEAD:.dvc/config")
    support.git(production.author, "tag", "-a", "-m", "somebody's", "pkg@v1.0.0", blob)
    assert lines_of(production.push("pkg@v1.0.0")) == []


def test_a_remote_that_cannot_be_used_is_not_taken_for_none(production: Production) -> None:
    saved(production)
    production.tag("fraud@v1.0.0")
    (production.author / ".dvc" / "config").write_text("nonsense [[[\n")
    pushed = production.try_push("fraud@v1.0.0")
    assert pushed.returncode != 0
    assert "could not be sent" in lines_of(pushed.stderr)[0]


def test_from_a_branch_without_dvc_a_tag_is_pushed_with_a_word(production: Production) -> None:
    saved(production)
    production.tag("fraud@v1.0.0")
    production.push()
    support.git(production.author, "checkout", "-q", "--orphan", "pages")
    support.git(production.author, "rm", "-rqf", "--cached", ".")
    shutil.rmtree(production.author / ".dvc")
    support.git(production.author, "commit", "-q", "--allow-empty", "-m", "pages")
    (line,) = lines_of(production.push("fraud@v1.0.0"))
    assert line.startswith("the weights of fraud@v1.0.0 are not sent: ")


def test_a_module_in_the_working_tree_is_not_run(production: Production) -> None:
    """Python looks into the current folder first, unless told not to; Git runs hooks in the working tree."""
    saved(production)
    for name in ("secrets.py", "msgspec.py"):
        (production.author / name).write_text("raise SystemExit('a stranger ran')\n")
    production.tag("fraud@v1.0.0")
    (line,) = lines_of(production.push("fraud@v1.0.0"))
    assert line.startswith("sent the weights")


def test_a_linked_worktree_finds_the_weights_that_were_saved_beside_it(production: Production) -> None:
    saved(production)
    production.tag("fraud@v1.0.0")
    worktree = production.author.parent / "linked worktree"
    support.git(production.author, "worktree", "add", "-q", "--detach", str(worktree))
    done = support.run("git", "-C", worktree, "push", "--porcelain", "production", "fraud@v1.0.0")
    assert done.returncode == 0, done.stderr
    (line,) = lines_of(done.stderr)
    assert line.startswith("sent the weights of fraud@v1.0.0: ")
    assert stored(production) > 0
