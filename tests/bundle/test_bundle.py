"""A bundle: what its small files say, and how their absence reads."""

from __future__ import annotations

import pytest

from gitmodel.bundle.bundle import Bundle, NoBundle, NotServable
from gitmodel.bundle.folder import MemoryFolder
from gitmodel.bundle.lock import FileEntry, InvalidLock, Lock, TensorEntry
from gitmodel.bundle.signature import Signature, Signatures, TensorSpec
from gitmodel.bundle.yamlio import InvalidYaml

SHA, MD5 = "a" * 64, "b" * 32
SIGNATURE = Signature((TensorSpec("x", "float32", ("batch", 4)),), (TensorSpec("y", "float32", ("batch",)),))
GRAPH, VIEW, TENSOR = (FileEntry(p, 1, SHA, MD5) for p in ("model.onnx", "weights.h5", "tensors/w.h5"))


def bundle(**contents: str | bytes) -> Bundle:
    """File names with their dots as underscores: ``model_yaml="..."``."""
    files = {name.replace("_", "."): text for name, text in contents.items()}
    data = {name: text.encode() if isinstance(text, str) else text for name, text in files.items()}
    return Bundle("fraud", "fraud@v1.2.0", MemoryFolder(data))


def test_every_small_file_is_parsed() -> None:
    lock = Lock.of([TensorEntry("w", "float32", (4, 1), SHA, "tensors/w.h5")], [GRAPH, VIEW, TENSOR])
    made = bundle(
        model_yaml="schema_version: 1\nname: fraud\n",
        signature_yaml=Signatures({"default": SIGNATURE}).to_yaml(),
        params_yaml="rate: 1e-3",
        metrics_yaml="accuracy: 0.9",
        weights_lock=lock.to_text(),
    )
    assert made.card.name == "fraud"
    assert made.signature == SIGNATURE
    assert made.params == {"rate": 0.001}
    assert made.metrics == {"accuracy": 0.9}
    assert made.lock == lock


def test_params_metrics_and_labels_may_be_absent() -> None:
    made = bundle(model_yaml="schema_version: 1\nname: fraud\n")
    assert (made.params, made.metrics, made.labels, made.golden_paths()) == ({}, {}, [], [])


@pytest.mark.parametrize(("attribute", "file"), [("card", "model"), ("signatures", "signature"), ("lock", "weights")])
def test_a_missing_file_is_named_with_its_bundle(attribute: str, file: str) -> None:
    with pytest.raises(NoBundle, match=rf"^fraud@v1\.2\.0 has no {file}\."):
        getattr(bundle(), attribute)


def test_a_damaged_file_is_named_with_its_bundle() -> None:
    made = bundle(model_yaml="- a", weights_lock="nothing", params_yaml="[", signature_yaml="x")
    for attribute, error in (
        ("card", InvalidYaml),
        ("lock", InvalidLock),
        ("params", InvalidYaml),
        ("signatures", InvalidYaml),
    ):
        with pytest.raises(error, match=r"^fraud@v1\.2\.0: "):
            getattr(made, attribute)


def test_the_signature_is_the_one_the_card_names() -> None:
    texts = {
        "model_yaml": "schema_version: 1\nname: fraud\nsignature: other\n",
        "signature_yaml": Signatures({"default": SIGNATURE, "other": Signature((), ())}).to_yaml(),
    }
    assert bundle(**texts).signature == Signature((), ())
    assert bundle(**{**texts, "signature_yaml": Signatures().to_yaml()}).signature is None


def test_labels_are_lines_and_golden_paths_are_files_below_golden() -> None:
    files = {"assets/labels.txt": "cat\r\ndog\né".encode(), "golden/a/test_data_set_0/input_0.pb": b"", "goldenx": b""}
    made = Bundle("fraud", "fraud", MemoryFolder(files))
    assert made.labels == ["cat", "dog", "é"]
    assert made.golden_paths() == ["golden/a/test_data_set_0/input_0.pb"]


def test_a_session_needs_the_graph_and_the_tensor_files() -> None:
    made = bundle(weights_lock=Lock.of([], [GRAPH, VIEW, TENSOR]).to_text())
    assert made.graph_files() == [GRAPH, TENSOR]


def test_a_checkpoint_cannot_be_served() -> None:
    made = bundle(weights_lock=Lock.of([], [VIEW]).to_text())
    with pytest.raises(NotServable, match="checkpoint without a graph"):
        made.graph_files()
