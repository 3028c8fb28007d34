"""``gc``: what goes and what stays, by each rule; where others may keep their weights it refuses; killed, it has harmed nothing."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gitmodel.bundle.lock import FileEntry, Lock
from gitmodel.history.past import Change, History, Mention, Why
from gitmodel.history.remotes import PartialHistory
from gitmodel.storage.cache import Cache
from gitmodel.storage.pointer import Pointer
from gitmodel.storage.setup import NotInitialised
from gitmodel.workflows.fsck import fsck
from gitmodel.workflows.gc import Collected, SharedPlace, gc
from gitmodel.workflows.retention import DEFAULT_AGE, DEFAULT_LAST, InvalidAge, Policy, kept, parse_age
from gitmodel.workflows.workspace import NeedsWorkingTree
from tests import support
from tests.workflows import state

#: Nothing is kept for its age: what counts is named in the test.
NOW = Policy(last=1, younger=timedelta(0))
OLD_DATE = "2020-01-01T00:00:00+0000"


class Shop:
    """A repository with bundles made by hand, quickly: state ``n`` of a model has a file of its own and one all share."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.repo, self.storage = folder, folder / "repo", folder / "storage"
        self.root = self.repo / ".dvc" / "cache"
        self.date = OLD_DATE

    @classmethod
    def make(cls, folder: Path) -> Shop:
        folder.mkdir(exist_ok=True)
        state.model_repository(folder)
        return cls(folder)

    def git(self, *args: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(self.repo), *args], capture_output=True, text=True, check=False,
            env={**os.environ, "GIT_COMMITTER_DATE": self.date, "GIT_AUTHOR_DATE": self.date},
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def write(self, text: str, name: str = "fraud", path: str = "own") -> None:
        """Lays a bundle down, its objects as old as can be."""
        cache, folder = Cache(self.root), self.repo / "models" / name
        folder.mkdir(parents=True, exist_ok=True)
        files = [cache.add(data.encode()).entry(path) for path, data in ((path, text), ("shared", "shared"))]
        lock = Lock.of([], files)
        (folder / "model.yaml").write_text("schema_version: 1\n")
        (folder / "weights.lock").write_text(lock.to_text())
        (folder / "weights.dvc").write_text(Pointer(cache.add_directory(files), lock.size, 2, "weights").to_yaml())
        self.age()

    def commit(self, text: str, name: str = "fraud", date: str = OLD_DATE) -> str:
        self.write(text, name)
        self.date = date
        self.git("add", "-A", "-f", "models")
        self.git("commit", "-qm", text)
        return self.git("rev-parse", "HEAD")

    def tag(self, name: str, *where: str) -> None:
        self.git("tag", "-a", "-m", name, name, *where)

    def age(self, root: Path | None = None) -> None:
        for path in (root or self.root).rglob("*"):
            if path.is_file():
                os.utime(path, (1_000_000_000, 1_000_000_000))

    def texts(self, root: Path | None = None) -> set[str]:
        """What the stored files of bundles say: ``one`` is there as long as that state can be restored."""
        base = (root or self.root) / "files" / "md5"
        return {path.read_text() for path in base.rglob("*") if path.is_file() and path.suffix != ".dir"}

    def listings(self) -> int:
        return len(list((self.root / "files" / "md5").rglob("*.dir")))

    def gc(self, policy: Policy = NOW, **options: Any) -> Collected:
        return gc(repo=self.repo, policy=policy, **options)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("template") / "shop"
    Shop.make(folder)
    return folder


@pytest.fixture
def shop(template: Path, tmp_path: Path) -> Shop:
    shutil.copytree(template, tmp_path / "shop", symlinks=True)
    return Shop(tmp_path / "shop")


