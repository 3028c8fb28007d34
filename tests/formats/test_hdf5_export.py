"""Writing HDF5: one file that needs no other, as plain h5py reads it; what came from HDF5 is what it was."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import onnx
import pytest
from hypothesis import given, settings

from gitmodel import formats
from gitmodel.formats import hdf5, hdf5_export, stored
from gitmodel.formats.dtypes import ONNX_DTYPES, nbytes
from gitmodel.formats.source import InvalidModel, Source, TensorData
from tests import support
from tests.formats import building, drawn, keeping
from tests.formats.building import by_name, large, write_h5, write_onnx
from tests.formats.keeping import contents, exported, kept, values


def comes_back(tmp_path: Path, build: Callable[[Any], object], **options: Any) -> None:
    """Saved and exported, and converted without being saved, the file is what it was."""
    path = write_h5(tmp_path / "m.h5", build, **options)
    back = exported(path, ".h5", tmp_path / "kept")
    with closing(formats.read(path)) as source:
        hdf5_export.write(source, tmp_path / "converted.h5")
    for written in (back, tmp_path / "converted.h5"):
        with h5py.File(path) as ours, h5py.File(written) as theirs:
            building.assert_same_tree(ours, theirs)


# From HDF5 ------------------------------------------------------------------------------------------------------------

PACKED: list[dict[str, Any]] = [
    {},
    {"chunks": (40, 40)},
    {"chunks": (160, 3), "compression": "gzip", "compression_opts": 7, "shuffle": True},
    {"chunks": (7, 160), "fletcher32": True, "maxshape": (None, 160)},
    {"chunks": (40, 40), "maxshape": (160, None)},
    {"chunks": (40, 40), "maxshape": (None, None), "compression": "gzip"},
    {"fillvalue": 1},
]


@pytest.mark.parametrize("dtype", ["<f4", ">f8", ">i2", "u1", "?", "c8"])
@pytest.mark.parametrize("options", PACKED, ids=str)
def test_a_large_dataset_keeps_type_chunks_filters_and_attributes(
    tmp_path: Path, dtype: str, options: dict[str, Any]
) -> None:
    def build(file: Any) -> None:
        values = (large() * 100).astype(dtype)
        given = options | ({"fillvalue": np.ones((), dtype)[()]} if "fillvalue" in options else {})
        file.create_dataset("deep/er/w", data=values, **given)
        file.create_dataset("noted", data=values, **given).attrs["unit"] = "m"

    comes_back(tmp_path, build)


def test_groups_attributes_and_what_is_no_tensor_are_kept(tmp_path: Path) -> None:
    def build(file: Any) -> None:
        file.attrs["config"] = '{"layers": 2}'
        file.attrs["names"] = np.array([b"a", b"bc"])
        group = file.create_group("layer/inner")
        group.attrs["trainable"] = True
        group.attrs["nothing"] = h5py.Empty("f4")
        file.create_group("empty")
        file.create_dataset("words", data=np.array(["a", "ü"], dtype=object), dtype=h5py.string_dtype())
        file.create_dataset("record", data=np.zeros(3, dtype=[("a", "f4"), ("b", "S3")]))
        file.create_dataset("none", data=h5py.Empty("f4"))
        file["kind"] = np.dtype("f4")
        file.create_dataset("layer/w", data=large())
        file.create_dataset("layer/scalar", data=np.float16(2))

    comes_back(tmp_path, build)


def test_texts_of_a_fixed_length_keep_their_padding(tmp_path: Path) -> None:
    def build(file: Any) -> None:
        for number, padding in enumerate((h5py.h5t.STR_NULLTERM, h5py.h5t.STR_NULLPAD, h5py.h5t.STR_SPACEPAD)):
            kind = h5py.h5t.C_S1.copy()
            kind.set_size(8)
            kind.set_strpad(padding)
            for owner in (file, file.require_group("g")):
                space = h5py.h5s.create(h5py.h5s.SCALAR)
                h5py.h5a.create(owner.id, f"a{number}".encode(), kind, space).write(np.array(b"abc", dtype="S8"))

    comes_back(tmp_path, build)


@pytest.mark.parametrize("ordered", [True, False])
def test_the_order_in_which_a_file_was_filled_is_kept_where_it_keeps_one(tmp_path: Path, ordered: bool) -> None:
    def build(file: Any) -> None:
        group = file.create_group("z", track_order=ordered)
        for name in ("second", "first", "third"):
            group[name] = large()
            group.attrs[name] = 1
        file["b"], file["a"] = 1, 2

    comes_back(tmp_path, build, track_order=ordered)
    with h5py.File(tmp_path / "converted.h5") as file:
        assert (list(file["z"]) == ["second", "first", "third"]) == ordered


@pytest.mark.parametrize("build", [
    lambda file: file.attrs.update(ref=file.create_dataset("w", data=np.ones(3)).ref),
    lambda file: file.create_dataset("w", data=np.ones(3)).make_scale("x")
    or file.create_dataset("v", data=np.ones(3)).dims[0].attach_scale(file["w"]),
    lambda file: file.create_dataset("refs", data=np.array([file.ref], dtype=object), dtype=h5py.ref_dtype),
])  # fmt: skip
def test_references_that_would_lead_nowhere_are_refused(tmp_path: Path, build: Callable[[Any], object]) -> None:
    with pytest.raises(InvalidModel, match=r"refers to other objects: save it without references"):
        formats.read(write_h5(tmp_path / "m.h5", build))


def test_a_file_that_the_caller_has_open_is_copied_right(tmp_path: Path) -> None:
    """HDF5 would share the caller's chunk cache, and copies wrong bytes out of it."""
    path = write_h5(
        tmp_path / "m.h5",
        lambda file: file.create_dataset("w", data=large(), chunks=(1, 40), maxshape=(160, None)),
        libver="v110",
    )
    with h5py.File(path) as ours:
        ours["w"][()]
        back = exported(path, ".h5", tmp_path / "kept")
    with h5py.File(back) as theirs:
        np.testing.assert_array_equal(theirs["w"][()], large())


