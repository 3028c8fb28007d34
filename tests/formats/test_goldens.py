"""Golden cases: from npz to cases, to ONNX's own layout and back; hostile npz files are refused and never a crash."""

from __future__ import annotations

import io
import pickle
import struct
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from onnx import numpy_helper

from gitmodel.bundle import yamlio
from gitmodel.bundle.folder import DiskFolder, MemoryFolder
from gitmodel.bundle.golden import GoldenCase, Slice
from gitmodel.bundle.signature import Signature, TensorSpec
from gitmodel.formats import goldens
from gitmodel.formats.goldens import InvalidGolden
from gitmodel.formats.source import InvalidModel
from tests.formats import building

X = TensorSpec("x", "float32", ("batch", 4))
Y = TensorSpec("y", "float32", ("batch", 2))
SIGNATURE = Signature((X,), (Y,))


def run(inputs: Mapping[str, Any]) -> dict[str, Any]:
    """Stands for a model: the first two columns."""
    return {"y": inputs["x"][:, :2] * 2}


def rows(count: int = 3) -> np.ndarray:
    return np.arange(count * 4, dtype="float32").reshape(count, 4)


def from_arrays(folder: Path, signature: Signature = SIGNATURE, **arrays: Any) -> list[GoldenCase]:
    np.savez(folder / "held-out.npz", allow_pickle=True, **arrays)
    return goldens.from_npz(folder / "held-out.npz", signature, run)


def assert_equal(left: list[GoldenCase], right: list[GoldenCase]) -> None:
    assert [case.name for case in left] == [case.name for case in right]
    for one, other in zip(left, right, strict=True):
        for ours, theirs in ((one.inputs, other.inputs), (one.outputs, other.outputs)):
            assert list(ours) == list(theirs)
            for name in ours:
                np.testing.assert_array_equal(ours[name], theirs[name], strict=True)


# --- npz to cases ------------------------------------------------------------------------------------------------------


def test_each_row_is_a_case_of_batch_one_and_its_outputs_are_what_the_model_gives(tmp_path: Path) -> None:
    expected = [
        GoldenCase(f"held-out/{i}", {"x": rows()[i : i + 1]}, {"y": rows()[i : i + 1, :2] * 2}) for i in range(3)
    ]
    assert_equal(from_arrays(tmp_path, x=rows()), expected)


def test_recorded_outputs_are_kept(tmp_path: Path) -> None:
    recorded = np.full((3, 2), 7, dtype="float32")
    cases = from_arrays(tmp_path, x=rows(), y=recorded)
    assert all((case.outputs["y"] == 7).all() for case in cases)


def test_outputs_that_are_not_recorded_are_added(tmp_path: Path) -> None:
    signature = Signature((X,), (TensorSpec("label", "int64", ("batch",)), Y))
    cases = from_arrays(tmp_path, signature, x=rows(), label=np.array([5, 6, 7]))
    assert [int(case.outputs["label"][0]) for case in cases] == [5, 6, 7]
    np.testing.assert_array_equal(cases[1].outputs["y"], rows()[1:2, :2] * 2)


def test_with_a_fixed_first_dimension_the_file_is_one_case(tmp_path: Path) -> None:
    signature = Signature((TensorSpec("x", "float32", (3, 4)),), (Y,))
    (case,) = from_arrays(tmp_path, signature, x=rows())
    np.testing.assert_array_equal(case.inputs["x"], rows(), strict=True)
    assert case.name == "held-out/0"


@pytest.mark.parametrize("shape", [(), None])
def test_an_input_without_rows_makes_the_file_one_case(tmp_path: Path, shape: tuple[int, ...] | None) -> None:
    signature = Signature((X, TensorSpec("scale", "float32", shape)), (Y,))
    (case,) = from_arrays(tmp_path, signature, x=rows(), scale=np.float32(2))
    assert case.inputs["scale"].shape == ()


