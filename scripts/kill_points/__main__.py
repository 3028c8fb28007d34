"""``scripts/kill-points``: the command line of the harness.

scripts/kill-points                      every command, at every Nth point (some minutes)
scripts/kill-points --every              at every point (an hour or more)
scripts/kill-points --command save --step 5
scripts/kill-points --only POINT         one point again, its folder kept when something is lost
scripts/kill-points --write              also puts the tables into docs/kills.md
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from kill_points import crowd, full_disk, invariants, points, report, stages, trial
from kill_points.place import Broken, Place, adopt_orphans
from kill_points.points import FULL, Point
from kill_points.stages import COMMANDS, Stage
from kill_points.trial import Outcome

STEP = 6
#: Of so many points one is looked at with gitmodel's and DVC's own eyes, too: that takes as long as all the rest.
_DEEP = 8
#: So many lines of one point are shown.
_SHOWN = 5


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/kill-points", description="Strikes gitmodel everywhere and looks for losses."
    )
    names = [command.name for command in COMMANDS]
    parser.add_argument("--command", action="append", choices=names, help="only this one; may be repeated")
    parser.add_argument("--fault", action="append", choices=list(points.FAULTS), help="only this one; may be repeated")
    parser.add_argument("--step", type=int, default=STEP, metavar="N", help=f"every Nth point [default: {STEP}]")
    parser.add_argument("--every", action="store_true", help="the same as --step 1")
    parser.add_argument("--most", type=int, metavar="N", help="at most N points per command, evenly chosen")
    parser.add_argument(
        "--only", action="append", type=_point, metavar="POINT", help="exactly this point; may be repeated"
    )
    parser.add_argument("--list", action="store_true", help="print the points and try none")
    parser.add_argument("--no-crowd", action="store_true", help="leave out the eight at once")
    parser.add_argument("--no-points", action="store_true", help="only the eight at once")
    parser.add_argument("--jobs", type=int, default=2, metavar="N", help="so many repositories at a time [default: 2]")
    parser.add_argument("--keep", metavar="FOLDER", help="work in this new folder, and leave what a loss left")
    parser.add_argument("--write", action="store_true", help="put the tables into docs/kills.md")
    options = parser.parse_args(argv)
    options.step = 1 if options.every else max(1, options.step)
    return options


def _point(name: str) -> Point:
    try:
        return Point.parse(name)
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{name}' is no point: --list shows them") from None


def chosen(stage: Stage, options: argparse.Namespace) -> list[Point]:
    if options.only:
        return [point for point in options.only if point.command == stage.command.name]
    found = stage.points(options.step)
    if not full_disk.missing_tool():
        found += full_disk.points(stage, options.step)
    if options.fault:
        found = [point for point in found if point.fault in options.fault]
    if options.most and len(found) > options.most:
        found = [found[number * len(found) // options.most] for number in range(options.most)]
    return found


def strike(stage: Stage, point: Point, root: Path, deep: bool, keep: bool) -> Outcome:
    """One trial, whatever its kind."""
    if point.fault == FULL:
        return full_disk.run(stage, point, root, deep=deep)
    return trial.run(stage, point, root, deep=deep, keep=keep)


def tried(pool: ThreadPoolExecutor, stage: Stage, chosen: Sequence[Point], root: Path, keep: bool) -> Iterator[Outcome]:
    waiting = [
        pool.submit(strike, stage, point, root / f"{stage.command.name}-{number}", number % _DEEP == 0, keep)
        for number, point in enumerate(chosen)
    ]
    try:
        for future in as_completed(waiting):
            yield future.result()
    finally:
        for future in waiting:
            future.cancel()  # those not begun, when this was interrupted


def tell(outcome: Outcome) -> None:
    point = outcome.point.name
    for kind, lines in (("LOSS", outcome.lost), ("UNCLEAR", outcome.unclear)):
        for line in lines[:_SHOWN]:
            print(f"  {kind} at {point}: {line}", flush=True)
        if len(lines) > _SHOWN:
            print(f"  ... and {len(lines) - _SHOWN} more", flush=True)
    if not outcome.good:
        print(f"    replay: scripts/kill-points --only {point} --keep FOLDER", flush=True)


def run(options: argparse.Namespace, root: Path) -> bool:
    """True when nothing was lost."""
    wanted = options.command or [point.command for point in options.only or []]
    commands = [command for command in COMMANDS if (not wanted or command.name in wanted) and not options.no_points]
    crowds = [] if options.no_crowd or options.only or options.list else crowd.CROWDS
    templates = stages.prepare(root / "places", {one.start for one in commands} | {one.start for one in crowds})
    found: list[tuple[Stage, list[Outcome]]] = []
    with ThreadPoolExecutor(options.jobs) as pool:
        for command in commands:
            stage = stages.rehearse(command, templates[command.start], root)
            these = chosen(stage, options)
            print(f"{command.name}: {len(these)} points", flush=True)
            if options.list:
                print("\n".join(f"  {point.name}" for point in these))
                continue
            outcomes = []
            for outcome in tried(pool, stage, these, root, bool(options.keep)):
                tell(outcome)
                outcomes.append(outcome)
            order = {point: number for number, point in enumerate(these)}
            outcomes.sort(key=lambda outcome: order[outcome.point])
            found.append((stage, outcomes))
            print("\n".join(report.table(report.rows(outcomes))), flush=True)
            for line in stage.disorder:
                print(f"  LOSS in a power cut during {command.name}: {line}", flush=True)
    if options.list:
        return True
    gathered = gather(crowds, templates, root)
    outcomes = [outcome for _, some in found for outcome in some]
    print(f"in all: {report.summary(outcomes)}")
    if options.write:
        report.PAGE.write_text(report.page(found, gathered, rules()))
    ordered = not any(stage.disorder for stage, _ in found)
    return ordered and all(outcome.good for outcome in outcomes) and not any(one.lost for one in gathered)


def gather(crowds: Sequence[crowd.Crowd], templates: Mapping[str, Place], root: Path) -> list[crowd.Gathered]:
    """The eight at once, one crowd after the other: they fill the machine."""
    found = []
    for number, one in enumerate(crowds):
        gathered = crowd.run(one, templates[one.start], root / f"crowd-{number}")
        print(
            f"{one.what}: {gathered.done} did their work, {len(gathered.said)} said why not, {len(gathered.lost)} losses"
        )
        for line in sorted(set(gathered.said)):
            print(f"  {line}")
        for line in gathered.lost:
            print(f"  LOSS in {one.what}: {line}")
        found.append(gathered)
    return found


def rules() -> list[str]:
    """Each rule in the words of its own docstring."""
    return [" ".join((rule.__doc__ or "").replace("``", "`").split()) for rule in invariants.RULES]


def main() -> None:
    options = arguments()
    if reason := points.missing_tool():
        raise SystemExit(f"{reason}: install strace, and allow it to trace its own children")
    if reason := full_disk.missing_tool():
        print(f"without full disks: {reason}", file=sys.stderr)
    adopt_orphans()
    try:
        if options.keep:
            folder = Path(options.keep).resolve()
            if folder.exists():
                raise SystemExit(f"{folder} is there already: name a new folder")
            folder.mkdir(parents=True)
            good = run(options, folder)
        else:
            with tempfile.TemporaryDirectory(prefix="gitmodel-kills-", ignore_cleanup_errors=True) as folder_name:
                good = run(options, Path(folder_name).resolve())
    except Broken as error:
        raise SystemExit(f"the harness itself is stuck: {error}") from None
    raise SystemExit(0 if good else 1)


if __name__ == "__main__":
    main()
