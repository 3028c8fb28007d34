"""gitmodel.storage.remote against real folders: what goes, what comes, and what is refused. Servers: test_remote_kinds."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from gitmodel.bundle.lock import FileEntry
from gitmodel.files import StorageFailed
from gitmodel.storage.cache import Cache
from gitmodel.storage.remote import NoRemote, Remote, RemoteFailed
from gitmodel.storage.settings import config_for_url, config_from_text
from tests.workflows import state


class Place:
    """A remote folder, a cache with two objects in it, and an empty cache."""

    def __init__(self, tmp_path: Path) -> None:
        self.folder = tmp_path / "storage"
        self.folder.mkdir()
        self.remote = Remote(config_for_url(str(self.folder)))
        self.cache, self.other = Cache(tmp_path / "cache"), Cache(tmp_path / "other")
        self.entries = [self.cache.add(data).entry(path) for path, data in (("a", b"aa" * 999), ("b/c", b"c"))]
        oid = self.cache.add_directory(self.entries)
        self.listing = FileEntry(
            "listing", self.cache.path(oid).stat().st_size, state.digest(self.cache.path(oid)), oid
        )

    def push(self) -> None:
        self.remote.push(self.cache, self.entries, [self.listing])

    def stored(self, entry: FileEntry) -> Path:
        return state.object_path(self.folder, entry.md5)


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_what_is_pushed_comes_back(place: Place) -> None:
    assert place.remote.lacks([*place.entries, place.listing]) == [*place.entries, place.listing]
    place.push()
    assert place.remote.lacks([*place.entries, place.listing]) == []
    assert place.remote.pull(place.other, place.entries) == 2
    for entry in place.entries:
        assert place.other.path(entry.md5).read_bytes() == place.cache.path(entry.md5).read_bytes()
        assert place.other.path(entry.md5).stat().st_mode & 0o777 == 0o444
    assert place.remote.pull(place.other, place.entries) == 0


def test_objects_lie_as_dvc_lays_them(place: Place) -> None:
    place.push()
    names = {f"files/md5/{entry.md5[:2]}/{entry.md5[2:]}" for entry in [*place.entries, place.listing]}
    found = state.files(place.folder)
    assert set(found) == names
    assert {mode & 0o777 for mode, _ in found.values()} == {0o444}


def test_the_same_object_under_two_names_comes_once(place: Place) -> None:
    place.push()
    first = place.entries[0]
    again = FileEntry("copy", first.size, first.sha256, first.md5)
    assert place.remote.pull(place.other, [first, again]) == 1


def test_what_the_remote_lacks_is_known(place: Place) -> None:
    place.remote.push(place.cache, place.entries[1:])
    assert place.remote.lacks(place.entries) == [place.entries[0]]
    place.stored(place.entries[1]).chmod(0o644)
    place.stored(place.entries[1]).write_bytes(b"")
    assert place.remote.lacks(place.entries) == place.entries, "half an object is none"


def test_a_listing_goes_when_all_its_files_are_there(place: Place) -> None:
    place.cache.path(place.entries[0].md5).unlink()
    with pytest.raises(RemoteFailed):
        place.push()
    assert not place.stored(place.listing).exists()


def test_a_missing_object_is_named_with_its_mend_and_nothing_moves(place: Place) -> None:
    place.push()
    place.stored(place.entries[1]).unlink()
    with pytest.raises(RemoteFailed, match=r"does not have b/c.*gitmodel push"):
        place.remote.pull(place.other, place.entries)
    assert not state.files(place.other.root)


def test_other_bytes_are_refused_and_never_have_the_name(place: Place) -> None:
    place.push()
    state.damage(place.stored(place.entries[0]))
    with pytest.raises(RemoteFailed, match=r"other bytes for a than weights\.lock says"):
        place.remote.pull(place.other, place.entries)
    assert set(state.files(place.other.root)) <= {f"files/md5/{(c := place.entries[1].md5)[:2]}/{c[2:]}"}


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ("", r"the remote 'own' \(.*storage\) has .*: run 'gitmodel fsck --remote --repair' where"),
        ("other", r"the remote 'other' \(.*storage\) has .*: run 'gitmodel fsck --remote-name other --repair' where"),
        ("URL", r"the remote '/\S*/storage' has .*: run 'gitmodel fsck --remote-name /\S*/storage --repair' where"),
    ],
)
def test_the_remote_that_was_asked_is_named_with_the_mend(place: Place, wanted: str, said: str) -> None:
    place.push()
    state.damage(place.stored(place.entries[0]))
    sections = "".join(f"['remote \"{name}\"']\n    url = {place.folder}\n" for name in ("own", "other"))
    named = config_from_text(f"[core]\n    remote = own\n{sections}")
    remote = place.remote if wanted == "URL" else Remote(named, wanted)
    with pytest.raises(RemoteFailed, match=said):
        remote.pull(place.other, place.entries)


def test_a_remote_that_is_given_as_a_url_is_named_once_where_it_lacks_something(place: Place) -> None:
    place.push()
    place.stored(place.entries[0]).unlink()
    with pytest.raises(RemoteFailed, match=rf"^the remote '{place.folder}' does not have a, or not whole"):
        place.remote.pull(place.other, place.entries)


def test_no_wrong_object_stays_however_many_there_are(place: Place) -> None:
    place.push()
    for entry in place.entries:
        state.damage(place.stored(entry))
    with pytest.raises(RemoteFailed, match="other bytes"):
        place.remote.pull(place.other, place.entries)
    assert not state.files(place.other.root)


def test_bytes_do_not_get_the_name_of_others(place: Place) -> None:
    """A stranger's lock may give its own sha256 beside the md5 of an object that belongs to somebody else."""
    place.push()
    mine, theirs = place.entries
    place.stored(theirs).chmod(0o644)
    shutil.copyfile(place.stored(mine), place.stored(theirs))
    with pytest.raises(RemoteFailed, match="other bytes"):
        place.remote.pull(place.other, [FileEntry("a", mine.size, mine.sha256, theirs.md5)])
    assert not state.files(place.other.root)


