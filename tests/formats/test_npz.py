"""npz: what is written comes back, numpy agrees in both directions, and no bad archive gets in."""

from __future__ import annotations

import io
import json
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from gitmodel import formats
from gitmodel.files import StorageFailed
from gitmodel.formats import npy, npz, npz_zip
from gitmodel.formats.dtypes import storage
from gitmodel.formats.source import InvalidModel, Source, TensorData, scratch
from gitmodel.workflows.save import save
from tests.formats import building
from tests.formats.building import by_name, large
from tests.formats.drawn import ALL_DTYPES, content, sources

SAVERS = [np.savez, np.savez_compressed]


def npz_of(path: Path, *members: tuple[str, bytes], **options: Any) -> Path:
    """An archive of these members as they are."""
    with zipfile.ZipFile(path, "w", **options) as archive:
        for name, data in members:
            archive.writestr(zipfile.ZipInfo(name), data, options.get("compression"))
    return path


def npy_of(values: np.ndarray, **options: Any) -> bytes:
    file = io.BytesIO()
    np.lib.format.write_array(file, values, **options)
    return file.getvalue()


def header_of(text: str, body: bytes = b"", version: int = 1) -> bytes:
    """A member with this text for its header."""
    length = struct.pack("<H" if version == 1 else "<I", len(text))
    return b"\x93NUMPY" + bytes([version, 0]) + length + text.encode() + body


def numbers(found: TensorData) -> np.ndarray:
    return building.array(found)


# --- there and back ----------------------------------------------------------------------------------------------------


@settings(max_examples=150)
@given(sources())
def test_what_is_written_comes_back(tmp_path_factory: pytest.TempPathFactory, source: Source) -> None:
    path = tmp_path_factory.getbasetemp() / "drawn.npz"
    assert npz.write(source, path) == (path,)
    assert content(npz.read(path)) == content(source)
    again = path.with_name("again.npz")
    npz.write(npz.read(path), again)
    assert again.read_bytes() == path.read_bytes()


@settings(max_examples=150)
@given(
    st.sampled_from(SAVERS),
    st.dictionaries(
        st.from_regex(r"[a-zA-Zäß_ .]{1,6}", fullmatch=True).filter(
            lambda name: name not in ("file", ".", "..", "self")
        ),
        hnp.arrays(
            hnp.scalar_dtypes().filter(lambda dtype: dtype.kind in "biufc"), hnp.array_shapes(min_dims=0, min_side=0)
        ),
        max_size=3,
    ),
    st.booleans(),
)
def test_what_numpy_wrote_is_read(
    tmp_path_factory: pytest.TempPathFactory, save_npz: Callable[..., None], arrays: dict[str, Any], fortran: bool
) -> None:
    given_arrays = {k: np.asfortranarray(v) if fortran else v for k, v in arrays.items() if v.dtype.itemsize <= 16}
    given_arrays = {k: v for k, v in given_arrays.items() if v.dtype.name not in ("longdouble", "float128")}
    path = tmp_path_factory.getbasetemp() / "numpy.npz"
    save_npz(path, **given_arrays)
    found = by_name(npz.read(path))
    assert list(found) == list(given_arrays)
    for name, values in given_arrays.items():
        assert (found[name].dtype, found[name].shape) == (values.dtype.name, values.shape)
        little = np.ascontiguousarray(values, values.dtype.newbyteorder("<")).tobytes()
        assert found[name].data == little
        assert found[name].data.readonly


@pytest.mark.parametrize("dtype", ALL_DTYPES)
def test_numpy_reads_what_is_written(tmp_path: Path, dtype: str) -> None:
    if dtype == "string":
        held = TensorData("a/t", dtype, (2, 1), memoryview("a\0häuser".encode()))
    else:
        kind, shape = storage(dtype, (3, 5))
        body = np.random.default_rng(1).integers(0, 2, shape).astype(kind)
        held = TensorData("a/t", dtype, (3, 5), memoryview(body.tobytes()))
    formats.write(Source("onnx", "", (held,), metadata={"a": "b"}), tmp_path / "w.npz")
    with np.load(tmp_path / "w.npz", allow_pickle=False) as archive:
        assert archive.files == ["a/t", npz.ABOUT]
        values = archive["a/t"]
        about = json.loads(archive[npz.ABOUT])
    if dtype == "string":
        np.testing.assert_array_equal(values, np.array([["a"], ["häuser"]]), strict=True)
    else:
        np.testing.assert_array_equal(values, body, strict=True)
    marked = {} if values.dtype.name == dtype or dtype == "string" else {"a/t": {"dtype": dtype, "shape": [3, 5]}}
    assert about.get("tensors", {}) == marked
    assert about["metadata"] == {"a": "b"}


