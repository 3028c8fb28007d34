"""Measures the peak memory of saving and releasing a model of 400 MB and one of 3 GB, in three formats, against DVC.

Two figures for each command. *anonymous* is the memory that is the programs' own and cannot be had back while they run:
RssAnon and RssShmem of proc(5), all processes of the command together, sampled every few milliseconds. *resident* is
getrusage's ru_maxrss, of the largest process; pages of mapped files count, which the system may drop at any time.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import measure
import sides
from chain import Chain
from chain_formats import FORMATS

_TIMEOUT = 600.0
#: What a person types. Before gitmodel releases a second version it runs both to judge the change.
OURS = {
    "gitmodel, first version": "gitmodel save m {file} -m one --release auto",
    "gitmodel, second version": "gitmodel save m {file} -m two --release auto",
}
THEIRS = "dvc add -q model && git add model.dvc .gitignore && git commit -qm one && git tag -a v1 -m one"
_COUNTED = ("RssAnon:", "RssShmem:")


@dataclass
class Anonymous:
    """The peak of what all processes of a session have of their own, in bytes."""

    peak: int = 0

    def __call__(self, session: int) -> None:
        # A process's number is above that of the one that leads its session, or there would be thousands to ask.
        numbers = [int(path.name) for path in Path("/proc").iterdir() if path.name.isdigit()]
        self.peak = max(self.peak, sum(own_memory(number, session) for number in numbers if number >= session))


def own_memory(process: int, session: int) -> int:
    """0 for a process of another session, or one that has ended."""
    with contextlib.suppress(OSError, IndexError):
        # The name, in brackets, may hold anything.
        if int(Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[3]) != session:
            return 0
        lines = Path(f"/proc/{process}/status").read_text().splitlines()
        return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(_COUNTED))
    return 0


@dataclass(frozen=True)
class Peak:
    """One command: ``seconds`` by the clock, peaks in bytes."""

    seconds: float
    anonymous: int
    resident: int


Rows = dict[tuple[int, str, str], list[Peak]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--pairs", type=int, default=1, help="turns; the largest peak of all is shown")
    parser.add_argument("--megabytes", type=int, nargs="+", default=[400, 3000], help="sizes of the model")
    parser.add_argument("--formats", nargs="+", choices=FORMATS, default=list(FORMATS), metavar="FORMAT")
    parser.add_argument("--limit", type=float, default=900, help="seconds after which no further turn is begun")
    options = parser.parse_args()
    rows: Rows = {}
    with measure.isolated() as (folder, env):
        for number in measure.turns(options.pairs, options.limit):
            for size in options.megabytes:
                for form in options.formats:
                    print(f"turn {number + 1}: {size} MB, {form}", flush=True)
                    for what, peak in run(folder / "run", form, Chain.of(size * 1_000_000), env):
                        rows.setdefault((size, form, what), []).append(peak)
    print(f"\n{options.pairs} turns, the largest peak of each command; {measure.load()}")
    print(report(rows))


def run(folder: Path, form: str, chain: Chain, env: Mapping[str, str]) -> Iterator[tuple[str, Peak]]:
    """The commands in order; one tensor of the second version has changed. DVC gets a folder: the model may be two files."""
    repos = sides.start(folder, env)
    model = folder / "model"
    for version, (what, command) in enumerate(OURS.items(), 1):
        shutil.rmtree(model, ignore_errors=True)
        model.mkdir()
        measure.apart(FORMATS[form], model, chain, version)
        file = next(path for path in model.iterdir() if path.suffix != ".data")
        yield what, peak_of(repos["gitmodel"], command.format(file=file), env)
    shutil.rmtree(repos["gitmodel"])
    model.rename(repos["dvc"] / "model")
    yield "dvc", peak_of(repos["dvc"], THEIRS, env)
    shutil.rmtree(folder)


def peak_of(repo: Path, command: str, env: Mapping[str, str]) -> Peak:
    measure.settle()
    anonymous = Anonymous()
    timed = measure.shell(command, repo, env, timeout=_TIMEOUT, watch=anonymous)
    return Peak(timed.seconds, anonymous.peak, timed.memory)


def report(rows: Rows) -> str:
    lines = [
        [
            f"{size} MB, {form}: {what}",
            sides.megabytes([max(peak.anonymous for peak in peaks)]),
            sides.megabytes([max(peak.resident for peak in peaks)]),
            f"{measure.median([peak.seconds for peak in peaks]):.1f} s",
        ]
        for (size, form, what), peaks in rows.items()
    ]
    return measure.table(["peak memory, MB", "anonymous", "resident", "seconds"], lines)


if __name__ == "__main__":
    main()