def test_it_only_says_what_would_go_until_it_is_told_to(shop: Shop) -> None:
    commit = shop.commit("one")
    shop.commit("two!")
    before = state.whole(shop.repo)
    plan = shop.gc()
    assert state.whole(shop.repo) == before
    (going,) = plan.going
    assert (going.label, going.size, going.whole, going.files) == (f"fraud@{commit[:10]}", 3, 9, 1)
    assert going.date == datetime(2020, 1, 1, tzinfo=UTC)
    assert (plan.objects, plan.applied) == (2, False)
    assert plan.keeps == {"working tree": ["fraud"]}
    done = shop.gc(apply=True)
    assert (done.going, done.objects, done.size, done.applied) == (plan.going, 2, plan.size, True)
    assert shop.texts() == {"two!", "shared"}
    assert shop.listings() == 1
    assert shop.gc().objects == 0


def test_what_people_name_stays(shop: Shop, tmp_path: Path) -> None:
    for text in ("released", "withdrawn", "staged", "staged before", "tagged"):
        shop.commit(text)
    shop.tag("fraud@v1.0.0", "HEAD~4")
    shop.tag("fraud@v1.1.0", "HEAD~3")
    shop.tag("fraud@v1.1.0!", "HEAD~3")
    shop.tag("fraud#prod#2", "HEAD~2")
    shop.tag("fraud#prod#1", "HEAD~1")
    shop.tag("paper", "HEAD")
    shop.git("switch", "-qc", "side")
    shop.commit("branch")
    shop.git("switch", "-q", "main")
    shop.commit("nobody's")
    shop.commit("detached")
    shop.git("worktree", "add", "-q", "--detach", str(tmp_path / "second"))
    shop.git("reset", "-q", "--hard", "HEAD~1")
    shop.commit("head")
    shop.write("stashed")
    shop.git("stash", "push", "-q")
    shop.write("in the index")
    shop.git("add", "-A", "models")
    shop.write("in the working tree")
    done = shop.gc(apply=True)
    assert [going.label.partition("@")[0] for going in done.going] == ["fraud"]
    assert shop.texts() == {
        "released", "withdrawn", "staged", "staged before", "tagged", "branch", "detached", "head", "stashed", "in the index",
        "in the working tree", "shared",
    }  # fmt: skip
    assert fsck(repo=shop.repo).open == []


def test_the_last_states_of_each_model_on_each_branch_stay(shop: Shop) -> None:
    for text in ("a1", "a2", "a3", "a4"):
        shop.commit(text)
    for text in ("b1", "b2"):
        shop.commit(text, "spam")
    shop.git("switch", "-qc", "side", "HEAD~4")
    for text in ("s1", "s2", "s3"):
        shop.commit(text)
    shop.git("switch", "-q", "main")
    done = shop.gc(Policy(last=2, younger=timedelta(0)), apply=True)
    assert shop.texts() == {"a3", "a4", "b1", "b2", "s2", "s3", "shared"}
    assert done.keeps["last 2"]


def test_a_state_that_comes_back_counts_once(shop: Shop) -> None:
    for text in ("one", "two", "one", "two", "one"):
        shop.commit(text)
    shop.gc(Policy(last=2, younger=timedelta(0)), apply=True)
    assert shop.texts() == {"one", "two", "shared"}


def test_what_was_in_use_lately_stays(shop: Shop) -> None:
    recent = (datetime.now(UTC) - timedelta(days=2)).strftime("%Y-%m-%dT%H:%M:%S+0000")
    shop.commit("long gone")
    shop.commit("replaced lately")
    shop.commit("made lately", date=recent)
    shop.commit("reset away lately", date=recent)
    shop.git("reset", "-q", "--hard", "HEAD~1")
    shop.commit("head", date=recent)
    done = shop.gc(Policy(last=1, younger=timedelta(days=7)), apply=True)
    assert shop.texts() == {"replaced lately", "made lately", "reset away lately", "head", "shared"}
    assert "young" in done.keeps
    shop.gc(Policy(last=1, younger=timedelta(days=1)), apply=True)
    assert shop.texts() == {"head", "shared"}


def test_an_old_state_below_a_young_commit_that_was_reset_away_stays(shop: Shop) -> None:
    shop.commit("base")
    shop.git("switch", "-qc", "side")
    shop.commit("old on the side")
    shop.date = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S+0000")
    shop.git("commit", "-q", "--allow-empty", "-m", "young, and of no weights")
    shop.git("switch", "-q", "main")
    shop.git("branch", "-q", "-D", "side")
    shop.gc(Policy(last=1, younger=timedelta(days=7)), apply=True)
    assert "old on the side" in shop.texts()


