"""Writing ONNX: one file with everything inside, streamed; two where protobuf's limit would be passed."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from gitmodel import formats
from gitmodel.formats import binding, onnx_export, wire
from gitmodel.formats.source import InvalidModel, OtherBytes, Source, TensorData
from tests import support
from tests.formats import building, keeping
from tests.formats.building import large, write_h5, write_onnx
from tests.formats.keeping import kept
from tests.workflows import state

#: The model of ``support.wide_model`` is larger than this.
SMALL_LIMIT = 100_000


def nested() -> onnx.ModelProto:
    """``y = x @ w`` with a large ``w`` from whichever branch runs, and a large constant."""

    def branch(seed: int) -> onnx.GraphProto:
        out = support.value_info("b", "float32", [building.LARGE, building.LARGE])
        held = [numpy_helper.from_array(large(seed), "inner")]
        return helper.make_graph([helper.make_node("Identity", ["inner"], ["b"])], "branch", [], [out], held)

    nodes = [
        helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(large(3), "value"), name="held"),
        helper.make_node("If", ["yes"], ["w"], then_branch=branch(1), else_branch=branch(2), name="choice"),
        helper.make_node("MatMul", ["x", "w"], ["h"]),
        helper.make_node("MatMul", ["h", "c"], ["y"]),
    ]
    sides = [
        [support.value_info("x", "float32", ["batch", building.LARGE]), support.value_info("yes", "bool", [])],
        [support.value_info("y", "float32", ["batch", building.LARGE])],
    ]
    return support.model(nodes, sides[0], sides[1])


def answers(path: Path, **inputs: np.ndarray) -> np.ndarray:
    values: np.ndarray = onnxruntime.InferenceSession(str(path)).run(None, inputs)[0]
    return values


def test_a_stored_model_is_written_as_one_file_that_needs_no_other(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "m.onnx", support.wide_model())
    (tmp_path / "out").mkdir()
    with kept(path, tmp_path) as source:
        assert onnx_export.write(source, tmp_path / "out" / "m.onnx") == (tmp_path / "out" / "m.onnx",)
    assert [file.name for file in (tmp_path / "out").iterdir()] == ["m.onnx"]
    assert (tmp_path / "out" / "m.onnx").read_bytes() == path.read_bytes()


def test_tensors_of_nested_graphs_and_attributes_are_written_inside(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "m.onnx", nested())
    with kept(path, tmp_path) as source:
        assert source.graph.ByteSize() < 10_000
        onnx_export.write(source, tmp_path / "back.onnx")
    assert (tmp_path / "back.onnx").read_bytes() == path.read_bytes()


def test_the_source_stays_as_it_is(tmp_path: Path) -> None:
    with kept(write_onnx(tmp_path / "m.onnx", nested()), tmp_path) as source:
        before = source.graph.SerializeToString(deterministic=True)
        onnx_export.write(source, tmp_path / "one.onnx")
        onnx_export.write(source, tmp_path / "two.onnx", limit=SMALL_LIMIT)
        onnx_export.write(source, tmp_path / "again.onnx")
        assert source.graph.SerializeToString(deterministic=True) == before
    assert (tmp_path / "one.onnx").read_bytes() == (tmp_path / "again.onnx").read_bytes()


@pytest.mark.parametrize("name", ["m.onnx", "odd name %2F é.onnx"])
def test_what_would_pass_the_limit_is_written_as_two_files(tmp_path: Path, name: str) -> None:
    path = write_onnx(tmp_path / "m-one.onnx", nested())
    target = tmp_path / "out" / name
    target.parent.mkdir()
    with kept(path, tmp_path) as source:
        written = onnx_export.write(source, target, limit=SMALL_LIMIT)
    assert written == (target, target.with_name(f"{name}.data"))
    assert sorted(file.name for file in target.parent.iterdir()) == sorted(file.name for file in written)
    keeping.assert_same_model(onnx.load(str(target)), onnx.load(str(path)))
    x = np.random.default_rng(1).normal(size=(2, building.LARGE)).astype("float32")
    for yes in (True, False):
        inputs = {"x": x, "yes": np.array(yes)}
        np.testing.assert_array_equal(answers(target, **inputs), answers(path, **inputs))


def test_bytes_that_have_gone_bad_leave_in_none_of_two_files(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "m.onnx", support.wide_model())
    (tmp_path / "out").mkdir()
    with kept(path, tmp_path) as source:
        state.rot(next((source.folder / "tensors").iterdir()))
        with pytest.raises(OtherBytes, match=r"tensors/.* has other bytes than weights\.lock says"):
            onnx_export.write(source, tmp_path / "out" / "two.onnx", limit=SMALL_LIMIT)
    assert list((tmp_path / "out").iterdir()) == []


def test_the_tensors_of_the_second_file_can_be_mapped(tmp_path: Path) -> None:
    with kept(write_onnx(tmp_path / "m.onnx", support.wide_model(tensors=3)), tmp_path) as source:
        path, data = onnx_export.write(source, tmp_path / "two.onnx", limit=SMALL_LIMIT)
    places = []
    for tensor in onnx.load(str(path), load_external_data=False).graph.initializer:
        entries = {entry.key: entry.value for entry in tensor.external_data}
        assert entries["location"] == data.name
        places.append((int(entries["offset"]), int(entries["length"])))
        assert not tensor.HasField("raw_data")
    assert [offset % onnx_export.ALIGNMENT for offset, _ in places] == [0, 0, 0]
    assert sum(places[-1]) == data.stat().st_size


def test_two_files_are_read_again_as_the_model_they_were(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "m.onnx", nested())
    with kept(path, tmp_path) as source:
        two, _ = onnx_export.write(source, tmp_path / "two.onnx", limit=SMALL_LIMIT)
    with kept(two, tmp_path / "again") as source:
        onnx_export.write(source, tmp_path / "one.onnx")
    assert (tmp_path / "one.onnx").read_bytes() == path.read_bytes()


def test_the_limit_is_that_of_protobuf(tmp_path: Path) -> None:
    """One byte more than the file has is the least limit under which it stays one file."""
    path = write_onnx(tmp_path / "m.onnx", support.wide_model())
    size = path.stat().st_size
    assert wire.MAX_BYTES == (2 << 30) - 1
    with closing(formats.read(path)) as source:
        assert len(onnx_export.write(source, tmp_path / "one.onnx", limit=size)) == 1
        assert len(onnx_export.write(source, tmp_path / "two.onnx", limit=size - 1)) == 2


def test_a_model_that_was_only_read_is_written_alike(tmp_path: Path) -> None:
    path = write_onnx(tmp_path / "m.onnx", nested())
    outside = tmp_path / "outside.onnx"
    onnx.save_model(nested(), str(outside), save_as_external_data=True, location="w.bin", convert_attribute=True)
    for given in (path, outside):
        with closing(formats.read(given)) as source:
            onnx_export.write(source, tmp_path / "out.onnx")
        assert (tmp_path / "out.onnx").read_bytes() == path.read_bytes()


def test_a_graph_with_weights_of_its_own_file_is_written_whole(tmp_path: Path) -> None:
    graph = formats.read(write_onnx(tmp_path / "graph.onnx", building.matmul(inputs=("w",))))
    with closing(
        formats.read(write_h5(tmp_path / "w.h5", lambda file: file.create_dataset("w", data=large())))
    ) as held:
        source = binding.bind(graph, held, "graph.onnx")
        onnx_export.write(source, tmp_path / "direct.onnx")
        folder, lock = keeping.keep(source, tmp_path)
    from gitmodel.formats import stored

    with closing(stored.read(folder, lock)) as back:
        onnx_export.write(back, tmp_path / "stored.onnx")
    x = np.eye(building.LARGE, dtype="float32")
    for name in ("direct.onnx", "stored.onnx"):
        np.testing.assert_array_equal(state.initializers(tmp_path / name)["w"], large())
        np.testing.assert_allclose(answers(tmp_path / name, x=x), large(), rtol=1e-6)


def test_a_compressed_tensor_is_written_as_it_is_worth(tmp_path: Path) -> None:
    graph = formats.read(write_onnx(tmp_path / "graph.onnx", building.matmul(inputs=("w",))))
    packed = write_h5(
        tmp_path / "w.h5", lambda file: file.create_dataset("w", data=large(), chunks=(40, 40), compression="gzip")
    )
    with closing(formats.read(packed)) as held:
        folder, lock = keeping.keep(binding.bind(graph, held, "graph.onnx"), tmp_path)
    from gitmodel.formats import stored

    with closing(stored.read(folder, lock)) as back:
        onnx_export.write(back, tmp_path / "out.onnx")
    np.testing.assert_array_equal(state.initializers(tmp_path / "out.onnx")["w"], large())


# What is refused ------------------------------------------------------------------------------------------------------


def test_weights_without_a_graph_are_refused_and_nothing_is_written(tmp_path: Path) -> None:
    source = Source("hdf5", "", (TensorData("w", "int8", (1,), memoryview(b"a")),))
    with pytest.raises(InvalidModel, match=r"out\.onnx cannot hold this model: ONNX needs a graph") as caught:
        onnx_export.write(source, tmp_path / "out.onnx")
    assert ".safetensors" in caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_a_graph_that_lacks_its_weights_is_refused(tmp_path: Path) -> None:
    model = building.matmul(weights={"w": large()})
    building.point_outside(model.graph.initializer[0], location="gone.bin", offset=0)
    with (
        closing(formats.read(write_onnx(tmp_path / "m.onnx", model))) as source,
        pytest.raises(InvalidModel, match="tensor 'w' has no data"),
    ):
        onnx_export.write(source, tmp_path / "out.onnx")
    assert not (tmp_path / "out.onnx").exists()


def test_no_mark_of_the_writer_is_left_in_the_file(tmp_path: Path) -> None:
    with kept(write_onnx(tmp_path / "m.onnx", nested()), tmp_path) as source:
        for name, limit in (("one.onnx", wire.MAX_BYTES), ("two.onnx", SMALL_LIMIT)):
            for file in onnx_export.write(source, tmp_path / name, limit=limit):
                assert wire.CUT_KEY.encode() not in file.read_bytes()
