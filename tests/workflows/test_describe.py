"""The small files a save writes: what a person wrote stays, what is read from a model is told, YAML is read strictly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gitmodel.bundle import yamlio
from gitmodel.bundle.card import Card, Gates, Group
from gitmodel.bundle.signature import Signature, Signatures, TensorSpec
from gitmodel.bundle.yamlio import InvalidYaml
from gitmodel.workflows import describe
from gitmodel.workflows.reading import UnclearFiles

MADE = ("onnx", "tests 1.0")
X = TensorSpec("x", "float32", ("batch", 4))
SIGNATURES = Signatures({"default": Signature((X,), (X,)), "embed": Signature((X,), (X,))})


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "fraud"
    path.mkdir()
    return path


def card_of(texts: dict[str, bytes]) -> Card:
    return Card.from_yaml(texts["model.yaml"], "model.yaml")


# The card and the signatures ------------------------------------------------------------------------------------------


def test_a_model_without_a_card_gets_one_of_its_name(folder: Path) -> None:
    assert describe.card_in(folder, "fraud") == Card("fraud")
    texts = describe.described(folder, Card("fraud"), MADE, SIGNATURES, "")
    assert set(texts) == {"model.yaml", "signature.yaml"}
    assert card_of(texts) == Card("fraud", format="onnx", framework="tests 1.0")


def test_every_signature_is_written(folder: Path) -> None:
    texts = describe.described(folder, Card("fraud"), MADE, SIGNATURES, "")
    assert Signatures.from_yaml(texts["signature.yaml"], "signature.yaml") == SIGNATURES


def test_a_card_that_says_the_same_is_left_as_a_person_laid_it_out(folder: Path) -> None:
    (folder / "model.yaml").write_text(
        "# ours\nname: fraud\nschema_version: 1\nframework: tests 1.0\nformat: onnx\nsignatures: {embed: {outputs: [x]}}\n"
    )
    card = describe.card_in(folder, "fraud")
    assert card.signatures == {"embed": Group(outputs=("x",))}
    assert set(describe.described(folder, card, MADE, SIGNATURES, "")) == {"signature.yaml"}
    assert set(describe.described(folder, card, MADE, SIGNATURES, card.description)) == {"signature.yaml"}


def test_what_a_person_wrote_into_the_card_stays_when_the_rest_changes(folder: Path) -> None:
    card = Card("fraud", "Finds fraud.", "hdf5", "keras", "MIT", "embed", Gates(agreement=0.99), {"embed": Group()})
    (folder / "model.yaml").write_text(card.to_yaml())
    told = card_of(describe.described(folder, describe.card_in(folder, "fraud"), MADE, SIGNATURES, "Finds more."))
    assert told == Card(
        "fraud", "Finds more.", "onnx", "tests 1.0", "MIT", "embed", Gates(agreement=0.99), {"embed": Group()}
    )


def test_a_card_that_cannot_be_read_is_refused(folder: Path) -> None:
    (folder / "model.yaml").write_text("name: fraud\n")
    with pytest.raises(InvalidYaml, match=r"fraud/model\.yaml has schema_version None"):
        describe.card_in(folder, "fraud")


# Params and metrics ---------------------------------------------------------------------------------------------------


def test_nothing_given_is_nothing_written() -> None:
    assert describe.yaml_text(None, "params") is None


@pytest.mark.parametrize("value", [{}, {"depth": 3}, {"rate": 1e-3, "mode": "no", "layers": [64, {"units": 3}]}])
def test_a_mapping_and_a_file_of_it_give_the_same_text(tmp_path: Path, value: dict[str, Any]) -> None:
    path = tmp_path / "params.yaml"
    path.write_text(yamlio.dump(value))
    text = describe.yaml_text(value, "params")
    assert text is not None
    assert describe.yaml_text(path, "params") == describe.yaml_text(str(path), "params") == text
    assert yamlio.load_mapping(text, "params") == value


@pytest.mark.parametrize(
    ("text", "said"), [("a: 1\na: 2\n", "'a' stands twice"), ("- 1\n", "mapping"), ("a: !!python/object:os.x {}\n", "")]
)
def test_a_file_is_read_strictly(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "params.yaml").write_text(text)
    with pytest.raises(InvalidYaml, match=f"params.yaml.*{said}"):
        describe.yaml_text(tmp_path / "params.yaml", "params")


@pytest.mark.parametrize("path", ["absent.yaml", "."])
def test_a_file_that_is_none_is_refused(tmp_path: Path, path: str) -> None:
    with pytest.raises(UnclearFiles, match="there is no metrics file"):
        describe.yaml_text(tmp_path / path, "metrics")


# What DVC is told -----------------------------------------------------------------------------------------------------


def test_dvc_is_told_of_what_is_given_and_of_what_is_there(folder: Path) -> None:
    assert describe.dvc_yaml(folder, {"params.yaml": None, "metrics.yaml": None}) == {}
    both = {"dvc.yaml": b"params:\n- params.yaml\nmetrics:\n- metrics.yaml\n"}
    assert describe.dvc_yaml(folder, {"params.yaml": b"", "metrics.yaml": b"{}\n"}) == both
    (folder / "metrics.yaml").write_text("accuracy: 0.9\n")
    assert describe.dvc_yaml(folder, {"params.yaml": b"a: 1\n"}) == both
    assert describe.dvc_yaml(folder, {}) == {"dvc.yaml": b"metrics:\n- metrics.yaml\n"}


def test_only_our_own_text_is_replaced(folder: Path) -> None:
    ours = {"dvc.yaml": b"params:\n- params.yaml\n"}
    for text in (b"params:\n- params.yaml\n", b"metrics:\n- metrics.yaml\n"):
        (folder / "dvc.yaml").write_bytes(text)
        assert describe.dvc_yaml(folder, {"params.yaml": b""}) == ours
    (folder / "dvc.yaml").write_bytes(b"# ours\nparams:\n- params.yaml\n")
    assert describe.dvc_yaml(folder, {"params.yaml": b""}) == {}


# Assets ---------------------------------------------------------------------------------------------------------------


def test_assets_keep_their_names_and_labels_have_theirs(tmp_path: Path) -> None:
    words, tokens = tmp_path / "words.txt", tmp_path / "tokens.json"
    for path in (words, tokens):
        path.write_text("")
    assert describe.assets_of([], None) == {}
    assert describe.assets_of([str(tokens)], words) == {"assets/tokens.json": tokens, "assets/labels.txt": words}


@pytest.mark.parametrize(
    ("missing", "said"),
    [
        ("absent", "there is no file"),
        (".", "is a folder: name the files in it"),
        ("/dev/null", "is no regular file"),
    ],
)
def test_an_asset_that_is_no_file_is_refused(tmp_path: Path, missing: str, said: str) -> None:
    with pytest.raises(UnclearFiles, match=said):
        describe.assets_of([tmp_path / missing], None)
    with pytest.raises(UnclearFiles, match=said):
        describe.assets_of([], tmp_path / missing)


@pytest.mark.parametrize("data", [b"cat\ndog\xff\n", b"\x08\x0a\x12\x05torch", b"cat\0dog", "cat".encode("utf-16")])
def test_labels_that_are_no_text_are_refused(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "names.txt"
    path.write_bytes(data)
    with pytest.raises(UnclearFiles, match=r"names\.txt is no text in UTF-8: give the class names, one per line"):
        describe.assets_of([], path)
    assert describe.assets_of([path], None), "any other asset may be anything"


@pytest.mark.parametrize("text", ["", "cat\r\ndog\ttame\r\n", "\ufeffkatze\n👩\u200d🚀\n"])
def test_labels_may_be_any_text(tmp_path: Path, text: str) -> None:
    path = tmp_path / "labels.txt"
    path.write_bytes(text.encode())
    assert describe.assets_of([], path) == {"assets/labels.txt": path}


def test_two_assets_of_one_name_are_refused(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "labels.txt").write_text(name)
    one, two = tmp_path / "a" / "labels.txt", tmp_path / "b" / "labels.txt"
    with pytest.raises(UnclearFiles, match=r"a/labels\.txt and .*b/labels\.txt would both be assets/labels\.txt"):
        describe.assets_of([one, two], None)
    with pytest.raises(UnclearFiles, match=r"would both be assets/labels\.txt"):
        describe.assets_of([one], two)
