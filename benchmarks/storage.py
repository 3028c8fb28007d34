"""Measures what it costs to save, commit and release a large ONNX model: gitmodel against DVC, the same model, in pairs.

Both sides run whole commands from a shell, in fresh repositories, on a model of 24 equal float32 tensors in one file:
first version, second version with one tensor of 24 changed, then nothing changed. They take turns (A B A B), and a
ratio is that of one pair. Before each command everything written is on the disk; the model is in the page cache.
"""

from __future__ import annotations

import argparse

import measure
import sides
from chain import Chain, write_model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--pairs", type=int, default=5, help="pairs of runs")
    parser.add_argument("--megabytes", type=int, default=400, help="size of the model")
    parser.add_argument("--limit", type=float, default=600, help="seconds after which no further pair is begun")
    options = parser.parse_args()
    chain = Chain.of(options.megabytes * 1_000_000)
    with measure.isolated() as (folder, env):
        model = {version: folder / f"v{version}.onnx" for version in (1, 2, 3)}
        for version, path in model.items():
            measure.apart(write_model, path, chain, version)
        plan = sides.steps(model, chain.count)
        print(f"{chain.size / 1e6:.0f} MB in {chain.count} float32 tensors; {measure.load()}", flush=True)
        pairs = []
        for number in measure.turns(options.pairs, options.limit):
            pairs.append(sides.run_pair(folder / f"pair{number}", plan, model, env))
            print(f"pair {number + 1} of {options.pairs}: {sides.summary(pairs[-1])}", flush=True)
    print(f"\n{len(pairs)} pairs in one run; ratios are medians over pairs (smallest-largest); {measure.load()}")
    print(sides.report(plan, pairs))
    print(sides.beyond(pairs, chain.tensor))


if __name__ == "__main__":
    main()