def test_old_bytes_that_were_fetched_lately_stay(shop: Shop) -> None:
    shop.commit("one")
    shop.commit("two")
    for path in (shop.root / "files").rglob("*"):
        if path.is_file() and path.read_bytes() == b"one":
            os.utime(path)
    done = shop.gc(Policy(last=1, younger=timedelta(days=1)), apply=True)
    assert (done.young, done.going) == (1, ())
    assert "one" in shop.texts()


def test_what_nobody_names_goes_when_it_is_old(shop: Shop) -> None:
    shop.commit("one")
    Cache(shop.root).add(b"a minute old")
    before = shop.gc(apply=True)
    assert (before.unnamed, "a minute old" in shop.texts()) == (0, True), "somebody may be about to name it"
    shop.age()
    done = shop.gc(apply=True)
    assert (done.unnamed, done.unnamed_size) == (1, 12)
    assert shop.texts() == {"one", "shared"}


def test_other_dvc_data_never_goes(shop: Shop) -> None:
    (shop.repo / "data").mkdir()
    for name in ("a", "b"):
        (shop.repo / "data" / name).write_text(f"data {name}")
    (shop.repo / "in").write_text("in")
    (shop.repo / "dvc.yaml").write_text("stages:\n  s:\n    cmd: cp in out\n    deps: [in]\n    outs: [out]\n")
    assert support.run("dvc", "add", "-q", "data", cwd=shop.repo).returncode == 0
    assert support.run("dvc", "repro", "-q", cwd=shop.repo).returncode == 0
    shop.git("add", "-A")
    shop.git("commit", "-qm", "data")
    shop.git("rm", "-q", "data.dvc", "dvc.lock", "dvc.yaml")
    shop.git("commit", "-qm", "no data")
    shop.commit("one")
    shop.commit("two")
    shop.age()
    shop.gc(apply=True)
    assert shop.texts() == {"data a", "data b", "in", "two", "shared"}


def test_bytes_that_other_dvc_data_shares_with_an_old_state_stay(shop: Shop) -> None:
    shop.commit("one")
    (shop.repo / "copy").write_text("one")
    assert support.run("dvc", "add", "-q", "copy", cwd=shop.repo).returncode == 0
    shop.commit("two")
    shop.age()
    assert shop.gc(apply=True).going == ()
    assert "one" in shop.texts()


@pytest.mark.parametrize("where", ["remote", "nowhere"])
def test_a_folder_whose_listing_is_not_here_is_not_taken_for_nobodys(shop: Shop, where: str) -> None:
    cache = Cache(shop.root)
    oid = cache.add_directory([cache.add(b"a member").entry("member")])
    (shop.repo / "data.dvc").write_text(f"outs:\n- md5: {oid}\n  path: data\n")
    shop.commit("one")
    listing = state.object_path(shop.root, oid)
    if where == "remote":
        target = state.object_path(shop.storage, oid)
        target.parent.mkdir(parents=True)
        shutil.copy(listing, target)
    listing.unlink()
    done = shop.gc(apply=True)
    assert "a member" in shop.texts()
    assert bool(done.notes) is (where == "nowhere")


def test_dvcs_memory_of_a_run_keeps_its_outputs(shop: Shop) -> None:
    (shop.repo / "in").write_text("in")
    (shop.repo / "dvc.yaml").write_text("stages:\n  s:\n    cmd: cp in out\n    deps: [in]\n    outs: [out]\n")
    assert support.run("dvc", "repro", "-q", cwd=shop.repo).returncode == 0
    for name in ("dvc.yaml", "dvc.lock"):
        (shop.repo / name).unlink()
    shop.age()
    shop.gc(apply=True)
    assert shop.texts() == {"in"}


def test_a_version_that_loses_nothing_else_keeps_its_listing(shop: Shop) -> None:
    shop.commit("one")
    shop.commit("two")
    shop.write("one", "twin", path="elsewhere")  # the same bytes in a bundle of its own
    assert shop.listings() == 3
    assert shop.gc(apply=True).objects == 0
    assert shop.listings() == 3


