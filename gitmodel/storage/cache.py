"""The DVC cache, written in DVC's own layout: objects named by md5, read-only, hashed while they are written.

Stock DVC reads what is written here and the reverse; tests hold both against the real command. Source of the layout:
dvc-data's LocalHashFileDB and Tree.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import mmap
import os
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from gitmodel.bundle.lock import FileEntry
from gitmodel.storage.files import fsync_folder, storing

_MODE = 0o444
_BLOCK = 1 << 20
_TICK_NS = 50_000_000
_ABANDONED = 3600.0
_digests: dict[tuple[int, int, int, int], str] = {}


@dataclass(frozen=True)
class Added:
    """What was written: digests of the whole object, and of its ``body`` alone (a tensor's own bytes)."""

    md5: str
    sha256: str
    body_sha256: str
    size: int

    def entry(self, path: str) -> FileEntry:
        return FileEntry(path, self.size, self.sha256, self.md5)


class Cache:
    """``root`` is the folder with ``files/md5`` in it (``.dvc/cache`` unless DVC is told otherwise)."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.objects = root / "files" / "md5"
        self._written: list[Path] = []

    def sweep(self) -> None:
        """Removes what a killed save left half written. Another repository may share the cache and be writing, so only
        what has not been touched for an hour goes."""
        for left_over in self.objects.glob("tmp-gitmodel-*"):
            with contextlib.suppress(OSError):
                if time.time() - left_over.stat().st_mtime > _ABANDONED:
                    left_over.unlink()

    @contextlib.contextmanager
    def undone_on_error(self) -> Iterator[None]:
        """Removes the objects written inside when it ends with an error: nothing refers to them yet."""
        self._written = []
        try:
            yield
        except BaseException:
            for path in self._written:
                path.unlink(missing_ok=True)
            raise

    def path(self, md5: str) -> Path:
        return self.objects / md5[:2] / md5[2:]

    def has(self, entry: FileEntry) -> bool:
        """True when an object of that name and size is there; whether its bytes are right is for who reads them."""
        try:
            return self.path(entry.md5).stat().st_size == entry.size
        except OSError:
            return False

    def add(self, body: memoryview | bytes, header: bytes = b"") -> Added:
        """Writes one object, hashing it on the way: temp file, fsync, rename. An object that is there is kept."""
        with storing(f"the DVC cache {self.root}"):
            self.objects.mkdir(parents=True, exist_ok=True)
            descriptor, temporary = tempfile.mkstemp(prefix="tmp-gitmodel-", dir=self.objects)
            try:
                added = _write(descriptor, memoryview(header), memoryview(body))
                target = self.path(added.md5)
                if not self._same(target, added):
                    target.parent.mkdir(exist_ok=True)
                    os.fchmod(descriptor, _MODE)
                    os.fsync(descriptor)
                    # One that mends a damaged object stays whatever happens: versions may refer to it.
                    if not target.exists():
                        self._written.append(target)
                    Path(temporary).replace(target)
                    _digests[_state(os.fstat(descriptor))] = added.sha256
                    fsync_folder(target.parent)
                else:
                    Path(temporary).unlink()
            except BaseException:
                Path(temporary).unlink(missing_ok=True)
                raise
            finally:
                os.close(descriptor)
        return added

    def add_directory(self, files: Iterable[FileEntry]) -> str:
        """Writes DVC's ``.dir`` object for these files and returns its name."""
        listing = sorted(({"md5": f.md5, "relpath": f.path} for f in files), key=lambda item: item["relpath"])
        data = json.dumps(listing, sort_keys=True).encode()
        oid = f"{hashlib.md5(data, usedforsecurity=False).hexdigest()}.dir"
        target = self.path(oid)
        if not target.exists() or target.read_bytes() != data:
            with storing(f"the DVC cache {self.root}"):
                target.parent.mkdir(parents=True, exist_ok=True)
                descriptor, temporary = tempfile.mkstemp(prefix="tmp-gitmodel-", dir=self.objects)
                with os.fdopen(descriptor, "wb") as file:
                    file.write(data)
                    file.flush()
                    os.fchmod(file.fileno(), _MODE)
                    os.fsync(file.fileno())
                Path(temporary).replace(target)
        return oid

    def holds(self, entry: FileEntry, body: memoryview, header_size: int) -> bool:
        """True when the object's bytes after ``header_size`` are exactly ``body``: a comparison, far cheaper than a hash."""
        import numpy as np

        if entry.size != header_size + len(body) or not self.has(entry):
            return False
        with self.path(entry.md5).open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as mapped:
            # Views of the map must be gone before it is closed, hence the one expression.
            return np.array_equal(np.frombuffer(mapped, np.uint8)[header_size:], np.frombuffer(body, np.uint8))

    def _same(self, target: Path, added: Added) -> bool:
        # An object DVC or a crash damaged has the right name and wrong bytes: it is replaced, not trusted.
        try:
            if target.stat().st_size != added.size:
                return False
            return sha256_of(target) == added.sha256
        except OSError:
            return False


def sha256_of(path: Path) -> str:
    """The digest of a file, hashed once per process and state of the file (device, inode, size, time of change)."""
    info = path.stat()
    key = _state(info)
    if key not in _digests:
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if time.time_ns() - info.st_mtime_ns < _TICK_NS:
            return digest  # so fresh that another write would not show in its time
        _digests[key] = digest
    return _digests[key]


def _state(info: os.stat_result) -> tuple[int, int, int, int]:
    return (info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns)


def _write(descriptor: int, header: memoryview, body: memoryview) -> Added:
    md5 = hashlib.md5(header, usedforsecurity=False)
    whole = hashlib.sha256(header)
    alone = hashlib.sha256()
    _write_all(descriptor, header)
    for start in range(0, len(body), _BLOCK):
        block = body[start : start + _BLOCK]  # stays in the processor's cache for the three hashes and the write
        md5.update(block)
        alone.update(block)
        if header:
            whole.update(block)
        _write_all(descriptor, block)
    total = whole if header else alone
    return Added(md5.hexdigest(), total.hexdigest(), alone.hexdigest(), len(header) + len(body))


def _write_all(descriptor: int, data: memoryview) -> None:
    view: Sequence[int] | memoryview = data
    while len(view):
        view = view[os.write(descriptor, view) :]  # type: ignore[arg-type]  # a memoryview slice is a memoryview
