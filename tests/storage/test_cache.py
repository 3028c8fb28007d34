"""gitmodel.storage.cache: DVC's layout written directly, every digest right, damaged objects replaced, nothing half there."""

from __future__ import annotations

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gitmodel.bundle.lock import FileEntry
from gitmodel.storage.cache import Cache, sha256_of
from gitmodel.storage.files import StorageFailed
from tests.workflows.state import damage


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
    assert added.sha256 == hashlib.sha256(header + body).hexdigest() == sha256_of(stored)
    assert added.body_sha256 == hashlib.sha256(body).hexdigest()
    assert added.entry("x") == FileEntry("x", len(header) + size, added.sha256, added.md5)
    assert len(names(cache)) == 1


def test_an_object_that_is_there_is_kept(cache: Cache) -> None:
    stored = cache.path(cache.add(b"one").md5)
    before = stored.stat()
    cache.add(b"one")
    assert stored.stat() == before
    assert len(names(cache)) == 1


@pytest.mark.parametrize("wrong", [b"oNe", b"o", b""])
def test_a_damaged_object_is_replaced_when_it_is_added_again(cache: Cache, wrong: bytes) -> None:
    stored = cache.path(cache.add(b"one").md5)
    stored.chmod(0o644)
    stored.write_bytes(wrong)
    cache.add(b"one")
    assert stored.read_bytes() == b"one"
    assert stored.stat().st_mode & 0o777 == 0o444


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
    before = stored.stat()
    cache.add_directory(entries)
    assert stored.stat() == before
    damage(stored)
    cache.add_directory(entries)
    assert json.loads(stored.read_bytes())[0]["relpath"] == "a"


@given(st.binary(min_size=1, max_size=200), st.binary(max_size=20), st.integers(0, 199))
def test_an_object_holds_exactly_its_own_body(
    tmp_path_factory: pytest.TempPathFactory, body: bytes, header: bytes, place: int
) -> None:
    cache = Cache(tmp_path_factory.mktemp("cache"))
    entry = cache.add(body, header).entry("a")
    assert cache.holds(entry, memoryview(body), len(header))
    place %= len(body)
    other = body[:place] + bytes([body[place] ^ 1]) + body[place + 1 :]
    assert not cache.holds(entry, memoryview(other), len(header))
    assert not cache.holds(entry, memoryview(body + b"x"), len(header))
    assert not cache.holds(entry, memoryview(body), len(header) + 1)


def test_an_object_that_is_gone_holds_nothing(cache: Cache) -> None:
    entry = entry_of(cache, b"one")
    cache.path(entry.md5).unlink()
    assert not cache.holds(entry, memoryview(b"one"), 0)


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


def test_threads_may_add_the_same_object_at_once(cache: Cache) -> None:
    body = os.urandom(1 << 20)
    with ThreadPoolExecutor(8) as pool:
        added = {a.md5 for a in pool.map(lambda _: cache.add(body), range(16))}
    assert len(added) == 1
    assert len(names(cache)) == 1
    assert cache.path(added.pop()).read_bytes() == body
