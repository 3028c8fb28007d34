"""Scenarios of reload.py that weigh a server: after many swaps of a large model, and with many versions of one at a time."""

from __future__ import annotations

import time
from argparse import Namespace
from pathlib import Path

import load
import measure
import reload_models
import reload_place
import reload_swaps
from chain import Chain
from reload_caller import Caller
from reload_place import Place, Row, Server

_EARLY = 20
_KINDS = ("Rss", "Pss")


def memory(folder: Path, options: Namespace) -> list[Row]:
    """A large model is swapped again and again, between two versions that differ in one tensor, each time under a new tag."""
    place = Place.make(folder)
    two = reload_swaps.chain_versions(place, "large", options.megabytes, [0], [1, 2])
    width = Chain.of(options.megabytes * 1_000_000).side
    request = reload_models.write_request(folder / "request", "large", width)
    place.release("large@v1.0.0", two[0][0])
    expected = {"v1.0.0": two[0][1]}
    early, sizes, done = {}, {}, 0
    with reload_place.serving(place) as server, Caller(server.port, request, 10, 2) as caller:
        begun = time.monotonic()
        for number in measure.turns(options.memory_swaps, options.limit):
            version = f"v1.0.{number + 1}"
            commit, expected[version] = two[(number + 1) % 2]
            # As of a version that is new: what the one that serves does not have is fetched.
            reload_place.forget(place, "large", commit, but=two[number % 2][0])
            place.release(f"large@{version}", commit)
            _settled(server, "large", version)
            done = number + 1
            if done == min(_EARLY, options.memory_swaps):
                early = _at_rest(server)
            if done % _EARLY == 0:
                sizes = _at_rest(server)
                told = ", ".join(f"{kind} {sizes[kind] / 1e6:.0f} MB" for kind in _KINDS)
                print(f"memory: {done} swaps in {time.monotonic() - begun:.0f} s: {told}", flush=True)
        late, peak = _at_rest(server), server.peak()
        asked = caller.end()
    rows = [
        Row(
            "memory",
            f"swaps of {options.megabytes} MB",
            str(done),
            str(options.memory_swaps),
            done == options.memory_swaps,
        )
    ]
    for kind in _KINDS:
        rows.append(
            Row("memory", f"{kind} after swap {min(_EARLY, done)}, and at the end", _both(early[kind], late[kind]))
        )
        rows.append(Row.at_most("memory", f"{kind} at the end over that", late[kind] / early[kind], 1.2))
    rows.append(Row("memory", "peak of Rss, in a swap", f"{peak / 1e6:.0f} MB"))
    return [*rows, *reload_swaps.verdict("memory", asked, expected), Row("memory", "worst wait", f"{asked.worst():.0f} ms")]  # fmt: skip


def _at_rest(server: Server) -> dict[str, int]:
    """A version's memory goes when its state has been told to be END."""
    time.sleep(1)
    return server.memory()


def _settled(server: Server, model: str, version: str) -> None:
    """Waits until a version serves and those before it are unloaded."""
    busy = {"START", "LOADING", "UNLOADING"}

    def done() -> bool:
        rows = server.statuses(model)
        return rows.get(version, {}).get("state") == "AVAILABLE" and not any(r["state"] in busy for r in rows.values())

    reload_place.until(done, f"{model} {version} to serve", pause=0.02)


def _both(early: int, late: int) -> str:
    return f"{early / 1e6:.0f} MB, {late / 1e6:.0f} MB"


def shared(folder: Path, options: Namespace) -> list[Row]:
    """Versions of a large model that differ in one tensor, all served at once."""
    place = Place.make(folder)
    versions = range(1, options.shared + 1)
    saved = reload_swaps.chain_versions(place, "large", options.megabytes, [0], versions)
    request = reload_models.write_request(
        folder / "request", "large", Chain.of(options.megabytes * 1_000_000).side
    ).read_bytes()
    sizes = []
    with reload_place.serving(place, "--follow", "all") as server:
        empty = server.memory()
        for number, (commit, _) in enumerate(saved):
            version = f"v1.0.{number}"
            place.release(f"large@{version}", commit)
            _settled(server, "large", version)
            for served in range(number + 1):  # what is mapped counts once it is read
                own = request.replace(b"/models/large/", f"/models/large/versions/v1.0.{served}/".encode(), 1)
                if not load.exchange(server.port, own).startswith(b"HTTP/1.1 200"):
                    raise measure.Failed(f"large v1.0.{served} does not answer")
            sizes.append(server.memory())
            told = ", ".join(f"{kind} {sizes[-1][kind] / 1e6:.0f} MB" for kind in _KINDS)
            print(f"shared: {number + 1} versions: {told}", flush=True)
    rows = [Row("shared", "Pss with none", f"{empty['Pss'] / 1e6:.0f} MB")]
    for kind in ("Pss", "Pss_Anon", "Pss_File"):
        first, last = sizes[0][kind], sizes[-1][kind]
        rows.append(Row("shared", f"{kind} with 1 version and with {len(sizes)}", _both(first, last)))
    first, last = sizes[0]["Pss"], sizes[-1]["Pss"]
    each = (last - first) / max(len(sizes) - 1, 1) / 1e6
    return [
        *rows,
        Row("shared", "Pss over that of the first", f"{last / first:.2f} times, {(last - first) / 1e6:.0f} MB more"),
        Row("shared", "Pss of each further version", f"{each:.0f} MB"),
    ]
