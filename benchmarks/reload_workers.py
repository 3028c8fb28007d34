"""The scenario of reload.py with several workers: swaps that no client may see undone, and workers killed in the midst of them."""

from __future__ import annotations

import http.client
import itertools
import os
import random
import signal
import threading
import time
from argparse import Namespace
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import reload_models
import reload_place
from reload_models import fits
from reload_place import PATIENCE, Place, Row, Server, until
from reload_swaps import scaled_versions

_CLIENTS, _CONNECTIONS = 2, 8
#: A worker that ends sooner after its start is replaced after a pause that doubles: that is for workers that cannot live.
_SHORT_LIFE = 3.2


@dataclass
class Hopper:
    """A client that asks one call after another, each on the next of its connections, which lead to all workers: whatever it was
    told, it was told before it asked again. ``lost`` are connections that broke off, as those of a killed worker do."""

    port: int
    request: bytes
    seen: list[tuple[str, str]] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    lost: int = 0

    def run(self, stop: threading.Event) -> None:
        body = self.request.partition(b"\r\n\r\n")[2]
        path = self.request.split(b" ")[1].decode()
        connections = [self._connect() for _ in range(_CONNECTIONS)]
        turn = 0
        while not stop.is_set():
            turn = (turn + 1) % len(connections)
            try:
                connections[turn].request("POST", path, body)
                answer = connections[turn].getresponse()
                told = answer.read().decode()
            except (OSError, http.client.HTTPException):
                self.lost += 1
                connections[turn].close()
                connections[turn] = self._connect()
                continue
            if answer.status == 200:
                self.seen.append((answer.headers["gitmodel-version"], told))
            else:
                self.failed.append(f"{answer.status} {told[:200]}")
        for connection in connections:
            connection.close()

    def _connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE)

    @property
    def steps_back(self) -> int:
        """How often a version answered after a newer one."""
        numbers = [int(version.rpartition(".")[2]) for version, _ in self.seen]
        return sum(after < before for before, after in itertools.pairwise(numbers))


@contextmanager
def hopping(server: Server, request: Path) -> Iterator[list[Hopper]]:
    hoppers, stop = [Hopper(server.port, request.read_bytes()) for _ in range(_CLIENTS)], threading.Event()
    threads = [threading.Thread(target=hopper.run, args=(stop,)) for hopper in hoppers]
    for thread in threads:
        thread.start()
    try:
        yield hoppers
    finally:
        stop.set()
        for thread in threads:
            thread.join(PATIENCE)


def workers(folder: Path, options: Namespace) -> list[Row]:
    """Four workers: clients whose calls go round all of them, while versions are swapped, and workers killed before and after
    the moment at which all switch."""
    kills = 2 * options.worker_kills
    place = Place.make(folder)
    expected = scaled_versions(place, "tiny", options.swaps + kills + 1)
    versions = list(expected)
    request = reload_models.write_request(folder / "request", "tiny")
    place.push("tiny@v1.0.0")
    with reload_place.serving(place, "--workers", str(options.workers)) as server:
        with hopping(server, request) as calm:
            for version in versions[1 : options.swaps + 1]:
                place.push(f"tiny@{version}")
        rows = told("workers", calm, expected, f"{options.swaps} swaps")
        rows.append(Row.at_most("workers", "connections lost", sum(hopper.lost for hopper in calm), 0))
        with hopping(server, request) as rough:
            killed, off, back = kill_about(place, server, versions[options.swaps + 1 :], random.Random(options.seed))
        rows += told("workers", rough, expected, f"{killed} kills")
        rows += [
            Row(
                "workers",
                "of these while the others waited for it: the switch was called off, and made later",
                str(off),
            ),
            Row(
                "workers",
                "of these before it was asked, or after the switch",
                str(killed - off),
            ),
            Row("workers", "connections lost with their worker", str(sum(hopper.lost for hopper in rough))),
            Row.at_most("workers", "longest until the fleet was whole again", round(back, 2), 10, " s"),
        ]
        serves = server.look("tiny")["serving"]
        rows.append(Row("workers", "serves at the end", serves, versions[-1], serves == versions[-1]))
    return rows


def told(name: str, hoppers: list[Hopper], expected: Mapping[str, np.ndarray], what: str) -> list[Row]:
    """What must hold, whoever was killed."""
    answers = {answer for hopper in hoppers for answer in hopper.seen}
    wrong = [version for version, body in answers if not fits(version, body, expected)]
    failed = [line for hopper in hoppers for line in hopper.failed]
    for line in failed[:5]:
        print(f"{name}: failed: {line}")
    return [
        Row(name, f"answers in {what}", f"{sum(len(hopper.seen) for hopper in hoppers):,}"),
        Row.at_most(name, f"{what}: answered with an error", len(failed), 0),
        Row.at_most(name, f"{what}: answers that are not those of the version they name", len(wrong), 0),
        Row.at_most(
            name, f"{what}: a client saw an old version after a new one", sum(h.steps_back for h in hoppers), 0
        ),
    ]


def kill_about(place: Place, server: Server, versions: list[str], chance: random.Random) -> tuple[int, int, float]:
    """The oldest worker is killed at a moment of each swap, every other time before the switch. Returns how many were, how many
    switches were called off, and the longest time until the killed one was replaced, in seconds."""
    off, longest = 0, 0.0
    began = dict.fromkeys(server.workers().values(), time.monotonic())
    for number, version in enumerate(versions):
        victim = min(server.workers().values(), key=began.__getitem__)
        time.sleep(max(0.0, began[victim] + _SHORT_LIFE - time.monotonic()))
        early = number % 2 == 1
        if early:
            os.kill(victim, signal.SIGSTOP)  # what it is asked it does not do: the others wait for it
        push = place.begin_push(f"tiny@{version}")
        server.wait_for(f"tiny {version} {'LOADING' if early else 'AVAILABLE'}", pause=0.0005)
        time.sleep(chance.uniform(0, 0.3 if early else 0.05))
        os.kill(victim, signal.SIGKILL)
        begun = time.monotonic()
        reload_place.end_push(push)
        until(lambda victim=victim: victim not in server.workers().values(), "another worker")  # type: ignore[misc]
        longest = max(longest, time.monotonic() - begun)
        began |= {pid: time.monotonic() for pid in server.workers().values() if pid not in began}
        off += any(f"tiny {version} END: worker" in line for line in server.lines())
        until(lambda version=version: server.look("tiny")["serving"] == version, f"{version} to be served")  # type: ignore[misc]
    return len(versions), off, longest
