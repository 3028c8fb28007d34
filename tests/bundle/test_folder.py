"""Folders a bundle is read from: on disk and in memory they answer alike, and neither leaves its root."""

from __future__ import annotations

from pathlib import Path

import pytest

from gitmodel.bundle.folder import DiskFolder, Folder, MemoryFolder

CONTENTS = {"model.yaml": b"name: a\n", "golden/b/test_data_set_0/input_0.pb": b"\0", "golden/a": b"", "goldens": b"1"}


@pytest.fixture(params=["disk", "memory"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Folder:
    if request.param == "memory":
        return MemoryFolder(CONTENTS)
    for path, data in CONTENTS.items():
        (tmp_path / "bundle" / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "bundle" / path).write_bytes(data)
    return DiskFolder(tmp_path / "bundle")


def test_a_file_is_read_and_a_missing_one_is_none(folder: Folder) -> None:
    assert folder.read("model.yaml") == b"name: a\n"
    assert folder.read("golden/a") == b""
    assert folder.read("golden") is None
    assert folder.read("none") is None


def test_files_are_sorted_and_a_prefix_is_a_folder(folder: Folder) -> None:
    assert folder.files() == sorted(CONTENTS)
    assert folder.files("golden") == ["golden/a", "golden/b/test_data_set_0/input_0.pb"]
    assert folder.files("none") == []


def test_symbolic_links_are_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "secret").write_text("s")
    root = tmp_path / "bundle"
    root.mkdir()
    (root / "file").symlink_to(outside / "secret")
    (root / "golden").symlink_to(outside)
    (root / "dangling").symlink_to(tmp_path / "nothing")
    folder = DiskFolder(root)
    assert folder.read("file") is None
    assert folder.read("golden/secret") is None
    assert folder.read("dangling") is None
    assert folder.files() == []
    assert folder.files("golden") == []
