"""strace, spoken to and read: which calls a run made, in which thread, the how-manieth of its kind, and whether it was hit.

strace counts the calls of an ``inject`` expression per thread and per system call; here they are counted the same way.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

#: Calls that change files, and how processes start and talk. A '?' keeps strace quiet where a machine lacks one.
CHANGING = (
    "open", "openat", "creat", "write", "pwrite64", "writev", "pwritev", "rename", "renameat", "renameat2", "link",
    "linkat", "symlink", "symlinkat", "unlink", "unlinkat", "rmdir", "mkdir", "mkdirat", "fsync", "fdatasync",
    "ftruncate", "truncate", "fallocate", "chmod", "fchmod", "fchmodat", "copy_file_range", "sendfile", "utimensat",
    "flock", "sendto", "sendmsg", "fork", "vfork", "clone", "clone3",
)  # fmt: skip
READING = ("read", "pread64")
_STARTS = {"fork", "vfork", "clone", "clone3"}
_OPENS = {"open", "openat", "creat"}
#: Those that name no open file but paths, which may be relative to the repository.
_BY_PATH = {"rename", "link", "symlink", "unlink", "rmdir", "mkdir", "chmod", "truncate"}
_ENTRY = re.compile(r"^(\d+) +(\w+)\((.*)$")
_RESUMED = re.compile(r"^(\d+) +<\.\.\. (\w+) resumed>(.*)$")


@dataclass
class Call:
    """One system call: ``nth`` is its number among those of this name in its thread."""

    thread: int
    name: str
    nth: int
    args: str
    result: str = "?"

    @property
    def failed(self) -> bool:
        return self.result.startswith("-1")


def strace(log: Path, *options: str, children: bool) -> list[str]:
    """The words before a command that is to run traced; ``children`` traces the programs it starts, too."""
    own = [] if children else ["--detach-on=execve"]
    return ["strace", "-q", "-f", "-y", "-s", "0", *own, "-o", str(log), *options]


def counting(log: Path, *, children: bool) -> list[str]:
    names = ",".join(f"?{name}" for name in (*CHANGING, *READING))
    return strace(log, "-e", f"trace={names}", children=children)


def injecting(log: Path, call: str, what: str, *, children: bool) -> list[str]:
    """``what`` is strace's own: ``signal=SIGKILL:when=3``."""
    return strace(log, "-e", f"trace={call}", "-e", f"inject={call}:{what}", children=children)


def read(lines: Iterable[str]) -> list[Call]:
    """The calls of a log in the order in which they began."""
    counts: Counter[tuple[int, str]] = Counter()
    found: list[Call] = []
    pending: dict[int, Call] = {}
    for line in lines:
        if match := _ENTRY.match(line):
            thread, name = int(match[1]), match[2]
            counts[thread, name] += 1
            call = Call(thread, name, counts[thread, name], match[3])
            found.append(call)
            if match[3].endswith("<unfinished ...>"):
                pending[thread] = call
            else:
                call.args, _, call.result = match[3].rpartition(" = ")
        elif match := _RESUMED.match(line):
            unfinished = pending.pop(int(match[1]), None)
            if unfinished is not None:
                rest, _, unfinished.result = match[3].rpartition(" = ")
                unfinished.args += rest
    return found


def read_log(log: Path) -> list[Call]:
    with log.open(errors="replace") as lines:
        return read(lines)


def first_hits(calls: Sequence[Call]) -> Iterator[Call]:
    """Of the calls with the same name and number in several threads, the one strace would hit: the first."""
    seen = set()
    for call in calls:
        if (call.name, call.nth) not in seen:
            seen.add((call.name, call.nth))
            yield call


def matters(call: Call, root: Path) -> bool:
    """True when the call changes something below ``root`` that is not a library's private scratch, or starts a process."""
    if call.failed:
        return False
    if call.name in _STARTS:
        return "CLONE_THREAD" not in call.args
    if call.name in _OPENS and "O_CREAT" not in call.args and call.name != "creat":
        return False
    if call.name in READING and call.result == "0":
        return False
    return inside(call.args, root) or "socket:[" in call.args or (call.name in _BY_PATH and not _absolute(call.args))


def inside(args: str, root: Path) -> bool:
    return f"{root}/" in args and f"{root}/home/" not in args and f"{root}/logs/" not in args


def _absolute(args: str) -> bool:
    return args.startswith('"/')


def struck(log: Path, name: str, nth: int, root: Path) -> bool:
    """True when the run came to that call, and every call that was struck is one that matters.

    Threads may come to it in another order than in the counting run, and an error falls on each that comes so far.
    """
    if not log.exists():
        return False
    calls = read_log(log)
    hits = [call for call in calls if call.result.endswith("(INJECTED)")]
    hits = hits or [call for call in calls if (call.name, call.nth) == (name, nth)][:1]
    for call in hits:
        call.result = "?"  # what it would have been
    return bool(hits) and all(matters(call, root) for call in hits)
