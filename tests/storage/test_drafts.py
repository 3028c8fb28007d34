"""gitmodel.storage.drafts: files written beside their objects, taken once, never needed and never left behind."""

from __future__ import annotations

import hashlib
import resource
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from gitmodel.bundle.lock import Lock
from gitmodel.storage.cache import Cache
from gitmodel.storage.drafts import Drafts
from gitmodel.storage.workspace import plan
from tests.test_files import other_file_system

BODY = b"weights" * 60_000


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


@contextmanager
def at_most(size: int) -> Iterator[None]:
    """No file may grow beyond ``size`` bytes."""
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def stored(cache: Cache, drafts: Drafts, path: str = "tensors/a.h5", body: bytes = BODY) -> Lock:
    with drafts.writing() as draft:
        hashed = cache.add(body, b"header", draft.take)
        draft.keep(hashed.sha256)
    return Lock.of([], [hashed.entry(path)])


def test_a_draft_has_the_objects_bytes_and_becomes_the_file(cache: Cache, tmp_path: Path) -> None:
    folder = tmp_path / "weights"
    with Drafts.below(tmp_path / "drafts") as drafts:
        lock = stored(cache, drafts)
        (draft,) = (tmp_path / "drafts").iterdir()
        assert draft.read_bytes() == b"header" + BODY == cache.path(lock.files[0].md5).read_bytes()
        inode = draft.stat().st_ino
        assert plan(lock, cache, folder, drafts=drafts).apply() == 1
    laid = folder / "tensors" / "a.h5"
    assert (laid.stat().st_ino, laid.stat().st_mode & 0o777) == (inode, 0o644)
    assert hashlib.sha256(laid.read_bytes()).hexdigest() == lock.files[0].sha256
    assert laid.stat().st_ino != cache.path(lock.files[0].md5).stat().st_ino
    assert not (tmp_path / "drafts").exists()
    assert plan(lock, cache, folder).stale == ()


def test_two_files_of_the_same_bytes_are_two_files(cache: Cache, tmp_path: Path) -> None:
    folder = tmp_path / "weights"
    with Drafts.below(tmp_path / "drafts") as drafts:
        first, second = stored(cache, drafts), stored(cache, drafts, "tensors/b.h5")
        lock = Lock.of([], [*first.files, *second.files])
        assert plan(lock, cache, folder, drafts=drafts).apply() == 2
    one, other = sorted((folder / "tensors").iterdir())
    assert one.read_bytes() == other.read_bytes() == b"header" + BODY
    assert one.stat().st_ino != other.stat().st_ino


def test_what_is_not_kept_is_dropped(tmp_path: Path) -> None:
    with Drafts.below(tmp_path / "drafts") as drafts:
        with pytest.raises(ValueError, match="no"), drafts.writing() as draft:
            draft.take(b"half of it")
            raise ValueError("no")
        assert list((tmp_path / "drafts").iterdir()) == []
        assert drafts.take(hashlib.sha256(b"half of it").hexdigest()) is None


def test_what_a_killed_process_left_goes(tmp_path: Path) -> None:
    (tmp_path / "drafts").mkdir()
    (tmp_path / "drafts" / "draft-x").write_bytes(b"left")
    with Drafts.below(tmp_path / "drafts"):
        assert list((tmp_path / "drafts").iterdir()) == []
    assert not (tmp_path / "drafts").exists()


def test_a_disk_that_takes_no_draft_still_gets_the_file(cache: Cache, tmp_path: Path) -> None:
    with Drafts.below(tmp_path / "drafts") as drafts:
        with drafts.writing() as draft:
            draft.take(b"header")
            with at_most(1000):
                draft.take(BODY)
            draft.take(b"more")
            draft.keep("0" * 64)
        assert drafts.take("0" * 64) is None
        lock = Lock.of([], [cache.add(BODY).entry("a.h5")])
        assert plan(lock, cache, tmp_path / "weights", drafts=drafts).apply() == 1


@pytest.mark.parametrize("there", ["a file", "nothing to write to"])
def test_where_no_draft_can_be_made_all_goes_on(cache: Cache, tmp_path: Path, there: str) -> None:
    place = tmp_path / "drafts"
    place.write_bytes(b"") if there == "a file" else None
    with Drafts.below(place if there == "a file" else Path("/proc/nowhere/drafts")) as drafts:
        lock = stored(cache, drafts)
        assert plan(lock, cache, tmp_path / "weights", drafts=drafts).apply() == 1
    assert (tmp_path / "weights" / "tensors" / "a.h5").read_bytes() == b"header" + BODY


def test_a_draft_on_another_file_system_is_copied(cache: Cache, tmp_path: Path) -> None:
    away = other_file_system(tmp_path)
    with Drafts.below(away / "drafts") as drafts:
        lock = stored(cache, drafts)
        assert plan(lock, cache, tmp_path / "weights", drafts=drafts).apply() == 1
    assert (tmp_path / "weights" / "tensors" / "a.h5").read_bytes() == b"header" + BODY
    assert list((tmp_path / "weights" / "tensors").iterdir()) == [tmp_path / "weights" / "tensors" / "a.h5"]
