"""Files of 300 MB are read, hashed and written in a few MB of memory: mapped, unpacked to disk, and let go of in between."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest

from gitmodel.formats import wire
from tests.formats import building

SHAPE = (10_000, 7_500)
SIZE = 4 * SHAPE[0] * SHAPE[1]
MOST = 80 << 20

#: Prints by how much the process's peak grew while it read, hashed and wrote. The peak is that of the kernel since the
#: program began: what ``getrusage`` says counts the parent's memory, too, from before.
CHILD = """
import hashlib, sys
from pathlib import Path
from gitmodel import formats
from gitmodel.formats import onnx
from gitmodel.formats.mapping import let_go
from gitmodel.formats.source import blocks

def peak():
    return next(int(line.split()[1]) << 10 for line in open("/proc/self/status") if line.startswith("VmHWM"))

def work(path):
    source = formats.read(Path(path))
    for tensor in source.tensors:
        for data in filter(None, (tensor.data, tensor.stored)):
            digest = hashlib.sha256()
            for block in blocks(data):
                digest.update(block)
                if LET_GO:
                    let_go(block)
    for target in map(Path, targets):
        if target.name == "view":
            onnx.write_view(source.graph, {}, {tensor.name: tensor for tensor in source.tensors})
        else:
            formats.write(source, target)

LET_GO, small, large, *targets = sys.argv[1:]
LET_GO = LET_GO == "yes"
work(small)
before = peak()
work(large)
print(peak() - before)
"""


class Sparse(io.FileIO):
    """A file in which zeros are holes."""

    def write(self, data: bytes | memoryview) -> int:  # type: ignore[override]  # as zipfile calls it
        if any(memoryview(data)[:: max(1, len(data) // 64)]) or len(data) < 4096:
            return super().write(data)
        self.seek(len(data), io.SEEK_CUR)
        return len(data)


def zeros(size: int) -> Iterator[bytes]:
    for start in range(0, size, 1 << 20):
        yield bytes(min(1 << 20, size - start))


def as_safetensors(path: Path, shape: tuple[int, int]) -> Path:
    size = 4 * shape[0] * shape[1]
    header = json.dumps({"w": {"dtype": "F32", "shape": shape, "data_offsets": [0, size]}}).encode()
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(8 + len(header) + size)
    return path


def as_npz(compression: int, descr: str, *, fortran: bool) -> Callable[[Path, tuple[int, int]], Path]:
    def build(path: Path, shape: tuple[int, int]) -> Path:
        with (
            Sparse(path, "w+") as file,
            zipfile.ZipFile(file, "w", compression, compresslevel=1) as archive,
            archive.open("w.npy", "w", force_zip64=True) as member,
        ):
            header = {"descr": descr, "fortran_order": fortran, "shape": shape}
            np.lib.format.write_array_header_1_0(member, header)
            for block in zeros(4 * shape[0] * shape[1]):
                member.write(block)
        return path

    return build


def as_hdf5(dtype: str, *, gzip: bool) -> Callable[[Path, tuple[int, int]], Path]:
    def build(path: Path, shape: tuple[int, int]) -> Path:
        with h5py.File(path, "w") as file:
            packed = {"chunks": (100, 100), "compression": "gzip", "compression_opts": 1} if gzip else {}
            dataset = file.create_dataset("w", shape, dtype, fill_time="never", **packed)
            # What is not compressed takes its whole space, as holes, when the first value is written.
            for start in range(0, shape[0], 100) if gzip else [0]:
                dataset[start : start + 100] = 0
            dataset.attrs["note"] = "kept as it is"
        return path

    return build


def as_onnx(path: Path, shape: tuple[int, int]) -> Path:
    model = building.matmul(weights={"w": building.large()})
    model.graph.initializer[0].dims[:] = shape
    skeleton, _ = wire.cut(memoryview(model.SerializeToString()), 1 << 10, "model.onnx")
    with path.open("wb") as file:
        for chunk in wire.join(skeleton, [memoryview(np.zeros(4 * shape[0] * shape[1], "u1").data)]):
            if len(chunk) < 1 << 10:
                file.write(chunk)
            else:
                file.seek(len(chunk), io.SEEK_CUR)
        file.truncate()
    return path


KINDS: dict[str, tuple[str, Callable[[Path, tuple[int, int]], Path]]] = {
    "safetensors": (".safetensors", as_safetensors),
    "npz": (".npz", as_npz(zipfile.ZIP_STORED, "<f4", fortran=False)),
    "deflated npz": (".npz", as_npz(zipfile.ZIP_DEFLATED, "<f4", fortran=False)),
    "npz in columns": (".npz", as_npz(zipfile.ZIP_STORED, "<f4", fortran=True)),
    "big-endian npz": (".npz", as_npz(zipfile.ZIP_STORED, ">f4", fortran=False)),
    "ONNX": (".onnx", as_onnx),
    "compressed HDF5": (".h5", as_hdf5("<f4", gzip=True)),
    "HDF5 with attributes": (".h5", as_hdf5("<f4", gzip=False)),
}


def growth(folder: Path, kind: str, *targets: str, let_go: bool = True) -> int:
    """By how many bytes the peak of a process grew that worked on the large file."""
    ending, build = KINDS[kind]
    small, large = build(folder / f"small{ending}", (300, 200)), build(folder / f"large{ending}", SHAPE)
    paths = [small, large, *(folder / target for target in targets)]
    done = subprocess.run(
        [sys.executable, "-c", CHILD, "yes" if let_go else "no", *map(str, paths)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    for path in paths:
        path.unlink(missing_ok=True)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


@pytest.mark.parametrize("kind", KINDS)
def test_a_large_file_is_read_and_hashed_in_little_memory(tmp_path: Path, kind: str) -> None:
    assert growth(tmp_path, kind) < MOST


@pytest.mark.parametrize(
    ("kind", "targets"),
    [
        ("safetensors", ["out.safetensors", "out.npz", "out.h5"]),
        ("ONNX", ["out.onnx", "out.safetensors", "out.h5"]),
        ("ONNX", ["view"]),
        ("compressed HDF5", ["out.h5", "out.npz"]),
        ("HDF5 with attributes", ["out.h5"]),
    ],
)
def test_a_large_file_is_written_in_little_memory(tmp_path: Path, kind: str, targets: list[str]) -> None:
    assert growth(tmp_path, kind, *targets) < MOST


def test_what_is_not_let_go_of_counts(tmp_path: Path) -> None:
    """So that the tests above can fail."""
    assert growth(tmp_path, "safetensors", let_go=False) > SIZE * 0.9
