"""gitmodel.storage.supply: a version's files from the nearest place that has them, hashed before anyone opens them."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gitmodel.bundle.lock import FileEntry
from gitmodel.storage.cache import Cache
from gitmodel.storage.remote import Remote, RemoteFailed
from gitmodel.storage.settings import config_for_url
from gitmodel.storage.supply import Supply
from gitmodel.storage.workspace import MissingWeights
from tests.test_files import other_file_system
from tests.workflows import state


class Place:
    """A store to fill, a cache at hand that has two objects, and a remote that is empty until ``fill``."""

    def __init__(self, tmp_path: Path) -> None:
        self.store, self.near = Cache(tmp_path / "store"), Cache(tmp_path / "near")
        self.entries = [self.near.add(data).entry(path) for path, data in (("model.onnx", b"graph"), ("t/a", b"aa"))]
        self.folder = tmp_path / "storage"
        self.folder.mkdir()
        (tmp_path / "scratch").mkdir()
        self._config = config_for_url(str(self.folder))
        self.asked = 0

    def remote(self) -> Remote:
        self.asked += 1
        return Remote(self._config)

    def fill(self) -> None:
        Remote(self._config).push(self.near, self.entries)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def has_all(store: Cache, entries: list[FileEntry]) -> bool:
    return all(store.has(entry) for entry in entries)


def test_a_cache_at_hand_is_used_before_the_remote(place: Place) -> None:
    Supply(place.store, lambda: [place.near], place.remote).ensure(place.entries, "fraud")
    assert has_all(place.store, place.entries)
    assert place.store.path(place.entries[0].md5).stat().st_mode & 0o777 == 0o444
    assert place.asked == 0


def test_a_damaged_object_at_hand_is_passed_over(place: Place) -> None:
    place.fill()
    state.damage(place.near.path(place.entries[0].md5))
    Supply(place.store, lambda: [place.near], place.remote).ensure(place.entries, "fraud")
    assert place.store.path(place.entries[0].md5).read_bytes() == b"graph"
    assert place.asked == 1


def test_without_a_remote_what_is_missing_is_counted(place: Place) -> None:
    with pytest.raises(MissingWeights, match=r"2 files \(7 bytes\) of fraud@v1\.0\.0 are not in the DVC cache"):
        Supply(place.store, list, None).ensure(place.entries, "fraud@v1.0.0")


def test_an_empty_remote_is_refused(place: Place) -> None:
    with pytest.raises(RemoteFailed):
        Supply(place.store, list, place.remote).ensure(place.entries, "fraud")


def test_the_remote_is_asked_once_and_not_again(place: Place) -> None:
    place.fill()
    supply = Supply(place.store, list, place.remote)
    supply.ensure(place.entries, "fraud")
    supply.ensure(place.entries, "fraud")
    assert place.asked == 1


def test_wrong_bytes_in_the_store_are_refused(place: Place) -> None:
    supply = Supply(place.store, lambda: [place.near], None)
    supply.ensure(place.entries, "fraud")
    state.damage(place.store.path(place.entries[1].md5))
    with pytest.raises(MissingWeights, match=r"other bytes for t/a than weights\.lock says"):
        supply.ensure(place.entries, "fraud")
    with pytest.raises(MissingWeights, match="t/a"):
        Supply(place.store, list, None).ensure(place.entries, "fraud")


def test_what_is_to_leave_is_read_anew(place: Place) -> None:
    supply = Supply(place.store, lambda: [place.near], None)
    supply.ensure(place.entries, "fraud")
    assert supply.damaged(place.entries) == []
    state.rot(place.store.path(place.entries[1].md5))
    supply.verify(place.entries)
    assert supply.damaged(place.entries) == [place.entries[1]]


def test_a_staged_folder_holds_the_files_and_goes_away(place: Place, tmp_path: Path) -> None:
    supply = Supply(place.store, lambda: [place.near], None)
    supply.ensure(place.entries, "fraud")
    with supply.staged(place.entries, tmp_path / "staging") as folder:
        assert (folder / "model.onnx").read_bytes() == b"graph"
        assert (folder / "t" / "a").read_bytes() == b"aa"
        assert (folder / "t" / "a").samefile(place.store.path(place.entries[1].md5)), "no copy where links will do"
    assert list((tmp_path / "staging").iterdir()) == []
    assert place.store.path(place.entries[0].md5).read_bytes() == b"graph"


def test_a_staged_folder_goes_away_after_an_error(place: Place, tmp_path: Path) -> None:
    supply = Supply(place.store, lambda: [place.near], None)
    supply.ensure(place.entries, "fraud")
    with pytest.raises(RuntimeError), supply.staged(place.entries, tmp_path / "staging"):
        raise RuntimeError
    assert list((tmp_path / "staging").iterdir()) == []


def test_where_links_cannot_be_made_files_are_copied(place: Place, tmp_path: Path) -> None:
    supply = Supply(place.store, lambda: [place.near], None)
    supply.ensure(place.entries, "fraud")
    elsewhere = other_file_system(tmp_path)
    with supply.staged(place.entries, elsewhere / f"gitmodel-test-{os.getpid()}") as folder:
        assert (folder / "t" / "a").read_bytes() == b"aa"
    folder.parent.rmdir()
