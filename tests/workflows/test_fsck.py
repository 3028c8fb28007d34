"""``fsck``: each kind of damage is found, the versions that suffer are named, and what can be mended is, from wherever good
bytes are."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gitmodel.errors import ExitCode
from gitmodel.git import Repository
from gitmodel.history.reader import read
from gitmodel.registry import UnknownModel, UnknownVersion
from gitmodel.storage.depot import Blocks, Folder, NoCache
from gitmodel.storage.remote import NoRemote
from gitmodel.storage.setup import NotInitialised
from gitmodel.storage.workspace import MissingWeights, WouldLose
from gitmodel.workflows.checkout import checkout
from gitmodel.workflows.examine import Examination
from gitmodel.workflows.findings import KINDS, Finding, Report
from gitmodel.workflows.fsck import fsck
from gitmodel.workflows.mend import Mender
from gitmodel.workflows.transfer import pull
from gitmodel.workflows.workspace import NeedsWorkingTree
from tests import support
from tests.workflows import state
from tests.workflows.keeping import CHANGED, GRAPH, SHARED, Shop

OLD, NEW = "fraud@v1.0.0", "fraud@v1.1.0"


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    return Shop.make(tmp_path_factory.mktemp("template"))


@pytest.fixture
def shop(template: Shop, tmp_path: Path) -> Shop:
    return template.copied(tmp_path / "shop")


def md5_of(data: bytes) -> str:
    return hashlib.md5(data).hexdigest()


def check(shop: Shop, *references: str, **options: Any) -> Report:
    return fsck(references, repo=shop.repo, **options)


def only(report: Report, kind: str) -> Finding:
    """The one finding there is."""
    (found,) = report.findings
    assert found.kind == kind
    return found


def test_nothing_is_said_where_nothing_is_wrong(shop: Shop) -> None:
    before = state.whole(shop.repo)
    report = check(shop, remote=True)
    assert report.findings == ()
    assert report.exit_code == ExitCode.OK
    assert report.to_dict()["clean"] is True
    assert state.whole(shop.repo) == before
    whole = {item.where: (item.objects, item.size) for item in report.read}
    stored = [path for path in shop.cache.rglob("*") if path.is_file()]
    assert whole["the DVC cache"] == (len(stored), sum(path.stat().st_size for path in stored))
    assert whole["the remote 'storage'"] == whole["the DVC cache"]


@pytest.mark.parametrize("mode", [0o444, 0o644])
def test_changed_bytes_are_found_whatever_the_mode_and_the_time(shop: Shop, mode: int) -> None:
    path = shop.object(CHANGED)
    before = path.stat()
    state.damage(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    path.chmod(mode)
    report = check(shop)
    found = only(report, "corrupt")
    assert (found.versions, found.files) == ((NEW, "fraud", "fraud@main"), (CHANGED,))
    assert ("DVC would trust it" in found.message) is (mode == 0o444)
    assert found.mend == "gitmodel fsck --repair"
    assert report.exit_code == ExitCode.INCOMPATIBLE
    assert Path(found.path) == path


def test_every_version_that_shares_damaged_bytes_suffers(shop: Shop) -> None:
    state.damage(shop.object(SHARED))
    assert only(check(shop), "corrupt").versions == (OLD, NEW, "fraud#prod", "fraud", "fraud@main")


def test_a_state_nobody_names_suffers_under_its_commits_name(shop: Shop) -> None:
    shop.save(3.0, "three")
    commit = shop.git("rev-parse", "HEAD")
    path = shop.object(CHANGED)
    shop.save(4.0, "four")
    state.damage(path)
    assert only(check(shop), "corrupt").versions == (f"fraud@{commit[:10]}",)


def test_an_object_cut_short_is_told_by_its_size(shop: Shop) -> None:
    path = shop.object(GRAPH)
    whole = path.stat().st_size
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:10])
    assert f"10 bytes where {whole} should be" in only(check(shop), "corrupt").message


def test_an_object_that_is_no_plain_file_is_not_opened(shop: Shop) -> None:
    path = shop.object(GRAPH)
    path.unlink()
    os.mkfifo(path)
    report = check(shop)
    assert {finding.kind for finding in report.findings} == {"missing", "foreign"}


class BadDisk(Folder):
    """A folder on a disk that has lost a sector of every file."""

    def blocks(self, path: str) -> Blocks:
        yield from (block[:10] for block in super().blocks(path))
        raise OSError(errno.EIO, os.strerror(errno.EIO))


def test_what_the_disk_does_not_give_is_told_and_moved_away(shop: Shop) -> None:
    seen, disk = Examination(read(Repository.open(shop.repo))), BadDisk(shop.cache / "files" / "md5", "the DVC cache")
    seen.objects(
        disk, [item for item in disk.contents().objects.values() if item.oid == shop.md5(GRAPH)], (), "mend it"
    )
    (found,) = seen.findings
    assert (found.kind, found.versions[0]) == ("corrupt", OLD)
    assert found.message.startswith("cannot be read (Input/output error)")
    mender = Mender(
        seen.past, disk, shop.repo / ".git" / "gitmodel", {}, [Folder(shop.storage / "files" / "md5", "other")]
    )
    assert mender.mend(found).mended == "from other"
    assert shop.object(GRAPH).read_bytes() == shop.object(GRAPH, root=shop.storage).read_bytes()


def test_a_missing_object_of_the_working_tree_matters(shop: Shop) -> None:
    shop.object(CHANGED).unlink()
    report = check(shop)
    found = only(report, "missing")
    assert found.versions == (NEW, "fraud", "fraud@main")
    assert found.size == shop.object(CHANGED, root=shop.storage).stat().st_size
    assert report.exit_code == ExitCode.INCOMPATIBLE


def test_a_version_that_was_not_fetched_is_no_damage_while_a_remote_is_known(shop: Shop) -> None:
    shop.object(CHANGED, "fraud@v1.0.0").unlink()
    report = check(shop)
    found = only(report, "absent")
    assert set(found.versions) == {OLD, "fraud#prod"}
    assert report.exit_code == ExitCode.OK
    assert check(shop, OLD).exit_code == ExitCode.INCOMPATIBLE, "unless it is asked for"


def test_without_a_remote_a_release_that_is_not_here_is_missing(shop: Shop) -> None:
    (shop.repo / ".dvc" / "config").write_text("")
    shop.object(CHANGED, "fraud@v1.0.0").unlink()
    assert set(only(check(shop), "missing").versions) == {OLD, "fraud#prod"}


def test_a_damaged_listing_is_written_anew_from_the_lock(shop: Shop) -> None:
    before = shop.listing().read_bytes()
    state.damage(shop.listing())
    assert only(check(shop), "listing").versions == (NEW, "fraud", "fraud@main")
    report = check(shop, repair=True)
    assert only(report, "listing").mended == "written anew from weights.lock"
    assert report.exit_code == ExitCode.OK
    assert shop.listing().read_bytes() == before
    shop.listing().unlink()
    assert only(check(shop, repair=True), "listing").mended
    assert support.run("dvc", "status", cwd=shop.repo).stdout == "Data and pipelines are up to date.\n"


def test_a_pointer_that_names_other_files_is_told(shop: Shop) -> None:
    (shop.repo / "models/fraud/weights.dvc").write_text(shop.git("show", "HEAD~1:models/fraud/weights.dvc") + "\n")
    found = only(check(shop), "pointer")
    assert found.versions == ("fraud",)
    shop.git("commit", "-qam", "by hand")
    shop.git("tag", "-a", "-m", "x", "fraud@v1.2.0")
    assert {f.versions[0] for f in check(shop).findings} == {"fraud", "fraud@main", "fraud@v1.2.0"}


def test_a_pointer_that_is_gone_is_told(shop: Shop) -> None:
    (shop.repo / "models/fraud/weights.dvc").unlink()
    assert "nothing: there is none" in only(check(shop), "pointer").message


def test_a_lock_that_cannot_be_read_is_told(shop: Shop) -> None:
    lock = shop.repo / "models/fraud/weights.lock"
    lock.write_text(lock.read_text().replace("file model.onnx ", "file model.onnx many "))
    found = only(check(shop), "lock")
    assert found.versions == ("fraud",)


@pytest.mark.parametrize("left", [0, 100], ids=["without a lock", "with a part of it"])
def test_a_version_that_does_not_say_its_weights_is_told_until_it_is_withdrawn(shop: Shop, left: int) -> None:
    lock = shop.repo / "models/fraud/weights.lock"
    whole = lock.read_bytes()
    lock.write_bytes(whole[:left])
    if not left:
        lock.unlink()
    shop.git("commit", "-qam", "harm")
    shop.git("tag", "-a", "-m", "harmed", "fraud@v1.2.0")
    shop.git("revert", "--no-edit", "HEAD")
    found = only(check(shop), "lock")
    assert (found.versions, found.mend) == (
        ("fraud@v1.2.0",),
        "withdraw it: git tag -a -m WHY 'fraud@v1.2.0!' 'fraud@v1.2.0^{}'",
    )
    shop.git("tag", "-a", "-m", "harmed", "fraud@v1.2.0!", "fraud@v1.2.0^{commit}")
    assert check(shop).findings == ()


def test_a_lock_that_vouches_for_other_bytes_is_told_and_the_object_stays(shop: Shop) -> None:
    lock, path = shop.repo / "models/fraud/weights.lock", shop.object(GRAPH)
    lock.write_text(lock.read_text().replace(state.digest(path), "0" * 64))
    report = check(shop, repair=True)
    found = next(finding for finding in report.findings if finding.kind == "clash")
    assert (found.versions, found.mended, found.moved) == (("fraud",), "", "")
    assert path.exists()
    assert report.exit_code == ExitCode.INCOMPATIBLE


def test_files_of_the_working_tree_are_looked_at_and_left_alone(shop: Shop) -> None:
    (shop.weights / GRAPH).write_bytes(b"mine")
    (shop.weights / "notes.txt").write_text("mine")
    (shop.weights / "weights.h5").unlink()
    before = state.files(shop.weights)
    report = check(shop, repair=True)
    assert {(f.kind, f.files[0], f.message) for f in report.findings} == {
        ("workspace", GRAPH, "has other bytes than weights.lock says"),
        ("workspace", "notes.txt", "is no file of this version"),
        ("workspace", "weights.h5", "is not there"),
    }
    assert report.exit_code == ExitCode.OK
    assert state.files(shop.weights) == before


def test_a_link_into_the_blue_is_no_file_that_has_gone_bad(shop: Shop) -> None:
    (shop.weights / GRAPH).unlink()
    (shop.weights / GRAPH).symlink_to(shop.folder / "nowhere")
    assert "if it is nobody's work" in only(check(shop), "workspace").mend


def test_strays_are_counted_and_only_old_left_overs_go(shop: Shop) -> None:
    objects = shop.cache / "files" / "md5"
    for name in ("tmp-gitmodel-old", "tmp-gitmodel-young"):
        (objects / name).write_bytes(b"half")
    os.utime(objects / "tmp-gitmodel-old", (0, 0))
    (objects / "README").write_text("mine")
    orphan = state.object_path(shop.cache, md5_of(b"orphan"))
    orphan.parent.mkdir(exist_ok=True)
    orphan.write_bytes(b"orphan")
    kinds = {finding.kind: finding for finding in check(shop, repair=True).findings}
    assert set(kinds) == {"unreferenced", "left-over", "foreign"}
    assert (kinds["unreferenced"].objects, kinds["unreferenced"].size) == ((md5_of(b"orphan"),), 6)
    assert kinds["left-over"].mended == "removed"
    assert not (objects / "tmp-gitmodel-old").exists()
    assert (objects / "tmp-gitmodel-young").exists()
    assert (objects / "README").exists()
    assert orphan.exists()


def test_other_dvc_data_is_no_stray_and_its_damage_is_told(shop: Shop) -> None:
    (shop.repo / "data").mkdir()
    (shop.repo / "data" / "rows.csv").write_text("1,2,3")
    assert support.run("dvc", "add", "-q", "data", cwd=shop.repo).returncode == 0
    assert check(shop).findings == ()
    state.damage(state.object_path(shop.cache, md5_of(b"1,2,3")))
    report = check(shop, repair=True)
    found = only(report, "corrupt")
    assert found.versions == ("other DVC data",)
    assert Path(found.moved).is_file()
    assert report.exit_code == ExitCode.INCOMPATIBLE


# Mending


def test_good_bytes_come_from_the_working_tree_first(shop: Shop) -> None:
    good = shop.object(CHANGED).read_bytes()
    state.damage(shop.object(CHANGED))
    shutil.rmtree(shop.storage)
    report = check(shop, repair=True)
    assert only(report, "corrupt").mended == f"from models/fraud/weights/{CHANGED}"
    assert report.exit_code == ExitCode.OK
    assert shop.object(CHANGED).read_bytes() == good
    assert shop.object(CHANGED).stat().st_mode & 0o777 == 0o444
    assert check(shop).findings == ()


def test_good_bytes_come_from_a_clone_that_is_named(shop: Shop, tmp_path: Path) -> None:
    other = shop.copied(tmp_path / "other")
    state.damage(shop.object(CHANGED, OLD))
    shutil.rmtree(shop.storage)
    report = check(shop, repair=True, sources=[other.repo])
    assert only(report, "corrupt").mended == f"from {other.repo}"
    assert check(shop).findings == ()


def test_good_bytes_come_from_the_remote(shop: Shop) -> None:
    state.damage(shop.object(CHANGED, OLD))
    assert only(check(shop, repair=True), "corrupt").mended == "from the remote 'storage'"
    assert check(shop).findings == ()


def test_bad_bytes_of_another_place_are_not_taken(shop: Shop, tmp_path: Path) -> None:
    other = shop.copied(tmp_path / "other")
    for root in (shop.cache, other.cache):
        state.damage(shop.object(CHANGED, OLD, root))
    assert only(check(shop, repair=True, sources=[other.repo]), "corrupt").mended == "from the remote 'storage'"


def test_good_bytes_come_from_the_store_of_a_server(shop: Shop) -> None:
    store = shop.repo / ".git" / "gitmodel" / "store"
    shutil.copytree(shop.cache, store)
    shutil.rmtree(shop.storage)
    state.damage(shop.object(CHANGED, OLD))
    assert only(check(shop, repair=True), "corrupt").mended == "from the server's store"


def test_what_is_missing_is_brought(shop: Shop) -> None:
    for path in (CHANGED, GRAPH, SHARED):
        shop.object(path).unlink()
    shutil.rmtree(shop.weights)
    report = check(shop, repair=True)
    assert {f.mended for f in report.findings} == {"from the remote 'storage'"}
    assert report.exit_code == ExitCode.OK
    pull(repo=shop.repo)
    assert check(shop).findings == ()


def test_what_cannot_be_mended_is_moved_where_dvc_does_not_spread_it(shop: Shop) -> None:
    path = shop.object(CHANGED, OLD)
    state.damage(path)
    state.damage(shop.object(CHANGED, OLD, shop.storage))
    bad = path.read_bytes()
    report = check(shop, repair=True)
    found = only(report, "corrupt")
    assert (found.mended, found.versions) == ("", (OLD, "fraud#prod"))
    assert Path(found.moved) == shop.quarantine / shop.md5(CHANGED, OLD)
    assert Path(found.moved).read_bytes() == bad
    assert not path.exists()
    assert "--from PATH" in found.mend
    assert report.exit_code == ExitCode.INCOMPATIBLE
    again = check(shop)
    assert only(again, "missing").versions == (OLD, "fraud#prod"), "it is not forgotten"


def test_dvc_spreads_damage_until_it_is_moved_away(shop: Shop, tmp_path: Path) -> None:
    other = shop.copied(tmp_path / "other")
    for place in (shop, other):
        state.damage(place.object(CHANGED))
        shutil.rmtree(place.weights)
        shutil.rmtree(place.storage / "files")
    check(other, repair=True)
    for place, spread in ((shop, True), (other, False)):
        support.run("dvc", "push", "-q", cwd=place.repo)
        assert place.object(CHANGED, root=place.storage).exists() is spread


def test_a_second_bad_object_of_a_name_does_not_push_the_first_out(shop: Shop) -> None:
    path = shop.object(CHANGED, OLD)
    state.damage(shop.object(CHANGED, OLD, shop.storage))
    for text in (b"one", b"two"):
        path.unlink(missing_ok=True)
        path.write_bytes(text)
        check(shop, repair=True)
    assert {kept.read_bytes() for kept in shop.quarantine.iterdir()} == {b"one", b"two"}


def test_a_bad_object_nobody_needs_is_mended_by_going(shop: Shop) -> None:
    orphan = state.object_path(shop.cache, "ab" + "0" * 30)
    orphan.parent.mkdir(exist_ok=True)
    orphan.write_bytes(b"bad")
    report = check(shop, repair=True)
    assert next(f for f in report.findings if f.kind == "corrupt").mended == "moved away"
    assert report.exit_code == ExitCode.OK
    assert not orphan.exists()


def test_without_repair_nothing_is_touched(shop: Shop) -> None:
    state.damage(shop.object(CHANGED))
    shop.object(GRAPH).unlink()
    before = state.whole(shop.repo), state.files(shop.storage)
    assert check(shop, remote=True).exit_code == ExitCode.INCOMPATIBLE
    assert (state.whole(shop.repo), state.files(shop.storage)) == before
    assert not shop.quarantine.exists()


# The remote


def test_the_remotes_objects_are_read_too(shop: Shop) -> None:
    state.damage(shop.object(SHARED, root=shop.storage))
    report = check(shop, remote=True)
    found = only(report, "corrupt")
    assert found.where == "the remote 'storage'"
    assert found.versions == (OLD, NEW, "fraud#prod", "fraud", "fraud@main")
    assert check(shop).findings == (), "only when asked"


def test_a_remote_may_be_named_by_its_url(shop: Shop) -> None:
    mirror = shop.folder / "mirror"
    shutil.move(shop.storage, mirror)
    state.damage(shop.object(SHARED, root=mirror))
    found = only(check(shop, remote=True, remote_name=str(mirror), repair=True), "corrupt")
    assert found.where == f"the remote '{mirror}'"
    assert found.mended == f"from models/fraud/weights/{SHARED}"
    assert check(shop, remote=True, remote_name=str(mirror)).findings == ()


def test_what_the_remote_lacks_of_released_versions_is_missing(shop: Shop) -> None:
    shop.object(CHANGED, OLD, shop.storage).unlink()
    shop.listing(OLD, shop.storage).unlink()
    shop.save(3.0, "not pushed, not released")
    found = check(shop, remote=True).findings
    assert {(f.kind, f.where) for f in found} == {
        ("missing", "the remote 'storage'"), ("listing", "the remote 'storage'"),
    }  # fmt: skip
    assert {label for f in found for label in f.versions} == {OLD, "fraud#prod"}


def test_good_local_bytes_go_over_damaged_ones_and_where_they_are_missing(shop: Shop) -> None:
    damaged, missing = shop.object(SHARED, root=shop.storage), shop.object(CHANGED, OLD, shop.storage)
    good = damaged.read_bytes()
    state.damage(damaged)
    missing.unlink()
    report = check(shop, remote=True, repair=True)
    assert {f.kind: bool(f.mended) for f in report.findings} == {"corrupt": True, "missing": True}
    assert report.exit_code == ExitCode.OK
    assert damaged.read_bytes() == good
    assert check(shop, remote=True).findings == ()


def test_a_bad_local_object_is_never_sent(shop: Shop) -> None:
    shop.object(CHANGED, OLD, shop.storage).unlink()
    state.damage(shop.object(CHANGED, OLD))
    report = check(shop, remote=True, repair=True)
    assert not shop.object(CHANGED, OLD, shop.storage).exists()
    assert report.exit_code == ExitCode.INCOMPATIBLE


def test_damage_on_both_sides_is_mended_crosswise(shop: Shop) -> None:
    state.damage(shop.object(CHANGED, OLD))
    state.damage(shop.object(SHARED, root=shop.storage))
    report = check(shop, remote=True, repair=True)
    assert all(finding.mended for finding in report.findings)
    assert check(shop, remote=True).findings == ()


def test_what_is_damaged_in_the_remote_and_good_nowhere_is_taken_out_of_it(shop: Shop) -> None:
    stored = shop.object(CHANGED, OLD, shop.storage)
    state.damage(stored)
    bad = stored.read_bytes()
    shop.object(CHANGED, OLD).unlink()
    found = next(f for f in check(shop, remote=True, repair=True).findings if f.kind == "corrupt")
    assert Path(found.moved).read_bytes() == bad
    assert not stored.exists()


def test_objects_of_other_repositories_are_counted_and_not_read(shop: Shop) -> None:
    strange = state.object_path(shop.storage, "cd" + "0" * 30)
    strange.parent.mkdir(exist_ok=True)
    strange.write_bytes(b"not of that name")
    report = check(shop, remote=True, repair=True)
    assert "leave them" in only(report, "unreferenced").mend
    assert strange.exists()


def test_a_remote_that_is_gone_is_exit_3_and_the_cache_is_told_all_the_same(shop: Shop) -> None:
    shop.storage.rename(shop.folder / "unmounted")
    state.damage(shop.object(CHANGED))
    report = check(shop, remote=True)
    assert report.exit_code == ExitCode.INCOMPLETE
    assert "cannot be reached, or holds nothing" in report.incomplete
    assert only(report, "corrupt").where == "the DVC cache"
    assert report.to_dict()["clean"] is False


def test_a_named_remote_is_looked_at(shop: Shop) -> None:
    shutil.copytree(shop.storage, shop.folder / "mirror")
    assert support.run("dvc", "remote", "add", "mirror", str(shop.folder / "mirror"), cwd=shop.repo).returncode == 0
    state.damage(shop.object(SHARED, root=shop.folder / "mirror"))
    assert only(check(shop, remote=True, remote_name="mirror"), "corrupt").where == "the remote 'mirror'"
    with pytest.raises(NoRemote, match="'nowhere'"):
        check(shop, remote=True, remote_name="nowhere")


def test_a_bare_repository_can_look_at_its_remote(shop: Shop) -> None:
    config = shop.repo / ".dvc" / "config"
    config.write_text(config.read_text().replace("../../storage", str(shop.storage)))
    shop.git("commit", "-qam", "absolute")
    shop.git("clone", "-q", "--bare", ".", str(shop.folder / "bare.git"))
    with pytest.raises(NeedsWorkingTree, match="--remote"):
        fsck(repo=shop.folder / "bare.git")
    assert fsck(repo=shop.folder / "bare.git", remote=True).findings == ()
    shop.object(SHARED, root=shop.storage).unlink()
    assert only(fsck(repo=shop.folder / "bare.git", remote=True), "missing").versions[0] == OLD


# What is asked for, and from where


def test_references_limit_what_is_read(shop: Shop) -> None:
    state.damage(shop.object(CHANGED, OLD))
    assert check(shop, "fraud").findings == ()
    assert only(check(shop, OLD), "corrupt").versions[0] == OLD
    assert only(check(shop, "fraud#prod"), "corrupt").kind == "corrupt"
    cache = next(item for item in check(shop, "fraud").read if item.where == "the DVC cache")
    assert cache.objects == 5


def test_a_shallow_clone_is_looked_at_and_says_that_it_is_one(shop: Shop) -> None:
    shop.git("clone", "-q", "--depth", "1", f"file://{shop.repo}", str(shop.folder / "shallow"))
    pull(repo=shop.folder / "shallow")
    report = fsck(repo=shop.folder / "shallow")
    assert report.partial
    assert report.exit_code == ExitCode.OK


def test_a_fresh_clone_misses_what_it_has_not_pulled(shop: Shop) -> None:
    clone = state.clone(shop.repo, shop.folder / "clone")
    assert {f.kind for f in fsck(repo=clone).findings} == {"missing", "listing", "absent"}
    assert fsck(repo=clone, repair=True).exit_code == ExitCode.OK
    assert {f.kind for f in fsck(repo=clone).findings} == {"absent"}


def test_nobody_saves_while_it_mends(shop: Shop) -> None:
    busy = []

    def look(*_: int) -> None:
        with (shop.repo / ".git/gitmodel/lock").open("r+") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                busy.append(True)

    check(shop, progress=look)
    assert busy == []
    check(shop, repair=True, progress=look)
    assert busy


def test_progress_is_told(shop: Shop) -> None:
    told: list[tuple[int, ...]] = []
    check(shop, progress=lambda *counts: told.append(counts))
    assert all(done <= total for done, total, *_ in told)
    assert (7, 7) in {counts[:2] for counts in told}


def test_mistakes_are_refused(shop: Shop, git_repo: Path) -> None:
    with pytest.raises(UnknownVersion):
        check(shop, "fraud@v9.0.0")
    with pytest.raises(UnknownModel):
        check(shop, str(shop.folder / "1.0.onnx"))
    with pytest.raises(NoCache, match="no stored objects"):
        check(shop, repair=True, sources=[shop.folder])
    with pytest.raises(NotInitialised):
        fsck(repo=git_repo)


def test_every_kind_is_explained(shop: Shop) -> None:
    state.damage(shop.object(CHANGED))
    document = check(shop).to_dict()
    assert {finding["kind"] for finding in document["findings"]} <= set(KINDS)
    assert document["schema"] == 1
    (finding,) = document["findings"]
    assert finding["matters"] is True
    assert finding["objects"] == (shop.md5(CHANGED),)


@pytest.mark.parametrize("again", [lambda shop: pull(repo=shop.repo), lambda shop: checkout(NEW, repo=shop.repo)])
def test_a_file_laid_out_from_a_bad_object_is_laid_anew_when_that_is_mended(
    shop: Shop, again: Callable[[Shop], object]
) -> None:
    pull(repo=shop.repo)
    state.rot(shop.object(CHANGED))
    laid = shop.weights / CHANGED
    laid.unlink()
    pull(repo=shop.repo)  # by what is remembered of the object
    assert laid.read_bytes() == shop.object(CHANGED).read_bytes()
    report = check(shop, repair=True)
    assert [(found.kind, bool(found.mended)) for found in report.findings] == [("corrupt", True), ("workspace", False)]
    found = report.findings[1]
    assert "nobody has written it" in found.message
    assert found.mend == "gitmodel pull fraud"
    again(shop)
    assert (
        laid.read_bytes() == shop.object(CHANGED).read_bytes() == shop.object(CHANGED, root=shop.storage).read_bytes()
    )
    assert check(shop).findings == ()


def test_a_bad_object_that_was_found_is_not_trusted_any_more(shop: Shop) -> None:
    assert check(shop).findings == ()
    state.rot(shop.object(CHANGED))
    check(shop)
    (shop.weights / CHANGED).unlink()
    with pytest.raises(MissingWeights, match="other bytes"):
        pull(repo=shop.repo)


def test_what_could_change_again_unseen_is_not_remembered(shop: Shop) -> None:
    path = shop.object(CHANGED)
    later = time.time_ns() + 3600 * 10**9
    os.utime(path, ns=(later, later))
    assert check(shop).findings == ()
    state.rot(path)
    (shop.weights / CHANGED).unlink()
    with pytest.raises(MissingWeights, match="other bytes"):
        pull(repo=shop.repo)


def test_work_is_not_taken_for_a_file_that_has_gone_bad(shop: Shop) -> None:
    laid = shop.weights / CHANGED
    state.damage(laid)
    assert "if it is nobody's work" in only(check(shop), "workspace").mend
    with pytest.raises(WouldLose):
        pull(repo=shop.repo)
