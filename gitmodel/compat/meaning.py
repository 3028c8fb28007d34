"""Facts about what the cards and params.yaml say: preparation, thresholds, the words for values. Pure, as changes.py."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from gitmodel.bundle.meaning import Meaning
from gitmodel.bundle.signature import Signature
from gitmodel.compat.changes import Change

#: How many keys a message names; all of them are in the finding.
SHOWN = 6


def compare(old: Meaning, new: Meaning, signature: Signature | None) -> Iterator[Change]:
    """What OLD's card said and NEW's says otherwise; ``signature`` is OLD's. What is said for the first time changes nothing
    for anybody, preparation excepted: whoever guessed it may have guessed another."""
    yield from _preprocessing(old, new)
    if old.postprocessing and (moved := differences(old.postprocessing, new.postprocessing)):
        yield _moved("postprocessing-changed", "card.postprocessing", moved, {"file": "model.yaml"})
    yield from _words(old.meaning, new.meaning, {spec.name for spec in signature.inputs} if signature else set())
    if old.labels_extensible != new.labels_extensible:
        args = {"extensible": new.labels_extensible}
        yield Change(
            "labels-extensible-changed", "card.labels_extensible", old.labels_extensible, new.labels_extensible, args
        )


def compare_params(old: Mapping[str, Any], new: Mapping[str, Any], at_inference: Collection[str]) -> Iterator[Change]:
    """What ``params.yaml`` says otherwise; ``at_inference`` are the keys that act when the model is called. There may be
    hundreds of the others, so they are one fact."""
    moved = differences(old, new)
    acting = {key for key in moved if any(key == name or key.startswith(f"{name}.") for name in at_inference)}
    for key in sorted(acting):
        before, after = moved[key]
        yield Change("inference-hyperparameter-changed", f"params.{key}", before, after, {"name": key})
    if rest := {key: pair for key, pair in moved.items() if key not in acting}:
        yield _moved("hyperparameter-changed", "params.yaml", rest, {})


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """What differs between two free mappings, by dotted key, in the order of OLD's keys; None where one has nothing."""
    before, after = _flat(old), _flat(new)
    return {
        key: (before.get(key), after.get(key))
        for key in [*before, *(key for key in after if key not in before)]
        if _told(before, key) != _told(after, key)
    }


def _told(flat: Mapping[str, Any], key: str) -> tuple[Any, ...]:
    # True equals 1 in Python, and a null equals nothing.
    return (type(flat[key]) is bool, flat[key]) if key in flat else ()


def _flat(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    out: dict[str, Any] = {}
    for key, held in value.items():
        if isinstance(held, dict) and held:
            out |= _flat(held, f"{prefix}{key}.")
        else:
            out[f"{prefix}{key}"] = held
    return out


def _preprocessing(old: Meaning, new: Meaning) -> Iterator[Change]:
    before, after = dict(old.preprocessing), dict(new.preprocessing)
    if before and after:
        before["where"], after["where"] = old.where, new.where
    if moved := differences(before, after):
        # Whether it moves out of the callers' hands, into them, or changes there: they must do something else.
        sides = {said.where for said in (old, new) if said.preprocessing}
        args = {"where": "graph" if sides == {"graph"} else "client", "first": not old.preprocessing}
        yield _moved("preprocessing-changed", "card.preprocessing", moved, args)


def _words(old: Mapping[str, str], new: Mapping[str, str], inputs: Collection[str]) -> Iterator[Change]:
    for name, words in old.items():
        other = new.get(name, "")
        if _plain(words) != _plain(other):
            side = "input" if name in inputs else "output"
            args = {"name": name, "withdrawn": not other}
            yield Change(f"{side}-semantics-changed", f"{side}s.{name}", words, other or None, args)


def _plain(words: str) -> str:
    return " ".join(words.casefold().split())


def _moved(kind: str, at: str, moved: Mapping[str, tuple[Any, Any]], args: Mapping[str, Any]) -> Change:
    shown = [f"{key} {_text(before)} to {_text(after)}" for key, (before, after) in moved.items()]
    what = ", ".join(shown[:SHOWN]) + (f" and {len(shown) - SHOWN} more" if len(shown) > SHOWN else "")
    old, new = ({key: pair[side] for key, pair in moved.items() if pair[side] is not None} for side in (0, 1))
    return Change(kind, at, old, new, {"what": what, **args})


def _text(value: Any) -> str:
    return "nothing" if value is None else f"{value}"[:60]
