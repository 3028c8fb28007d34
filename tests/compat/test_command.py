"""``gitmodel check-compat`` as people and pipelines call it: arguments, streams, formats and exit codes."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest

from gitmodel import runtime
from tests import support
from tests.compat import pairs
from tests.compat.pairs import NAME, scaled
from tests.compat.test_reports import VALIDATOR

ONE, DRIFT = scaled("1.0"), scaled("1.0625")
RENAMED = "(float[batch,4] image) => (float[batch,4] y) <float scale = {1.0}> { y = Mul(image, scale) }"

Done = subprocess.CompletedProcess[str]


def command(folder: Path, *args: str) -> Done:
    return support.gitmodel("check-compat", *args, cwd=folder)


def document(done: Done) -> dict[str, Any]:
    """The JSON of a run: it must stand alone on stdout and keep the published schema."""
    value: dict[str, Any] = json.loads(done.stdout)
    VALIDATOR.validate(value)
    return value


@pytest.fixture
def versions(tmp_path: Path) -> Path:
    """``fraud@v1.0.0``, ``fraud@v1.1.0`` that drifted, and a working tree where the input was renamed."""
    folder = tmp_path / "models-repo"
    folder.mkdir()
    pairs.repository(folder)
    for text in (ONE, DRIFT):
        pairs.save(folder, text)
        pairs.release(folder)
    pairs.save(folder, RENAMED)
    return folder


def test_two_files_without_any_repository(tmp_path: Path) -> None:
    pairs.files(tmp_path, ONE, RENAMED)
    done = command(tmp_path, "old.onnx", "new.onnx")
    assert done.returncode == 1
    assert done.stderr == ""
    assert done.stdout.startswith("INCOMPATIBLE  old.onnx -> new.onnx  owes a major bump")
    with pytest.raises(runtime.RunFailed) as raised:
        runtime.open_session(tmp_path / "new.onnx").run({"x": np.zeros((1, 4), "float32")})
    shown = " ".join(done.stdout.split())
    assert f"seen: case generated/0: {raised.value}" in shown
    assert "\033" not in done.stdout


def test_equal_files_are_compatible(tmp_path: Path) -> None:
    pairs.files(tmp_path, ONE, ONE)
    done = command(tmp_path, "old.onnx", "new.onnx")
    assert (done.returncode, done.stdout.split()[0]) == (0, "COMPATIBLE")


def test_two_references(versions: Path) -> None:
    done = command(versions, "fraud@v1.0.0", "fraud@v1.1.0")
    assert done.returncode == 0
    assert done.stdout.startswith("COMPATIBLE  fraud@v1.0.0 -> fraud@v1.1.0  owes a minor bump, declared minor")
    back = command(versions, "fraud@latest", "fraud@1.0")
    assert (back.returncode, back.stdout.split()[0]) == (0, "COMPATIBLE")


def test_without_arguments_every_changed_model_is_judged_against_its_latest_release(versions: Path) -> None:
    done = command(versions)
    assert done.returncode == 1
    assert done.stdout.startswith("INCOMPATIBLE  fraud@v1.1.0 -> fraud  owes a major bump (v2.0.0)")
    assert "✗ input 'x' is now called 'image'  [input-renamed]" in done.stdout


def test_one_reference_is_judged_against_the_working_tree(versions: Path) -> None:
    assert command(versions, "fraud@v1.0.0").stdout.startswith("INCOMPATIBLE  fraud@v1.0.0 -> fraud ")
    latest = command(versions, "fraud")
    assert latest.returncode == 1
    assert latest.stdout.startswith("INCOMPATIBLE  fraud@v1.1.0 -> fraud ")


def test_against_a_revision(versions: Path) -> None:
    done = command(versions, "--against", "HEAD~1")
    assert (done.returncode, done.stdout.split()[:4]) == (1, ["INCOMPATIBLE", "fraud@HEAD~1", "->", "fraud@HEAD"])
    same = command(versions, "--against", "HEAD")
    assert (same.returncode, same.stdout) == (0, "NOTHING COMPARED  no model differs from HEAD\n")


def test_another_repository_can_be_named(versions: Path, tmp_path: Path) -> None:
    assert command(tmp_path, "-C", str(versions)).stdout.startswith("INCOMPATIBLE  fraud@v1.1.0 -> fraud")


def test_profiles(versions: Path) -> None:
    assert command(versions, "--profile", "positional").returncode == 0
    assert command(versions, "--profile", "strict").returncode == 2


def test_json_stands_alone_on_stdout_and_keeps_the_schema(versions: Path) -> None:
    done = command(versions, "--format", "json")
    value = document(done)
    assert done.returncode == 1
    assert (value["old"], value["new"], value["verdict"]) == ("fraud@v1.1.0", "fraud", "incompatible")
    assert (value["required_bump"], value["next_version"], value["rollback_safe"]) == ("major", "v2.0.0", False)
    worst = value["findings"][0]
    assert worst["rule"] == "input-renamed"
    assert "['image']" in worst["witness"]


def test_one_check_serves_every_reader(versions: Path) -> None:
    from gitmodel.compat import reports

    files = {name: versions / f"report.{name}" for name in reports.FORMATS}
    done = command(versions, *(part for name, file in files.items() for part in ("--report", f"{name}={file}")))
    assert done.returncode == 1
    assert done.stdout.startswith("INCOMPATIBLE  fraud@v1.1.0 -> fraud  owes a major bump (v2.0.0)")
    assert files["text"].read_text() == done.stdout
    VALIDATOR.validate(json.loads(files["json"].read_text()))
    # From here on nothing is run again, which the reports say.
    assert command(versions, *(part for name, file in files.items() for part in ("--report", f"{name}={file}"))).stdout
    for name, file in files.items():
        text = file.read_text()
        assert command(versions, "--format", name).stdout == text, name
        assert "input-renamed" in text


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (("--report", "pdf=x"), "is not FORMAT=FILE with one of text, json"),
        (("--report", "json"), "is not FORMAT=FILE"),
        (("--report", "json="), "is not FORMAT=FILE"),
        (("--report", "json=x", "--report", "html=x"), "is named twice"),
        (("--report", "json=absent/x"), "is in no folder there is"),
    ],
    ids=["format", "no file", "empty", "twice", "no folder"],
)
def test_a_report_that_cannot_be_written_is_told_before_anything_is_run(
    given: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    pairs.files(tmp_path, ONE, ONE)
    done = command(tmp_path, "old.onnx", "new.onnx", *given)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in " ".join(done.stderr.replace("│", " ").split())


def test_a_folder_in_the_way_of_a_report_does_not_take_the_verdict_away(tmp_path: Path) -> None:
    pairs.files(tmp_path, ONE, ONE)
    (tmp_path / "taken").mkdir()
    done = command(tmp_path, "old.onnx", "new.onnx", "--report", "json=taken")
    assert done.returncode == 3
    assert done.stdout.startswith("COMPATIBLE")
    assert done.stderr.startswith("error[storage-failed]: cannot write taken")


def test_verbose_shows_how_to_see_each_break(versions: Path) -> None:
    assert "try:" not in command(versions).stdout
    shown = command(versions, "-v").stdout
    assert "        new = gitmodel.load('fraud').session\n" in shown
    assert "at: models/fraud/signature.yaml:5" in shown


def test_nothing_compared_is_said_in_every_format(versions: Path) -> None:
    from gitmodel.compat import reports

    for name in reports.FORMATS:
        done = command(versions, "--against", "HEAD", "--format", name)
        assert done.returncode == 0
        assert "NOTHING COMPARED" in done.stdout


def test_the_next_version_is_told_against_a_branch_that_has_the_latest_release(versions: Path) -> None:
    assert document(command(versions, "--against", "HEAD~1", "--format", "json"))["next_version"] == "v2.0.0"
    pairs.save(versions, RENAMED.replace("image", "photo"))
    unreleased = document(command(versions, "--against", "HEAD~1", "--format", "json"))
    assert unreleased["next_version"] is None, "what was merged since the release may owe a bump of its own"


def test_json_of_several_models_and_of_none(versions: Path) -> None:
    none = document(command(versions, "--against", "HEAD", "--format", "json"))
    assert (none["verdict"], none["compared"], none["models"]) == ("nothing-compared", 0, [])
    pairs.release(versions)
    support.git(versions, "branch", "base")
    card = versions / "models" / NAME / "model.yaml"
    card.write_text(card.read_text() + "gates: {agreement: 0.5}\n")
    from gitmodel.workflows import save

    save.save("spam", [versions / "given.onnx"], repo=versions, message="Spam")
    support.git(versions, "commit", "-qam", "Gates")
    value = document(command(versions, "--against", "base", "--format", "json"))
    assert [(report["model"], report["old"]) for report in value["models"]] == [
        ("fraud", "fraud@base"),
        ("spam", "nothing"),
    ]


def test_the_worst_exit_code_of_several_models_counts(versions: Path) -> None:
    from gitmodel.workflows import release, save

    pairs.release(versions)
    save.save("spam", [versions / "given.onnx"], repo=versions, message="Spam")
    release.release("spam", repo=versions)
    pairs.save(versions, RENAMED.replace("{1.0}", "{1.0001220703125}"))
    harmless = command(versions)
    assert (harmless.returncode, harmless.stdout.split()[0]) == (0, "COMPATIBLE")
    (versions / "given.onnx").write_bytes(pairs.model(ONE).SerializeToString())
    save.save("spam", [versions / "given.onnx"], repo=versions)
    done = command(versions)
    assert done.returncode == 1
    parts = done.stdout.split("\n\n")
    assert parts[0].startswith("INCOMPATIBLE  2 models: 1 incompatible, 1 compatible; spam owes a major bump (v2.0.0)")
    assert [part.split()[0] for part in parts[1:]] == ["INCOMPATIBLE", "COMPATIBLE"]


def test_what_cannot_be_judged_exits_with_3(tmp_path: Path) -> None:
    broken = pairs.model(ONE)
    broken.ir_version = 99
    pairs.files(tmp_path, ONE, broken)
    done = command(tmp_path, "old.onnx", "new.onnx")
    assert (done.returncode, done.stdout.split()[0]) == (3, "UNJUDGED")
    assert "could not judge" in done.stdout
    again = command(tmp_path, "old.onnx", "new.onnx", "--format", "json")
    assert again.returncode == 3
    assert document(again)["unjudged"]


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (("old.onnx",), ""),
        (("old.onnx", "new.onnx", "--against", "HEAD"), ""),
        (("absent.onnx", "new.onnx"), "invalid-model"),
        (("fraud", "fraud@v1.0.0"), "unknown-model"),
        ((), "not-a-repository"),
    ],
    ids=["one file", "both ways", "no such file", "no repository", "nothing"],
)
def test_wrong_usage_exits_with_2_and_says_so_on_stderr(args: tuple[str, ...], code: str, tmp_path: Path) -> None:
    pairs.files(tmp_path, ONE, DRIFT)
    done = command(tmp_path, *args)
    assert (done.returncode, done.stdout) == (2, "")
    assert "Traceback" not in done.stderr
    assert f"error[{code}]: " in done.stderr if code else "Usage" in done.stderr


def test_a_file_that_is_no_model_is_unjudged(tmp_path: Path) -> None:
    pairs.files(tmp_path, ONE, ONE)
    (tmp_path / "new.onnx").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    done = command(tmp_path, "old.onnx", "new.onnx")
    assert (done.returncode, done.stderr) == (3, "")
    assert "could not judge: new.onnx is a Git LFS pointer, not a model: run 'git lfs pull'" in done.stdout


def test_the_schema_refuses_a_document_of_another_kind() -> None:
    with pytest.raises(jsonschema.ValidationError):
        VALIDATOR.validate({"schema": 1, "verdict": "compatible"})
