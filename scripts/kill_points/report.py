"""The tables: per command and system call how many points were tried, hit, lost and finished by a second run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path

from kill_points import points
from kill_points.crowd import Gathered
from kill_points.points import Point
from kill_points.stages import Stage
from kill_points.trial import Outcome

PAGE = Path(__file__).resolve().parents[2] / "docs" / "kills.md"
_COUNTED = ["points", "hit", "carried on", "stale locks", "losses", "unclear", "again ok"]
_FAULTS = {
    "kill -9": {points.KILL},
    "SIGINT, SIGTERM": {points.INTERRUPT, points.TERMINATE},
    "ENOSPC": {points.NO_SPACE, points.FULL},
    "EIO": {points.BAD_DISK},
}
_INTRODUCTION = """# Killed at every point

<!-- Written by scripts/kill-points --write, from its own run. -->

`scripts/kill-points` takes each command that writes and runs it again and again, each time in a fresh copy of a small
repository with a bare Git remote and a folder as DVC remote, and strikes it once: just before the k-th call of a system
call that changes something (`strace --inject`), with

- `kill -9`: of gitmodel, where a Git that it started lives on; of that Git, where gitmodel has to tell; of both at once; of
  gitmodel and all it started, at any moment;
- an interrupt or SIGTERM;
- ENOSPC or EIO as the answer of that call, in gitmodel or in a Git it started;
- a file system that is really full, with so many KiB left.

After each it looks, with plain Git and nothing of gitmodel's, whether these hold:

{rules}

Then the same command is run again. It must succeed, or say that all is done, and leave the same commits, tags, bundle and
objects as a run that was never disturbed; the rules must hold again. At every eighth point the versions are also loaded
and asked, and `gitmodel fsck` and `dvc status` must be content. Where a killed Git left a lock behind, gitmodel must name
it; it is removed as the message says, and counted.

A kill leaves what the kernel has; a power cut only what was synced. So the log of an undisturbed run is also read for the
order: no object gets its name before its bytes are synced, no pointer is put in place before the names of its objects are.

In the tables, *hit* are the points at which the run came to the call; *carried on* those where gitmodel succeeded in spite
of the fault (by another way, or because what failed is not needed), which is held to the same end; *unclear* those with a
traceback, no line, or several, instead of one that says what is wrong. Rows with *git* are calls of a Git that gitmodel
started.
"""


def table(rows: Iterable[Sequence[str]], first: str = "call") -> list[str]:
    header = [first, *_FAULTS, *_COUNTED[1:]]
    return [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}", *(f"| {' | '.join(row)} |" for row in rows)]


def rows(outcomes: Sequence[Outcome]) -> list[list[str]]:
    """One row per system call, gitmodel's and Git's apart, and a last one with the sums."""
    groups: dict[str, list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        groups[_where(outcome.point)].append(outcome)
    return [*(_row(where, group) for where, group in groups.items()), _row("**all**", outcomes)]


def _where(point: Point) -> str:
    if point.fault == points.FULL:
        return "disk full"
    if point.call == points.MOMENT:
        return "at any moment"
    return f"`{point.call}`" if point.who == points.OWN else f"git: `{point.call}`"


def _row(where: str, group: Sequence[Outcome]) -> list[str]:
    tried = (sum(1 for outcome in group if outcome.point.fault in faults) for faults in _FAULTS.values())
    return [where, *(str(number) if number else "" for number in tried), *map(str, _counts(group)[1:])]


def _counts(group: Sequence[Outcome]) -> list[int]:
    return [
        len(group),
        sum(outcome.hit for outcome in group),
        sum(outcome.hit and outcome.code == 0 for outcome in group),
        sum(outcome.locks for outcome in group),
        sum(bool(outcome.lost) for outcome in group),
        sum(bool(outcome.unclear) for outcome in group),
        sum(outcome.again for outcome in group),
    ]


def summary(outcomes: Sequence[Outcome]) -> str:
    """All in one line."""
    return ", ".join(f"{value} {name}" for name, value in zip(_COUNTED, _counts(outcomes), strict=True))


def page(found: Sequence[tuple[Stage, list[Outcome]]], crowds: Sequence[Gathered], rules: Iterable[str]) -> str:
    """The whole page for docs/."""
    outcomes = [outcome for _, some in found for outcome in some]
    possible = sum(len(stage.points(1)) for stage, _ in found)
    out = [_INTRODUCTION.format(rules="\n".join(f"- {rule}" for rule in rules))]
    out += [f"## In all\n\nThe run this page is of tried {len(outcomes)} points of {possible} that there are.\n"]
    overview = [_row(f"`{stage.command.name}`", some) for stage, some in found]
    out += [*table([*overview, _row("**all**", outcomes)], "command"), "\n## Eight at once\n"]
    out += ["| what | did its work | said why not | losses |", "|---|---|---|---|"]
    out += [f"| {one.crowd.what} | {one.done} | {len(one.said)} | {len(one.lost)} |" for one in crowds]
    for stage, some in found:
        out += [f"\n## {stage.command.name}\n", f"`{stage.command.shown}`\n", *table(rows(some))]
    return "\n".join(out) + "\n"
