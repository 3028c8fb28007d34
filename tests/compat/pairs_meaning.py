"""Pairs of the rules about named signatures, cards, assets, vocabularies, state, parameters and tags; see pairs.py."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from tests import support
from tests.compat import pairs
from tests.compat.pairs import NAME, Sides, files, models, pair, release, repository

_NEGATE = "(float[batch,4] x) => (float[batch,4] y) { y = Neg(x) }"


def card(folder: Path, text: str) -> None:
    """Adds to the card what a person would write into it."""
    path = folder / "models" / NAME / "model.yaml"
    path.write_text(path.read_text() + text)


def asset(folder: Path, name: str, text: str | None) -> None:
    path = folder / "models" / NAME / "assets" / name
    path.parent.mkdir(exist_ok=True)
    if text is None:
        path.unlink()
    else:
        path.write_text(text)


def commit(folder: Path) -> None:
    support.git(folder, "add", "--all", "models")
    support.git(folder, "commit", "--allow-empty", "-qm", "Say more")


def released(folder: Path, text: str = "", assets: Mapping[str, str] | None = None, model: str = _NEGATE) -> str:
    """``fraud`` with a card and assets, released; returns its tag."""
    repository(folder)
    pairs.save(folder, model)
    card(folder, text)
    for name, held in (assets or {}).items():
        asset(folder, name, held)
    commit(folder)
    return release(folder)


def recarded(folder: Path, old: str, new: str) -> tuple[str, str]:
    """The same model under two cards."""
    tag = released(folder, old)
    path = folder / "models" / NAME / "model.yaml"
    path.write_text(path.read_text().replace(old, new) if old else path.read_text() + new)
    return tag, NAME


def reshelved(folder: Path, name: str, old: str | None, new: str | None) -> tuple[str, str]:
    """The same model with another asset."""
    tag = released(folder, assets={} if old is None else {name: old})
    asset(folder, name, new)
    return tag, NAME


# Signatures -----------------------------------------------------------------------------------------------------------

_TWO = "(float[batch,4] x) => (float[batch,4] y, float[batch,4] size) { y = Neg(x) size = Abs(x) }"
_EMBED = "signatures:\n  embed:\n    outputs: [size]\n"


def grouped(folder: Path, old: str, new: str, *, model: str = _TWO) -> tuple[str, str]:
    """Groups of outputs in the card, before and after; signature.yaml follows when the model is saved."""
    repository(folder)
    pairs.save(folder, model)
    card(folder, old)
    pairs.save(folder, model)
    tag = release(folder)
    path = folder / "models" / NAME / "model.yaml"
    path.write_text(path.read_text().replace(old, new) if old else path.read_text() + new)
    pairs.save(folder, model)
    return tag, NAME


@pair
def signature_removed(folder: Path) -> tuple[str, str]:
    return grouped(folder, _EMBED, "")


@pair
def signature_added(folder: Path) -> tuple[str, str]:
    return grouped(folder, "", _EMBED)


@pair
def default_signature_changed(folder: Path) -> tuple[str, str]:
    tag, _ = grouped(folder, _EMBED, _EMBED)
    path = folder / "models" / NAME / "model.yaml"
    path.write_text(path.read_text().replace("signature: default", "signature: embed"))
    return tag, NAME


# Values ---------------------------------------------------------------------------------------------------------------


@models
def input_became_constant() -> Sides:
    body = "{ y = Mul(x, scale) }"
    return (
        f"(float[batch,4] x, float[1] scale) => (float[batch,4] y) {body}",
        f"(float[batch,4] x) => (float[batch,4] y) <float[1] scale = {{2.0}}> {body}",
    )


@pair
def input_semantics_changed(folder: Path) -> tuple[str, str]:
    return recarded(folder, "meaning:\n  x: RGB from 0 to 255\n", "meaning:\n  x: RGB from 0 to 1\n")


@models
def output_semantics_changed() -> Sides:
    # Powers of two: exact on every processor.
    shares = "<float[4] share = {0.5, 0.25, 0.125, 0.125}> { zero = Sub(x, x) y = Add(zero, share) }"
    return (
        f"(float[batch,4] x) => (float[batch,4] y) {shares}",
        f"(float[batch,4] x) => (float[batch,4] y) {shares.replace('0.5', '1.0')}",
    )


@pair
def labels_extensible_changed(folder: Path) -> tuple[str, str]:
    return recarded(folder, "", "labels_extensible: true\n")


# Assets ---------------------------------------------------------------------------------------------------------------


@pair
def vocabulary_changed(folder: Path) -> tuple[str, str]:
    return reshelved(folder, "vocab.txt", "[PAD]\n[UNK]\ncat\ndog\n", "[PAD]\n[UNK]\ndog\ncat\n")


@pair
def vocabulary_appended(folder: Path) -> tuple[str, str]:
    def tokenizer(tokens: list[str]) -> str:
        model: dict[str, Any] = {"type": "WordPiece", "vocab": {token: i for i, token in enumerate(tokens)}}
        return json.dumps({"version": "1.0", "added_tokens": [], "model": model})

    return reshelved(folder, "tokenizer.json", tokenizer(["[UNK]", "cat"]), tokenizer(["[UNK]", "cat", "dog"]))


@pair
def asset_removed(folder: Path) -> tuple[str, str]:
    return reshelved(folder, "stopwords.txt", "the\n", None)


@pair
def asset_changed(folder: Path) -> tuple[str, str]:
    return reshelved(folder, "stopwords.txt", "the\n", "the\na\n")


@pair
def asset_added(folder: Path) -> tuple[str, str]:
    return reshelved(folder, "stopwords.txt", None, "the\n")


# The card and the parameters ------------------------------------------------------------------------------------------


@pair
def preprocessing_changed(folder: Path) -> tuple[str, str]:
    old = "preprocessing:\n  where: client\n  mean: [0.5, 0.5, 0.5, 0.5]\n  resize: {width: 224}\n"
    return recarded(folder, old, old.replace("224", "256"))


@pair
def postprocessing_changed(folder: Path) -> tuple[str, str]:
    return recarded(folder, "postprocessing:\n  threshold: 0.5\n", "postprocessing:\n  threshold: 0.25\n")


@models
def state_pair_changed() -> Sides:
    text = """(float[batch,4] x, float[batch,%s] h_in) => (float[batch,4] y, float[batch,%s] h_out) {
        y = Neg(x)
        h_out = Neg(h_in)
    }"""
    return text % (4, 4), text % (8, 8)


@pair
def hyperparameter_changed(folder: Path) -> tuple[str, str]:
    return _parameters(folder, "")


@pair
def inference_hyperparameter_changed(folder: Path) -> tuple[str, str]:
    return _parameters(folder, "inference_params: [temperature]\n")


def _parameters(folder: Path, said: str) -> tuple[str, str]:
    repository(folder)
    pairs.save(folder, _NEGATE)
    card(folder, said)
    path = folder / "models" / NAME / "params.yaml"
    path.write_text("depth: 3\ntemperature: 1.0\n")
    commit(folder)
    tag = release(folder)
    path.write_text("depth: 4\ntemperature: 0.5\n")
    return tag, NAME


# Checkpoints and tags -------------------------------------------------------------------------------------------------

_KERNEL = np.arange(6, dtype="float32").reshape(2, 3)


@pair
def tensor_renamed(folder: Path) -> tuple[str, str]:
    return pairs.checkpoints(folder, {"dense/kernel": _KERNEL}, {"head/kernel": _KERNEL})


@pair
def tag_content_mutated(folder: Path) -> tuple[str, str]:
    repository(folder)
    pairs.save(folder, pairs.scaled("1.0"))
    old = release(folder)
    words = support.git(folder, "tag", "-l", "--format=%(contents)", old)
    pairs.save(folder, pairs.scaled("1.0625"))
    support.git(folder, "tag", "-f", "-a", "-m", words, old)
    pairs.save(folder, pairs.scaled("1.125"))
    return old, NAME


@pair
def card_not_compared(folder: Path) -> tuple[str, str]:
    return released(folder, "postprocessing:\n  threshold: 0.5\n"), files(folder, _NEGATE, pairs.scaled("-1.0"))[1]
