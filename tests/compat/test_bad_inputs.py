"""Every bad input of security.md as NEW of a check: unjudged, exit code 3, one line that names the file and the mend."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import pytest

from gitmodel.bundle.lock import FileEntry, Lock
from gitmodel.compat.isolated import Models
from gitmodel.compat.verdict import Verdict
from gitmodel.errors import ExitCode, GitmodelError
from gitmodel.sandbox.limits import Limits
from gitmodel.sandbox.parent import Child
from gitmodel.workflows import check
from gitmodel.workflows.init import init
from gitmodel.workflows.release import release
from gitmodel.workflows.save import save
from gitmodel.workflows.workspace import Workspace
from tests import support
from tests.cli.command import Command
from tests.compat import bad_inputs

NAME = "fraud"
#: Seconds a check may take by the clock; the machine may be at something else as well.
BOUND = 90.0
QUICK = Limits(seconds=2.0, memory=2 << 30)
#: What only shows when the model is run, so that no signature or file is wrong.
RUN = ("onnx-constant-huge", "onnx-endless-loop", "onnx-memory-bomb")
#: Which rule says so, where it is not model-load-failed.
RULES = {
    **dict.fromkeys(("onnx-data-above", "onnx-data-absolute", "onnx-data-symlinked"), "external-data-escapes"),
    **dict.fromkeys(
        ("onnx-data-missing", "onnx-offset-negative", "onnx-offset-huge", "onnx-length-negative", "onnx-length-huge"),
        "external-data-missing",
    ),
    **dict.fromkeys(
        ("hdf5-external-storage", "hdf5-external-link", "hdf5-virtual", "hdf5-claims-4-tib", "npz-objects", "npz-bomb",
         "npz-member-above"),
        "unsafe-content",
    ),
    "onnx-unknown-domain": "custom-domain-used",
    "onnx-newer-ir": "ir-exceeds-runtime",
    "onnx-newer-opset": "opset-exceeds-runtime",
}  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The good files, beside which each test writes its bad one."""
    path = tmp_path_factory.mktemp("bad")
    bad_inputs.write_good(path)
    return path


@pytest.mark.parametrize("name", bad_inputs.FILES)
def test_a_bad_file_is_unjudged_in_one_line_and_in_time(name: str, folder: Path, tmp_path: Path) -> None:
    bad = bad_inputs.FILES[name](folder)
    started = time.monotonic()
    with Models(QUICK) as models:
        report = check.check_compat(str(bad_inputs.good_for(bad)), str(bad), repo=tmp_path, models=models)
    assert time.monotonic() - started < BOUND
    assert (report.verdict, report.exit_code) == (Verdict.UNJUDGED, ExitCode.INCOMPLETE)
    assert str(bad) in report.unjudged
    assert ": " in report.unjudged.replace(str(bad), ""), "no mend"
    assert "\n" not in report.unjudged
    assert "Traceback" not in report.unjudged
    rules = {finding.rule for finding in report.findings}
    if name in RUN:
        assert "new-error-on-accepted-input" not in rules
    else:
        assert RULES.get(name, "model-load-failed") in rules


def test_what_is_run_when_it_is_unpickled_was_not_run(folder: Path, tmp_path: Path) -> None:
    for name in ("npz-objects", "npz-pickle"):
        bad = bad_inputs.FILES[name](folder)
        check.check_compat(str(folder / "good.npz"), str(bad), repo=tmp_path)
    assert not Path("/tmp/gitmodel-owned").exists()


def test_a_bad_old_side_is_unjudged_as_well(folder: Path, tmp_path: Path) -> None:
    for name in ("onnx-truncated", "onnx-data-missing", "hdf5-virtual"):
        bad = bad_inputs.FILES[name](folder)
        report = check.check_compat(str(bad), str(bad_inputs.good_for(bad)), repo=tmp_path)
        assert report.verdict is Verdict.UNJUDGED
        assert str(bad) in report.unjudged