def test_an_optional_input_may_be_left_out(tmp_path: Path) -> None:
    signature = Signature((X, TensorSpec("scale", "float32", ("batch",), optional=True)), (Y,))
    assert [list(case.inputs) for case in from_arrays(tmp_path, signature, x=rows())] == [["x"]] * 3
    with_scale = from_arrays(tmp_path, signature, x=rows(), scale=np.ones(3, "float32"))
    assert [list(case.inputs) for case in with_scale] == [["x", "scale"]] * 3


@pytest.mark.parametrize(
    ("dtype", "values"),
    [
        ("float32", np.ones((2, 4))),
        ("float32", np.ones((2, 4), "int64")),
        ("float32", np.ones((2, 4), "bool")),
        ("float32", np.full((2, 4), np.nan)),
        ("float32", np.full((2, 4), -np.inf)),
        ("float16", np.ones((2, 4))),
        ("int8", np.full((2, 4), -128)),
        ("int64", np.ones((2, 4), "int8")),
        ("uint8", np.full((2, 4), 255, "uint16")),
        ("bool", np.ones((2, 4), "bool")),
    ],
)
def test_values_are_given_in_the_type_the_model_declares(tmp_path: Path, dtype: str, values: np.ndarray) -> None:
    signature = Signature((TensorSpec("x", dtype, ("batch", 4)),), (TensorSpec("y", dtype, ("batch", 2)),))
    cases = from_arrays(tmp_path, signature, x=values)
    assert {case.inputs["x"].dtype for case in cases} == {np.dtype(dtype)}
    np.testing.assert_array_equal(np.concatenate([case.inputs["x"] for case in cases]), values)


@pytest.mark.parametrize("order", ["F", "big-endian", "strided"])
def test_the_layout_of_an_array_does_not_matter(tmp_path: Path, order: str) -> None:
    values = {"F": np.asfortranarray(rows()), "big-endian": rows().astype(">f4"), "strided": rows(6)[::2]}[order]
    expected = from_arrays(tmp_path, x=np.ascontiguousarray(values, dtype="float32"))
    assert_equal(from_arrays(tmp_path, x=values), expected)


@pytest.mark.parametrize(
    ("dtype", "values"),
    [
        ("int64", np.ones((2, 4))),
        ("int64", np.full((2, 4), np.nan)),
        ("bool", np.ones((2, 4), "int64")),
        ("uint8", np.ones((2, 4), "int64")),
        ("float32", np.ones((2, 4), "complex64")),
        ("float32", np.array([["1"] * 4] * 2)),
        ("float32", np.array([["2001-01-01"] * 4] * 2, dtype="datetime64[D]")),
        ("float32", np.zeros((2, 4), dtype=[("a", "f4")])),
        ("int8", np.full((2, 4), 300)),
        ("int32", np.full((2, 4), 2**40)),
        ("float32", np.full((2, 4), 1e300)),
        ("float16", np.full((2, 4), 70000.0)),
        ("string", np.ones((2, 4))),
        ("string", np.ones((2, 4), "int64")),
    ],
)
def test_values_that_would_become_others_are_refused(tmp_path: Path, dtype: str, values: np.ndarray) -> None:
    signature = Signature((TensorSpec("x", dtype, ("batch", 4)),), (Y,))
    with pytest.raises(InvalidGolden, match=r"held-out\.npz.*'x'"):
        from_arrays(tmp_path, signature, x=values)


@pytest.mark.parametrize("dtype", ["bfloat16", "float8e4m3fn", "float8e5m2", "int4"])
def test_a_type_numpy_lacks_is_cast_or_refused(tmp_path: Path, dtype: str) -> None:
    signature = Signature((TensorSpec("x", dtype, ("batch", 4)),), (Y,))
    try:
        cases = from_arrays(tmp_path, signature, x=np.ones((2, 4), "float32"))
    except InvalidGolden as error:
        assert dtype in str(error)
    else:
        assert all((case.inputs["x"].astype("float32") == 1).all() for case in cases)


