"""HDF5 files that nobody vouches for: whatever reaches outside, claims too much or is damaged is refused by name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from gitmodel.formats import hdf5, hdf5_walk
from gitmodel.formats.source import InvalidModel
from tests.formats import building
from tests.formats.building import large, write_h5


def refused(folder: Path, build: Callable[[Any], object], reason: str, **options: Any) -> None:
    with pytest.raises(InvalidModel, match=rf"model\.h5.*{reason}") as error:
        hdf5.read(write_h5(folder / "model.h5", build, **options))
    assert "\n" not in str(error.value)


def _external_storage(file: Any) -> None:
    file.create_dataset("w", (4,), dtype="f4", external=[("/etc/passwd", 0, 16)])


def _virtual(file: Any) -> None:
    layout = h5py.VirtualLayout((4,), dtype="f4")
    layout[:] = h5py.VirtualSource("other.h5", "w", shape=(4,))
    file.create_virtual_dataset("w", layout)


@pytest.mark.parametrize(
    ("build", "reason"),
    [
        (lambda file: file.__setitem__("w", h5py.ExternalLink("other.h5", "/w")), "'w' links elsewhere"),
        (lambda file: file.__setitem__("w", h5py.ExternalLink("/etc/passwd", "/")), "'w' links elsewhere"),
        (lambda file: file.__setitem__("a/w", h5py.ExternalLink("tensors/w.h5", "/data")), "'a/w' links elsewhere"),
        (lambda file: file.__setitem__("w", h5py.SoftLink("/nothing")), "'w' is a soft link, to '/nothing'"),
        (lambda file: file.__setitem__("w", h5py.SoftLink("/w")), "'w' is a soft link, to '/w'"),
        (lambda file: file.__setitem__("w", h5py.SoftLink("/a\n\x1b")), r"'w' is a soft link, to '/a\\n\\x1b'"),
        (_external_storage, "'w' keeps its data in another file"),
        (_virtual, "'w' keeps its data in another file"),
    ],
)
def test_what_reaches_outside_is_refused(tmp_path: Path, build: Callable[[Any], object], reason: str) -> None:
    refused(tmp_path, build, reason)


@pytest.mark.parametrize("options", [{"compression": "lzf"}, {"scaleoffset": 2}])
def test_a_filter_that_is_not_on_the_list_is_refused(tmp_path: Path, options: dict[str, Any]) -> None:
    refused(
        tmp_path, lambda file: file.create_dataset("w", data=np.arange(1000.0), **options), "'w' uses an unknown filter"
    )


@pytest.mark.parametrize("chunks", [None, (1 << 20,)])
def test_four_tebibytes_in_nine_kilobytes_are_refused(tmp_path: Path, chunks: tuple[int, ...] | None) -> None:
    def build(file: Any) -> None:
        file.create_dataset("w", (1 << 40,), dtype="f4", chunks=chunks)

    refused(tmp_path, build, "'w' claims 4398046511104 bytes")
    assert (tmp_path / "model.h5").stat().st_size < 9 << 10


def test_many_datasets_that_claim_too_much_together_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hdf5_walk, "MAX_LOGICAL_BYTES", 5000)

    def build(file: Any) -> None:
        for number in range(10):
            file[str(number)] = np.zeros(100)

    refused(tmp_path, build, "claims 5600 bytes in 7 datasets")


def test_too_many_datasets_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hdf5_walk, "MAX_DATASETS", 5)
    refused(tmp_path, lambda file: [file.__setitem__(str(number), number) for number in range(6)], "in 6 datasets")


@pytest.mark.parametrize(("path", "target"), [("group/inner", "group"), ("group/root", "/"), ("other", "group")])
def test_a_group_that_has_two_paths_and_may_lie_within_itself_is_refused(
    tmp_path: Path, path: str, target: str
) -> None:
    def build(file: Any) -> None:
        file["group/w"] = 1
        file[path] = file[target]

    refused(tmp_path, build, "another path")


def test_a_dataset_with_two_names_is_two_tensors(tmp_path: Path) -> None:
    def build(file: Any) -> None:
        file["a"] = large()
        file["b/c"] = file["a"]

    source = hdf5.read(write_h5(tmp_path / "model.h5", build))
    assert set(building.by_name(source)) == {"a", "b/c"}
    view = building.store(source, tmp_path / "weights")
    building.assert_view_holds(view / "weights.h5", source)


@pytest.mark.parametrize("kind", ["time", "name", "group name"])
def test_a_structure_h5py_cannot_show_is_refused(tmp_path: Path, kind: str) -> None:
    def build(file: Any) -> None:
        if kind == "group name":
            h5py.h5g.create(file.id, b"w\xff")
        else:
            type_ = h5py.h5t.UNIX_D32LE if kind == "time" else h5py.h5t.STD_I8LE
            h5py.h5d.create(file.id, b"w" if kind == "time" else b"w\xff", type_, h5py.h5s.create_simple((4,)))

    with pytest.raises(InvalidModel, match=r"model\.h5"):
        hdf5.read(write_h5(tmp_path / "model.h5", build))


def test_a_file_cut_short_is_refused(tmp_path: Path) -> None:
    def build(file: Any) -> None:
        file["group/w"] = np.arange(300.0)
        file["v"] = 1

    path = write_h5(tmp_path / "model.h5", build)
    whole = path.read_bytes()
    for length in range(1, len(whole), 97):
        path.write_bytes(whole[:length])
        with pytest.raises(InvalidModel, match=r"model\.h5 is no.* whole HDF5 file"):
            hdf5.read(path)


@pytest.mark.parametrize(
    "data", [b"x", b"no HDF5 at all" * 100, b"\x89HDF\r\n\x1a\n", b"\x89HDF\r\n\x1a\n" + bytes(2000)]
)
def test_what_is_no_hdf5_file_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "model.h5").write_bytes(data)
    with pytest.raises(InvalidModel, match=r"model\.h5 is no.* whole HDF5 file"):
        hdf5.read(tmp_path / "model.h5")


@pytest.mark.parametrize("options", [{"compression": "gzip"}, {"fletcher32": True}])
@pytest.mark.parametrize("size", [400, 40_000])
def test_a_damaged_chunk_is_refused(tmp_path: Path, options: dict[str, Any], size: int) -> None:
    values = np.random.default_rng(0).normal(size=size)
    path = write_h5(tmp_path / "model.h5", lambda file: file.create_dataset("w", data=values, chunks=(200,), **options))
    with h5py.File(path) as file:
        chunk = file["w"].id.get_chunk_info(1)
    data = bytearray(path.read_bytes())
    data[chunk.byte_offset + 10 : chunk.byte_offset + 40] = b"\xaa" * 30
    path.write_bytes(data)
    with pytest.raises(InvalidModel, match=r"model\.h5"):
        building.store(hdf5.read(path), tmp_path / "weights")


def test_a_damaged_file_is_read_or_refused_and_never_a_crash(tmp_path: Path) -> None:
    def build(file: Any) -> None:
        file.attrs["keras_version"] = "2"
        file.attrs["names"] = np.array(["a", "b"], dtype=object)
        file["group/w"] = np.arange(30.0)
        file["group"].attrs["numbers"] = [1, 2]
        file.create_dataset("packed", data=np.arange(300.0), compression="gzip")
        file["marked"] = np.zeros(4, "uint16")
        file["marked"].attrs["dtype"], file["marked"].attrs["shape"] = "bfloat16", [4]
        file["text"] = "hello"

    path, outcomes = write_h5(tmp_path / "model.h5", build), {"read": 0, "refused": 0}
    for data in building.damaged(path.read_bytes(), trials=250):
        path.write_bytes(data)
        try:
            source = hdf5.read(path)
            hdf5.write_view(source, {})
            source.groups.close()
            outcomes["read"] += 1
        except InvalidModel as error:
            outcomes["refused"] += 1
            assert "model.h5" in str(error)
    assert min(outcomes.values()) > 5


def test_after_a_refused_file_others_are_written_as_before(tmp_path: Path) -> None:
    good = write_h5(tmp_path / "good.h5", lambda file: file.create_dataset("w", data=np.ones(3)))
    expected = hdf5.write_view(hdf5.read(good), {}).image
    bad = write_h5(
        tmp_path / "model.h5",
        lambda file: file.create_dataset("w", data=np.ones(9000), chunks=(3000,), fletcher32=True),
    )
    with h5py.File(bad) as file:
        offset = file["w"].id.get_chunk_info(1).byte_offset
    data = bytearray(bad.read_bytes())
    data[offset : offset + 8] = b"\xaa" * 8
    bad.write_bytes(data)
    for _ in range(2):
        with pytest.raises(InvalidModel):
            building.store(hdf5.read(bad), tmp_path / "weights")
    assert hdf5.write_view(hdf5.read(good), {}).image == expected
