"""A bundle's weights read back: every tensor of the lock from the file it stands in, and nothing but the lock's files."""

from __future__ import annotations

import shutil
from contextlib import closing
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import onnx
import pytest
from msgspec.structs import replace
from onnx import helper, numpy_helper

from gitmodel import formats
from gitmodel.bundle.lock import FileEntry, Lock, TensorEntry
from gitmodel.formats import binding, stored
from gitmodel.formats.dtypes import ONNX_DTYPES, nbytes
from gitmodel.formats.source import InvalidModel, Source, TensorData
from tests import support
from tests.formats import building, keeping
from tests.formats.building import by_name, large, write_h5, write_onnx
from tests.formats.keeping import keep, kept, values


def entry(lock: Lock, name: str) -> TensorEntry:
    return next(tensor for tensor in lock.tensors if tensor.name == name)


def changed(lock: Lock, name: str, **fields: Any) -> Lock:
    """The lock with another entry for one tensor."""
    return Lock.of([replace(t, **fields) if t.name == name else t for t in lock.tensors], lock.files)


def packed(path: Path) -> Path:
    """A checkpoint with a compressed, a chunked and a big-endian tensor of their own files, and a plain one."""

    def build(file: Any) -> None:
        file.create_dataset("zipped", data=large(1), chunks=(40, 40), compression="gzip", shuffle=True)
        file.create_dataset("chunked", data=large(2), chunks=(100, 7))
        file.create_dataset("deep/swapped", data=large(3).astype(">f4"))
        file.create_dataset("plain", data=large(4))
        file.create_dataset("small", data=np.arange(6, dtype=">i2").reshape(2, 3))
        file.create_dataset("tiny", data=np.float64(0.5))

    return write_h5(path, build)


# What comes back ------------------------------------------------------------------------------------------------------


def test_what_was_stored_from_onnx_comes_back_mapped(tmp_path: Path) -> None:
    weights = {"w": large(), "small": np.arange(3, dtype="int64")}
    model = building.matmul(weights=weights)
    path = write_onnx(tmp_path / "m.onnx", model)
    with kept(path, tmp_path) as source, closing(formats.read(path)) as original:
        assert values(source) == values(original)
        assert (source.format, source.framework, source.signature) == ("onnx", "", original.signature)
        assert by_name(source)["w"].data.readonly
        (pointer,) = [t for t in source.graph.graph.initializer if t.data_location == onnx.TensorProto.EXTERNAL]
        assert {e.key: e.value for e in pointer.external_data}["location"] == "tensors/w.h5"


def test_what_was_stored_from_hdf5_comes_back_with_its_groups(tmp_path: Path) -> None:
    path = packed(tmp_path / "m.h5")
    with kept(path, tmp_path) as source, closing(formats.read(path)) as original:
        assert values(source) == values(original)
        assert (source.graph, source.signature) == (None, None)
        assert sorted(source.groups) == ["chunked", "deep", "plain", "small", "tiny", "zipped"]
        assert {t.name for t in source.tensors if t.stored is not None} == {"zipped", "chunked", "deep/swapped"}


def test_a_packed_tensor_is_decoded_when_it_is_asked_for(tmp_path: Path) -> None:
    with kept(packed(tmp_path / "m.h5"), tmp_path) as source:
        tensors = by_name(source)
        (tmp_path / "weights" / "tensors" / "zipped.h5").unlink()
        assert bytes(tensors["chunked"].data) == large(2).tobytes()
        assert tensors["chunked"].data is tensors["chunked"].data
        with pytest.raises(InvalidModel, match=r"there is no file .*zipped\.h5"):
            tensors["zipped"].data  # noqa: B018  # the property decodes it


