"""Scenarios of reload.py in which all goes well: swaps under load, a large model that loads beside, a storm of pushes."""

from __future__ import annotations

import time
from argparse import Namespace
from collections.abc import Mapping, Sequence
from pathlib import Path

import measure
import numpy as np
import reload_models
import reload_place
from chain import Chain
from reload_caller import Asked, Caller
from reload_models import fits
from reload_place import Others, Place, Row, Server
from standstill import Standstill

#: As many as it takes that no request waits for a connection while the server is about others: callers out there would open more.
CONNECTIONS = 64


def scaled_versions(place: Place, name: str, count: int) -> dict[str, np.ndarray]:
    """Saves and tags that many versions of the tiny model, each of its own scale; what each answers, by version."""
    expected = {}
    file = place.folder / f"{name}.onnx"
    base = reload_models.scaled_answer()
    for number in range(count):
        version = f"v1.0.{number}"
        reload_models.write_scaled(file, number + 1)
        place.tag(f"{name}@{version}", place.save(name, file, reload_models.rows(4)))
        expected[version] = base * (number + 1)
    return expected


def half_of_capacity(server: Server, request: Path) -> float:
    """Requests per second that keep the server's event loop busy half of the time.

    Half of what it answers when it is never let rest would be more: then it wakes up once for many of them.
    """
    rate = 1000.0
    for seconds in (1, 2, 2):  # the first one warms up
        with Caller(server.port, request, rate, CONNECTIONS) as caller:
            before, begun = server.busy(), time.monotonic()
            time.sleep(seconds)
            share = (server.busy() - before) / (time.monotonic() - begun)
            caller.end()
        rate *= min(max(0.5 / share, 0.25), 4)
    return rate


def verdict(name: str, asked: Asked, expected: Mapping[str, np.ndarray]) -> list[Row]:
    """What every scenario under load must show."""
    wrong = sum(count for (version, body), count in asked.seen.items() if not fits(version, body, expected))
    for error in asked.errors:
        print(f"{name}: failed: {error}")
    return [
        Row(name, "requests sent", f"{asked.sent:,}"),
        Row.at_most(name, "requests failed", asked.failed, 0),
        Row.at_most(name, "answers that are not those of the version they name", wrong, 0),
    ]


def swaps(folder: Path, options: Namespace) -> list[Row]:
    """A tiny model is swapped again and again under a steady load of half of what the server can do."""
    place = Place.make(folder)
    expected = scaled_versions(place, "tiny", options.swaps + 1)
    request = reload_models.write_request(folder / "request", "tiny")
    place.push("tiny@v1.0.0")
    with reload_place.serving(place) as server:
        rate = half_of_capacity(server, request)
        print(f"swaps: half of capacity is {rate:,.0f} requests/s", flush=True)
        with Caller(server.port, request, rate, CONNECTIONS) as caller:
            time.sleep(2)
            begun = time.monotonic()
            for version in list(expected)[1:]:
                place.push(f"tiny@{version}")
                time.sleep(options.pause)
            seconds = time.monotonic() - begun
            time.sleep(1)
            asked = caller.end()
        swapped = sum(" AVAILABLE in " in line for line in server.lines())
    answered = len({version for version, _ in asked.seen})
    return [
        Row("swaps", "load, requests/s", f"{rate:,.0f}"),
        Row("swaps", f"swaps in {seconds:.0f} s", str(swapped - 1)),
        *verdict("swaps", asked, expected),
        Row("swaps", "versions that answered", str(answered), str(len(expected)), answered == len(expected)),
        Row("swaps", "worst wait", f"{asked.worst():.1f} ms"),
        Row("swaps", "p99 of waits", f"{asked.p99():.2f} ms"),
        Row("swaps", "the caller overslept at worst", f"{asked.late / 1e6:.1f} ms"),
    ]


def chain_versions(
    place: Place, name: str, megabytes: int, seeds: Sequence[int], versions: Sequence[int]
) -> list[tuple[str, np.ndarray]]:
    """Saves a chain of MatMuls for each seed and version; the commit and the answer of each."""
    saved = []
    for seed in seeds:
        for version in versions:
            base = Chain.of(megabytes * 1_000_000)
            chain = Chain(base.count, base.side, seed)
            file = place.folder / f"{name}.onnx"
            answer = reload_models.write_chain(file, chain, version)
            saved.append((place.save(name, file, reload_models.rows(2, chain.side)), answer))
            file.unlink()
            print(f"{place.folder.name}: saved seed {seed}, version {version}", flush=True)
    return saved


