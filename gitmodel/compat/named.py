"""Facts about named signatures: which came, which went, and every fact about inputs and outputs of those that stayed. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from msgspec import Struct
from msgspec.structs import replace

from gitmodel.bundle.signature import Signatures
from gitmodel.compat import changes
from gitmodel.compat.changes import Change, Tensors


class Offer(Struct, frozen=True):
    """The signatures of one side, and the name of the one that callers get who name none."""

    signatures: Signatures
    default: str


def compare(old: Offer, new: Offer, tensors: Tensors | None = None) -> Iterator[Change]:
    """What callers who name a signature meet; those who name none are compared apart. A signature that is the default on
    both sides is not told twice. ``tensors`` are NEW's; a further graph's own have its name before theirs."""
    before, after = old.signatures.by_name, new.signatures.by_name
    if old.default != new.default and old.default in before and new.default in after:
        yield Change("default-signature-changed", "card.signature", old.default, new.default)
    for name, signature in before.items():
        if name not in after:
            yield Change("signature-removed", f"signatures.{name}", name, None, {"name": name})
        elif not name == old.default == new.default:
            known = {held.removeprefix(f"{name}/"): kind for held, kind in (tensors or {}).items()}
            yield from placed(changes.compare(signature, after[name], known).changes, name)
    for name in after:
        if name not in before:
            yield Change("signature-added", f"signatures.{name}", None, name, {"name": name})


def placed(found: Iterable[Change], name: str) -> Iterator[Change]:
    """Facts about a named signature, told apart from those about the default one."""
    for change in found:
        args = {**change.args, "of": f"signature '{name}'"}
        yield replace(change, at=f"signatures.{name}.{change.at}", args=args)


def lifted(change: Change, name: str) -> Change:
    """The reverse: a fact about a named signature, told as if there were no other."""
    args = {key: value for key, value in change.args.items() if key != "of"}
    return replace(change, at=change.at.removeprefix(f"signatures.{name}."), args=args)
