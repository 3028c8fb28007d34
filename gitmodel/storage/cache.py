"""The DVC cache, written in DVC's own layout: objects named by md5, read-only, hashed while they are written.

Stock DVC reads what is written here and the reverse; tests hold both against the real command. Source of the layout:
dvc-data's LocalHashFileDB and Tree.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from gitmodel.bundle.lock import FileEntry
from gitmodel.storage.blocks import Hashed, equal, write_hashed
from gitmodel.storage.digests import Digests
from gitmodel.storage.files import fsync_folder, storing

_MODE = 0o444
_ABANDONED = 3600.0


class Cache:
    """``root`` is the folder with ``files/md5`` in it (``.dvc/cache`` unless DVC is told otherwise); ``digests`` remembers
    what was hashed before."""

    def __init__(self, root: Path, digests: Digests | None = None) -> None:
        self.root = root
        self.objects = root / "files" / "md5"
        self.digests = digests or Digests()
        self._written: list[Path] = []
        self._unsettled: set[Path] = set()

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

    def add(self, body: memoryview | bytes, header: bytes = b"") -> Hashed:
        """Writes one object, hashing it on the way: temp file, fsync, rename. An object that is there is kept.

        Its name is durable once ``add_directory`` has been called. Several threads may add at once.
        """
        with storing(f"the DVC cache {self.root}"):
            self.objects.mkdir(parents=True, exist_ok=True)
            descriptor, temporary = tempfile.mkstemp(prefix="tmp-gitmodel-", dir=self.objects)
            try:
                hashed = write_hashed(descriptor, header, memoryview(body))
                if self._has_whole(hashed):
                    Path(temporary).unlink()
                else:
                    self._put(descriptor, Path(temporary), hashed)
            except BaseException:
                Path(temporary).unlink(missing_ok=True)
                raise
            finally:
                os.close(descriptor)
        return hashed

    def _put(self, descriptor: int, temporary: Path, hashed: Hashed) -> None:
        target = self.path(hashed.md5)
        target.parent.mkdir(exist_ok=True)
        os.fchmod(descriptor, _MODE)
        os.fsync(descriptor)
        # One that mends a damaged object stays whatever happens: versions may refer to it.
        if not target.exists():
            self._written.append(target)
        temporary.replace(target)
        self.digests.note(os.fstat(descriptor), hashed.sha256)
        self._unsettled |= {self.objects, target.parent}

    def add_directory(self, files: Iterable[FileEntry]) -> str:
        """Writes DVC's ``.dir`` object for these files, makes all that was added durable, and returns its name."""
        listing = sorted(({"md5": f.md5, "relpath": f.path} for f in files), key=lambda item: item["relpath"])
        data = json.dumps(listing, sort_keys=True).encode()
        oid = f"{hashlib.md5(data, usedforsecurity=False).hexdigest()}.dir"
        target = self.path(oid)
        with storing(f"the DVC cache {self.root}"):
            if not target.exists() or target.read_bytes() != data:
                target.parent.mkdir(parents=True, exist_ok=True)
                descriptor, temporary = tempfile.mkstemp(prefix="tmp-gitmodel-", dir=self.objects)
                with os.fdopen(descriptor, "wb") as file:
                    file.write(data)
                    file.flush()
                    os.fchmod(file.fileno(), _MODE)
                    os.fsync(file.fileno())
                Path(temporary).replace(target)
                self._unsettled |= {self.objects, target.parent}
            for folder in self._unsettled:
                fsync_folder(folder)
            self._unsettled = set()
        return oid

    def holds(self, entry: FileEntry, body: memoryview, header: bytes) -> bool:
        """True when the object's bytes are exactly ``header`` and ``body``: a comparison, far cheaper than a hash."""
        if entry.size != len(header) + len(body):
            return False
        with contextlib.suppress(OSError):
            return equal(self.path(entry.md5), header, body)
        return False

    def _has_whole(self, hashed: Hashed) -> bool:
        # An object DVC or a crash damaged has the right name and wrong bytes: it is replaced, not trusted.
        target = self.path(hashed.md5)
        try:
            return target.stat().st_size == hashed.size and self.digests.of(target) == hashed.sha256
        except OSError:
            return False
