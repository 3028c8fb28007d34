"""gitmodel.storage.blocks: what is written is what is hashed, what is equal is equal to the last byte, memory stays flat."""

from __future__ import annotations

import hashlib
import mmap
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gitmodel.bundle.lock import FileEntry
from gitmodel.storage import blocks
from gitmodel.storage.blocks import Hashed, equal, write_hashed

MIB = 1 << 20
#: What is compared at once, what is written at once, and from where on two threads hash one tensor.
SEGMENT, BLOCK, HUGE = blocks._SEGMENT, blocks._BLOCK, blocks._HUGE
EDGES = [0, 1, BLOCK - 1, BLOCK, BLOCK + 1, SEGMENT - 1, SEGMENT, SEGMENT + 1, 2 * SEGMENT + 3]

_FLAT = """
import mmap, os, resource, sys
from pathlib import Path
from gitmodel.storage.blocks import equal, write_hashed
one, other = (Path(name) for name in sys.argv[1:])
size = 128 << 20
for path in (one, other):
    with path.open("wb") as file:
        file.truncate(size)
with one.open("rb") as file:
    body = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
equal(one, b"", body[:0])
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
sink = os.open(os.devnull, os.O_WRONLY)
hashed = write_hashed(sink, b"", body)
assert hashed.size == size
assert equal(other, b"", body)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def noise(size: int) -> bytes:
    return os.urandom(min(size, 4096)) * (size // 4096 + 1)


def body_of(size: int) -> bytes:
    return noise(size)[:size]


def write(path: Path, header: bytes, body: memoryview) -> Hashed:
    with path.open("wb") as file:
        return write_hashed(file.fileno(), header, body)


def true(data: bytes) -> Hashed:
    return Hashed(hashlib.md5(data).hexdigest(), hashlib.sha256(data).hexdigest(), len(data))


@pytest.mark.parametrize(
    ("header", "size"), [(b"", 0), (b"", BLOCK), *((b"HEADER", size) for size in [*EDGES, HUGE + 1])]
)
def test_what_is_written_is_what_was_hashed(tmp_path: Path, header: bytes, size: int) -> None:
    body = body_of(size)
    assert write(tmp_path / "out", header, memoryview(body)) == true(header + body)
    assert (tmp_path / "out").read_bytes() == header + body


def test_a_mapped_file_is_written_and_still_readable_afterwards(tmp_path: Path) -> None:
    body = body_of(SEGMENT + 5 * BLOCK + 7)
    (tmp_path / "in").write_bytes(body)
    with (tmp_path / "in").open("rb") as file:
        view = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    # A tensor begins anywhere in its file.
    assert write(tmp_path / "out", b"h", view[13:]) == true(b"h" + body[13:])
    assert view == body


def test_several_large_ones_may_be_written_at_once(tmp_path: Path) -> None:
    bodies = [body_of(HUGE + number if number % 2 else SEGMENT + number) for number in range(6)]

    def one(number: int) -> Hashed:
        return write(tmp_path / str(number), b"h", memoryview(bodies[number]))

    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(one, range(6))) == [true(b"h" + body) for body in bodies]


@pytest.mark.parametrize("size", [BLOCK, HUGE])
def test_what_cannot_be_written_is_the_callers_to_deal_with(tmp_path: Path, size: int) -> None:
    (tmp_path / "out").write_bytes(b"")
    with (tmp_path / "out").open("rb") as file, pytest.raises(OSError, match="Bad file descriptor"):
        write_hashed(file.fileno(), b"", memoryview(bytes(size)))


def test_a_slow_reader_gets_every_byte() -> None:
    """A pipe takes less at once than it is given."""
    body = body_of(3 * BLOCK)
    reading, writing = os.pipe()
    with ThreadPoolExecutor(1) as pool, os.fdopen(reading, "rb") as reader:
        received = pool.submit(reader.read)
        hashed = write_hashed(writing, b"h", memoryview(body))
        os.close(writing)
        assert received.result() == b"h" + body
    assert hashed == true(b"h" + body)


def test_what_was_written_becomes_an_entry() -> None:
    assert Hashed("m", "s", 3).entry("tensors/w.h5") == FileEntry("tensors/w.h5", 3, "s", "m")


@settings(max_examples=60)
@given(
    st.binary(max_size=300),
    st.binary(max_size=40),
    st.lists(st.tuples(st.integers(0, 339), st.integers(0, 255)), max_size=2),
    st.sampled_from([0, 0, 0, -1, 1]),
)
def test_files_are_equal_just_when_their_bytes_are(
    tmp_path_factory: pytest.TempPathFactory, body: bytes, header: bytes, edits: list[tuple[int, int]], longer: int
) -> None:
    stored = bytearray(header + body)
    for at, value in edits:
        if at < len(stored):
            stored[at] = value
    stored = stored + b"x" if longer > 0 else stored[: len(stored) + longer]
    path = tmp_path_factory.mktemp("equal") / "file"
    path.write_bytes(stored)
    assert equal(path, header, memoryview(body)) is (bytes(stored) == header + body)


@pytest.mark.parametrize(("header", "size"), [(b"", 0), (b"", BLOCK), *((b"HEADER", size) for size in EDGES)])
def test_one_changed_byte_anywhere_is_seen(tmp_path: Path, header: bytes, size: int) -> None:
    body, path = body_of(size), tmp_path / "file"
    path.write_bytes(header + body)
    assert equal(path, header, memoryview(body))
    whole = len(header) + size
    for at in {0, len(header), whole // 2, len(header) + SEGMENT - 1, len(header) + SEGMENT, whole - 1}:
        if 0 <= at < whole:
            with path.open("r+b") as file:
                file.seek(at)
                was = file.read(1)
                file.seek(at)
                file.write(bytes([was[0] ^ 1]))
                file.flush()
                assert not equal(path, header, memoryview(body)), at
                file.seek(at)
                file.write(was)
    assert equal(path, header, memoryview(body))
    os.truncate(path, whole + 1)
    assert not equal(path, header, memoryview(body))
    if whole:
        os.truncate(path, whole - 1)
        assert not equal(path, header, memoryview(body))


def test_a_file_that_is_gone_is_equal_to_nothing(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        equal(tmp_path / "gone", b"", memoryview(b""))


def test_memory_does_not_grow_with_what_is_written_and_compared(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _FLAT, str(tmp_path / "one"), str(tmp_path / "other")],
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stdout) * 1024 < 32 * MIB, "a segment of 4 MiB on either side, not 128 MiB"
