"""The tables: per command and system call how many points were tried, hit, lost and finished by a second run."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from kill_points import points
from kill_points.crowd import Gathered
from kill_points.points import Point
from kill_points.stages import Stage
from kill_points.trial import Outcome

PAGE = Path(__file__).resolve().parents[2] / "docs" / "kills.md"
_WHO = {points.OWN: "", points.GIT: "git: ", points.BOTH: "git and gitmodel at once: "}
_FAULTS = {
    points.KILL: "`kill -9`",
    points.INTERRUPT: "interrupt",
    points.TERMINATE: "SIGTERM",
    points.NO_SPACE: "ENOSPC",
    points.BAD_DISK: "EIO",
    points.FULL: "full disk",
}
_HEADER = ["where", "fault", "points", "hit", "carried on", "stale locks", "losses", "unclear", "again ok"]
_INTRODUCTION = """# Killed at every point

<!-- Written by scripts/kill-points --write, from its own run. -->

`scripts/kill-points` runs each command that writes, again and again, in fresh copies of a small repository with a bare Git
remote and a folder as DVC remote, and strikes it once: just before its k-th call of a system call that changes something
(`strace --inject`), with

- `kill -9` of gitmodel, where a Git that it started lives on; of that Git, where gitmodel has to tell; of both at once;
- an interrupt, a SIGTERM;
- ENOSPC or EIO as the answer of that call, in gitmodel or in a Git it started; a file system that is really full, with so
  many KiB left.

After each it looks, with plain Git and nothing of gitmodel's, that

{rules}

Then the same command is run again. It must succeed, or say that all is done, and leave the same commits, tags, bundle and
objects as one that was never disturbed. Of every eighth point the versions are also loaded and asked, and `dvc status` is
looked at. Where a killed Git left a lock behind, gitmodel must name it; it is removed as the message says, and counted.

*Points* are all of that kind that were tried; *hit* those where the run came to the call; *carried on* those where gitmodel
succeeded in spite of the fault (by another way, or because it hit something that is not needed), which is held to the same
end; *unclear* those with a traceback, no line or several instead of one that says what is wrong.
"""


def table(rows: Iterable[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(_HEADER)} |", f"|{'---|' * len(_HEADER)}", *(f"| {' | '.join(row)} |" for row in rows)]


def rows(outcomes: Sequence[Outcome]) -> list[list[str]]:
    """One row per fault and system call, and a last one with the sums."""
    groups: dict[tuple[str, str], list[Outcome]] = defaultdict(list)
    for outcome in outcomes:
        point = outcome.point
        groups[_FAULTS[point.fault], _where(point)].append(outcome)
    found = [_row(where, fault, group) for (fault, where), group in groups.items()]
    return [*found, _row("**all**", "", outcomes)]


def _where(point: Point) -> str:
    return "bytes left" if point.fault == points.FULL else f"{_WHO[point.who]}`{point.call}`"


def _row(where: str, fault: str, group: Sequence[Outcome]) -> list[str]:
    def count(wanted: Callable[[Outcome], object]) -> str:
        return str(sum(1 for outcome in group if wanted(outcome)))

    return [
        where, fault, str(len(group)), count(lambda o: o.hit), count(lambda o: o.hit and o.code == 0),
        str(sum(o.locks for o in group)), count(lambda o: o.lost), count(lambda o: o.unclear), count(lambda o: o.again),
    ]  # fmt: skip


def summary(outcomes: Sequence[Outcome]) -> str:
    """All in one line."""
    row = _row("", "", outcomes)
    parts = [f"{value} {name}" for name, value in zip(_HEADER[2:], row[2:], strict=True)]
    return ", ".join(parts)


def page(
    found: Sequence[tuple[Stage, list[Outcome]]], crowds: Sequence[Gathered], step: int, rules: Iterable[str]
) -> str:
    """The whole page for docs/."""
    outcomes = [outcome for _, some in found for outcome in some]
    out = [_INTRODUCTION.format(rules="\n".join(f"- {rule}" for rule in rules))]
    out.append(f"This page is of a run with `--step {step}`: {summary(outcomes)}.\n")
    for stage, some in found:
        out += [f"## {stage.command.name}\n", f"`{stage.command.shown}`\n", *table(rows(some)), ""]
    out += ["## Eight at once\n", "| what | did its work | said why not | losses |", "|---|---|---|---|"]
    out += [f"| {one.crowd.what} | {one.done} | {len(one.said)} | {len(one.lost)} |" for one in crowds]
    return "\n".join(out) + "\n"
