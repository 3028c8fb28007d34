"""sha256 of files, remembered by the state of the file, so that what has not changed since is not hashed again.

It goes by device, inode, size and the time of the last write. Git's index asks for the time of the last change of the
inode, too; each hard link that is made or removed changes that, and we make many. So bytes that went bad on the disk, or
were written by somebody who set the time back, are not noticed here. Whoever must not rely on that (``fsck``, what leaves
for a remote or an exported file, what has just arrived) calls ``hash_file`` or ``Digests.anew``.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path

#: Linux notes the time of a change in ticks of 10 ms at most, older file systems and some of the network in seconds.
_TICK_NS, _COARSE_TICK_NS = 20_000_000, 2_000_000_000
_SCHEMA = """CREATE TABLE IF NOT EXISTS digests (
    device INTEGER, inode INTEGER, size INTEGER, changed INTEGER, sha256 TEXT,
    PRIMARY KEY (device, inode)) WITHOUT ROWID"""
_PENDING = 1000
#: Stands before the digest of a file that was right when gitmodel laid it, and is not, though nobody has written it.
_ROTTEN = "rotten:"
_HALF = 1 << 63

State = tuple[int, int, int, int]


def hash_file(path: Path) -> str:
    """The sha256 of the file's bytes as they are now."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def state_of(info: os.stat_result) -> State:
    return (info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns)


def is_settled(changed_ns: int) -> bool:
    """Whether a file changed then could not change again without a new time of change."""
    coarse = changed_ns % 1_000_000 == 0
    return time.time_ns() - changed_ns > (_COARSE_TICK_NS if coarse else _TICK_NS)


class Digests:
    """A memory of digests; with a ``path`` it outlasts the process. Losing it costs time and nothing else, so it is
    written without waiting for the disk and thrown away when it cannot be read. Safe to use from several threads."""

    def __init__(self, path: Path | None = None) -> None:
        self._known: dict[State, str] = {}
        self._lock = threading.Lock()
        self._table = _Table(path) if path else None
        if self._table:
            weakref.finalize(self, self._table.close)

    def of(self, path: Path) -> str:
        """The file's sha256, hashed unless it is known for just this state of it. Raises OSError."""
        return self._recalled(path.stat()) or self.anew(path)

    def anew(self, path: Path) -> str:
        """The sha256 of the file's bytes as they are now, whatever was remembered; this is from here on. Raises OSError."""
        info = path.stat()
        settled = is_settled(info.st_mtime_ns)  # before it is hashed: that takes longer than a tick
        digest = hash_file(path)
        if settled:
            self.note(info, digest)
        return digest

    def remembers(self, path: Path, sha256: str) -> bool:
        """Whether that is known to be the file's sha256 without reading it. Raises OSError."""
        return self._recalled(path.stat()) == sha256

    def is_rotten(self, path: Path) -> bool:
        """Whether the file was found to have other bytes than it had, in the very state it had. Raises OSError."""
        return self._noted(path.stat()).startswith(_ROTTEN)

    def _recalled(self, info: os.stat_result) -> str | None:
        return self._noted(info).removeprefix(_ROTTEN) or None

    def _noted(self, info: os.stat_result) -> str:
        state = state_of(info)
        with self._lock:
            return self._known.get(state) or (self._table.get(state) if self._table else None) or ""

    def fits(self, path: Path, sha256: str) -> bool:
        """Whether that is the file's sha256. A memory that says no is not believed: the file is hashed. Raises OSError."""
        return self.of(path) == sha256 or self.anew(path) == sha256

    def note(self, info: os.stat_result, digest: str) -> None:
        """Remembers the digest of a file that nobody else writes, or that was last changed well before now. When another
        one is remembered for just this state, the file has gone bad."""
        if digest != (before := self._recalled(info)):
            self._put(info, f"{_ROTTEN}{digest}" if before else digest)

    def _put(self, info: os.stat_result, noted: str) -> None:
        state = state_of(info)
        with self._lock:
            self._known[state] = noted
            if self._table:
                self._table.put(state, noted)

    def flush(self) -> None:
        """Writes down what is known so far; the end of the process does it, too."""
        with self._lock:
            if self._table:
                self._table.write()


class _Table:
    """The part on disk: read row by row, written at the end, or when much has gathered."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._pending: list[tuple[State, str]] = []
        self._connection: sqlite3.Connection | None = None
        self._broken = False

    def get(self, state: State) -> str | None:
        query = "SELECT sha256 FROM digests WHERE device=? AND inode=? AND size=? AND changed=?"
        rows = self._run(lambda db: db.execute(query, _signed(state)).fetchall())
        return str(rows[0][0]) if rows else None

    def put(self, state: State, digest: str) -> None:
        self._pending.append((state, digest))
        if len(self._pending) >= _PENDING:
            self.write()

    def close(self) -> None:
        self.write()
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def write(self) -> None:
        rows = [(*_signed(state), digest) for state, digest in self._pending]
        self._pending = []
        if rows:
            self._run(lambda db: _replace(db, rows))

    def _run(self, action: Callable[[sqlite3.Connection], list[tuple[object, ...]]]) -> list[tuple[object, ...]]:
        """What the action gives; nothing when the file cannot be used, which is then left alone or thrown away."""
        if self._broken:
            return []
        try:
            if self._connection is None:
                self._connection = self._open()
            return action(self._connection)
        except sqlite3.OperationalError:  # read-only, full, locked: not ours to mend
            self._broken = True
        except sqlite3.DatabaseError:
            self._broken = True
            with contextlib.suppress(OSError):
                self._path.unlink()
        except OSError:
            self._broken = True
        return []

    def _open(self) -> sqlite3.Connection:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        # Several threads use it, one at a time.
        connection = sqlite3.connect(self._path, timeout=1, isolation_level=None, check_same_thread=False)
        connection.execute("PRAGMA journal_mode=WAL")
        connection.execute("PRAGMA synchronous=OFF")
        connection.execute(_SCHEMA)
        return connection


def _replace(db: sqlite3.Connection, rows: Sequence[tuple[object, ...]]) -> list[tuple[object, ...]]:
    db.execute("BEGIN")
    db.executemany("REPLACE INTO digests VALUES (?, ?, ?, ?, ?)", rows)
    return db.execute("COMMIT").fetchall()


def _signed(state: State) -> State:
    """SQLite's integers have 64 bits with a sign; an inode's number may use all 64, a time may lie beyond them."""
    device, inode, size, changed = ((number + _HALF) % (2 * _HALF) - _HALF for number in state)
    return device, inode, size, changed
