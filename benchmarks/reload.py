"""Holds `gitmodel serve` to what it promises of a reload: real pushes to a real bare repository, real hooks, real servers.

Each scenario is a production of its own in a temporary folder. Ends with 1 when a limit is not kept.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import time
from collections.abc import Callable
from pathlib import Path

import measure
import reload_place
from reload_faults import broken, killed, notices
from reload_memory import memory, shared
from reload_place import Others, Row
from reload_swaps import beside, report, storm, swaps
from reload_workers import workers

ROOT = Path(__file__).resolve().parent.parent
SCENARIOS: dict[str, Callable[[Path, argparse.Namespace], list[Row]]] = {
    "swaps": swaps,
    "beside": beside,
    "storm": storm,
    "broken": broken,
    "memory": memory,
    "killed": killed,
    "notices": notices,
    "shared": shared,
    "workers": workers,
}


def main() -> None:
    options = parse()
    found: list[Row] = []
    with measure.isolated() as (folder, env):
        # The package beside this file, here, in the servers and in the hooks.
        sys.path.insert(0, str(ROOT))
        os.environ.clear()
        os.environ.update(env, PYTHONPATH=str(ROOT), ORT_DISABLE_TELEMETRY="1")
        if options.processes > 1:
            reload_place.ALWAYS += ["--workers", str(options.processes)]
        for name in options.only or SCENARIOS:
            begun, others = time.monotonic(), Others()
            print(f"{name}: {SCENARIOS[name].__doc__}", flush=True)
            try:
                found += SCENARIOS[name](folder / name, options)
            except (measure.Failed, OSError) as error:
                found.append(Row(name, f"broke off: {error}"[:300], "-", "-", kept=False))
            shutil.rmtree(folder / name, ignore_errors=True)
            seconds = time.monotonic() - begun
            share = f"{others.share():.0%}"
            found.append(Row(name, f"of the processors others had, in {seconds:.0f} s", share))
            print(f"{name}: {seconds:.0f} s, others had {share} of the processors", flush=True)
    print(f"\n{report(found)}")
    sys.exit(any(row.kept is False for row in found))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--only", nargs="+", choices=SCENARIOS, metavar="NAME", help=f"of {', '.join(SCENARIOS)}")
    parser.add_argument("--megabytes", type=int, default=400, help="the large model of beside, memory and shared")
    parser.add_argument("--rate", type=float, default=200, help="requests per second in broken and notices")
    parser.add_argument("--limit", type=float, default=1500, help="seconds after which memory begins no further swap")
    parser.add_argument("--processes", type=int, default=1, help="that answer calls, in all scenarios but workers")
    parser.add_argument("--swaps", type=int, default=100)
    parser.add_argument("--pause", type=float, default=0.3, help="seconds between two swaps")
    parser.add_argument("--loads", type=int, default=6, help="of the large model, in beside")
    parser.add_argument("--calm", type=float, default=10, help="seconds in which nothing loads, in beside")
    parser.add_argument(
        "--others", type=float, default=0.1, help="share of the processors above which a load of beside is not judged"
    )
    parser.add_argument("--pushes", type=int, default=50, help="in storm")
    parser.add_argument("--storm-seconds", type=float, default=5, help="in which they begin")
    parser.add_argument("--storm-megabytes", type=int, default=100)
    parser.add_argument("--broken", type=int, default=50, help="broken versions")
    parser.add_argument("--memory-swaps", type=int, default=200)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--killed-megabytes", type=int, default=40)
    parser.add_argument("--seed", type=int, default=0, help="of the moments in killed")
    parser.add_argument("--copies", type=int, default=10, help="of one notice, in notices")
    parser.add_argument("--shared", type=int, default=5, help="versions served at once")
    parser.add_argument("--workers", type=int, default=4, help="in workers")
    parser.add_argument("--worker-kills", type=int, default=25, help="before and as many after the switch, in workers")
    return parser.parse_args()


if __name__ == "__main__":
    main()
