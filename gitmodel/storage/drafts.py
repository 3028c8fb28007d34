"""Files for the weights folder that are written in the same pass as their objects, so that nothing is copied from the cache
that has just gone by."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from gitmodel.files import aside, write_all


@dataclass
class Drafts:
    """Whole files by their sha256, each to be taken once. Several threads may write and take."""

    folder: Path
    _whole: dict[str, Path] = field(default_factory=dict)

    @classmethod
    @contextlib.contextmanager
    def below(cls, folder: Path) -> Iterator[Drafts]:
        """Drafts in a folder that is gone afterwards, with what nobody took and what a killed process left there: one process
        at a time, who holds the repository's lock. They spare work and are never needed, so nothing is raised."""
        with contextlib.suppress(OSError):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        try:
            yield cls(folder)
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    @contextlib.contextmanager
    def writing(self) -> Iterator[Draft]:
        """A new draft; it is dropped unless ``Draft.keep`` is called."""
        with contextlib.ExitStack() as stack:
            draft = Draft(self)
            with contextlib.suppress(OSError):
                draft.descriptor, draft.path = stack.enter_context(aside(self.folder, "draft-"))
            yield draft

    def take(self, sha256: str) -> Path | None:
        """The file with these bytes, which is the caller's from now on."""
        return self._whole.pop(sha256, None)


@dataclass
class Draft:
    """One file being written. A disk that takes no more ends it without a word: who copies the object instead meets the same
    disk, and can say which file it was for."""

    drafts: Drafts
    descriptor: int = -1
    path: Path | None = None

    def take(self, data: memoryview | bytes) -> None:
        """The next bytes."""
        if self.path is None:
            return
        try:
            write_all(self.descriptor, data)
        except OSError:
            self.path = None

    def keep(self, sha256: str) -> None:
        """Says that all bytes came, and what they are."""
        if self.path is None:
            return
        whole = self.drafts.folder / sha256
        with contextlib.suppress(OSError):
            self.path.replace(whole)
            self.drafts._whole[sha256] = whole
