"""Scenarios of reload.py in which something goes wrong: versions that are broken, servers that are killed, notices that
are lost, doubled, reordered, forged or replayed."""

from __future__ import annotations

import contextlib
import http.client
import random
import subprocess
import threading
import time
from argparse import Namespace
from collections.abc import Iterator, Mapping
from pathlib import Path

import load
import measure
import numpy as np
import reload_models
import reload_place
import reload_swaps
from chain import Chain
from reload_broken import KINDS, Bundle
from reload_caller import Caller
from reload_models import fits
from reload_place import Place, Row, Server

_POLL = 2.0
_ZEROS = "0" * 40
#: Longer than any good version takes, so that one that does not start stands out and the run goes on.
_GIVEN_UP = 60.0


def broken(folder: Path, options: Namespace) -> list[Row]:
    """Version after version that must not be served; a good one before them, and one after."""
    place = Place.make(folder)
    expected = reload_swaps.scaled_versions(place, "tiny", 2)
    good = place.git("rev-parse", "tiny@v1.0.0^{commit}")
    kinds = list(KINDS)
    request = reload_models.write_request(folder / "request", "tiny")
    place.push("tiny@v1.0.0")
    served, silent = [], []
    with reload_place.serving(place) as server, Caller(server.port, request, options.rate, 4) as caller:
        for number in range(options.broken):
            kind, version = kinds[number % len(kinds)], f"v1.1.{number}"
            commit = _spoil(place, "tiny", good, kind, number)
            place.release(f"tiny@{version}", commit)
            row = server.statuses("tiny").get(version, {})
            if row.get("state") == "AVAILABLE" or server.get("/v2/models/tiny")[1]["versions"] != ["v1.0.0"]:
                served.append(kind)
                print(f"broken: SERVED: {kind}", flush=True)
                _withdraw(place, f"tiny@{version}", good)
            elif not row.get("reason"):
                silent.append(kind)
                print(f"broken: no reason: {kind}: {row}", flush=True)
            elif number < len(kinds):
                print(f"broken: {kind}: {row['reason']}", flush=True)
        asked_until_now = time.monotonic_ns()
        place.git("tag", "-a", "-m", "good", "tiny@v1.2.0", "tiny@v1.0.1^{commit}")
        place.push("tiny@v1.2.0")
        time.sleep(0.5)
        asked = caller.end()
    expected = {"v1.0.0": expected["v1.0.0"], "v1.2.0": expected["v1.0.1"]}
    strange = sorted({version for when, version in asked.changes if when < asked_until_now} - {"v1.0.0"})
    return [
        Row("broken", "broken versions pushed", f"{options.broken}, {min(options.broken, len(kinds))} kinds"),
        Row.at_most("broken", f"served all the same{_named(served)}", len(served), 0),
        Row.at_most("broken", f"without a reason in the status{_named(silent)}", len(silent), 0),
        Row.at_most("broken", "other versions than the good one that answered meanwhile", len(strange), 0),
        *reload_swaps.verdict("broken", asked, expected),
        Row("broken", "a good one after them serves", asked.versions[-1], "v1.2.0", asked.versions[-1] == "v1.2.0"),
        Row("broken", "worst wait", f"{asked.worst():.1f} ms"),
    ]


def _named(kinds: list[str]) -> str:
    return f" ({', '.join(sorted(set(kinds)))})" if kinds else ""


def _spoil(place: Place, name: str, good: str, kind: str, number: int) -> str:
    """A commit on top of the good one, with what is wrong."""
    place.git("checkout", "-q", "--detach", good)
    KINDS[kind](Bundle(place.author / "models" / name, place.storage, str(number)))
    place.git("add", "-A")
    place.git("commit", "-q", "--allow-empty", "-m", kind)
    return place.git("rev-parse", "HEAD")


def _withdraw(place: Place, tag: str, commit: str) -> None:
    """So that the next ones are held against the good one again."""
    place.release(f"{tag}!", commit)


