"""Renamings are believed from structure until replay under them says otherwise: then one is gone and another is new. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec.structs import replace

from gitmodel.bundle.signature import Signature
from gitmodel.compat.changes import Change

#: How far values are, as a share of their own size, that have nothing to do with each other; for choices, how few stay.
WILD, FEW = 0.5, 0.5
_REFUSED = "new-error-on-accepted-input"


def settle(found: Sequence[Change], shown: Sequence[Change], new: Signature, compared: int) -> list[Change]:
    """All facts, with renamings that the replay refutes told as what they are.

    ``shown`` is what the replay said of ``compared`` outputs. An output is not the renamed one when its own values are wildly
    others; an input is not when all outputs are, or NEW refuses every case: then the replay was made under a false assumption,
    and what it said of outputs is left out. A model that was merely trained again is no such case.
    """
    wild = {change.at for change in shown if _is_wild(change)}
    refused = any(change.kind == _REFUSED for change in shown)
    inputs = [change for change in found if _is_renaming(change, "input", new)]
    if inputs and (len(wild) == compared if compared else refused):
        kept = [change for change in shown if not change.at.startswith(("outputs.", "behaviour"))]
        return [
            part for change in found for part in (_apart(change, "input", new) if change in inputs else [change])
        ] + kept
    outputs = [change for change in found if _is_renaming(change, "output", new) and change.at in wild]
    parts = [part for change in found for part in (_apart(change, "output", new) if change in outputs else [change])]
    return parts + [change for change in shown if change.at not in {change.at for change in outputs}]


def _is_wild(change: Change) -> bool:
    """Whether the replay found an output that has nothing to do with OLD's."""
    distance, agreement = change.args.get("distance", 0.0), change.args.get("agreement", 1.0)
    # Values that stand for a choice have no distance.
    return change.kind == "golden-failed" and (distance > WILD or (not distance and agreement < FEW))


def _is_renaming(change: Change, side: str, new: Signature) -> bool:
    """Whether it is one of the default signature, to a tensor the model really has: signature.yaml may be stale."""
    names = {spec.name for spec in (new.inputs if side == "input" else new.outputs)}
    return change.kind == f"{side}-renamed" and change.at.startswith(f"{side}s.") and change.new in names


def _apart(change: Change, side: str, new: Signature) -> list[Change]:
    """A renaming of that side as one removed and one added."""
    specs = new.inputs if side == "input" else new.outputs
    spec = next(spec for spec in specs if spec.name == change.new)
    kind = (
        "output-added" if side == "output" else "input-added-with-default" if spec.optional else "input-added-required"
    )
    args = {"name": spec.name, "appended": spec == specs[-1]}
    removed = replace(
        change, kind=f"{side}-removed", new=None, args={**change.args, "replayed": True, "unlike": spec.name}
    )
    return [removed, Change(kind, f"{side}s.{spec.name}", None, str(spec), args)]