def test_a_lock_nobody_can_read_keeps_its_bytes(shop: Shop) -> None:
    shop.write("one")
    lock = shop.repo / "models/fraud/weights.lock"
    lock.write_text(lock.read_text().replace("weights.lock v1", "weights.lock v2"))
    shop.git("add", "-A", "models")
    shop.git("commit", "-qm", "from the future")
    shop.commit("two")
    shop.gc(apply=True)
    assert "one" in shop.texts()


def test_a_model_that_was_removed_goes_and_its_releases_stay(shop: Shop) -> None:
    shop.commit("one")
    shop.commit("two")
    shop.tag("fraud@v1.0.0")
    shop.git("rm", "-rq", "models/fraud")
    shop.git("commit", "-qm", "gone")
    shop.gc(apply=True)
    assert shop.texts() == {"two", "shared"}


# Nobody is at work meanwhile, and being killed harms nothing


def test_nobody_saves_while_it_removes(shop: Shop) -> None:
    shop.commit("one")
    shop.commit("two")
    busy = []

    def look(*_: int) -> None:
        for path in (shop.repo / ".git/gitmodel/lock", shop.repo / ".dvc/tmp/lock"):
            with path.open("r+") as file:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    busy.append(path.name)

    shop.gc(apply=True, progress=look)
    assert busy == ["lock"] * 4


def test_what_is_written_again_meanwhile_stays(shop: Shop) -> None:
    for text in ("one", "two", "three"):
        shop.commit(text)

    def touch(*_: int) -> None:
        for path in (shop.root / "files").rglob("*"):
            if path.is_file():
                os.utime(path)

    shop.gc(apply=True, progress=touch)
    assert {"three", "shared"} < shop.texts()


#: Kills itself (SIGKILL) just before the nth file is removed.
DRIVER = """
import os, signal, sys
from datetime import timedelta
from gitmodel.workflows.gc import gc
from gitmodel.workflows.retention import Policy
stop, seen = int(sys.argv[1]), 0

def watch(event, args):
    global seen
    if event == "os.remove" and "/files/md5/" in str(args[0]):
        seen += 1
        if seen == stop:
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(watch)
gc(repo=sys.argv[2], policy=Policy(1, timedelta(0)), apply=True)
"""


@pytest.mark.parametrize("stop", [1, 3])
def test_killed_it_has_harmed_nothing_and_the_next_run_ends_it(shop: Shop, stop: int) -> None:
    for text in ("one", "two", "three"):
        shop.commit(text)
    shop.tag("fraud@v1.0.0")
    done = support.run("python", "-c", DRIVER, str(stop), shop.repo)
    assert done.returncode == -9
    assert len(shop.texts()) + shop.listings() == 4 + 3 - (stop - 1)
    assert fsck(repo=shop.repo).open == []
    shop.gc(apply=True)
    assert shop.texts() == {"three", "shared"}
    assert shop.listings() == 1


# Where others may keep theirs


def test_a_shallow_clone_may_not(shop: Shop) -> None:
    shop.commit("one")
    shop.commit("two")
    shop.git("clone", "-q", "--depth", "1", f"file://{shop.repo}", str(shop.folder / "shallow"))
    with pytest.raises(PartialHistory, match=r"shallow clone.*--unshallow"):
        gc(repo=shop.folder / "shallow", policy=NOW)


@pytest.fixture
def neighbours(shop: Shop, tmp_path: Path) -> tuple[Shop, Shop]:
    """Two repositories that share a cache: each has an old state and a new one."""
    other = Shop.make(tmp_path / "other")
    for one in (shop, other):
        one.root = tmp_path / "common"
        with (one.repo / ".dvc" / "config").open("a") as config:
            config.write(f"[cache]\n    dir = {one.root}\n")
        one.git("commit", "-qam", "common cache")
        for text in ("old", "new"):
            one.commit(f"{text} of {one.folder.name}")
    return shop, other


