"""Mapping a file, and telling a model from what only looks like one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gitmodel.formats import hdf5
from gitmodel.formats.source import InvalidModel, Source, first_line, map_file
from tests.formats import building

LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"0" * 64 + b"\nsize 12345\n"
DVC = b"outs:\n- md5: d41d8cd98f00b204e9800998ecf8427e.dir\n  size: 12\n  hash: md5\n  path: model.onnx\n"


def test_the_bytes_of_a_file_are_mapped(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(bytes(range(256)))
    assert map_file(path) == bytes(range(256))
    assert map_file(path).readonly


@pytest.mark.parametrize(
    ("data", "what", "mend"),
    [
        (b"", "is empty", "export the model again"),
        (LFS, "is a Git LFS pointer, not a model", "git lfs pull"),
        (DVC, "is a DVC pointer, not a model", "dvc pull"),
        (DVC.replace(b"\n", b"\r\n"), "is a DVC pointer, not a model", "dvc pull"),
    ],
)
def test_what_is_no_model_is_named_with_its_mend(tmp_path: Path, data: bytes, what: str, mend: str) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(data)
    with pytest.raises(InvalidModel, match=f"model.onnx {what}.*{mend}"):
        map_file(path)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidModel, match=r"there is no file .*none\.onnx"):
        map_file(tmp_path / "none.onnx")
    with pytest.raises(InvalidModel, match="is not a file"):
        map_file(tmp_path)


def test_a_pipe_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "model.onnx")
    with pytest.raises(InvalidModel, match="is not a file"):
        map_file(tmp_path / "model.onnx")


def test_links_in_a_circle_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").symlink_to("b.onnx")
    (tmp_path / "b.onnx").symlink_to("a.onnx")
    with pytest.raises(InvalidModel, match="cannot be read"):
        map_file(tmp_path / "a.onnx")


def test_a_closed_source_lets_go_of_the_file_and_keeps_its_tensors(tmp_path: Path) -> None:
    source = hdf5.read(
        building.write_h5(tmp_path / "model.h5", lambda file: file.create_dataset("w", data=building.large()))
    )
    source.close()
    assert not source.groups
    assert source.tensors[0].data == building.large().tobytes()
    Source("onnx", "", ()).close()


def test_of_what_a_library_said_one_line_is_kept() -> None:
    assert first_line(ValueError("bad\nworse")) == "bad"
    assert first_line(KeyError()) == "KeyError"
