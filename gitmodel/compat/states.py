"""Facts about recurrent state: outputs that callers feed back to inputs in the next call. Pure, as changes.py.

A pair is what the card's ``state`` maps, or what a convention names: an output and an input of one type and shape (symbols may
differ in name) whose names differ only in words that say before and after. Names are cut at every character that is no
letter or digit; words of ``_BEFORE`` and ``_AFTER`` are left out, and what remains must be equal: ``h_in`` and ``h_out``,
``state`` and ``new_state``, ``past_key_values.0.key`` and ``present.0.key``, ``h0`` and ``hn``. A name that fits two is no pair.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping

from msgspec import Struct

from gitmodel.bundle.signature import Dim, Signature, TensorSpec
from gitmodel.compat.changes import Change, Comparison

_BEFORE = frozenset({"in", "input", "prev", "previous", "past", "init", "initial", "last"})
_AFTER = frozenset({"out", "output", "next", "new", "present", "updated", "final"})
#: Spellings that are one word: Hugging Face's caches, PyTorch's h_0 and h_n, and Silero's stateN.
_SPELLINGS = (
    (re.compile(r"^(past|present)_key_values?(?=[._/]|$)"), r"\1"),
    (re.compile(r"^([hc])_?0$"), r"\1_init"),
    (re.compile(r"^([hc]|state)_?n$"), r"\1_next"),
)


class Pair(Struct, frozen=True):
    """An output and the input it is fed to in the next call."""

    output: TensorSpec
    input: TensorSpec


def pairs(signature: Signature, declared: Mapping[str, str]) -> list[Pair]:
    """The pairs of a signature, those the card declares first; one declared for tensors that are not there is none."""
    inputs = {spec.name: spec for spec in signature.inputs}
    found = [Pair(o, inputs[declared[o.name]]) for o in signature.outputs if declared.get(o.name) in inputs]
    taken = {name for pair in found for name in (pair.output.name, pair.input.name)}
    free = [
        Pair(output, spec)
        for output in signature.outputs
        for spec in signature.inputs
        if not taken & {output.name, spec.name} and _is_named_so(output, spec)
    ]
    lone = [p for p in free if sum(q.output == p.output or q.input == p.input for q in free) == 1]
    return found + lone


def compare(
    old: Signature, new: Signature, before: Mapping[str, str], after: Mapping[str, str] | None, comparison: Comparison
) -> Iterator[Change]:
    """What callers that carry OLD's state meet on NEW; ``before`` and ``after`` are what the cards declare, None where NEW has
    no card. Tensors that were renamed are followed: of those the renaming itself is told."""
    outputs, inputs = {s.name: s for s in new.outputs}, {s.name: s for s in new.inputs}
    for pair in pairs(old, before):
        output = outputs.get(comparison.renamed_outputs.get(pair.output.name, pair.output.name))
        fed = inputs.get(comparison.renamed_inputs.get(pair.input.name, pair.input.name))
        what = _broken(pair, output, fed)
        if not what and output and after is not None and before.get(pair.output.name) == pair.input.name:
            target = after.get(output.name)
            said = f"it is fed to '{target}' now" if target else "the card no longer says so"
            what = "" if fed and target == fed.name else said
        if what:
            args = {"name": pair.output.name, "input": pair.input.name, "what": what}
            types = [
                f"{o.type} to {i.type}" if o and i else None for o, i in ((pair.output, pair.input), (output, fed))
            ]
            yield Change("state-pair-changed", f"state.{pair.output.name}", types[0], types[1], args)


def _broken(pair: Pair, output: TensorSpec | None, fed: TensorSpec | None) -> str:
    """Why a state cannot be carried on as before; empty when it can."""
    if output is None or fed is None:
        return f"there is no {'output' if output is None else 'input'} for it any more"
    if not _takes(fed, output):
        return f"{output.type} does not fit {fed.type}"
    if not _takes(fed, pair.output):
        # Callers may keep a state over the change of versions: a stream goes on.
        return f"a state kept from before ({pair.output.type}) does not fit {fed.type}"
    return ""


def _takes(fed: TensorSpec, output: TensorSpec) -> bool:
    """Whether the input takes whatever the output gives."""
    if (fed.dtype, fed.kind, fed.key) != (output.dtype, output.kind, output.key):
        return False
    if fed.shape is None:
        return True
    if output.shape is None or len(fed.shape) != len(output.shape):
        return False
    # Two free dimensions may be the same for all we know.
    return all(not isinstance(a, int) or a == b for a, b in zip(fed.shape, output.shape, strict=True))


def _is_named_so(output: TensorSpec, spec: TensorSpec) -> bool:
    ours, theirs = _words(output.name), _words(spec.name)
    marked = set(ours) & _AFTER or set(theirs) & _BEFORE
    stems = [w for w in ours if w not in _AFTER], [w for w in theirs if w not in _BEFORE]
    same_type = (output.dtype, output.kind, output.key) == (spec.dtype, spec.kind, spec.key)
    return bool(marked and stems[0] == stems[1] != [] and same_type and _shapes_alike(output.shape, spec.shape))


def _words(name: str) -> list[str]:
    text = name.lower()
    for pattern, plain in _SPELLINGS:
        text = pattern.sub(plain, text)
    return re.findall(r"[^\W_]+", text)


def _shapes_alike(a: tuple[Dim, ...] | None, b: tuple[Dim, ...] | None) -> bool:
    if a is None or b is None or len(a) != len(b):
        return False
    return all(x == y if isinstance(x, int) or isinstance(y, int) else True for x, y in zip(a, b, strict=True))
