"""Measures requests per second of `gitmodel serve` on a small model, against the same app without gitmodel's layers and its peers.

One-row JSON requests, 16 keep-alive connections; then tensors of 1 MB as bytes, 4 connections, against an app that copies as
little as can be. The servers take turns, round by round, and a ratio is that of one round.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import load
import measure
import numpy as np
import serving_binary as binary
import small_model
from peer_installs import Missing
from served import Round, Server, drive, medians, started
from serving_peers import PEERS, serving

HERE = Path(__file__).resolve().parent
OURS, APP, ECHO = "gitmodel serve", "bare app", "bare echo"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=5, help="turns each server has")
    parser.add_argument("--seconds", type=float, default=3.0, help="length of a turn")
    parser.add_argument("--connections", type=int, default=16, help="for one-row requests")
    parser.add_argument("--binary-connections", type=int, default=4, help="for tensors of 1 MB")
    parser.add_argument(
        "--venvs", type=Path, help="where the peers are, or are to be, installed; without it there are none"
    )
    parser.add_argument("--only", nargs="*", metavar="PEER", choices=[peer.name for peer in PEERS], default=None)
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder, env = stack.enter_context(measure.isolated())
        title, rows = small_model.write_model(folder / "digits.onnx")
        small_model.write_negation(folder / "negation.onnx", binary.WIDTH)
        name, expected = ask(folder / "digits.onnx", rows)
        prepare_repository(folder, name, rows, env)
        request = write_requests(folder, name, rows[0])
        row = np.random.default_rng(0).normal(size=(1, binary.WIDTH)).astype("<f4")
        large = binary.write_requests(folder, row)

        app = [sys.executable, str(HERE / "bare_app.py")]
        serve = ["gitmodel", "serve", "--repo", str(folder / "repo"), "--port", "0"]
        ours = stack.enter_context(started(OURS, serve, request[OURS], env))
        bare = stack.enter_context(started(APP, [*app, str(folder / "digits.onnx")], request[APP], env))
        echo = stack.enter_context(started(ECHO, [*app, "--echo"], request[ECHO], env))
        argv = [*app, str(folder / "negation.onnx")]
        ceilings = [
            stack.enter_context(started(key, [*argv, option], large[key], env | binary.KEPT))
            for key, option in ((binary.CEILING, "--copy-free"), (binary.APP, "--binary"))
        ]
        servers, missing = [ours, bare, echo], [] if options.venvs else ["peers: --venvs says where they are"]
        for peer in PEERS if options.venvs else ():
            if options.only is not None and peer.name not in options.only:
                continue
            place = options.venvs.resolve()
            try:
                peers = serving(peer, folder / "digits.onnx", request["peers"], folder, place, env)
                server, versions = stack.enter_context(peers)
                servers.append(server)
                print(f"{peer.name}: {versions}", flush=True)
            except (Missing, measure.Failed) as why:
                missing.append(f"{peer.name}: {why}")
        for server in [each for each in servers if each is not echo]:
            check(server, expected)
        large_servers = [replace(ours, request=large[binary.OURS]), *ceilings]
        for server in large_servers:
            binary.check(server, -row)

        print(measure.steadiness(), flush=True)
        print(f"{title}; {options.connections} connections; {measure.load()}", flush=True)
        small = rounds(servers, options.rounds, options.connections, options.seconds, env, missing)
        print(f"{row.nbytes:,} bytes; {options.binary_connections} connections; {measure.load()}", flush=True)
        big = rounds(large_servers, options.rounds, options.binary_connections, options.seconds, env, missing)
    print(f"\n{options.rounds} rounds in one run; medians (smallest-largest); {measure.load()}")
    print(f"one row, {options.connections} connections:\n{report(small)}")
    print(f"\n1 MB as bytes, {options.binary_connections} connections:\n{binary.report(big)}")
    print("".join(f"\nnot measured: {line}" for line in missing))
    print(targets(small, big))


def ask(path: Path, rows: np.ndarray) -> tuple[str, dict[str, np.ndarray]]:
    """The model's input name and what ONNX Runtime answers to the first row, from which every server is checked."""
    import onnxruntime as ort

    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    name: str = session.get_inputs()[0].name
    outputs = [output.name for output in session.get_outputs()]
    return name, dict(zip(outputs, session.run(outputs, {name: rows[:1]}), strict=True))


def prepare_repository(folder: Path, name: str, rows: np.ndarray, env: Mapping[str, str]) -> None:
    np.savez(folder / "cases.npz", **{name: rows})  # type: ignore[arg-type]  # numpy's stubs take the names for its options
    script = (
        "git init -q repo && cd repo && gitmodel init && git commit -qm start && "
        "gitmodel save digits ../digits.onnx --golden ../cases.npz -m one --release auto && "
        "gitmodel save negation ../negation.onnx -m one --release auto"
    )
    measure.shell(script, folder, env)


