"""What two bundles promise beside their default signature, held against each other: cards, assets, params, other signatures."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from gitmodel.bundle.bundle import ASSETS, ONNX_VIEW, Bundle, view_of
from gitmodel.bundle.lock import TensorEntry
from gitmodel.bundle.signature import DEFAULT, Signature
from gitmodel.compat import assets, changes, meaning, named, states, tensors
from gitmodel.compat.changes import Change, Comparison, Tensors
from gitmodel.formats.signatures import grouped


def unknown_default(bundle: Bundle) -> str:
    """What is wrong with the signature that a card names; empty when it is there, or when there are none at all."""
    names = bundle.signatures.by_name
    if bundle.signature is not None or not names:
        return ""
    return f"model.yaml of {bundle.label} names the signature '{bundle.card.signature}', which is none of {', '.join(names)}"


def compare(old: Bundle, new: Bundle, tensors_of: Callable[[Bundle], Tensors]) -> Comparison:
    """The default signatures of two bundles that have them. Tensors are looked at only when an input is gone."""
    before, after = _signature(old), _signature(new)
    gone = {spec.name for spec in before.inputs} - {spec.name for spec in after.inputs}
    return changes.compare(before, after, tensors_of(new) if gone else {})


def of_signatures(old: Bundle, new: Bundle, comparison: Comparison) -> Iterator[Change]:
    """What callers of named signatures meet, and those who carry a state from call to call."""
    before, after = (named.Offer(bundle.signatures, bundle.card.signature) for bundle in (old, new))
    if old.file is None and new.file is None:
        held = {tensor.name: (tensor.dtype, tensor.shape) for tensor in new.lock.tensors}
        yield from named.compare(before, after, held)
        yield from _defaults(old, new)
    state = None if new.file else new.card.meaning.state
    yield from states.compare(_signature(old), _signature(new), old.card.meaning.state, state, comparison)


def of_files(old: Bundle, new: Bundle) -> Iterator[Change]:
    """What assets, cards and params say otherwise. A bare model file has none of them, so that nothing can be said."""
    if old.file is not None:
        return
    said, had = old.card.meaning, _assets(old)
    if new.file is not None:
        if lost := _lost(old, had):
            yield Change("card-not-compared", "card", None, None, {"label": new.label, "what": ", ".join(lost)})
        return
    says, has = new.card.meaning, _assets(new)
    yield from assets.compare_lists(had, has, said.labels, says.labels, extensible=said.labels_extensible)
    yield from assets.compare(had, has, {*said.labels.values(), *says.labels.values()})
    yield from meaning.compare(said, says, old.signature)
    yield from meaning.compare_params(old.params, new.params, {*said.inference_params, *says.inference_params})


def _defaults(old: Bundle, new: Bundle) -> Iterator[Change]:
    """Inputs of further graphs that may be left out and then stand for other values."""
    for name, before in old.signatures.by_name.items():
        after = new.signatures.by_name.get(name)
        own = all(bundle.lock.file(view_of(name)) for bundle in (old, new))
        if after is not None and own and name not in (DEFAULT, old.card.signature):
            held = (_own_tensors(bundle.lock.tensors, f"{name}/") for bundle in (old, new))
            yield from named.placed(tensors.compare_defaults(before, after, *held), name)


def _own_tensors(entries: Sequence[TensorEntry], prefix: str) -> list[TensorEntry]:
    """Tensors by the names a further graph has for them; what it does not share comes last, and counts."""
    own = [replace(entry, name=entry.name.removeprefix(prefix)) for entry in entries if entry.name.startswith(prefix)]
    return [*entries, *own]


def _lost(old: Bundle, had: Mapping[str, bytes]) -> list[str]:
    """What a bare file cannot be held against."""
    others = old.signatures.by_name.keys() - {old.card.signature}
    parts = {"assets": had, "the card": old.card.meaning.to_dict(), "params": old.params, "named signatures": others}
    return [name for name, held in parts.items() if held]


def _signature(bundle: Bundle) -> Signature:
    """A checkpoint without a graph takes no calls."""
    return bundle.signature or Signature((), ())


def _assets(bundle: Bundle) -> dict[str, bytes]:
    read = {path: bundle.folder.read(path) for path in bundle.folder.files(ASSETS)}
    return {path.removeprefix(f"{ASSETS}/"): data for path, data in read.items() if data is not None}


def own_signature(bundle: Bundle, whole: Signature) -> Signature:
    """The signature a bundle is called by, as its graph has it: ``whole``, or a group of it. Raises InvalidModel."""
    name = bundle.called or bundle.card.signature
    return _by_graph(bundle, whole).get(name, whole)


def stale(bundle: Bundle, whole: Signature) -> tuple[dict[str, Any], dict[str, Any] | None] | None:
    """The first signature that is another in signature.yaml than in the graph and the card's groups of it: as it is, and as
    it stands there. Raises InvalidModel."""
    for name, signature in _by_graph(bundle, whole).items():
        said = bundle.signatures.by_name.get(name)
        if said != signature:
            return signature.to_dict(), said.to_dict() if said else None
    return None


def _by_graph(bundle: Bundle, whole: Signature) -> dict[str, Signature]:
    if bundle.view != ONNX_VIEW:
        return {bundle.called or bundle.card.signature: whole}
    return {DEFAULT: whole, **grouped(whole, bundle.card.signatures, bundle.label, taken={})}


def graphs_to_replay(old: Bundle, new: Bundle) -> list[str]:
    """Signatures of both sides that the default one's replay says nothing of: they have graphs of their own, or outputs that
    the default one leaves out."""
    if old.file is not None or new.file is not None:
        return []
    kept = [name for name in old.signatures.by_name if name in new.signatures.by_name]
    return [name for name in kept if name != old.card.signature and not _covered(old, new, name)]


def _covered(old: Bundle, new: Bundle, name: str) -> bool:
    for bundle in (old, new):
        other = replace(bundle, called=name)
        if other.view != bundle.view or not set(_signature(other).outputs) <= set(_signature(bundle).outputs):
            return False
    return True
