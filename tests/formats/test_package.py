"""The table of formats: a file's ending picks the module that reads it."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

import numpy as np
import pytest

from gitmodel import formats
from gitmodel.formats.source import InvalidModel, Source, TensorData
from tests import support
from tests.formats import building


def test_every_format_of_the_table_reads_and_writes() -> None:
    for modules in formats.FORMATS.values():
        assert callable(import_module(modules.reader).read)
        assert not modules.writer or callable(import_module(modules.writer).write)


@pytest.mark.parametrize("name", ["model.onnx", "MODEL.ONNX"])
def test_an_onnx_file_is_read_as_onnx(tmp_path: Path, name: str) -> None:
    source = formats.read(building.write_onnx(tmp_path / name, support.linear_model()))
    assert source.format == "onnx"
    assert set(building.by_name(source)) == {"weight", "bias"}


@pytest.mark.parametrize("name", ["model.h5", "model.hdf5", "MODEL.H5"])
def test_an_hdf5_file_is_read_as_hdf5(tmp_path: Path, name: str) -> None:
    source = formats.read(building.write_h5(tmp_path / name, lambda file: file.create_dataset("w", data=np.ones(3))))
    assert source.format == "hdf5"
    assert set(building.by_name(source)) == {"w"}


def test_an_unknown_ending_is_refused_with_the_known_ones(tmp_path: Path) -> None:
    (tmp_path / "model.pkl").write_bytes(b"x")
    with pytest.raises(InvalidModel, match=r"model\.pkl has an unknown ending: known: \.onnx, \.h5, \.hdf5, \.safeten"):
        formats.read(tmp_path / "model.pkl")


@pytest.mark.parametrize("name", ["model.safetensors", "MODEL.NPZ", "a.b.npz"])
def test_the_ending_picks_the_writer_and_the_reader(tmp_path: Path, name: str) -> None:
    source = Source("x", "", (TensorData("w", "int8", (2,), memoryview(b"ab")),))
    assert formats.write(source, tmp_path / name) == (tmp_path / name,)
    assert formats.read(tmp_path / name).format == name.lower().rpartition(".")[2]


@pytest.mark.parametrize("name", ["model.pkl", "model", "model.safetensors.index.json"])
def test_an_ending_that_is_not_written_is_refused_with_those_that_are(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidModel, match=rf"{name} has an ending that is not written: known: .*, \.npz$"):
        formats.write(Source("x", "", ()), tmp_path / name)
    assert not list(tmp_path.iterdir())


def test_of_a_missing_file_its_absence_is_said_and_not_its_ending(tmp_path: Path) -> None:
    with pytest.raises(InvalidModel, match="there is no file"):
        formats.read(tmp_path / "model.pkl")


def test_a_dvc_pointer_beside_the_model_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.onnx.dvc").write_text("outs:\n- md5: d41d8cd98f00b204e9800998ecf8427e\n  path: model.onnx\n")
    with pytest.raises(InvalidModel, match="DVC pointer"):
        formats.read(tmp_path / "model.onnx.dvc")
