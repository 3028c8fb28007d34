"""Measures what worker processes bring: requests per second of `gitmodel serve` with one and with two of them.

The model's own work takes most of the time, and the client sleeps while it has nothing to do, so that it leaves both cores to the
workers; one-row JSON requests, 16 keep-alive
connections. The servers take turns, round by round, and a ratio is that of one round.
"""

from __future__ import annotations

import argparse
import contextlib
from pathlib import Path

import measure
import numpy as np
import served
import serving

_FEW, _WIDTH, _LAYERS = 4, 500, 24


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=5, help="turns each server has")
    parser.add_argument("--seconds", type=float, default=3.0, help="length of a turn")
    parser.add_argument("--connections", type=int, default=16)
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder, env = stack.enter_context(measure.isolated())
        rows = write_model(folder / "model.onnx")
        name, output = serving.ask(folder / "model.onnx", rows)
        script = (
            "git init -q repo && cd repo && gitmodel init && git commit -qm start && "
            "gitmodel save digits ../model.onnx -m one --release auto"
        )
        measure.shell(script, folder, env)
        request = serving.write_requests(folder, name, rows[0])[serving.OURS]
        serve = ["gitmodel", "serve", "--repo", str(folder / "repo"), "--port", "0"]
        servers = [
            stack.enter_context(
                served.started(f"{count} worker{'s' * (count > 1)}", [*serve, "--workers", str(count)], request, env)
            )
            for count in (1, 2)
        ]
        for server in servers:
            serving.check(server, output)
        rates: list[list[float]] = []
        for number in range(options.rounds + 1):
            seconds = options.seconds if number else 1.0  # the first one warms up
            turn = [served.drive(server, options.connections, seconds, env, sleeping=True).rate for server in servers]
            if number:
                rates.append(turn)
                print(f"round {number} of {options.rounds}: {turn[0]:,.0f}/s, {turn[1]:,.0f}/s", flush=True)
    print(f"\n{len(rates)} rounds in one run; medians (smallest-largest); {measure.load()}")
    table = [
        [
            server.name,
            measure.spread([turn[n] for turn in rates], 0),
            measure.spread([turn[n] / turn[0] for turn in rates]),
        ]
        for n, server in enumerate(servers)
    ]
    print(measure.table(["server", "requests/s", "ratio to one"], table))


def write_model(path: Path) -> np.ndarray:
    """Few numbers in, few out, and between them the same matrix again and again, which stays in a processor's cache; returns rows
    for it."""
    from onnx import TensorProto, helper, numpy_helper

    random = np.random.default_rng(0)
    wide = random.normal(size=(_FEW, _WIDTH)).astype(np.float32)
    matrix = np.linalg.qr(random.normal(size=(_WIDTH, _WIDTH)))[0].astype(np.float32)
    nodes = [helper.make_node("MatMul", ["x", "wide"], ["h0"])]
    nodes += [helper.make_node("MatMul", [f"h{n}", "matrix"], [f"h{n + 1}"]) for n in range(_LAYERS)]
    nodes.append(helper.make_node("MatMul", [f"h{_LAYERS}", "narrow"], ["y"]))
    ends = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["batch", _FEW]) for name in ("x", "y")]
    weights = {"wide": wide, "matrix": matrix, "narrow": wide.T.copy()}
    initializers = [numpy_helper.from_array(value, name) for name, value in weights.items()]
    graph = helper.make_graph(nodes, "graph", ends[:1], ends[1:], initializers)
    made = helper.make_model(graph, ir_version=10, opset_imports=[helper.make_opsetid("", 21)])
    path.write_bytes(made.SerializeToString())
    return random.normal(size=(4, _FEW)).astype(np.float32)


if __name__ == "__main__":
    main()
