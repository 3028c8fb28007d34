"""gitmodel.serving.source: reads real refs and publishes the whole of what should be served."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest

from gitmodel import registry
from gitmodel.git import NotARepository, Repository
from gitmodel.serving.policy import AspiredVersion, VersionPolicy
from gitmodel.serving.source import Released, Source
from tests import support
from tests.serving.production import PATIENCE, until

Wanted = Mapping[str, tuple[AspiredVersion, ...]]
Standing = Mapping[str, Mapping[str, str]]


class Published:
    """Keeps what a source publishes, and lets a test wait for it."""

    def __init__(self) -> None:
        self.all: list[tuple[dict[str, list[str]], str]] = []
        self.standing: Standing = {}
        self.released: Released = {}
        self._changed = threading.Condition()

    def __call__(self, wanted: Wanted, hint: str, standing: Standing, released: Released) -> int:
        with self._changed:
            self.standing, self.released = standing, released
            names = {model: [version.version for version in versions] for model, versions in wanted.items()}
            self.all.append((names, hint))
            self._changed.notify_all()
            return len(self.all)

    def wait(self, count: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.all) >= count, PATIENCE)


@contextmanager
def polling(source: Source) -> Iterator[None]:
    source.start()
    try:
        yield
    finally:
        source.stop()


def commit(repo: Path, *tags: str) -> None:
    """A commit with the models fraud and spam, and annotated tags on it."""
    for model in ("fraud", "spam"):
        card = repo / "models" / model / "model.yaml"
        card.parent.mkdir(parents=True, exist_ok=True)
        card.write_text(f"{model} {' '.join(tags)}")
    support.git(repo, "add", "models")
    support.git(repo, "commit", "-qm", " ".join(["tags:", *tags]))
    for tag in tags:
        support.git(repo, "tag", "-a", "-m", tag, tag)


def test_a_look_publishes_every_model_of_the_refs_whole(git_repo: Path) -> None:
    published = Published()
    source = Source(git_repo, published)
    assert source.look() == 1
    commit(git_repo, "fraud@v1.0.0", "spam@v0.1.0", "unrelated", "spam#canary#1")
    assert source.look("fraud") == 2
    commit(git_repo, "fraud@v1.1.0")
    assert source.look() == 3
    assert published.all == [
        ({}, ""),
        ({"fraud": ["v1.0.0"], "spam": ["v0.1.0"]}, "fraud"),
        ({"fraud": ["v1.1.0"], "spam": ["v0.1.0"]}, ""),
    ]


def test_where_stages_stand_is_published_whether_they_are_followed_or_not(git_repo: Path) -> None:
    published = Published()
    commit(git_repo, "fraud@v1.0.0", "fraud#canary#1")
    commit(git_repo, "fraud@v1.1.0", "fraud#staging#1", "spam@v0.1.0")
    support.git(git_repo, "tag", "-a", "-m", "gone", "fraud#canary!#2")
    commit(git_repo, "fraud#nowhere#1")
    Source(git_repo, published).look()
    assert published.standing == {"fraud": {"staging": "v1.1.0"}, "spam": {}}


def test_only_the_models_asked_for_are_published(git_repo: Path) -> None:
    published = Published()
    commit(git_repo, "fraud@v1.0.0", "spam@v0.1.0")
    Source(git_repo, published, models=["spam"]).look()
    assert published.all == [({"spam": ["v0.1.0"]}, "")]


def test_models_asked_for_that_are_not_there_are_known(git_repo: Path) -> None:
    commit(git_repo, "fraud@v1.0.0")
    told = Source(git_repo, Published(), models=["typo", "fraud", "spam"]).missing()
    assert told == ["there is no version of 'spam' here yet", "there is no version of 'typo' here yet"]
    assert Source(git_repo, Published()).missing() == []
    told = Source(git_repo, Published(), models=["spam"]).missing({"fraud", "typo"})
    assert told == ["there is no version of 'spam' here yet", "there is no version of 'typo' here yet"]


def test_what_was_withdrawn_is_not_released(git_repo: Path) -> None:
    published = Published()
    commit(git_repo, "fraud@v1.0.0", "fraud@v1.1.0", "fraud@v1.1.0!")
    Source(git_repo, published).look()
    assert published.released == {"fraud": {("v1.0.0", support.git(git_repo, "rev-parse", "fraud@v1.0.0^{commit}"))}}


@pytest.mark.parametrize(
    ("follow", "told"),
    [
        ("v1.0.0,v9.9.9", ["there is no v9.9.9 of fraud, spam here yet"]),
        (f"v0.1.0,{'0' * 40}", [f"there is no {'0' * 40} of fraud, spam here yet"]),
        ("canary", ["there is no stage 'canary' of fraud, spam here yet"]),
        ("prod", []),
        ("latest:3", []),
        ("stages", []),
    ],
)
def test_what_is_followed_and_not_there_is_known(git_repo: Path, follow: str, told: list[str]) -> None:
    commit(git_repo, "fraud@v1.0.0", "spam@v0.1.0", "spam#prod#1")
    assert Source(git_repo, Published(), policy=VersionPolicy(follow)).missing() == told


def test_a_repository_without_versions_is_known(git_repo: Path) -> None:
    commit(git_repo)
    assert Source(git_repo, Published()).missing() == ["there is no version of any model here yet"]


def test_the_policy_decides(git_repo: Path) -> None:
    published = Published()
    commit(git_repo, "fraud@v1.0.0", "fraud#canary#1")
    commit(git_repo, "fraud@v1.1.0")
    Source(git_repo, published, policy=VersionPolicy("canary")).look()
    assert published.all == [({"fraud": ["v1.0.0"]}, "")]


def test_tags_that_mean_nothing_are_passed_over(git_repo: Path) -> None:
    published = Published()
    commit(git_repo, "fraud@v1.0.0", "fraud@v1", "fraud@v1.0.0;id", "fraud@latest", "@v1.0.0", "fraud@v01.0.0")
    Source(git_repo, published).look()
    assert published.all == [({"fraud": ["v1.0.0"]}, "")]


def test_a_lightweight_tag_is_a_version_too(git_repo: Path) -> None:
    published = Published()
    commit(git_repo)
    support.git(git_repo, "tag", "fraud@v1.0.0")
    Source(git_repo, published).look()
    assert published.all == [({"fraud": ["v1.0.0"]}, "")]


def test_a_tag_on_a_commit_without_the_model_is_passed_over(git_repo: Path) -> None:
    published = Published()
    commit(git_repo, "fraud@v1.0.0", "elsewhere@v1.0.0")
    support.git(git_repo, "rm", "-rq", "models/fraud")
    support.git(git_repo, "commit", "-qm", "gone")
    support.git(git_repo, "tag", "-a", "-m", "too late", "fraud@v1.1.0")
    Source(git_repo, published).look()
    assert published.all == [({"elsewhere": [], "fraud": ["v1.0.0"]}, "")]


def test_a_version_that_is_gone_is_published_as_gone(git_repo: Path) -> None:
    published = Published()
    commit(git_repo, "fraud@v1.0.0", "spam@v1.0.0")
    source = Source(git_repo, published)
    source.look()
    support.git(git_repo, "tag", "-d", "fraud@v1.0.0")
    commit(git_repo, "spam@v1.0.0!")
    source.look()
    assert published.all[1] == ({"spam": []}, "")


def test_a_commit_is_looked_into_once(git_repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    commit(git_repo, "fraud@v1.0.0", "fraud#prod#1")
    commit(git_repo, "fraud@v1.1.0")
    looked: list[str] = []
    holds = registry.holds

    def counted(repo: Repository, oid: str, name: str) -> bool:
        looked.append(oid)
        return holds(repo, oid, name)

    monkeypatch.setattr(registry, "holds", counted)
    published = Published()
    source = Source(git_repo, published)
    source.look()
    assert published.all == [({"fraud": ["v1.0.0"]}, "")]
    assert len(looked) == len(set(looked)) == 2
    source.look("fraud")
    assert len(looked) == 2
    commit(git_repo, "fraud@v1.2.0", "fraud#prod#2")
    source.look()
    assert published.all[-1] == ({"fraud": ["v1.2.0"]}, "")
    assert len(looked) == len(set(looked)) == 3


def test_who_asks_while_one_reads_is_served_by_the_next_reading(git_repo: Path) -> None:
    published, reading, go_on = Published(), threading.Event(), threading.Event()

    def publish(wanted: Wanted, hint: str, standing: Standing, released: Released) -> int:
        reading.set()
        assert go_on.wait(PATIENCE)
        return published(wanted, hint, standing, released)

    commit(git_repo, "fraud@v1.0.0")
    source = Source(git_repo, publish)
    with ThreadPoolExecutor(7) as pool:
        first = pool.submit(source.look, "fraud")
        assert reading.wait(PATIENCE)
        commit(git_repo, "fraud@v1.1.0")  # which the first has not read
        others = [pool.submit(source.look, hint) for hint in ["fraud"] * 5 + ["spam"]]
        until(lambda: source._asked == 7)
        go_on.set()
        numbers = [other.result(PATIENCE) for other in others]
    assert first.result() == 1
    assert published.all[0] == ({"fraud": ["v1.0.0"]}, "fraud")
    assert all(wanted == {"fraud": ["v1.1.0"]} for wanted, _ in published.all[1:])
    assert 2 <= len(published.all[1:]) <= 3  # one for spam, which may come between those for fraud
    assert all(published.all[number - 1][1] == "fraud" for number in numbers[:5])
    assert published.all[numbers[5] - 1][1] == "spam"


def test_without_a_hint_the_refs_are_read_every_so_often(git_repo: Path) -> None:
    published = Published()
    commit(git_repo, "fraud@v1.0.0")
    with polling(Source(git_repo, published, poll=0.01)):
        published.wait(2)
        commit(git_repo, "fraud@v1.1.0")
        published.wait(len(published.all) + 2)
    assert published.all[0] == ({"fraud": ["v1.0.0"]}, "")
    assert published.all[-1] == ({"fraud": ["v1.1.0"]}, "")


def test_a_repository_that_is_away_for_a_while_is_an_error_and_no_end(git_repo: Path) -> None:
    published = Published()
    commit(git_repo, "fraud@v1.0.0")
    source = Source(git_repo, published, poll=0.01)
    away = git_repo.with_name("away")
    git_repo.rename(away)
    with pytest.raises(NotARepository):
        source.look()
    with polling(source):
        until(lambda: source.error)
        assert "no folder" in source.error
        away.rename(git_repo)
        published.wait(2)
    assert source.error == ""


def test_stop_ends_a_long_pause_at_once(git_repo: Path) -> None:
    source = Source(git_repo, Published(), poll=3600.0)
    with polling(source):
        pass
    assert not source._thread.is_alive()
