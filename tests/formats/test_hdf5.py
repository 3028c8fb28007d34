"""HDF5: what is read from a checkpoint, and that tensor files and the HDF5 view give plain h5py the same tensors back."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gitmodel.formats import hdf5
from gitmodel.formats.dtypes import nbytes, storage
from gitmodel.formats.source import InvalidModel, Source, TensorData
from tests.formats import building
from tests.formats.building import by_name, large, write_h5

NUMPY_DTYPES = [
    "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64", "float16", "float32", "float64",
    "complex64", "complex128",
]  # fmt: skip
FOREIGN_DTYPES = [
    "bfloat16", "float8e4m3fn", "float8e4m3fnuz", "float8e5m2", "float8e5m2fnuz", "float8e8m0", "int4", "uint4", "int2",
    "uint2", "float4e2m1",
]  # fmt: skip


def read(folder: Path, build: Callable[[Any], object], **options: Any) -> Source:
    return hdf5.read(write_h5(folder / "model.h5", build, **options))


def numbers(dtype: str, *shape: int) -> np.ndarray:
    """Values of every bit pattern that is no NaN."""
    return np.random.default_rng(5).integers(0, 2 if dtype == "bool" else 100, shape).astype(dtype)


def tensor(name: str, dtype: str, *shape: int) -> TensorData:
    """A tensor of any type, its bytes drawn at random."""
    body = np.random.default_rng(6).integers(0, 2 if dtype == "bool" else 256, nbytes(dtype, shape), dtype="uint8")
    return TensorData(name, dtype, shape, memoryview(body.tobytes()))


def view_of(*tensors: TensorData) -> Any:
    return h5py.File(io.BytesIO(hdf5.write_view(Source("onnx", "", tensors), {}).image), "r")


def datasets(group: Any) -> dict[str, np.ndarray]:
    """Every dataset below by path, external links followed."""
    found: dict[str, np.ndarray] = {}
    for name in group:
        item = group[name]
        if isinstance(item, h5py.Group):
            found |= {f"{name}/{path}": values for path, values in datasets(item).items()}
        elif isinstance(item, h5py.Dataset):
            found[name] = item[()]
    return found


# --- reading -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("dtype", NUMPY_DTYPES)
def test_every_type_of_numpy_is_read_small_and_large(tmp_path: Path, dtype: str, order: Literal["<", ">"]) -> None:
    values = {"small": numbers(dtype, 3, 2), "large": numbers(dtype, 400, 200), "scalar": numbers(dtype)}

    def build(file: Any) -> None:
        for name, array in values.items():
            file[name] = array.astype(np.dtype(dtype).newbyteorder(order))

    source = read(tmp_path, build)
    assert (source.format, source.framework, source.graph) == ("hdf5", "", None)
    for name, found in by_name(source).items():
        assert (found.dtype, found.shape) == (dtype, values[name].shape)
        np.testing.assert_array_equal(building.array(found), values[name], strict=True)
    view = building.store(source, tmp_path / "weights")
    with h5py.File(view / "weights.h5") as file, h5py.File(tmp_path / "model.h5") as original:
        building.assert_same_tree(original, file)


def test_a_large_contiguous_dataset_is_mapped_from_the_file(tmp_path: Path) -> None:
    source = read(tmp_path, lambda file: file.create_dataset("w", data=large()))
    (found,) = source.tensors
    assert found.stored is None
    assert found.data.readonly
    with h5py.File(tmp_path / "model.h5") as file:
        offset = file["w"].id.get_offset()
    assert found.data == memoryview((tmp_path / "model.h5").read_bytes())[offset : offset + large().nbytes]


def test_tensors_are_named_by_their_path(tmp_path: Path) -> None:
    def build(file: Any) -> None:
        file["a/b/c"] = 1
        file["a/d"] = 2
        file["e"] = 3

    assert set(by_name(read(tmp_path, build))) == {"a/b/c", "a/d", "e"}


@pytest.mark.parametrize("size", [512, 4096])
def test_a_file_with_a_user_block_is_read(tmp_path: Path, size: int) -> None:
    source = read(tmp_path, lambda file: file.create_dataset("w", data=large()), userblock_size=size)
    np.testing.assert_array_equal(building.array(by_name(source)["w"]), large())


def test_datasets_of_every_layout_are_read(tmp_path: Path) -> None:
    values = np.arange(12, dtype="<f4").reshape(3, 4)

    def build(file: Any) -> None:
        compact = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
        compact.set_layout(h5py.h5d.COMPACT)
        space = h5py.h5s.create_simple(values.shape)
        h5py.Dataset(h5py.h5d.create(file.id, b"compact", h5py.h5t.IEEE_F32LE, space, dcpl=compact))[...] = values
        file.create_dataset("chunked", data=values, chunks=(2, 2))
        file.create_dataset("gzip", data=values, chunks=(2, 2), compression="gzip", shuffle=True, fletcher32=True)
        file.create_dataset("extendible", data=values, maxshape=(None, 4))
        file.create_dataset("filled", (3, 4), dtype="<f4", fillvalue=7)

    source = read(tmp_path, build)
    for name, found in by_name(source).items():
        expected = np.full_like(values, 7) if name == "filled" else values
        np.testing.assert_array_equal(building.array(found), expected, strict=True)
    view = building.store(source, tmp_path / "weights")
    with h5py.File(view / "weights.h5") as file, h5py.File(tmp_path / "model.h5") as original:
        building.assert_same_tree(original, file)


def test_empty_tensors_are_read(tmp_path: Path) -> None:
    def build(file: Any) -> None:
        file["none"] = np.zeros((0, 3), dtype="float32")
        file["value"] = h5py.Empty("float32")

    source = read(tmp_path, build)
    assert by_name(source)["none"].shape == (0, 3)
    assert len(by_name(source)["none"].data) == 0
    view = building.store(source, tmp_path / "weights")
    with h5py.File(view / "weights.h5") as file, h5py.File(tmp_path / "model.h5") as original:
        building.assert_same_tree(original, file)


@pytest.mark.parametrize("size", [4, 40_000])
@pytest.mark.parametrize("type_", ["bfloat16", "middle of int32", "int24"])
def test_numbers_stored_otherwise_than_numpy_shows_them_are_converted_or_refused(
    tmp_path: Path, type_: str, size: int
) -> None:
    def build(file: Any) -> None:
        if type_ == "bfloat16":
            kind = h5py.h5t.IEEE_F32LE.copy()
            kind.set_fields(15, 7, 8, 0, 7)
            kind.set_size(2)
            kind.set_ebias(127)
        else:
            kind = h5py.h5t.STD_I32LE.copy()
            kind.set_precision(16)
            if type_ == "int24":
                kind.set_size(3)
            else:
                kind.set_offset(8)
        h5py.h5d.create(file.id, b"w", kind, h5py.h5s.create_simple((size,)))
        dataset = h5py.Dataset(h5py.h5d.open(file.id, b"w"))
        data = np.arange(size, dtype="float32" if type_ == "bfloat16" else "int32") % 100
        dataset.id.write(h5py.h5s.ALL, h5py.h5s.ALL, data)

    try:
        source = read(tmp_path, build)
    except InvalidModel:
        return
    found = by_name(source)["w"]
    np.testing.assert_array_equal(building.array(found), np.arange(size) % 100)


@pytest.mark.parametrize("dtype", [np.longdouble, np.clongdouble])
def test_a_type_no_runtime_has_is_refused(tmp_path: Path, dtype: Any) -> None:
    with pytest.raises(InvalidModel, match="'w'"):
        read(tmp_path, lambda file: file.create_dataset("w", data=np.ones(30_000, dtype)))


# --- tensor files ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", NUMPY_DTYPES + FOREIGN_DTYPES)
@pytest.mark.parametrize("shape", [(70_000,), (3, 5, 7), (1,)])
def test_a_tensor_file_is_a_header_and_the_tensors_bytes(tmp_path: Path, dtype: str, shape: tuple[int, ...]) -> None:
    given_tensor = tensor("t", dtype, *shape)
    made = hdf5.tensor_file(dtype, shape)
    assert len(made.header) == made.offset
    path = tmp_path / "t.h5"
    path.write_bytes(made.header + given_tensor.data)
    with h5py.File(path) as file:
        dataset = file["data"]
        assert list(file) == ["data"]
        assert (dataset.dtype, dataset.shape) == storage(dtype, shape)
        assert (dataset.chunks, dataset.compression, dataset.id.get_offset()) == (None, None, made.offset)
        assert bytes(dataset[()].tobytes()) == given_tensor.data
    (found,) = hdf5.read(path).tensors
    assert (found.name, found.dtype, found.shape, found.data) == ("data", dtype, shape, given_tensor.data)
    assert hdf5.stored_offset(path.read_bytes()) == made.offset


def test_the_header_costs_two_kilobytes() -> None:
    assert hdf5.tensor_file("float32", (1000, 1000)).offset == 2048


def test_files_written_a_second_later_are_the_same_bytes(tmp_path: Path) -> None:
    def build(file: Any) -> None:
        file.attrs["keras_version"] = "3.1"
        group = file.create_group("layer", track_order=True)
        group.attrs["units"] = [1, 2]
        group["kernel"] = large()
        group["bias"] = np.ones(3)
        group.create_dataset("packed", data=large(1), compression="gzip", chunks=(50, 50))
        file["tracked"] = 1

    path = write_h5(tmp_path / "model.h5", build)
    models = [Source("onnx", "", (tensor("a/b", "float32", 3), tensor("c", "bfloat16", 4)))]
    before = [building.store(hdf5.read(path), tmp_path / "before"), tensor_headers(), *map(view_bytes, models)]
    building.wait_for_next_second()
    hdf5.tensor_file.cache_clear()
    after = [building.store(hdf5.read(path), tmp_path / "after"), tensor_headers(), *map(view_bytes, models)]
    assert before[1:] == after[1:]
    files = sorted(p.relative_to(tmp_path / "before") for p in (tmp_path / "before").rglob("*.h5"))
    assert len(files) == 3
    for file in files:
        assert (tmp_path / "before" / file).read_bytes() == (tmp_path / "after" / file).read_bytes()


def tensor_headers() -> list[bytes]:
    return [hdf5.tensor_file(dtype, (100, 1000)).header for dtype in ("float32", "bfloat16", "int4", "bool")]


def view_bytes(source: Source) -> bytes:
    return hdf5.write_view(source, {"a/b": "tensors/a.h5"}).image


@pytest.mark.parametrize(
    ("options", "mapped"),
    [
        ({}, True),
        ({"chunks": (40, 40)}, False),
        ({"compression": "gzip"}, False),
        ({"compression": "gzip", "compression_opts": 9, "shuffle": True, "fletcher32": True}, False),
    ],
)
def test_a_large_dataset_keeps_its_attributes_chunks_and_filters(
    tmp_path: Path, options: dict[str, Any], mapped: bool
) -> None:
    def build(file: Any) -> None:
        dataset = file.create_dataset("layer/kernel", data=large(), **options)
        dataset.attrs["regularizer"] = "l2"

    source = read(tmp_path, build)
    (found,) = source.tensors
    np.testing.assert_array_equal(building.array(found), large(), strict=True)
    assert found.stored is not None
    offset = hdf5.stored_offset(found.stored)
    assert (offset is not None) is mapped
    if offset is not None:
        assert found.stored[offset : offset + large().nbytes] == large().tobytes()
    view = building.store(source, tmp_path / "weights")
    with h5py.File(view / "weights.h5") as file, h5py.File(tmp_path / "model.h5") as original:
        assert isinstance(file["layer"].get("kernel", getlink=True), h5py.ExternalLink)
        building.assert_same_tree(original, file)


def test_bytes_in_another_order_than_onnx_has_are_never_mapped(tmp_path: Path) -> None:
    source = read(tmp_path, lambda file: file.create_dataset("w", data=large().astype(">f4")))
    (found,) = source.tensors
    if found.stored is not None:
        assert hdf5.stored_offset(found.stored) is None
    np.testing.assert_array_equal(building.array(found), large())


# --- the HDF5 view -----------------------------------------------------------------------------------------------------


def test_the_view_opens_from_any_working_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = {"a/kernel": large(), "a/bias": np.arange(3.0), "b c/é": large(1)}

    def build(file: Any) -> None:
        for name, array in values.items():
            file[name] = array

    building.store(read(tmp_path, build), tmp_path / "bundle" / "weights")
    moved = (tmp_path / "bundle").rename(tmp_path / "moved elsewhere") / "weights" / "weights.h5"
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    for path in (moved, Path("..") / "moved elsewhere" / "weights" / "weights.h5"):
        with h5py.File(path, "r") as file:
            links = {name: file.get(name, getlink=True) for name in values}
            assert {name for name, link in links.items() if isinstance(link, h5py.ExternalLink)} == {
                "a/kernel",
                "b c/é",
            }
            for name, array in values.items():
                np.testing.assert_array_equal(file[name][()], array, strict=True)


@pytest.mark.parametrize("dtype", NUMPY_DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (1,), (2, 0, 3), (2, 3)])
def test_small_tensors_stand_in_the_view(dtype: str, shape: tuple[int, ...]) -> None:
    given_tensor = tensor("t", dtype, *shape)
    with view_of(given_tensor) as view:
        np.testing.assert_array_equal(view["t"][()], building.array(given_tensor), strict=bool(shape))
        assert view["t"].dtype == np.dtype(dtype)
        assert view["t"].shape == shape


@pytest.mark.parametrize("dtype", FOREIGN_DTYPES)
@pytest.mark.parametrize("shape", [(), (0,), (3,), (5, 7)])
def test_types_hdf5_lacks_come_back_from_the_view(tmp_path: Path, dtype: str, shape: tuple[int, ...]) -> None:
    given_tensor = tensor("t", dtype, *shape)
    path = tmp_path / "weights.h5"
    path.write_bytes(hdf5.write_view(Source("onnx", "", (given_tensor,)), {}).image)
    with h5py.File(path) as view:
        assert view["t"].attrs["dtype"] == dtype
        assert tuple(view["t"].attrs["shape"]) == shape
        assert view["t"].dtype.kind == "u"
    (found,) = hdf5.read(path).tensors
    assert (found.name, found.dtype, found.shape, found.data) == ("t", dtype, shape, given_tensor.data)


@pytest.mark.parametrize("shape", [(30, 5), (400, 401)])
@pytest.mark.parametrize("dtype", FOREIGN_DTYPES)
def test_types_hdf5_lacks_are_kept_when_saved_again(tmp_path: Path, dtype: str, shape: tuple[int, ...]) -> None:
    given_tensor = tensor("layer/t", dtype, *shape)
    (tmp_path / "first.h5").write_bytes(hdf5.write_view(Source("onnx", "", (given_tensor,)), {}).image)
    source = hdf5.read(tmp_path / "first.h5")
    building.store(source, tmp_path / "weights")
    (found,) = source.tensors
    assert (found.dtype, found.shape, found.data) == (dtype, shape, given_tensor.data)
    with h5py.File(tmp_path / "first.h5") as first, h5py.File(tmp_path / "weights" / "weights.h5") as view:
        np.testing.assert_array_equal(view["layer/t"][()], first["layer/t"][()])
        assert view["layer/t"].attrs["dtype"] == dtype


def test_a_bfloat16_marked_by_its_type_alone_is_read_as_such(tmp_path: Path) -> None:
    def build(file: Any) -> None:
        file["w"] = np.arange(6, dtype="uint16").reshape(2, 3)
        file["w"].attrs["dtype"] = "bfloat16"

    (found,) = read(tmp_path, build).tensors
    assert (found.dtype, found.shape) == ("bfloat16", (2, 3))


def test_an_attribute_that_names_no_foreign_type_is_only_an_attribute(tmp_path: Path) -> None:
    def build(file: Any) -> None:
        for name, mark in (("a", "float32"), ("b", "policy"), ("c", 3), ("d", [1, 2])):
            file[name] = np.arange(6, dtype="int8")
            file[name].attrs["dtype"] = mark

    source = read(tmp_path, build)
    assert {found.dtype for found in source.tensors} == {"int8"}


@pytest.mark.parametrize(
    ("values", "mark", "shape"),
    [
        (np.zeros(4, "uint16"), "bfloat16", [400]),
        (np.zeros(4, "uint16"), "bfloat16", [4_000_000]),
        (np.zeros(4, "uint16"), "bfloat16", [2**62, 4]),
        (np.zeros(4, "uint16"), "bfloat16", [3]),
        (np.zeros(4, "uint16"), "bfloat16", [-4]),
        (np.zeros(4, "uint16"), "bfloat16", [-2, -2]),
        (np.zeros(4, "uint16"), "bfloat16", 4),
        (np.zeros(4, "uint16"), "bfloat16", [1.5]),
        (np.zeros(4, "uint16"), "bfloat16", "four"),
        (np.zeros(4, "uint16"), "bfloat16", h5py.Empty("int64")),
        (np.zeros(4, "float32"), "bfloat16", [4]),
        (np.zeros(4, "uint8"), "bfloat16", [2]),
        (np.zeros(4, "uint8"), "int4", [9]),
        (np.zeros((2, 2), "uint8"), "int4", [7]),
    ],
)
def test_a_mark_that_does_not_fit_its_data_is_refused(tmp_path: Path, values: Any, mark: str, shape: Any) -> None:
    def build(file: Any) -> None:
        file["w"] = values
        file["w"].attrs["dtype"], file["w"].attrs["shape"] = mark, shape

    with pytest.raises(InvalidModel, match=r"model\.h5"):
        read(tmp_path, build)


def _put(file: Any) -> None:
    """A file with everything in it that a framework might write."""
    attributes: dict[str, Any] = {
        "text": "häuser", "bytes": np.bytes_(b"abc"), "texts": np.array(["a", "é"], dtype=object), "flag": True,
        "fixed": np.array([b"ab", b"c"]), "big": np.arange(3, dtype=">i4"), "none": h5py.Empty("f4"), "number": 1.5,
        "matrix": np.eye(3), "no numbers": np.zeros((0,), "f4"), "opaque": np.void(b"\x01\x02"),
        "compound": np.array([(1, 2.0)], dtype=[("a", "i4"), ("b", "f8")]),
    }  # fmt: skip
    for holder in (file, file.create_group("model_weights/dense 1"), file.create_group("empty")):
        for name, value in attributes.items():
            holder.attrs[name] = value
        holder.attrs.create("enum", 1, dtype=h5py.enum_dtype({"A": 0, "B": 1}))
        holder.attrs.create("ragged", [np.arange(2), np.arange(3)], dtype=h5py.vlen_dtype("i8"))
    file["model_weights/dense 1/kernel"] = large()
    file["model_weights/dense 1/bias"] = np.arange(3, dtype="float32")
    file["model_weights/dense 1/bias"].attrs["note"] = "small"
    file["words"] = np.array(["a", "é"], dtype=object)
    file["fixed words"] = np.array([b"ab", b"c"])
    file["records"] = np.zeros(3, dtype=[("a", "i4"), ("b", "f8", (2,))])
    file["choice"] = np.arange(2, dtype="uint8")
    file.create_dataset("ragged", (2,), dtype=h5py.vlen_dtype("i4"))[0] = [1, 2]
    file["a type"] = np.dtype("f4")


def test_groups_attributes_and_everything_else_of_a_file_are_kept(tmp_path: Path) -> None:
    source = read(tmp_path, _put)
    assert set(by_name(source)) == {"model_weights/dense 1/kernel", "model_weights/dense 1/bias", "choice"}
    view = building.store(source, tmp_path / "weights")
    with h5py.File(view / "weights.h5") as file, h5py.File(tmp_path / "model.h5") as original:
        building.assert_same_tree(original, file)


@pytest.mark.parametrize("version", ["earliest", "v110", "latest"])
def test_a_file_of_any_version_of_the_format_is_kept(tmp_path: Path, version: str) -> None:
    def build(file: Any) -> None:
        file["flag"], file["complex"], file["text"] = True, 1j, "text"
        file["records"] = np.zeros(2, dtype=[("a", "i4")])
        file.attrs["flag"] = True
        file.attrs.create("arrays", np.ones((2, 3), "f4"), dtype=np.dtype(("f4", (3,))))
        for number in range(50):
            file.attrs[f"many {number}"] = number
        file["large"] = large()
        file.create_dataset("chunked", data=large(1), chunks=(40, 40))
        file.create_dataset("gzip", data=large(2), compression="gzip")
        if version != "earliest":
            file.attrs["beyond 64 kilobytes"] = np.arange(20_000.0)

    source = read(tmp_path, build, libver=version)
    view = building.store(source, tmp_path / "weights")
    with h5py.File(view / "weights.h5") as file, h5py.File(tmp_path / "model.h5") as original:
        building.assert_same_tree(original, file)


def test_texts_of_an_onnx_model_stand_in_the_view() -> None:
    words = [
        ("words", (3,), [b"cat", "häuser".encode(), b""]),
        ("one empty", (1,), [b""]),
        ("none", (0,), []),
        ("scalar", (), [b"cat"]),
        ("matrix", (2, 2), [b"a", b"b", b"", b""]),
    ]
    tensors = [TensorData(name, "string", shape, memoryview(b"\0".join(texts))) for name, shape, texts in words]
    with view_of(*tensors) as view:
        for name, shape, texts in words:
            found = view[name][()]
            assert np.shape(found) == shape
            assert np.ravel(found).tolist() == texts


# --- names in the view -------------------------------------------------------------------------------------------------

_names = st.lists(
    st.text("ab/%.2F\0", max_size=6) | st.text(max_size=6) | st.sampled_from(["", ".", "..", "%", "a%2Fb", "a/b", "a"]),
    max_size=6,
    unique=True,
)


@given(_names)
def test_every_tensor_has_a_place_of_its_own_in_the_view(names: list[str]) -> None:
    tensors = [TensorData(name, "int64", (), memoryview(i.to_bytes(8, "little"))) for i, name in enumerate(names)]
    with view_of(*tensors) as view:
        found = {name: int(values) for name, values in datasets(view).items()}
    assert sorted(found.values()) == list(range(len(names)))
    places = hdf5.dataset_names(names)
    assert {name: found[places[name]] for name in names} == {name: i for i, name in enumerate(names)}


def test_a_name_that_is_a_path_is_kept_and_another_is_escaped() -> None:
    names = ["dense/kernel", "dense/bias", "a b", "é", "layer/", "/first", "x//y", ".", "x", "x/z", ""]
    places = hdf5.dataset_names(names)
    assert all(places[name] == name for name in ("dense/kernel", "dense/bias", "a b", "é"))
    assert (places["layer/"], places["/first"], places["x//y"]) == ("layer%2F", "%2Ffirst", "x%2F%2Fy")
    assert len(set(places.values())) == len(names)


def test_a_tensor_named_like_a_group_of_the_file_is_not_lost(tmp_path: Path) -> None:
    source = read(tmp_path, lambda file: file.create_dataset("dense/kernel", data=np.ones(3)))
    own = TensorData("dense", "int64", (2,), memoryview(np.array([7, 8]).tobytes()))
    joined = Source("onnx+hdf5", "", (own, *source.tensors), groups=source.groups)
    with h5py.File(io.BytesIO(hdf5.write_view(joined, {}).image)) as view:
        found = [values.tolist() for values in datasets(view).values()]
    assert sorted(found) == [[1.0, 1.0, 1.0], [7, 8]]


# --- Keras -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("where", ["whole model", "weights"])
def test_a_file_of_keras_is_known_as_one(tmp_path: Path, where: str) -> None:
    def build(file: Any) -> None:
        if where == "whole model":
            file.attrs["keras_version"] = "2.15.0"
        weights = file.create_group("model_weights")
        weights.attrs["layer_names"] = np.array([b"dense"])
        weights["dense/dense/kernel:0"] = np.ones((2, 3), "float32")

    source = read(tmp_path, build)
    assert source.framework == "keras"
    assert set(by_name(source)) == {"model_weights/dense/dense/kernel:0"}


@pytest.mark.realdata
def test_the_tensors_of_a_real_keras_file_are_those_h5py_reads(real_data: Path, tmp_path: Path) -> None:
    paths = sorted(real_data.rglob("*.h5"))
    assert paths
    for number, path in enumerate(paths):
        source = hdf5.read(path)
        with h5py.File(path) as file:
            expected = datasets(file)
        tensors = by_name(source)
        assert source.framework == "keras"
        assert set(tensors) == {name for name, values in expected.items() if np.asarray(values).dtype.kind in "biufc"}
        for name, found in tensors.items():
            np.testing.assert_array_equal(building.array(found), expected[name])
        view = building.store(source, tmp_path / str(number))
        with h5py.File(view / "weights.h5") as file, h5py.File(path) as original:
            building.assert_same_tree(original, file)


@pytest.mark.realdata
def test_the_tensors_of_a_real_onnx_model_come_back_from_its_hdf5_view(real_data: Path, tmp_path: Path) -> None:
    from gitmodel.formats import onnx as onnx_format

    source = onnx_format.read(real_data / "magika" / "standard_v1" / "model.onnx")
    view = building.store(source, tmp_path / "weights")
    with h5py.File(view / "weights.h5") as file:
        found = datasets(file)
    assert sorted(values.nbytes for values in found.values()) == sorted(len(t.data) for t in source.tensors)


#: Makes a tensor's file where a file may have so many bytes, if any are given, and says why not.
WITHOUT_ROOM = """
import resource, sys
from gitmodel.files import StorageFailed
from gitmodel.formats import hdf5
if room := int(sys.argv[1]):
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, room))
try:
    hdf5.tensor_file("float32", (50_000,))
