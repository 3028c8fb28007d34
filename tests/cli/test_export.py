"""``gitmodel export`` as a person types it: the files on stdout, the rest on stderr."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests import support
from tests.cli.command import Command
from tests.formats.keeping import contents
from tests.workflows import state


@pytest.fixture
def gitmodel(repo: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    return Command(repo, monkeypatch, capfd)


@pytest.fixture
def saved(gitmodel: Command, tmp_path: Path) -> Path:
    """``fraud``, released as v1.0.0 with its labels; the file it was saved from."""
    path = state.write(support.linear_model(), tmp_path / "linear.onnx")
    (tmp_path / "labels.txt").write_text("yes\nno\nmaybe\n")
    assert gitmodel("save", "fraud", path, "--labels", tmp_path / "labels.txt", "-m", "one", "--release", "auto")
    return path


def test_export_says_what_it_wrote(gitmodel: Command, saved: Path, repo: Path) -> None:
    done = gitmodel("export", "fraud@v1.0.0", "out.onnx")
    assert done
    assert done.out == "out.onnx\n"
    assert done.err == f"exported fraud@v1.0.0: 2 tensors, {saved.stat().st_size} B\n"
    assert (repo / "out.onnx").read_bytes() == saved.read_bytes()
    quiet = gitmodel("export", "fraud@v1.0.0", "out.onnx", "--force", "-q")
    assert (quiet.out, quiet.err) == ("out.onnx\n", "")


def test_export_says_what_the_format_has_no_place_for(gitmodel: Command, saved: Path, repo: Path) -> None:
    done = gitmodel("export", "fraud", "out.safetensors")
    assert done.err.splitlines()[1:] == ["left out, as .safetensors has no place for it: the graph"]
    assert contents(repo / "out.safetensors") == contents(saved)


def test_export_into_a_folder_takes_what_belongs_to_it(gitmodel: Command, saved: Path, repo: Path) -> None:
    done = gitmodel("export", "fraud", "out/", "--as", "npz", "--format", "json")
    assert done
    body = json.loads(done.out)
    assert body["files"] == ["out/fraud.npz", "out/signature.yaml", "out/assets/labels.txt"]
    assert (body["label"], body["tensors"], body["left_out"]) == ("fraud", 2, ["the graph"])
    assert body["size"] == sum((repo / file).stat().st_size for file in body["files"])


def test_export_takes_some_tensors(gitmodel: Command, saved: Path, repo: Path) -> None:
    assert gitmodel("export", "fraud", "out.h5", "--tensor", "bias")
    assert list(contents(repo / "out.h5")) == ["bias"]
    unknown = gitmodel("export", "fraud", "more.h5", "--tensor", "bais")
    assert (unknown.code, unknown.out) == (2, "")
    assert unknown.err == "error[unknown-tensor]: there is no tensor 'bais' in fraud: near it: bias\n"


def test_export_refuses_in_one_line(gitmodel: Command, saved: Path, repo: Path) -> None:
    (repo / "out.onnx").write_text("mine")
    for args, said in (
        (("fraud", "out.onnx"), "error[would-overwrite]: out.onnx is there already"),
        (("fraud", "out.pt"), "error[unclear-destination]: out.pt does not say its format"),
        (("fraud", "out/", "--as", "pt"), "error[unclear-destination]: there is no format 'pt' to export to"),
        (("fraud@v9", "new.onnx"), "error[unknown-version]: fraud has no version 'v9'"),
    ):
        refused = gitmodel("export", *args)
        assert refused.code == 2
        assert refused.err.startswith(said)
        assert refused.err.count("\n") == 1
    assert (repo / "out.onnx").read_text() == "mine"


def test_export_converts_a_file_outside_any_repository(tmp_path: Path) -> None:
    path = state.write(support.linear_model(), tmp_path / "m.onnx")
    done = support.gitmodel("export", "m.onnx", "m.safetensors", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (0, "m.safetensors\n")
    assert contents(tmp_path / "m.safetensors") == contents(path)
