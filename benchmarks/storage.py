"""Measures what it costs to save, commit and release a large ONNX model: gitmodel against DVC, the same model, in pairs.

Both sides run whole commands from a shell, in fresh repositories, on a model of 24 equal float32 tensors in one file:
first version, second version with one tensor of 24 changed, then nothing changed. They take turns (A B A B), and a
ratio is that of one pair. Before each command everything written is on the disk; the model is in the page cache.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import measure
from large_model import TENSORS, write_model
from measure import Timed


@dataclass(frozen=True)
class Sample:
    """One command of one side: how long it took, how long until it was on the disk, and what it put into the cache."""

    timed: Timed
    durable: float
    added: int


@dataclass(frozen=True)
class Step:
    """What a person would type, on either side, for the same thing."""

    title: str
    gitmodel: str
    dvc: str
    #: The version of the model that lies there when the step begins; 0 leaves the files alone.
    version: int


def steps(model: Mapping[int, Path]) -> list[Step]:
    path = {version: shlex.quote(str(file)) for version, file in model.items()}
    add = "dvc add model.onnx && git add model.onnx.dvc .gitignore"
    return [
        Step(
            "first version: save, commit, tag",
            f"gitmodel save m {path[1]} -m one --release auto",
            f"{add} && git commit -qm one && git tag -a m@v1.0.0 -m one",
            1,
        ),
        Step(
            "one tensor of 24 changed: save, commit, tag",
            f"gitmodel save m {path[2]} -m two --release auto",
            f"{add} && git commit -qm two && git tag -a m@v1.0.1 -m two",
            2,
        ),
        Step("nothing changed: save", f"gitmodel save m {path[2]} -m three", add, 0),
        # gitmodel judges a second version before it tags it (here on generated calls), DVC does not: so once without a tag.
        Step(
            "another tensor changed: save, commit, no tag",
            f"gitmodel save m {path[3]} -m four",
            f"{add} && git commit -qm four",
            3,
        ),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--pairs", type=int, default=5, help="pairs of runs")
    parser.add_argument("--megabytes", type=int, default=400, help="size of the model")
    parser.add_argument("--limit", type=float, default=600, help="seconds after which no further pair is begun")
    options = parser.parse_args()
    begun = time.monotonic()
    with measure.isolated() as (folder, env):
        model = {version: folder / f"v{version}.onnx" for version in (1, 2, 3)}
        for version, path in model.items():
            write_model(path, options.megabytes * 1_000_000, version)
        size = model[1].stat().st_size
        plan = steps(model)
        print(f"{size / 1e6:.0f} MB in {TENSORS} float32 tensors; {measure.load()}", flush=True)
        pairs: list[list[tuple[Sample, Sample]]] = []
        for number in range(options.pairs):
            if pairs and time.monotonic() - begun > options.limit:
                print(f"stopped after {number} pairs: the limit of {options.limit:.0f} s is reached")
                break
            pairs.append(run_pair(folder / f"pair{number}", plan, model, env))
            print(f"pair {number + 1} of {options.pairs}: {summary(pairs[-1])}", flush=True)
        report(plan, pairs)


def run_pair(
    folder: Path, plan: list[Step], model: Mapping[int, Path], env: Mapping[str, str]
) -> list[tuple[Sample, Sample]]:
    """Both sides through all steps, in turns; the repositories are removed afterwards."""
    ours, theirs = folder / "gitmodel", folder / "dvc"
    for repo, init in ((ours, "gitmodel init"), (theirs, "dvc init -q")):
        repo.mkdir(parents=True)
        measure.shell(f"git init -q . && {init} && git commit -qm start", repo, env)
    done = []
    for step in plan:
        if step.version:
            place(model[step.version], theirs / "model.onnx")
        memory = 4 * model[1].stat().st_size
        done.append((run(ours, step.gitmodel, env, memory), run(theirs, step.dvc, env, memory)))
    shutil.rmtree(folder)
    return done


def place(source: Path, target: Path) -> None:
    """DVC versions a file where it lies, so it gets a copy of its own, warm in the page cache as gitmodel's is."""
    target.unlink(missing_ok=True)
    shutil.copyfile(source, target)


def run(repo: Path, script: str, env: Mapping[str, str], memory: int) -> Sample:
    before = objects(repo)
    measure.settle()
    measure.warm_memory(memory)
    timed = measure.shell(script, repo, env)
    durable = timed.seconds + measure.settle()
    added = sum(size for path, size in objects(repo).items() if path not in before)
    return Sample(timed, durable, added)


def objects(repo: Path) -> dict[Path, int]:
    """What the DVC cache holds, with sizes; both sides use the same layout."""
    return {path: path.stat().st_size for path in (repo / ".dvc" / "cache" / "files").rglob("*") if path.is_file()}


def summary(pair: list[tuple[Sample, Sample]]) -> str:
    return ", ".join(f"{ours.timed.seconds:.2f} : {theirs.timed.seconds:.2f} s" for ours, theirs in pair)


def report(plan: list[Step], pairs: list[list[tuple[Sample, Sample]]]) -> None:
    header = ["median", "gitmodel", "dvc + git", "ratio dvc/gitmodel", "on disk, ratio", "bytes added", "peak memory"]
    rows = []
    for number, step in enumerate(plan):
        ours, theirs = [pair[number][0] for pair in pairs], [pair[number][1] for pair in pairs]
        both = list(zip(ours, theirs, strict=True))
        rows.append(
            [
                step.title,
                f"{measure.median([s.timed.seconds for s in ours]):.2f} s",
                f"{measure.median([s.timed.seconds for s in theirs]):.2f} s",
                measure.spread([b.timed.seconds / a.timed.seconds for a, b in both]),
                measure.spread([b.durable / a.durable for a, b in both]),
                f"{megabytes([s.added for s in ours])} : {megabytes([s.added for s in theirs])} MB",
                f"{megabytes([s.timed.memory for s in ours], 0)} : {megabytes([s.timed.memory for s in theirs], 0)} MB",
            ]
        )
    print(f"\n{len(pairs)} pairs in one run; ratios are medians over pairs (smallest-largest); {measure.load()}")
    print(measure.table(header, rows))


def megabytes(values: list[int], digits: int = 1) -> str:
    return f"{measure.median(values) / 1e6:.{digits}f}"


if __name__ == "__main__":
    main()
