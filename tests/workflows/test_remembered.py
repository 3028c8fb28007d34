"""What a check showed is remembered: the same check runs nothing again, and anything that could matter makes it run."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gitmodel import runtime
from gitmodel.bundle.bundle import Bundle
from gitmodel.bundle.golden import SLICE, Slice
from gitmodel.compat.changes import Change
from gitmodel.compat.verdict import Report, Verdict
from gitmodel.git import Repository
from gitmodel.registry import resolve
from gitmodel.workflows import check, remembered, save
from tests import support
from tests.compat import pairs
from tests.compat.pairs import scaled

Put = Callable[..., None]
ONE, MORE, OTHER = scaled("1.0"), scaled("1.0625"), scaled("1.125")
ROWS = [[1.0, 2.0, 3.0, 4.0], [4.0, 3.0, 2.0, 1.0]]


@pytest.fixture
def versions(repo: Path, tmp_path: Path) -> Path:
    """``fraud@v1.0.0`` and ``fraud@v1.1.0`` with golden cases, the second a little off."""
    for text, version in ((ONE, "v1.0.0"), (MORE, "v1.1.0")):
        put(repo, text, tmp_path)
        pairs.tag(repo, f"fraud@{version}")
    return repo


def put(repo: Path, text: str, folder: Path, *, golden: bool = True) -> None:
    path = folder / "given.onnx"
    path.write_bytes(pairs.model(text).SerializeToString())
    save.save("fraud", [path], repo=repo, golden=pairs.cases(folder, ROWS) if golden else None, message="Save")


def judged(repo: Path, old: str = "fraud@v1.0.0", new: str = "fraud@v1.1.0") -> Report:
    return check.check_compat(old, new, repo=repo)


def folder(repo: Path) -> Path:
    return Repository.open(repo).state_dir / remembered.FOLDER


def plain(report: Report) -> dict[str, Any]:
    """All of a report but whether it was remembered; JSON knows no tuples."""
    return {
        "findings": [(f.rule, f.at, f.message, f.severity, f.bump, f.witness) for f in report.findings],
        "drifts": report.drifts,
        "rest": (report.verdict, report.cases_run, report.generated, report.noise, report.old, report.new, report.bump),
    }


def no_session(*_: object, **__: object) -> None:
    raise AssertionError("a session was opened")


def test_the_second_check_opens_nothing_and_needs_no_weights(versions: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = judged(versions)
    assert (first.remembered, first.cases_run, first.drifts[0].max_abs) == (False, 2, 0.25)
    shutil.rmtree(versions / ".dvc" / "cache")
    shutil.rmtree(versions.parent / "storage")
    monkeypatch.setattr(runtime, "open_session", no_session)
    second = judged(versions)
    assert second.remembered
    assert plain(second) == plain(first)
    assert judged(versions, "fraud@v1.1.0", "fraud@v1.0.0").verdict is Verdict.UNJUDGED, "the other way was never run"


def test_drawn_cases_and_witnesses_are_remembered_too(repo: Path, tmp_path: Path) -> None:
    renamed = "(float[batch,4] image) => (float[batch,4] y) <float scale = {1.0}> { y = Mul(image, scale) }"
    for text, version in ((ONE, "v1.0.0"), (renamed, "v2.0.0")):
        put(repo, text, tmp_path, golden=False)
        pairs.tag(repo, f"fraud@{version}")
    first, second = judged(repo, new="fraud@v2.0.0"), judged(repo, new="fraud@v2.0.0")
    assert (first.remembered, second.remembered) == (False, True)
    assert plain(second) == plain(first)
    assert any(finding.witness for finding in second.findings)
    assert second.generated


def test_a_finding_that_names_a_version_names_the_one_asked_for(repo: Path, tmp_path: Path) -> None:
    for text, version in ((ONE, "v1.0.0"), (MORE, "v1.1.0")):
        put(repo, text, tmp_path, golden=False)
        pairs.tag(repo, f"fraud@{version}")
    support.git(repo, "tag", "-a", "-m", "again", "fraud@v1.0.1", "fraud@v1.0.0^{}")
    for old in ("fraud@v1.0.0", "fraud@v1.0.1"):
        for remembered_ in (False, True):
            report = judged(repo, old)
            assert report.remembered is remembered_
            assert any(f"{old} has no golden cases" in f.message for f in report.findings)


def test_whatever_could_matter_makes_it_run_again(versions: Path, tmp_path: Path) -> None:
    judged(versions, new="fraud")
    model = versions / "models" / "fraud"
    card = model / "model.yaml"
    text = card.read_text()
    card.write_text(text + "gates:\n  agreement: 0.5\n")
    assert not judged(versions, new="fraud").remembered, "gates"
    card.write_text(text)
    assert judged(versions, new="fraud").remembered
    german = model / "golden" / "cases" / SLICE
    german.write_text(Slice("country=DE", 0.9).to_yaml())
    assert not judged(versions, new="fraud").remembered, "golden cases"
    german.unlink()
    put(versions, OTHER, tmp_path)
    assert not judged(versions, new="fraud").remembered, "weights"


@pytest.mark.parametrize("what", ["version", "threads", "SCHEMA"])
def test_another_runtime_machine_or_gitmodel_runs_it_again(
    versions: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    judged(versions)
    if what == "version":
        monkeypatch.setattr(runtime, "version", lambda: "0.0")
    elif what == "threads":
        monkeypatch.setattr(remembered, "threads", lambda: 99)
    else:
        monkeypatch.setattr(remembered, "SCHEMA", 99)
    assert not judged(versions).remembered


def damage(path: Path, how: str) -> None:
    document = json.loads(path.read_text())
    if how == "cut":
        path.write_bytes(path.read_bytes()[:-40])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "edited":
        document["body"]["cases"] = 999
        path.write_text(json.dumps(document))
    elif how == "foreign":
        document["key"]["runtime"] = "0.0"
        path.write_text(json.dumps(document))
    elif how == "list":
        path.write_text("[]")
    elif how == "deep":
        path.write_text("[" * 100_000)
    elif how == "fields":
        body = {**document["body"], "drifts": [{"name": "y"}]}
        path.write_text(json.dumps({**document, "body": body, "sha256": remembered._digest(body)}))


@pytest.mark.parametrize("how", ["cut", "empty", "edited", "foreign", "list", "deep", "fields"])
def test_a_damaged_or_foreign_entry_is_ignored_and_written_anew(versions: Path, how: str) -> None:
    first = judged(versions)
    (path,) = folder(versions).iterdir()
    whole = path.read_bytes()
    damage(path, how)
    again = judged(versions)
    assert not again.remembered
    assert plain(again) == plain(first)
    assert path.read_bytes() == whole
    assert judged(versions).remembered


def test_what_could_not_be_judged_is_not_remembered(versions: Path) -> None:
    shutil.rmtree(versions / ".dvc" / "cache")
    shutil.rmtree(versions.parent / "storage")
    assert judged(versions).verdict is Verdict.UNJUDGED
    assert not folder(versions).exists()


def test_bare_files_have_no_digest_and_are_not_remembered(versions: Path, tmp_path: Path) -> None:
    old, new = pairs.files(tmp_path, ONE, MORE)
    for _ in range(2):
        report = check.check_compat(str(tmp_path / old), str(tmp_path / new), repo=versions)
        assert (report.remembered, report.cases_run) == (False, 16)
    assert not folder(versions).exists()


def test_the_entries_used_last_are_kept(versions: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remembered, "MOST", 3)
    judged(versions)
    (first,) = folder(versions).iterdir()
    for number in range(4):
        other = folder(versions) / f"{number:064}.json"
        other.write_text("{}")
        os.utime(other, (number, number))
    os.utime(first, (10, 10))
    judged(versions, "fraud@v1.1.0", "fraud@v1.0.0")
    assert len(list(folder(versions).iterdir())) == 3
    assert first.exists()


def test_a_folder_that_cannot_be_written_only_costs_time(versions: Path) -> None:
    folder(versions).parent.mkdir(parents=True, exist_ok=True)
    folder(versions).write_text("a file where the folder should be")
    for _ in range(2):
        report = judged(versions)
        assert (report.verdict, report.remembered) == (Verdict.COMPATIBLE, False)


def test_the_report_says_so(versions: Path) -> None:
    first, second = (
        support.gitmodel("check-compat", "fraud@v1.0.0", "fraud@v1.1.0", cwd=versions).stdout for _ in range(2)
    )
    assert "remembered" not in first
    assert "2 golden cases run, remembered from an earlier check; noise floor of OLD" in " ".join(second.split())


def test_facts_that_json_cannot_hold_are_not_kept(versions: Path) -> None:
    state = Repository.open(versions).state_dir
    old, new = (bundle(versions, name) for name in ("fraud@v1.0.0", "fraud@v1.1.0"))
    where = remembered.entry(state, old, new, [])
    assert where is not None
    odd = Change("odd", "somewhere", np.ones(3))
    remembered.keep(where, remembered.Shown((odd,), 1, False, "", ()))
    assert remembered.recall(where) is None


def bundle(repo: Path, reference: str) -> Bundle:
    return resolve(Repository.open(repo), reference)
