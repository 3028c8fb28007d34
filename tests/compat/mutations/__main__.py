"""``python -m tests.compat.mutations``: every mutation of every model, in a child that may die of one; resumes where it was."""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tests.compat.mutations import MUTATIONS, magika, table
from tests.compat.mutations.corpus import Specimen, sample, specimens
from tests.compat.mutations.proof import Row, line, prove
from tests.compat.mutations.truth import Outcome

#: A child has this much memory (bytes) and this long (seconds) for one judgement.
MEMORY, SECONDS = 4 << 30, 90
PASSES = 4
Pair = tuple[Specimen, str]


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.compat.mutations", description=__doc__)
    parser.add_argument(
        "--all", action="store_true", help="every model of the onnx package (default: the sample of the tests)"
    )
    parser.add_argument(
        "--passes", type=int, default=PASSES, help=f"how many of {PASSES} passes; each takes another part of the pairs"
    )
    parser.add_argument(
        "--state",
        type=Path,
        default=Path(".proof.jsonl"),
        help="what was judged so far; a second run goes on from there",
    )
    parser.add_argument("--write", type=Path, help="the Markdown page to write, such as docs/proof.md")
    parser.add_argument("--real", type=Path, help="the folder of real models, such as ../shared/data")
    given = parser.parse_args(argv)
    models = specimens() if given.all else sample()
    pairs = [pair for number in range(given.passes) for pair in of_pass(models, number)]
    _prove_all(pairs, given.state)
    real = _real(given.real / "magika") if given.real else ""
    page = table.page([json.loads(text) for text in given.state.read_text().splitlines()], models, real)
    sys.stdout.write(page)
    if given.write:
        given.write.write_text(page)
    return 0 if table.is_whole(page) else 1


def _real(folder: Path) -> str:
    with tempfile.TemporaryDirectory() as place:
        rows = list(magika.rows(folder, Path(place)))
        return table.real_models(rows, magika.reference(folder, Path(place)))


def of_pass(models: Sequence[Specimen], number: int) -> Iterator[Pair]:
    """A part of the pairs in which every model and every mutation stands; the first has every model against itself."""
    for i, specimen in enumerate(models):
        for j, name in enumerate(MUTATIONS):
            if (0 if name in ("itself", "producer") else (i + j) % PASSES) == number:
                yield specimen, name


def _prove_all(pairs: Sequence[Pair], state: Path) -> None:
    done = set()
    if state.exists():
        done = {(entry["specimen"], entry["mutation"]) for entry in map(json.loads, state.read_text().splitlines())}
    waiting = [pair for pair in pairs if (pair[0].name, pair[1]) not in done]
    while waiting:
        started = time.perf_counter()
        before = len(waiting)
        status = _child(waiting, state)
        lines = [json.loads(text) for text in state.read_text().splitlines()]
        done = {(entry["specimen"], entry["mutation"]) for entry in lines}
        waiting = [pair for pair in waiting if (pair[0].name, pair[1]) not in done]
        took = time.perf_counter() - started
        sys.stderr.write(f"{before - len(waiting)} judged in {took:.0f} s, {len(waiting)} to go\n")
        if status and waiting:  # the first that waits is the one it died of
            row = Row(waiting[0][1], waiting[0][0].name, "", Outcome(wrong=(f"the process died: {_death(status)}",)))
            with state.open("a") as file:
                file.write(line(row, 0.0))
            waiting = waiting[1:]


def _death(status: int) -> str:
    return signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else f"exit {os.WEXITSTATUS(status)}"


def _child(pairs: Sequence[Pair], state: Path) -> int:
    """Judges the pairs in a child and returns how it ended. ONNX Runtime has no threads yet where it forks."""
    pid = os.fork()
    if pid:
        return os.waitpid(pid, 0)[1]
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with tempfile.TemporaryDirectory() as folder, state.open("a") as file:
        states: dict[bytes, str] = {}
        for specimen, name in pairs:
            signal.alarm(SECONDS)
            started = time.perf_counter()
            row = prove(specimen, name, Path(folder), states)
            file.write(line(row, time.perf_counter() - started))
            file.flush()
    os._exit(0)


if __name__ == "__main__":
    raise SystemExit(main())
