"""Facts about what is saved beside a model: class lists of its outputs, vocabularies, thresholds, other files. Pure, as changes.py."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import replace

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
    own = compare_labels(_lines(old, LABELS), _lines(new, LABELS))
    named = (
        replace(change, at=f"labels.{output}", args={**change.args, "output": output, "of": f"output '{output}'"})
        for output, path in before.items()
        for change in compare_labels(_lines(old, path), _lines(new, after.get(output, "")))
    )
    for change in (*own, *named):
        appended = change.kind == "label-appended" and extensible
        yield replace(change, args={**change.args, "extensible": True}) if appended else change


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
