"""Measures a first version, and one with one tensor of 24 changed, of the same large model under gitmodel and its peers.

Each peer is installed apart from the others and saves the model as its documentation says, whole commands in a fresh
repository. All take turns; before each command everything written is on the disk, and the model is in the page cache.
"""

from __future__ import annotations

import argparse
import os
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import measure
import sides
from chain import Chain, write_model
from chain_formats import write_safetensors, write_split
from peer_commands import PEERS, Peer
from peer_installs import Missing, installed
from sides import Sample

VERSIONS = ("one", "two")
OURS = "gitmodel"
_TIMEOUT = 300.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--pairs", type=int, default=5, help="turns each peer has")
    parser.add_argument("--megabytes", type=int, default=400, help="size of the model")
    parser.add_argument("--limit", type=float, default=1200, help="seconds after which no further turn is begun")
    parser.add_argument("--venvs", type=Path, help="where the peers are, or are to be, installed; kept")
    parser.add_argument("--only", nargs="+", metavar="PEER", choices=[peer.name for peer in PEERS], default=None)
    options = parser.parse_args()
    chain = Chain.of(options.megabytes * 1_000_000)
    with measure.isolated() as (folder, env), tempfile.TemporaryDirectory(prefix="gitmodel-peers-") as temporary:
        place = (options.venvs or Path(temporary)).resolve()
        wanted = [peer for peer in PEERS if peer.name in (OURS, *(options.only or [peer.name]))]
        found, missing = find(wanted, place, env)
        models = {version: folder / version for version in VERSIONS}
        for number, model in enumerate(models.values(), 1):
            model.mkdir()
            measure.apart(write_model, model / "model.onnx", chain, number)
            measure.apart(write_safetensors, model, chain, number)
            measure.apart(write_split, model, chain, number)
        print(f"{chain.size / 1e6:.0f} MB in {chain.count} float32 tensors; {measure.load()}", flush=True)
        samples: dict[Peer, list[list[Sample]]] = {peer: [] for peer in found}
        for number in measure.turns(options.pairs, options.limit):
            for peer in rotated(list(samples), number):
                try:
                    samples[peer].append(run(folder / "turn", peer, models, env | found[peer]))
                except measure.Failed as why:
                    if peer.name == OURS:
                        raise
                    missing.append(f"{peer.name}: {why}")
                    del samples[peer]
                    continue
                times = " ".join(f"{sample.timed.seconds:.2f} s" for sample in samples[peer][-1])
                print(f"turn {number + 1}, {peer.name}: {times}", flush=True)
    turns = len(next(iter(samples.values())))
    print(f"\n{turns} turns in one run, medians (smallest-largest); {measure.load()}")
    print(report(samples))
    print("".join(f"\nnot measured: {line}" for line in missing))


def find(peers: Sequence[Peer], place: Path, env: Mapping[str, str]) -> tuple[dict[Peer, dict[str, str]], list[str]]:
    """The peers that can run, with what their environments have besides; and why the others cannot."""
    found: dict[Peer, dict[str, str]] = {}
    missing = []
    for peer in peers:
        try:
            folders = [installed(part, place, env) for part in peer.parts]
            path = os.pathsep.join([*map(str, folders), env["PATH"]])
            found[peer] = {"PATH": path, "PYTHON": str(folders[0] / "python") if folders else "python", **peer.env}
        except Missing as why:
            missing.append(f"{peer.name}: {why}")
    return found, missing


def rotated(peers: list[Peer], number: int) -> list[Peer]:
    """Each turn begins with the next of them: who comes after whom is not always the same."""
    return peers[number % len(peers) :] + peers[: number % len(peers)]


def run(folder: Path, peer: Peer, models: Mapping[str, Path], env: Mapping[str, str]) -> list[Sample]:
    """Both versions in a repository of their own, which is removed afterwards, as is the home the peer keeps caches in."""
    repo, home = folder / "repo", folder / "home"
    shutil.rmtree(folder, ignore_errors=True)  # of a peer that failed
    repo.mkdir(parents=True)
    home.mkdir()
    # One of them writes the global configuration, to where it is by default.
    config = Path(shutil.copy(env["GIT_CONFIG_GLOBAL"], home / ".gitconfig"))
    caches = {"XDG_CACHE_HOME": str(home / ".cache"), "XDG_CONFIG_HOME": str(home / ".config")}
    own = {**env, **caches, "HOME": str(home), "GIT_CONFIG_GLOBAL": str(config)}
    measure.shell(peer.start, repo, own)
    done = []
    for version, model in models.items():
        put(model / peer.model, repo / peer.model)
        memory = 4 * (model / "model.onnx").stat().st_size
        done.append(sides.run(repo, peer.save.format(version=version), own, memory, peer.stores, _TIMEOUT))
    shutil.rmtree(folder)
    return done


def put(source: Path, target: Path) -> None:
    """A file, or a folder of which only what differs is written anew, as a training run would leave it."""
    if source.is_dir():
        target.mkdir(exist_ok=True)
        for file in source.iterdir():
            kept = target / file.name
            if not kept.exists() or kept.read_bytes() != file.read_bytes():
                sides.place(file, kept)
    else:
        sides.place(source, target)


def report(samples: Mapping[Peer, Sequence[Sequence[Sample]]]) -> str:
    """The ratio is that of one turn, to gitmodel's save and release."""
    header = ["", "first version", "one tensor changed", "bytes added", "ratio to gitmodel, first", "ratio, changed"]
    seconds = {peer: [[run[place].timed.seconds for run in runs] for place in (0, 1)] for peer, runs in samples.items()}
    ours = next(took for peer, took in seconds.items() if peer.name == OURS)
    rows = []
    for peer, runs in samples.items():
        added = [sides.megabytes([run[place].added for run in runs], 1) for place in (0, 1)]
        ratios = [
            [a / b for a, b in zip(took, base, strict=True)] for took, base in zip(seconds[peer], ours, strict=True)
        ]
        times = [f"{measure.spread(took)} s" for took in seconds[peer]]
        rows.append([peer.title, *times, f"{added[0]}, {added[1]} MB", *map(measure.spread, ratios)])
    return measure.table(header, rows)


if __name__ == "__main__":
    main()
