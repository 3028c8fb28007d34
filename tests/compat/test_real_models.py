"""Five generations of a real classifier: each step gets the verdict its users would give it."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from gitmodel import runtime
from gitmodel.bundle.card import Gates
from gitmodel.bundle.golden import GoldenCase
from gitmodel.compat import changes
from gitmodel.compat.labels import compare_labels
from gitmodel.compat.replay import check_self
from gitmodel.compat.rules import Severity
from gitmodel.compat.verdict import Report, Verdict
from gitmodel.formats import onnx as onnx_format
from gitmodel.versions import Bump
from gitmodel.workflows import check, init, save
from tests import support
from tests.compat import pairs

#: What it runs again and again is measured by the tests of each part; tracing it would double its time.
pytestmark = [pytest.mark.realdata, pytest.mark.no_cover]

NAME = "magika"


@pytest.fixture
def magika(real_data: Path) -> Path:
    return real_data / "magika"


def model(magika: Path, generation: str) -> Path:
    return magika / f"standard_{generation}" / "model.onnx"


def labels(magika: Path, generation: str) -> list[str]:
    config: dict[str, list[str]] = json.loads((magika / f"standard_{generation}" / "config.min.json").read_text())
    return config["target_labels_space"]


def files(magika: Path, old: str, new: str) -> Report:
    return check.check_compat(str(model(magika, old)), str(model(magika, new)), repo=magika.parent)


def errors(report: Report) -> dict[str, str]:
    return {finding.rule: finding.at for finding in report.findings if finding.severity is Severity.ERROR}


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            "v1",
            "v2_0",
            {
                "input-dtype-changed": "inputs.bytes",
                "input-dim-changed": "inputs.bytes[1]",
                "output-dim-changed": "outputs.target_label[1]",
            },
        ),
        ("v2_0", "v2_1", {"output-dim-changed": "outputs.target_label[1]"}),
        (
            "v2_1",
            "v3_0",
            {"input-dim-changed": "inputs.bytes[1]", "output-dim-changed": "outputs.target_label[1]"},
        ),
    ],
)
def test_a_breaking_step_by_its_files_alone(magika: Path, old: str, new: str, expected: dict[str, str]) -> None:
    report = files(magika, old, new)
    assert (report.verdict, report.required_bump, report.exit_code) == (Verdict.INCOMPATIBLE, Bump.MAJOR, 1)
    assert errors(report) == expected


def test_the_breaking_calls_fail_as_the_report_says(magika: Path) -> None:
    report = files(magika, "v2_1", "v3_0")
    (found,) = [finding for finding in report.findings if finding.rule == "input-dim-changed"]
    assert "Got: 4096 Expected: 2048" in found.witness


def test_renamed_symbols_alone_change_nothing_for_a_caller(magika: Path) -> None:
    old, new = (
        onnx_format.signature_of(onnx.load(model(magika, generation)), generation) for generation in ("v3_0", "v3_3")
    )
    assert old != new
    assert changes.compare(old, new).changes == ()
    assert compare_labels(labels(magika, "v3_0"), labels(magika, "v3_3")) == []


def test_a_model_against_itself_gives_no_finding_above_a_remark(magika: Path, tmp_path: Path) -> None:
    assert [f.rule for f in files(magika, "v3_3", "v3_3").findings] == ["weights-unchanged"]
    again = onnx.load(model(magika, "v3_3"))
    again.producer_name = "another"
    (tmp_path / "again.onnx").write_bytes(again.SerializeToString())
    report = check.check_compat(str(model(magika, "v3_3")), str(tmp_path / "again.onnx"), repo=tmp_path)
    assert (report.verdict, report.required_bump, report.cases_run) == (Verdict.COMPATIBLE, Bump.PATCH, 16)
    assert {finding.rule for finding in report.findings} == {"golden-identical", "goldens-missing"}


def test_the_keras_checkpoint_of_the_same_network_is_compared_by_its_tensors(magika: Path) -> None:
    path = str(magika / "standard_v1" / "model.h5")
    assert [finding.rule for finding in check.check_compat(path, path, repo=magika).findings] == ["weights-unchanged"]
    report = check.check_compat(path, str(model(magika, "v1")), repo=magika)
    assert "graph-added" in rules_of(report)
    assert {"tensor-removed", "tensor-added"} & set(rules_of(report)), "the exporter renamed the tensors"


# The published reference ----------------------------------------------------------------------------------------------


def with_answers(magika: Path) -> onnx.ModelProto:
    """v3_3 with the two answers its publisher recorded: the index of the best class and its score."""
    built = onnx.load(model(magika, "v3_3"))
    output = built.graph.output[0].name
    axis = helper.make_tensor("class_axis", onnx.TensorProto.INT64, [1], [1])
    opset = next(entry.version for entry in built.opset_import if entry.domain == "")
    reduce = (
        helper.make_node("ReduceMax", [output, "class_axis"], ["score"], keepdims=0)
        if opset >= 18
        else helper.make_node("ReduceMax", [output], ["score"], axes=[1], keepdims=0)
    )
    if opset >= 18:
        built.graph.initializer.append(axis)
    built.graph.node.extend([helper.make_node("ArgMax", [output], ["best"], axis=1, keepdims=0), reduce])
    built.graph.output.extend(
        [support.value_info("best", "int64", [None]), support.value_info("score", "float32", [None])]
    )
    return built


def reference(magika: Path) -> list[GoldenCase]:
    known = labels(magika, "v3_3")
    with np.load(magika / "standard_v3_3" / "reference.npz") as published:
        rows = zip(published["bytes"], published["label"], published["score"], strict=True)
        return [
            GoldenCase(
                f"reference/{number}",
                {"bytes": row[None]},
                {"best": np.array([known.index(str(label))]), "score": np.array([score], "float32")},
            )
            for number, (row, label, score) in enumerate(rows)
        ]


def test_the_published_reference_passes_whole_as_cases_of_one_row(magika: Path, tmp_path: Path) -> None:
    path = tmp_path / "answers.onnx"
    path.write_bytes(with_answers(magika).SerializeToString())
    signature = onnx_format.signature_of(onnx.load(path), "answers")
    exact = Gates(tolerance={"score": (0.0, 1e-6)})
    session = runtime.open_session(path)
    check = check_self(session, reference(magika), signature, exact)
    assert (check.passed, check.cases, check.failures) == (37, 37, ())


def test_the_reference_tells_another_generation_from_this_one(magika: Path, tmp_path: Path) -> None:
    other = with_answers(magika)
    previous = onnx.load(model(magika, "v3_0"))
    border = {value.name for value in (*previous.graph.input, *previous.graph.output)}
    assert border == {"bytes", "target_label"}
    extra = list(other.graph.node)[-2:]
    previous.graph.node.extend(extra)
    previous.graph.output.extend(list(other.graph.output)[-2:])
    path = tmp_path / "previous.onnx"
    path.write_bytes(previous.SerializeToString())
    signature = onnx_format.signature_of(onnx.load(path), "previous")
    check = check_self(runtime.open_session(path), reference(magika), signature, Gates())
    assert 0 < check.passed < 30, "about half of these hard rows get another answer"


# As bundles -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def history(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository for the generations, each saved with its labels and tagged with plain Git as 1.0.0, 2.0.0 ..."""
    import os

    data = Path(os.environ.get("GITMODEL_REALDATA", "../shared/data"))
    if not data.is_dir():
        pytest.skip(f"no real models at {data}: set GITMODEL_REALDATA")
    folder = tmp_path_factory.mktemp("history")
    repo = folder / "repo"
    subprocess.run(["git", "init", "-q", str(repo)], check=True)
    init.init(repo)
    support.git(repo, "commit", "-qm", "Set up")
    magika = data.resolve() / "magika"
    with np.load(magika / "standard_v3_3" / "reference.npz") as published:
        np.savez(folder / "reference.npz", bytes=published["bytes"])
    for number, generation in enumerate(("v2_0", "v2_1", "v3_0", "v3_3"), 1):
        named = folder / "labels.txt"
        named.write_text("".join(f"{label}\n" for label in labels(magika, generation)))
        golden = folder / "reference.npz" if generation.startswith("v3") else None
        save.save(NAME, [model(magika, generation)], repo=repo, labels=named, golden=golden, message=generation)
        pairs.tag(repo, f"{NAME}@v{number}.0.0")
    return repo


