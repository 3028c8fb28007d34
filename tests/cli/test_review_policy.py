"""``check-compat`` and policy as a person types it: modes, the entries to paste, a remote by name."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests import support
from tests.cli.command import Command
from tests.compat import pairs
from tests.compat.pairs import scaled
from tests.compat.pairs_policy import ALLOW, RENAMED, write


@pytest.fixture
def branch(repo: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    """``main`` has ``fraud``; the branch that is checked out renames its input."""
    pairs.save(repo, scaled("1.0"))
    support.git(repo, "branch", "-M", "main")
    support.git(repo, "switch", "-qc", "theirs")
    pairs.save(repo, RENAMED)
    return Command(repo, monkeypatch, capfd)


def test_an_entry_is_printed_pasted_and_counts(branch: Command, repo: Path) -> None:
    done = branch("check-compat", "--against", "main", "-v", "--format", "json")
    assert done.code == 1
    assert json.loads(done.out)["findings"][0]["rule"] == "input-renamed"
    head, _, text = done.err.partition(":\n")
    assert head == "to accept it, commit to models/fraud/allow.yaml on the base branch"
    support.git(repo, "switch", "-q", "main")
    write(repo, {ALLOW: text.replace("WHY", "the one client moves along")}, "Allow it")
    support.git(repo, "switch", "-q", "theirs")
    done = branch("check-compat", "--against", "main", "-v")
    assert (done.code, done.err) == (0, "")
    assert "allowed (the one client moves along): input 'x' is now called 'image'  [input-renamed]" in done.out
    body = json.loads(branch("check-compat", "--against", "main", "--format", "json").out)
    (found,) = [f for f in body["findings"] if f["rule"] == "input-renamed"]
    assert (found["allowed"], found["severity"], found["bump"]["named"]) == (
        "the one client moves along",
        "info",
        "none",
    )


def test_what_breaks_is_not_explained_unless_asked(branch: Command) -> None:
    assert "to accept it" not in branch("check-compat", "--against", "main").err


@pytest.mark.parametrize(("mode", "code"), [("backward", 0), ("full", 1), ("transitive", 0)])
def test_a_mode_decides(branch: Command, tmp_path: Path, mode: str, code: int) -> None:
    pairs.files(tmp_path, *pairs.MODELS["output-added"]())
    done = branch("check-compat", tmp_path / "old.onnx", tmp_path / "new.onnx", "--mode", mode)
    assert done.code == code
    assert ("NEW->OLD: output 'size'" in done.out) is (mode == "full")


def test_an_unknown_mode_is_wrong_usage(branch: Command) -> None:
    assert branch("check-compat", "--mode", "sideways").code == 2


def test_whom_it_hits_is_told(branch: Command, repo: Path) -> None:
    support.git(repo, "switch", "-q", "main")
    write(repo, {"consumers/shop.yaml": "name: shop\nmodel: fraud\n"}, "Who uses it")
    support.git(repo, "switch", "-q", "theirs")
    done = branch("check-compat", "--against", "main")
    assert "input 'x' is now called 'image'; it hits shop  [input-renamed]" in done.out


def test_a_remote_can_be_named(branch: Command, repo: Path, tmp_path: Path) -> None:
    assert branch("push", "fraud@main", "fraud@theirs", "--remote", tmp_path / "other")
    shutil.rmtree(repo / ".dvc" / "cache")
    assert branch("check-compat", "--against", "main").code == 3
    done = branch("check-compat", "--against", "main", "--remote", tmp_path / "other")
    assert done.code == 1
    assert "input-renamed" in done.out


def test_what_is_not_committed_is_said_not_to_be_judged(branch: Command, repo: Path) -> None:
    assert branch("check-compat", "--against", "HEAD").err == ""
    write(repo, {"models/fraud/params.yaml": "lr: 0.1\n"})
    done = branch("check-compat", "--against", "HEAD")
    assert (done.code, done.err) == (0, "not judged: what is not committed of 'fraud'\n")