def test_a_shared_cache_is_not_cleaned_without_a_word_of_the_others(neighbours: tuple[Shop, Shop]) -> None:
    shop, other = neighbours
    before = shop.texts()
    with pytest.raises(SharedPlace, match=r"may hold weights of other repositories.*--also PATH"):
        shop.gc()
    with pytest.raises(SharedPlace, match=r"4 objects .*that no known history names"):
        shop.gc(alone=True, apply=True)
    assert shop.texts() == before
    done = shop.gc(also=[other.repo], apply=True)
    assert {going.label.partition(" in ")[2] for going in done.going} == {"", str(other.repo)}
    assert shop.texts() == {"new of shop", "new of other", "shared"}


def test_a_cache_of_its_own_elsewhere_is_cleaned_when_nobody_else_uses_it(shop: Shop, tmp_path: Path) -> None:
    (shop.repo / ".dvc" / "cache").mkdir(exist_ok=True)
    shop.root = tmp_path / "elsewhere"
    with (shop.repo / ".dvc" / "config").open("a") as config:
        config.write(f"[cache]\n    dir = {shop.root}\n")
    shop.commit("one")
    shop.commit("two")
    shop.gc(alone=True, apply=True)
    assert shop.texts() == {"two", "shared"}


def test_a_link_to_a_cache_elsewhere_is_a_shared_cache(shop: Shop, tmp_path: Path) -> None:
    shop.commit("one")
    shop.root.rename(tmp_path / "elsewhere")
    shop.root.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SharedPlace):
        shop.gc()


@pytest.fixture
def pushed(shop: Shop) -> Shop:
    """Two states, both in the remote, of which the first is old."""
    shop.commit("one")
    shop.commit("two")
    shutil.copytree(shop.root, shop.storage, dirs_exist_ok=True)
    shop.age(shop.storage)
    return shop


def test_a_remote_is_cleaned_by_the_same_policy_and_the_cache_is_left(pushed: Shop) -> None:
    with pytest.raises(SharedPlace):
        pushed.gc(remote=True)
    done = pushed.gc(remote=True, alone=True, apply=True)
    assert done.where == "the remote 'storage'"
    assert pushed.texts(pushed.storage) == {"two", "shared"}
    assert pushed.texts() == {"one", "two", "shared"}


def test_a_remote_others_use_is_left_alone(pushed: Shop) -> None:
    Cache(pushed.storage).add(b"somebody's")
    before = pushed.texts(pushed.storage)
    with pytest.raises(SharedPlace, match=r"1 objects \(10 bytes\) that no known history names"):
        pushed.gc(remote=True, alone=True, apply=True)
    assert pushed.texts(pushed.storage) == before


def test_what_others_have_pushed_must_be_known_first(pushed: Shop) -> None:
    pushed.git("clone", "-q", "--bare", ".", str(pushed.folder / "origin.git"))
    pushed.git("remote", "add", "origin", str(pushed.folder / "origin.git"))
    clone = state.clone(pushed.folder / "origin.git", pushed.folder / "clone")
    support.git(clone, "revert", "--no-edit", "HEAD")
    support.git(clone, "push", "-q")
    with pytest.raises(PartialHistory, match="1 refs that are not here"):
        pushed.gc(remote=True, alone=True, apply=True)
    pushed.git("fetch", "-q")
    pushed.gc(remote=True, alone=True, apply=True)
    assert pushed.texts(pushed.storage) == {"one", "two", "shared"}, "the revert brought the first state back"


def test_a_bare_repository_cleans_its_remote(pushed: Shop) -> None:
    config = pushed.repo / ".dvc" / "config"
    config.write_text(config.read_text().replace("../../storage", str(pushed.storage)))
    pushed.git("commit", "-qam", "absolute")
    pushed.git("clone", "-q", "--bare", ".", str(pushed.folder / "bare.git"))
    pushed.git("-C", str(pushed.folder / "bare.git"), "remote", "remove", "origin")
    with pytest.raises(NeedsWorkingTree, match="--remote"):
        gc(repo=pushed.folder / "bare.git", policy=NOW)
    gc(repo=pushed.folder / "bare.git", policy=NOW, remote=True, alone=True, apply=True)
    assert pushed.texts(pushed.storage) == {"two", "shared"}


