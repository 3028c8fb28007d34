"""gitmodel.storage.remote against real folders: what goes, what comes, and what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from gitmodel.bundle.lock import FileEntry
from gitmodel.storage.cache import Cache
from gitmodel.storage.remote import (
    NoRemote,
    Remote,
    RemoteFailed,
    config_for_url,
    config_from_text,
)
from tests.workflows import state


class Place:
    """A remote folder, a cache with two objects in it, and an empty cache."""

    def __init__(self, tmp_path: Path) -> None:
        self.folder = tmp_path / "storage"
        self.folder.mkdir()
        scratch = tmp_path / "scratch"
        scratch.mkdir()
        self.remote = Remote(config_for_url(str(self.folder), scratch))
        self.cache, self.other = Cache(tmp_path / "cache"), Cache(tmp_path / "other")
        self.entries = [self.cache.add(data).entry(path) for path, data in (("a", b"aa" * 999), ("b/c", b"c"))]
        self.directory = self.cache.add_directory(self.entries)

    def stored(self, entry: FileEntry) -> Path:
        return state.object_path(self.folder, entry.md5)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_what_is_pushed_comes_back(place: Place) -> None:
    assert place.remote.push(place.cache, [place.directory]) == 3
    assert place.remote.push(place.cache, [place.directory]) == 0
    assert place.remote.pull(place.other, place.entries) == 2
    for entry in place.entries:
        assert place.other.path(entry.md5).read_bytes() == place.cache.path(entry.md5).read_bytes()
    assert place.remote.pull(place.other, place.entries) == 0


def test_the_same_object_under_two_names_comes_once(place: Place) -> None:
    place.remote.push(place.cache, [place.directory])
    first = place.entries[0]
    again = FileEntry("copy", first.size, first.sha256, first.md5)
    assert place.remote.pull(place.other, [first, again]) == 1


def test_what_the_remote_lacks_is_known(place: Place) -> None:
    assert place.remote.lacks(place.entries) == place.entries
    place.remote.push(place.cache, [place.entries[1].md5])
    assert place.remote.lacks(place.entries) == [place.entries[0]]


def test_a_missing_object_is_named_with_its_mend(place: Place) -> None:
    place.remote.push(place.cache, [place.directory])
    place.stored(place.entries[1]).unlink()
    with pytest.raises(RemoteFailed, match=r"does not have b/c.*gitmodel push"):
        place.remote.pull(place.other, place.entries)


def test_other_bytes_are_refused_and_do_not_stay(place: Place) -> None:
    place.remote.push(place.cache, [place.directory])
    state.damage(place.stored(place.entries[0]))
    with pytest.raises(RemoteFailed, match=r"other bytes for a than weights\.lock says"):
        place.remote.pull(place.other, place.entries)
    assert not place.other.has(place.entries[0])


def test_no_wrong_object_stays_however_many_there_are(place: Place) -> None:
    place.remote.push(place.cache, [place.directory])
    for entry in place.entries:
        state.damage(place.stored(entry))
    with pytest.raises(RemoteFailed, match="other bytes"):
        place.remote.pull(place.other, place.entries)
    assert not any(place.other.has(entry) for entry in place.entries)


def test_an_empty_or_absent_folder_is_said_to_be_so(place: Place) -> None:
    shutil.rmtree(place.folder)
    with pytest.raises(RemoteFailed, match="cannot be reached, or holds nothing"):
        place.remote.pull(place.other, place.entries)


@pytest.mark.parametrize("verb", ["push", "pull"])
def test_a_remote_that_is_no_folder_is_one_error(place: Place, verb: str) -> None:
    place.folder.rmdir()
    place.folder.write_bytes(b"a file")
    with pytest.raises(RemoteFailed) as caught:
        if verb == "push":
            place.remote.push(place.cache, [place.directory])
        else:
            place.remote.pull(place.other, place.entries)
    assert "\n" not in str(caught.value)
    assert str(place.folder) in str(caught.value)


def test_a_server_that_does_not_answer_is_one_error(place: Place, tmp_path: Path) -> None:
    remote = Remote(config_for_url("http://127.0.0.1:9/weights", tmp_path / "scratch"))
    with pytest.raises(RemoteFailed) as caught:
        remote.pull(place.other, place.entries)
    assert "cannot be reached" in str(caught.value) or "failed" in str(caught.value)
    with pytest.raises(RemoteFailed) as caught:
        remote.push(place.cache, [place.directory])
    assert "http://127.0.0.1:9/weights" in str(caught.value)


def test_progress_is_told(place: Place) -> None:
    told: list[tuple[int, int]] = []
    place.remote.push(
        place.cache, [entry.md5 for entry in place.entries], lambda done, total: told.append((done, total))
    )
    assert told
    assert max(done for done, _ in told) == 2
    assert {total for _, total in told if total} == {2}


def test_without_a_default_there_is_no_remote(tmp_path: Path) -> None:
    with pytest.raises(NoRemote, match="no DVC remote is set"):
        Remote(config_from_text("", tmp_path))


def test_an_unknown_remote_is_named(place: Place, tmp_path: Path) -> None:
    with pytest.raises(NoRemote, match="no usable remote 'nowhere'"):
        Remote(config_for_url(str(place.folder), tmp_path / "scratch"), "nowhere")


def test_an_absent_plugin_is_named(tmp_path: Path) -> None:
    with pytest.raises(NoRemote, match=r"'storage' needs a plugin.*dvc-s3"):
        Remote(config_for_url("s3://bucket/weights", tmp_path))


def test_a_commits_relative_remote_means_nothing_elsewhere(tmp_path: Path) -> None:
    with pytest.raises(NoRemote, match=r"'\.\./storage' is relative"):
        config_from_text("[core]\n    remote = s\n['remote \"s\"']\n    url = ../storage\n", tmp_path)


def test_a_commits_configuration_that_cannot_be_read_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(NoRemote, match="cannot be read"):
        Remote(config_from_text("[core\n", tmp_path))


def test_a_commits_configuration_is_used_as_it_stands(place: Place, tmp_path: Path) -> None:
    text = f"[core]\n    remote = s\n['remote \"s\"']\n    url = {place.folder}\n"
    remote = Remote(config_from_text(text, tmp_path / "scratch"))
    assert (remote.name, remote.url) == ("s", str(place.folder))
