"""DVC's own locks in ``.dvc/tmp``: taken, so that no ``dvc add`` runs meanwhile, and told dead from alive.

Source: dvc.lock and dvc.rwlock of DVC 3. ``lock`` is held by flock(2), so a file that is merely there holds nobody up,
unless ``core.hardlink_lock`` is set; ``rwlock`` lists processes.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from gitmodel.files import replace_file, storing
from gitmodel.storage.setup import DVC_DIR

#: What flufl.lock writes into a lock made of hard links: claim file, host, process, a random number.
_CLAIM = re.compile(r"\|(?P<host>[^|]+)\|(?P<pid>[0-9]+)\|[0-9]+\s*$")


@contextlib.contextmanager
def hold(root: Path) -> Iterator[None]:
    """Keeps DVC's commands out of the repository ``root``; waits for one that runs. Raises StorageFailed."""
    path = root / DVC_DIR / "tmp" / "lock"
    with storing(str(path)):
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def stale(root: Path) -> list[Path]:
    """Lock files of DVC that name processes which are gone, or that DVC cannot read any more."""
    folder = root / DVC_DIR / "tmp"
    found = [folder / "lock"] if _claimed_by_the_dead(folder / "lock") else []
    lists = folder / "rwlock"
    return [*found, lists] if lists.is_file() and _without_the_dead(lists) != _read(lists) else found


def clear(root: Path, path: Path) -> None:
    """Takes what is dead out of a lock file that ``stale`` named. Raises StorageFailed."""
    with storing(str(path)):
        if path.name == "lock":
            path.unlink(missing_ok=True)
        else:
            with hold(root):
                replace_file(path, json.dumps(_without_the_dead(path)).encode())


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (PermissionError, OverflowError):
        return True
    return True


def _claimed_by_the_dead(path: Path) -> bool:
    try:
        claim = _CLAIM.search(path.read_text(errors="replace"))
    except OSError:
        return False
    return bool(claim and claim["host"] == socket.gethostname() and not is_alive(int(claim["pid"])))


def _read(path: Path) -> Any:
    try:
        return json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None


def _without_the_dead(path: Path) -> dict[str, Any]:
    """What the list of readers and writers says of processes that live; nothing of a list that cannot be read."""
    listed = _read(path)
    if not isinstance(listed, dict):
        return {}
    kept: dict[str, Any] = {}
    for kind, by_path in listed.items():
        kept[kind] = {}
        for name, holders in by_path.items() if isinstance(by_path, dict) else ():
            alive = [holder for holder in (holders if isinstance(holders, list) else [holders]) if _holds(holder)]
            if alive:
                kept[kind][name] = alive if isinstance(holders, list) else alive[0]
    return kept


def _holds(holder: Any) -> bool:
    return isinstance(holder, dict) and isinstance(holder.get("pid"), int) and is_alive(holder["pid"])
