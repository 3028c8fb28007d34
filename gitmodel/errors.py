"""The one root of every error a user can meet. Subclasses live beside the code that raises them."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum

_NAMED = 3


class ExitCode(IntEnum):
    """What the process returns; the command line's contract."""

    OK = 0
    INCOMPATIBLE = 1
    USAGE = 2
    INCOMPLETE = 3


class GitmodelError(Exception):
    """A fact the user must know and, as ``hint``, the next step.

    ``code`` is stable: scripts and tests may rely on it, not on the wording.
    """

    code = "error"
    exit_code = ExitCode.USAGE

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message}: {self.hint}" if self.hint else self.message


def some(names: Sequence[str]) -> str:
    """The first names and how many more there are, for a message of one line."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more