def step(history: Path, old: int, new: int) -> Report:
    return check.check_compat(f"{NAME}@v{old}.0.0", f"{NAME}@v{new}.0.0", repo=history)


def rules_of(report: Report) -> list[str]:
    return [finding.rule for finding in report.findings]


def test_a_label_inserted_in_the_middle_shifts_the_others(history: Path) -> None:
    report = step(history, 1, 2)
    (found,) = [finding for finding in report.findings if finding.rule == "label-inserted"]
    assert (found.new, found.witness) == ("pytorch", "")
    assert found.args["index"] < 212
    assert set(errors(report)) == {"label-inserted", "output-dim-changed"}
    assert (report.verdict, report.exit_code) == (Verdict.INCOMPATIBLE, 0), "a major version was declared"


def test_other_classes_and_another_length_are_breaks_of_their_own(history: Path) -> None:
    report = step(history, 2, 3)
    assert {"input-dim-changed", "output-dim-changed"} <= set(rules_of(report))
    assert [rule for rule in rules_of(report) if rule.startswith("label-")]
    assert report.required_bump is Bump.MAJOR


def test_a_retrained_model_is_judged_by_its_recorded_answers(history: Path) -> None:
    report = step(history, 3, 4)
    structural: Sequence[str] = [rule for rule in rules_of(report) if rule.startswith(("input-", "output-", "label-"))]
    assert structural == []
    (failed,) = [finding for finding in report.findings if finding.rule == "golden-failed"]
    assert 0.3 < failed.args["agreement"] < 0.7
    assert (report.cases_run, report.generated, report.required_bump) == (37, False, Bump.MAJOR)
    assert report.rollback_safe is True


def test_a_generation_keeps_its_own_recorded_answers(history: Path) -> None:
    report = check.check_compat(f"{NAME}@v4.0.0", NAME, repo=history)
    assert rules_of(report) == ["weights-unchanged"]
    from gitmodel import registry
    from gitmodel.workflows.judge import judge_first
    from gitmodel.workflows.workspace import Workspace

    place = Workspace.open(history)
    alone = judge_first(place, registry.working_bundle(place.repo, NAME))
    assert (alone.verdict, alone.cases_run, alone.findings) == (Verdict.COMPATIBLE, 37, ())