def killed(folder: Path, options: Namespace) -> list[Row]:
    """kill -9 in the middle of a reload, and a start on what that left."""
    place, random_moment = Place.make(folder), random.Random(options.seed)
    two = reload_swaps.chain_versions(place, "m", options.killed_megabytes, [0, 1], [1])
    width = Chain.of(options.killed_megabytes * 1_000_000).side
    request = reload_models.write_request(folder / "request", "m", width).read_bytes()
    expected = {"v1.0.0": two[0][1]}
    place.release("m@v1.0.0", two[0][0])
    whole, waits, before, wrong, stuck = 0.0, [], 0, 0, []
    server = reload_place.listening(reload_place.begin(place))
    try:
        server.look()
        for number in range(1, options.kills + 1):
            version = f"v1.0.{number}"
            expected[version] = two[number % 2][1]
            reload_place.forget(place, "m", two[number % 2][0])
            push = place.begin_push(place.tag(f"m@{version}", two[number % 2][0]))
            server.wait_for(f" m {version} LOADING", pause=0.0005)
            if number == 1:  # how long one takes, from which the moments are drawn
                begun = time.monotonic()
                server.wait_for(f" m {version} AVAILABLE", pause=0.0005)
                whole = time.monotonic() - begun
                print(f"killed: a reload of {options.killed_megabytes} MB takes {whole:.2f} s", flush=True)
            else:
                time.sleep(random_moment.uniform(0, 1.5 * whole))
            server.kill()
            before += f" m {version} AVAILABLE" not in server.log.read_text(errors="replace")
            reload_place.end_push(push)
            begun = time.monotonic()
            server = reload_place.begin(place)
            first, bad = _first_answer(server, request, expected, {f"v1.0.{number - 1}", version})
            waits.append(first - begun)
            reload_place.listening(server).look()
            told, body = _answer(server, request)
            wrong += bad + (told != version or not fits(told, body, expected))
            if told != version:
                stuck.append(version)
            if number % 20 == 0:
                print(f"killed: {number} times, worst start {max(waits):.2f} s", flush=True)
    finally:
        server.stop()
    left = list(_left_over(place.bare / "gitmodel" / "store"))
    return [
        Row("killed", "kills in a reload, before the new version answered", f"{len(waits)}, {before}"),
        Row.at_most("killed", "longest from a start to a good answer", max(waits), 5, " s"),
        Row("killed", "median from a start to a good answer", f"{measure.median(waits):.2f} s"),
        Row.at_most("killed", "answers wrong", wrong, 0),
        Row.at_most("killed", "starts that did not come to the newest version", len(stuck), 0),
        Row("killed", "half-made files left in the store", f"{len(left)}, {sum(left) / 1e6:.0f} MB"),
    ]


def _left_over(store: Path) -> Iterator[int]:
    """Bytes of each file that a kill left half written."""
    for path in (
        *store.glob("files/md5/tmp-gitmodel-*"),
        *store.glob("**/.*.tmp"),
        *store.glob("versions/building-*/*"),
    ):
        yield path.stat().st_size


def _first_answer(
    server: Server, request: bytes, expected: Mapping[str, np.ndarray], good: set[str]
) -> tuple[float, int]:
    """When the first good answer came, and how many bad ones there were before it."""
    reload_place.listening(server)
    wrong, deadline = 0, time.monotonic() + _GIVEN_UP
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, http.client.HTTPException):
            version, body = _answer(server, request)
            if version in good and fits(version, body, expected):
                return time.monotonic(), wrong
            wrong += bool(version)
        time.sleep(0.005)
    return time.monotonic(), wrong


def _answer(server: Server, request: bytes) -> tuple[str, str]:
    """The version a call's answer names, and its body; nothing for one that is not served."""
    head, _, body = load.exchange(server.port, request).partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 200"):
        return "", ""
    lines = (line.partition(b": ") for line in head.split(b"\r\n"))
    return next(value.decode() for name, _, value in lines if name == b"gitmodel-version"), body.decode()


