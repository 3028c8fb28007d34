"""What two bundles say, held against each other: signatures, cards, tensors, policy. What has to be run is running.py's."""

from __future__ import annotations

import contextlib
import filecmp
from collections.abc import Iterator

from gitmodel.bundle.bundle import Bundle
from gitmodel.bundle.card import Gates
from gitmodel.bundle.lock import TensorEntry
from gitmodel.compat import assets, precision, tensors
from gitmodel.compat.changes import Change, Comparison, Tensors
from gitmodel.formats.source import InvalidModel
from gitmodel.workflows import promises, remembered, stale
from gitmodel.workflows.gathered import Gathered, Stop
from gitmodel.workflows.workspace import Workspace


def compare(place: Workspace | None, old: Bundle, new: Bundle, found: Gathered) -> None:
    """Gathers all there is to say of the pair. Raises Stop, and GitmodelError for what cannot be read."""
    found.unjudged = promises.unknown_default(old) or promises.unknown_default(new)
    if found.unjudged:
        raise Stop
    if old.signature is None or new.signature is None:
        _compare_checkpoints(place, old, new, found)
        return
    same = _same_weights(old, new, found)
    comparison = _compare_promises(old, new, found)
    if same:
        found.changes.append(Change("weights-unchanged", "weights"))
        # With the same weights, and the same golden cases, there is nothing to run. NEW's gates say nothing: OLD's are used.
        if old.same_goldens(new):
            found.changes += stale.signature_alone(place, old, new)
            return
    else:
        with contextlib.suppress(InvalidModel):  # opening it, below, says more exactly what is wrong
            typed = [_tensors(side, found, digests=False) for side in (old, new)]
            found.changes += precision.compare_precision(old.signature, new.signature, *typed)
    where = remembered.entry(place.repo.state_dir, old, new, found.changes) if place else None
    if where and (shown := remembered.recall(where)):
        found.changes, found.remembered = list(shown.changes), True
        found.cases, found.generated, found.noise, found.drifts = (
            shown.cases, shown.generated, shown.noise, shown.drifts,
        )  # fmt: skip
        return
    from gitmodel.workflows import running  # a check of signatures alone runs nothing

    if same:
        found.cases = running.run_alone(place, new, found, old)
    else:
        running.run_both(place, old, new, comparison, found)
    if where:
        _remember(where, found)


def _remember(where: remembered.Entry, found: Gathered) -> None:
    if not found.unjudged and not found.models.failure:
        shown = remembered.Shown(tuple(found.changes), found.cases, found.generated, found.noise, found.drifts)
        remembered.keep(where, shown)


def compare_with_nothing(place: Workspace | None, new: Bundle, found: Gathered) -> None:
    """A bundle that has none before it: there is nothing to run it against but what it recorded of itself."""
    from gitmodel.workflows import running

    found.cases = running.run_alone(place, new, found)
    if not found.cases:
        found.changes.append(Change("goldens-missing", "golden", None, None, {"label": new.label, "cases": 0}))


def _compare_promises(old: Bundle, new: Bundle, found: Gathered) -> Comparison:
    comparison = promises.compare(old, new, lambda bundle: _by_name(bundle, found))
    found.changes += [*comparison.changes, *promises.of_signatures(old, new, comparison)]
    found.changes += [*promises.of_files(old, new), *_policy_changes(old, new)]
    found.changes = assets.explained(found.changes)
    if old.signature and new.signature and any(spec.optional for spec in old.signature.inputs):
        held = (_tensors(side, found) for side in (old, new))
        found.changes += tensors.compare_defaults(old.signature, new.signature, *held)
    return comparison


def _compare_checkpoints(place: Workspace | None, old: Bundle, new: Bundle, found: Gathered) -> None:
    if new.signature is not None:
        found.changes.append(Change("graph-added", "model"))
    elif old.signature is not None:
        found.changes.append(Change("graph-removed", "model", None, None, {"label": new.label}))
    held = (_tensors(side, found) for side in (old, new))
    found.changes += [*tensors.compare_tensors(*held), *promises.of_files(old, new)]
    if not found.changes:
        found.changes.append(Change("weights-unchanged", "weights"))
    if new.signature is not None:
        compare_with_nothing(place, new, found)


def _tensors(bundle: Bundle, found: Gathered, *, digests: bool = True) -> tuple[TensorEntry, ...]:
    """The tensors of a bundle; those of a bare file have digests only when they are asked for, as it has to be read."""
    return bundle.lock.tensors if bundle.file is None else found.models.tensors(bundle.file, digests=digests)


def _by_name(bundle: Bundle, found: Gathered) -> Tensors:
    return {tensor.name: (tensor.dtype, tensor.shape) for tensor in _tensors(bundle, found, digests=False)}


def _same_weights(old: Bundle, new: Bundle, found: Gathered) -> bool:
    if old.file is not None and new.file is not None:
        # Equal graphs may point at different external data.
        return filecmp.cmp(old.file, new.file, False) and _tensors(old, found) == _tensors(new, found)
    return old.file is None and new.file is None and old.lock.digest == new.lock.digest


def _policy_changes(old: Bundle, new: Bundle) -> Iterator[Change]:
    """The measures themselves: OLD's were used, so that a change cannot move its own goalposts."""
    if old.card.gates != new.card.gates:
        args = {"what": ", ".join(_moved_gates(old.card.gates, new.card.gates))}
        yield Change("gates-changed", "model.yaml", old.card.gates.to_dict(), new.card.gates.to_dict(), args)
    if old.golden_paths() and not old.same_goldens(new):
        yield Change("goldens-changed", "golden", None, None, {"label": old.label})


def _moved_gates(old: Gates, new: Gates) -> Iterator[str]:
    for name in ("agreement", "distance"):
        before, after = getattr(old, name), getattr(new, name)
        if before != after:
            yield f"{name} {before} to {after}"
    for output in sorted({*old.tolerance, *new.tolerance}):
        if old.tolerance.get(output) != new.tolerance.get(output):
            yield f"tolerance of {output}"