def test_a_remote_that_cannot_be_listed_is_not_cleaned(shop: Shop) -> None:
    shop.commit("one")
    (shop.repo / ".dvc" / "config").write_text(
        "['remote \"web\"']\n    url = http://127.0.0.1:1/x\n[core]\n    remote = web\n"
    )
    with pytest.raises(SharedPlace, match="cannot be listed"):
        shop.gc(remote=True, alone=True)


def test_the_place_must_be_a_model_repository(git_repo: Path) -> None:
    with pytest.raises(NotInitialised):
        gc(repo=git_repo)


# The policy


@pytest.mark.parametrize(
    ("text", "seconds"), [("90m", 5400), ("12h", 43200), ("14d", 1209600), ("2w", 1209600), ("0", 0), ("0d", 0)]
)
def test_a_span_of_time_is_read(text: str, seconds: int) -> None:
    assert parse_age(text).total_seconds() == seconds


@pytest.mark.parametrize("text", ["", "7", "d", "-1d", "1.5d", "7days", "9999999d", "7 d"])
def test_what_is_no_span_of_time_is_refused(text: str) -> None:
    with pytest.raises(InvalidAge, match="12h, 14d or 2w"):
        parse_age(text)


def test_the_defaults_are_one_thing() -> None:
    assert Policy() == Policy(DEFAULT_LAST, parse_age(DEFAULT_AGE))


def entry(number: int) -> FileEntry:
    return FileEntry("x", number, f"{number:064x}", f"{number:032x}")


@st.composite
def histories(draw: st.DrawFn) -> History:
    """Up to twelve commits, each upon some of those before it, with tags and branches anywhere."""
    past, start = History(Path()), datetime(2024, 1, 1, tzinfo=UTC)
    size = draw(st.integers(1, 12))
    states: list[str] = []
    for index in range(size):
        parents = draw(st.lists(st.integers(0, index - 1), max_size=2, unique=True)) if index else []
        date = start + timedelta(days=draw(st.integers(0, 30)))
        past.parents[f"c{index}"] = (date, tuple(f"c{parent}" for parent in parents))
        states.append(f"d{draw(st.integers(0, size))}")
        past.files[states[index]] = (entry(int(states[index][1:])),)
        for old in [states[parent] for parent in parents] or [""]:
            if old != states[index]:
                past.changes.append(Change("m", f"c{index}", date, old, states[index]))
    for index in draw(st.lists(st.integers(0, size - 1), max_size=4)):
        why = draw(st.sampled_from(list(Why)))
        past.mentions.append(Mention(f"m@{index}", "m", why, states[index]))
    for index in draw(st.lists(st.integers(0, size - 1), max_size=3)):
        past.branches[f"b{index}"] = f"c{index}"
    return past


WHEN = datetime(2024, 2, 1, tzinfo=UTC)
POLICIES = st.builds(Policy, st.integers(1, 4), st.integers(0, 40).map(lambda days: timedelta(days=days)))


@given(histories(), POLICIES)
def test_what_is_mentioned_is_always_kept_and_nothing_unknown_is(past: History, policy: Policy) -> None:
    stays = kept(past, policy, WHEN)
    assert {mention.digest for mention in past.mentions} <= stays.keys() <= past.files.keys()


@given(histories(), POLICIES, st.integers(0, 3), st.integers(0, 30))
def test_a_more_generous_policy_keeps_more(past: History, policy: Policy, more: int, days: int) -> None:
    generous = Policy(policy.last + more, policy.younger + timedelta(days=days))
    assert kept(past, policy, WHEN).keys() <= kept(past, generous, WHEN).keys()


@given(histories(), POLICIES)
def test_every_change_younger_than_the_policy_says_keeps_both_its_sides(past: History, policy: Policy) -> None:
    stays = kept(past, policy, WHEN)
    for change in past.changes:
        if change.date > WHEN - policy.younger:
            assert {change.old, change.new} - {""} <= stays.keys()
