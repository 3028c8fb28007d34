"""Where a command can be struck: a fault, the system call it falls on, the how-manieth, in gitmodel itself or in a Git it starts."""

from __future__ import annotations

import shutil
import subprocess
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from kill_points import tracing
from kill_points.place import Place, real_git

#: What is done, and what strace is told.
KILL, INTERRUPT, TERMINATE, NO_SPACE, BAD_DISK, FULL = "kill", "interrupt", "terminate", "nospace", "eio", "full"
_TOLD = {
    KILL: "signal=SIGKILL", INTERRUPT: "signal=SIGINT", TERMINATE: "signal=SIGTERM",
    NO_SPACE: "error=ENOSPC", BAD_DISK: "error=EIO",
}  # fmt: skip
FAULTS = (*_TOLD, FULL)
#: In place of a system call: a moment, ``nth`` milliseconds after the start; then gitmodel and all it started die at once.
MOMENT = "moment"
SIGNALS = {KILL, INTERRUPT, TERMINATE}
#: Who is struck: gitmodel (a Git it started lives on), one Git (gitmodel has to tell), or both at the same moment.
OWN, GIT, BOTH = "gitmodel", "git", "both"

_TAKES_SPACE = {
    "open", "openat", "creat", "write", "pwrite64", "writev", "pwritev", "copy_file_range", "sendfile", "mkdir",
    "mkdirat", "fsync", "fdatasync", "ftruncate", "fallocate", "rename", "renameat", "renameat2", "link", "linkat",
    "symlink", "symlinkat",
}  # fmt: skip
_TOUCHES_DISK = {
    "read", "pread64", "write", "pwrite64", "writev", "pwritev", "copy_file_range", "fsync", "fdatasync", "rename",
    "renameat", "renameat2",
}  # fmt: skip
#: A full disk stays full. Not for calls that also print the message or open what is read: there one fails.
_LASTING = {"pwrite64", "copy_file_range", "mkdir", "mkdirat", "fsync", "fdatasync", "ftruncate", "fallocate"}
CALLS = {KILL: set(tracing.CHANGING), NO_SPACE: _TAKES_SPACE, BAD_DISK: _TOUCHES_DISK}
#: How many times rarer than kills: signals that can be handled, and faults in Git's own writing.
_RARER = 6
#: So many moments a command gets with ``--step 1``.
_MOMENTS = 60


@dataclass(frozen=True)
class Point:
    """``child`` is which start of Git is struck, from 1; 0 for gitmodel itself. For a full disk ``nth`` is KiB left."""

    command: str
    who: str
    child: int
    fault: str
    call: str
    nth: int

    @property
    def name(self) -> str:
        who = f"{self.who}{self.child}" if self.child else self.who
        return f"{self.command}:{who}:{self.fault}:{self.call}:{self.nth}"

    @classmethod
    def parse(cls, name: str) -> Point:
        """Raises ValueError."""
        command, who, fault, call, nth = name.split(":")
        bare = who.rstrip("0123456789")
        if bare not in (OWN, GIT, BOTH) or fault not in FAULTS:
            raise ValueError(f"'{name}' is no point")
        return cls(command, bare, int(who[len(bare) :] or 0), fault, call, int(nth))

    @property
    def told(self) -> str:
        lasting = "+" if self.fault == NO_SPACE and self.call in _LASTING else ""
        return f"{_TOLD[self.fault]}:when={self.nth}{lasting}"

    @property
    def log(self) -> str:
        return "struck"

    def command_line(self, place: Place, argv: Sequence[str]) -> list[str]:
        """``argv`` as it has to be run to be struck here. Puts a Git that is struck into the place's own PATH."""
        log = place.logs / self.log
        if self.who == OWN:
            return [*tracing.injecting(log, self.call, self.told, children=False), *argv]
        traced = " ".join(tracing.injecting(log, self.call, self.told, children=True))
        struck = f'exec {traced} {real_git()} "$@"'
        if self.who == BOTH:
            struck = f'{traced} {real_git()} "$@"; code=$?\ngrep -q "+++ killed by" {log} && kill -9 $PPID\nexit $code'
        _put_git(place, f'[ $n = {self.child} ] || exec {real_git()} "$@"\n{struck}')
        return list(argv)


def _put_git(place: Place, then: str) -> None:
    """A ``git`` that knows which start it is (``$n``): each one takes the next free number."""
    script = place.root / "bin" / "git"
    script.write_text(
        f"#!/bin/sh\nn=1\nset -C\nuntil {{ true >{place.logs}/$n; }} 2>/dev/null; do n=$((n + 1)); done\nset +C\n{then}\n"
    )
    script.chmod(0o755)


def count_own(place: Place, argv: Sequence[str]) -> list[str]:
    return [*tracing.counting(place.logs / "own", children=False), *argv]


def count_git(place: Place, argv: Sequence[str]) -> list[str]:
    traced = " ".join(tracing.counting(place.logs / "git.$n", children=True))
    _put_git(place, f'exec {traced} {real_git()} "$@"')
    return list(argv)


def found(command: str, place: Place, log: Path, who: str = OWN, child: int = 0) -> dict[str, list[Point]]:
    """The points a counting run's log shows, by fault."""
    points = defaultdict(list)
    for call in tracing.first_hits(tracing.read_log(log)):
        if tracing.matters(call, place.root):
            for fault, names in CALLS.items():
                if call.name in names:
                    points[fault].append(Point(command, who, child, fault, call.name, call.nth))
    return points


def moments(command: str, lasts: float, step: int) -> list[Point]:
    """Kills at equal distances over the ``lasts`` seconds a command takes: they meet threads in every order."""
    count = max(4, _MOMENTS // step)
    times = sorted({int(1000 * lasts * (number + 1) / count) for number in range(count)})
    return [Point(command, BOTH, 0, KILL, MOMENT, time) for time in times]


def choose(own: dict[str, list[Point]], git: Sequence[dict[str, list[Point]]], step: int) -> list[Point]:
    """Every ``step``th point of each kind; those of Git's own, of interrupts and of SIGTERM are taken more rarely."""
    kills = list(_spread(own.get(KILL, []), step))
    chosen = [*kills, *_spread(own.get(NO_SPACE, []), step), *_spread(own.get(BAD_DISK, []), step)]
    rarely = step * _RARER if step > 1 else _RARER // 2
    for offset, fault in enumerate((INTERRUPT, TERMINATE)):
        for point in own.get(KILL, [])[offset * rarely // 2 :: rarely]:
            chosen.append(Point(point.command, OWN, 0, fault, point.call, point.nth))
    started = [point for one in git for point in one.get(KILL, [])]
    chosen += started[::step]
    chosen += [Point(p.command, BOTH, p.child, p.fault, p.call, p.nth) for p in started[step // 2 :: step]]
    for fault in (NO_SPACE, BAD_DISK):
        chosen += [point for one in git for point in one.get(fault, [])][::rarely]
    return chosen


def _spread(points: Iterable[Point], step: int) -> Iterator[Point]:
    """Every ``step``th of each system call, the first one always."""
    by_call = defaultdict(list)
    for point in points:
        by_call[point.call].append(point)
    for same in by_call.values():
        yield from same[::step]


def missing_tool() -> str:
    """Why nothing can be struck here; empty when it can."""
    if shutil.which("strace") is None:
        return "strace is not installed"
    done = subprocess.run(
        ["strace", "-q", "-f", "--detach-on=execve", "-o", "/dev/null", "true"], capture_output=True, text=True, check=False
    )  # fmt: skip
    return f"strace does not work here ({done.stderr.strip()})" if done.returncode else ""
