"""gitmodel.history against real repositories: whatever Git can still reach names its bytes, and nothing is overlooked."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from gitmodel.bundle.bundle import LOCK
from gitmodel.bundle.lock import FileEntry, Lock
from gitmodel.git import GitFailed, Repository
from gitmodel.history.past import History, Why
from gitmodel.history.reader import read
from gitmodel.history.remotes import PartialHistory, heads
from gitmodel.storage.pointer import Pointer, listing_of
from tests import support
from tests.workflows import state


def entry(number: int) -> FileEntry:
    return FileEntry("model.onnx", number, f"{number:064x}", f"{number:032x}")


class Shop:
    """A repository whose locks are written by hand: version ``n`` needs one object, named ``n`` in 32 digits."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def write(self, number: int, model: str = "fraud") -> str:
        """Lays a lock and its pointer down and returns the lock's digest."""
        folder = self.root / "models" / model
        folder.mkdir(parents=True, exist_ok=True)
        lock = Lock.of([], [entry(number)])
        (folder / "model.yaml").write_text("schema_version: 1\n")
        (folder / LOCK).write_text(lock.to_text())
        oid, _ = listing_of(lock.files)
        (folder / "weights.dvc").write_text(Pointer(oid, number, 1, "weights").to_yaml())
        return lock.digest

    def commit(self, number: int, model: str = "fraud") -> str:
        digest = self.write(number, model)
        self.git("add", "-A")
        self.git("commit", "-qm", f"{model} {number}")
        return digest

    def git(self, *args: str) -> str:
        return support.git(self.root, *args)

    def read(self) -> History:
        return read(Repository.open(self.root))


@pytest.fixture
def shop(git_repo: Path) -> Shop:
    return Shop(git_repo)


def by_label(past: History) -> dict[str, tuple[str, str]]:
    return {mention.label: (mention.why.value, mention.digest) for mention in past.mentions}


def test_versions_stages_branches_and_the_working_tree_are_mentioned(shop: Shop) -> None:
    one = shop.commit(1)
    shop.git("tag", "-a", "-m", "one", "fraud@v1.0.0")
    two = shop.commit(2)
    shop.git("tag", "-a", "-m", "two", "fraud@v1.1.0")
    shop.git("tag", "-a", "-m", "up", "fraud#prod#1", "fraud@v1.1.0^{commit}")
    shop.git("tag", "-a", "-m", "back", "fraud#prod#2", "fraud@v1.0.0^{commit}")
    shop.git("tag", "paper")
    three = shop.write(3)
    past = shop.read()
    assert by_label(past) == {
        "fraud@v1.0.0": ("released", one), "fraud@v1.1.0": ("released", two), "fraud#prod": ("staged", one),
        "fraud#prod#1": ("staged", two), "fraud@paper": ("tagged", two), "fraud@main": ("branch", two), "fraud": ("working tree", three),
    } | ({"fraud": ("working tree", three)})  # fmt: skip
    assert past.files[one] == (entry(1),)
    assert past.objects(one) == {entry(1).md5, listing_of([entry(1)])[0]}
    assert past.labels([one]) == ["fraud@v1.0.0", "fraud#prod"]
    assert past.locks_of[entry(2).md5] == [two]
    assert past.entries_of[entry(2).md5] == [entry(2)]
    assert not past.shallow
    assert past.others == set()


def test_versions_are_told_in_their_own_order(shop: Shop) -> None:
    digest = shop.commit(1)
    for version in ("v10.0.0", "v9.0.0", "v1.0.0"):
        shop.git("tag", "-a", "-m", version, f"fraud@{version}")
    assert shop.read().labels([digest])[:3] == ["fraud@v1.0.0", "fraud@v9.0.0", "fraud@v10.0.0"]


def test_a_withdrawn_stage_is_told_by_its_tags(shop: Shop) -> None:
    digest = shop.commit(1)
    shop.git("tag", "-a", "-m", "up", "fraud#prod#1")
    shop.git("tag", "-a", "-m", "down", "fraud#prod!#2")
    assert "fraud#prod" not in shop.read().labels([digest])
    assert "fraud#prod#1" in shop.read().labels([digest])


