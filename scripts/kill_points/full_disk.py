"""A disk that is really full: a small file system in memory, with so many KiB left, in a mount namespace of its own."""

from __future__ import annotations

import dataclasses
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

from kill_points import trial
from kill_points.place import Broken, Place, adopt_orphans
from kill_points.points import FULL, OWN, Point
from kill_points.stages import Stage
from kill_points.trial import Outcome

_ROOMY = 256 << 10
#: How many points a command gets with ``--step 1``.
_MOST = 48


def missing_tool() -> str:
    """Why no file system can be made here; empty when it can."""
    if shutil.which("unshare") is None:
        return "unshare is not installed"
    done = subprocess.run(
        [*_unshare(), "sh", "-c", "mount -t tmpfs none /mnt"], capture_output=True, text=True, check=False
    )
    return f"no file system of one's own can be mounted here ({done.stderr.strip()})" if done.returncode else ""


def points(stage: Stage, step: int) -> list[Point]:
    """From no room at all to twice as much as the command leaves, in equal steps of whole blocks."""
    count = max(4, _MOST // step)
    sizes = sorted({stage.grows * 2 * number // (count - 1) // 4 * 4 for number in range(count)})
    return [Point(stage.command.name, OWN, 0, FULL, "disk", size) for size in sizes]


def run(stage: Stage, point: Point, root: Path, *, deep: bool) -> Outcome:
    """Runs the trial in a process that alone sees the file system; it is gone with the process."""
    root.mkdir()
    (root / "asked").write_bytes(pickle.dumps((dataclasses.replace(stage, own={}, git=()), point, deep)))
    done = subprocess.run(
        [*_unshare(), sys.executable, "-m", "kill_points.full_disk", str(root)], capture_output=True, text=True, check=False
    )  # fmt: skip
    if done.returncode:
        raise Broken(f"{point.name}: {done.stderr.strip()[-500:]}")
    outcome = pickle.loads((root / "answer").read_bytes())
    shutil.rmtree(root)
    if not isinstance(outcome, Outcome):
        raise Broken(f"{point.name}: no outcome")
    return outcome


def _unshare() -> list[str]:
    return ["unshare", "--user", "--map-root-user", "--mount"]


def _inside(root: Path) -> None:
    adopt_orphans()
    stage, point, deep = pickle.loads((root / "asked").read_bytes())
    disk = root / "disk"
    disk.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={_ROOMY}k", "none", str(disk)], check=True)
    place: Place = stage.template.copy(disk / "place")
    used = _ROOMY - shutil.disk_usage(disk).free // 1024
    _resize(disk, used + point.nth)
    outcome = Outcome(point, hit=True)
    done = place.run(stage.command.argv)
    _resize(disk, _ROOMY)
    trial.judge(stage, place, done, outcome, deep=deep)
    (root / "answer").write_bytes(pickle.dumps(outcome))


def _resize(disk: Path, size: int) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}k", str(disk)], check=True)


if __name__ == "__main__":
    _inside(Path(sys.argv[1]))
