"""gitmodel.storage.depot: every kind of place is listed, read, written and cleared, as it is and not as DVC takes it."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from gitmodel.files import StorageFailed
from gitmodel.storage.audit import digest_at
from gitmodel.storage.cache import Cache
from gitmodel.storage.depot import Depot, Folder, NoCache, depot_of, folder_at
from gitmodel.storage.remote import Remote, RemoteFailed
from gitmodel.storage.settings import config_from_text
from gitmodel.workflows.fsck import fsck
from gitmodel.workflows.gc import gc
from gitmodel.workflows.init import init
from gitmodel.workflows.retention import Policy
from gitmodel.workflows.transfer import push
from tests.storage.servers import Server
from tests.workflows import state
from tests.workflows.keeping import CHANGED, SHARED, Shop

GOOD = b"good bytes" * 1000
OID = hashlib.md5(GOOD).hexdigest()


#: The libraries of some remotes leave their connections to the collector.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")


class Far:
    """A remote with two objects, and the depot over it."""

    def __init__(self, server: Server, place: str, tmp_path: Path) -> None:
        self.server, self.place = server, place
        server.make(place)
        cache = Cache(tmp_path / "cache")
        self.entries = [cache.add(data).entry(name) for name, data in (("a", GOOD), ("b", b"b"))]
        if server.kind == "http":
            for entry in self.entries:
                target = server.folder / place / "files" / "md5" / entry.md5[:2] / entry.md5[2:]
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(cache.path(entry.md5).read_bytes())
        remote = Remote(config_from_text(server.config(place)))
        if server.kind != "http":
            remote.push(cache, self.entries)
        self.depot: Depot = depot_of(remote)
        self.source = cache.path(OID)


@pytest.fixture(params=["folder", "s3", "ssh", "webdav", "http"])
def far(request: pytest.FixtureRequest, server_of: Callable[[str], Server], tmp_path: Path) -> Far:
    return Far(server_of(request.param), f"depot-{tmp_path.name}", tmp_path)


def test_a_remote_lists_what_it_holds_with_sizes(far: Far) -> None:
    found = far.depot.contents([entry.md5 for entry in far.entries])
    assert {oid: item.size for oid, item in found.objects.items()} == {entry.md5: entry.size for entry in far.entries}
    assert far.depot.lists_all is (far.server.kind != "http")
    assert found.temporary == ()


def test_a_remote_tells_when_an_object_was_written(far: Far) -> None:
    if not far.depot.lists_all:
        pytest.skip("it tells nothing")
    modified = far.depot.contents([]).objects[OID].modified
    assert modified is not None
    assert modified > 1_600_000_000


def test_what_is_no_object_is_told_apart(far: Far) -> None:
    if not far.depot.lists_all:
        pytest.skip("it cannot be listed")
    far.server.write(far.place, OID[:2] + "README", b"mine")
    found = far.depot.contents([])
    assert set(found.objects) == {entry.md5 for entry in far.entries}
    (foreign,) = found.foreign
    assert foreign.path.endswith("README")


def test_bytes_are_read_as_the_server_has_them_now(far: Far) -> None:
    found = far.depot.find(OID)
    assert found is not None
    digest = digest_at(far.depot, found.path)
    assert (digest.md5, digest.sha256, digest.size) == (OID, hashlib.sha256(GOOD).hexdigest(), len(GOOD))
    far.server.write(far.place, OID, b"damaged")
    assert digest_at(far.depot, found.path).md5 == hashlib.md5(b"damaged").hexdigest()


def test_an_object_that_is_not_there_is_none(far: Far) -> None:
    assert far.depot.find("0" * 32) is None
    assert set(far.depot.contents(["0" * 32, OID]).objects) >= {OID}
    assert "0" * 32 not in far.depot.contents(["0" * 32]).objects


def test_good_bytes_are_put_over_damaged_ones(far: Far) -> None:
    if far.server.kind == "http":
        pytest.skip("nothing can be written there")
    far.server.write(far.place, OID, b"damaged")
    far.depot.put(OID, far.source)
    assert far.server.read(far.place, OID) == GOOD


def test_an_object_is_removed_and_the_other_stays(far: Far) -> None:
    if far.server.kind == "http":
        pytest.skip("nothing can be removed there")
    found = far.depot.find(OID)
    assert found is not None
    far.depot.remove(found.path)
    far.depot.remove(found.path)  # gone already
    assert far.server.read(far.place, OID) is None
    assert far.server.read(far.place, far.entries[1].md5) == b"b"


def test_a_remote_that_lets_nobody_in_is_named(server_of: Callable[[str], Server]) -> None:
    config = server_of("s3").config("anywhere", password="wrong")
    depot = depot_of(Remote(config_from_text(config)))
    for ask in (lambda: depot.contents([]), lambda: depot.find(OID)):
        with pytest.raises(RemoteFailed, match=r"'storage'.*credentials"):
            ask()


@pytest.mark.parametrize("kind", ["s3", "ssh"])
def test_fsck_finds_and_mends_what_a_server_has(kind: str, server_of: Callable[[str], Server], tmp_path: Path) -> None:
    server, place = server_of(kind), f"fsck-{tmp_path.name}"
    server.make(place)
    shop = Shop.make(tmp_path / "shop")
    (shop.repo / ".dvc" / "config").write_text(server.config(place))
    push(repo=shop.repo)
    assert fsck(repo=shop.repo, remote=True).findings == ()
    damaged, missing = shop.md5(SHARED), shop.md5(CHANGED, "fraud@v1.0.0")
    good = server.read(place, damaged)
    assert good is not None
    server.write(place, damaged, b"?" * len(good))
    far = depot_of(Remote(config_from_text(server.config(place))))
    found = far.find(missing)
    assert found is not None
    far.remove(found.path)
    report = fsck(repo=shop.repo, remote=True)
    assert {(f.kind, f.objects, f.versions[0]) for f in report.findings} == {
        ("corrupt", (damaged,), "fraud@v1.0.0"), ("missing", (missing,), "fraud@v1.0.0"),
    }  # fmt: skip
    assert fsck(repo=shop.repo, remote=True, repair=True).open == []
    assert server.read(place, damaged) == good
    state.damage(shop.object(CHANGED, "fraud@v1.0.0"))
    (mended,) = fsck(repo=shop.repo, repair=True).findings
    assert mended.mended == "from the remote 'storage'"
    other = shop.copied(tmp_path / "other")
    state.damage(other.object(CHANGED, "fraud@v1.0.0"))
    shop.object(CHANGED, "fraud@v1.0.0").unlink()
    far.remove(found.path)
    assert len(fsck(repo=shop.repo, remote=True, repair=True, sources=[other.repo]).open) == 1
    assert server.read(place, missing) is None, "bad bytes are never sent"


def test_gc_cleans_what_a_server_has(server_of: Callable[[str], Server], tmp_path: Path) -> None:
    server, place = server_of("s3"), f"gc-{tmp_path.name}"
    shop = Shop.make(tmp_path / "shop")
    shop.save(3.0, "try")
    gone = shop.md5(CHANGED)
    (shop.repo / ".dvc" / "config").write_text(server.config(place))
    push(repo=shop.repo)
    shop.save(4.0, "better")
    policy = Policy(1, timedelta(0))
    assert gc(repo=shop.repo, policy=Policy(), remote=True, alone=True).objects == 0, "it is young"
    assert server.read(place, gone)
    done = gc(repo=shop.repo, policy=policy, remote=True, alone=True, apply=True)
    assert done.objects == 2
    assert server.read(place, gone) is None
    assert server.read(place, shop.md5(SHARED)) is not None


# Folders


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    cache = Cache(tmp_path / "cache")
    cache.add(GOOD)
    return Folder(cache.objects, "the cache")


def test_a_folder_tells_objects_from_left_overs_and_strangers(folder: Folder) -> None:
    listing = Cache(folder.objects.parent.parent).add_directory([])
    for name in ("tmp-gitmodel-x", f"{OID[:2]}/.{OID}.abc.tmp"):
        (folder.objects / name).write_bytes(b"half")
    for name in ("README", f"{OID[:2]}/short", "zz"):
        (folder.objects / name).write_bytes(b"strange")
    (folder.objects / "cd").mkdir()
    (folder.objects / "cd" / OID[2:]).mkdir()
    (folder.objects / "cd" / ("0" * 30)).symlink_to("/etc/passwd")
    found = folder.contents()
    assert set(found.objects) == {OID, listing}
    assert {Path(item.path).name for item in found.temporary} == {"tmp-gitmodel-x", f".{OID}.abc.tmp"}
    assert {Path(item.path).name for item in found.foreign} == {"README", "short", "zz", OID[2:], "0" * 30}
    assert found.objects[OID].mode == 0o444
    assert found.objects[OID].size == len(GOOD)


def test_a_folder_that_is_not_there_is_empty(tmp_path: Path) -> None:
    assert Folder(tmp_path / "nothing", "x").contents().objects == {}
    assert Folder(tmp_path / "nothing", "x").find(OID) is None


def test_links_and_pipes_are_not_opened(folder: Folder, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret")
    (folder.objects / "link").symlink_to(tmp_path / "secret")
    os.mkfifo(folder.objects / "pipe")
    for name in ("link", "pipe"):
        with pytest.raises(OSError):
            list(folder.blocks(str(folder.objects / name)))


def test_what_is_put_has_the_mode_and_the_place_of_an_object(folder: Folder, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"new")
    oid = hashlib.md5(b"new").hexdigest()
    folder.put(oid, tmp_path / "source")
    stored = state.object_path(folder.objects.parent.parent, oid)
    assert stored.read_bytes() == b"new"
    assert stored.stat().st_mode & 0o777 == 0o444
    assert folder.contents().temporary == ()


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageFailed, match="the cache"):
        Folder(tmp_path / "file" / "md5", "the cache").put(OID, tmp_path / "file")


@pytest.mark.parametrize("what", ["clone", "cache", "objects", "remote"])
def test_a_place_is_known_by_what_a_person_names(tmp_path: Path, what: str) -> None:
    root = tmp_path / "clone"
    subprocess.run(["git", "init", "-q", str(root)], check=True)
    init(root)
    cache = Cache(root / ".dvc" / "cache")
    cache.add(GOOD)
    named = {"clone": root, "cache": cache.root, "objects": cache.objects, "remote": cache.root}[what]
    assert set(folder_at(named).contents().objects) == {OID}


def test_a_place_without_objects_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(NoCache, match="no stored objects"):
            folder_at(path)
