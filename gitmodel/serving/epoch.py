"""One number that all processes of a server see change at the same moment."""

from __future__ import annotations

import mmap
import os
import tempfile


class Epoch:
    """A number from 0 to 2**64 - 1 in a page of memory that a server shares with its workers, which get its descriptor.

    Setting it is one store of eight aligned bytes, reading it one load: nobody ever sees half of one, and who has seen the new
    number does not see the old one again, in whatever process it looks next.
    """

    def __init__(self, descriptor: int) -> None:
        self.descriptor = descriptor
        self._page = mmap.mmap(descriptor, mmap.PAGESIZE)
        self._cell = memoryview(self._page).cast("Q")

    @classmethod
    def make(cls) -> Epoch:
        """A new page, whose number is 0."""
        with tempfile.TemporaryFile() as file:  # its name is gone before anybody could open it
            file.write(bytes(mmap.PAGESIZE))  # no hole, which a full disk could not fill
            file.flush()
            return cls(os.dup(file.fileno()))

    def get(self) -> int:
        return self._cell[0]

    def set(self, number: int) -> None:
        self._cell[0] = number

    def close(self) -> None:
        self._cell.release()
        self._page.close()
        os.close(self.descriptor)
