"""The part of serving.py that is about large tensors: 1 MB as bytes in, 1 MB as bytes out, against the fewest copies there can be."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import load
import measure
import numpy as np
from served import Round, Server, medians

#: float32 values in the one row: 1 MiB.
WIDTH = 1 << 18
OURS, CEILING, APP = "gitmodel serve", "copy-free ceiling", "app on uvicorn"
#: Both keep memory that they have freed, for the first use of a page costs more than to copy it.
KEPT = {"MALLOC_MMAP_THRESHOLD_": str(8 << 20), "MALLOC_TRIM_THRESHOLD_": str(32 << 20)}


def write_requests(folder: Path, row: np.ndarray) -> dict[str, Path]:
    """The same body for all, as a client of the protocol's binary extension writes it."""
    tensor = {"name": "x", "shape": [1, WIDTH], "datatype": "FP32", "parameters": {"binary_data_size": row.nbytes}}
    document = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    requests = {}
    for server, path in ((OURS, "/v2/models/negation/infer"), (CEILING, "/"), (APP, "/")):
        head = (
            f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/octet-stream\r\n"
            f"Inference-Header-Content-Length: {len(document)}\r\nContent-Length: {len(document) + row.nbytes}\r\n\r\n"
        )
        requests[server] = folder / f"large {server}.request"
        requests[server].write_bytes(head.encode() + document + row.tobytes())
    return requests


def check(server: Server, expected: np.ndarray) -> None:
    """Raises Failed unless the server gives what the runtime gives, to the bit."""
    answer = load.exchange(server.port, server.request.read_bytes())
    head, _, body = answer.partition(b"\r\n\r\n")
    lines = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
    document = int(lines.get(b"inference-header-content-length", b"0"))
    if not head.startswith(b"HTTP/1.1 200") or body[document:] != expected.tobytes():
        raise measure.Failed(f"{server.name} answers {len(body)} bytes: {head!r} {body[: document or 500]!r}")


def report(rounds: Sequence[dict[str, Round]]) -> str:
    """MB/s are those of the tensors each way."""
    rows = []
    for name in rounds[0]:
        turns = [turn[name] for turn in rounds]
        p50, p99, cpu, busy = medians(turns)
        rates = measure.spread([turn.rate for turn in turns], 0)
        megabytes = measure.median([turn.rate for turn in turns]) * WIDTH * 4 / 1e6
        ratio = measure.spread(ratios(rounds, name))
        times = f"{p50:.2f} / {p99:.2f} ms"
        rows.append([name, rates, f"{megabytes:,.0f}", times, f"{cpu:.0f} us", ratio, f"{busy:.0%}"])
    header = [
        "server",
        "requests/s",
        "MB/s each way",
        "p50 / p99",
        "CPU per request",
        "ratio to ceiling",
        "client busy",
    ]
    return measure.table(header, rows)


def ratios(rounds: Sequence[dict[str, Round]], name: str = OURS) -> list[float]:
    """To the ceiling, one for each round."""
    return [turn[name].rate / turn[CEILING].rate for turn in rounds]
