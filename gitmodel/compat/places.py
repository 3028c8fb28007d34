"""Where in the committed files a finding lies: from ``inputs.pixels[1]`` to a file and a line of it. Pure: it only reads bundles."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterable
from functools import cached_property

from msgspec import Struct
from msgspec.structs import replace

from gitmodel.bundle import yamlio
from gitmodel.bundle.bundle import ASSETS, CARD, LABELS, LOCK, METRICS, PARAMS, SIGNATURE, Bundle
from gitmodel.bundle.signature import TensorSpec
from gitmodel.compat.rules import Finding, Place
from gitmodel.errors import GitmodelError

#: The file a place is in, by its first word; every other word is looked for in the card.
_FILES = {"params": PARAMS, "metrics": METRICS, "signature": SIGNATURE, "weights": LOCK, "behaviour": LOCK, CARD: CARD}
#: The line of a tensor's entry that a rule speaks of, by a word of the rule's name.
_ASPECTS = {"dtype": "dtype", "string": "dtype", "rank": "shape", "optional": "optional"}
_AXIS = re.compile(r"(?P<name>.*)\[(?P<index>[0-9]+)\]", re.DOTALL)


class _Spot(Struct, frozen=True):
    """A line of a file of the bundle; ``exact`` when it is the very thing, and not only what is nearest to it."""

    file: str
    line: int | None
    exact: bool = False


class Side(Struct, frozen=True, dict=True):
    """One bundle, and the folder it lies in, relative to the repository (``models/fraud``)."""

    bundle: Bundle
    root: str

    def path(self, file: str) -> str:
        return f"{self.root}/{file}" if self.root else file

    @cached_property
    def _signature_lines(self) -> dict[tuple[str | int, ...], int]:
        return self._yaml(SIGNATURE)

    @cached_property
    def _tensor_lines(self) -> dict[str, int]:
        text = (self.bundle.folder.read(LOCK) or b"").decode(errors="replace").splitlines()
        numbers = {line: number for number, line in enumerate(text, 1)}
        return {tensor.name: numbers[line] for tensor in self.bundle.lock.tensors if (line := tensor.line()) in numbers}

    def _yaml(self, file: str) -> dict[tuple[str | int, ...], int]:
        return yamlio.lines(self.bundle.folder.read(file) or b"", file)

    def spot(self, found: Finding) -> _Spot:
        """Where the finding lies in this side's files, as near as can be told."""
        head = re.split(r"[.\[]", found.at, maxsplit=1)[0]
        with contextlib.suppress(GitmodelError):
            if head in ("inputs", "outputs"):
                return self._tensor(self.bundle.card.signature, found.at, found)
            if head == "signatures":
                return self._named(found)
            if head == "labels":
                return self._label(found)
            if head == "tensors":
                return self._stored(found.at.removeprefix("tensors."))
            return self._file(found, head)
        return _Spot(CARD, 1)

    def _tensor(self, signature: str, at: str, found: Finding) -> _Spot:
        side, _, rest = at.partition(".")
        lines, path = self._signature_lines, ("signatures", signature, side)
        if not rest:
            return _Spot(SIGNATURE, lines.get(path, 1), exact=path in lines)
        called = self.bundle.signatures.by_name.get(signature)
        index, axis = _index(getattr(called, side) if called else (), rest, found.new)
        if index is None:
            return _Spot(SIGNATURE, lines.get(path, lines.get(path[:2], 1)))
        whole = (*path, index)
        aspect = next((_ASPECTS[word] for word in found.rule.split("-") if word in _ASPECTS), "")
        finer = (*whole, "shape", axis) if axis is not None else (*whole, aspect)
        return _Spot(SIGNATURE, lines.get(finer, lines.get(whole, 1)), exact=True)

    def _named(self, found: Finding) -> _Spot:
        rest = found.at.partition(".")[2]
        lines = self._signature_lines
        for name in sorted(self.bundle.signatures.by_name, key=len, reverse=True):
            if rest == name:
                return _Spot(SIGNATURE, lines.get(("signatures", name), 1), exact=True)
            if rest.startswith((f"{name}.inputs", f"{name}.outputs")):
                return self._tensor(name, rest[len(name) + 1 :], found)
        return _Spot(SIGNATURE, lines.get(("signatures",), 1))

    def _label(self, found: Finding) -> _Spot:
        index = found.args.get("index")
        labels = self.bundle.labels
        if not labels:
            return _Spot(CARD, 1)
        # The index of a label that is gone counts in OLD's list.
        value = found.old if found.new is None else found.new
        if isinstance(index, int) and index < len(labels) and (labels[index] == value or not isinstance(value, str)):
            return _Spot(LABELS, index + 1, exact=True)
        return _Spot(LABELS, min(index, len(labels) - 1) + 1 if isinstance(index, int) else 1, exact=index is None)

    def _stored(self, name: str) -> _Spot:
        return _Spot(LOCK, self._tensor_lines.get(name, 1), exact=name in self._tensor_lines)

    def _file(self, found: Finding, head: str) -> _Spot:
        """A key of one of the YAML files, or a file as a whole."""
        at = found.at
        if head.startswith(ASSETS):
            path = at.replace(f"{ASSETS}.", f"{ASSETS}/", 1)
            kept = path in self.bundle.folder.files(ASSETS)
            return _Spot(path, 1, exact=True) if kept else _Spot(CARD, 1)
        if at.startswith(f"{CARD}."):
            head = CARD
        file = CARD if at.startswith(CARD) else _FILES.get(head, CARD)
        if file == LOCK:
            return _Spot(LOCK, 1, exact=True)
        # What a rule about the card is about stands first in its name: gates-changed.
        rest = found.rule.split("-")[0] if at == CARD else at.removeprefix(f"{head}." if head in _FILES else "")
        return _key(file, self._yaml(file), rest)