def test_every_type_of_onnx_comes_back_small_and_large(tmp_path: Path) -> None:
    model = support.linear_model()
    for number, dtype in sorted(ONNX_DTYPES.items()):
        if dtype == "string":
            continue
        for name, shape in (
            (f"{dtype}/small", (3,)),
            (f"{dtype}/large", (530_001 // nbytes(dtype, (8,)) + 1,)),
            (f"{dtype}/scalar", ()),
        ):
            size = nbytes(dtype, shape)
            body = np.random.default_rng(number).integers(0, 2 if dtype == "bool" else 256, size, dtype="uint8")
            model.graph.initializer.append(
                onnx.TensorProto(name=name, data_type=number, dims=shape, raw_data=body.tobytes())
            )
    path = write_onnx(tmp_path / "m.onnx", model)
    with kept(path, tmp_path) as source, closing(formats.read(path)) as original:
        assert values(source) == values(original)
        folder, lock = tmp_path / "weights", keep(original, tmp_path)[1]
        for tensor in lock.tensors:
            alone = stored.tensor(folder, tensor)
            assert (alone.dtype, alone.shape, bytes(alone.data)) == values(source)[tensor.name]


def test_texts_come_back_with_their_nul_and_bytes_that_are_no_text(tmp_path: Path) -> None:
    model = support.linear_model()
    for name, texts in (("words", [b"a\0b", b"", b"\xff", "é".encode()]), ("none", []), ("many", [b"x" * 90] * 1000)):
        tensor = onnx.TensorProto(name=name, data_type=onnx.TensorProto.STRING, dims=[len(texts)])
        tensor.string_data.extend(texts)
        model.graph.initializer.append(tensor)
    path = write_onnx(tmp_path / "m.onnx", model)
    with kept(path, tmp_path) as source, closing(formats.read(path)) as original:
        assert values(source) == values(original)
        _, lock = keep(original, tmp_path)
        for name in ("words", "none", "many"):
            alone = stored.tensor(tmp_path / "weights", entry(lock, name))
            assert bytes(alone.data) == values(source)[name][2]


def test_names_that_are_no_paths_or_in_each_others_way_come_back(tmp_path: Path) -> None:
    names = ["", ".", "..", "a", "a/b", "a%2Fb", "a//b", "/a", "a\0b", "%", "a/b/c", "É", "é"]
    model = building.matmul(weights={"w": large()})
    for number, name in enumerate(names):
        model.graph.initializer.append(numpy_helper.from_array(np.array([number, 7]), name))
        model.graph.initializer.append(numpy_helper.from_array(large(number), f"{name}/large"))
    path = write_onnx(tmp_path / "m.onnx", model)
    with kept(path, tmp_path) as source, closing(formats.read(path)) as original:
        assert values(source) == values(original)
        _, lock = keep(original, tmp_path)
        for name in [tensor.name for tensor in original.tensors]:
            assert bytes(stored.tensor(tmp_path / "weights", entry(lock, name)).data) == values(original)[name][2]


def test_what_the_users_file_has_in_a_tensors_place_is_not_taken_for_it(tmp_path: Path) -> None:
    """A text of the HDF5 file stands where the graph's tensor of the same name would."""
    words = onnx.TensorProto(name="words", data_type=onnx.TensorProto.STRING, dims=[1], string_data=[b"graph"])
    model = building.matmul(inputs=("w",))
    model.graph.initializer.append(words)

    def build(file: Any) -> None:
        file["w"] = large()
        file.create_dataset("words", data=np.array(["file"], dtype=object), dtype=h5py.string_dtype())

    graph = formats.read(write_onnx(tmp_path / "m.onnx", model))
    with closing(formats.read(write_h5(tmp_path / "m.h5", build))) as weights:
        folder, lock = keep(binding.bind(graph, weights, "m.onnx"), tmp_path)
    assert bytes(stored.tensor(folder, entry(lock, "words")).data) == b"graph"


def test_a_graph_bound_to_weights_of_other_names_finds_them_again(tmp_path: Path) -> None:
    model = support.model(
        [helper.make_node("MatMul", ["x", "dense.kernel"], ["h"]), helper.make_node("Add", ["h", "dense.bias"], ["y"])],
        [
            support.value_info("x", "float32", ["batch", building.LARGE]),
            support.value_info("dense.kernel", "float32", [building.LARGE, building.LARGE]),
        ],
        [support.value_info("y", "float32", ["batch", building.LARGE])],
        {"dense.bias": np.zeros(building.LARGE, "float32"), "own": large(5)},
    )
    graph = formats.read(write_onnx(tmp_path / "m.onnx", model))
    contents = {"dense/kernel": large(), "dense/bias": np.ones(building.LARGE, "float32"), "optimizer/m": large(6)}

    def build(file: Any) -> None:
        for name, array in contents.items():
            file[name] = array
        file["dense/kernel"].attrs["unit"] = "kept"

    with closing(formats.read(write_h5(tmp_path / "m.h5", build))) as weights:
        source = binding.bind(graph, weights, "m.onnx")
        folder, lock = keep(source, tmp_path)
        expected = values(source)
    with closing(stored.read(folder, lock)) as back:
        assert values(back) == expected
        assert back.bound_names == {"dense/kernel": "dense.kernel", "dense/bias": "dense.bias"}
        assert bytes(by_name(back)["dense/bias"].data) == contents["dense/bias"].tobytes()


def test_metadata_and_framework_come_back(tmp_path: Path) -> None:
    tensors = (TensorData("w", "int8", (2,), memoryview(b"ab")),)
    folder, lock = keep(Source("safetensors", "", tensors, metadata={"format": "pt"}), tmp_path)
    with closing(stored.read(folder, lock)) as back:
        assert back.metadata == {"format": "pt"}
    keras = write_h5(tmp_path / "k.h5", lambda file: file.attrs.update(keras_version="3"))
    with kept(keras, tmp_path / "k") as source:
        assert (source.framework, source.tensors) == ("keras", ())


# Only what is asked for -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "file"), [("w", "tensors/w.h5"), ("small", "weights.h5")])
def test_one_tensor_needs_no_file_but_its_own(tmp_path: Path, name: str, file: str) -> None:
    model = building.matmul(weights={"w": large(), "small": np.arange(3), "other": large(1)})
    with closing(formats.read(write_onnx(tmp_path / "m.onnx", model))) as source:
        folder, lock = keep(source, tmp_path)
        expected = bytes(by_name(source)[name].data)
    for path in [path for path in folder.rglob("*.*") if path.relative_to(folder).as_posix() != file]:
        path.unlink()
    assert bytes(stored.tensor(folder, entry(lock, name)).data) == expected


def test_a_tensor_outlives_its_folder(tmp_path: Path) -> None:
    with closing(formats.read(packed(tmp_path / "m.h5"))) as source:
        folder, lock = keep(source, tmp_path)
        expected = values(source)
    found = [stored.tensor(folder, tensor) for tensor in lock.tensors]
    bodies = [tensor.data for tensor in found]
    shutil.rmtree(tmp_path / "cache")
    shutil.rmtree(folder)
    assert {tensor.name: bytes(body) for tensor, body in zip(found, bodies, strict=True)} == {
        name: body for name, (_, _, body) in expected.items()
    }


# What is refused ------------------------------------------------------------------------------------------------------


@pytest.fixture
def weights(tmp_path: Path) -> tuple[Path, Lock]:
    """A folder with a graph, a large tensor ``w`` and a small one, ``small``."""
    model = building.matmul(weights={"w": large(), "small": np.arange(3)})
    with closing(formats.read(write_onnx(tmp_path / "m.onnx", model))) as source:
        return keep(source, tmp_path)


@pytest.mark.parametrize(
    ("name", "fields"),
    [("w", {"dtype": "int32"}), ("w", {"shape": (160, 80)}), ("small", {"shape": (4,)}), ("small", {"dtype": "uint8"})],
)
def test_a_lock_that_says_otherwise_is_refused(weights: tuple[Path, Lock], name: str, fields: dict[str, Any]) -> None:
    folder, lock = weights
    wrong = changed(lock, name, **fields)
    with pytest.raises(InvalidModel, match=name):
        stored.read(folder, wrong)
    with pytest.raises(InvalidModel, match=name):
        stored.tensor(folder, entry(wrong, name))


def test_a_small_tensor_of_other_bytes_is_refused(weights: tuple[Path, Lock]) -> None:
    folder, lock = weights
    wrong = changed(lock, "small", sha256="0" * 64)
    with pytest.raises(InvalidModel, match=r"weights\.h5 has no 'small' with the bytes of the lock"):
        stored.tensor(folder, entry(wrong, "small"))


def test_a_tensor_that_the_lock_does_not_name_is_refused(weights: tuple[Path, Lock]) -> None:
    folder, lock = weights
    with pytest.raises(InvalidModel, match=r"model\.onnx has a tensor 'small' that is not in the lock"):
        stored.read(folder, Lock.of([entry(lock, "w")], lock.files))


def test_a_file_that_the_lock_does_not_name_is_not_opened(weights: tuple[Path, Lock]) -> None:
    folder, lock = weights
    files = [file for file in lock.files if file.path != "tensors/w.h5"]
    with pytest.raises(InvalidModel, match=r"'w' is in tensors/w\.h5, which is not in the lock"):
        stored.read(folder, Lock.of(lock.tensors, files))


def test_a_missing_file_is_named(weights: tuple[Path, Lock]) -> None:
    folder, lock = weights
    (folder / "weights.h5").unlink()
    with pytest.raises(InvalidModel, match=r"there is no file .*weights\.h5"):
        stored.read(folder, lock)
    (folder / "tensors" / "w.h5").unlink()
    with pytest.raises(InvalidModel, match=r"there is no file .*w\.h5"):
        stored.tensor(folder, entry(lock, "w"))


def replaced(folder: Path, file: str, build: Any) -> None:
    (folder / file).unlink()
    write_h5(folder / file, build)


@pytest.mark.parametrize(
    "build",
    [
        lambda file: None,
        lambda file: file.create_group("data"),
        lambda file: file.create_dataset("data", data="text"),
        lambda file: file.__setitem__("data", h5py.SoftLink("/other")),
        lambda file: file.__setitem__("data", h5py.ExternalLink("elsewhere.h5", "/data")),
        lambda file: file.create_dataset("data", data=large().astype("float64")),
    ],
)
def test_a_file_that_is_no_tensor_file_is_refused(weights: tuple[Path, Lock], build: Any) -> None:
    folder, lock = weights
    write_h5(folder / "elsewhere.h5", lambda file: file.create_dataset("data", data=large()))
    replaced(folder, "tensors/w.h5", build)
    with pytest.raises(InvalidModel, match=r"w\.h5"):
        stored.tensor(folder, entry(lock, "w"))


def test_a_view_that_leads_elsewhere_is_not_followed(weights: tuple[Path, Lock], tmp_path: Path) -> None:
    folder, lock = weights
    write_h5(tmp_path / "secret.h5", lambda file: file.create_dataset("small", data=np.arange(3)))
    for link in (h5py.ExternalLink("../secret.h5", "/small"), h5py.SoftLink("/other")):

        def build(file: Any, link: Any = link) -> None:
            file["other"], file["small"] = np.arange(3), link

        replaced(folder, "weights.h5", build)
        with pytest.raises(InvalidModel, match="has no 'small'"):
            stored.tensor(folder, entry(lock, "small"))


def test_data_kept_in_another_file_are_refused(weights: tuple[Path, Lock], tmp_path: Path) -> None:
    folder, lock = weights
    (tmp_path / "raw.bin").write_bytes(large().tobytes())
    external = [(str(tmp_path / "raw.bin"), 0, large().nbytes)]
    replaced(folder, "tensors/w.h5", lambda file: file.create_dataset("data", large().shape, "f4", external=external))
    with pytest.raises(InvalidModel, match="keeps its data in another file"):
        stored.tensor(folder, entry(lock, "w"))


def test_damage_is_said_and_never_a_crash(weights: tuple[Path, Lock]) -> None:
    folder, lock = weights
    refused = 0
    for file in ("tensors/w.h5", "weights.h5"):
        whole = (folder / file).read_bytes()
        (folder / file).unlink()
        for data in building.damaged(whole[:4096], trials=60):
            (folder / file).write_bytes(data + whole[4096:])
            try:
                stored.read(folder, lock).close()
                stored.tensor(folder, entry(lock, "w"))
            except InvalidModel:
                refused += 1
        (folder / file).write_bytes(whole)
    assert 10 < refused < 120


def test_a_file_entry_without_its_tensor_is_no_harm(weights: tuple[Path, Lock]) -> None:
    folder, lock = weights
    extra = FileEntry("tensors/more.h5", 1, "0" * 64, "0" * 32)
    with closing(stored.read(folder, Lock.of(lock.tensors, [*lock.files, extra]))) as source:
        assert set(keeping.values(source)) == {"w", "small"}
