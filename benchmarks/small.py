"""Measures what storage.py does where there is little to store: 400 tensors of 10 KB, and a model of 100 KB, against DVC."""

from __future__ import annotations

import argparse

import measure
import sides
from chain import Chain, write_model

MODELS = {"400 tensors of 10 KB": Chain(400, 50), "a model of 100 KB": Chain(4, 80)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--pairs", type=int, default=9, help="pairs of runs for each model")
    parser.add_argument(
        "--limit", type=float, default=120, help="seconds after which no further pair is begun, per model"
    )
    options = parser.parse_args()
    for title, chain in MODELS.items():
        with measure.isolated() as (folder, env):
            model = {version: folder / f"v{version}.onnx" for version in (1, 2, 3)}
            for version, path in model.items():
                measure.apart(write_model, path, chain, version)
            plan = sides.steps(model, chain.count)
            pairs = []
            for number in measure.turns(options.pairs, options.limit):
                pairs.append(sides.run_pair(folder / f"pair{number}", plan, model, env))
                print(f"{title}, pair {number + 1} of {options.pairs}: {sides.summary(pairs[-1])}", flush=True)
        print(f"\n{title}: {len(pairs)} pairs; ratios are medians over pairs (smallest-largest); {measure.load()}")
        print(sides.report(plan, pairs))
        print(sides.beyond(pairs, chain.tensor), end="\n\n")


if __name__ == "__main__":
    main()
