"""gitmodel.storage.audit: both digests right and fresh, only right bytes copied, folders of other data expanded from whole listings."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gitmodel.bundle.lock import FileEntry
from gitmodel.storage import audit
from gitmodel.storage.audit import Digest, bring, digest_all, digest_at, expand, names_in, run_cache_names
from gitmodel.storage.cache import Cache
from gitmodel.storage.depot import Folder, Stored
from tests import support
from tests.workflows import state


class Place:
    """A cache with three objects and their listing, and an empty folder."""

    def __init__(self, tmp_path: Path) -> None:
        self.cache = Cache(tmp_path / "cache")
        self.entries = [
            self.cache.add(data).entry(name) for name, data in (("a", b"a" * 3_000_001), ("b", b"b"), ("c", b""))
        ]
        self.listing = self.cache.add_directory(self.entries)
        self.depot = Folder(self.cache.objects, "the cache")
        self.other = Folder(tmp_path / "other" / "files" / "md5", "the other")

    def path(self, oid: str) -> Path:
        return state.object_path(self.cache.root, oid)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_every_object_is_read_and_both_digests_are_right(place: Place) -> None:
    told: list[tuple[int, ...]] = []
    listed = place.depot.contents().objects.values()
    found = {item.oid: digest for item, digest in digest_all(place.depot, listed, lambda *n: told.append(n))}
    for entry in place.entries:
        assert found[entry.md5] == Digest(entry.md5, entry.sha256, entry.size)
        assert found[entry.md5].fits(entry.md5, [entry])
    assert found[place.listing].fits(place.listing, [])
    assert told[-1][:2] == (4, 4)
    assert told[-1][2] == told[-1][3] == sum(digest.size for digest in found.values())


def test_bytes_are_read_afresh_whatever_is_remembered(place: Place) -> None:
    path = place.path(place.entries[0].md5)
    assert place.cache.digests.of(path) == place.entries[0].sha256
    before = path.stat()
    state.damage(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert place.cache.digests.of(path) == place.entries[0].sha256, "the memory is deceived"
    assert not digest_at(place.depot, str(path)).fits(place.entries[0].md5, [place.entries[0]])


def test_an_object_fits_by_name_and_by_every_lock(place: Place) -> None:
    entry = place.entries[1]
    digest = digest_at(place.depot, str(place.path(entry.md5)))
    assert digest.fits(entry.md5, [])
    assert not digest.fits(place.entries[0].md5, [])
    assert not digest.fits(entry.md5, [entry, FileEntry("x", entry.size, "0" * 64, entry.md5)])
    assert not digest.fits(entry.md5, [FileEntry("x", entry.size + 1, entry.sha256, entry.md5)])
    assert not Digest(entry.md5, entry.sha256, entry.size, error="Input/output error").fits(entry.md5, [])


def test_one_that_vanishes_meanwhile_is_passed_over(place: Place) -> None:
    listed = list(place.depot.contents().objects.values())
    place.path(place.entries[1].md5).unlink()
    assert len(list(digest_all(place.depot, listed))) == len(listed) - 1


def test_what_cannot_be_read_is_told_and_the_rest_is_read(place: Place) -> None:
    pipe = place.depot.objects / "pipe"
    os.mkfifo(pipe)
    listed = [Stored("x", 0, None, 0, str(pipe)), *place.depot.contents().objects.values()]
    found = {item.oid: digest for item, digest in digest_all(place.depot, listed)}
    assert found["x"].error
    assert len(found) == len(listed)


def test_right_bytes_are_brought_and_are_an_object_then(place: Place) -> None:
    entry = place.entries[0]
    assert bring(place.depot, str(place.path(entry.md5)), entry.md5, [entry], place.other)
    found = place.other.find(entry.md5)
    assert found is not None
    assert (found.mode, found.size) == (0o444, entry.size)


def test_wrong_bytes_are_not_brought_and_leave_nothing(place: Place) -> None:
    entry = place.entries[0]
    state.damage(place.path(entry.md5))
    assert not bring(place.depot, str(place.path(entry.md5)), entry.md5, [entry], place.other)
    assert not bring(place.depot, str(place.path("0" * 32)), "0" * 32, [], place.other)
    assert [path for path in place.other.objects.rglob("*") if path.is_file()] == []


def test_folders_of_other_data_are_expanded(place: Place) -> None:
    found, lost = expand({place.listing, "1" * 32}, [place.depot])
    assert found == {place.listing, "1" * 32, *(entry.md5 for entry in place.entries)}
    assert lost == set()


def test_a_listing_may_come_from_any_place(place: Place) -> None:
    assert expand({place.listing}, [place.other])[1] == {place.listing}
    assert expand({place.listing}, [place.other, place.depot])[1] == set()


@pytest.mark.parametrize("damage", ["flipped", "gone", "no listing"])
def test_a_listing_that_is_not_whole_names_nothing(place: Place, damage: str) -> None:
    oid, path = place.listing, place.path(place.listing)
    if damage == "flipped":
        state.damage(path)
    elif damage == "gone":
        path.unlink()
    else:
        oid = f"{hashlib.md5(b'no listing').hexdigest()}.dir"
        (place.depot.objects / oid[:2]).mkdir(exist_ok=True)
        place.path(oid).write_bytes(b"no listing")
    assert expand({oid}, [place.depot]) == ({oid}, {oid})


def test_names_are_found_wherever_they_stand() -> None:
    md5, sha256 = "0123456789abcdef" * 2, "fedcba9876543210" * 4
    assert names_in(f"outs:\n- md5: {md5}.dir\n  path: x\n".encode()) == {f"{md5}.dir"}
    assert names_in(f"<<<<<<< ours\n- md5: '{md5}'\n=======\n".encode()) == {md5}
    assert names_in(f"etag: {sha256} {md5[:-1]} {md5}0".encode()) == set()
    assert names_in(b"\xff\xfe") == set()


@given(st.lists(st.binary(max_size=8).map(lambda data: hashlib.md5(data).hexdigest()), max_size=5), st.booleans())
def test_every_name_in_a_pointer_is_found(oids: list[str], folder: bool) -> None:
    names = [f"{oid}.dir" if folder else oid for oid in oids]
    assert names_in("".join(f"- md5: {name}\n  hash: md5\n" for name in names).encode()) == set(names)


def test_dvcs_memory_of_runs_names_its_outputs(repo: Path) -> None:
    (repo / "in.txt").write_text("in")
    (repo / "dvc.yaml").write_text(
        "stages:\n  s:\n    cmd: cp in.txt out.txt\n    deps: [in.txt]\n    outs: [out.txt]\n"
    )
    assert support.run("dvc", "repro", "-q", cwd=repo).returncode == 0
    assert hashlib.md5(b"in").hexdigest() in run_cache_names(repo / ".dvc" / "cache")


def test_the_module_knows_no_memory_of_digests() -> None:
    source = Path(audit.__file__).read_text() + Path(audit.__file__).with_name("depot.py").read_text()
    assert "storage.digests" not in source
