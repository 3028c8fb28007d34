"""When folders were last changed: what ``git log -1 -- PATH`` finds for each, for all of them with two questions to Git."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from msgspec import Struct

from gitmodel.git.reading import Reader


class _Commit(Struct, frozen=True):
    seconds: int
    parents: Sequence[str]


def last_changed(repo: Reader, folder: str) -> dict[str, datetime]:
    """The author's date of the commit that made each folder directly below ``folder`` what it is at HEAD: from HEAD on to the
    first parent that has the same, as long as there is one (git-log, History Simplification). Raises GitFailed."""
    history = _history(repo, folder)
    changed = _changed(repo, folder, history)
    found: dict[str, datetime] = {}
    todo = {next(iter(history)): set[str]().union(*changed.values())} if history else {}
    while todo:
        commit, names = todo.popitem()
        for parent in history[commit].parents:
            moved = names & changed[commit, parent]
            names -= moved
            if names:
                todo[parent] = names | todo[parent] if parent in todo else names
            names = moved
        found |= dict.fromkeys(names, datetime.fromtimestamp(history[commit].seconds, UTC))
    return found


def _history(repo: Reader, folder: str) -> dict[str, _Commit]:
    """The commits that count for ``folder``, HEAD's or the first one below it that does at the front. Parents are the next ones
    that count."""
    told = repo.run("rev-list", "--parents", "--format=%at", "HEAD", "--", folder).splitlines()
    pairs = zip(told[::2], told[1::2], strict=True)
    return {commit: _Commit(int(at), parents) for head, at in pairs for _, commit, *parents in [head.split()]}


def _changed(repo: Reader, folder: str, history: Mapping[str, _Commit]) -> dict[tuple[str, str], set[str]]:
    """The folders below ``folder`` in which a commit and one of its parents differ; of one without parents, all it has."""
    pairs = [(commit, parent) for commit, held in history.items() for parent in held.parents or [""]]
    told = repo.run_on(
        (f"{commit} {parent}".rstrip() for commit, parent in pairs),
        "diff-tree", "--stdin", "--root", "--always", "-r", "--no-renames", "--name-only", "-z", "--", folder,
    )  # fmt: skip
    below, answers = f"{folder}/", list[set[str]]()
    for item in filter(None, os.fsdecode(told).split("\0")):
        if not item.startswith(below):  # a commit: the next answer begins
            answers.append(set())
        elif "/" in (rest := item.removeprefix(below)):
            answers[-1].add(rest.partition("/")[0])
    return dict(zip(pairs, answers, strict=True))
