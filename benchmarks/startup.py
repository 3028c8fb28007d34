"""Measures what `gitmodel --help` takes against `python -c 'import typer'`, in pairs: the command may take at most twice as long."""

from __future__ import annotations

import argparse
import shlex
import sys
import time

import measure

COMMANDS = {
    "gitmodel --help": "exec gitmodel --help",
    "python -c 'import typer'": f"exec {shlex.quote(sys.executable)} -c 'import typer'",
    "python -c pass": f"exec {shlex.quote(sys.executable)} -c pass",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--pairs", type=int, default=20, help="turns each command has")
    parser.add_argument("--limit", type=float, default=60, help="seconds after which no further turn is begun")
    options = parser.parse_args()
    begun = time.monotonic()
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    with measure.isolated() as (folder, env):
        for turn in range(options.pairs + 1):
            for name, command in COMMANDS.items():
                took = measure.shell(command, folder, env, timeout=30).seconds
                if turn:  # the first turn fills the caches, bytecode among them
                    seconds[name].append(took)
            if turn and time.monotonic() - begun > options.limit:
                print(f"stopped after {turn} turns: the limit of {options.limit:.0f} s is reached")
                break
    base = seconds["python -c 'import typer'"]
    rows = [
        [
            name,
            f"{measure.median(took) * 1000:.0f} ms",
            measure.spread([a / b for a, b in zip(took, base, strict=True)]),
        ]
        for name, took in seconds.items()
    ]
    print(f"{len(base)} turns in one run; ratios are medians over turns (smallest-largest); {measure.load()}")
    print(measure.table(["command", "median", "ratio to importing typer"], rows))


if __name__ == "__main__":
    main()
