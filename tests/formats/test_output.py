"""Exported files are whole or not there: what stops a writer leaves the old file and nothing else."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from gitmodel.formats.output import pour, replacing
from gitmodel.formats.source import map_file

#: Writes 3 MB where a file may have 2.
TOO_MUCH = """
import resource, signal, sys
from pathlib import Path
from gitmodel import formats
from gitmodel.files import StorageFailed
from gitmodel.formats.source import Source, TensorData
resource.setrlimit(resource.RLIMIT_FSIZE, (2 << 20, 2 << 20))
tensors = tuple(TensorData(name, "uint8", (1 << 20,), memoryview(bytes(1 << 20))) for name in "abc")
try:
    formats.write(Source("x", "", tensors), Path(sys.argv[1]))
except StorageFailed as error:
    print(error)
"""


def test_a_file_is_put_in_place_of_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "w.npz"
    path.write_bytes(b"old")
    with replacing(path) as file:
        file.write(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert [found.name for found in tmp_path.iterdir()] == ["w.npz"]
    assert path.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_what_stops_the_writer_leaves_the_old_file_alone(tmp_path: Path, error: type[BaseException]) -> None:
    path = tmp_path / "w.npz"
    path.write_bytes(b"old")
    with pytest.raises(error), replacing(path) as file:
        file.write(b"new")
        raise error
    assert path.read_bytes() == b"old"
    assert [found.name for found in tmp_path.iterdir()] == ["w.npz"]


def test_what_maps_the_old_file_keeps_its_bytes(tmp_path: Path) -> None:
    path = tmp_path / "w.npz"
    path.write_bytes(b"old" * 5000)
    mapped = map_file(path)
    with replacing(path) as file:
        pour(file, mapped[3:])
    assert bytes(mapped) == b"old" * 5000
    assert path.read_bytes() == b"old" * 4999


@pytest.mark.parametrize("ending", [".safetensors", ".npz", ".h5"])
def test_a_disk_that_takes_no_more_is_said_in_one_line(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"w{ending}"
    path.write_bytes(b"old")
    done = subprocess.run(
        [sys.executable, "-c", TOO_MUCH, str(path)], capture_output=True, text=True, check=False
    )  # fmt: skip
    assert (
        done.stdout == f"cannot write {path} (File too large): nothing was lost; make room or rights and run again\n"
    ), done.stderr
    assert path.read_bytes() == b"old"
    assert [found.name for found in tmp_path.iterdir()] == [path.name]
