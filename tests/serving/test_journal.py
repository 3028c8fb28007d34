"""gitmodel.serving.journal: lines for people and objects for programs, and nothing a caller sent makes a line of its own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from gitmodel.endpoint import Endpoint
from gitmodel.serving.journal import Journal
from gitmodel.serving.servable import State, VersionStatus

SCOPE: dict[str, Any] = {"method": "POST", "path": "/v2/models/fraud/infer", "client": ("127.0.0.1", 5)}
READY = VersionStatus("fraud", "v1.0.0", "c" * 40, State.AVAILABLE, seconds=0.5, golden_passed=3, golden_cases=4)
BROKEN = VersionStatus("fraud", "v1.1.0", "d" * 40, State.END, reason="2 of 4 golden cases fail")


def tell(journal: Journal) -> None:
    journal.started(
        Path("/srv/m.git"),
        Endpoint(7, "http://127.0.0.1:8000", "/srv/a.sock"),
        ["there is no version of 'spam' here yet"],
    )
    journal.listening("http://127.0.0.1:8001")
    journal.told(READY)
    journal.told(BROKEN)
    journal.answered(b"a-1", SCOPE, 200, "")
    journal.answered(b"a-2", SCOPE, 500, "ValueError: no")
    journal.stopped()


def test_people_read_lines() -> None:
    said: list[str] = []
    tell(Journal(said.append))
    assert said[:3] == [
        "warning: there is no version of 'spam' here yet",
        "serving /srv/m.git on http://127.0.0.1:8000 (management: /srv/a.sock, pid 7)",
        "signed notices are taken on http://127.0.0.1:8001",
    ]
    assert [line.partition(" ")[2] for line in said[3:-1]] == [
        "fraud v1.0.0 AVAILABLE in 0.50 s, 3/4 golden cases",
        "fraud v1.1.0 END: 2 of 4 golden cases fail",
        "POST /v2/models/fraud/infer 500 [a-2]: ValueError: no",
    ]
    assert said[-1] == "stopped"


def test_programs_read_one_object_a_line() -> None:
    said: list[str] = []
    tell(Journal(said.append, as_json=True, requests=True))
    found = [json.loads(line) for line in said]
    assert [value["event"] for value in found] == [
        "warning", "started", "notices", "version", "version", "request", "request", "stopped",
    ]  # fmt: skip
    assert all(value["time"].endswith("+00:00") for value in found)
    assert found[4]["reason"] == "2 of 4 golden cases fail"
    assert (found[5]["id"], found[5]["status"], found[5]["client"], found[5]["path"]) == (
        "a-1", 200, "127.0.0.1", "/v2/models/fraud/infer",
    )  # fmt: skip


def test_what_a_caller_sent_stays_in_its_line() -> None:
    said: list[str] = []
    scope = {"method": "GET", "path": "/a\nforged \x1b[2J" + "\u2028" + "x" * 900, "client": None}
    Journal(said.append).answered(b"a-3", scope, 500, "why\nforged")
    Journal(said.append, as_json=True).answered(b"a-3", scope, 500, "why\nforged")
    assert all("\n" not in line and "\x1b" not in line and "\u2028" not in line and len(line) < 2000 for line in said)
    assert "/a\\nforged \\x1b[2J" in said[0]
    assert json.loads(said[1])["client"] == "local"