def test_an_empty_or_absent_folder_is_said_to_be_so(place: Place) -> None:
    shutil.rmtree(place.folder)
    with pytest.raises(RemoteFailed, match="cannot be reached, or holds nothing"):
        place.remote.pull(place.other, place.entries)


@pytest.mark.parametrize("verb", ["push", "pull", "lacks"])
def test_a_remote_that_is_no_folder_is_one_error(place: Place, verb: str) -> None:
    place.folder.rmdir()
    place.folder.write_bytes(b"a file")
    with pytest.raises(RemoteFailed) as caught:
        if verb == "push":
            place.push()
        elif verb == "pull":
            place.remote.pull(place.other, place.entries)
        else:
            place.remote.lacks(place.entries)
    assert "\n" not in str(caught.value)
    assert str(place.folder) in str(caught.value)


#: Moves one object in a process that may write no file of more than 1000 bytes, as on a disk that is full.
_IN_LITTLE_ROOM = """
import resource, sys
from pathlib import Path
from gitmodel.bundle.lock import FileEntry
from gitmodel.errors import GitmodelError
from gitmodel.storage.cache import Cache
from gitmodel.storage.remote import Remote
from gitmodel.storage.settings import config_for_url

verb, url, cache, path, size, sha256, md5 = sys.argv[1:]
remote = Remote(config_for_url(url))
entry = FileEntry(path, int(size), sha256, md5)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    remote.push(Cache(Path(cache)), [entry]) if verb == "push" else remote.pull(Cache(Path(cache)), [entry])
except GitmodelError as error:
    print(error.code, error)
"""


@pytest.mark.parametrize("verb", ["push", "pull"])
def test_a_disk_that_is_full_is_said_to_be_so_and_keeps_no_half(place: Place, verb: str) -> None:
    entry = place.entries[0]
    if verb == "pull":
        place.push()
    here = place.cache if verb == "push" else place.other
    before = state.files(place.folder)
    command = [_IN_LITTLE_ROOM, verb, place.folder, here.root, entry.path, entry.size, entry.sha256, entry.md5]
    said = subprocess.check_output([sys.executable, "-c", *map(str, command)], text=True)
    names = ("remote-failed", str(place.folder)) if verb == "push" else ("storage-failed", str(here.root))
    assert said.startswith(names[0])
    assert names[1] in said
    assert "File too large" in said
    assert "make room" in said
    assert state.files(place.folder) == before
    assert verb == "push" or not state.files(here.root)


def test_a_cache_that_cannot_be_written_is_not_the_remotes_fault(place: Place, tmp_path: Path) -> None:
    place.push()
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StorageFailed, match="cannot write the DVC cache"):
        place.remote.pull(Cache(tmp_path / "file"), place.entries)


@pytest.mark.parametrize("verb", ["push", "pull"])
def test_progress_is_told_in_files_and_bytes(place: Place, verb: str) -> None:
    told: list[tuple[int, ...]] = []

    def progress(*counts: int) -> None:
        told.append(counts)

    place.remote.push(place.cache, place.entries, [place.listing], progress if verb == "push" else None)
    files = [*place.entries, place.listing] if verb == "push" else place.entries
    if verb == "pull":
        place.remote.pull(place.other, files, progress)
    size = sum(entry.size for entry in files)
    assert (told[0], told[-1]) == ((0, len(files), 0, size), (len(files), len(files), size, size))
    assert {one[1::2] for one in told} == {(len(files), size)}
    assert [one[0] for one in told] == sorted(one[0] for one in told)


def test_without_a_default_there_is_no_remote() -> None:
    with pytest.raises(NoRemote, match="no DVC remote is set"):
        Remote(config_from_text(""))


def test_an_unknown_remote_is_named(place: Place) -> None:
    with pytest.raises(NoRemote, match="no usable remote 'nowhere'"):
        Remote(config_for_url(str(place.folder)), "nowhere")


def test_an_absent_plugin_is_named_with_what_to_install() -> None:
    with pytest.raises(NoRemote, match=r"'gs://bucket/weights' needs a plugin.*dvc-gs.*gitmodel\[gs\]"):
        Remote(config_for_url("gs://bucket/weights"))


@pytest.mark.parametrize("option", ["version_aware", "worktree"])
def test_a_remote_with_versions_of_the_clouds_own_is_refused(option: str) -> None:
    text = f"[core]\n    remote = s\n['remote \"s\"']\n    url = s3://bucket/weights\n    {option} = true\n"
    with pytest.raises(NoRemote, match="in the cloud's own way"):
        Remote(config_from_text(text))


def test_no_password_is_told(place: Place) -> None:
    remote = Remote(config_for_url("ssh://ada:secret@127.0.0.1:9/weights"))
    assert remote.url == "ssh://ada@127.0.0.1:9/weights"
    with pytest.raises(RemoteFailed) as caught:
        remote.lacks(place.entries)
    assert "secret" not in str(caught.value)
