"""What running two models showed, kept in the repository's state folder, so that the same check runs nothing again.

An entry is a JSON file named after all that the result depends on. It is a convenience and no promise: one that is
damaged, foreign or from another gitmodel is as good as none.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from msgspec import Struct, to_builtins
from msgspec.structs import asdict

from gitmodel import runtime
from gitmodel.bundle.bundle import CARD, SIGNATURE, Bundle
from gitmodel.compat import rules
from gitmodel.compat.changes import Change
from gitmodel.compat.drift import OutputDrift
from gitmodel.errors import GitmodelError
from gitmodel.files import replace_file, storing
from gitmodel.workflows.calibrate import threads

FOLDER = "replays"
#: Raised whenever the same two models may show something else.
SCHEMA = 1
#: How many are kept: the ones used last.
MOST = 256


class Shown(Struct, frozen=True):
    """All the facts after running, those from before it among them, and what else the report says of it."""

    changes: tuple[Change, ...]
    cases: int
    generated: bool
    noise: str
    drifts: tuple[OutputDrift, ...]


class Entry(Struct, frozen=True):
    """Where a result is kept, and all that it depends on."""

    path: Path
    key: Mapping[str, Any]


def entry(state_dir: Path, old: Bundle, new: Bundle, found: Sequence[Change]) -> Entry | None:
    """Of two bundles whose weights have a digest; ``found`` is what was known before running."""
    if old.file is not None or new.file is not None:
        return None
    key = {
        "schema": SCHEMA,
        "runtime": runtime.version(),
        "options": [os.uname().machine, threads()],
        "rules": _digest(rules.names()),
        # Facts name the versions, some in the middle of a text.
        "labels": [old.label, new.label],
        "old": _side(old),
        "new": _side(new),
        "found": _digest([asdict(change) for change in found]),
    }
    return Entry(state_dir / FOLDER / f"{_digest(key)}.json", key)


def recall(where: Entry) -> Shown | None:
    """What was kept there, if it is whole and of this very key."""
    try:
        document = json.loads(where.path.read_bytes())
        if document["key"] != where.key or document["sha256"] != _digest(document["body"]):
            return None
        body = document["body"]
        shown = Shown(
            tuple(Change(**change) for change in body["changes"]),
            int(body["cases"]),
            bool(body["generated"]),
            str(body["noise"]),
            tuple(OutputDrift.from_dict(drift) for drift in body["drifts"]),
        )
        os.utime(where.path)
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    return shown


def keep(where: Entry, shown: Shown) -> None:
    """Writes it down, and drops the ones not used for longest. What cannot be written is not kept."""
    body = {
        "changes": [asdict(change) for change in shown.changes],
        "cases": shown.cases,
        "generated": shown.generated,
        "noise": shown.noise,
        "drifts": [to_builtins(drift) for drift in shown.drifts],
    }
    with contextlib.suppress(GitmodelError, TypeError, ValueError):
        document = {"key": where.key, "sha256": _digest(body), "body": body}
        replace_file(where.path, json.dumps(document).encode())
        _drop_oldest(where.path.parent)


def _drop_oldest(folder: Path) -> None:
    with storing(str(folder)):
        kept = sorted(folder.glob("*.json"), key=lambda path: path.stat().st_mtime, reverse=True)
        for path in kept[MOST:]:
            path.unlink(missing_ok=True)


def _side(bundle: Bundle) -> dict[str, str]:
    """All of a bundle that decides how it runs and what it must give. The whole card counts: who reads it grows."""
    card, signature = (hashlib.sha256(bundle.folder.read(path) or b"").hexdigest() for path in (CARD, SIGNATURE))
    goldens = _digest(bundle.golden_digests)
    return {"weights": bundle.lock.digest, "goldens": goldens, "card": card, "signature": signature}


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()
