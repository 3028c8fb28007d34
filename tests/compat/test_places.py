"""Places: from what a finding is about to the file and line a reviewer sees."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from gitmodel.bundle.bundle import Bundle
from gitmodel.bundle.folder import DiskFolder, MemoryFolder
from gitmodel.bundle.lock import Lock, TensorEntry
from gitmodel.compat import places
from gitmodel.compat.rules import Finding, Place, Severity
from gitmodel.versions import Bump
from gitmodel.workflows import check, judge
from tests import support
from tests.compat import pairs
from tests.compat.pairs import NAME

CARD = "schema_version: 1\nname: fraud\ngates:\n  agreement: 0.5\n  tolerance:\n    scores: {rtol: 1e-3}\n"
SIGNATURE = """\
schema_version: 1
signatures:
  default:
    inputs:
    - name: x
      dtype: float32
      shape: [batch, 4]
    - name: a.b[1]
      dtype: int64
      shape:
      - batch
      - 7
    outputs:
    - name: scores
      dtype: float32
      shape: [batch, 3]
  embed:
    inputs:
    - name: x
      dtype: float32
    outputs:
    - name: embedding
      dtype: float32
"""
OLD_SIGNATURE = SIGNATURE.replace(
    "name: x\n      dtype: float32\n      shape", "name: gone\n      dtype: float32\n      shape"
)
PARAMS = "# by hand\nlearning_rate: 0.1\ntree:\n  depth: 3\n  sizes: [1, 2]\n"
LOCK = Lock.of(
    [TensorEntry("dense/bias", "float32", (3,), "0" * 64, "w"), TensorEntry("k l", "int8", (), "1" * 64, "w")], []
)
FILES = {
    "model.yaml": CARD, "signature.yaml": SIGNATURE, "params.yaml": PARAMS, "weights.lock": LOCK.to_text(),
    "assets/labels.txt": "cat\ndog\nowl\n", "assets/vocab.v1.txt": "the\n",
}  # fmt: skip


def side(**changed: str | None) -> places.Side:
    """A bundle in memory; a file given as None is not there."""
    names = {name.replace(".", "_").replace("/", "_"): name for name in FILES}
    files = FILES | {names[key]: text for key, text in changed.items() if text is not None}
    gone = {names[key] for key, text in changed.items() if text is None}
    held = {name: text.encode() for name, text in files.items() if name not in gone}
    return places.Side(Bundle(NAME, NAME, MemoryFolder(held)), f"models/{NAME}")


def finding(at: str, rule: str = "made-up", **fields: Any) -> Finding:
    return replace(Finding(rule, at, Severity.ERROR, {"named": Bump.MAJOR}, "it broke", "Why.", "Mend."), **fields)


def where(found: Finding, old: places.Side | None = None, new: places.Side | None = None) -> str:
    (placed,) = places.fill([found], old or side(), new or side())
    assert placed.place is not None
    return str(placed.place).removeprefix(f"models/{NAME}/")


@pytest.mark.parametrize(
    ("at", "place"),
    [
        ("inputs", "signature.yaml:4"),
        ("inputs.x", "signature.yaml:5"),
        ("inputs.x[1]", "signature.yaml:7"),
        ("inputs.a.b[1]", "signature.yaml:8"),
        ("inputs.a.b[1][1]", "signature.yaml:12"),
        ("outputs", "signature.yaml:13"),
        ("outputs.scores", "signature.yaml:14"),
        ("signatures.embed", "signature.yaml:17"),
        ("signatures.embed.outputs.embedding", "signature.yaml:22"),
        ("signatures.absent", "signature.yaml:2"),
        ("signature", "signature.yaml:1"),
        ("labels", "assets/labels.txt:1"),
        ("tensors.dense/bias", "weights.lock:2"),
        ("tensors.k l", "weights.lock:3"),
        ("tensors.absent", "weights.lock:1"),
        ("weights", "weights.lock:1"),
        ("behaviour", "weights.lock:1"),
        ("params.learning_rate", "params.yaml:2"),
        ("params.tree.depth", "params.yaml:4"),
        ("params.tree.sizes[1]", "params.yaml:5"),
        ("params.tree.absent", "params.yaml:3"),
        ("assets.vocab.v1.txt", "assets/vocab.v1.txt:1"),
        ("assets/vocab.v1.txt", "assets/vocab.v1.txt:1"),
        ("assets.absent", "model.yaml:1"),
        ("assets/../../../etc/passwd", "model.yaml:1"),
        ("gates.tolerance.scores", "model.yaml:6"),
        ("model.yaml.gates.agreement", "model.yaml:4"),
        ("golden", "model.yaml:1"),
        ("version", "model.yaml:1"),
    ],
)
def test_a_place_is_a_file_and_a_line(at: str, place: str) -> None:
    assert where(finding(at)) == place


def test_a_rule_about_a_part_of_an_entry_points_at_that_line() -> None:
    assert where(finding("inputs.x", "input-dtype-changed")) == "signature.yaml:6"
    assert where(finding("inputs.x", "input-rank-changed")) == "signature.yaml:7"
    assert where(finding("inputs.x", "input-became-optional")) == "signature.yaml:5", "there is no such line"
    assert where(finding("model.yaml", "gates-changed")) == "model.yaml:3"


def test_a_renamed_tensor_is_where_it_is_now() -> None:
    assert where(finding("inputs.gone", "input-renamed", old="gone", new="x")) == "signature.yaml:5"


def test_what_only_old_has_is_in_old_and_near_something_in_new() -> None:
    (found,) = places.fill([finding("inputs.gone")], side(signature_yaml=OLD_SIGNATURE), side())
    assert found.place == Place("models/fraud/signature.yaml", 5, "old", nearest=4)
    assert (str(found.place), found.place.shown) == ("models/fraud/signature.yaml:5 of OLD", 4)


def test_labels_are_found_by_index_on_the_side_that_has_them() -> None:
    new = side(assets_labels_txt="cat\nowl\n")
    assert where(finding("labels", old="dog", args={"index": 1}), new=new) == "assets/labels.txt:2 of OLD"
    assert where(finding("labels", new="owl", args={"index": 1}), new=new) == "assets/labels.txt:2"
    assert where(finding("labels"), new=side(assets_labels_txt=None)) == "assets/labels.txt:1 of OLD"


def test_what_is_nowhere_is_at_the_top() -> None:
    assert where(finding("inputs.absent")) == "signature.yaml:4"
    assert where(finding("params.lr"), *[side(params_yaml=None)] * 2) == "params.yaml:1"


def test_a_file_that_cannot_be_read_does_not_stop_a_report() -> None:
    broken = side(signature_yaml="signatures: [")
    assert where(finding("inputs.x"), broken, broken) == "model.yaml:1"


def test_a_bare_file_has_no_line(tmp_path: Path) -> None:
    pairs.files(tmp_path, "(float[n] x) => (float[n] y) { y = Neg(x) }", "(float[n] a) => (float[n] y) { y = Neg(a) }")
    report = check.check_compat(str(tmp_path / "old.onnx"), str(tmp_path / "new.onnx"), repo=tmp_path)
    assert {found.place for found in report.findings} == {Place(str(tmp_path / "new.onnx"))}


def test_without_a_new_side_the_place_is_in_old() -> None:
    (found,) = places.fill([finding("model")], side(), None)
    assert found.place == Place("models/fraud/model.yaml", 1, "old")
    assert places.fill([finding("model")], None, None)[0].place is None


def test_the_line_is_the_one_that_git_has(tmp_path: Path) -> None:
    pairs.repository(tmp_path)
    pairs.save(tmp_path, "(float[batch,4] x) => (float[batch,4] y) { y = Neg(x) }")
    pairs.release(tmp_path)
    pairs.save(
        tmp_path, "(float[batch,4] x) => (float[batch,5] y) <int64[5] i = {0,1,2,3,0}> { y = Gather<axis=1>(x, i) }"
    )
    (report,) = check.check_changed(tmp_path)
    place = next(found.place for found in report.findings if found.rule == "output-dim-changed")
    assert place is not None
    assert place.line is not None
    committed = support.git(tmp_path, "show", f"HEAD:{place.path}").splitlines()[place.line - 1]
    assert committed.split() == ["shape:", "[batch,", "5]"]


def test_a_folder_outside_of_the_repository_keeps_its_name(tmp_path: Path) -> None:
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    (folder / "model.yaml").write_text(CARD)
    assert judge.side_of(None, Bundle(NAME, NAME, DiskFolder(folder))).path("model.yaml") == f"{folder}/model.yaml"
