"""Eight processes at once in one repository: each does its work or says in a line that it could not; nothing is damaged."""

from __future__ import annotations

import hashlib
import re
import subprocess
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

from kill_points import stages
from kill_points.invariants import Sight, State, losses
from kill_points.place import BIN, Place

SIZE = 8
_DIGEST = re.compile(r"sha256:([0-9a-f]{12})\b")


_SAVE = ("save", "fraud", "../files/m{n}.onnx", "-m", "{n}")
_GOLDEN = ("--golden", "../files/cases.npz")


@dataclass(frozen=True)
class Crowd:
    """The eight take ``commands`` in turn, with ``{n}`` for their numbers, in a place like ``start``.

    ``commits`` and ``versions`` are what eight successes make; -1 when that depends on who comes first.
    """

    what: str
    commands: tuple[tuple[str, ...], ...]
    start: str = "released"
    commits: int = SIZE
    versions: int = 0


def _save_old(state: int) -> tuple[str, ...]:
    return ("save", "fraud", f"../files/state{state}.onnx", "-m", "{n}")


CROWDS = (
    Crowd("eight saves of eight versions", (_SAVE,)),
    Crowd("eight saves of the same version", (("save", "fraud", "../files/two.onnx", "-m", "{n}"),), commits=1),
    Crowd("eight saves of eight models", (("save", "model{n}", *_SAVE[2:]),)),
    Crowd("eight saves that release", ((*_SAVE, *_GOLDEN, "--release", "auto"),), versions=SIZE),
    Crowd(
        "four saves of old states while four collect just these",
        (_save_old(0), stages.GC, _save_old(1), stages.GC), start="littered", commits=-1,
    ),
)  # fmt: skip


@dataclass
class Gathered:
    """What came of a crowd: how many did their work, how many said why not."""

    crowd: Crowd
    done: int = 0
    said: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)


def run(crowd: Crowd, template: Place, root: Path) -> Gathered:
    place = template.copy(root)
    for number in range(SIZE):
        stages.write_model(
            place.files / f"m{number}.onnx", 1 + (number + 1) / 10_000
        )  # none is what is released already
    before = State.of(place)
    found = Gathered(crowd)
    with ThreadPoolExecutor(SIZE) as pool:
        ended = list(pool.map(lambda number: _one(crowd, place, number), range(SIZE)))
    digests = _saved(place, "--tags" if crowd.versions else "--all")
    for number, done in enumerate(ended):
        if done.returncode == 0:
            found.done += 1
            digest = _DIGEST.search(done.stdout + done.stderr)
            if _command(crowd, number)[0] != "save":
                continue
            if digest is None or digest[1] not in digests:
                what = "version" if crowd.versions else "commit"
                found.lost.append(f"number {number} said it was done, and no {what} has its weights")
        else:
            errors = [line for line in done.stderr.splitlines() if line.startswith("error[")]
            found.said += errors
            if len(errors) != 1 or "Traceback" in done.stderr or "error[internal]" in done.stderr:
                found.lost.append(f"number {number} ended without a clear line: {done.stderr[-300:]!r}")
    after = State.of(place)
    found.lost += losses(Sight(place, before, after, forgets=stages.GC in crowd.commands))
    if after.status:
        found.lost.append(f"the working tree is left changed: {after.status!r}")
    _count(found, "commits", crowd.commits, len(after.log) - len(before.log))
    _count(found, "versions", crowd.versions, len(after.versions) - len(before.versions))
    place.remove()
    return found


def _count(found: Gathered, what: str, wanted: int, made: int) -> None:
    """All of them when all succeeded; no more, and at least one for each that did, when some were busy."""
    if wanted >= 0 and not min(wanted, found.done) <= made <= wanted:
        found.lost.append(f"{made} {what} were made by {found.done} that did their work")


def _command(crowd: Crowd, number: int) -> tuple[str, ...]:
    return crowd.commands[number % len(crowd.commands)]


def _one(crowd: Crowd, place: Place, number: int) -> subprocess.CompletedProcess[str]:
    args = [arg.format(n=number) for arg in _command(crowd, number)]
    return subprocess.run(
        [str(BIN / "gitmodel"), *args], cwd=place.repo, env=place.environment, capture_output=True, text=True, check=False
    )  # fmt: skip


def _saved(place: Place, which: str) -> set[str]:
    """The first digits of the digest of every ``weights.lock`` in the history (``--all``) or of a version (``--tags``)."""
    found = set()
    for commit in place.git("rev-list", *(["--all"] if which == "--all" else ["--tags", "--no-walk"])).split():
        for path in place.git("ls-tree", "-r", "--name-only", commit, "models").splitlines():
            if path.endswith("/weights.lock"):
                text = place.git("cat-file", "blob", f"{commit}:{path}")
                found.add(hashlib.sha256(text.encode()).hexdigest()[:12])
    return found