def notices(folder: Path, options: Namespace) -> list[Row]:
    """A notice is a hint: whatever becomes of it, what the refs say is served, and nothing else in between."""
    place = Place.make(folder)
    expected = reload_swaps.scaled_versions(place, "tiny", 6)
    request = reload_models.write_request(folder / "request", "tiny")
    place.push("tiny@v1.0.0")
    found: list[Row] = []

    def line(version: str, model: str = "tiny", new: str = "") -> str:
        tag = f"{model}@{version}"
        return f"{_ZEROS} {new or place.git('rev-parse', tag)} refs/tags/{tag}"

    def push_untold(*versions: str) -> float:
        place.hooks("uninstall")
        place.push(*(f"tiny@{version}" for version in versions))
        pushed = time.monotonic()
        place.hooks()
        return pushed

    with (
        reload_place.serving(place, "--poll", str(_POLL)) as server,
        Caller(server.port, request, options.rate, 1) as caller,
    ):
        pushed = push_untold("v1.0.1")
        server.wait_for("tiny v1.0.1 AVAILABLE", _GIVEN_UP)
        found.append(
            Row.at_most(
                "notices", f"lost: until the poll ({_POLL:g} s) found it", time.monotonic() - pushed, _POLL + 5, " s"
            )
        )
        push_untold("v1.0.2")
        _tell(place, [[line("v1.0.2")]] * options.copies)
        loads = server.count("tiny v1.0.2 LOADING")
        found.append(Row.at_most("notices", f"doubled: loads for {options.copies} notices at once", loads, 1))
        push_untold("v1.0.3", "v1.0.4")
        for version in ("v1.0.4", "v1.0.3"):
            _tell(place, [[line(version)]])
        found.append(_serves(server, "reordered: serves", "v1.0.4"))
        some = place.git("rev-parse", "tiny@v1.0.0")
        forged = [
            ("v9.9.9", "tiny"),
            ("v1.0.0", "other"),
            ("v1.0.0;id", "tiny"),
            ("v1.0.0", "../tiny"),
            ("v1.0.0!", "tiny"),
        ]
        _tell(place, [[line(version, model, some)] for version, model in forged])
        _tell(place, [[f"{some} {_ZEROS} refs/tags/tiny@v1.0.4"], ["no line at all"]])
        found += _forged_requests(server)
        found.append(_serves(server, "forged: serves", "v1.0.4"))
        place.push("tiny@v1.0.5")
        for version in ("v1.0.1", "v1.0.2", "v1.0.3", "v1.0.4", "v1.0.1"):
            _tell(place, [[line(version)]] * 3)
        found.append(_serves(server, "replayed: serves", "v1.0.5"))
        time.sleep(_POLL + 0.5)
        asked = caller.end()
        known = set(server.statuses("tiny")) - set(expected)
    due = ["v1.0.0", "v1.0.1", "v1.0.2", "v1.0.4", "v1.0.5"]
    print(f"notices: one caller saw {', '.join(asked.versions)}", flush=True)
    unwanted = max(len(asked.versions) - len(due), 0) if set(due) <= set(asked.versions) else len(due)
    return [
        *found,
        Row.at_most("notices", "swaps a steady caller saw that the refs did not ask for", unwanted, 0),
        Row("notices", "swaps it saw", str(len(asked.versions) - 1), "4", asked.versions == due),
        Row.at_most("notices", "versions in the status that no ref names", len(known), 0),
        *reload_swaps.verdict("notices", asked, expected),
    ]  # fmt: skip


def _tell(place: Place, calls: list[list[str]]) -> None:
    """Runs the real hook with these lines, all calls at once, as Git would after a push."""

    def call(lines: list[str]) -> None:
        hook = place.bare / "hooks" / "post-receive"
        said = "".join(f"{line}\n" for line in lines)
        subprocess.run([str(hook)], cwd=place.bare, input=said, text=True, capture_output=True, check=True, timeout=120)

    threads = [threading.Thread(target=call, args=(lines,)) for lines in calls]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _serves(server: Server, what: str, version: str) -> Row:
    serving = server.get("/v2/models/tiny")[1]["versions"]
    return Row("notices", what, ", ".join(serving), version, serving == [version])


def _forged_requests(server: Server) -> list[Row]:
    """Notices that would tell the server what to load, on the management socket and on the public port."""
    from gitmodel import endpoint

    path = "/v2/repository/models/tiny/load"
    given = (
        {"version": "v1.0.0"},
        {"url": "http://127.0.0.1:9/x"},
        {"file:model.onnx": "AAAA"},
        {"config": "{}"},
        {"wait": 1e9},
    )
    taken = 0
    for parameters in given:
        with contextlib.suppress(endpoint.NoServer):
            endpoint.request(server.admin, "POST", path, {"parameters": parameters}, timeout=30)
            taken += 1
    public = [server.get(path, "POST", {})[0], server.get("/v2/repository/models/tiny/unload", "POST", {})[0]]
    stranger = endpoint.request(
        server.admin, "POST", "/v2/repository/models/stranger/load", {"parameters": {"wait": 10}}, timeout=30
    )
    return [
        Row.at_most("notices", "forged: parameters with a version, URL, file or config that were taken", taken, 0),
        Row("notices", "forged: status on the public port", str(public), "[403, 403]", public == [403, 403]),
        Row("notices", "forged: what a model nobody has serves", str(stranger["serving"]), "None", stranger["serving"] is None),
    ]  # fmt: skip
