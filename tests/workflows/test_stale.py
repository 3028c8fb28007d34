"""A signature that changed while the weights did not: judged without any weights, by the graph if it is at hand."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from gitmodel import runtime
from gitmodel.compat.verdict import Report, Verdict
from gitmodel.workflows import check, save
from tests import support
from tests.compat import pairs
from tests.compat.pairs import scaled


@pytest.fixture
def released(repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """``fraud@v1.0.0``; from then on no session can be opened."""
    (tmp_path / "given.onnx").write_bytes(pairs.model(scaled("1.0")).SerializeToString())
    save.save(
        "fraud", [tmp_path / "given.onnx"], repo=repo, golden=pairs.cases(tmp_path, [[1, 2, 3, 4]]), message="Save"
    )
    pairs.tag(repo, "fraud@v1.0.0")
    monkeypatch.setattr(runtime, "open_session", no_session)
    return repo


def no_session(*_: object, **__: object) -> None:
    raise AssertionError("a session was opened")


def edit(repo: Path, old: str, new: str, file: str = "signature.yaml") -> None:
    path = repo / "models" / "fraud" / file
    path.write_text(path.read_text().replace(old, new))
    support.git(repo, "commit", "-qam", "Edit")


def forget(repo: Path) -> None:
    shutil.rmtree(repo / ".dvc" / "cache")
    shutil.rmtree(repo.parent / "storage")


def rules_of(report: Report) -> dict[str, str]:
    return {finding.rule: finding.message for finding in report.findings}


@pytest.mark.parametrize("at_hand", [True, False])
def test_an_edited_signature_is_stale_with_weights_or_without(released: Path, at_hand: bool) -> None:
    edit(released, "name: x", "name: features")
    if not at_hand:
        forget(released)
    report = check.check_compat("fraud@v1.0.0", "fraud@HEAD", repo=released)
    assert rules_of(report).keys() == {"input-renamed", "weights-unchanged", "signature-stale"}
    assert "fraud@HEAD" in rules_of(report)["signature-stale"]
    assert report.verdict is Verdict.INCOMPATIBLE


def test_a_signature_that_is_mended_is_not_called_stale(released: Path) -> None:
    edit(released, "name: x", "name: features")
    pairs.tag(released, "fraud@v2.0.0")
    edit(released, "name: features", "name: x")
    found = rules_of(check.check_compat("fraud@v2.0.0", "fraud@HEAD", repo=released))
    assert "fraud@v2.0.0" in found["signature-stale"]


def test_nothing_that_changed_needs_no_weights(released: Path) -> None:
    forget(released)
    edit(released, "name: fraud", "name: fraud\ndescription: other words", "model.yaml")
    report = check.check_compat("fraud@v1.0.0", "fraud@HEAD", repo=released)
    assert (list(rules_of(report)), report.verdict) == (["weights-unchanged"], Verdict.COMPATIBLE)


def test_other_groups_in_the_card_are_other_signatures(released: Path) -> None:
    model = released / "models" / "fraud"
    card = (model / "model.yaml").read_text()
    groups = "signatures:\n  named:\n    outputs: [y]\n"
    (model / "model.yaml").write_text(card.replace("signature: default", "signature: named") + groups)
    signature = (model / "signature.yaml").read_text()
    (model / "signature.yaml").write_text(signature.replace("default:", "named:").replace("batch", "rows"))
    support.git(released, "commit", "-qam", "Name it")
    assert "signature-stale" not in rules_of(check.check_compat("fraud@v1.0.0", "fraud@HEAD", repo=released))


def test_a_graph_that_cannot_be_read_is_as_good_as_none(released: Path) -> None:
    edit(released, "name: x", "name: features")
    for path in (released / ".dvc" / "cache").rglob("*"):
        if path.is_file():
            path.chmod(0o644)
            path.write_bytes(b"damaged")
    report = check.check_compat("fraud@v1.0.0", "fraud@HEAD", repo=released)
    assert "fraud@HEAD" in rules_of(report)["signature-stale"]