def test_a_state_nobody_names_has_its_commit_for_a_name(shop: Shop) -> None:
    one = shop.commit(1)
    commit = shop.git("rev-parse", "HEAD")
    shop.commit(2)
    past = shop.read()
    assert past.labels([one]) == [f"fraud@{commit[:10]}"]
    assert past.origins[one].date == datetime.fromtimestamp(int(shop.git("log", "-1", "--format=%ct", commit)), UTC)


def test_a_tag_of_another_model_keeps_its_own_model_alone(shop: Shop) -> None:
    shop.commit(1)
    shop.commit(2, "spam")
    shop.git("tag", "-a", "-m", "one", "spam@v1.0.0")
    assert {m.label for m in shop.read().mentions if m.why is Why.RELEASED} == {"spam@v1.0.0"}


def test_what_was_reset_away_or_amended_is_still_known(shop: Shop) -> None:
    shop.commit(1)
    two = shop.commit(2)
    shop.git("reset", "-q", "--hard", "HEAD~1")
    three = shop.commit(3)
    four = shop.write(4)
    shop.git("add", "-A")
    shop.git("commit", "-q", "--amend", "-m", "amended")
    past = shop.read()
    assert {two, three, four} <= past.files.keys()
    assert {digest for _, digest in past.loose} >= {two, three}
    assert two not in {mention.digest for mention in past.mentions}


def test_a_stash_with_its_index_and_its_untracked_files_is_kept(shop: Shop) -> None:
    shop.commit(1)
    two = shop.write(2)
    shop.git("add", "-A")
    three = shop.write(3)
    four = shop.write(4, "new")
    shop.git("stash", "push", "-q", "--include-untracked")
    five = shop.write(5)
    shop.git("stash", "push", "-q")
    assert {two, three, four, five} <= {mention.digest for mention in shop.read().mentions}


def test_what_is_in_the_index_alone_is_kept(shop: Shop) -> None:
    shop.commit(1)
    two = shop.write(2)
    shop.git("add", "-A")
    three = shop.write(3)
    assert {m.digest for m in shop.read().mentions if m.why is Why.WORKING} == {two, three}


def test_both_sides_of_a_merge_under_way_are_kept(shop: Shop) -> None:
    shop.commit(1)
    shop.git("switch", "-qc", "side")
    two = shop.commit(2)
    shop.git("switch", "-q", "main")
    three = shop.commit(3)
    support.git(shop.root, "merge", "side", check=False)
    assert shop.git("ls-files", "--unmerged")
    past = shop.read()
    assert {two, three} <= {m.digest for m in past.mentions if m.why is Why.WORKING}
    assert "fraud" in past.unreadable, "the file with the conflict in it"


def test_both_sides_of_a_merge_that_was_made_are_in_the_history(shop: Shop) -> None:
    one = shop.commit(1)
    shop.git("switch", "-qc", "side")
    two = shop.commit(2)
    shop.git("switch", "-q", "main")
    shop.commit(9, "other")
    shop.git("merge", "-q", "--no-ff", "-m", "merge", "side")
    shop.git("branch", "-D", "-q", "side")
    past = shop.read()
    assert {one, two} <= past.files.keys()
    assert {change.new for change in past.changes} >= {one, two}


def test_another_worktree_counts_with_its_files_and_its_head(shop: Shop, tmp_path: Path) -> None:
    one = shop.commit(1)
    shop.commit(2)
    shop.git("worktree", "add", "-q", "--detach", str(tmp_path / "second"), "HEAD~1")
    three = Shop(tmp_path / "second").write(3)
    past = shop.read()
    assert by_label(past)[f"fraud in {tmp_path / 'second'}"] == ("working tree", three)
    assert one in {mention.digest for mention in past.mentions}
    shutil.rmtree(tmp_path / "second")
    past = shop.read()
    assert three not in past.files, "its files are gone with its folder"
    assert one in {mention.digest for mention in past.mentions}, "and its head is not: it may be mounted again"


def test_a_model_under_two_names_has_both(shop: Shop) -> None:
    digest = shop.commit(1)
    shop.commit(1, "copy")
    assert {"fraud@main", "copy@main"} <= set(shop.read().labels([digest]))


