"""Facts about class lists: what whoever reads a class by its index or by its text meets. Pure, as changes.py."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from gitmodel.compat.changes import Change


def compare_labels(old: Sequence[str], new: Sequence[str]) -> list[Change]:
    """What happened to the class list, by index; labels where there were none change nothing for anybody."""
    if not old or list(old) == list(new):
        return []
    if not new:
        return [Change("labels-removed", "labels", len(old), 0)]
    if list(new[: len(old)]) == list(old):
        return [Change("label-appended", "labels", None, new[i], {"index": i}) for i in range(len(old), len(new))]
    gone, come = Counter(old) - Counter(new), Counter(new) - Counter(old)
    differing = [i for i, (a, b) in enumerate(zip(old, new, strict=False)) if a != b]
    if len(old) == len(new) and all(old[i] in gone and new[i] in come for i in differing):
        return [Change("label-renamed", "labels", old[i], new[i], {"index": i}) for i in differing]
    changes = [Change("label-removed", "labels", x, None, {"index": i}) for i, x in _counted(old, gone)]
    changes += [Change("label-inserted", "labels", None, x, {"index": i}) for i, x in _counted(new, come)]
    kept_old = [x for i, x in enumerate(old) if (i, x) not in _counted(old, gone)]
    kept_new = [x for i, x in enumerate(new) if (i, x) not in _counted(new, come)]
    moved = [i for i, (a, b) in enumerate(zip(kept_old, kept_new, strict=True)) if a != b]
    if moved:
        changes.append(Change("label-reordered", "labels", kept_old[moved[0]], kept_new[moved[0]], {"index": moved[0]}))
    return changes


def _counted(labels: Sequence[str], surplus: Counter[str]) -> list[tuple[int, str]]:
    """The last places of the labels that are surplus, as many of each as there are too many."""
    left, found = Counter(surplus), []
    for index in range(len(labels) - 1, -1, -1):
        if left[labels[index]] > 0:
            left[labels[index]] -= 1
            found.append((index, labels[index]))
    return found[::-1]
