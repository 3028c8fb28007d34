"""One trial: a fresh copy of the place, the command struck at one point, the rules, the same command again, the rules again."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kill_points import points, tracing
from kill_points.invariants import Sight, State, left_over, losses
from kill_points.place import BIN, Done, Place
from kill_points.points import Point
from kill_points.stages import Stage

#: What the second run may say instead of doing it again: the first had got as far as the tag.
_ALREADY = re.compile(r"^error\[(nothing-changed|version-exists)\]: ", re.MULTILINE)
_READ = """
import sys, gitmodel, numpy
rows = dict(numpy.load("../files/cases.npz"))
for reference in sys.argv[1:]:
    gitmodel.load(reference).predict(rows)
"""
_CLEAN = "Data and pipelines are up to date."


@dataclass
class Outcome:
    """``lost`` breaks a promise; ``unclear`` is an end without one clear line; ``locks`` had to be removed as told."""

    point: Point
    hit: bool = False
    code: int = 0
    said: str = ""
    lost: list[str] = field(default_factory=list)
    unclear: list[str] = field(default_factory=list)
    locks: int = 0
    again: bool = False
    left: list[str] = field(default_factory=list)

    @property
    def good(self) -> bool:
        return not self.lost and not self.unclear and self.again


def run(stage: Stage, point: Point, root: Path, *, deep: bool = False, keep: bool = False) -> Outcome:
    """Strikes ``stage.command`` at ``point`` in a new place at ``root``. ``deep`` also loads models and asks DVC."""
    place = stage.template.copy(root)
    outcome = Outcome(point)
    if point.call == points.MOMENT:
        done = place.run(stage.command.argv, kill_after=point.nth / 1000)
        outcome.hit = done.code < 0
    else:
        done = place.run(point.command_line(place, stage.command.argv))
        outcome.hit = tracing.struck(place.logs / point.log, point.call, point.nth, place.root)
    judge(stage, place, done, outcome, deep=deep)
    if not keep or outcome.good:
        place.remove()
    return outcome


def judge(stage: Stage, place: Place, done: Done, outcome: Outcome, *, deep: bool) -> None:
    """Looks at what a struck command left, then runs it again and looks at what that left."""
    sight = Sight(place, stage.before, stage.after, stage.command.forgets)
    outcome.code, outcome.said = done.code, done.said
    outcome.unclear += unclear(done, outcome.point) if outcome.hit else []
    outcome.lost += losses(sight)
    if done.code == 0:
        outcome.lost += [f"said it was done, but {line}" for line in _differences(stage, place)]
    if deep:
        outcome.lost += _unreadable(place)
        outcome.lost += unsound(place, stage.sound)
    (place.root / "bin" / "git").unlink(missing_ok=True)
    again = _again(stage, place, outcome)
    outcome.again = _is_well(again)
    if not outcome.again:
        outcome.lost.append(f"run again: {again.code}: {again.said}")
    wrong = [*losses(sight), *_differences(stage, place)]
    if deep:
        wrong += unsound(place, stage.sound[1:])
        if _CLEAN not in (status := place.run([str(BIN / "dvc"), "status"])).out:
            wrong.append(f"dvc status says: {status.said}")
    outcome.lost += [f"run again: {line}" for line in wrong]
    outcome.left = left_over(place)


def unsound(place: Place, allowed: Sequence[int]) -> list[str]:
    """What ``gitmodel fsck`` finds that it does not find in an undisturbed place."""
    done = place.gitmodel("fsck")
    return [] if done.code in allowed else [f"gitmodel fsck: {done.code}: {done.said}"]


def _differences(stage: Stage, place: Place) -> Iterator[str]:
    return stage.after.differences(State.of(place), exactly=stage.command.forgets)


def unclear(done: Done, point: Point) -> list[str]:
    """What is wrong with the way a command ended: a traceback, no line or an unclear one, no end at all."""
    if done.hung:
        return ["it hung"]
    if point.fault == points.INTERRUPT and "Exception ignored" in done.err:
        return []  # Python's own words where it was in the midst of tidying up; nothing to be done about it
    found = [word for word in ("Traceback", "Exception ignored", "error[internal]") if word in done.err]
    if point.fault not in points.SIGNALS or (done.code > 0 and point.fault != points.INTERRUPT):
        told = [line for line in done.err.splitlines() if line.startswith("error[")]
        if done.code and len(told) != 1:
            found.append(f"exit code {done.code} with {len(told)} error lines")
    return [f"{what}: {done.said}" for what in found]


def _again(stage: Stage, place: Place, outcome: Outcome) -> Done:
    """The same command; when it says that a lock of Git's is in the way, as a killed Git leaves it, that is removed first."""
    again = place.run(stage.command.argv)
    while not _is_well(again) and (locks := place.locks()) and not again.hung:
        named = [lock for lock in locks if lock.name in again.err]
        if not named:
            outcome.unclear.append(f"'{locks[0].name}' is in the way and not named: {again.said}")
        for lock in named or locks:
            lock.unlink()
            outcome.locks += 1
        again = place.run(stage.command.argv)
    return again


def _is_well(again: Done) -> bool:
    return again.code == 0 or _ALREADY.search(again.err) is not None


def _unreadable(place: Place) -> list[str]:
    tags = [line.split()[0].removeprefix("refs/tags/") for line in State.of(place).versions]
    references = [tag for tag in tags if "@" in tag]
    done = place.run([str(BIN / "python"), "-W", "ignore", "-c", _READ, *references, "fraud@HEAD"])
    return [f"not readable: {done.said}"] if done.code else []