def test_an_archive_with_nothing_odd_has_no_member_but_arrays(tmp_path: Path) -> None:
    npz.write(Source("x", "", (TensorData("a", "int8", (2,), memoryview(b"ab")),)), tmp_path / "w.npz")
    assert zipfile.ZipFile(tmp_path / "w.npz").namelist() == ["a.npy"]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("save_npz", SAVERS)
@pytest.mark.parametrize("shape", [(300, 250), (250, 300), (15, 20, 250), (75_000,), (2, 5, 7500)])
def test_arrays_of_either_order_are_turned_tile_by_tile(
    tmp_path: Path, shape: tuple[int, ...], save_npz: Callable[..., None], order: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(npy, "_TILE_BYTES", 1000)
    values = np.arange(75_000, dtype=f"{order}i4").reshape(shape)
    save_npz(tmp_path / "w.npz", w=np.asfortranarray(values), x=values)
    found = by_name(npz.read(tmp_path / "w.npz"))
    for name in "wx":
        assert numbers(found[name]).dtype == np.dtype("<i4")
        assert np.array_equal(numbers(found[name]), values)


def test_a_large_array_in_columns_is_turned_exactly(tmp_path: Path) -> None:
    values = np.arange(6_000_000, dtype=">i8").reshape(3000, 2000, order="F")
    np.savez(tmp_path / "w.npz", allow_pickle=False, w=values)
    assert np.array_equal(numbers(npz.read(tmp_path / "w.npz").tensors[0]), values)


def test_a_stored_array_is_a_view_of_the_mapped_file(tmp_path: Path) -> None:
    np.savez(tmp_path / "w.npz", allow_pickle=False, a=large(), b=np.ones(3))
    a, b = npz.read(tmp_path / "w.npz").tensors
    assert a.data.obj is b.data.obj
    assert a.data.readonly
    assert (tmp_path / "w.npz").read_bytes().count(a.data) == 1


@pytest.mark.parametrize(
    "values",
    [np.array(["a", "häuser", "", "\U0001f600"]), np.array([b"a", b"bc"]), np.array("x"), np.zeros((0, 2), "U3"),
     np.array([["ab", "c"], ["d", "ef"]], order="F"), np.array(["ab"], dtype=">U2")],
)  # fmt: skip
def test_arrays_of_texts_are_read(tmp_path: Path, values: np.ndarray) -> None:
    np.savez(tmp_path / "w.npz", allow_pickle=False, t=values)
    (found,) = npz.read(tmp_path / "w.npz").tensors
    texts = [text if isinstance(text, bytes) else text.encode() for text in values.ravel().tolist()]
    assert (found.dtype, found.shape, bytes(found.data)) == ("string", values.shape, b"\0".join(texts))


def test_a_text_with_a_nul_inside_comes_back(tmp_path: Path) -> None:
    np.savez(tmp_path / "w.npz", allow_pickle=False, t=np.array(["a\0b", "c"]))
    source = npz.read(tmp_path / "w.npz")
    npz.write(source, tmp_path / "again.npz")
    with np.load(tmp_path / "again.npz") as archive:
        assert archive["t"].tolist() == ["a\0b", "c"]


@pytest.mark.parametrize(
    "texts", [b"a\xff\0b", b"a\xc0\x80\0b", b"x" * 40_000 + b"\0" * 1000], ids=["raw", "nul", "long"]
)
def test_texts_numpy_cannot_hold_come_back(tmp_path: Path, texts: bytes) -> None:
    source = Source("onnx", "", (TensorData("t", "string", (texts.count(0) + 1,), memoryview(texts)),))
    npz.write(source, tmp_path / "w.npz")
    assert content(npz.read(tmp_path / "w.npz")) == content(source)
    with np.load(tmp_path / "w.npz") as archive:
        assert archive["t"].dtype == np.uint8


def test_names_no_member_can_have_are_escaped_and_come_back(tmp_path: Path) -> None:
    names = ["", ".", "..", "/a", "a//b", "a/../b", "..\\a", "a\0", "a.npy", "%2Fa", "a/b", "é" * 60_000]
    held = tuple(TensorData(name, "uint8", (1,), memoryview(bytes([i]))) for i, name in enumerate(names))
    npz.write(Source("onnx", "", held), tmp_path / "w.npz")
    assert content(npz.read(tmp_path / "w.npz")) == content(Source("onnx", "", held))
    with np.load(tmp_path / "w.npz") as archive:
        stored = [name for name in archive.files if name != npz.ABOUT]
        assert [int(archive[name][0]) for name in stored] == list(range(len(names)))
    assert stored[3:8] == ["%2Fa%", "a%2F%2Fb", "a%2F..%2Fb", "..%5Ca", "a%00"]
    assert stored[9:11] == ["%2Fa", "a/b"]


def test_equal_tensors_give_equal_files(tmp_path: Path) -> None:
    source = Source("x", "", (TensorData("a", "bfloat16", (2,), memoryview(b"abcd")),))
    npz.write(source, tmp_path / "a.npz")
    building.wait_for_next_second()
    npz.write(source, tmp_path / "b.npz")
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()


def test_an_archive_of_python_2_is_read(tmp_path: Path) -> None:
    header = "{'descr': '<i2', 'fortran_order': False, 'shape': (2L,)}\n"
    (found,) = npz.read(npz_of(tmp_path / "w.npz", ("a.npy", header_of(header, b"abcd")))).tensors
    assert (found.dtype, found.shape, bytes(found.data)) == ("int16", (2,), b"abcd")


def test_an_archive_behind_other_bytes_is_read(tmp_path: Path) -> None:
    np.savez(tmp_path / "w.npz", allow_pickle=False, a=np.arange(9))
    (tmp_path / "w.npz").write_bytes(b"#!/bin/sh\n" + (tmp_path / "w.npz").read_bytes())
    np.testing.assert_array_equal(numbers(npz.read(tmp_path / "w.npz").tensors[0]), np.arange(9))


# --- bad archives ------------------------------------------------------------------------------------------------------

ONES = npy_of(np.ones(3))
BYTES = npy_of(np.ones(8, "uint8"))


def about(**said: object) -> tuple[str, bytes]:
    return npz.ABOUT, json.dumps(said).encode()


def plain(descr: object = "<f8", order: object = False, shape: object = (3,)) -> str:
    return repr({"descr": descr, "fortran_order": order, "shape": shape}) + "\n"


MEMBERS: dict[str, tuple[tuple[tuple[str, bytes], ...], str]] = {
    "a name that leaves": ((("../../evil.npy", ONES),), r"'../../evil\.npy' is none of numpy's"),
    "an absolute name": ((("/etc/a.npy", ONES),), "none of numpy's"),
    "a name that leaves by backslash": ((("..\\a.npy", ONES),), "none of numpy's"),
    "a name with a drive": ((("C:\\..\\a.npy", ONES),), "none of numpy's"),
    "a folder": ((("a/", b""),), "none of numpy's"),
    "no name": (((".npy", ONES),), "none of numpy's"),
    "a foreign member": ((("a.npy", ONES), ("run.sh", b"x")), r"'run\.sh' is none of numpy's"),
    "a pickle": ((("a.npy", b"\x80\x04K\x01.pickled"),), r"'a\.npy': the magic string is not correct"),
    "an empty member": ((("a.npy", b""),), r"'a\.npy': EOF"),
    "only magic": ((("a.npy", b"\x93NUMPY\x01\x00"),), "EOF"),
    "an unknown version": ((("a.npy", header_of(plain(), ONES, 9)),), r"version 9\.0"),
    "a version for records": ((("a.npy", header_of(plain(), b"\0" * 24, 3)),), r"version 3\.0"),
    "a header beyond the end": ((("a.npy", b"\x93NUMPY\x01\x00\xff\xff{}"),), "EOF"),
    "a header of gigabytes": ((("a.npy", b"\x93NUMPY\x02\x00\xff\xff\xff\xff{}"),), "EOF"),
    "a header too long": ((("a.npy", header_of(plain() + " " * 20_000, b"\0" * 24)),), "is large"),
    "a header that nests": ((("a.npy", header_of("(" * 9000)),), "header"),
    "a header of minus signs": ((("a.npy", header_of("-" * 9000 + "1")),), "header"),
    "a header that is code": ((("a.npy", header_of("__import__('os').system('x')")),), "its header is none"),
    "a header that is no mapping": ((("a.npy", header_of("3")),), "not a dictionary"),
    "a header with more keys": ((("a.npy", header_of("{'descr': '<f8', 'x': 1}")),), "correct keys"),
    "an unknown descr": ((("a.npy", header_of(plain("<q9"))),), "descr"),
    "an order that is a number": ((("a.npy", header_of(plain(order=2))),), "fortran_order"),
    "objects": ((("a.npy", npy_of(np.array([{}, 1], object), allow_pickle=True)),), "never unpickled"),
    "objects in a record": ((("a.npy", header_of(plain([("a", "O")]), b"\0" * 24)),), "never unpickled"),
    "records": ((("a.npy", npy_of(np.zeros(3, [("a", "<f4")]))),), r"it has the type \[\('a'"),
    "dates": ((("a.npy", npy_of(np.zeros(3, "<M8[s]"))),), r"the type datetime64\[s\]"),
    "void": ((("a.npy", npy_of(np.zeros(3, "V2"))),), r"the type \|V2"),
    "long doubles": ((("a.npy", npy_of(np.zeros(3, np.longdouble))),), "the type float128"),
    "texts of no length": ((("a.npy", header_of(plain("<U0", shape=(1 << 40,)))),), "the type <U0"),
    "2^40 elements": ((("a.npy", header_of(plain(shape=(1 << 40,)), b"\0" * 8)),), "it has 8 bytes, float64"),
    "a shape beyond all memory": ((("a.npy", header_of(plain(shape=(1 << 62, 1 << 62)), b"")),), "beyond all memory"),
    "a shape with a zero beyond all": ((("a.npy", header_of(plain(shape=(0, 1 << 62, 9)), b"")),), "beyond all memory"),
    "a negative shape": ((("a.npy", header_of(plain(shape=(-3, -1)), b"\0" * 24)),), "is no shape"),
    "a shape of truth": ((("a.npy", header_of(plain(shape=(True, 3)), b"\0" * 24)),), "is no shape"),
    "forty dimensions": ((("a.npy", header_of(plain(shape=(1,) * 40), b"\0" * 8)),), "has 40 dimensions, at most 32"),
    "too few bytes": ((("a.npy", ONES[:-1]),), r"it has 23 bytes, float64\[3\] needs 24"),
    "too many bytes": ((("a.npy", ONES + b"x"),), r"it has 25 bytes, float64\[3\] needs 24"),
    "half a surrogate": ((("a.npy", header_of(plain("<U1", shape=(1,)), b"\0\xd8\0\0")),), "surrogates not allowed"),
    "no character": ((("a.npy", header_of(plain("<U1", shape=(1,)), b"\xff\xff\xff\x7f")),), "no character"),
    "a word that is no JSON": ((("a.npy", BYTES), (npz.ABOUT, b"{")), "Expecting property name"),
    "a word twice": ((("a.npy", BYTES), (npz.ABOUT, b'{"names":{},"names":{}}')), "'names' stands in it twice"),
    "an unknown word": ((("a.npy", BYTES), about(x=1)), "unknown key 'x'"),
    "metadata of numbers": ((("a.npy", BYTES), about(metadata={"a": 1})), "does not map text to text"),
    "names of numbers": ((("a.npy", BYTES), about(names={"a": 1})), "does not map text to text"),
    "a name of nothing": ((("a.npy", BYTES), about(names={"b": "c"})), "names 'b', which is not there"),
    "a name twice": ((("a.npy", BYTES), ("b.npy", BYTES), about(names={"a": "b"})), "the tensor 'b' stands in it twice"),
    "marks in a list": ((("a.npy", BYTES), about(tensors=[])), "no mapping of tensors"),
    "a mark of nothing": ((("a.npy", BYTES), about(tensors={"b": {}})), "says what 'b' is, which is no array of bytes"),
    "a mark of floats": ((("a.npy", ONES), about(tensors={"a": {"dtype": "int4", "shape": [48]}})), "no array of bytes"),
    "a mark of another size": (
        (("a.npy", BYTES), about(tensors={"a": {"dtype": "int4", "shape": [9]}})), r"int4\[9\] but has 8 bytes",
    ),
    "a mark that is none": ((("a.npy", BYTES), about(tensors={"a": 3})), "no type and shape"),
}  # fmt: skip


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
@pytest.mark.parametrize("case", MEMBERS)
def test_a_bad_member_is_refused_with_one_line(tmp_path: Path, case: str, compression: int) -> None:
    members, said = MEMBERS[case]
    path = npz_of(tmp_path / "w.npz", *members, compression=compression)
    with pytest.raises(InvalidModel, match=rf"w\.npz is no npz of plain arrays \(.*{said}") as caught:
        formats.read(path)
    assert "\n" not in str(caught.value)


def rewritten(data: bytes, mark: bytes, offset: int, new: bytes, number: int = 0) -> bytes:
    """``data`` with these bytes in the n-th structure that begins with ``mark``."""
    place = -1
    for _ in range(number + 1):
        place = data.index(mark, place + 1)
    return data[: place + offset] + new + data[place + offset + len(new) :]


LOCAL, CENTRAL, END = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06"
SPOILED: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "an npy": (lambda data: ONES, "not a zip file"),
    "random bytes": (lambda data: b"\xff" * 300, "not a zip file"),
    "cut short": (lambda data: data[:-30], "not a zip file"),
    "cut in the middle": (lambda data: data[:100] + data[200:], "is not where the directory says|zip file|cut short"),
    "encrypted": (lambda data: rewritten(data, CENTRAL, 8, b"\x01"), "encrypted or packed"),
    "packed by bzip2": (lambda data: rewritten(data, CENTRAL, 10, b"\x0c"), "encrypted or packed"),
    "another checksum": (lambda data: rewritten(data, CENTRAL, 16, b"abcd"), "'a.npy' is damaged: its checksum differs"),
    "a member elsewhere": (lambda data: rewritten(data, CENTRAL, 42, b"\x09"), "is not where the directory says"),
    "two members in one place": (lambda data: rewritten(data, CENTRAL, 42, b"\0\0\0\0", 1), "overlaps another"),
    "a size beyond the end": (
        lambda data: rewritten(rewritten(data, CENTRAL, 20, b"\0\0\xff\x7f"), CENTRAL, 24, b"\0\0\xff\x7f"), "cut short",
    ),
    "two sizes": (lambda data: rewritten(data, CENTRAL, 24, b"\x09"), "cut short"),
    "a longer name in its place": (lambda data: rewritten(data, LOCAL, 26, b"\xff\xff"), "cut short|overlaps"),
    "a name that is cut by NUL": (lambda data: data.replace(b"b.npy", b"b\0npy"), "none of numpy's"),
    "two of a name": (lambda data: data.replace(b"b.npy", b"a.npy"), "a member stands in it twice"),
    "no UTF-8": (
        lambda data: rewritten(data.replace(b"b.npy", b"\xff.npy"), CENTRAL, 9, b"\x08", 1), "can't decode",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", SPOILED)
def test_a_bad_archive_is_refused_with_one_line(tmp_path: Path, case: str) -> None:
    spoil, said = SPOILED[case]
    path = npz_of(tmp_path / "w.npz", ("a.npy", ONES), ("b.npy", ONES))
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(InvalidModel, match=rf"w\.npz is no npz of plain arrays \(.*({said})") as caught:
        formats.read(path)
    assert "\n" not in str(caught.value)


DEFLATED: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "more bytes than it says": (lambda data: rewritten(data, CENTRAL, 24, b"\x09\0"), "'a.npy' is damaged"),
    "fewer bytes than it says": (lambda data: rewritten(data, CENTRAL, 24, b"\xff\xff"), "'a.npy' is cut short"),
    "a stream that ends early": (
        lambda data: rewritten(data, CENTRAL, 20, b"\x09\0"),
        "'a.npy' is (cut short|damaged)",
    ),
    "no stream": (lambda data: rewritten(data, LOCAL, 35, b"\xff" * 8), "'a.npy' is (cut short|damaged)"),
}


@pytest.mark.parametrize("case", DEFLATED)
def test_a_bad_stream_is_refused_with_one_line(tmp_path: Path, case: str) -> None:
    spoil, said = DEFLATED[case]
    path = npz_of(tmp_path / "w.npz", ("a.npy", ONES), compression=zipfile.ZIP_DEFLATED)
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(InvalidModel, match=rf"w\.npz is no npz of plain arrays \(.*{said}"):
        formats.read(path)


def test_a_bomb_is_refused_before_anything_is_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The directory says how large all would be; a small file that says much is refused, and so is one that overlaps."""
    path = npz_of(tmp_path / "w.npz", ("a.npy", npy_of(np.zeros(1_000_000))), compression=zipfile.ZIP_DEFLATED)
    path.write_bytes(rewritten(path.read_bytes(), CENTRAL, 24, struct.pack("<I", 3 << 30)))
    with pytest.raises(InvalidModel, match=r"it has \d+ bytes and would unpack to 3221225472"):
        formats.read(path)
    monkeypatch.setattr(npz_zip, "FREE_BYTES", 1 << 40)
    with pytest.raises(InvalidModel, match=r"'a\.npy' is cut short"):
        formats.read(path)


def test_a_word_beyond_100_mb_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(npz, "_MAX_ABOUT_BYTES", 20)
    with pytest.raises(InvalidModel, match=r"gitmodel\.json has 25 bytes, at most 20"):
        formats.read(npz_of(tmp_path / "w.npz", ("a.npy", BYTES), about(names={"a": "words"})))


def test_damaged_archives_are_refused_or_read(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "w.npz", allow_pickle=False, a=np.arange(9.0), b=np.array(["a", "b"]))
    outcomes = {"read": 0, "refused": 0}
    for data in building.damaged((tmp_path / "w.npz").read_bytes(), trials=800):
        (tmp_path / "bad.npz").write_bytes(data)
        try:
            formats.read(tmp_path / "bad.npz")
            outcomes["read"] += 1
        except InvalidModel:
            outcomes["refused"] += 1
    assert min(outcomes.values()) > 20


def test_a_single_npy_has_no_known_ending(tmp_path: Path) -> None:
    np.save(tmp_path / "w.npy", np.ones(3))
    with pytest.raises(InvalidModel, match="unknown ending"):
        formats.read(tmp_path / "w.npy")


def test_more_text_than_memory_should_hold_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    np.savez(tmp_path / "w.npz", allow_pickle=False, t=np.array(["abc", "d"]))
    monkeypatch.setattr(npy, "MAX_TEXT_BYTES", 23)
    with pytest.raises(InvalidModel, match="it has 24 bytes of text, at most 23"):
        formats.read(tmp_path / "w.npz")


def test_more_text_than_numpy_should_hold_is_written_as_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(npy, "MAX_TEXT_BYTES", 23)
    for texts in (b"abc\0d", b"x" * 30):
        source = Source("onnx", "", (TensorData("t", "string", (texts.count(0) + 1,), memoryview(texts)),))
        npz.write(source, tmp_path / "w.npz")
        assert content(npz.read(tmp_path / "w.npz")) == content(source)


@pytest.mark.parametrize(("name", "metadata"), [("\ud800", {}), ("t", {"a": "\udfff"})])
def test_what_is_no_text_is_refused(tmp_path: Path, name: str, metadata: dict[str, str]) -> None:
    source = Source("onnx", "", (TensorData(name, "int8", (1,), memoryview(b"a")),), metadata=metadata)
    with pytest.raises(InvalidModel, match=r"w\.npz cannot hold this model .*is no text"):
        formats.write(source, tmp_path / "w.npz")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageFailed, match=r"cannot write .*none/w\.npz"):
        npz.write(Source("onnx", "", ()), tmp_path / "none" / "w.npz")


# --- streams -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", [1, 9])
@pytest.mark.parametrize("size", [0, 1, npz_zip._BLOCK - 1, npz_zip._BLOCK, 3 * npz_zip._BLOCK + 5])
def test_streams_of_every_length_are_inflated(size: int, level: int) -> None:
    body = (b"abc" * 40 + bytes(200)) * (size // 320 + 1)
    body = body[:size]
    engine = zlib.compressobj(level, zlib.DEFLATED, -zlib.MAX_WBITS)
    packed = engine.compress(body) + engine.flush()
    member = npz_zip._Member("a", memoryview(packed), 0, 0, size, zlib.crc32(body), deflated=True)
    room = scratch(size)
    assert npz_zip._body(member, room) == body


# --- through the store -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("save_npz", SAVERS)
def test_a_saved_archive_reads_as_hdf5(repo: Path, tmp_path: Path, save_npz: Callable[..., None]) -> None:
    arrays = {
        "a/kernel": large(),
        "b": np.asfortranarray(large(1).astype(">f4")),
        "c": np.array(True),
        "labels": np.array(["x", "y"]),
    }
    save_npz(tmp_path / "w.npz", **arrays)
    saved = save("m", [tmp_path / "w.npz"], repo=repo, message="one")
    assert saved.tensors == 4
    with h5py.File(repo / "models" / "m" / "weights" / "weights.h5") as file:
        for name in ("a/kernel", "b", "c"):
            np.testing.assert_array_equal(file[name][()], arrays[name])
        assert file["labels"].asstr()[()].tolist() == ["x", "y"]