def test_the_command_says_it_in_its_exit_code(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = Command(folder, monkeypatch, capsys)
    bad_inputs.onnx_random(folder)
    found = command("check-compat", "good.onnx", "random.onnx", "--require-sandbox", "--time-limit", "5")
    assert found.code == 3
    assert found.out.startswith("UNJUDGED  good.onnx -> random.onnx")
    assert "could not judge: random.onnx is not a whole ONNX file" in found.out
    assert found.err == ""
    missing = command("check-compat", "good.onnx", "nowhere.onnx")
    assert (missing.code, missing.out) == (2, "")
    assert "there is no file nowhere.onnx" in missing.err


def test_damaged_hdf5_never_takes_the_judge_with_it(folder: Path, tmp_path: Path) -> None:
    """A valid file with bytes changed at random, chunks, checksums, attributes and all: libhdf5 may crash, we may not."""
    path = tmp_path / "whole.h5"
    with h5py.File(path, "w", libver="latest") as file:
        file.create_dataset("a/kernel", data=np.arange(4096.0), chunks=(64,), fletcher32=True, compression="gzip")
        file["a"].attrs["names"] = np.array(["x", "y"], dtype=h5py.string_dtype())
        file["b"] = np.arange(8)
    whole, random = path.read_bytes(), np.random.default_rng(7)
    for number in range(12):
        damaged = bytearray(whole)
        for place in random.integers(0, len(whole), 1 + number * 3):
            damaged[place] = int(random.integers(0, 256))
        bad = tmp_path / "damaged.h5"
        bad.write_bytes(damaged)
        with Models(QUICK) as models:
            try:
                models.tensors(bad)
            except GitmodelError as error:
                assert str(bad) in str(error)
                assert error.hint


# Committed ------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shop(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model repository with ``fraud`` released as v1.0.0."""
    path = tmp_path_factory.mktemp("shop")
    support.git(path, "init", "-q")
    init(path)
    save(NAME, [folder / "good.onnx"], repo=path, message="First")
    release(NAME, repo=path)
    return path


@pytest.fixture
def repo(shop: Path, tmp_path: Path) -> Iterator[Path]:
    """A copy of it, for one test."""
    path = tmp_path / "repo"
    shutil.copytree(shop, path, symlinks=True)
    yield path
    shutil.rmtree(path)


def smuggle(repo: Path, data: bytes) -> None:
    """Commits a version whose model.onnx is ``data``, as somebody would who writes weights.lock by hand."""
    hashed = Workspace.open(repo).cache.add(data)
    path = repo / "models" / NAME / "weights.lock"
    lock = Lock.from_text(path.read_bytes(), "lock")
    entry = FileEntry("model.onnx", len(data), hashed.sha256, hashed.md5)
    files = [entry, *(file for file in lock.files if file.path != entry.path)]
    path.write_text(Lock.of(lock.tensors, files).to_text())
    support.git(repo, "commit", "-qam", "Improve")


@pytest.mark.parametrize("name", [name for name in bad_inputs.FILES if name.startswith("onnx-")])
def test_the_same_inside_a_commit(name: str, repo: Path, folder: Path) -> None:
    smuggle(repo, bad_inputs.FILES[name](folder).read_bytes())
    before = support.git(repo, "status", "--porcelain")
    started = time.monotonic()
    report = check.check_compat(f"{NAME}@v1.0.0", f"{NAME}@HEAD", repo=repo, models=Models(QUICK))
    assert time.monotonic() - started < BOUND
    assert (report.verdict, report.exit_code) == (Verdict.UNJUDGED, ExitCode.INCOMPLETE)
    assert f"{NAME}@HEAD" in report.unjudged
    assert "\n" not in report.unjudged
    assert "staged-" not in report.unjudged, "a path nobody knows"
    assert support.git(repo, "status", "--porcelain") == before
    assert not list((repo / ".git").rglob("staged-*")), "something is left"


@pytest.mark.parametrize("name", bad_inputs.YAML)
def test_bad_yaml_inside_a_commit(name: str, repo: Path) -> None:
    file, _ = bad_inputs.YAML[name]
    bad_inputs.write_yaml(name, repo / "models" / NAME)
    support.git(repo, "commit", "-qam", "Improve")
    report = check.check_compat(f"{NAME}@v1.0.0", f"{NAME}@HEAD", repo=repo)
    assert (report.verdict, report.exit_code) == (Verdict.UNJUDGED, ExitCode.INCOMPLETE)
    assert f"{NAME}@HEAD: {file}" in report.unjudged
    assert "\n" not in report.unjudged
    assert not Path("/tmp/owned").exists()


def test_no_is_a_word_in_a_card(repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Child, "start", lambda *_: pytest.fail("there is nothing to open"))
    path = repo / "models" / NAME / "model.yaml"
    path.write_text(path.read_text() + "description: no\n")
    support.git(repo, "commit", "-qam", "Describe")
    assert check.check_compat(f"{NAME}@v1.0.0", f"{NAME}@HEAD", repo=repo).verdict is Verdict.COMPATIBLE


def test_a_signature_that_names_an_absent_input_does_not_pass(repo: Path, folder: Path) -> None:
    path = repo / "models" / NAME / "signature.yaml"
    path.write_text(path.read_text().replace("name: x", "name: nowhere"))
    support.git(repo, "commit", "-qam", "Improve")
    smuggle(repo, (folder / "good.onnx").read_bytes() + b"\x12\x00")
    report = check.check_compat(f"{NAME}@v1.0.0", f"{NAME}@HEAD", repo=repo)
    assert report.exit_code is not ExitCode.OK
    assert "signature-stale" in {finding.rule for finding in report.findings}


def test_a_golden_case_that_is_none_is_unjudged(repo: Path) -> None:
    folder = repo / "models" / NAME / "golden" / "cases" / "test_data_set_0"
    folder.mkdir(parents=True)
    for name in ("input_0.pb", "output_0.pb"):
        (folder / name).write_bytes(b"\x08" + bytes(range(200)))
    support.git(repo, "add", "-A")
    support.git(repo, "commit", "-qm", "Record")
    report = check.check_compat(f"{NAME}@v1.0.0", f"{NAME}@HEAD", repo=repo)
    assert report.verdict is Verdict.UNJUDGED
    assert f"{NAME}@HEAD: golden/cases/test_data_set_0/input_0.pb is no tensor" in report.unjudged


def test_one_bad_model_does_not_keep_the_others_from_being_judged(repo: Path, folder: Path) -> None:
    save("other", [folder / "good.onnx"], repo=repo, message="Another")
    smuggle(repo, b"")
    bad, good = check.check_changed(repo)
    assert (bad.model, bad.verdict) == (NAME, Verdict.UNJUDGED)
    assert (good.model, good.verdict) == ("other", Verdict.COMPATIBLE)
