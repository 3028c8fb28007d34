"""Facts about what is saved beside a model: class lists of its outputs, vocabularies, thresholds, other files. Pure, as changes.py."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence

from msgspec.structs import replace

from gitmodel.compat import vocabulary
from gitmodel.compat.changes import Change
from gitmodel.compat.labels import compare_labels

LABELS = "labels.txt"
_THRESHOLDS = re.compile(r"thresholds?\.(?:json|ya?ml|txt|csv)")

#: Files by their path below ``assets/``.
Files = Mapping[str, bytes]


def compare(old: Files, new: Files, lists: Collection[str] = ()) -> Iterator[Change]:
    """What is gone, new or different among the files; ``lists`` are class lists, of which ``compare_lists`` speaks."""
    for path in sorted({*old, *new} - {LABELS, *lists}):
        before, after, at = old.get(path), new.get(path), f"assets/{path}"
        if before is None:
            yield Change("asset-added", at, None, path, {"name": path})
        elif after is None:
            yield Change("asset-removed", at, path, None, {"name": path})
        elif before != after:
            yield _differing(path, at, before, after)


def compare_lists(
    old: Files, new: Files, before: Mapping[str, str], after: Mapping[str, str], *, extensible: bool
) -> Iterator[Change]:
    """What happened to class lists, the model's own and those ``before`` and ``after`` name by output. Whether clients were
    told to expect new classes is for OLD's card to say."""
    lists = [("", LABELS, LABELS), *((output, path, after.get(output, "")) for output, path in before.items())]
    for output, here, there in lists:
        had, has = _lines(old, here), _lines(new, there)
        at = f"labels.{output}" if output else "labels"
        args: dict[str, object] = {"output": output, "of": f"output '{output}'"} if output else {}
        for change in compare_labels(had, has):
            told = extensible and change.kind == "label-appended"
            more = {"extensible": True, "classes": [len(had), len(has)]} if told else {}
            yield replace(change, at=at, args={**change.args, **args, **more})


def explained(found: Sequence[Change]) -> list[Change]:
    """The facts, with outputs marked that grew by the very classes that clients were told to expect."""
    told = [change for change in found if change.kind == "label-appended" and change.args.get("extensible")]
    grown = {(change.args.get("output"), *change.args["classes"]) for change in told}
    return [
        replace(change, args={**change.args, "extensible": True})
        if change.kind == "output-dim-changed"
        and grown & {(output, change.old, change.new) for output in (None, change.args["name"])}
        else change
        for change in found
    ]


def _differing(path: str, at: str, old: bytes, new: bytes) -> Change:
    args: dict[str, object] = {"name": path}
    sizes = len(old), len(new)
    if vocabulary.is_vocabulary(path):
        found = vocabulary.compare(path, old, new)
        kind = "vocabulary-appended" if found.appended else "vocabulary-changed"
        return Change(kind, at, *sizes, {**args, "what": found.what})
    if _THRESHOLDS.fullmatch(path.rpartition("/")[2].lower()):
        return Change("postprocessing-changed", at, *sizes, {"what": f"{sizes[0]} to {sizes[1]} bytes", "file": at})
    return Change("asset-changed", at, *sizes, args)


def _lines(files: Files, path: str) -> list[str]:
    return files.get(path, b"").decode(errors="replace").splitlines()
