"""What changes nothing for a caller is not spoken of: the same model, exported another way."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import external_data_helper

from gitmodel import registry
from gitmodel.compat.rules import Severity
from gitmodel.compat.verdict import Report, Verdict
from gitmodel.git import Repository
from gitmodel.versions import Bump
from gitmodel.workflows import check
from tests import support
from tests.compat import pairs

#: What it runs again and again is measured by the tests of each part; tracing it would double its time.
pytestmark = pytest.mark.no_cover

Export = Callable[[onnx.ModelProto], None]


def other_symbols(model: onnx.ModelProto) -> None:
    for value in (*model.graph.input, *model.graph.output):
        held = value.type.sequence_type.elem_type if value.type.HasField("sequence_type") else value.type
        for dim in held.tensor_type.shape.dim:
            if dim.HasField("dim_param"):
                dim.dim_param = f"unk__{dim.dim_param}"


def unused_opset(model: onnx.ModelProto) -> None:
    model.opset_import.add(domain="com.example.extras", version=3)


def reordered_initializers(model: onnx.ModelProto) -> None:
    kept = list(model.graph.initializer)
    del model.graph.initializer[:]
    model.graph.initializer.extend(reversed(kept))


def other_producer(model: onnx.ModelProto) -> None:
    model.producer_name, model.producer_version, model.domain, model.model_version = "exporter", "9.9", "org.example", 7


def other_node_names(model: onnx.ModelProto) -> None:
    for index, node in enumerate(model.graph.node):
        node.name = f"node/{index}"


def other_inner_names(model: onnx.ModelProto) -> None:
    border = {value.name for value in (*model.graph.input, *model.graph.output)}
    for tensor in model.graph.initializer:
        tensor.name = tensor.name if tensor.name in border else f"weights.{tensor.name}"
    held = {tensor.name for tensor in model.graph.initializer}
    for node in model.graph.node:
        for names in (node.input, node.output):
            for index, name in enumerate(names):
                if f"weights.{name}" in held:
                    names[index] = f"weights.{name}"
                elif name and name not in border:
                    names[index] = f"inner.{name}"


def documentation(model: onnx.ModelProto) -> None:
    model.doc_string = model.graph.doc_string = "Trained on a Tuesday."
    model.graph.name = "main_graph"
    for value in (*model.graph.input, *model.graph.output):
        value.doc_string = "Says something."
    for node in model.graph.node:
        node.doc_string = "Does something."


def metadata(model: onnx.ModelProto) -> None:
    model.metadata_props.add(key="run", value="17")


def typed_fields(model: onnx.ModelProto) -> None:
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT and tensor.HasField("raw_data"):
            values = np.frombuffer(tensor.raw_data, "<f4")
            tensor.ClearField("raw_data")
            tensor.float_data.extend(values.tolist())


def reordered_nodes(model: onnx.ModelProto) -> None:
    """The last node that can run comes first, and so on."""
    made = {node_output for node in model.graph.node for node_output in node.output}
    waiting, ordered = list(model.graph.node), []
    while waiting:
        ready = next(node for node in reversed(waiting) if not made & set(node.input))
        made -= set(ready.output)
        waiting.remove(ready)
        ordered.append(ready)
    del model.graph.node[:]
    model.graph.node.extend(ordered)


def unused_initializer(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(onnx.numpy_helper.from_array(np.zeros(3, "float32"), "left over"))


def declared_inner_shapes(model: onnx.ModelProto) -> None:
    inferred = onnx.shape_inference.infer_shapes(model)
    model.graph.value_info.extend(inferred.graph.value_info)


EXPORTS: list[Export] = [
    other_symbols, unused_opset, reordered_initializers, other_producer, other_node_names, other_inner_names,
    documentation, metadata, typed_fields, unused_initializer, declared_inner_shapes,
]  # fmt: skip
#: The order of nodes can only change where there are branches.
ALL_OF_IT = [*EXPORTS, reordered_nodes]


def classifier() -> onnx.ModelProto:
    model = support.linear_model()
    for tensor in model.graph.initializer:
        tensor.raw_data = onnx.numpy_helper.to_array(tensor).tobytes()
    return model


def judged(folder: Path, old: onnx.ModelProto, new: onnx.ModelProto) -> Report:
    paths = folder / "old.onnx", folder / "new.onnx"
    for path, model in zip(paths, (old, new), strict=True):
        path.write_bytes(model.SerializeToString())
    assert paths[0].read_bytes() != paths[1].read_bytes()
    return pairs.judged(str(paths[0]), str(paths[1]), folder)


def spoken(report: Report) -> set[str]:
    return {finding.rule for finding in report.findings}


@pytest.mark.parametrize("export", EXPORTS, ids=lambda export: export.__name__)
def test_another_export_of_the_same_model_is_silent(export: Export, tmp_path: Path) -> None:
    new = classifier()
    export(new)
    report = judged(tmp_path, classifier(), new)
    assert spoken(report) == {"golden-identical", "goldens-missing"}
    assert (report.verdict, report.required_bump, report.rollback_safe) == (Verdict.COMPATIBLE, Bump.PATCH, True)


def test_nodes_in_another_order_are_silent(tmp_path: Path) -> None:
    branches = "(float[n,4] x) => (float[n,4] y) { a = Neg(x) b = Exp(a) c = Abs(x) y = Add(b, c) }"
    old, new = pairs.model(branches), pairs.model(branches)
    reordered_nodes(new)
    assert [node.op_type for node in new.graph.node] == ["Abs", "Neg", "Exp", "Add"]
    assert spoken(judged(tmp_path, old, new)) == {"golden-identical", "goldens-missing"}


def test_all_of_it_at_once_is_silent(tmp_path: Path) -> None:
    new = classifier()
    for export in ALL_OF_IT:
        export(new)
    assert spoken(judged(tmp_path, classifier(), new)) == {"golden-identical", "goldens-missing"}


#: Models that do not load, and one of unknown rank, for which nothing can be drawn.
_NOT_RUN = {
    ("model-load-failed", 1), ("input-rank-relaxed", 1), ("custom-domain-used", 1), ("external-data-escapes", 1),
    ("external-data-missing", 1), ("ir-exceeds-runtime", 1), ("ml-opset-exceeds-runtime", 1), ("op-unsupported", 1),
    ("opset-exceeds-runtime", 1),
}  # fmt: skip
_SIDES = [(rule, side) for rule in sorted(pairs.MODELS) for side in (0, 1) if (rule, side) not in _NOT_RUN]


@pytest.mark.parametrize(("rule", "side"), _SIDES, ids=str)
def test_no_model_of_any_pair_breaks_when_it_is_exported_again(rule: str, side: int, tmp_path: Path) -> None:
    old, new = (pairs.model(pairs.MODELS[rule]()[side]) for _ in range(2))
    for export in ALL_OF_IT:
        export(new)
    assert spoken(judged(tmp_path, old, new)) == {"golden-identical", "goldens-missing"}


def external(folder: Path, model: onnx.ModelProto) -> Path:
    folder.mkdir()
    onnx.save(model, str(folder / "model.onnx"), save_as_external_data=True, location="weights.bin", size_threshold=0)
    return folder / "model.onnx"


def test_weights_beside_the_file_instead_of_in_it_are_silent(tmp_path: Path) -> None:
    inside = tmp_path / "inside.onnx"
    inside.write_bytes(classifier().SerializeToString())
    outside = external(tmp_path / "outside", classifier())
    assert external_data_helper.uses_external_data(onnx.load(outside, load_external_data=False).graph.initializer[0])
    for old, new in ((inside, outside), (outside, inside)):
        assert spoken(pairs.judged(str(old), str(new), tmp_path)) == {"golden-identical", "goldens-missing"}


def test_the_same_file_with_other_weights_beside_it_is_not_silent(tmp_path: Path) -> None:
    old = external(tmp_path / "old", support.wide_model(scale=1.0, tensors=1))
    new = external(tmp_path / "new", support.wide_model(scale=-1.0, tensors=1))
    copied = external(tmp_path / "copied", support.wide_model(scale=1.0, tensors=1))
    assert old.read_bytes() == new.read_bytes()
    assert pairs.judged(str(old), str(new), tmp_path).verdict is Verdict.INCOMPATIBLE
    assert spoken(pairs.judged(str(old), str(copied), tmp_path)) == {"weights-unchanged"}


# Checkpoints ----------------------------------------------------------------------------------------------------------


def test_a_checkpoint_written_another_way_is_silent(tmp_path: Path) -> None:
    import h5py
    from safetensors.numpy import save_file

    values = {name: np.arange(64, dtype="float32").reshape(8, 8) + i for i, name in enumerate(["bias", "kernel"])}
    pairs.checkpoint(tmp_path / "old.h5", values)
    with h5py.File(tmp_path / "packed.h5", "w", track_order=True) as file:
        for name, held in reversed(values.items()):
            file.create_dataset(name, data=held, chunks=(4, 4), compression="gzip", track_times=True)
        file.attrs["framework"] = "another"
    save_file(values, tmp_path / "new.safetensors", {"format": "np"})
    for new in ("packed.h5", "new.safetensors"):
        report = check.check_compat(str(tmp_path / "old.h5"), str(tmp_path / new), repo=tmp_path)
        assert spoken(report) == {"weights-unchanged"}, new


# Bundles --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def released(repo: Path, tmp_path: Path, save_model: Callable[..., object]) -> Path:
    """``fraud@v1.0.0`` with golden cases, labels and figures."""
    from gitmodel.workflows import release

    labels = tmp_path / "labels.txt"
    labels.write_text("cat\ndog\nowl\n")
    save_model(golden=support.cases_npz(tmp_path / "cases.npz"), labels=labels, params={"depth": 3})
    release.release("fraud", repo=repo)
    return repo


def test_a_bundle_against_itself_gives_remarks_at_most(released: Path) -> None:
    for old, new in (("fraud@v1.0.0", "fraud"), ("fraud", "fraud"), ("fraud@v1.0.0", "fraud@v1.0.0")):
        report = check.check_compat(old, new, repo=released)
        assert spoken(report) == {"weights-unchanged"}
        assert (report.verdict, report.required_bump, int(report.exit_code)) == (Verdict.COMPATIBLE, Bump.NONE, 0)
        assert {finding.severity for finding in report.findings} == {Severity.INFO}


def test_the_same_model_exported_again_gives_remarks_at_most(released: Path, tmp_path: Path) -> None:
    from gitmodel.workflows import save

    new = classifier()
    for export in ALL_OF_IT:
        export(new)
    path = tmp_path / "again.onnx"
    path.write_bytes(new.SerializeToString())
    save.save("fraud", [path], repo=released, message="Export again")
    report = check.check_compat("fraud@latest", "fraud", repo=released)
    assert spoken(report) == {"golden-identical"}
    assert (report.verdict, report.cases_run, report.generated) == (Verdict.COMPATIBLE, 16, False)


def test_words_and_figures_of_the_card_are_silent(released: Path, save_model: Callable[..., object]) -> None:
    save_model(params={"depth": 3}, metrics={"accuracy": 0.9}, description="Finds fraud.", message="Words")
    assert spoken(check.check_compat("fraud@v1.0.0", "fraud", repo=released)) == {"weights-unchanged"}
    assert registry.versions(Repository.open(released), "fraud").latest is not None
