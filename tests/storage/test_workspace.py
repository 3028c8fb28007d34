"""gitmodel.storage.workspace: the weights folder made equal to a lock, touching only what differs, losing nothing."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gitmodel.bundle.lock import FileEntry, Lock
from gitmodel.storage import digests
from gitmodel.storage.cache import Cache
from gitmodel.storage.digests import Digests, hash_file
from gitmodel.storage.workspace import MissingWeights, WouldLose, plan
from tests.workflows import state

LIE = "0" * 64
CONTENT = {"model.onnx": b"graph", "tensors/a.h5": b"aa", "tensors/b.h5": b"bb"}


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


@pytest.fixture
def lock(cache: Cache) -> Lock:
    return Lock.of([], [cache.add(data).entry(path) for path, data in CONTENT.items()])


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "weights"


def contents(folder: Path) -> dict[str, bytes]:
    return {p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def unread(path: Path) -> tuple[int, ...]:
    """The state of a file that stays when it is only read."""
    info = path.stat()
    return (info.st_ino, info.st_mode, info.st_size, info.st_mtime_ns, info.st_ctime_ns)


def entry_of(lock: Lock, path: str) -> FileEntry:
    entry = lock.file(path)
    assert entry is not None
    return entry


def test_the_folder_becomes_the_lock(cache: Cache, lock: Lock, folder: Path) -> None:
    assert plan(lock, cache, folder).apply() == 3
    assert contents(folder) == CONTENT
    assert (folder / "model.onnx").stat().st_mode & 0o777 == 0o644
    assert plan(lock, cache, folder).apply() == 0


def test_a_plan_alone_touches_nothing(cache: Cache, lock: Lock, folder: Path) -> None:
    layout = plan(lock, cache, folder)
    assert not folder.exists()
    assert {entry.path for entry in layout.stale} == set(CONTENT)


def test_only_what_differs_is_rewritten(cache: Cache, lock: Lock, folder: Path) -> None:
    plan(lock, cache, folder).apply()
    kept = unread(folder / "model.onnx")
    other = cache.add(b"of another version")
    (folder / "tensors" / "a.h5").write_bytes(cache.path(other.md5).read_bytes())
    (folder / "tensors" / "b.h5").unlink()
    assert plan(lock, cache, folder).apply() == 2
    assert contents(folder) == CONTENT
    assert unread(folder / "model.onnx") == kept


def test_files_of_the_version_before_and_empty_folders_go(cache: Cache, lock: Lock, folder: Path) -> None:
    plan(lock, cache, folder).apply()
    smaller = Lock.of([], [entry_of(lock, "model.onnx")])
    assert plan(smaller, cache, folder).apply() == 0
    assert [p.name for p in folder.rglob("*")] == ["model.onnx"]


def test_what_a_killed_copy_left_goes(cache: Cache, lock: Lock, folder: Path) -> None:
    folder.mkdir()
    (folder / ".model.onnx.x1y2z3.tmp").write_bytes(b"gra")
    plan(lock, cache, folder).apply()
    assert contents(folder) == CONTENT


@pytest.mark.parametrize("name", ["mine.onnx", "tensors/mine.h5", "tensors/a.h5"])
def test_a_file_that_was_never_saved_stops_the_plan(cache: Cache, lock: Lock, folder: Path, name: str) -> None:
    plan(lock, cache, folder).apply()
    (folder / name).write_bytes(b"by hand")
    before = contents(folder)
    with pytest.raises(WouldLose, match=name):
        plan(lock, cache, folder)
    assert contents(folder) == before


def test_an_edit_of_the_same_size_stops_the_plan(cache: Cache, lock: Lock, folder: Path) -> None:
    plan(lock, cache, folder).apply()
    (folder / "tensors" / "a.h5").write_bytes(b"AA")
    with pytest.raises(WouldLose, match=r"a\.h5"):
        plan(lock, cache, folder)


def test_a_symbolic_link_is_not_taken_for_the_file(cache: Cache, lock: Lock, folder: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(b"graph")
    folder.mkdir()
    (folder / "model.onnx").symlink_to(elsewhere)
    for noted in ("0" * 64, "1" * 64):
        cache.digests.note(elsewhere.stat(), noted)
    assert cache.digests.is_rotten(elsewhere)
    with pytest.raises(WouldLose, match=r"model\.onnx"):
        plan(lock, cache, folder)
    assert elsewhere.read_bytes() == b"graph"


@pytest.mark.parametrize("inside", [".", "tensors"])
def test_a_linked_folder_is_never_written_to(
    cache: Cache, lock: Lock, folder: Path, tmp_path: Path, inside: str
) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    if inside == ".":
        folder.symlink_to(victim)
    else:
        folder.mkdir()
        (folder / inside).symlink_to(victim)
    with pytest.raises(WouldLose):
        plan(lock, cache, folder)
    assert list(victim.iterdir()) == []


def test_nothing_is_touched_when_an_object_is_missing(cache: Cache, lock: Lock, folder: Path) -> None:
    folder.mkdir()
    (folder / "model.onnx").write_bytes(b"old")
    cache.path(entry_of(lock, "tensors/b.h5").md5).unlink()
    with pytest.raises(MissingWeights, match=r"1 file \(2 bytes\) of .* is not in the DVC cache"):
        plan(lock, cache, folder)
    assert contents(folder) == {"model.onnx": b"old"}


def test_a_damaged_object_is_not_laid_out(cache: Cache, lock: Lock, folder: Path) -> None:
    state.damage(cache.path(entry_of(lock, "tensors/b.h5").md5))
    with pytest.raises(MissingWeights, match=r"other bytes for tensors/b\.h5"):
        plan(lock, cache, folder).apply()
    assert "tensors/b.h5" not in contents(folder)


def test_a_damaged_object_does_not_cost_the_right_file(cache: Cache, lock: Lock, folder: Path) -> None:
    plan(lock, cache, folder).apply()
    for entry in lock.files:
        state.damage(cache.path(entry.md5))
    assert plan(lock, cache, folder).apply() == 0
    assert contents(folder) == CONTENT


def test_what_has_not_changed_is_not_read_again(cache: Cache, lock: Lock, folder: Path) -> None:
    plan(lock, cache, folder).apply()
    path = folder / "model.onnx"
    entry = entry_of(lock, "model.onnx")
    path.write_bytes(b"hparg")
    cache.digests.note(path.stat(), entry.sha256)
    assert plan(lock, cache, folder).stale == (), "by its state it is what was remembered"
    later = path.stat().st_mtime_ns + 1
    os.utime(path, ns=(later, later))
    with pytest.raises(WouldLose, match=r"model\.onnx"):
        plan(lock, cache, folder)


def test_what_was_laid_out_is_known_to_the_next_process(tmp_path: Path, folder: Path) -> None:
    cache = Cache(tmp_path / "cache", Digests(tmp_path / "digests.sqlite"))
    lock = Lock.of([], [cache.add(data).entry(path) for path, data in CONTENT.items()])
    plan(lock, cache, folder).apply()
    del cache
    path = folder / "model.onnx"
    changed = path.stat().st_mtime_ns
    path.write_bytes(b"hparg")
    os.utime(path, ns=(changed, changed))
    again = Cache(tmp_path / "cache", Digests(tmp_path / "digests.sqlite"))
    assert plan(lock, again, folder).stale == (), "by its state it is what was laid out"


@pytest.mark.parametrize("same_process", [True, False])
def test_a_file_rewritten_at_once_is_not_taken_for_what_was_laid_out(
    tmp_path: Path, folder: Path, same_process: bool
) -> None:
    """The clock of the file system may not have moved between the two."""
    cache = Cache(tmp_path / "cache", Digests(tmp_path / "digests.sqlite"))
    lock = Lock.of([], [cache.add(data).entry(path) for path, data in CONTENT.items()])
    plan(lock, cache, folder).apply()
    laid_out = (folder / "model.onnx").stat().st_mtime_ns
    (folder / "model.onnx").write_bytes(b"hparg")
    # A tick of 10 ms at most: what was laid out must look older than that.
    assert (folder / "model.onnx").stat().st_mtime_ns - laid_out > 10**7
    if not same_process:
        del cache
        cache = Cache(tmp_path / "cache", Digests(tmp_path / "digests.sqlite"))
    with pytest.raises(WouldLose, match=r"model\.onnx"):
        plan(lock, cache, folder, before=lock)


@pytest.mark.parametrize("side", ["object", "file"])
def test_a_memory_that_is_wrong_costs_time_alone(cache: Cache, lock: Lock, folder: Path, side: str) -> None:
    """A page of its table may have gone bad on the disk."""
    entry = entry_of(lock, "tensors/a.h5")
    if side == "file":
        plan(lock, cache, folder).apply()
    cache.digests.note((folder / entry.path if side == "file" else cache.path(entry.md5)).stat(), LIE)
    plan(lock, cache, folder, before=lock).apply()
    assert contents(folder) == CONTENT


@pytest.mark.parametrize("goes", ["surplus", "stale"])
def test_the_last_good_copy_is_not_overwritten(cache: Cache, lock: Lock, folder: Path, goes: str) -> None:
    """The object of the version that is laid out is damaged: the file in the working tree is all there is of it."""
    plan(lock, cache, folder).apply()
    state.damage(cache.path(entry_of(lock, "tensors/a.h5").md5))
    others = [entry for entry in lock.files if entry.path != "tensors/a.h5"]
    if goes == "stale":
        others.append(cache.add(b"AA").entry("tensors/a.h5"))
    with pytest.raises(WouldLose, match=r"tensors/a\.h5"):
        plan(Lock.of([], others), cache, folder, before=lock)
    assert contents(folder) == CONTENT


def test_the_version_before_may_go_without_being_read(cache: Cache, lock: Lock, folder: Path) -> None:
    plan(lock, cache, folder).apply()
    other = Lock.of([], [cache.add(data.upper()).entry(path) for path, data in CONTENT.items()])
    assert plan(other, cache, folder, before=lock).apply() == 3
    assert contents(folder) == {path: data.upper() for path, data in CONTENT.items()}
    assert plan(lock, cache, folder, before=other).apply() == 3
    assert contents(folder) == CONTENT


def test_going_to_and_fro_rewrites_what_differs_alone(cache: Cache, lock: Lock, folder: Path) -> None:
    other = Lock.of([], [*lock.files[:-1], cache.add(b"BB").entry("tensors/b.h5")])
    plan(lock, cache, folder).apply()
    kept = {path: unread(folder / path) for path in CONTENT if path != "tensors/b.h5"}
    for now, before in ((other, lock), (lock, other), (other, lock)):
        assert plan(now, cache, folder, before=before).apply() == 1
        assert {path: unread(folder / path) for path in kept} == kept


def test_many_files_in_new_folders_are_laid_out_at_once(cache: Cache, folder: Path) -> None:
    content = {f"tensors/{number % 7}/{number}.h5": b"%d" % number for number in range(100)}
    lock = Lock.of([], [cache.add(data).entry(path) for path, data in content.items()])
    assert plan(lock, cache, folder).apply() == 100
    assert contents(folder) == content


def test_what_is_still_as_it_was_laid_out_is_not_hashed_to_see_that_it_is_another(
    cache: Cache, lock: Lock, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan(lock, cache, folder).apply()
    kept = [entry for entry in lock.files if entry.path != "tensors/a.h5"]
    other = Lock.of([], [*kept, cache.add(b"AA").entry("tensors/a.h5")])
    hashed: list[Path] = []

    def watched(path: Path) -> str:
        hashed.append(path)
        return hash_file(path)

    monkeypatch.setattr(digests, "hash_file", watched)
    assert [entry.path for entry in plan(other, cache, folder, before=lock).stale] == ["tensors/a.h5"]
    assert hashed == []
    (folder / "tensors" / "a.h5").write_bytes(b"AA")
    assert plan(other, cache, folder, before=lock).stale == ()
    assert hashed != []
