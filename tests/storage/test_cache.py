"""gitmodel.storage.cache: DVC's layout written directly, every digest right, damaged objects replaced, nothing half there."""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gitmodel.bundle.lock import FileEntry
from gitmodel.files import StorageFailed
from gitmodel.storage.cache import Cache
from tests import support
from tests.workflows import state
from tests.workflows.state import damage

#: An object that fits, one that does not, and the listing of a folder that does not; what is left is printed.
_WITHOUT_ROOM = """
import os, resource, sys
from pathlib import Path
from gitmodel.bundle.lock import FileEntry
from gitmodel.storage.cache import Cache
from gitmodel.files import StorageFailed
room, root = int(sys.argv[1]), Path(sys.argv[2])
if room:
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
cache = Cache(root)
kept = cache.add(b"kept")
listed = [FileEntry(f"{number:0200}", 4, kept.sha256, kept.md5) for number in range(8000)]
for attempt in (lambda: cache.add(os.urandom(3 << 20), b"header"), lambda: cache.add_directory(listed)):
    try:
        with cache.undone_on_error():
            cache.add(b"written before")
            attempt()
    except StorageFailed as error:
        print(error.message)
print(sorted(path.name for path in root.rglob("*") if path.is_file()))
"""


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def entry_of(cache: Cache, data: bytes, path: str = "a") -> FileEntry:
    return cache.add(data).entry(path)


def names(cache: Cache) -> list[str]:
    return sorted(p.relative_to(cache.objects).as_posix() for p in cache.objects.rglob("*") if p.is_file())


@pytest.mark.parametrize("header", [b"", b"HEADER"])
@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (2 << 20) + 3])
def test_an_object_is_named_by_its_md5_and_hashed_in_whole_and_in_part(cache: Cache, size: int, header: bytes) -> None:
    body = os.urandom(size)
    added = cache.add(memoryview(body), header)
    stored = cache.path(added.md5)
    assert stored.read_bytes() == header + body
    assert stored.stat().st_mode & 0o777 == 0o444
    assert added.md5 == hashlib.md5(header + body).hexdigest()
    assert stored == cache.objects / added.md5[:2] / added.md5[2:]
    assert added.sha256 == hashlib.sha256(header + body).hexdigest() == cache.digests.of(stored)
    assert added.entry("x") == FileEntry("x", len(header) + size, added.sha256, added.md5)
    assert len(names(cache)) == 1


def test_an_object_that_is_there_is_kept(cache: Cache) -> None:
    stored = cache.path(cache.add(b"one").md5)
    before = stored.stat().st_ino  # its time tells others that somebody relies on it
    cache.add(b"one")
    assert stored.stat().st_ino == before
    assert len(names(cache)) == 1


@pytest.mark.parametrize("wrong", [b"oNe", b"o", b""])
def test_a_damaged_object_is_replaced_when_it_is_added_again(cache: Cache, wrong: bytes) -> None:
    stored = cache.path(cache.add(b"one").md5)
    stored.chmod(0o644)
    stored.write_bytes(wrong)
    cache.add(b"one")
    assert stored.read_bytes() == b"one"
    assert stored.stat().st_mode & 0o777 == 0o444


def test_a_damaged_object_is_replaced_though_its_state_is_a_good_ones(cache: Cache) -> None:
    stored = cache.path(cache.add(b"one").md5)
    state.rot(stored)
    added = cache.add(b"one")
    assert stored.read_bytes() == b"one"
    assert stored.stat().st_mode & 0o777 == 0o444
    assert cache.digests.of(stored) == added.sha256 == hashlib.sha256(b"one").hexdigest()


def test_what_is_remembered_of_an_object_and_what_it_is(cache: Cache) -> None:
    entry = entry_of(cache, b"one")
    os.utime(cache.path(entry.md5), (1, 1))  # long enough ago to be believed
    assert cache.fits(entry)
    state.rot(cache.path(entry.md5))
    assert cache.fits(entry), "it is not read"
    assert not cache.is_whole(entry)
    assert not cache.fits(entry), "what was read is remembered"


def test_an_entry_is_there_when_name_and_size_are(cache: Cache) -> None:
    entry = entry_of(cache, b"one")
    assert cache.has(entry)
    assert not cache.has(FileEntry("a", 4, entry.sha256, entry.md5))
    assert not cache.has(FileEntry("a", 3, entry.sha256, "0" * 32))