def test_texts_are_texts(tmp_path: Path) -> None:
    signature = Signature((TensorSpec("x", "string", ("batch",)),), (Y,))
    np.savez(tmp_path / "words.npz", x=np.array(["cat", "häuser", ""]))
    cases = goldens.from_npz(tmp_path / "words.npz", signature, lambda inputs: {"y": np.zeros((1, 2), "float32")})
    assert [case.inputs["x"].tolist() for case in cases] == [["cat"], ["häuser"], [""]]
    assert_equal(goldens.read(MemoryFolder(placed(goldens.write("words", cases))), "golden", signature, "m"), cases)


@pytest.mark.parametrize(
    ("arrays", "reason"),
    [
        ({"x": rows(), "z": rows()}, "has an array 'z' the model has no tensor for: the model has x, y"),
        ({"y": rows()}, "lacks the input 'x'"),
        ({}, "lacks the input 'x'"),
        ({"x": rows(3), "y": rows(2)[:, :2]}, "differ in their first dimension"),
        ({"x": np.float32(1)}, "differ in their first dimension"),
        ({"x": rows(0)}, "has 0 rows"),
        ({"x": rows(257)}, "has 257 rows"),
        ({"x": np.array([[object()] * 4], dtype=object)}, "is no npz of plain arrays"),
    ],
)
def test_arrays_that_do_not_fit_the_model_are_refused(tmp_path: Path, arrays: dict[str, Any], reason: str) -> None:
    with pytest.raises(InvalidGolden, match=rf"held-out\.npz.*{reason}"):
        from_arrays(tmp_path, **arrays)


@pytest.mark.parametrize("name", ["serving_default_x:0", "input.1", "x-y"])
def test_names_as_frameworks_give_them_are_names_of_arrays(tmp_path: Path, name: str) -> None:
    signature = Signature((TensorSpec(name, "float32", ("batch", 4)),), (Y,))
    arrays: dict[str, Any] = {name: rows()}
    np.savez(tmp_path / "cases.npz", **arrays)
    cases = goldens.from_npz(tmp_path / "cases.npz", signature, lambda inputs: {"y": inputs[name][:, :2]})
    assert [list(case.inputs) for case in cases] == [[name]] * 3


def test_256_rows_are_256_cases(tmp_path: Path) -> None:
    assert len(from_arrays(tmp_path, x=rows(256))) == 256


def test_outputs_that_are_no_tensors_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "cases.npz", x=rows())
    mapped: Any = {"y": [{1: 0.5}]}
    with pytest.raises(InvalidGolden, match="output 'y'"):
        goldens.from_npz(tmp_path / "cases.npz", SIGNATURE, lambda inputs: mapped)


# --- hostile npz -------------------------------------------------------------------------------------------------------


def npy(header: str, body: bytes = b"") -> bytes:
    """An npy file with any text as its header."""
    text = header.encode("latin1") + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + body


def described(shape: str, descr: str = "'<f4'") -> str:
    return f"{{'descr': {descr}, 'fortran_order': False, 'shape': {shape}}}"


