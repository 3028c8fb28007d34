"""Measures what save, release and checkout of one model cost in a repository with 1, 100 and 1000 models, against DVC.

Every model is a file of its own of 100 KB and has a version and its tag. In each turn, in each repository, one model gets
a new version, which is then released; then the version before is checked out, and the new one again.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import measure
import sides
from chain import Chain, write_model
from sides import Sample

CHAIN = Chain(10, 50)
MODEL = "models/m0/model.onnx"
STEPS = ("save, commit", "release", "checkout of the version before", "checkout of the new one")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--pairs", type=int, default=7, help="new versions on each side in each repository")
    parser.add_argument("--models", type=int, nargs="+", default=[1, 100, 1000], help="how many there are")
    parser.add_argument("--limit", type=float, default=400, help="seconds after which no further turn is begun")
    options = parser.parse_args()
    samples: dict[int, list[list[dict[str, Sample]]]] = {count: [] for count in options.models}
    with measure.isolated() as (folder, env):
        repos = {}
        for count in options.models:
            begun = time.monotonic()
            repos[count] = build(folder / str(count), count, env)
            print(f"{count} models on each side, made in {time.monotonic() - begun:.0f} s", flush=True)
        for number in measure.turns(options.pairs, options.limit):
            for count, pair in repos.items():
                samples[count].append(turn(pair, number + 2, env))
                print(f"turn {number + 1}, {count} models: {sides.summary(samples[count][-1])}", flush=True)
    print(f"\n{len(samples[options.models[0]])} turns in one run, medians (smallest-largest); {measure.load()}")
    print(report(samples))


def build(folder: Path, count: int, env: Mapping[str, str]) -> dict[str, Path]:
    repos = sides.start(folder, env)
    measure.apart(write_models, folder / "files", repos["dvc"] / "models", count)
    python = f'exec python "{Path(__file__).with_name("many_models.py")}"'
    measure.shell(f'{python} "{folder / "files"}"', repos["gitmodel"], env, timeout=600)
    # In one command, or a thousand models would take an hour.
    measure.shell("find models -name model.onnx -print0 | xargs -0 dvc add -q", repos["dvc"], env, timeout=600)
    for repo in repos.values():
        (repo / "tags").write_text("".join(tags(count)))
        measure.shell("git add models && git commit -qm 'All models'", repo, env)
        measure.shell("git fast-import --quiet <tags && rm tags", repo, env)
    return repos


def write_models(files: Path, models: Path, count: int) -> None:
    """The same files for both sides: ``m<number>.onnx``, and ``m<number>/model.onnx`` where DVC shall keep it."""
    files.mkdir()
    for number in range(count):
        write_model(files / f"m{number}.onnx", Chain(CHAIN.count, CHAIN.side, seed=number))
        (models / f"m{number}").mkdir(parents=True)
        sides.place(files / f"m{number}.onnx", models / f"m{number}" / "model.onnx")


def tags(count: int) -> Iterator[str]:
    """Annotated tags on the last commit, as ``git fast-import`` reads them: one process for all."""
    for number in range(count):
        message = f"m{number} v1.0.0\n"
        yield f"tag m{number}@v1.0.0\nfrom refs/heads/main\ntagger Ada <ada@example.org> 1700000000 +0000\n"
        yield f"data {len(message)}\n{message}\n"


def turn(repos: Mapping[str, Path], version: int, env: Mapping[str, str]) -> list[dict[str, Sample]]:
    """A new version of the first model on either side: saved, released; the one before checked out, and the new one again."""
    source = repos["gitmodel"].parent / "files" / f"m0-{version}.onnx"
    measure.apart(write_model, source, CHAIN, version)
    sides.place(source, repos["dvc"] / MODEL)
    add = f"dvc add -q {MODEL} && git add {MODEL}.dvc && git commit -qm v{version}"
    saved = step(repos, f"gitmodel save m0 {source} -m v{version}", add, env)
    released = step(repos, "gitmodel release m0", f"git tag -a m0@v1.0.{version - 1} -m v{version}", env)
    names = {side: sides.versions(repo, env, "m0") for side, repo in repos.items()}
    before, after = (
        step(
            repos,
            f"gitmodel checkout '{names['gitmodel'][place]}'",
            f"git checkout -q '{names['dvc'][place]}' -- {MODEL}.dvc && dvc checkout -q {MODEL}.dvc",
            env,
        )
        for place in (-2, -1)
    )
    return [saved, released, before, after]


def step(repos: Mapping[str, Path], gitmodel: str, dvc: str, env: Mapping[str, str]) -> dict[str, Sample]:
    scripts = {"gitmodel": gitmodel, "dvc": dvc}
    return {side: sides.run(repos[side], script, env, 4 * CHAIN.size) for side, script in scripts.items()}


def report(samples: Mapping[int, Sequence[Sequence[Mapping[str, Sample]]]]) -> str:
    first = min(samples)
    rows = []
    for place, title in enumerate(STEPS):
        for side in sides.INIT:
            seconds = {n: [turn[place][side].timed.seconds for turn in turns] for n, turns in samples.items()}
            most = [a / b for a, b in zip(seconds[max(samples)], seconds[first], strict=True)]
            cells = [f"{measure.spread(seconds[count])} s" for count in samples]
            rows.append([f"{title}: {side}", *cells, measure.spread(most)])
    header = ["", *(f"{count} model{'s' * (count > 1)}" for count in samples), f"ratio {max(samples)}/{first}"]
    return measure.table(header, rows)


if __name__ == "__main__":
    main()
