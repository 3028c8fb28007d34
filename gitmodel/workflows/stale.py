"""Whether signature.yaml says what the model file has, where only the former changed: seen without fetching any weights."""

from __future__ import annotations

from collections.abc import Iterator

from gitmodel.bundle.bundle import ONNX_VIEW, Bundle
from gitmodel.bundle.signature import Signature
from gitmodel.compat.changes import Change
from gitmodel.errors import GitmodelError
from gitmodel.workflows.workspace import Workspace


def signature_alone(place: Workspace | None, old: Bundle, new: Bundle) -> Iterator[Change]:
    """The facts about two bundles with the same weights whose signatures differ: one of them is not the model's own.

    Which one is told by the graph if it is at hand; else by who came last. Other groups in the card are other signatures,
    not stale ones.
    """
    if old.signature == new.signature or old.signature is None or new.signature is None:
        return
    if (old.card.signature, old.card.signatures) != (new.card.signature, new.card.signatures):
        return
    own = _own(place, new) or old.signature
    for bundle, side in ((old, "old"), (new, "new")):
        if bundle.signature is not None and bundle.signature != own:
            args = {"label": bundle.label, "side": side}
            yield Change("signature-stale", "signature", own.to_dict(), bundle.signature.to_dict(), args)


def _own(place: Workspace | None, bundle: Bundle) -> Signature | None:
    """The signature of the graph, from the cache alone; None where it is not there, or is of another kind."""
    from gitmodel.formats import onnx

    entry = bundle.lock.file(ONNX_VIEW) if bundle.file is None else None
    if place is None or entry is None or bundle.card.signature in bundle.card.signatures:
        return None
    try:
        if not place.cache.has(entry) or not place.cache.fits(entry):
            return None
        return onnx.signature_of(onnx.parse(place.cache.path(entry.md5).read_bytes(), bundle.label), bundle.label)
    except (GitmodelError, OSError):
        return None