def zipped(path: Path, members: Mapping[str, bytes], method: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def refused(path: Path, reason: str = "") -> None:
    with pytest.raises(InvalidGolden, match=rf"{path.name}.*{reason}") as error:
        goldens.from_npz(path, SIGNATURE, run)
    assert len(str(error.value)) < 1000
    assert "\n" not in str(error.value)


GOOD = npy(described("(1, 4)"), bytes(16))

HOSTILE_MEMBERS = {
    "a pickle": pickle.dumps([1, 2, 3]),
    "nothing": b"",
    "half a magic number": b"\x93NUM",
    "only a magic number": b"\x93NUMPY",
    "an unknown version": b"\x93NUMPY\x09\x00" + GOOD[8:],
    "too few values": GOOD[:-1],
    "objects": npy(described("(1, 4)", "'|O'"), pickle.dumps([1] * 4)),
    "2^40 elements": npy(described("(1099511627776,)")),
    "2^70 elements": npy(described(f"({2**70},)")),
    "2^32 x 2^32 elements": npy(described(f"({2**32}, {2**32})")),
    "a negative shape": npy(described("(-4,)"), bytes(16)),
    "a shape of texts": npy(described("('a',)"), bytes(16)),
    "a type of 2^40 bytes": npy(described("(1,)", "('<f4', (1099511627776,))"), bytes(4)),
    "an unknown type": npy(described("(1,)", "'<zz'"), bytes(4)),
    "an unclosed header": npy("{'descr': '<f4', ((("),
    "a nested header": npy("(" * 9000),
    "a header of signs": npy("-" * 9000 + "1"),
    "a header of lists": npy("[" * 150 + "]" * 150),
    "a header of 60000 bytes": npy(" " * 60_000),
    "a header that calls": npy("__import__('os').system('id')"),
    "a header that is no mapping": npy("1"),
    "a header with mixed keys": npy("{1: 2, 'a': 3}"),
    "a header with a list as key": npy("{[]: 2}"),
    "a header with a NUL": npy("{'descr\0': 1}"),
}


@pytest.mark.parametrize("member", HOSTILE_MEMBERS.values(), ids=HOSTILE_MEMBERS)
def test_a_member_that_is_no_plain_array_is_refused(tmp_path: Path, member: bytes) -> None:
    refused(zipped(tmp_path / "cases.npz", {"x.npy": member}))


@pytest.mark.parametrize(
    "name",
    ["../../evil", "../../evil.npy", "/etc/passwd.npy", "a/x.npy", "x.npy/", "x", "x.pkl", "x\n.npy", "C:\\x.npy"],
)
def test_a_member_with_a_path_or_another_ending_is_refused(tmp_path: Path, name: str) -> None:
    refused(zipped(tmp_path / "cases.npz", {"x.npy": GOOD, name: GOOD}), "member")
    assert [path.name for path in tmp_path.iterdir()] == ["cases.npz"]


def test_a_bomb_is_refused_by_its_declared_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(goldens, "MAX_NPZ_BYTES", 1 << 20)
    members = {name: npy(described("(131072, 1)"), bytes(1 << 19)) for name in ("x.npy", "y.npy")}
    path = zipped(tmp_path / "cases.npz", members, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 10_000
    refused(path, "unpacks to 10[0-9]* bytes")


def test_a_member_that_is_longer_than_it_declares_is_refused(tmp_path: Path) -> None:
    path = zipped(tmp_path / "cases.npz", {"x.npy": npy(described("(4096, 4)"), bytes(1 << 16))}, zipfile.ZIP_DEFLATED)
    data = bytearray(path.read_bytes())
    size = struct.pack("<L", len(npy(described("(4096, 4)"))) + (1 << 16))
    assert data.count(size) == 2
    path.write_bytes(bytes(data.replace(size, struct.pack("<L", 100))))
    refused(path)


@pytest.mark.parametrize(
    "data",
    [b"x", b"PK\x03\x04", GOOD, pickle.dumps({"x": 1}), b"\x89HDF\r\n\x1a\n"],
    ids=["x", "PK", "npy", "pickle", "h5"],
)
def test_a_file_that_is_no_npz_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "cases.npz").write_bytes(data)
    refused(tmp_path / "cases.npz", "is no npz of plain arrays")


def test_a_missing_or_empty_file_and_a_pointer_are_named(tmp_path: Path) -> None:
    path = tmp_path / "cases.npz"
    with pytest.raises(InvalidModel, match="there is no file"):
        goldens.from_npz(path, SIGNATURE, run)
    path.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(InvalidModel, match="Git LFS pointer"):
        goldens.from_npz(path, SIGNATURE, run)


@pytest.mark.parametrize("compressed", [False, True])
def test_a_damaged_npz_is_read_or_refused_and_never_a_crash(tmp_path: Path, compressed: bool) -> None:
    buffer = io.BytesIO()
    (np.savez_compressed if compressed else np.savez)(buffer, x=rows())
    path, outcomes = tmp_path / "cases.npz", {"read": 0, "refused": 0}
    for data in building.damaged(buffer.getvalue(), trials=600):
        path.write_bytes(data)
        try:
            goldens.from_npz(path, SIGNATURE, run)
            outcomes["read"] += 1
        except InvalidGolden as error:
            outcomes["refused"] += 1
            assert "cases.npz" in str(error)
    assert min(outcomes.values()) > 50


def test_an_npz_cut_short_is_refused(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    np.savez(buffer, x=rows())
    whole = buffer.getvalue()
    for length in range(1, len(whole), 7):
        (tmp_path / "cases.npz").write_bytes(whole[:length])
        refused(tmp_path / "cases.npz", "is no npz of plain arrays")


# --- ONNX's layout -----------------------------------------------------------------------------------------------------


def placed(files: Mapping[str, bytes]) -> dict[str, bytes]:
    return {f"golden/{path}": data for path, data in files.items()}


def proto(values: np.ndarray, name: str = "") -> bytes:
    data: bytes = numpy_helper.from_array(values, name).SerializeToString()
    return data


def read(files: Mapping[str, bytes], signature: Signature = SIGNATURE) -> list[GoldenCase]:
    return goldens.read(MemoryFolder(placed(files)), "golden", signature, "fraud@v1.0.0")


_dtypes = st.sampled_from(["bool", "int8", "int64", "uint8", "float16", "float32", "float64", "complex64"])
_values = _dtypes.flatmap(lambda t: hnp.arrays(t, hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3)))
_tensors = st.dictionaries(st.text(min_size=1, max_size=6), _values, max_size=3)


@given(st.lists(st.tuples(_tensors, _tensors), max_size=3))
def test_cases_are_read_as_they_were_written(drawn: list[tuple[dict[str, Any], dict[str, Any]]]) -> None:
    cases = [GoldenCase(f"group/{i}", inputs, outputs) for i, (inputs, outputs) in enumerate(drawn)]
    found = read(goldens.write("group", cases))
    assert_equal(found, [case for case in cases if case.inputs or case.outputs])


def test_the_files_are_those_of_onnx() -> None:
    files = goldens.write("held-out", [GoldenCase("held-out/0", {"x": rows(1)}, {"y": rows(1), "z": rows(2)})])
    assert sorted(files) == [f"held-out/test_data_set_0/{name}.pb" for name in ("input_0", "output_0", "output_1")]
    tensor = onnx.TensorProto.FromString(files["held-out/test_data_set_0/output_1.pb"])
    assert tensor.name == "z"
    np.testing.assert_array_equal(numpy_helper.to_array(tensor), rows(2))
    assert files == goldens.write("held-out", [GoldenCase("x", {"x": rows(1)}, {"y": rows(1), "z": rows(2)})])


def test_a_test_of_onnx_itself_is_read_from_disk(tmp_path: Path) -> None:
    """Laid out as onnx's own backend tests are: unnamed or differently named tensors bind by their index."""
    signature = Signature((X, TensorSpec("b", "int64", ())), (Y,))
    folder = tmp_path / "golden" / "test_add" / "test_data_set_0"
    folder.mkdir(parents=True)
    (folder / "input_0.pb").write_bytes(proto(rows()))
    (folder / "input_1.pb").write_bytes(proto(np.array(3)))
    (folder / "output_0.pb").write_bytes(proto(rows(), "y"))
    (tmp_path / "golden" / "test_add" / "model.onnx").write_bytes(b"not looked at")
    (case,) = goldens.read(DiskFolder(tmp_path), "golden", signature, "fraud")
    assert (case.name, list(case.inputs), list(case.outputs)) == ("test_add/0", ["x", "b"], ["y"])
    np.testing.assert_array_equal(case.inputs["x"], rows(), strict=True)


def test_a_name_goes_before_the_index() -> None:
    signature = Signature((X, TensorSpec("b", "int64", ())), ())
    files = {
        "g/test_data_set_0/input_0.pb": proto(np.array(3), "b"),
        "g/test_data_set_0/input_1.pb": proto(rows(), "x"),
    }
    (case,) = read(files, signature)
    assert {name: values.shape for name, values in case.inputs.items()} == {"b": (), "x": (3, 4)}


def test_cases_and_tensors_are_ordered_by_number_and_not_by_text() -> None:
    files = {f"g/test_data_set_{i}/input_0.pb": proto(rows(1), "x") for i in (10, 9, 2)}
    files |= {f"f/test_data_set_0/input_{i}.pb": proto(np.array(i), f"t{i}") for i in (10, 9, 2)}
    cases = read(files)
    assert [case.name for case in cases] == ["f/0", "g/2", "g/9", "g/10"]
    assert list(cases[0].inputs) == ["t2", "t9", "t10"]


def test_an_unnamed_tensor_beyond_the_signature_is_named_by_its_index() -> None:
    (case,) = read({"g/test_data_set_0/input_3.pb": proto(rows())})
    assert list(case.inputs) == ["#3"]


NO_CASES = [
    "input_0.pb", "g/input_0.pb", "g/test_data_set_0/input_0.txt", "g/test_data_set_x/input_0.pb",
    "g/h/test_data_set_0/input_0.pb",
]  # fmt: skip


@pytest.mark.parametrize("path", NO_CASES)
def test_other_files_are_not_looked_at(path: str) -> None:
    assert read({path: b"\xff"}) == []


@pytest.mark.parametrize("data", [b"", b"\xff\xff", proto(rows())[:-1]])
def test_a_damaged_tensor_is_refused_with_its_file_and_model(data: bytes) -> None:
    with pytest.raises((InvalidGolden, InvalidModel), match=r"fraud@v1\.0\.0: golden/g/test_data_set_0/output_0\.pb"):
        read({"g/test_data_set_0/output_0.pb": data})


@pytest.mark.realdata
def test_the_publishers_rows_of_a_real_model_become_cases(real_data: Path, tmp_path: Path) -> None:
    from gitmodel import runtime
    from gitmodel.formats import onnx as onnx_format

    folder = real_data / "magika" / "standard_v3_3"
    source = onnx_format.read(folder / "model.onnx")
    assert source.signature is not None
    with np.load(folder / "reference.npz") as reference:
        features, scores = reference["bytes"], reference["score"]
    np.savez(tmp_path / "reference.npz", bytes=features)
    session = runtime.open_session(folder / "model.onnx")
    cases = goldens.from_npz(tmp_path / "reference.npz", source.signature, session.run)
    assert len(cases) == len(scores) == 37
    for case, score in zip(cases, scores, strict=True):
        (probabilities,) = case.outputs.values()
        assert probabilities.max() == pytest.approx(score, abs=1e-6)
    read_back = read(goldens.write("reference", cases), source.signature)
    assert_equal(read_back, cases)


# --- Slices ------------------------------------------------------------------------------------------------------------


def test_the_cases_of_a_group_carry_the_slice_it_stands_for() -> None:
    cases = [GoldenCase("", {"x": rows(1)}, {"y": rows(1)[:, :2]})] * 2
    files = {f"golden/{path}": data for group in ("de", "all") for path, data in goldens.write(group, cases).items()}
    german = Slice("country=DE", 0.95)
    folder = MemoryFolder({**files, "golden/de/slice.yaml": german.to_yaml().encode()})
    assert [(case.name, case.slice) for case in goldens.read(folder, "golden", SIGNATURE, "fraud")] == [
        ("all/0", None),
        ("all/1", None),
        ("de/0", german),
        ("de/1", german),
    ]


def test_a_slice_file_that_cannot_be_read_is_named() -> None:
    files = {f"golden/{path}": data for path, data in goldens.write("de", [GoldenCase("", {"x": rows(1)}, {})]).items()}
    folder = MemoryFolder({**files, "golden/de/slice.yaml": b"slice: []"})
    with pytest.raises(yamlio.InvalidYaml, match=r"fraud: golden/de/slice\.yaml names no slice"):
        goldens.read(folder, "golden", SIGNATURE, "fraud")