# From others ----------------------------------------------------------------------------------------------------------


def every_type() -> onnx.ModelProto:
    model = support.linear_model()
    for number, dtype in sorted(ONNX_DTYPES.items()):
        for name, shape in (
            (dtype, (5,)),
            (f"large/{dtype}", (530_000 // nbytes(dtype, (8,)),)),
            (f"{dtype}.scalar", ()),
        ):
            body = bytes(index % 2 for index in range(nbytes(dtype, shape)))
            if dtype != "string":
                model.graph.initializer.add(name=name, data_type=number, dims=shape, raw_data=body)
    return model


def test_every_tensor_of_an_onnx_model_is_there_under_its_name(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "m.onnx", every_type())
    back = exported(path, ".h5", tmp_path / "kept")
    assert contents(back) == contents(path)
    with h5py.File(back) as file:
        marked = file["large/bfloat16"]
        assert (marked.dtype, marked.attrs["dtype"], marked.shape) == ("uint16", "bfloat16", (33_125,))
        assert marked.chunks is None
        assert file["weight"].dtype == "float32"
        assert file["int4"].attrs["shape"].tolist() == [5]


def test_an_exported_file_can_be_saved_again(tmp_path: Path) -> None:
    first = exported(write_onnx(tmp_path / "m.onnx", every_type()), ".h5", tmp_path / "one")
    second = exported(first, ".h5", tmp_path / "two")
    with h5py.File(first) as ours, h5py.File(second) as theirs:
        building.assert_same_tree(ours, theirs)


def test_texts_are_texts_in_the_file(tmp_path: Path) -> None:
    words = onnx.TensorProto(name="words", data_type=onnx.TensorProto.STRING, dims=[2], string_data=[b"a", b"\xc3\xa9"])
    model = support.linear_model()
    model.graph.initializer.append(words)
    back = exported(write_onnx(tmp_path / "m.onnx", model), ".h5", tmp_path / "kept")
    with h5py.File(back) as file:
        assert file["words"].asstr()[()].tolist() == ["a", "é"]


@settings(max_examples=60)
@given(drawn.sources())
def test_any_tensors_are_written_and_read_again(tmp_path_factory: pytest.TempPathFactory, source: Source) -> None:
    path = tmp_path_factory.mktemp("drawn") / "m.h5"
    hdf5_export.write(source, path)
    numbers = [tensor for tensor in source.tensors if tensor.dtype != "string"]
    paths = hdf5.dataset_names(tensor.name for tensor in source.tensors)
    with closing(formats.read(path)) as back:
        assert values(back) == values(replace(source, tensors=tuple(replace(t, name=paths[t.name]) for t in numbers)))
        assert back.metadata == source.metadata


def test_a_compressed_tensor_alone_stays_compressed(tmp_path: Path) -> None:
    def build(file: Any) -> None:
        file.create_dataset("w", data=large(), chunks=(40, 40), compression="gzip").attrs["unit"] = "m"
        file.create_dataset("other", data=large(1))

    with closing(formats.read(write_h5(tmp_path / "m.h5", build))) as source:
        folder, lock = keeping.keep(source, tmp_path)
    chosen = tuple(stored.tensor(folder, entry) for entry in lock.tensors if entry.name == "w")
    hdf5_export.write(Source("hdf5", "", chosen), tmp_path / "one.h5")
    with h5py.File(tmp_path / "one.h5") as file:
        assert list(file) == ["w"]
        assert (file["w"].compression, file["w"].chunks, dict(file["w"].attrs)) == ("gzip", (40, 40), {"unit": "m"})
        np.testing.assert_array_equal(file["w"][()], large())


def test_equal_models_give_equal_files(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "m.onnx", every_type())
    one = exported(path, ".h5", tmp_path / "one").read_bytes()
    building.wait_for_next_second()
    assert exported(path, ".h5", tmp_path / "two").read_bytes() == one
    with closing(formats.read(path)) as source:
        hdf5_export.write(source, tmp_path / "a.h5")
        building.wait_for_next_second()
        hdf5_export.write(source, tmp_path / "b.h5")
    assert (tmp_path / "a.h5").read_bytes() == (tmp_path / "b.h5").read_bytes()


def test_the_file_needs_no_other(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "m.onnx", support.wide_model())
    with kept(path, tmp_path) as source:
        (written,) = hdf5_export.write(source, tmp_path / "out.h5")
    moved = written.rename(tmp_path / "weights" / "tensors" / "moved.h5")
    for file in (tmp_path / "weights").rglob("*"):
        if file.is_file() and file != moved:
            file.unlink()
    assert contents(moved) == contents(path)


def test_what_cannot_be_read_stops_the_export_and_leaves_nothing(tmp_path: Path) -> None:
    with kept(write_onnx(tmp_path / "m.onnx", support.wide_model()), tmp_path) as source:
        next((tmp_path / "weights" / "tensors").iterdir()).unlink()
        with pytest.raises(InvalidModel, match="there is no file"):
            hdf5_export.write(source, tmp_path / "out.h5")
    assert not list(tmp_path.glob("*.h5"))
    assert not list(tmp_path.glob(".gitmodel-*"))


def test_a_large_tensor_from_a_mapping_is_written_whole(tmp_path: Path) -> None:
    body = np.arange(1 << 20, dtype="<u4")
    source = Source("numpy", "", (TensorData("w", "uint32", body.shape, memoryview(body.tobytes())),))
    hdf5_export.write(source, tmp_path / "m.h5")
    with h5py.File(tmp_path / "m.h5") as file:
        np.testing.assert_array_equal(file["w"][()], body)
    assert by_name(formats.read(tmp_path / "m.h5"))["w"].stored is None