def test_the_listing_of_a_folder_is_dvcs_own_bytes(cache: Cache) -> None:
    entries = [entry_of(cache, b"2", "tensors/b.h5"), entry_of(cache, b"1", "model.onnx"), entry_of(cache, b"3", "é")]
    oid = cache.add_directory(entries)
    text = (
        '[{"md5": "c4ca4238a0b923820dcc509a6f75849b", "relpath": "model.onnx"}, '
        '{"md5": "c81e728d9d4c2f636f067f89cc14862c", "relpath": "tensors/b.h5"}, '
        '{"md5": "eccbc87e4b5ce2fe28308fd9f2a7baf3", "relpath": "\\u00e9"}]'
    )
    stored = cache.path(oid)
    assert stored.read_text() == text
    assert oid == f"{hashlib.md5(text.encode()).hexdigest()}.dir"
    assert stored.stat().st_mode & 0o777 == 0o444
    assert cache.add_directory(reversed(entries)) == oid


def test_a_damaged_listing_is_written_again(cache: Cache) -> None:
    entries = [entry_of(cache, b"1")]
    stored = cache.path(cache.add_directory(entries))
    before = support.identity(stored)
    cache.add_directory(entries)
    assert support.identity(stored) == before
    damage(stored)
    cache.add_directory(entries)
    assert json.loads(stored.read_bytes())[0]["relpath"] == "a"


@given(st.binary(min_size=1, max_size=200), st.binary(max_size=20), st.integers(0, 219))
def test_an_object_begins_with_its_own_header_and_ends_with_its_own_body(
    tmp_path_factory: pytest.TempPathFactory, body: bytes, header: bytes, place: int
) -> None:
    cache = Cache(tmp_path_factory.mktemp("cache"))
    entry, whole = cache.add(body, header).entry("a"), header + body
    assert cache.beginning(entry, len(header)) == header
    assert cache.ends_with(entry, memoryview(body))
    assert cache.ends_with(entry, memoryview(body[1:]))
    place %= len(body)
    other = body[:place] + bytes([body[place] ^ 1]) + body[place + 1 :]
    assert not cache.ends_with(entry, memoryview(other))
    assert not cache.ends_with(entry, memoryview(b"x" + whole))
    longer = FileEntry("a", entry.size + 1, entry.sha256, entry.md5)
    assert not cache.ends_with(longer, memoryview(body))
    assert cache.beginning(longer, len(header)) == b""


def test_there_is_no_beginning_of_what_is_not_there(cache: Cache) -> None:
    entry = cache.add(b"bytes").entry("a")
    assert cache.beginning(entry, 4) == b"byte"
    cache.path(entry.md5).unlink()
    assert cache.beginning(entry, 4) == b""


def test_an_object_that_was_hashed_is_remembered_until_it_changes(cache: Cache) -> None:
    entry = cache.add(b"bytes").entry("a")
    assert cache.remembers(entry)
    assert not cache.remembers(FileEntry("a", entry.size, "0" * 64, entry.md5))
    assert not Cache(cache.root).remembers(entry)
    cache.path(entry.md5).chmod(0o644)
    cache.path(entry.md5).write_bytes(b"bytes of another length")
    assert not cache.remembers(entry)


def of_another_header(path: Path) -> None:
    write_at(path, 3, b"!")


def of_another_last_byte(path: Path) -> None:
    write_at(path, path.stat().st_size - 1, b"!")


def truncated(path: Path) -> None:
    path.chmod(0o644)
    os.truncate(path, path.stat().st_size - 1)


def truncated_and_filled(path: Path) -> None:
    size = path.stat().st_size
    truncated(path)
    os.truncate(path, size)


def gone(path: Path) -> None:
    path.unlink()


def a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def write_at(path: Path, at: int, data: bytes) -> None:
    """Changes bytes in place, and the times back: a bad disk leaves no other trace."""
    before = path.stat()
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.seek(at)
        file.write(data)
    path.chmod(0o444)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@pytest.mark.parametrize(
    "change", [of_another_header, of_another_last_byte, truncated, truncated_and_filled, gone, a_folder]
)
def test_an_object_that_was_changed_does_not_have_the_bytes_it_should(
    cache: Cache, change: Callable[[Path], None]
) -> None:
    header, body = b"header", os.urandom(16 << 20) + b"12345"  # a last byte that none of the changes leaves as it is
    entry = cache.add(body, header).entry("a")
    assert cache.beginning(entry, len(header)) == header
    assert cache.ends_with(entry, memoryview(body))
    change(cache.path(entry.md5))
    assert cache.beginning(entry, len(header)) != header or not cache.ends_with(entry, memoryview(body))


