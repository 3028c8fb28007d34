"""Mapping a file, and telling a model from what only looks like one."""

from __future__ import annotations

import mmap
import os
from pathlib import Path

import numpy as np
import pytest

from gitmodel.files import StorageFailed
from gitmodel.formats import hdf5
from gitmodel.formats.mapping import let_go
from gitmodel.formats.source import (
    InvalidModel,
    Source,
    blocks,
    first_line,
    map_file,
    rooms,
    scratch,
)
from tests.formats import building

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n"
DVC = b"outs:\n- md5: d41d8cd98f00b204e9800998ecf8427e.dir\n  size: 12\n  hash: md5\n  path: model.onnx\n"


def test_the_bytes_of_a_file_are_mapped(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(bytes(range(256)))
    assert map_file(path) == bytes(range(256))
    assert map_file(path).readonly


@pytest.mark.parametrize(
    ("data", "what", "mend"),
    [
        (b"", "is empty", "export the model again"),
        (LFS, "is a Git LFS pointer, not a model", "git lfs pull"),
        (DVC, "is a DVC pointer, not a model", "dvc pull"),
        (DVC.replace(b"\n", b"\r\n"), "is a DVC pointer, not a model", "dvc pull"),
    ],
)
def test_what_is_no_model_is_named_with_its_mend(tmp_path: Path, data: bytes, what: str, mend: str) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    with pytest.raises(InvalidModel, match=f"model.onnx {what}.*{mend}"):
        map_file(path)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidModel, match=r"there is no file .*none\.onnx"):
        map_file(tmp_path / "none.onnx")
    with pytest.raises(InvalidModel, match="is not a file"):
        map_file(tmp_path)


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "model.onnx")
    with pytest.raises(InvalidModel, match="is not a file"):
        map_file(tmp_path / "model.onnx")


def test_links_in_a_circle_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").symlink_to("b.onnx")
    (tmp_path / "b.onnx").symlink_to("a.onnx")
    with pytest.raises(InvalidModel, match="cannot be read"):
        map_file(tmp_path / "a.onnx")


def test_a_closed_source_lets_go_of_the_file_and_keeps_its_tensors(tmp_path: Path) -> None:
    source = hdf5.read(
        building.write_h5(tmp_path / "model.h5", lambda file: file.create_dataset("w", data=building.large()))
    )
    source.close()
    assert not source.groups
    assert source.tensors[0].data == building.large().tobytes()
    Source("onnx", "", ()).close()


def test_of_what_a_library_said_one_line_is_kept() -> None:
    assert first_line(ValueError("bad\nworse")) == "bad"
    assert first_line(KeyError()) == "KeyError"


# --- room on disk ------------------------------------------------------------------------------------------------------


def resident(view: memoryview) -> int:
    """How many bytes of the mapping under this view the process has in its memory, as the kernel says."""
    address = np.frombuffer(view, np.uint8).ctypes.data
    found = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split()[0]:
            begin, end = (int(part, 16) for part in line.split()[0].split("-"))
            found = begin <= address < end
        elif found and line.startswith("Rss:"):
            return int(line.split()[1]) << 10
    raise AssertionError("no such mapping")


@pytest.mark.parametrize("size", [0, 1, 4096, 1_000_001])
def test_scratch_is_writable_room_of_just_that_size(size: int) -> None:
    room = scratch(size)
    assert (len(room), room.readonly, bytes(room)) == (size, False, bytes(size))
    room[:] = b"x" * size
    assert bytes(room) == b"x" * size


def test_scratch_leaves_no_file_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    room = scratch(5000)
    assert not list(tmp_path.iterdir())
    room[:] = b"x" * 5000


@pytest.mark.parametrize("size", [1 << 50, 1 << 70])
def test_more_than_the_disk_has_is_refused_before_anything_is_written(size: int) -> None:
    with pytest.raises(StorageFailed, match=f"cannot unpack {size} bytes to disk .*: make room for temporary files"):
        scratch(size)


def test_no_folder_for_temporary_files_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "none"))
    with pytest.raises(StorageFailed, match="No such file or directory"):
        scratch(1)


def test_rooms_are_apart_aligned_and_in_one_file() -> None:
    sizes = [0, 1, 64, 65, 0, 4097]
    made = rooms(sizes)
    assert [len(room) for room in made] == sizes
    for number, room in enumerate(made):
        room[:] = bytes([number]) * len(room)
    assert [bytes(room) for room in made] == [bytes([number]) * size for number, size in enumerate(sizes)]
    assert len({id(room.obj) for room in made}) == 1
    assert all(np.frombuffer(room, np.uint8).ctypes.data % 64 == 0 for room in made if len(room))
    assert rooms([]) == []


def test_what_is_let_go_of_leaves_memory_and_comes_back(tmp_path: Path) -> None:
    (tmp_path / "model.h5").write_bytes(os.urandom(1 << 20))
    for view in (map_file(tmp_path / "model.h5"), scratch(1 << 20)):
        if not view.readonly:
            view[:] = (tmp_path / "model.h5").read_bytes()
        assert bytes(view) == (tmp_path / "model.h5").read_bytes()
        assert resident(view) == 1 << 20
        let_go(view[1000:500_000][7:][:-9])
        assert resident(view) <= (1 << 20) - 480_000
        let_go(view[-1:])
        let_go(view)
        assert resident(view) == 0
        assert bytes(view) == (tmp_path / "model.h5").read_bytes()


def test_what_is_not_mapped_cannot_be_let_go_of() -> None:
    for view in (memoryview(b"abc"), memoryview(bytearray(5)), np.arange(3).data, memoryview(b""), scratch(0)):
        before = bytes(view)
        let_go(view)
        assert bytes(view) == before
    let_go(memoryview(mmap.mmap(-1, 4096))[:0])


@pytest.mark.parametrize("size", [0, 1, 4, 5, 12])
def test_blocks_are_the_bytes_in_order(size: int) -> None:
    data = memoryview(bytes(range(size)))
    assert b"".join(blocks(data, 4)) == data
    assert all(0 < len(block) <= 4 for block in blocks(data, 4))
