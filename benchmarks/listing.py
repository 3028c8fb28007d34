"""Measures what it costs to see what there is: all models of a repository, and all versions of one; gitmodel against GTO.

GTO is what DVC's users list models with, and reads the same tags. Every model has a version and its tag; the first one
has a history of many versions in a repository of its own, each on a commit with other metrics. The sides take turns.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import many
import measure
from chain import Chain, write_model

ASKED = {"gitmodel": "gitmodel list", "gto": "gto show"}
OF_ONE = {"gitmodel": "gitmodel log m0", "gto": "gto history m0"}
#: Seconds that one command may take.
_TIMEOUT = 600.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--pairs", type=int, default=5, help="turns")
    parser.add_argument("--models", type=int, nargs="+", default=[1, 100, 1000], help="how many there are")
    parser.add_argument("--versions", type=int, default=300, help="of one model")
    parser.add_argument("--limit", type=float, default=600, help="seconds after which no further turn is begun")
    options = parser.parse_args()
    with measure.isolated() as (folder, env):
        plan: dict[str, tuple[Path, Mapping[str, str]]] = {}
        for count in options.models:
            plan[f"all of {count} models"] = build(folder / str(count), count, env), ASKED
        one = build(folder / "one", 1, env)
        bring(one, "".join(history(options.versions)), env)
        plan[f"{options.versions} versions of one"] = one, OF_ONE
        seconds: dict[str, list[dict[str, float]]] = {title: [] for title in plan}
        for number in measure.turns(options.pairs, options.limit):
            for title, (repo, asked) in plan.items():
                seconds[title].append(turn(repo, asked, env, first=number % 2))
                print(f"turn {number + 1}, {title}: {seconds[title][-1]}", flush=True)
    print(f"\n{len(next(iter(seconds.values())))} turns in one run, medians (smallest-largest); {measure.load()}")
    print(report(seconds))


def build(repo: Path, count: int, env: Mapping[str, str]) -> Path:
    """A repository with so many models of 100 KB, each saved and with a version."""
    repo.mkdir()
    measure.shell("git init -q . && gitmodel init && git commit -qm start", repo, env)
    measure.apart(write_files, repo / "files", count)
    python = f'exec python "{Path(many.__file__).with_name("many_models.py")}"'
    measure.shell(f"{python} files && rm -r files", repo, env, timeout=_TIMEOUT)
    measure.shell("git add models && git commit -qm 'All models'", repo, env)
    bring(repo, "".join(many.tags(count)), env)
    return repo


def bring(repo: Path, stream: str, env: Mapping[str, str]) -> None:
    (repo / "stream").write_text(stream)
    measure.shell("git fast-import --quiet <stream && rm stream && git reset -q --hard", repo, env)


def write_files(folder: Path, count: int) -> None:
    folder.mkdir()
    for number in range(count):
        write_model(folder / f"m{number}.onnx", Chain(many.CHAIN.count, many.CHAIN.side, seed=number))


def history(count: int) -> Iterator[str]:
    """Commits with other metrics of the first model and a tag on each, as ``git fast-import`` reads them."""
    who = "Ada <ada@example.org>"
    yield "reset refs/heads/main\nfrom refs/heads/main^0\n\n"
    for number in range(1, count + 1):
        at, metrics, name = 1_700_000_000 + number, f"accuracy: 0.{number:04}\n", f"m0@v1.{number}.0"
        yield f"commit refs/heads/main\nmark :{number}\ncommitter {who} {at} +0000\ndata 1\n.\n"
        yield f"M 100644 inline models/m0/metrics.yaml\ndata {len(metrics)}\n{metrics}\n"
        yield f"tag {name}\nfrom :{number}\ntagger {who} {at} +0000\ndata {len(name)}\n{name}\n"


def turn(repo: Path, asked: Mapping[str, str], env: Mapping[str, str], first: int) -> dict[str, float]:
    sides = sorted(asked, reverse=bool(first))
    return {side: round(measure.shell(asked[side], repo, env, timeout=_TIMEOUT).seconds, 3) for side in sides}


def report(seconds: Mapping[str, Sequence[Mapping[str, float]]]) -> str:
    rows = [
        [
            title,
            *(f"{measure.spread([one[side] for one in turns])} s" for side in ASKED),
            measure.spread([one["gto"] / one["gitmodel"] for one in turns]),
        ]
        for title, turns in seconds.items()
    ]
    return measure.table(["", *ASKED, "ratio gto/gitmodel"], rows)


if __name__ == "__main__":
    main()