def test_a_tag_of_a_tag_and_a_tag_of_a_tree_count(shop: Shop) -> None:
    one = shop.commit(1)
    shop.git("tag", "-a", "-m", "inner", "inner")
    shop.git("tag", "-a", "-m", "outer", "outer", "inner")
    shop.git("tag", "-d", "inner")
    (shop.root / "data.dvc").write_text(f"outs:\n- md5: {'a' * 32}\n  path: data\n")
    shop.git("add", "data.dvc")
    tree = shop.git("write-tree")
    shop.git("reset", "-q", "--hard")
    (shop.root / "data.dvc").unlink(missing_ok=True)
    assert "a" * 32 not in shop.read().others
    shop.git("tag", "tree", tree)
    past = shop.read()
    assert ("tagged", one) == by_label(past)["fraud@outer"]
    assert "a" * 32 in past.others


def test_other_dvc_data_is_known_wherever_and_whenever_it_was_named(shop: Shop) -> None:
    oids = {
        name: f"{index:032x}" for index, name in enumerate(("old", "same", "lock", "new", "broken", "ignored"), 100)
    }
    (shop.root / "data").mkdir()
    (shop.root / "data" / "old.dvc").write_text(f"outs:\n- md5: {oids['old']}.dir\n  path: old\n")
    (shop.root / "aaa.txt").write_text(f"md5: {oids['same']}\n")
    (shop.root / "same.dvc").write_text(f"md5: {oids['same']}\n")  # the blob of the text before it
    (shop.root / "dvc.lock").write_text(f"stages:\n  s:\n    outs:\n    - md5: {oids['lock']}\n")
    (shop.root / "broken.dvc").write_text(f"<<<<<<< ours\n- md5: {oids['broken']}\n")
    shop.commit(1)
    shutil.rmtree(shop.root / "data")
    (shop.root / ".gitignore").write_text("ignored.dvc\n")
    shop.git("add", "-A")
    shop.git("commit", "-qm", "without data")
    for name in ("new", "ignored"):
        (shop.root / f"{name}.dvc").write_text(f"outs:\n- md5: {oids[name]}\n  path: {name}\n")
    expected = set(oids.values()) - {oids["old"]} | {f"{oids['old']}.dir"}
    assert shop.read().others == expected


def test_our_own_pointers_are_no_other_data_unless_they_disagree(shop: Shop) -> None:
    shop.commit(1)
    assert shop.read().others == set()
    pointer = shop.root / "models" / "fraud" / "weights.dvc"
    pointer.write_text(Pointer(f"{'b' * 32}.dir", 1, 1, "weights").to_yaml())
    shop.git("commit", "-qam", "dvc add by hand")
    past = shop.read()
    assert past.others == {f"{'b' * 32}.dir"}
    assert {m.pointer for m in past.mentions} == {f"{'b' * 32}.dir"}


def test_a_pointer_of_ours_elsewhere_is_somebodys_data(shop: Shop) -> None:
    shop.commit(1)
    (shop.root / "copy.dvc").write_text((shop.root / "models" / "fraud" / "weights.dvc").read_text())
    assert shop.read().others == {listing_of([entry(1)])[0]}


def test_a_lock_outside_the_models_counts_as_other_data(shop: Shop) -> None:
    shop.commit(1)
    (shop.root / "archive").mkdir()
    shutil.copy(shop.root / "models" / "fraud" / LOCK, shop.root / "archive" / LOCK)
    assert shop.read().others == {entry(1).md5}


def test_a_lock_that_cannot_be_read_names_its_bytes_all_the_same(shop: Shop) -> None:
    shop.write(7)
    path = shop.root / "models" / "fraud" / LOCK
    path.write_text(path.read_text().replace("weights.lock v1", "weights.lock v2"))
    shop.git("add", "-A")
    shop.git("commit", "-qm", "from the future")
    past = shop.read()
    assert entry(7).md5 in past.others
    assert set(past.unreadable) == {"fraud", "fraud@main"}


def test_links_name_nothing(shop: Shop, tmp_path: Path) -> None:
    shop.commit(1)
    (tmp_path / "target.dvc").write_text(f"md5: {'c' * 32}\n")
    (shop.root / "link.dvc").symlink_to(tmp_path / "target.dvc")
    shop.git("add", "-A")
    shop.git("commit", "-qm", "link")
    assert shop.read().others == set()


