"""gitmodel.storage.workspace: the weights folder made equal to a lock, touching only what differs, losing nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from gitmodel.bundle.lock import FileEntry, Lock
from gitmodel.storage.cache import Cache
from gitmodel.storage.workspace import MissingWeights, WouldLose, plan
from tests.workflows import state

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
    kept = (folder / "model.onnx").stat()
    other = cache.add(b"of another version")
    (folder / "tensors" / "a.h5").write_bytes(cache.path(other.md5).read_bytes())
    (folder / "tensors" / "b.h5").unlink()
    assert plan(lock, cache, folder).apply() == 2
    assert contents(folder) == CONTENT
    assert (folder / "model.onnx").stat() == kept


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
    with pytest.raises(MissingWeights, match=r"1 files \(2 bytes\)"):
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
