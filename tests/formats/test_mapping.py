"""Mapped files: readable after all else is closed and gone, without a descriptor each, and given back in the end."""

from __future__ import annotations

import errno
import gc
import os
import subprocess
import sys
from pathlib import Path

import pytest

from gitmodel.formats.mapping import let_go, mapped
from gitmodel.formats.source import InvalidModel, map_file, scratch

SIZE = 3 << 20

#: Maps more files than the process may have open.
MANY = """
import resource, sys
from pathlib import Path
from gitmodel.formats.source import map_file
resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
views = [map_file(path) for path in sorted(Path(sys.argv[1]).iterdir())]
print(len(views), sum(view[0] for view in views), bytes(views[-1]) == b"\\1" * 100)
"""


def content(path: Path) -> memoryview:
    path.write_bytes(os.urandom(1 << 10) * (SIZE >> 10))
    with path.open("rb") as file:
        return mapped(file.fileno(), SIZE)


def is_in_maps(path: Path) -> bool:
    return str(path) in Path("/proc/self/maps").read_text()


def test_a_mapping_is_read_only_and_has_the_files_bytes(tmp_path: Path) -> None:
    view = content(tmp_path / "f")
    assert (view.readonly, view.format, view.nbytes) == (True, "B", SIZE)
    assert view == (tmp_path / "f").read_bytes()


def test_a_mapping_outlives_the_file_and_goes_with_its_last_view(tmp_path: Path) -> None:
    path = tmp_path / "f"
    view = content(path)
    expected = path.read_bytes()
    path.unlink()
    part = view[SIZE // 2 :]
    del view
    gc.collect()
    assert part == expected[SIZE // 2 :]
    assert is_in_maps(path)
    del part
    gc.collect()
    assert not is_in_maps(path)


def test_more_files_are_mapped_than_may_be_open(tmp_path: Path) -> None:
    for number in range(200):
        (tmp_path / f"{number:03}").write_bytes(b"\1" * 100)
    done = subprocess.run(
        [sys.executable, "-c", MANY, str(tmp_path)], capture_output=True, text=True, check=False
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("200 200 True\n", "")


@pytest.mark.parametrize("part", [slice(None), slice(100, SIZE - 100), slice(0, 1), slice(5, 5)])
def test_what_was_let_go_of_is_read_again(tmp_path: Path, part: slice) -> None:
    view = content(tmp_path / "f")
    let_go(view[part])
    assert view == (tmp_path / "f").read_bytes()


def test_room_that_was_let_go_of_keeps_what_was_written() -> None:
    room = scratch(SIZE)
    room[:] = b"\7" * SIZE
    let_go(room)
    assert room == b"\7" * SIZE


def test_bytes_that_are_not_mapped_are_left_alone() -> None:
    for data in (b"", b"abc", bytearray(b"abc")):
        let_go(memoryview(data))
        assert data in (b"", b"abc")


def test_what_cannot_be_mapped_is_the_systems_error(tmp_path: Path) -> None:
    with (tmp_path / "f").open("wb") as file, pytest.raises(OSError, match="Permission denied") as caught:
        mapped(file.fileno(), 10)
    assert caught.value.errno == errno.EACCES
    with pytest.raises(InvalidModel, match="is empty"):
        map_file(tmp_path / "f")


#: Reads a mapped file that was cut short meanwhile, with the interpreter's lock and without.
CUT = """
import hashlib, os, sys
from gitmodel.formats import mapping
from gitmodel.formats.source import map_file
from pathlib import Path
view = map_file(Path(sys.argv[1]))
mapping.end_when_cut("cut short\\n", 3)
os.truncate(sys.argv[1], 4096)
bytes(view) if sys.argv[2] == "copied" else hashlib.sha256(view)
"""


@pytest.mark.parametrize("how", ["copied", "hashed"])
def test_a_process_says_so_when_a_file_is_cut_short_under_it(tmp_path: Path, how: str) -> None:
    (tmp_path / "long").write_bytes(bytes(SIZE))
    ended = subprocess.run(
        [sys.executable, "-c", CUT, str(tmp_path / "long"), how], capture_output=True, text=True, check=False
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (3, "", "cut short\n")


#: The same, by two threads: while the first says so, the second meets it.
CUT_FOR_TWO = """
import hashlib, os, sys, threading
from gitmodel.formats import mapping
from gitmodel.formats.source import map_file
from pathlib import Path
view = map_file(Path(sys.argv[1]))
mapping.end_when_cut("cut short\\n", 3)
met, write = threading.Barrier(2, timeout=2), os.write

def slowly(descriptor, text):
    write(descriptor, text)
    try:
        met.wait()
    except threading.BrokenBarrierError:
        pass

def wait(_):
    met.wait()

os.write, mapping.time.sleep = slowly, wait
os.truncate(sys.argv[1], 4096)
threading.Thread(target=hashlib.sha256, args=(view,)).start()
hashlib.sha256(view)
"""


def test_it_is_said_once_though_two_threads_meet_it(tmp_path: Path) -> None:
    (tmp_path / "long").write_bytes(bytes(SIZE))
    argv = [sys.executable, "-c", CUT_FOR_TWO, str(tmp_path / "long")]
    ended = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (3, "", "cut short\n")