except StorageFailed as error:
    print(error)
    sys.exit(3)
"""


@pytest.mark.parametrize("room", [1 << 10, 64 << 10, 150 << 10])
def test_where_there_is_no_room_for_a_tensors_file_one_line_says_so(room: int) -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT_ROOM, str(room)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (3, "")
    assert done.stdout.startswith("cannot write to ")
    assert done.stdout.endswith(" (File too large): make room there, or set TMPDIR to a folder that has it\n")


@pytest.mark.parametrize("room", ["4k", "64k"])
@pytest.mark.skipif(not shutil.which("unshare"), reason="needs a disk of its own")
def test_where_the_disk_is_full_one_line_says_so(tmp_path: Path, room: str) -> None:
    mount = f'mount -t tmpfs -o size={room} none {tmp_path} && exec "$@"'
    own = ["unshare", "--map-root-user", "--mount", "sh", "-c", mount, "sh"]
    if subprocess.run([*own, "true"], capture_output=True, check=False).returncode:
        pytest.skip("needs the right to mount a disk of its own")
    command = [*own, sys.executable, "-c", WITHOUT_ROOM, "0"]
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    assert (done.returncode, done.stderr) == (3, "")
    assert done.stdout == (
        f"cannot write to {tmp_path} (No space left on device): make room there, or set TMPDIR to a folder that has it\n"
    )
