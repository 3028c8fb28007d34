"""Two sides of a comparison: the same model saved by gitmodel and by DVC, whole commands in fresh repositories, in turns."""

from __future__ import annotations

import shlex
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import measure
from measure import Timed

INIT = {"gitmodel": "gitmodel init", "dvc": "dvc init -q"}
#: Where bytes that are kept for good go, on either side.
STORES = (".dvc/cache/files", ".git/objects")


@dataclass(frozen=True)
class Sample:
    """One command of one side: how long it took, how long until it was on the disk, and what it added to what is kept."""

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


def steps(model: Mapping[int, Path], count: int) -> list[Step]:
    """``model`` has three versions, each with one more of its ``count`` tensors changed."""
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
            f"one tensor of {count} changed: save, commit, tag",
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


def start(folder: Path, env: Mapping[str, str]) -> dict[str, Path]:
    """A fresh repository for each side."""
    for side, init in INIT.items():
        (folder / side).mkdir(parents=True)
        measure.shell(f"git init -q . && {init} && git commit -qm start", folder / side, env)
    return {side: folder / side for side in INIT}


def run_pair(
    folder: Path, plan: Sequence[Step], model: Mapping[int, Path], env: Mapping[str, str]
) -> list[dict[str, Sample]]:
    """Both sides through all steps, in turns; the repositories are removed afterwards."""
    repos = start(folder, env)
    memory = 4 * model[1].stat().st_size
    done = []
    for step in plan:
        if step.version:
            place(model[step.version], repos["dvc"] / "model.onnx")
        scripts = {"gitmodel": step.gitmodel, "dvc": step.dvc}
        done.append({side: run(repos[side], scripts[side], env, memory) for side in repos})
    shutil.rmtree(folder)
    return done


def place(source: Path, target: Path) -> None:
    """DVC versions a file where it lies, so it gets a copy of its own, warm in the page cache as gitmodel's is."""
    target.unlink(missing_ok=True)
    shutil.copyfile(source, target)


def run(
    repo: Path, script: str, env: Mapping[str, str], memory: int, stores: Sequence[str] = STORES, timeout: float = 120
) -> Sample:
    """Before the command everything written is on the disk, and ``memory`` bytes of memory are in use."""
    before = stored(repo, stores)
    measure.settle()
    measure.warm_memory(memory)
    timed = measure.shell(script, repo, env, timeout=timeout)
    durable = timed.seconds + measure.settle()
    return Sample(timed, durable, stored(repo, stores) - before)


def stored(repo: Path, stores: Sequence[str] = STORES) -> int:
    """Bytes in these folders."""
    return sum(path.stat().st_size for store in stores for path in (repo / store).rglob("*") if path.is_file())


def versions(repo: Path, env: Mapping[str, str], name: str = "m") -> list[str]:
    """A model's tags, oldest first: which number a release gets is for gitmodel to say."""
    command = ["git", "for-each-ref", "--sort=version:refname", "--format=%(refname:short)", f"refs/tags/{name}@*"]
    return subprocess.run(command, cwd=repo, env=env, check=True, capture_output=True, text=True).stdout.split()


def summary(pair: Sequence[Mapping[str, Sample]]) -> str:
    return ", ".join(f"{step['gitmodel'].timed.seconds:.2f} : {step['dvc'].timed.seconds:.2f} s" for step in pair)


def report(plan: Sequence[Step], pairs: Sequence[Sequence[Mapping[str, Sample]]]) -> str:
    header = ["median", "gitmodel", "dvc + git", "ratio dvc/gitmodel", "on disk, ratio", "bytes added", "peak memory"]
    rows = []
    for number, step in enumerate(plan):
        ours, theirs = [pair[number]["gitmodel"] for pair in pairs], [pair[number]["dvc"] for pair in pairs]
        both = list(zip(ours, theirs, strict=True))
        rows.append(
            [
                step.title,
                f"{measure.median([s.timed.seconds for s in ours]):.2f} s",
                f"{measure.median([s.timed.seconds for s in theirs]):.2f} s",
                measure.spread([b.timed.seconds / a.timed.seconds for a, b in both]),
                measure.spread([b.durable / a.durable for a, b in both]),
                f"{megabytes([s.added for s in ours], 2)} : {megabytes([s.added for s in theirs], 2)} MB",
                f"{megabytes([s.timed.memory for s in ours])} : {megabytes([s.timed.memory for s in theirs])} MB",
            ]
        )
    return measure.table(header, rows)


def beyond(pairs: Sequence[Sequence[Mapping[str, Sample]]], tensor: int) -> str:
    """What the second step added beyond the bytes of the tensor that changed, in a sentence."""
    sizes = [int(measure.median([pair[1][side].added for pair in pairs])) - tensor for side in INIT]
    ours, theirs = (f"{size / 1024:+,.1f} KiB" for size in sizes)
    return f"one tensor changed, {tensor:,} bytes: gitmodel added that {ours}, dvc that {theirs}"


def megabytes(values: Sequence[int], digits: int = 0) -> str:
    return f"{measure.median(values) / 1e6:.{digits}f}"
