"""Whether and how OLD's calls can be made on NEW: which facts stop them, which tensors live on under another name or type."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from msgspec import Struct, field

from gitmodel.bundle.signature import Signature
from gitmodel.compat.changes import Change, Comparison

if TYPE_CHECKING:
    import numpy as np

#: Facts about an input after which OLD's calls cannot be made on NEW, so that nothing is left to replay.
_STOPPERS = (
    "input-added-required", "input-removed", "input-became-constant", "input-became-required", "input-dtype-changed", "input-rank-changed",
    "input-dim-fixed", "input-dim-changed", "value-kind-changed", "string-tensor-changed",
)  # fmt: skip
#: Facts about an output after which its values say nothing of their own.
_INCOMPARABLE = (
    "output-dtype-changed", "output-rank-changed", "output-dim-changed", "value-kind-changed", "string-tensor-changed",
)  # fmt: skip


#: Facts about a class list after which decisions say nothing of their own.
_RELABELLED = (
    "label-appended", "label-inserted", "label-removed", "label-renamed", "label-reordered", "labels-removed",
)  # fmt: skip


class Bridge(Struct, frozen=True):
    """How an OLD call is made on NEW: tensors that live on under another name, inputs that are cast to a wider type.

    ``classes`` are how many there were and are, by output (``*`` for all), where clients were told that there may be more.
    """

    inputs: Mapping[str, str] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)
    casts: Mapping[str, str] = field(default_factory=dict)
    classes: Mapping[str, tuple[int, int]] = field(default_factory=dict)

    def call(self, inputs: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {
            self.inputs.get(name, name): value.astype(self.casts[name]) if name in self.casts else value
            for name, value in inputs.items()
        }

    def answer(self, output: str, before: Any, after: Any) -> Any:
        """NEW's value of one of OLD's outputs as a client reads it who knows OLD's classes: those that came after are left out."""
        counts = self.classes.get(output, self.classes.get("*"))
        if counts is None:
            return after
        if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
            return [_known(*rows, counts) for rows in zip(before, after, strict=True)]
        shapes = getattr(before, "shape", ()), getattr(after, "shape", ())
        if shapes[0] == shapes[1] or len(shapes[0]) != len(shapes[1]):
            return after
        grown = [axis for axis, pair in enumerate(zip(*shapes, strict=True)) if pair == counts]
        return after.take(range(counts[0]), axis=grown[-1]) if grown else after


def over(comparison: Comparison, found: Iterable[Change] = ()) -> Bridge:
    """The bridge these changes allow. An input that became wider is cast: a front end that casts (JSON) goes on
    calling, so the values must still be right."""
    widened = (c for c in comparison.changes if c.kind == "input-dtype-changed" and _is_widened(c))
    casts = {str(change.args["name"]): str(change.new) for change in widened}
    told = (change for change in found if change.kind == "label-appended" and change.args.get("extensible"))
    classes = {str(c.args.get("output", "*")): (int(c.args["classes"][0]), int(c.args["classes"][1])) for c in told}
    return Bridge(comparison.renamed_inputs, comparison.renamed_outputs, casts, classes)


def stops(found: Iterable[Change]) -> bool:
    """Whether OLD's calls cannot be made on NEW at all."""
    return any(_stops(change) for change in found)


def incomparable(old: Signature, found: Sequence[Change]) -> set[str]:
    """Outputs whose values cannot be held side by side: another shape, type or class list says so already."""
    found = [change for change in found if not change.args.get("extensible")]
    relabelled = [change for change in found if change.kind in _RELABELLED]
    if any("output" not in change.args for change in relabelled):
        return {spec.name for spec in old.outputs}
    named = {str(change.args["output"]) for change in relabelled}
    gone = (c for c in found if c.kind in _INCOMPARABLE and not _is_widened(c))
    return named | {str(change.args["name"]) for change in gone if change.at.startswith("outputs.")}


def can_be_seen(change: Change) -> bool:
    """Whether the runtime refuses OLD's call because of this very change."""
    if change.kind in ("output-removed", "output-renamed", "input-renamed"):
        return True
    return change.kind in _STOPPERS and change.at.startswith("inputs.")


def _known(before: Any, after: Any, counts: tuple[int, int]) -> Any:
    """A row of a ZipMap, a map of classes to scores, with the classes OLD has."""
    maps = isinstance(before, dict) and isinstance(after, dict) and before.keys() <= after.keys()
    return {key: after[key] for key in before} if maps and (len(before), len(after)) == counts else after


def _stops(change: Change) -> bool:
    return change.kind in _STOPPERS and change.at.startswith("inputs.") and not _is_widened(change)


def _is_widened(change: Change) -> bool:
    return change.args.get("direction") == "widened"
