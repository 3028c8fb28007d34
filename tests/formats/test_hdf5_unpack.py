"""What HDF5 packs is unpacked slab by slab, and copies of datasets are the same bytes wherever they are made."""

from __future__ import annotations

import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from gitmodel.formats import hdf5, hdf5_unpack
from gitmodel.formats.hdf5_writing import image_of, memory_file
from gitmodel.formats.source import InvalidModel, scratch
from tests.formats.building import by_name, large, write_h5


@pytest.mark.parametrize(
    ("shape", "chunks"),
    [((40, 30), (7, 11)), ((40, 30), (1, 30)), ((40, 30), (40, 1)), ((1200,), (7,)), ((10, 12, 10), (3, 12, 1)),
     ((40, 30), None), ((0, 3), None), ((), None), ((5, 0), None), ((40, 30), (40, 30))],
)  # fmt: skip
@pytest.mark.parametrize("slab", [1, 100, 2000, 1 << 20])
@pytest.mark.parametrize("dtype", [">f4", "<f4", "?"])
def test_every_slab_is_in_its_place(
    tmp_path: Path, shape: Any, chunks: Any, slab: int, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hdf5_unpack, "_SLAB_BYTES", slab)
    values = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype)
    path = write_h5(tmp_path / "w.h5", lambda file: file.create_dataset("w", data=values, chunks=chunks))
    room = scratch(values.nbytes)
    with h5py.File(path) as file:
        hdf5_unpack.unpack(file["w"], room)
    assert room == values.astype(np.dtype(dtype).newbyteorder("<")).tobytes()


def test_slabs_are_whole_chunks_and_no_larger_than_they_have_to_be() -> None:
    slabs = list(hdf5_unpack._slabs((10_000, 7_500), (100, 100), 4))
    assert all(part.start % 100 == 0 and part.stop % 100 == 0 for slab in slabs for part in slab)
    sizes = [4 * (a.stop - a.start) * (b.stop - b.start) for a, b in slabs]
    assert max(sizes) <= hdf5_unpack._SLAB_BYTES < 2 * max(sizes)


def build(file: Any) -> None:
    file.create_dataset("gzip", data=large(), compression="gzip", shuffle=True, fletcher32=True)
    file.create_dataset("group/chunked", data=large(1), chunks=(50, 50), maxshape=(None, None))
    file.create_dataset("noted", data=large(2)).attrs["note"] = ["a", "b"]
    file.create_dataset("swapped", data=large(3).astype(">f4"))
    file.create_dataset("scale", data=large(4)).make_scale("rows")


def test_a_copy_on_disk_has_the_bytes_of_one_in_memory(tmp_path: Path) -> None:
    source = hdf5.read(write_h5(tmp_path / "w.h5", build))
    tensors = by_name(source)
    with h5py.File(tmp_path / "w.h5", rdcc_nbytes=0) as file:
        for name, found in tensors.items():
            with memory_file() as made:
                h5py.h5o.copy(file[name].id, b".", made.id, b"data")
                assert found.stored == image_of(made)
            assert found.data.readonly
            np.testing.assert_array_equal(np.frombuffer(found.data, "<f4").reshape(160, 160), file[name][()])
    assert len({id(found.stored.obj) for found in tensors.values() if isinstance(found.stored, memoryview)}) == 1


def test_shelved_files_are_those_that_were_written(tmp_path: Path) -> None:
    contents = [b"a" * 100_000, b"", b"b", bytes(range(256)) * 40]
    views = hdf5_unpack.shelved(partial(Path.write_bytes, data=content) for content in contents)  # type: ignore[misc]  # the path comes first
    assert [bytes(view) for view in views] == contents
    assert hdf5_unpack.shelved([]) == []


def test_an_image_is_read_as_the_file_it_is(tmp_path: Path) -> None:
    path = write_h5(tmp_path / "w.h5", build)
    with h5py.File(hdf5_unpack.Image(memoryview(path.read_bytes())), "r") as image:
        np.testing.assert_array_equal(image["group/chunked"][()], large(1))


def test_a_damaged_chunk_is_refused(tmp_path: Path) -> None:
    path = write_h5(
        tmp_path / "w.h5", lambda f: f.create_dataset("w", data=large(), chunks=(160, 160), fletcher32=True)
    )
    with h5py.File(path) as file:
        place = file["w"].id.get_chunk_info(0).byte_offset
    data = bytearray(path.read_bytes())
    data[place + 5] ^= 1
    path.write_bytes(data)
    with pytest.raises(InvalidModel, match=r"w\.h5 is no whole HDF5 file"):
        hdf5.read(path)


FULL = """
import resource, sys
from pathlib import Path
from gitmodel import formats
from gitmodel.files import StorageFailed
formats.read(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, 200_000))
try:
    formats.read(Path(sys.argv[2]))
except StorageFailed as error:
    print(error, flush=True)
"""


@pytest.mark.parametrize("packed", [False, True])
def test_no_room_for_copies_is_said_in_one_line(tmp_path: Path, packed: bool) -> None:
    def build(file: Any, side: int) -> None:
        dataset = file.create_dataset("w", (side, side), "f4", chunks=(50, 50) if packed else None)
        dataset[...] = 1
        dataset.attrs["note"] = "kept"

    small = write_h5(tmp_path / "small.h5", lambda file: build(file, 160))
    big = write_h5(tmp_path / "big.h5", lambda file: build(file, 500))
    done = subprocess.run(
        [sys.executable, "-c", FULL, str(small), str(big)], capture_output=True, text=True, check=False
    )  # fmt: skip
    said = "cannot unpack 1000000 bytes to disk" if packed else "cannot write a temporary copy of '/w'"
    assert done.stdout == (
        f"{said} (File too large): make room for temporary files, or set TMPDIR to a folder that has it\n"
    ), done.stderr
