"""push, fetch, pull and checkout as commands: what they say, what they exit with, that a part is named right."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests import support
from tests.cli.command import Command
from tests.workflows import state


@pytest.fixture
def command(repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """A repository with one version of a model of two large tensors."""
    found = Command(repo, monkeypatch, capsys)
    (tmp_path / "wide.onnx").write_bytes(support.wide_model().SerializeToString())
    assert found("save", "fraud", tmp_path / "wide.onnx", "-m", "one", "--release", "auto")
    return found


def test_what_moved_is_counted(command: Command, repo: Path, tmp_path: Path) -> None:
    assert command("push").err == "5 objects sent to 'storage' (1 bundle is there)\n"
    assert command("push").err == "0 objects sent to 'storage' (1 bundle is there)\n"
    command.folder = state.clone(repo, tmp_path / "clone")
    assert command("fetch", "--tensor", "layer0/weight").err == (
        "1 object brought and verified (part of 1 bundle is here)\n"
    )
    assert command("fetch", "--view", "onnx").err == "2 objects brought and verified (part of 1 bundle is here)\n"
    assert command("fetch", "fraud@v1.0.0").err == "1 object brought and verified (1 bundle is here)\n"
    assert not (command.folder / "models" / "fraud" / "weights").exists()
    assert command("pull").err == "0 objects brought (1 bundle is here)\n"
    assert (command.folder / "models" / "fraud" / "weights" / "model.onnx").is_file()


@pytest.mark.parametrize("verb", ["push", "fetch", "pull"])
def test_a_remote_may_be_a_folder_named_from_here(command: Command, tmp_path: Path, verb: str) -> None:
    command("push")
    shutil.move(tmp_path / "storage", tmp_path / "mirror")
    shutil.rmtree(command.folder / ".dvc" / "cache" if verb != "push" else tmp_path / "mirror" / "files")
    assert command(verb).code == (3 if verb != "push" else 0)
    shutil.rmtree(tmp_path / "storage", ignore_errors=True)
    done = command(verb, "--remote", "../mirror")
    assert done
    assert not (tmp_path / "storage").exists()
    assert state.files(tmp_path / "mirror")


@pytest.mark.parametrize(
    ("args", "code", "said"),
    [
        (["fetch", "fraud@v9.0.0"], 2, "error[unknown-version]: fraud has no version 'v9.0.0'"),
        (["fetch", "--view", "tflite"], 2, "error[unknown-view]: there is no view 'tflite': name one of onnx, hdf5"),
        (
            ["fetch", "--tensor", "layer0/wieght"], 2,
            "error[unknown-tensor]: there is no tensor 'layer0/wieght' in fraud: near it: layer0/weight",
        ),
        (["fetch", "-r", "nowhere"], 2, "error[no-remote]: DVC knows no usable remote 'nowhere'"),
        (["pull", "-r", "ftp://host/x"], 2, "error[no-remote]: DVC takes no remote 'ftp://host/x'"),
        (["fetch", "-r", "http://127.0.0.1:9/x"], 3, "error[remote-failed]: the remote 'http://127.0.0.1:9/x' cannot be reached"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line(command: Command, args: list[str], code: int, said: str) -> None:
    shutil.rmtree(command.folder / ".dvc" / "cache")
    before = state.whole(command.folder)
    done = command(*args)
    assert (done.code, done.out) == (code, "")
    assert done.err.startswith(said)
    assert done.err.count("\n") == 1
    assert state.whole(command.folder) == before


def test_a_bare_repository_keeps_what_it_fetches_for_itself(
    command: Command, repo: Path, tmp_path: Path, save_model: Callable[..., object]
) -> None:
    command("push")
    bare = tmp_path / "bare.git"
    subprocess.run(["git", "clone", "-q", "--bare", str(repo), str(bare)], check=True)
    for verb in ("push", "pull", "checkout"):
        done = command(verb, *(["fraud"] if verb == "checkout" else []), "-C", bare)
        assert done.code == 2
        assert done.err.startswith("error[needs-working-tree]")
    assert command("fetch", "-C", bare).err == "4 objects brought and verified (1 bundle is here)\n"
    assert len(state.files(bare / "gitmodel" / "store")) == 4
