"""hooks/update: what was pushed as a release or a stage neither moves nor goes; everything else is as it was."""

from __future__ import annotations

from pathlib import Path

import pytest

from gitmodel import hooks
from tests import support
from tests.hooks.test_hooks import script
from tests.serving.production import Production, said

TAGS = ("fraud@v1.0.0", "fraud#prod#1", "fraud@v1.0.0-rc.1", "fraud@v0.9.0!", "fraud#prod!#2", "fraud#dev")


@pytest.fixture(scope="module")
def production(tmp_path_factory: pytest.TempPathFactory) -> Production:
    made = Production.make(tmp_path_factory.mktemp("update"))
    hooks.install(made.bare, server=True)
    made.save(support.linear_model())
    for name in (*TAGS, "v1", "notes", "fraud@deprecated", "c#"):
        made.tag(name)
    made.push("--tags")
    return made


def object_of(repo: Path, name: str) -> str:
    return support.git(repo, "rev-parse", f"refs/tags/{name}")


@pytest.mark.parametrize("name", TAGS)
def test_a_tag_of_ours_neither_moves_nor_goes(production: Production, name: str) -> None:
    before = object_of(production.bare, name)
    support.git(production.author, "tag", "-f", "-a", "-m", "moved", "--", name)
    moved = production.try_push(f"+refs/tags/{name}")
    assert moved.returncode != 0
    (line,) = said(moved.stderr)
    assert line.startswith(f"'{name}' is here already and does not move")
    gone = production.try_push(f":refs/tags/{name}")
    assert gone.returncode != 0
    assert said(gone.stderr)[0].startswith(f"'{name}' stays")
    assert object_of(production.bare, name) == before


@pytest.mark.parametrize("name", ["v1", "notes", "fraud@deprecated", "c#"])
def test_other_tags_are_as_free_as_ever(production: Production, name: str) -> None:
    support.git(production.author, "tag", "-f", "-a", "-m", "moved", "--", name)
    production.push(f"+refs/tags/{name}")
    assert object_of(production.bare, name) == object_of(production.author, name)
    production.push(f":refs/tags/{name}")
    assert name not in support.git(production.bare, "tag").split()


@pytest.mark.parametrize("name", ["build#nightly", "docs#latest", "web@v1.2.3"])
def test_tags_of_what_is_no_model_here_are_nobodys_but_theirs(production: Production, name: str) -> None:
    production.tag(name)
    production.push(name)
    support.git(production.author, "tag", "-f", "-a", "-m", "moved", "--", name)
    production.push(f"+refs/tags/{name}")
    production.push(f":refs/tags/{name}")
    assert name not in support.git(production.bare, "tag").split()


def test_what_is_refused_holds_back_nothing_else(production: Production) -> None:
    production.tag("spam@v1.0.0")  # of no model
    pushed = production.try_push(":refs/tags/fraud@v1.0.0", "refs/tags/spam@v1.0.0")
    assert pushed.returncode != 0
    assert {"fraud@v1.0.0", "spam@v1.0.0"} <= set(support.git(production.bare, "tag").split())


def test_branches_may_be_forced_and_deleted(production: Production) -> None:
    support.git(production.author, "commit", "--allow-empty", "-qm", "aside")
    support.git(production.author, "push", "-q", "production", "HEAD:refs/heads/a@v1.0.0")
    support.git(production.author, "reset", "-q", "--hard", "HEAD~1")
    for ref in ("+HEAD:refs/heads/a@v1.0.0", ":refs/heads/a@v1.0.0"):
        support.git(production.author, "push", "-q", "production", ref)
    assert support.git(production.bare, "branch", "--list", "a@*") == ""


def test_a_foreign_update_is_asked_first_and_its_no_counts(tmp_path: Path) -> None:
    production = Production.make(tmp_path)
    seen = tmp_path / "seen"
    script(production.bare / "hooks" / "update", f"echo \"$1\" >>'{seen}'; case $1 in *secret*) echo no; exit 7;; esac")
    found = {item.name: item.chained for item in hooks.install(production.bare, server=True)}
    assert found == {"update": True, "post-receive": False}
    production.save(support.linear_model())
    production.push("HEAD:refs/heads/fine")
    refused = production.try_push("HEAD:refs/heads/secret")
    assert refused.returncode != 0
    assert "remote: no" in refused.stderr
    assert seen.read_text().splitlines() == ["refs/heads/main", "refs/heads/fine", "refs/heads/secret"]
