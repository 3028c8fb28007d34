"""Measures what ten versions of a large model take on disk, each with one tensor changed, and what switching between two takes.

The unique bytes are the tensors' own, each counted once. Ten versions are saved once on either side; then both sides
switch back and forth between the last two, in turns.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

import measure
import sides
from chain import Chain, write_model
from sides import Sample


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--pairs", type=int, default=6, help="switches on each side")
    parser.add_argument("--versions", type=int, default=10, choices=range(2, 13), metavar="2..12")
    parser.add_argument("--megabytes", type=int, default=400, help="size of the model")
    parser.add_argument("--limit", type=float, default=300, help="seconds after which no further switch is begun")
    options = parser.parse_args()
    chain = Chain.of(options.megabytes * 1_000_000)
    with measure.isolated() as (folder, env):
        repos = sides.start(folder, env)
        print(f"{chain.size / 1e6:.0f} MB in {chain.count} float32 tensors; {measure.load()}", flush=True)
        saved = [save(folder, repos, chain, number, env) for number in range(1, options.versions + 1)]
        kept = {side: [sides.stored(repo, [store]) for store in sides.STORES] for side, repo in repos.items()}
        tags = {side: sides.versions(repo, env) for side, repo in repos.items()}
        switches, rewritten = [], {}
        for number in measure.turns(options.pairs, options.limit):
            target = -1 if number % 2 else -2
            before = {side: files(repo) for side, repo in repos.items()}
            switches.append(switch(repos, {side: names[target] for side, names in tags.items()}, chain, env))
            rewritten = {side: changed(before[side], files(repo)) for side, repo in repos.items()}
    print(report(chain, options.versions, saved, kept))
    print(f"\n{len(switches)} switches on each side, one tensor differs; {measure.load()}")
    print(switching(switches, rewritten))


def save(
    folder: Path, repos: Mapping[str, Path], chain: Chain, number: int, env: Mapping[str, str]
) -> dict[str, Sample]:
    source = folder / f"v{number}.onnx"
    measure.apart(write_model, source, chain, number)
    sides.place(source, repos["dvc"] / "model.onnx")
    add = "dvc add model.onnx && git add model.onnx.dvc .gitignore"
    scripts = {
        "gitmodel": f"gitmodel save m {source} -m v{number} --release auto",
        "dvc": f"{add} && git commit -qm v{number} && git tag -a m@v1.0.{number - 1} -m v{number}",
    }
    done = {side: sides.run(repos[side], script, env, 4 * chain.size) for side, script in scripts.items()}
    source.unlink()
    print(f"version {number}: {sides.summary([done])}", flush=True)
    return done


def switch(
    repos: Mapping[str, Path], tag: Mapping[str, str], chain: Chain, env: Mapping[str, str]
) -> dict[str, Sample]:
    scripts = {
        "gitmodel": f"gitmodel checkout '{tag['gitmodel']}'",
        "dvc": f"git checkout -q '{tag['dvc']}' && dvc checkout -q",
    }
    return {side: sides.run(repos[side], script, env, 2 * chain.size) for side, script in scripts.items()}


def files(repo: Path) -> dict[str, tuple[int, int, int]]:
    """The weights in the working tree: inode, time of the last change of the bytes, size."""
    found = [repo / "model.onnx", *(repo / "models/m/weights").rglob("*")]
    states = {str(path): path.stat() for path in found if path.is_file()}
    return {path: (state.st_ino, state.st_mtime_ns, state.st_size) for path, state in states.items()}


def changed(before: Mapping[str, tuple[int, int, int]], after: Mapping[str, tuple[int, int, int]]) -> tuple[int, int]:
    """How many files were written anew, and how many bytes they have."""
    new = [state for path, state in after.items() if before.get(path) != state]
    return len(new), sum(size for _, _, size in new)


def report(chain: Chain, versions: int, saved: list[dict[str, Sample]], kept: Mapping[str, list[int]]) -> str:
    unique = chain.size + (versions - 1) * chain.tensor
    rows = []
    for side, (cache, objects) in kept.items():
        seconds = [step[side].timed.seconds for step in saved[1:]]
        over = f"{(cache / unique - 1) * 100:+.3f} %"
        rows.append([side, f"{cache:,}", over, f"{objects:,}", f"{measure.spread(seconds)} s"])
    header = ["", "bytes in the cache", "against unique", "bytes of Git objects", "save, commit, tag from version 2 on"]
    return f"\n{versions} versions, {unique:,} unique bytes of tensors; {measure.load()}\n{measure.table(header, rows)}"


def switching(switches: list[dict[str, Sample]], rewritten: Mapping[str, tuple[int, int]]) -> str:
    words = {"gitmodel": "gitmodel checkout REF", "dvc": "git checkout, dvc checkout"}
    rows = []
    for side, command in words.items():
        ratios = [step["dvc"].timed.seconds / step[side].timed.seconds for step in switches]
        seconds = measure.spread([step[side].timed.seconds for step in switches])
        number, size = rewritten[side]
        rows.append([command, f"{seconds} s", measure.spread(ratios), f"{number}, {size / 1e6:.2f} MB"])
    return measure.table(["switching", "seconds", "ratio dvc/this", "files rewritten"], rows)


if __name__ == "__main__":
    main()