def test_what_was_written_before_an_error_is_taken_away_again(cache: Cache) -> None:
    kept = entry_of(cache, b"kept")
    with pytest.raises(RuntimeError), cache.undone_on_error():
        cache.add(b"kept")
        cache.add(b"new")
        raise RuntimeError
    assert [cache.path(kept.md5)] == [cache.objects / name for name in names(cache)]
    with cache.undone_on_error():
        cache.add(b"new")
    assert len(names(cache)) == 2


def test_a_mended_object_stays_when_the_save_is_refused_afterwards(cache: Cache) -> None:
    stored = cache.path(entry_of(cache, b"kept").md5)
    damage(stored)
    with pytest.raises(RuntimeError), cache.undone_on_error():
        cache.add(b"kept")
        raise RuntimeError
    assert stored.read_bytes() == b"kept"


def test_a_cache_that_cannot_be_written_is_one_error(tmp_path: Path) -> None:
    (tmp_path / "cache").write_bytes(b"no folder")
    with pytest.raises(StorageFailed, match="the DVC cache"):
        Cache(tmp_path / "cache").add(b"one")
    with pytest.raises(StorageFailed, match="the DVC cache"):
        Cache(tmp_path / "cache").add_directory([])


def test_an_object_whose_place_is_taken_leaves_no_temporary_file(cache: Cache) -> None:
    cache.path(hashlib.md5(b"one").hexdigest()).mkdir(parents=True)
    with pytest.raises(StorageFailed, match="the DVC cache"):
        cache.add(b"one")
    assert names(cache) == []


def test_without_room_nothing_is_left_of_an_object_nor_of_a_listing(tmp_path: Path) -> None:
    assert left_without_room(tmp_path / "cache", room=1 << 20) == ["kept"]