def write_requests(folder: Path, name: str, row: np.ndarray) -> dict[str, Path]:
    """The bytes each server is sent: the same body, and where the protocol wants it its path."""
    tensor = {"name": name, "shape": [1, len(row)], "datatype": "FP32", "data": row.tolist()}
    body = json.dumps({"inputs": [tensor]}).encode()
    requests = {}
    infer = "/v2/models/digits/infer"
    for server, path in ((OURS, infer), (APP, "/"), (ECHO, "/"), ("peers", infer)):
        head = (
            f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {len(body)}"
        )
        requests[server] = folder / f"{server}.request"
        requests[server].write_bytes(head.encode() + b"\r\n\r\n" + body)
    return requests


def check(server: Server, expected: Mapping[str, np.ndarray]) -> None:
    """Raises Failed unless the server gives what the runtime gives. A dimension of 1 may be added, as MLServer does."""
    head, _, body = load.exchange(server.port, server.request.read_bytes()).partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        raise measure.Failed(f"{server.name} answers {head[:100]!r} {body[:500]!r}")
    outputs: dict[str, Any] = {output["name"]: output["data"] for output in json.loads(body)["outputs"]}
    for name, value in expected.items():
        if not np.allclose(np.array(outputs[name]).reshape(value.shape), value, rtol=1e-4, atol=1e-6):
            raise measure.Failed(f"{server.name} gives {outputs}, the runtime {value}")


def rounds(
    servers: Sequence[Server], count: int, connections: int, seconds: float, env: Mapping[str, str], missing: list[str]
) -> list[dict[str, Round]]:
    """Every server's turns; a peer that fails is left out, with its reason in ``missing``."""
    done: list[dict[str, Round]] = []
    left = list(servers)
    for number in range(count + 1):
        turn = {}
        for server in list(left):
            try:
                turn[server.name] = drive(server, connections, seconds if number else 1.0, env)  # the first warms up
            except measure.Failed as why:
                if server.name not in {peer.name for peer in PEERS}:
                    raise
                missing.append(f"{server.name}: {why}")
                left.remove(server)
        if number:
            done.append(turn)
            rates = ", ".join(f"{name} {each.rate:,.0f}/s" for name, each in turn.items())
            print(f"round {number} of {count}: {rates}", flush=True)
    return [{server.name: turn[server.name] for server in left} for turn in done]


def report(rounds: Sequence[dict[str, Round]]) -> str:
    rows = []
    for name in rounds[0]:
        turns = [turn[name] for turn in rounds]
        p50, p99, cpu, busy = medians(turns)
        rates = measure.spread([turn.rate for turn in turns], 0)
        app, echo = (measure.spread(ratios(rounds, name, other)) for other in (APP, ECHO))
        ours = measure.spread(ratios(rounds, OURS, name))
        rows.append([name, rates, f"{p50:.2f} / {p99:.2f} ms", f"{cpu:.0f} us", app, echo, ours, f"{busy:.0%}"])
    header = [
        "server",
        "requests/s",
        "p50 / p99",
        "CPU per request",
        "ratio to bare app",
        "ratio to bare echo",
        "gitmodel's ratio to it",
        "client busy",
    ]
    return measure.table(header, rows)


def ratios(rounds: Sequence[dict[str, Round]], name: str, other: str) -> list[float]:
    return [turn[name].rate / turn[other].rate for turn in rounds]


def targets(small: Sequence[dict[str, Round]], big: Sequence[dict[str, Round]]) -> str:
    """What gitmodel is to reach, by the medians, and whether it did."""
    p99 = measure.median([turn[OURS].p99 for turn in small])
    wanted = [
        ("0.9 of the bare app", 0.9, ratios(small, OURS, APP)),
        ("0.6 of the bare echo", 0.6, ratios(small, OURS, ECHO)),
        ("1.5 times Triton", 1.5, ratios(small, OURS, "triton") if "triton" in small[0] else []),
        ("0.8 of the ceiling, 1 MB as bytes", 0.8, binary.ratios(big)),
    ]
    rows = []
    for words, least, seen in wanted:
        met = ("yes" if measure.median(seen) >= least else "no") if seen else "not measured"
        rows.append([f"at least {words}", measure.spread(seen) if seen else "", met])
    rows.append(["p99 of one row under 2 ms", f"{p99:.2f} ms", "yes" if p99 < 2 else "no"])
    return measure.table(["target", "seen", "met"], rows)


if __name__ == "__main__":
    main()
