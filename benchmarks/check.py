"""Measures what check-compat takes: a replay against a bare script that runs the same, and checks of signatures alone.

Whole processes in turns. The replay is of two generations of a real model on its publisher's 37 calls; the bare script
opens both in ONNX Runtime and runs those calls. Checks of signatures alone are of two commits whose weights are the same.
"""

from __future__ import annotations

import argparse
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import measure

PYTHON = shlex.quote(sys.executable)
HERE = Path(__file__).parent
#: A break is what some of these shall find.
CHECK = "{{ gitmodel check-compat {arguments} >said || [ $? = 1 ]; }}"
IMPORTS = f"exec {PYTHON} -c 'import git, yaml, typer'"
OLD, NEW = "magika@v1.0.0", "magika@v2.0.0"
MANY = 100
#: What is compared with what, and how many times as long it may take.
RATIOS = (
    ("replay, 37 cases", "bare script", 3.0),
    ("the same replay again", "bare script", 3.0),
    ("signature alone", "import git, yaml, typer", 3.0),
    (f"{MANY} signatures", "one of them", 10.0),
)

Seconds = dict[str, list[float]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--pairs", type=int, default=7, help="turns each command has")
    parser.add_argument("--data", type=Path, default=HERE.parents[1] / "shared" / "data", help="folder of real models")
    parser.add_argument("--limit", type=float, default=300, help="seconds after which no further turn is begun")
    options = parser.parse_args()
    seconds: Seconds = {}
    with measure.isolated() as (folder, env):
        commands = build(folder, options.data.resolve() / "magika", env)
        for number in measure.turns(options.pairs + 1, options.limit):
            for name, (repo, command) in commands.items():
                if name.startswith("replay"):
                    shutil.rmtree(repo / ".git" / "gitmodel" / "replays", ignore_errors=True)
                took = measure.shell(command, repo, env).seconds
                if number:  # the first turn fills the caches, bytecode among them
                    seconds.setdefault(name, []).append(took)
    print(f"{len(next(iter(seconds.values())))} turns in one run, medians (smallest-largest); {measure.load()}")
    print(report(seconds))


def build(folder: Path, magika: Path, env: Mapping[str, str]) -> dict[str, tuple[Path, str]]:
    """Where each command runs, and what it is; without real models those of signatures alone."""
    commands = {"import git, yaml, typer": (folder, IMPORTS)}
    many, one = (signatures(folder / str(count), count, env) for count in (MANY, 1))
    commands["signature alone"] = (one, CHECK.format(arguments="m0@base m0@HEAD"))
    commands["one of them"] = (one, CHECK.format(arguments="--against base"))
    commands[f"{MANY} signatures"] = (many, CHECK.format(arguments="--against base"))
    if magika.is_dir():
        repo = generations(folder / "magika", magika, env)
        replay = CHECK.format(arguments=f"{OLD} {NEW}")
        bare = HERE / "bare_replay.py"
        commands["bare script"] = (repo, f"exec {PYTHON} {shlex.quote(str(bare))} {shlex.quote(str(magika))}")
        commands["replay, 37 cases"] = commands["the same replay again"] = (repo, replay)
    else:
        print(f"there are no real models at {magika}: no replay is measured")
    return commands


def signatures(folder: Path, count: int, env: Mapping[str, str]) -> Path:
    """A repository where the branch ``base`` has that many models, and HEAD another name for an input of each."""
    folder.mkdir(parents=True)
    measure.shell("git init -q . && gitmodel init && git commit -qm start", folder, env)
    measure.apart(write_models, folder.parent / f"files-{count}", count)
    saver = shlex.quote(str(HERE / "many_models.py"))
    measure.shell(f"{PYTHON} {saver} {shlex.quote(str(folder.parent / f'files-{count}'))}", folder, env, timeout=300)
    commit = "git add models && git commit -qm 'All models'"
    rename = "sed -i 's/name: x$/name: features/' models/*/signature.yaml"
    measure.shell(f"{commit} && git branch base && {rename} && {commit}", folder, env)
    return folder


def write_models(folder: Path, count: int) -> None:
    from chain import Chain, write_model

    folder.mkdir()
    for number in range(count):
        write_model(folder / f"m{number}.onnx", Chain(4, 80, seed=number))


def generations(folder: Path, magika: Path, env: Mapping[str, str]) -> Path:
    folder.mkdir(parents=True)
    measure.shell("git init -q . && gitmodel init && git commit -qm start", folder, env)
    cases = "import sys, numpy as np; np.savez('cases.npz', bytes=np.load(sys.argv[1])['bytes'])"
    reference = shlex.quote(str(magika / "standard_v3_3" / "reference.npz"))
    measure.shell(f"{PYTHON} -c {shlex.quote(cases)} {reference}", folder, env)
    for generation, tag in (("v3_0", OLD), ("v3_3", NEW)):
        model = shlex.quote(str(magika / f"standard_{generation}" / "model.onnx"))
        save = f"gitmodel save magika {model} --golden cases.npz -m {generation}"
        measure.shell(f"{save} && git tag -a {tag} -m {tag}", folder, env)
    return folder


def report(seconds: Mapping[str, Sequence[float]]) -> str:
    rows = []
    for name, base, most in RATIOS:
        if name in seconds:
            ratios = [a / b for a, b in zip(seconds[name], seconds[base], strict=True)]
            spent = [f"{measure.median(seconds[side]):.2f} s" for side in (name, base)]
            rows.append([name, spent[0], f"{base}: {spent[1]}", measure.spread(ratios), f"{most:.0f}"])
    return measure.table(["check-compat", "median", "against", "ratio", "at most"], rows)


if __name__ == "__main__":
    main()