def beside(folder: Path, options: Namespace) -> list[Row]:
    """The tiny model under load while a large one, new to the server or known to its store, loads in the same process."""
    place = Place.make(folder)
    expected = scaled_versions(place, "tiny", 1)
    large = chain_versions(place, "large", options.megabytes, range(min(3, options.loads)), [1])
    request = reload_models.write_request(folder / "request", "tiny")
    place.push("tiny@v1.0.0")
    counted: list[tuple[int, int]] = []
    disturbed: list[tuple[int, int]] = []
    first = 0
    with reload_place.serving(place) as server:
        rate = half_of_capacity(server, request)
        with Caller(server.port, request, rate, CONNECTIONS) as caller, Standstill() as still:
            others = Others()
            time.sleep(options.calm)
            calm, share = (0, time.monotonic_ns()), others.share()
            for number in range(3 * options.loads):
                others = Others()
                place.tag(f"large@v1.0.{number}", large[number % len(large)][0])
                begun = time.monotonic_ns()
                first = first or begun
                said = place.push(f"large@v1.0.{number}")
                server.wait_for(f"large v1.0.{number} AVAILABLE")
                time.sleep(0.5)  # the one before is being unloaded
                window = (begun, time.monotonic_ns())  # finding out who used the processors takes one itself
                # Whoever else computes here makes it wait, too.
                where = counted if (had := others.share()) <= options.others else disturbed
                where.append(window)
                print(f"beside: {said.splitlines()[0].strip()}; others had {had:.0%} of the processors", flush=True)
                if len(counted) == options.loads:
                    break
                time.sleep(1)
            asked = caller.end()
            still.end()
    judged = counted or disturbed
    title = f"worst wait in {len(judged)} loads of {options.megabytes} MB"
    rows = [Row.at_most("beside", title, asked.worst(judged), 50, " ms")]
    for windows, what in ((counted, "each of them"), (disturbed, f"loads while others had over {options.others:.0%}")):
        waits = ", ".join(f"{asked.worst([window]):.1f}" for window in windows)
        rows.append(Row("beside", f"worst wait of {what}", f"{waits} ms" if windows else "none"))
    stood = ", ".join(f"{still.longest(window):.1f}" for window in judged)
    rows.append(
        Row("beside", "a processor stood still in each of them, for all that the system can see", f"{stood} ms")
    )
    return [
        Row("beside", "load, requests/s", f"{rate:,.0f}"),
        *verdict("beside", asked, expected),
        *rows,
        Row(
            "beside",
            f"worst wait in {options.calm:.0f} s with nothing loading, others had {share:.0%}",
            f"{asked.worst([calm]):.1f} ms",
        ),
        Row(
            "beside",
            "worst wait from the first load on, packed sessions made ready between loads and all",
            f"{asked.worst([(first, time.monotonic_ns())]):.1f} ms",
        ),
        Row("beside", "p99 of waits", f"{asked.p99():.2f} ms"),
        Row("beside", "the caller overslept at worst", f"{asked.late / 1e6:.1f} ms"),
    ]


def storm(folder: Path, options: Namespace) -> list[Row]:
    """Pushes that come faster than the versions can be loaded, each a `git push` of its own."""
    place = Place.make(folder)
    two = chain_versions(place, "stormy", options.storm_megabytes, [0, 1], [1])
    tags = [place.tag(f"stormy@v1.0.{number}", two[number % 2][0]) for number in range(options.pushes + 1)]
    expected = {tag.partition("@")[2]: two[number % 2][1] for number, tag in enumerate(tags)}
    width = Chain.of(options.storm_megabytes * 1_000_000).side
    request = reload_models.write_request(folder / "request", "stormy", width)
    place.push(tags[0])
    with reload_place.serving(place) as server, Caller(server.port, request, 20, 4) as caller:
        time.sleep(1)
        begun = time.monotonic()
        pushes = []
        for number, tag in enumerate(tags[1:]):
            time.sleep(max(0.0, begun + number * options.storm_seconds / options.pushes - time.monotonic()))
            pushes.append(place.begin_push(tag))
        began_all = time.monotonic() - begun
        for push in pushes:
            reload_place.end_push(push)
        ended_all = time.monotonic() - begun
        answer = server.look("stormy")
        time.sleep(0.5)
        asked = caller.end()
        loads = sum(" LOADING" in line for line in server.lines()) - 1
        newest = tags[-1].partition("@")[2]
        serves = str(answer["serving"])
    return [
        Row("storm", f"pushes begun in {began_all:.1f} s, all ended after {ended_all:.1f} s", str(len(pushes))),
        Row.at_most("storm", "versions the server loaded for them", loads, options.pushes // 2),
        Row("storm", "serves at the end", serves, newest, serves == newest and asked.versions[-1] == newest),
        *verdict("storm", asked, expected),
        Row("storm", "worst wait, 20 requests/s", f"{asked.worst():.0f} ms"),
    ]


def report(found: Sequence[Row]) -> str:
    return measure.table(
        ["scenario", "what was counted", "figure", "limit", "kept"], [list(row.cells()) for row in found]
    )
