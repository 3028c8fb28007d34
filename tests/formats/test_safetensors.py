"""safetensors: what is written comes back, the real library agrees in both directions, and no bad file gets in."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import safetensors
import safetensors.numpy
from hypothesis import given, settings

from gitmodel import formats
from gitmodel.files import StorageFailed
from gitmodel.formats import hdf5
from gitmodel.formats import safetensors as ours
from gitmodel.formats.dtypes import nbytes
from gitmodel.formats.source import InvalidModel, Source, TensorData, join
from gitmodel.workflows.export import export
from gitmodel.workflows.save import save
from tests.formats import building
from tests.formats.building import by_name, large
from tests.formats.drawn import ALL_DTYPES, content, sources

deserialize: Any = safetensors.deserialize  # its stub has no types

#: What the real library calls our types when it is given them.
THEIRS = {
    "bool": "bool", "int8": "int8", "uint8": "uint8", "int16": "int16", "uint16": "uint16", "int32": "int32",
    "uint32": "uint32", "int64": "int64", "uint64": "uint64", "float16": "float16", "float32": "float32",
    "float64": "float64", "bfloat16": "bfloat16", "float8e4m3fn": "float8_e4m3fn", "float8e5m2": "float8_e5m2",
    "float8e4m3fnuz": "float8_e4m3fnuz", "float8e5m2fnuz": "float8_e5m2fnuz", "float8e8m0": "float8_e8m0fnu",
    "complex64": "complex64",
}  # fmt: skip
NUMPY = {
    "a/kernel": large(), "b": np.arange(3, dtype="int8"), "c": np.array(True), "ü\"\n": np.ones((2, 0), "float16"),
    "d": np.array([1 + 2j, -0.0], dtype="complex64"), "e": np.arange(6, dtype="uint64").reshape(2, 3),
}  # fmt: skip
METADATA = {"format": "np", "note": 'häuser "quoted"\n'}


def tensor(name: str, dtype: str, *shape: int) -> TensorData:
    body = np.random.default_rng(3).integers(0, 256, nbytes(dtype, shape), dtype="uint8")
    return TensorData(name, dtype, shape, memoryview(body.tobytes()))


def file_of(path: Path, header: object, body: bytes = b"", length: int | None = None) -> Path:
    """A file with this header (JSON, or the bytes of it) and these bytes behind it."""
    data = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(data) if length is None else length).to_bytes(8, "little") + data + body)
    return path


def entry(dtype: str = "F32", shape: object = (2,), offsets: object = (0, 8)) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


# --- there and back ----------------------------------------------------------------------------------------------------


@settings(max_examples=150)
@given(sources())
def test_what_is_written_comes_back(tmp_path_factory: pytest.TempPathFactory, source: Source) -> None:
    path = tmp_path_factory.getbasetemp() / "drawn.safetensors"
    assert ours.write(source, path) == (path,)
    assert content(ours.read(path)) == content(source)
    again = path.with_name("again.safetensors")
    ours.write(ours.read(path), again)
    assert again.read_bytes() == path.read_bytes()


@pytest.mark.parametrize("shape", [(), (0,), (3,), (5, 7), (2, 0, 3), (2, 4)])
@pytest.mark.parametrize("dtype", [dtype for dtype in ALL_DTYPES if dtype != "string"])
def test_every_type_and_shape_comes_back(tmp_path: Path, dtype: str, shape: tuple[int, ...]) -> None:
    source = Source("onnx", "", (tensor("t", dtype, *shape),))
    ours.write(source, tmp_path / "t.safetensors")
    assert content(ours.read(tmp_path / "t.safetensors")) == content(source)


@pytest.mark.parametrize(
    ("texts", "shape"), [([b"a", "ü".encode(), b""], (3,)), ([b""], ()), ([], (0, 2)), ([b""], (1,))]
)
def test_texts_come_back(tmp_path: Path, texts: list[bytes], shape: tuple[int, ...]) -> None:
    source = Source("onnx", "", (TensorData("t", "string", shape, memoryview(b"\0".join(texts))),))
    ours.write(source, tmp_path / "t.safetensors")
    assert content(ours.read(tmp_path / "t.safetensors")) == content(source)


def test_tensors_are_views_of_the_mapped_file(tmp_path: Path) -> None:
    safetensors.numpy.save_file(NUMPY, tmp_path / "w.safetensors")
    source = ours.read(tmp_path / "w.safetensors")
    (exporter,) = {id(found.data.obj) for found in source.tensors}
    assert exporter
    assert all(found.data.readonly for found in source.tensors)
    assert source.files == (tmp_path / "w.safetensors",)


def test_every_tensor_is_aligned_to_its_element_and_the_order_is_kept(tmp_path: Path) -> None:
    given_order = [
        tensor("a", "uint8", 3),
        tensor("b", "float64", 2),
        tensor("c", "bfloat16", 5),
        tensor("d", "int4", 3),
    ]
    ours.write(Source("onnx", "", tuple(given_order)), tmp_path / "w.safetensors")
    data = (tmp_path / "w.safetensors").read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    assert length % 8 == 0
    for name, width in (("b", 8), ("c", 2)):
        assert header[name]["data_offsets"][0] % width == 0
    assert [name for name in header if name != "__metadata__"] == ["a", "b", "c", "d"]


def test_the_framework_is_what_the_metadata_names(tmp_path: Path) -> None:
    for named, framework in (("pt", "pytorch"), ("np", ""), ("of nobody", "")):
        safetensors.numpy.save_file(NUMPY, tmp_path / "w.safetensors", metadata={"format": named})
        assert ours.read(tmp_path / "w.safetensors").framework == framework


# --- the real library --------------------------------------------------------------------------------------------------


def test_what_numpy_users_wrote_is_read_and_written_as_the_same_bytes(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    safetensors.numpy.save_file(NUMPY, path, metadata={"format": "np"})
    source = ours.read(path)
    assert (source.format, source.graph, source.groups, source.metadata) == (
        "safetensors",
        None,
        None,
        {"format": "np"},
    )
    assert set(by_name(source)) == set(NUMPY)
    for name, found in by_name(source).items():
        np.testing.assert_array_equal(building.array(found), NUMPY[name], strict=True)
    ours.write(source, tmp_path / "again.safetensors")
    assert (tmp_path / "again.safetensors").read_bytes() == path.read_bytes()


def test_what_is_written_is_read_by_numpy_users(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    held = [TensorData(n, str(v.dtype), v.shape, memoryview(v.tobytes())) for n, v in NUMPY.items()]
    formats.write(Source("numpy", "", tuple(held), metadata=METADATA), path)
    found = safetensors.numpy.load_file(path)
    assert set(found) == set(NUMPY)
    for name, values in found.items():
        np.testing.assert_array_equal(values, NUMPY[name], strict=True)
    with safetensors.safe_open(path, framework="np") as file:
        assert file.metadata() == METADATA


@pytest.mark.parametrize("dtype", THEIRS)
def test_a_type_of_the_format_is_called_so_by_the_library(tmp_path: Path, dtype: str) -> None:
    given_tensor = tensor("t", dtype, 4, 2)
    values = np.frombuffer(given_tensor.data, "uint8")
    spec = safetensors.TensorSpec(
        dtype=THEIRS[dtype], shape=[4, 2], data_ptr=values.ctypes.data, data_len=values.nbytes
    )
    theirs = safetensors.serialize({"t": spec})
    ours.write(Source("onnx", "", (given_tensor,)), tmp_path / "t.safetensors")
    assert (tmp_path / "t.safetensors").read_bytes() == theirs


@pytest.mark.parametrize("dtype", ALL_DTYPES)
def test_the_library_reads_a_file_with_any_type(tmp_path: Path, dtype: str) -> None:
    held = TensorData("t", dtype, (4,), memoryview(b"a\0\0b\0")) if dtype == "string" else tensor("t", dtype, 4)
    ours.write(Source("onnx", "", (held,)), tmp_path / "t.safetensors")
    data = (tmp_path / "t.safetensors").read_bytes()
    ((name, found),) = deserialize(data)
    assert name == "t"
    assert found["data"] == held.data
    marks = json.loads(json.loads(data[8 : 8 + data[0]]).get("__metadata__", {}).get(ours.MARKS, "{}"))
    native = dtype in THEIRS or dtype == "float4e2m1"
    assert marks == ({} if native else {"t": {"dtype": dtype, "shape": [4]}})
    assert (found["dtype"] == "U8") is (dtype == "uint8" or not native)


def test_a_half_byte_at_the_end_is_no_f4_and_comes_back(tmp_path: Path) -> None:
    source = Source("onnx", "", (tensor("odd", "float4e2m1", 3), tensor("even", "float4e2m1", 4)))
    ours.write(source, tmp_path / "t.safetensors")
    kinds = {name: found["dtype"] for name, found in deserialize((tmp_path / "t.safetensors").read_bytes())}
    assert kinds == {"odd": "U8", "even": "F4"}
    assert content(ours.read(tmp_path / "t.safetensors")) == content(source)


# --- bad files ---------------------------------------------------------------------------------------------------------

T = {"t": entry()}
MARK = {"t": entry("U8", [8])}
BAD: dict[str, tuple[bytes | dict[str, Any], bytes, int | None, str]] = {
    "random bytes": (b"\xff" * 40, b"", None, "does not begin with a header"),
    "only a length": (b"", b"", None, "does not begin with a header"),
    "a list": (b"[]", b"", None, "does not begin with a header"),
    "space first": (b" {}", b"", None, "does not begin with a header"),
    "a huge header": (T, b"\0" * 8, 1 << 40, "claims 1099511627776 bytes, at most 100000000"),
    "the largest length": (T, b"\0" * 8, (1 << 64) - 1, "claims 18446744073709551615 bytes"),
    "a header beyond the end": (T, b"", 500, "cut short: its header alone has 500 bytes"),
    "no JSON": (b"{'t': 1}", b"", None, "property name"),
    "JSON and more": (b"{} {}", b"", None, "Extra data"),
    "no UTF-8": (b'{"\xff": 1}', b"", None, "can't decode"),
    "half a surrogate": (b'{"\\ud800": {"dtype":"U8","shape":[0],"data_offsets":[0,0]}}', b"", None, "is no text"),
    "deep nesting": (b'{"t":' * 100_000, b"", None, "nests too deep"),
    "a key twice": (b'{"t": {}, "t": {}}', b"", None, "'t' stands in it twice"),
    "a field twice": (b'{"t":{"dtype":"U8","dtype":"I8","shape":[0],"data_offsets":[0,0]}}', b"", None, "'dtype' stands"),
    "NaN": (b'{"t": NaN}', b"", None, "NaN is no JSON"),
    "a number": ({"t": 1}, b"", None, "has not just dtype, shape and data_offsets"),
    "a field missing": ({"t": {"dtype": "U8", "shape": [0]}}, b"", None, "has not just dtype"),
    "a field more": ({"t": {**entry(), "x": 1}}, b"\0" * 8, None, "has not just dtype"),
    "an unknown type": ({"t": entry("F6_E2M3", [4], [0, 3])}, b"\0" * 3, None, "unknown type 'F6_E2M3'"),
    "a type that is a list": ({"t": {**entry(), "dtype": ["F32"]}}, b"\0" * 8, None, "unknown type"),
    "offsets of one": ({"t": entry(offsets=[0])}, b"\0" * 8, None, "bad offsets"),
    "offsets of text": ({"t": entry(offsets=["0", "8"])}, b"\0" * 8, None, "bad offsets"),
    "offsets of fractions": ({"t": entry(offsets=[0, 8.0])}, b"\0" * 8, None, "bad offsets"),
    "offsets of truth": ({"t": entry("U8", [1], [False, True])}, b"\0", None, "bad offsets"),
    "negative offsets": ({"t": entry(offsets=[-8, 0])}, b"\0" * 8, None, "begins at byte -8"),
    "offsets backwards": ({"t": entry(offsets=[8, 0])}, b"\0" * 8, None, "has -8 bytes"),
    "offsets beyond the end": ({"t": entry("U8", [1 << 40], [0, 1 << 40])}, b"\0", None, "has 1 bytes of tensors"),
    "a shape too large": ({"t": entry(shape=[3])}, b"\0" * 8, None, r"has 8 bytes, F32\[3\] needs 12"),
    "a negative shape": ({"t": entry(shape=[-2])}, b"\0" * 8, None, "is no shape"),
    "a shape of fractions": ({"t": entry(shape=[2.0])}, b"\0" * 8, None, "is no shape"),
    "a shape of text": ({"t": entry(shape="2")}, b"\0" * 8, None, "is no shape"),
    "dimensions that overflow": ({"t": entry(shape=[1 << 62, 4, 0], offsets=[0, 0])}, b"", None, "beyond all memory"),
    "a dimension of 30 digits": ({"t": entry(shape=[0, 10**30], offsets=[0, 0])}, b"", None, "beyond all memory"),
    "a hundred dimensions": ({"t": entry("U8", [1] * 100, [0, 1])}, b"\0", None, "has 100 dimensions, at most 32"),
    "half a byte": ({"t": entry("F4", [3], [0, 2])}, b"\0" * 2, None, "has 2 bytes"),
    "a hole at the start": ({"t": entry(offsets=[8, 16])}, b"\0" * 16, None, "begins at byte 8, the one before it ends at 0"),
    "a hole": ({**T, "u": entry(offsets=[16, 24])}, b"\0" * 24, None, "'u' begins at byte 16, .* ends at 8"),
    "bytes left over": (T, b"\0" * 9, None, "has 9 bytes of tensors, the header accounts for 8"),
    "bytes and no tensor": ({}, b"\0", None, "has 1 bytes of tensors"),
    "an overlap": ({**T, "u": entry(offsets=[4, 12])}, b"\0" * 12, None, "'u' begins at byte 4"),
    "the same bytes twice": ({**T, "u": entry()}, b"\0" * 8, None, "begins at byte 0, the one before it ends at 8"),
    "cut short": (T, b"\0" * 7, None, "has 7 bytes of tensors, the header accounts for 8"),
    "metadata of numbers": ({"__metadata__": {"a": 1}, **T}, b"\0" * 8, None, "does not map text to text"),
    "metadata that is a list": ({"__metadata__": [], **T}, b"\0" * 8, None, "does not map text to text"),
    "half a surrogate in the metadata": ({"__metadata__": {"a": "\ud800"}}, b"", None, "is no text"),
    "marks that are no JSON": ({"__metadata__": {ours.MARKS: "x"}, **MARK}, b"\0" * 8, None, "Expecting value"),
    "marks of nothing": ({"__metadata__": {ours.MARKS: '{"u":{}}'}, **MARK}, b"\0" * 8, None, "'u', which is no tensor"),
    "marks of floats": (
        {"__metadata__": {ours.MARKS: '{"t":{"dtype":"int64","shape":[1]}}'}, **T}, b"\0" * 8, None, "no tensor of bytes",
    ),
    "a mark that is none": ({"__metadata__": {ours.MARKS: '{"t":[]}'}, **MARK}, b"\0" * 8, None, "no type and shape"),
    "a mark of an unknown type": (
        {"__metadata__": {ours.MARKS: '{"t":{"dtype":"float3","shape":[8]}}'}, **MARK}, b"\0" * 8, None, "no type and",
    ),
    "a mark of another size": (
        {"__metadata__": {ours.MARKS: '{"t":{"dtype":"int4","shape":[8]}}'}, **MARK}, b"\0" * 8, None, r"int4\[8\] but has 8",
    ),
    "a mark of other texts": (
        {"__metadata__": {ours.MARKS: '{"t":{"dtype":"string","shape":[8]}}'}, **MARK}, b"\0" * 8, None, r"string\[8\] but",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_a_bad_file_is_refused_with_one_line(tmp_path: Path, case: str) -> None:
    header, body, length, said = BAD[case]
    path = file_of(tmp_path / "w.safetensors", header, body, length)
    with pytest.raises(InvalidModel, match=rf"w\.safetensors is no whole safetensors file \(.*{said}") as caught:
        formats.read(path)
    assert "\n" not in str(caught.value)


def test_of_a_pointer_and_an_empty_file_that_is_said(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    path.write_bytes(b"")
    with pytest.raises(InvalidModel, match="is empty"):
        formats.read(path)
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    with pytest.raises(InvalidModel, match="Git LFS pointer"):
        formats.read(path)


def test_damaged_files_are_refused_or_read(tmp_path: Path) -> None:
    safetensors.numpy.save_file({name: v for name, v in NUMPY.items() if v.size < 10}, tmp_path / "w.safetensors")
    good = (tmp_path / "w.safetensors").read_bytes()
    outcomes = {"read": 0, "refused": 0}
    for data in building.damaged(good, trials=600):
        (tmp_path / "bad.safetensors").write_bytes(data)
        try:
            formats.read(tmp_path / "bad.safetensors")
            outcomes["read"] += 1
        except InvalidModel:
            outcomes["refused"] += 1
    assert min(outcomes.values()) > 20


@pytest.mark.parametrize(
    ("names", "metadata", "said"),
    [
        (["__metadata__"], {}, "mean something else"),
        (["t"], {ours.MARKS: "{}"}, "mean something else"),
        (["\ud800"], {}, "is no text"),
        (["t"], {"a": "\udfff"}, "is no text"),
    ],
)
def test_what_the_format_cannot_say_is_refused(
    tmp_path: Path, names: list[str], metadata: Mapping[str, str], said: str
) -> None:
    source = Source("onnx", "", tuple(tensor(name, "int8", 2) for name in names), metadata=metadata)
    with pytest.raises(InvalidModel, match=rf"w\.safetensors cannot hold this model \(.*{said}"):
        formats.write(source, tmp_path / "w.safetensors")
    assert not list(tmp_path.iterdir())


def test_a_header_the_library_would_refuse_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ours, "MAX_HEADER_BYTES", 55)
    with pytest.raises(InvalidModel, match=r"w\.safetensors cannot hold this model \(its names alone take 56 bytes\)"):
        ours.write(Source("onnx", "", (tensor("t", "int8", 2),)), tmp_path / "w.safetensors")
    assert not list(tmp_path.iterdir())


def test_an_old_file_stays_when_a_new_one_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for path in (tmp_path / "none" / "w.safetensors", tmp_path / "folder"):
        with pytest.raises(StorageFailed, match="cannot write"):
            ours.write(Source("onnx", "", (tensor("t", "int8", 2),)), path)
    assert [path.name for path in tmp_path.iterdir()] == ["folder"]


# --- shards ------------------------------------------------------------------------------------------------------------

SHARDS = {
    "model-1.safetensors": {"a": large(), "b": np.arange(3)},
    "parts/model-2.safetensors": {"c": large(1), "d": np.ones((), "float16")},
}


@pytest.fixture
def index(tmp_path: Path) -> Path:
    """A sharded checkpoint; the path of its index."""
    folder = tmp_path / "sharded"
    (folder / "parts").mkdir(parents=True)
    for file, tensors in SHARDS.items():
        safetensors.numpy.save_file(tensors, folder / file, metadata={"format": "pt"})
    weight_map = {"d": "parts/model-2.safetensors", "a": "model-1.safetensors", "b": "model-1.safetensors"}
    weight_map["c"] = "parts/model-2.safetensors"
    path = folder / "model.safetensors.index.json"
    path.write_text(json.dumps({"metadata": {"total_size": 1}, "weight_map": weight_map}))
    return path


def assert_whole(source: Source) -> None:
    expected = {name: values for tensors in SHARDS.values() for name, values in tensors.items()}
    assert set(by_name(source)) == set(expected)
    for name, found in by_name(source).items():
        np.testing.assert_array_equal(building.array(found), expected[name], strict=True)
    assert (source.format, source.framework, source.metadata) == ("safetensors", "pytorch", {"format": "pt"})


def test_an_index_gives_the_whole_checkpoint_in_its_order(index: Path) -> None:
    source = formats.read(index)
    assert_whole(source)
    assert [found.name for found in source.tensors] == ["d", "a", "b", "c"]
    assert [path.relative_to(index.parent).as_posix() for path in source.files] == [
        "model.safetensors.index.json", "parts/model-2.safetensors", "model-1.safetensors",
    ]  # fmt: skip


def test_shards_given_one_by_one_are_joined(index: Path) -> None:
    source = join([formats.read(index.parent / file) for file in SHARDS])
    assert_whole(source)
    assert [path.name for path in source.files] == ["model-1.safetensors", "model-2.safetensors"]


def test_what_makes_no_checkpoint_is_not_joined(index: Path, tmp_path: Path) -> None:
    shard = formats.read(index.parent / "model-1.safetensors")
    np.savez(tmp_path / "w.npz", allow_pickle=False, z=np.ones(3))
    checkpoint = formats.read(building.write_h5(tmp_path / "w.h5", lambda file: file.create_dataset("z", data=[1.0])))
    with pytest.raises(InvalidModel, match="'b' stands in two of the files"):
        join([shard, shard])
    with pytest.raises(InvalidModel, match="files of npz and safetensors make no checkpoint"):
        join([shard, formats.read(tmp_path / "w.npz")])
    with pytest.raises(InvalidModel, match="without a graph or groups"):
        join([shard, checkpoint])
    with pytest.raises(InvalidModel, match="make no checkpoint"):
        join([])


def test_of_metadata_that_differ_the_first_count() -> None:
    first = Source("safetensors", "", (tensor("a", "int8", 1),), metadata={"format": "pt", "a": "1"})
    second = Source("safetensors", "", (tensor("b", "int8", 1),), metadata={"format": "np", "b": "2"})
    assert join([first, second]).metadata == {"format": "pt", "a": "1", "b": "2"}


def weight_map(**files: object) -> Callable[[Path], object]:
    return lambda index: index.write_text(json.dumps({"weight_map": files}))


def links_out(index: Path) -> None:
    outside = index.parent.parent / "outside.safetensors"
    (index.parent / "model-1.safetensors").rename(outside)
    (index.parent / "model-1.safetensors").symlink_to(outside)


def links_in_a_circle(index: Path) -> None:
    (index.parent / "model-1.safetensors").unlink()
    (index.parent / "model-1.safetensors").symlink_to("model-1.safetensors")


ONE, TWO = SHARDS
BAD_INDEXES: dict[str, tuple[Callable[[Path], object], str]] = {
    "no JSON": (lambda index: index.write_text("{"), "is no index of shards"),
    "a list": (lambda index: index.write_text("[]"), "is no object"),
    "more than 100 MB": (lambda index: os.truncate(index, 100_000_001), "has 100000001 bytes, at most 100000000"),
    "no map": (lambda index: index.write_text("{}"), "does not map text to text"),
    "a map to numbers": (weight_map(a=1), "does not map text to text"),
    "an empty map": (weight_map(), "names no shard"),
    "a path that leaves": (weight_map(a="../model-1.safetensors"), "leaves its folder"),
    "an absolute path": (weight_map(a="/etc/passwd"), "leaves its folder"),
    "a path with a backslash": (weight_map(a="..\\model-1.safetensors"), "leaves its folder"),
    "a link that leaves": (links_out, "links out of its folder"),
    "a link to itself": (links_in_a_circle, r"model-1\.safetensors cannot be read"),
    "a missing shard": (lambda index: (index.parent / TWO).unlink(), r"there is no file .*model-2\.safetensors"),
    "a shard that is none": (lambda index: (index.parent / TWO).write_bytes(b"x" * 99), "no whole safetensors file"),
    "the index itself": (weight_map(a="model.safetensors.index.json"), "no whole safetensors file"),
    "a tensor too much": (weight_map(a=ONE, b=ONE, x=ONE), "'x' stands in no shard, the index says model-1"),
    "a tensor not listed": (weight_map(a=ONE), "'b' stands in model-1.safetensors, the index says none"),
    "a tensor elsewhere": (weight_map(a=ONE, b=TWO, c=TWO, d=TWO), "'b' stands in model-1.safetensors, the index says"),
}


@pytest.mark.parametrize("case", BAD_INDEXES)
def test_a_bad_index_is_refused_with_one_line(index: Path, case: str) -> None:
    spoil, said = BAD_INDEXES[case]
    spoil(index)
    with pytest.raises(InvalidModel, match=said) as caught:
        formats.read(index)
    assert "\n" not in str(caught.value)


def test_a_link_within_the_folder_is_followed(index: Path) -> None:
    (index.parent / ONE).rename(index.parent / "blob")
    (index.parent / ONE).symlink_to("blob")
    assert_whole(formats.read(index))


# --- through the store -------------------------------------------------------------------------------------------------


def test_a_saved_checkpoint_reads_as_hdf5_and_keeps_its_metadata(repo: Path, tmp_path: Path) -> None:
    safetensors.numpy.save_file(NUMPY, tmp_path / "w.safetensors", metadata=METADATA)
    saved = save("m", [tmp_path / "w.safetensors"], repo=repo, message="one")
    assert (saved.tensors, saved.changed, saved.signature) == (len(NUMPY), True, None)
    view = repo / "models" / "m" / "weights" / "weights.h5"
    with h5py.File(view) as file:
        for name, values in NUMPY.items():
            np.testing.assert_array_equal(file[name][()], values)
        assert hdf5.metadata_of(file) == METADATA
        assert isinstance(file["a"].get("kernel", getlink=True), h5py.ExternalLink)
    assert not save("m", [tmp_path / "w.safetensors"], repo=repo).changed


def test_metadata_survive_a_view_that_is_saved_again(tmp_path: Path) -> None:
    long = {"note": "ü" * 200_000, "empty": "", "nul\0": "\0"}
    source = Source("safetensors", "", (tensor("t", "bfloat16", 3),), metadata=long)
    (tmp_path / "view.h5").write_bytes(hdf5.write_view(source, {}).image)
    again = hdf5.read(tmp_path / "view.h5")
    assert again.metadata == long
    (tmp_path / "second.h5").write_bytes(hdf5.write_view(again, {}).image)
    assert hdf5.read(tmp_path / "second.h5").metadata == long
    ours.write(again, tmp_path / "w.safetensors")
    assert content(ours.read(tmp_path / "w.safetensors")) == content(source)


@pytest.mark.parametrize("value", ["no JSON", "[]", '{"a": 1}', 3, np.bytes_(b"{}"), [1, 2]])
def test_an_attribute_of_that_name_by_somebody_else_is_only_an_attribute(tmp_path: Path, value: Any) -> None:
    def build(file: Any) -> None:
        file["t"] = 1.0
        file.attrs[hdf5.METADATA_ATTRIBUTE] = value

    source = hdf5.read(building.write_h5(tmp_path / "w.h5", build))
    assert source.metadata == {}
    view = building.store(source, tmp_path / "weights")
    with h5py.File(view / "weights.h5") as file, h5py.File(tmp_path / "w.h5") as original:
        building.assert_same_attributes(original, file)


def test_a_saved_checkpoint_is_exported_with_every_tensor_and_its_metadata(repo: Path, tmp_path: Path) -> None:
    odd = [tensor("odd", "int4", 3), tensor("layer.weight", "bfloat16", 300, 200), tensor("..", "float8e5m2", 2)]
    texts = TensorData("words", "string", (2,), memoryview("a\0häuser".encode()))
    source = Source("safetensors", "", (*odd, texts, tensor("large", "int4", 300_001)), metadata=METADATA)
    ours.write(source, tmp_path / "w.safetensors")
    save("m", [tmp_path / "w.safetensors"], repo=repo, message="one")
    export("m", tmp_path / "out.safetensors", repo=repo)
    found, metadata = content(ours.read(tmp_path / "out.safetensors"))
    assert (sorted(found), metadata) == (sorted(content(source)[0]), METADATA)
    export("m", tmp_path / "out.h5", repo=repo)
    assert hdf5.read(tmp_path / "out.h5").metadata == METADATA


def test_a_sharded_checkpoint_is_saved_by_its_index_or_its_shards(repo: Path, index: Path, tmp_path: Path) -> None:
    by_index = save("m", [index], repo=repo, message="one")
    by_shards = save("m", [index.parent / file for file in SHARDS], repo=repo)
    assert by_index.tensors == 4
    assert (by_shards.digest, by_shards.changed) == (by_index.digest, False)
    export("m", tmp_path / "out.safetensors", repo=repo)
    whole = ours.read(tmp_path / "out.safetensors")
    assert sorted(content(whole)[0]) == sorted(content(formats.read(index))[0])
    assert whole.metadata == {"format": "pt"}
