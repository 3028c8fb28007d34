"""The DVC cache, written in DVC's own layout: objects named by md5, read-only, hashed while they are written.

Stock DVC reads what is written here and the reverse; tests hold both against the real command. Source of the layout:
dvc-data's LocalHashFileDB and Tree.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from gitmodel.bundle.lock import FileEntry
from gitmodel.files import aside, fsync_folder, storing, sweep, write_all
from gitmodel.storage.blocks import Hashed, ends_with, equal, write_hashed
from gitmodel.storage.digests import Digests
from gitmodel.storage.pointer import listing_of

_MODE = 0o444


class Cache:
    """``root`` is the folder with ``files/md5`` in it (``.dvc/cache`` unless DVC is told otherwise); ``digests`` remembers
    what was hashed before."""

    def __init__(self, root: Path, digests: Digests | None = None) -> None:
        self.root = root
        self.objects = root / "files" / "md5"
        self.digests = digests or Digests()
        self._written: dict[Path, int] = {}
        self._unsettled: set[Path] = set()

    def sweep(self) -> None:
        """Removes what a killed save left half written."""
        sweep(self.objects.glob("tmp-gitmodel-*"))

    @contextlib.contextmanager
    def undone_on_error(self) -> Iterator[None]:
        """Removes the objects written inside when it ends with an error: nothing here refers to them yet. One that another
        repository has taken up meanwhile, in a cache they share, was touched by it and stays."""
        self._written = {}
        try:
            yield
        except BaseException:
            for path, changed in self._written.items():
                with contextlib.suppress(OSError):
                    if path.stat().st_mtime_ns == changed:
                        path.unlink()
            raise

    @property
    def written(self) -> frozenset[Path]:
        """The objects that were not there before, since ``undone_on_error`` began."""
        return frozenset(self._written)

    def path(self, md5: str) -> Path:
        return self.objects / md5[:2] / md5[2:]

    def has(self, entry: FileEntry) -> bool:
        """True when an object of that name and size is there; whether its bytes are right is for who reads them."""
        try:
            return self.path(entry.md5).stat().st_size == entry.size
        except OSError:
            return False

    def add(
        self, body: memoryview | bytes, header: bytes = b"", also: Callable[[memoryview | bytes], None] | None = None
    ) -> Hashed:
        """Writes one object, hashing it on the way: temp file, fsync, rename. An object that is there is kept. ``also`` is
        given the same bytes, piece by piece.

        Its name is durable once ``add_directory`` has been called. Several threads may add at once.
        """
        with self.aside() as (descriptor, temporary):
            hashed = write_hashed(descriptor, header, memoryview(body), also)
            target = self.path(hashed.md5)
            if self._has_whole(hashed, header, memoryview(body)) and self._keep(target, hashed.sha256):
                return hashed
            # One that mends a damaged object stays whatever happens: versions may refer to it.
            is_new = not target.exists()
            self._put(descriptor, temporary, target)
            self.digests.note(os.fstat(descriptor), hashed.sha256)
            if is_new:
                self._written[target] = os.fstat(descriptor).st_mtime_ns
        return hashed

    def add_directory(self, files: Iterable[FileEntry]) -> str:
        """Writes DVC's ``.dir`` object for these files, makes all that was added durable, and returns its name."""
        oid, data = listing_of(files)
        target = self.path(oid)
        with storing(f"the DVC cache {self.root}"):
            if not target.exists() or target.read_bytes() != data:
                with self.aside() as (descriptor, temporary):
                    write_all(descriptor, data)
                    self._put(descriptor, temporary, target)
            for folder in self._unsettled:
                fsync_folder(folder)
            self._unsettled = set()
        return oid

    @contextlib.contextmanager
    def aside(self) -> Iterator[tuple[int, Path]]:
        """An open file beside the objects, which is gone afterwards unless it was put in its place; ``sweep`` removes it
        should we be killed."""
        with storing(f"the DVC cache {self.root}"):
            self._make(self.objects)
            with aside(self.objects, "tmp-gitmodel-") as opened:
                yield opened

    def _keep(self, target: Path, sha256: str) -> bool:
        """Tells whoever wrote the object, and may be about to take it away again, that somebody relies on it. False when that
        has happened."""
        try:
            os.utime(target)
            info = target.stat()
        except FileNotFoundError:
            return False
        except OSError:  # somebody else's, in a shared cache: he will not take it away any more
            return True
        self.digests.note(info, sha256)
        if target in self._written:
            self._written[target] = info.st_mtime_ns
        return True

    def _put(self, descriptor: int, temporary: Path, target: Path) -> None:
        self._make(target.parent)
        os.fchmod(descriptor, _MODE)
        os.fsync(descriptor)
        temporary.replace(target)
        self._unsettled.add(target.parent)

    def _make(self, folder: Path) -> None:
        """The folder, and those it needs; their names have to be made durable, too."""
        if not folder.is_dir():
            self._make(folder.parent)
            folder.mkdir(exist_ok=True)
            self._unsettled.add(folder.parent)

    def beginning(self, entry: FileEntry, size: int) -> bytes:
        """The first ``size`` bytes of the object, of which there are so many; b'' where it is not there."""
        with contextlib.suppress(OSError), self.path(entry.md5).open("rb", buffering=0) as file:
            if os.fstat(file.fileno()).st_size == entry.size:
                return os.pread(file.fileno(), size, 0)
        return b""

    def ends_with(self, entry: FileEntry, body: memoryview) -> bool:
        """True when these are the object's last bytes: a comparison, far cheaper than a hash."""
        with contextlib.suppress(OSError):
            return ends_with(self.path(entry.md5), entry.size, body)
        return False

    def fits(self, entry: FileEntry) -> bool:
        """True when the object's sha256 is the entry's. Raises OSError when there is none."""
        return self.digests.fits(self.path(entry.md5), entry.sha256)

    def is_whole(self, entry: FileEntry) -> bool:
        """As ``fits``, of the bytes as they are now. Raises OSError when there are none."""
        return self.digests.anew(self.path(entry.md5)) == entry.sha256

    def remembers(self, entry: FileEntry) -> bool:
        """True when ``fits`` will say so without reading the object. Raises OSError when there is none."""
        return self.digests.remembers(self.path(entry.md5), entry.sha256)

    def _has_whole(self, hashed: Hashed, header: bytes, body: memoryview) -> bool:
        # An object that DVC, a crash or the disk damaged has the right name and wrong bytes: it is replaced, not trusted.
        with contextlib.suppress(OSError):
            return equal(self.path(hashed.md5), header, body)
        return False
