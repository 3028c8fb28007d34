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
import traceback
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from gitmodel.compat.isolated import Models
from tests.compat.mutations import MUTATIONS, magika, table
from tests.compat.mutations.corpus import Specimen, sample, specimens
from tests.compat.mutations.proof import Row, line, prove

#: A child has this much memory (bytes) and this long (seconds) for one judgement.
MEMORY, SECONDS = 4 << 30, 90
#: Every so many judgements are made in sandboxes, whatever this process says.
SANDBOXED = 50
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
    waiting, deaths = _left(pairs, state), Counter[tuple[str, str]]()
    while waiting:
        started, before = time.perf_counter(), len(waiting)
        status = _child(waiting, state, deaths)
        waiting = _left(waiting, state)
        took = time.perf_counter() - started
        sys.stderr.write(f"{before - len(waiting)} judged in {took:.0f} s, {len(waiting)} to go\n")
        if not status or not waiting:
            continue
        specimen, name = waiting[0]  # the first that waits is the one it died of
        deaths[specimen.name, name] += 1
        if deaths[specimen.name, name] > 1:
            # It was judged in sandboxes then: what ended here is the oracle, which has none.
            row = Row(name, specimen.name, f"the runtime ends the process that measures it ({_death(status)})")
            with state.open("a") as file:
                file.write(line(row, 0.0))
            waiting = waiting[1:]


def _left(pairs: Sequence[Pair], state: Path) -> list[Pair]:
    """The pairs that were not judged yet."""
    lines = [json.loads(text) for text in state.read_text().splitlines()] if state.exists() else []
    done = {(entry["specimen"], entry["mutation"]) for entry in lines}
    return [pair for pair in pairs if (pair[0].name, pair[1]) not in done]


def _death(status: int) -> str:
    return signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else f"exit {os.WEXITSTATUS(status)}"


def _child(pairs: Sequence[Pair], state: Path, deaths: Mapping[tuple[str, str], int]) -> int:
    """Judges the pairs in a child and returns how it ended. ONNX Runtime has no threads yet where it forks."""
    pid = os.fork()
    if pid:
        return os.waitpid(pid, 0)[1]
    try:
        _judge_all(pairs, state, deaths)
    except BaseException:
        traceback.print_exc()
        os._exit(1)  # with sessions open, an orderly end may take for ever
    os._exit(0)


def _judge_all(pairs: Sequence[Pair], state: Path, deaths: Mapping[tuple[str, str], int]) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with tempfile.TemporaryDirectory() as folder, state.open("a") as file:
        states: dict[bytes, str] = {}
        for number, (specimen, name) in enumerate(pairs):
            signal.alarm(SECONDS)
            started = time.perf_counter()
            died = bool(deaths.get((specimen.name, name)))
            row = _judged(specimen, name, Path(folder), states, died=died, sandboxed=number % SANDBOXED == 0)
            file.write(line(row, time.perf_counter() - started))
            file.flush()
            if (
                _address_space() > MEMORY / 2
            ):  # what is left there would soon fail for want of room: the next child goes on
                return


def _address_space() -> int:
    """Bytes that this process has mapped."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


def _judged(
    specimen: Specimen, name: str, folder: Path, states: dict[bytes, str], *, died: bool, sandboxed: bool
) -> Row:
    """In this process, for speed; in sandboxes, as a user's command does it, whenever that ended or was not right."""
    if not died and not sandboxed:
        row = prove(specimen, name, folder, states)
        if row.outcome.right:
            return row
    return prove(specimen, name, folder, states, opens=Models, deadly=died)


if __name__ == "__main__":
    raise SystemExit(main())
