"""gitmodel.files: a file is the old one or the new one, and a refusal is one error that names it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from gitmodel.files import StorageFailed, copy_file, fsync_folder, replace_file, storing
from tests import support

_LIMITED_COPY = """
import resource, sys
from pathlib import Path
from gitmodel.files import StorageFailed, copy_file
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    copy_file(Path(sys.argv[1]), Path(sys.argv[2]), 0o644)
except StorageFailed as error:
    sys.exit(f"refused: {error.message}")
"""


def other_file_system(tmp_path: Path) -> Path:
    """A folder that is not on the file system of ``tmp_path``."""
    shared = Path("/dev/shm")
    if not os.access(shared, os.W_OK) or shared.stat().st_dev == tmp_path.stat().st_dev:
        pytest.skip("needs a second file system")
    return shared


def test_a_file_is_written_with_its_folders_and_mode(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "card.yaml"
    assert replace_file(path, b"one", 0o600)
    assert path.read_bytes() == b"one"
    assert path.stat().st_mode & 0o777 == 0o600


def test_equal_bytes_are_not_written_again(tmp_path: Path) -> None:
    path = tmp_path / "card.yaml"
    replace_file(path, b"one")
    before = support.identity(path)
    assert not replace_file(path, b"one")
    assert support.identity(path) == before
    assert replace_file(path, b"two")
    assert support.identity(path) != before


def test_a_symbolic_link_is_replaced_not_followed(tmp_path: Path) -> None:
    victim, path = tmp_path / "victim", tmp_path / "card.yaml"
    victim.write_bytes(b"keep")
    path.symlink_to(victim)
    assert replace_file(path, b"keep")
    assert not path.is_symlink()
    copied = tmp_path / "copied"
    copied.symlink_to(victim)
    copy_file(path, copied, 0o644)
    assert not copied.is_symlink()
    assert victim.read_bytes() == b"keep"


def test_a_refusal_leaves_no_temporary_file(tmp_path: Path) -> None:
    folder, source = tmp_path / "taken", tmp_path / "source"
    (folder / "inside").mkdir(parents=True)
    source.write_bytes(b"x")
    with pytest.raises(StorageFailed, match="taken"):
        replace_file(folder, b"x")
    with pytest.raises(StorageFailed, match="taken"):
        copy_file(source, folder, 0o644)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["source", "taken"]


def test_a_folder_that_is_a_file_is_a_refusal(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(StorageFailed) as caught:
        replace_file(tmp_path / "file" / "card.yaml", b"x")
    assert caught.value.code == "storage-failed"
    assert caught.value.exit_code == 3


def test_only_the_operating_systems_refusals_are_turned(tmp_path: Path) -> None:
    with pytest.raises(StorageFailed, match="cannot write the thing"), storing("the thing"):
        raise PermissionError(13, "Permission denied")
    with pytest.raises(ValueError, match="no"), storing("the thing"):
        raise ValueError("no")


@pytest.mark.parametrize("size", [0, 1, (1 << 20) + 7])
def test_a_copy_has_the_same_bytes_and_the_mode_asked_for(tmp_path: Path, size: int) -> None:
    source, target = tmp_path / "source", tmp_path / "deep" / "target"
    source.write_bytes(os.urandom(size))
    copy_file(source, target, 0o444)
    assert target.read_bytes() == source.read_bytes()
    assert target.stat().st_mode & 0o777 == 0o444


def test_a_copy_between_file_systems_has_the_same_bytes(tmp_path: Path) -> None:
    source = other_file_system(tmp_path) / f"gitmodel-test-{os.getpid()}"
    try:
        source.write_bytes(os.urandom((1 << 20) + 7))
        copy_file(source, tmp_path / "target", 0o644)
        assert (tmp_path / "target").read_bytes() == source.read_bytes()
    finally:
        source.unlink()


def test_a_copy_of_what_is_not_there_names_the_target(tmp_path: Path) -> None:
    with pytest.raises(StorageFailed, match="target"):
        copy_file(tmp_path / "absent", tmp_path / "target", 0o644)
    assert list(tmp_path.iterdir()) == []


def test_a_copy_that_finds_no_room_leaves_the_old_file(tmp_path: Path) -> None:
    source, target = tmp_path / "source", tmp_path / "target"
    source.write_bytes(b"n" * 5000)
    target.write_bytes(b"old")
    command = [sys.executable, "-c", _LIMITED_COPY, str(source), str(target)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.stderr.startswith("refused: cannot write"), done.stderr
    assert target.read_bytes() == b"old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["source", "target"]


def test_a_folder_can_be_made_durable_and_a_file_is_none(tmp_path: Path) -> None:
    fsync_folder(tmp_path)
    (tmp_path / "file").write_bytes(b"x")
    with pytest.raises(NotADirectoryError):
        fsync_folder(tmp_path / "file")