def _key(file: str, lines: dict[tuple[str | int, ...], int], key: str) -> _Spot:
    """The line of a dotted key, or of the longest part of it there is."""
    named = {_joined(path): line for path, line in lines.items()}
    part = key
    while part:
        if part in named:
            return _Spot(file, named[part], exact=part == key)
        part = part[: max(part.rfind("."), part.rfind("["), 0)]
    return _Spot(file, 1)


def _joined(path: Iterable[str | int]) -> str:
    text = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in path)
    return text.removeprefix(".")


def _index(specs: Iterable[TensorSpec], rest: str, new: object) -> tuple[int | None, int | None]:
    """Which of the tensors is meant, and which of its dimensions; a renamed one is looked for by its new name, too."""
    names = [spec.name for spec in specs]
    if rest in names:
        return names.index(rest), None
    match = _AXIS.fullmatch(rest)
    if match and match["name"] in names:
        return names.index(match["name"]), int(match["index"])
    return (names.index(new), None) if isinstance(new, str) and new in names else (None, None)


def fill(findings: Iterable[Finding], old: Side | None, new: Side | None) -> tuple[Finding, ...]:
    """The findings with their places: in NEW's files, else in OLD's and said so, else the top of NEW's."""
    return tuple(replace(found, place=_place(found, old, new)) for found in findings)


def _place(found: Finding, old: Side | None, new: Side | None) -> Place | None:
    if new is None:
        return None if old is None else _at(old, old.spot(found), "old")
    if new.bundle.file is not None:
        return Place(str(new.bundle.file))
    here = new.spot(found)
    if not here.exact and old is not None and old.bundle.file is None:
        there = old.spot(found)
        if there.exact:
            nearest = here.line if here.file == there.file else None
            return replace(_at(old, there, "old"), nearest=nearest)
    return _at(new, here, "new")


def _at(side: Side, spot: _Spot, word: str) -> Place:
    if side.bundle.file is not None:
        return Place(str(side.bundle.file), side=word)
    return Place(side.path(spot.file), spot.line, word)
