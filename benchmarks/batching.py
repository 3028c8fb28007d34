"""Measures what `gitmodel serve --batch` gains on a model that pays for its weights and hardly for rows: the same server with it and
without, one-row requests of binary tensors, several connections. They take turns, and a ratio is that of one round."""

from __future__ import annotations

import argparse
import contextlib
import json
import time
from collections.abc import Mapping
from pathlib import Path

import load
import measure
import numpy as np
import served
from chain import Chain, write_model
from served import Round, Server

SERVERS = {"each call by itself": (), "--batch 16": ("--batch", "16")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=5, help="turns each server has")
    parser.add_argument("--seconds", type=float, default=4.0, help="length of a turn")
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 16], help="connections at a time")
    parser.add_argument("--megabytes", type=int, default=100, help="size of the model")
    options = parser.parse_args()
    chain = Chain.of(options.megabytes * 1_000_000)
    with contextlib.ExitStack() as stack:
        folder, env = stack.enter_context(measure.isolated())
        measure.apart(write_model, folder / "model.onnx", chain, 1)
        script = (
            "git init -q repo && cd repo && gitmodel init && git commit -qm start && "
            "gitmodel save chain ../model.onnx -m one --release auto"
        )
        measure.shell(script, folder, env)
        request = folder / "request"
        request.write_bytes(write_request(chain.side))
        command = ["gitmodel", "serve", "--repo", str(folder / "repo"), "--port", "0"]
        servers = [
            stack.enter_context(served.started(name, [*command, *more], request, env)) for name, more in SERVERS.items()
        ]
        for server in servers:
            settle(server, request)
        print(f"{chain.size / 1e6:.0f} MB in {chain.count} MatMuls; {measure.load()}", flush=True)
        for connections in options.connections:
            rounds = [turn(servers, connections, options.seconds, env) for _ in range(options.rounds)]
            report(connections, rounds)


def write_request(width: int) -> bytes:
    """One row; the answer comes back as bytes, too, and so has the same length whatever its last digits are."""
    row = np.random.default_rng(0).normal(size=(1, width)).astype("<f4").tobytes()
    tensor = {"name": "x", "shape": [1, width], "datatype": "FP32", "parameters": {"binary_data_size": len(row)}}
    document = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    head = (
        "POST /v2/models/chain/infer HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/octet-stream\r\n"
        f"Inference-Header-Content-Length: {len(document)}\r\nContent-Length: {len(document) + len(row)}\r\n\r\n"
    )
    return head.encode() + document + row


def settle(server: Server, request: Path) -> None:
    """Until it answers from packed weights, which it has made beside its first answers, mapped like the others."""
    deadline = time.monotonic() + 60
    while not served.maps(server.process.pid, "/prepacked/"):
        if time.monotonic() > deadline:
            raise measure.Failed(f"{server.name} packs no weights")
        time.sleep(0.05)
    if not load.exchange(server.port, request.read_bytes()).startswith(b"HTTP/1.1 200"):
        raise measure.Failed(f"{server.name} does not answer")


def turn(servers: list[Server], connections: int, seconds: float, env: Mapping[str, str]) -> dict[str, Round]:
    return {server.name: served.drive(server, connections, seconds, env) for server in servers}


def report(connections: int, rounds: list[dict[str, Round]]) -> None:
    first, rows = next(iter(SERVERS)), []
    for name in SERVERS:
        turns = [done[name] for done in rounds]
        p50, p99 = (measure.median([getattr(done, key) for done in turns]) for key in ("p50", "p99"))
        gain = measure.spread([done[name].rate / done[first].rate for done in rounds])
        rows.append([name, measure.spread([done.rate for done in turns], 0), f"{p50:.1f} / {p99:.1f} ms", gain])
    print(f"\n{connections} connections, {len(rounds)} rounds; medians (smallest-largest); {measure.load()}")
    print(measure.table(["server", "requests/s", "p50 / p99", "gain"], rows), flush=True)


if __name__ == "__main__":
    main()