@pytest.mark.skipif(not shutil.which("unshare"), reason="needs a disk of its own")
def test_on_a_full_disk_nothing_is_left_of_an_object_nor_of_a_listing(tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    own = ["unshare", "--map-root-user", "--mount", "sh", "-c", f'mount -t tmpfs -o size=1m none {disk} && exec "$@"']
    if subprocess.run([*own, "sh", "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a disk of its own")
    assert left_without_room(disk / "cache", prefix=[*own, "sh"], why="No space left on device") == ["kept"]


def left_without_room(
    root: Path, *, room: int = 0, prefix: list[str] | None = None, why: str = "File too large"
) -> list[str]:
    """Contents of the objects that are left."""
    command = [*(prefix or []), sys.executable, "-c", _WITHOUT_ROOM, str(room), str(root)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    *said, left = done.stdout.splitlines()
    assert said == [f"cannot write the DVC cache {root} ({why})"] * 2
    names = {hashlib.md5(text.encode()).hexdigest()[2:]: text for text in ("kept", "written before")}
    return [names.get(name, name) for name in json.loads(left.replace("'", '"'))]


def test_bytes_are_durable_before_their_names_and_names_once_the_folder_is_listed(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is fsynced, and what folders hold by then, is written down: a power cut shows no sooner."""
    durable: dict[Path, set[str]] = {}

    def fsync(descriptor: int) -> None:
        path = Path(f"/proc/self/fd/{descriptor}").readlink()
        durable[path] = {p.name for p in path.iterdir()} if path.is_dir() else {path.read_bytes().decode()}
        real(descriptor)

    real = os.fsync
    monkeypatch.setattr(os, "fsync", fsync)
    texts = ("one", "two", "three")
    entries = [entry_of(cache, text.encode(), text) for text in texts]
    assert {text for path, held in durable.items() if path.name.startswith("tmp-") for text in held} == set(texts)
    assert not any(path.is_dir() for path in durable), "once for all objects, not once for each"
    listing = cache.path(cache.add_directory(entries))
    for path in (*(cache.path(entry.md5) for entry in entries), listing):
        for name in (path, *path.parents):
            if name == cache.root.parent:
                break
            assert name.name in durable.get(name.parent, ()), f"{name} is not durable"
    durable.clear()
    cache.add_directory(entries)
    assert durable == {}, "nothing new"


def test_an_object_another_save_relies_on_is_not_taken_away(tmp_path: Path) -> None:
    """Two repositories may share a cache: the second found there what the first takes back."""
    one, other = Cache(tmp_path / "cache"), Cache(tmp_path / "cache")
    with pytest.raises(RuntimeError), one.undone_on_error():
        one.add(b"of both")
        one.add(b"of one")
        entry = entry_of(other, b"of both")
        raise RuntimeError
    assert other.has(entry)
    assert names(other) == [other.path(entry.md5).relative_to(other.objects).as_posix()]


def test_what_one_save_adds_twice_is_taken_away_all_the_same(cache: Cache) -> None:
    """Tied tensors are one object."""
    with pytest.raises(RuntimeError), cache.undone_on_error():
        for _ in range(3):
            cache.add(b"tied")
        raise RuntimeError
    assert names(cache) == []


@pytest.mark.skipif(os.geteuid() != 0 or not shutil.which("setpriv"), reason="needs another user's file")
def test_an_object_of_another_user_is_relied_on(cache: Cache) -> None:
    """A team may share a cache: nobody may write to, or touch, what somebody else has put there."""
    stored = cache.path(cache.add(b"kept").md5)
    os.chown(stored, 12345, 12345)
    before = support.identity(stored)
    code = "import sys; from pathlib import Path; from gitmodel.storage.cache import Cache; " + (
        "cache = Cache(Path(sys.argv[1])); cache.add_directory([cache.add(b'kept').entry('a')])"
    )
    ours = ["setpriv", "--bounding-set=-dac_override,-dac_read_search,-fowner", "--inh-caps=-all"]
    done = subprocess.run(
        [*ours, sys.executable, "-c", code, str(cache.root)], capture_output=True, text=True, check=False
    )
    assert (done.stderr[-300:], done.returncode) == ("", 0)
    assert support.identity(stored) == before


def test_an_object_is_what_its_name_says_though_the_users_file_changes_meanwhile(cache: Cache, tmp_path: Path) -> None:
    """A training run may write its checkpoint anew while it is saved."""
    size, stop = 64 << 20, threading.Event()
    with (tmp_path / "checkpoint").open("w+b") as file:
        file.truncate(size)
        view = mmap.mmap(file.fileno(), size)

    def train() -> None:
        while not stop.is_set():
            for at in range(0, size, 4096):
                view[at] = (view[at] + 1) % 256

    with ThreadPoolExecutor(1) as pool:
        training = pool.submit(train)
        try:
            added = cache.add(memoryview(view))
        finally:
            stop.set()
        training.result()
    stored = cache.path(added.md5).read_bytes()
    assert (added.md5, added.sha256) == (hashlib.md5(stored).hexdigest(), hashlib.sha256(stored).hexdigest())


def test_an_object_that_is_taken_away_while_it_is_compared_is_put_there_again(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As another repository's save does that shares the cache, when it ends with an error."""
    entry, has_whole = entry_of(cache, b"shared"), Cache._has_whole

    def then_gone(self: Cache, *given: Any) -> bool:
        found = has_whole(self, *given)
        self.path(entry.md5).unlink()
        return found

    monkeypatch.setattr(Cache, "_has_whole", then_gone)
    assert cache.add(b"shared").entry("a") == entry
    assert cache.path(entry.md5).read_bytes() == b"shared"


def test_threads_may_add_the_same_object_at_once(cache: Cache) -> None:
    body = os.urandom(1 << 20)
    with ThreadPoolExecutor(8) as pool:
        added = {a.md5 for a in pool.map(lambda _: cache.add(body), range(16))}
    assert len(added) == 1
    assert len(names(cache)) == 1
    assert cache.path(added.pop()).read_bytes() == body


def test_processes_may_add_the_same_objects_at_once(cache: Cache) -> None:
    code = """
import sys
from pathlib import Path
from gitmodel.storage.cache import Cache
cache = Cache(Path(sys.argv[1]))
print(cache.add_directory([cache.add(b"%d" % n * 1000).entry(f"{n:03}") for n in range(100)]))
"""
    command = [sys.executable, "-c", code, str(cache.root)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    said = [process.communicate() for process in running]
    assert len(set(said)) == 1
    assert said[0][1] == ""
    assert len(names(cache)) == 101
    for item in json.loads(cache.path(said[0][0].strip()).read_bytes()):
        assert hashlib.md5(cache.path(item["md5"]).read_bytes()).hexdigest() == item["md5"]
