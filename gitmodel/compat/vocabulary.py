"""Vocabularies: which assets are one, which number stands for which token, and whether NEW's only goes on where OLD's ended.

An asset is a vocabulary by its file name: ``vocab*.txt`` (a token a line, numbered from 0), ``vocab*.json`` (a list of tokens,
or a mapping of tokens to numbers) and ``tokenizer.json`` of Hugging Face's tokenizers (``model.vocab``, which is such a mapping
or a list of [token, score], and ``added_tokens``). ``merges.txt`` belongs to one: its lines have an order, and a line more cuts
texts otherwise that were cut before, so it is never only appended.
"""

from __future__ import annotations

import json
import re
from typing import Any

from msgspec import Struct

from gitmodel.formats.declared import load_json

TOKENIZER, MERGES = "tokenizer.json", "merges.txt"
_NAMES = re.compile(r"vocab.*\.(?:txt|json)|tokenizer\.json|merges\.txt")

#: Pairs of a number and the token it stands for; a damaged list may give a number twice.
Tokens = frozenset[tuple[int, str]]


def is_vocabulary(path: str) -> bool:
    """Whether the file below ``assets/`` is one, whatever folder it is in."""
    return _NAMES.fullmatch(path.rpartition("/")[2].lower()) is not None


class Difference(Struct, frozen=True):
    """``appended`` is how many tokens NEW has beyond OLD's when nothing else differs, else 0; ``what`` says the first thing
    that does."""

    appended: int
    what: str


def compare(path: str, old: bytes, new: bytes) -> Difference:
    """How two vocabularies that are not the same file differ. One that cannot be read is another one."""
    try:
        (before, how), (after, other) = (_read(path, data) for data in (old, new))
    except (ValueError, TypeError, LookupError, RecursionError):
        return Difference(0, "it cannot be read as one")
    numbers = {number for number, _ in before}
    lost, added = sorted(before - after), sorted(after - before)
    if lost or any(number in numbers for number, _ in added):
        number = min(number for number, _ in (*lost, *added) if number in numbers)
        return Difference(0, f"{number} stands for {_said(after, number)} instead of {_said(before, number)}")
    if how != other or not added:
        return Difference(0, "texts are cut otherwise")
    return Difference(len(added), f"{len(added)} more, from {added[0][0]} on")


def _said(tokens: Tokens, number: int) -> str:
    return " and ".join(repr(token[:40]) for other, token in sorted(tokens) if other == number) or "nothing"


def _read(path: str, data: bytes) -> tuple[Tokens, str]:
    """The tokens, and all else that decides how a text is cut. Raises ValueError and kin for what is no vocabulary."""
    name = path.rpartition("/")[2].lower()
    if name == MERGES:
        return frozenset(), data.decode()
    if name == TOKENIZER:
        whole = load_json(data)
        model = dict(whole["model"])
        tokens = _tokens(model.pop("vocab")) | {
            (int(t["id"]), str(t["content"])) for t in whole.get("added_tokens", ())
        }
        return tokens, json.dumps({**whole, "model": model, "added_tokens": []}, sort_keys=True)
    if name.endswith(".json"):
        text = data.decode()
        return _tokens(load_json(f'{{"vocab": {text}}}')["vocab"]), ""
    # Tokens may be line ends of Unicode, so only the newline ends a line.
    return _tokens([line.removesuffix("\r") for line in data.decode().removesuffix("\n").split("\n")]), ""


def _tokens(vocab: Any) -> Tokens:
    if isinstance(vocab, dict):
        return frozenset((int(number), token) for token, number in vocab.items())
    return frozenset(
        (number, token if isinstance(token, str) else json.dumps(token)) for number, token in enumerate(vocab)
    )
