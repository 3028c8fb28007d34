"""What is asked of all models at once takes as many questions to Git as for one, and gives the same answers."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import git
import pytest

from gitmodel import registry
from gitmodel.compat.verdict import Verdict
from gitmodel.git import Repository
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


def test_the_date_of_a_model_is_that_of_the_last_commit_that_changed_it(
    repo: Path, save_model: Callable[..., object], monkeypatch: pytest.MonkeyPatch
) -> None:
    def at(second: int) -> None:
        for who in ("AUTHOR", "COMMITTER"):
            monkeypatch.setenv(f"GIT_{who}_DATE", f"{1_700_000_000 + second} +0000")

    for number, name in enumerate((*FEW, *MANY)):
        at(number)
        save_model(name)
    at(10)
    support.git(repo, "switch", "-qc", "side")
    save_model("m1", scale=2.0)
    at(11)
    save_model("m4", scale=2.0)
    support.git(repo, "switch", "-q", "-")
    at(12)
    save_model("m4", scale=3.0)
    at(13)
    support.git(repo, "merge", "-q", "--no-commit", "-s", "ours", "side")
    support.git(repo, "checkout", "-q", "side", "--", "models/m1")
    (repo / "models/m5/metrics.yaml").write_text("accuracy: 0.5\n")  # a change of the merge's own
    support.git(repo, "add", "models")
    support.git(repo, "commit", "-qm", "Merge")
    (repo / "models/m0/notes.txt").write_text("not committed")
    found = Repository.open(repo).changed("models")
    for name in (*FEW, *MANY):
        assert f"{found[name].timestamp():.0f}" == support.git(
            repo, "log", "-1", "--format=%at", "--", f"models/{name}"
        )
    assert {row.name: row.date for row in listing.list_models(repo)} == found
    assert [int(found[name].timestamp()) % 100 for name in ("m1", "m4", "m5")] == [10, 12, 13]


def test_only_what_differs_is_judged(repo: Path, released: Callable[[str], None]) -> None:
    for name in FEW:
        released(name)
    assert check.check_changed(repo) == []
    (repo / "models/m1/metrics.yaml").write_text("accuracy: 0.5\n")
    report = check.check_changed(repo)[0]
    assert (report.model, report.verdict) == ("m1", Verdict.COMPATIBLE)
    support.git(repo, "rm", "-rq", "--cached", "models/m0")
    assert [report.model for report in check.check_changed(repo)] == ["m0", "m1"]
