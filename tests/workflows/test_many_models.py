"""What is asked of all models at once takes as many questions to Git as for one, and gives the same answers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import git
import pytest

from gitmodel import registry
from gitmodel.compat.verdict import Verdict
from gitmodel.git import Repository, last_changed
from gitmodel.serving.policy import VersionPolicy
from gitmodel.serving.source import Source
from gitmodel.workflows import check, listing, transfer
from gitmodel.workflows.release import promote, release
from tests import support

FEW, MANY = ("m0", "m1"), ("m2", "m3", "m4", "m5")


@pytest.fixture
def released(repo: Path, save_model: Callable[..., object]) -> Callable[[str], None]:
    """Saves a model, releases it and puts a stage on it."""

    def make(name: str) -> None:
        save_model(name, scale=1.0 + int(name[1:]))
        release(name, repo=repo)
        promote(f"{name}@latest", "prod", repo=repo)

    return make


def look(repo: Path) -> None:
    def publish(*_: object) -> int:
        return 1

    Source(repo, publish, policy=VersionPolicy()).look()


@pytest.mark.parametrize(
    "ask",
    [
        listing.list_models,
        check.check_changed,
        lambda repo: transfer.push(repo=repo),
        look,
    ],
    ids=["list", "check-compat", "push", "serve"],
)
def test_git_is_asked_as_often_for_many_models_as_for_few(
    repo: Path, released: Callable[[str], None], ask: Callable[[Path], object], monkeypatch: pytest.MonkeyPatch
) -> None:
    commands: list[object] = []
    execute = git.Git.execute

    def counted(self: git.Git, command: list[str], *args: object, **options: object) -> object:
        commands.append(command)
        return execute(self, command, *args, **options)  # type: ignore[call-overload]  # passed on

    for name in FEW:
        released(name)
    monkeypatch.setattr(git.Git, "execute", counted)
    ask(repo)
    few = len(commands)
    for name in MANY:
        released(name)
    commands.clear()
    ask(repo)
    assert few > 0
    assert len(commands) == few


def test_all_are_told_what_each_is_told(repo: Path, released: Callable[[str], None]) -> None:
    for name in (*FEW, *MANY):
        released(name)
    support.git(repo, "tag", "m3@v1.0.0!", "m3@v1.0.0^{}")
    support.git(repo, "tag", "m9#prod#1", "HEAD")
    opened = Repository.open(repo)
    found = registry.all_versions(opened)
    assert found == {name: registry.versions(opened, name) for name in (*FEW, *MANY)}
    assert [name for name, known in found.items() if known.latest is None] == ["m3"]
    assert registry.all_stages(opened, found) == {name: registry.stages(opened, name) for name in found}


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Sets Git's clock, in seconds."""

    def set_to(second: int) -> None:
        for who in ("AUTHOR", "COMMITTER"):
            monkeypatch.setenv(f"GIT_{who}_DATE", f"{1_700_000_000 + second} +0000")

    return set_to


def write(repo: Path, path: str, text: str) -> None:
    (repo / "models" / path).parent.mkdir(parents=True, exist_ok=True)
    (repo / "models" / path).write_text(text)
    support.git(repo, "add", "--all", "models")


def commit(repo: Path, *args: str) -> None:
    support.git(repo, "commit", "-q", "--allow-empty", "-m", "Next", *args)


def check_dates(repo: Path) -> dict[str, int]:
    """The second of each folder, which must be Git's own."""
    found = last_changed(Repository.open(repo), "models")
    for name in support.git(repo, "ls-tree", "--name-only", "HEAD:models").split():
        assert f"{found[name].timestamp():.0f}" == support.git(
            repo, "log", "-1", "--format=%at", "--", f"models/{name}"
        ), name
    return {name: int(date.timestamp()) - 1_700_000_000 for name, date in found.items()}


def test_dates_are_those_of_git_log_along_merges(git_repo: Path, at: Callable[[int], None]) -> None:
    at(0)
    for name in "abcdef":
        for file in ("one", "two"):
            write(git_repo, f"{name}/{file}", f"{name} {file}\n" * 9)
    commit(git_repo)
    at(1)
    commit(git_repo)  # of nothing
    support.git(git_repo, "switch", "-qc", "side")
    for second, path in ((2, "a/one"), (3, "b/one"), (4, "c/one")):
        at(second)
        write(git_repo, path, f"side {second}\n")
        commit(git_repo)
    support.git(git_repo, "switch", "-q", "-")
    at(5)
    write(git_repo, "b/two", "main\n")
    commit(git_repo)
    at(6)
    write(git_repo, "d/\u00fc.json", "main\n")  # Git would quote it
    commit(git_repo)
    at(7)
    support.git(git_repo, "merge", "-q", "--no-commit", "side")
    support.git(git_repo, "checkout", "-q", "HEAD", "--", "models/c")  # the side's is thrown away
    write(git_repo, "e/one", "the merge's own\n")
    commit(git_repo)
    assert check_dates(git_repo) == {"a": 2, "b": 7, "c": 0, "d": 6, "e": 7, "f": 0}
    at(8)
    support.git(git_repo, "mv", "models/f/one", "models/a/moved")
    commit(git_repo)
    support.git(git_repo, "rm", "-rq", "models/e")
    at(9)
    commit(git_repo)
    write(git_repo, "a/not-committed", "x")
    support.git(git_repo, "config", "log.showRoot", "false")
    found = check_dates(git_repo)
    assert (found["a"], found["f"], found["c"]) == (8, 8, 0)


def test_dates_are_those_of_git_log_in_a_shallow_clone_and_where_clocks_are_wrong(
    git_repo: Path, at: Callable[[int], None], tmp_path: Path
) -> None:
    for second, path in ((9, "a/one"), (5, "b/one"), (1, "a/two"), (7, "c/one")):
        at(second)
        write(git_repo, path, f"{second}\n")
        commit(git_repo)
    assert check_dates(git_repo) == {"a": 1, "b": 5, "c": 7}
    support.git(tmp_path, "clone", "-q", "--depth", "2", f"file://{git_repo}", "shallow")
    assert check_dates(tmp_path / "shallow") == {"a": 1, "b": 1, "c": 7}
    support.git(git_repo, "rm", "-rq", "models")
    commit(git_repo)
    support.git(git_repo, "checkout", "-q", "--orphan", "empty")
    commit(git_repo)
    assert last_changed(Repository.open(git_repo), "models") == {}


def test_the_rows_have_these_dates(repo: Path, save_model: Callable[..., object], at: Callable[[int], None]) -> None:
    for number, name in enumerate(FEW):
        at(number)
        save_model(name)
    assert {row.name: row.date for row in listing.list_models(repo)} == last_changed(Repository.open(repo), "models")


def test_only_what_differs_is_judged(repo: Path, released: Callable[[str], None]) -> None:
    for name in FEW:
        released(name)
    assert check.check_changed(repo) == []
    (repo / "models/m1/metrics.yaml").write_text("accuracy: 0.5\n")
    report = check.check_changed(repo)[0]
    assert (report.model, report.verdict) == ("m1", Verdict.COMPATIBLE)
    support.git(repo, "rm", "-rq", "--cached", "models/m0")
    assert [report.model for report in check.check_changed(repo)] == ["m0", "m1"]
