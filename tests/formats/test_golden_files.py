"""Names, places and sizes of golden cases; which inputs are the same; requests that a server recorded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from gitmodel.bundle.folder import MemoryFolder
from gitmodel.bundle.golden import GoldenCase, Slice
from gitmodel.bundle.signature import Signature, TensorSpec
from gitmodel.formats import golden_files, goldens
from gitmodel.formats.goldens import InvalidGolden
from gitmodel.formats.source import InvalidModel

SIGNATURE = Signature((TensorSpec("x", "float32", ("n", 2)),), (TensorSpec("y", "float32", ("n",)),))


def case(value: float) -> GoldenCase:
    return GoldenCase("", {"x": np.full((1, 2), value, "float32")}, {"y": np.full(1, value, "float32")})


FOLDER = MemoryFolder(
    {f"golden/{path}": data for path, data in goldens.write("b", [case(1), case(2)], first=9).items()}
    | {"golden/a/test_data_set_07/input_0.pb": b"123", "golden/a/slice.yaml": b"slice: country=DE\n"}
    | {"golden/b/accepted.yaml": b"- {cases: [9], reason: r, by: b, weights: w}\n"}
    | {"golden/b/test_data_set_9/output_0.pb.new": b"12345", "golden/c/slice.yaml": b"slice: x=y\n"}
)


def test_each_case_has_a_name_and_a_place() -> None:
    assert golden_files.places(FOLDER, "golden") == {
        "a/7": "a/test_data_set_07", "b/9": "b/test_data_set_9", "b/10": "b/test_data_set_10",
    }  # fmt: skip
    assert list(golden_files.places(FOLDER, "golden")) == ["a/7", "b/9", "b/10"], "in the order they are read in"


def test_the_next_case_gets_a_number_nobody_has() -> None:
    places = golden_files.places(FOLDER, "golden")
    assert [golden_files.next_number(places, group) for group in ("a", "b", "c")] == [8, 11, 0]


def test_sizes_are_of_what_git_keeps_of_a_case() -> None:
    sizes = golden_files.sizes(FOLDER, "golden")
    whole = sum(len(FOLDER.read(f"golden/b/test_data_set_9/{name}_0.pb") or b"") for name in ("input", "output"))
    assert sizes == {"a/7": 3, "b/9": whole, "b/10": whole}


def test_slices_and_reasons_are_read_by_group() -> None:
    assert golden_files.slice_of(FOLDER, "golden", "a", "m") == Slice("country=DE")
    assert golden_files.slice_of(FOLDER, "golden", "b", "m") is None
    assert [entry.reason for entry in golden_files.accepted(FOLDER, "golden", "b", "m")] == ["r"]
    assert golden_files.accepted(FOLDER, "golden", "a", "m") == ()


def test_only_the_same_inputs_have_the_same_fingerprint() -> None:
    base = {"x": np.ones((1, 2), "float32"), "w": np.array(["a"], object)}
    same = golden_files.fingerprint(base)
    assert golden_files.fingerprint({"w": base["w"], "x": base["x"].copy()}) == same
    others = [
        {"x": np.ones((2, 1), "float32"), "w": base["w"]}, {"x": np.ones((1, 2), "float64"), "w": base["w"]},
        {"x": base["x"] * 2, "w": base["w"]}, {"x": base["x"], "w": np.array(["b"], object)}, {"x": base["x"]},
        {"x": base["x"], "v": base["w"]},
    ]  # fmt: skip
    assert len({same, *map(golden_files.fingerprint, others)}) == len(others) + 1


@pytest.mark.parametrize("name", ["held-out", "country=DE", "a.b_c", "7", "x" * 100])
def test_a_group_is_named_like_a_file(name: str) -> None:
    assert golden_files.check_group(name) == name


@pytest.mark.parametrize("name", ["", ".", "..", ".hidden", "a/b", "a b", "-x", "x" * 101, "a\n", "ü", "a\\b"])
def test_what_would_be_another_folder_is_no_group(name: str) -> None:
    with pytest.raises(InvalidGolden, match="is no name for a group"):
        golden_files.check_group(name)


def test_more_than_git_should_have_is_refused() -> None:
    golden_files.check_total("fraud", 256, 32 << 20)
    with pytest.raises(InvalidGolden, match=r"fraud would have 257 golden cases, and 256 is the most: .*--limit"):
        golden_files.check_total("fraud", 257, 0)
    with pytest.raises(InvalidGolden, match="golden cases of fraud would be 33 MiB, and 32 MiB is the most"):
        golden_files.check_total("fraud", 1, 33 << 20)


def recorded(root: Path, value: float, *, name: str = "x") -> None:
    """What a server writes for one request; tensors without a name, where that is ''."""
    root.mkdir(parents=True)
    (root / "input_0.pb").write_bytes(
        numpy_helper.from_array(np.full((1, 2), value, "float32"), name).SerializeToString()
    )
    output = numpy_helper.from_array(np.full(1, value, "float32"), name and "y")
    (root / "output_0.pb").write_bytes(output.SerializeToString())


@pytest.mark.parametrize("below", ["", "fraud", "fraud/v1.0.0"])
def test_recorded_requests_are_read_from_any_folder_above_them(tmp_path: Path, below: str) -> None:
    for number in (10, 9):
        recorded(tmp_path / "fraud" / "v1.0.0" / f"test_data_set_{number}", number)
    recorded(tmp_path / "other" / "v1.0.0" / "test_data_set_0", 0)
    found = list(golden_files.traffic(tmp_path / below, "fraud", SIGNATURE))
    assert [float(tensors["y"][0]) for _, tensors in found] == [9.0, 10.0]
    assert found[0][0] == str(tmp_path / "fraud" / "v1.0.0" / "test_data_set_9")


def test_one_recorded_request_may_be_named_and_its_tensors_bind_by_index(tmp_path: Path) -> None:
    recorded(tmp_path / "test_data_set_3", 3, name="")
    recorded(tmp_path / "test_data_set_4", 4)
    ((_, tensors),) = golden_files.traffic(tmp_path / "test_data_set_3", "fraud", SIGNATURE)
    assert sorted(tensors) == ["x", "y"]
    extra = onnx.TensorProto(data_type=1, dims=[0])
    (tmp_path / "test_data_set_3" / "input_1.pb").write_bytes(extra.SerializeToString())
    ((_, tensors),) = golden_files.traffic(tmp_path / "test_data_set_3", "fraud", SIGNATURE)
    assert "#1" in tensors


def test_where_nothing_is_recorded_it_says_how_to(tmp_path: Path) -> None:
    for folder in (tmp_path, tmp_path / "nowhere"):
        with pytest.raises(InvalidGolden, match=r"has no recorded requests of 'fraud': 'gitmodel serve --record"):
            list(golden_files.traffic(folder, "fraud", SIGNATURE))


def test_a_damaged_request_is_named_by_its_file(tmp_path: Path) -> None:
    recorded(tmp_path / "test_data_set_3", 3)
    (tmp_path / "test_data_set_3" / "output_0.pb").write_bytes(b"\xff")
    with pytest.raises(InvalidModel, match=r"test_data_set_3/output_0\.pb is no tensor"):
        list(golden_files.traffic(tmp_path, "fraud", SIGNATURE))