def test_replaced_commits_hide_nothing(shop: Shop) -> None:
    shop.commit(1)
    two = shop.commit(2)
    shop.commit(3)
    shop.git("replace", "HEAD~1", "HEAD~2")
    assert two in shop.read().files


def test_a_shallow_clone_says_so(shop: Shop, tmp_path: Path) -> None:
    one, two = shop.commit(1), shop.commit(2)
    shop.git("clone", "-q", "--depth", "1", f"file://{shop.root}", str(tmp_path / "shallow"))
    past = Shop(tmp_path / "shallow").read()
    assert past.shallow
    assert two in past.files
    assert one not in past.files


def test_a_bare_repository_and_an_empty_one_can_be_read(shop: Shop, tmp_path: Path) -> None:
    assert shop.read().mentions == []
    one = shop.commit(1)
    bare = state.clone(shop.root, tmp_path / "clone")
    shop.git("clone", "-q", "--bare", str(shop.root), str(tmp_path / "bare.git"))
    assert by_label(Shop(tmp_path / "bare.git").read()) == {"fraud@main": ("branch", one)}
    assert {"fraud@origin/main", "fraud"} <= by_label(Shop(bare).read()).keys()


def test_damage_in_git_is_never_taken_for_nothing(shop: Shop) -> None:
    shop.commit(1)
    blob = shop.git("rev-parse", f"HEAD:models/fraud/{LOCK}")
    (shop.root / ".git" / "objects" / blob[:2] / blob[2:]).unlink()
    with pytest.raises(GitFailed, match=blob):
        shop.read()


def test_however_many_versions_there_are_a_few_processes_read_them(shop: Shop, count_git: Callable[[], int]) -> None:
    for number in range(1, 20):
        shop.commit(number)
        shop.git("tag", "-a", "-m", "x", f"fraud@v1.{number}.0")
    before = count_git()
    assert len(shop.read().files) == 19
    assert count_git() - before < 16


@pytest.fixture
def count_git(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """How many Git processes were started so far."""
    started = 0
    real: Any = subprocess.Popen.__init__

    def counted(self: object, *args: object, **options: object) -> None:
        nonlocal started
        started += 1
        real(self, *args, **options)

    monkeypatch.setattr(subprocess.Popen, "__init__", counted)
    return lambda: started


# What Git remotes name


@pytest.fixture
def clone(shop: Shop, tmp_path: Path) -> Shop:
    shop.commit(1)
    return Shop(state.clone(shop.root, tmp_path / "clone"))


def test_a_clone_that_has_all_its_remote_names_may_go_on(shop: Shop, clone: Shop) -> None:
    assert heads(Repository.open(clone.root)) == [shop.git("rev-parse", "HEAD")]
    assert heads(Repository.open(shop.root)) == [], "without a remote there is nothing to know"


def test_what_others_pushed_must_be_fetched_first(shop: Shop, clone: Shop) -> None:
    shop.commit(2)
    shop.git("tag", "-a", "-m", "two", "fraud@v2.0.0")
    with pytest.raises(PartialHistory, match=r"2 refs that are not here.*git fetch"):
        heads(Repository.open(clone.root))
    clone.git("fetch", "-q", "--tags")
    assert heads(Repository.open(clone.root))


def test_a_git_remote_that_does_not_answer_is_no_leave(shop: Shop, clone: Shop) -> None:
    shop.root.rename(shop.root.with_name("moved"))
    with pytest.raises(PartialHistory, match="'origin' cannot be asked"):
        heads(Repository.open(clone.root))


def test_commits_of_a_remote_that_no_ref_here_names_are_read_too(shop: Shop, clone: Shop) -> None:
    two = shop.commit(2)
    clone.git("fetch", "-q", "origin", "main")
    clone.git("update-ref", "-d", "refs/remotes/origin/main")
    clone.git("reflog", "expire", "--all", "--expire=now")
    repo = Repository.open(clone.root)
    assert two not in read(repo).files
    assert two in read(repo, heads(repo)).files
