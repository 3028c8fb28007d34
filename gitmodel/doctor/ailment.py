"""The values: one ailment per fact, and the repository that is looked at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from msgspec import Struct

from gitmodel.errors import ExitCode
from gitmodel.git import Repository
from gitmodel.history.past import History
from gitmodel.history.reader import read
from gitmodel.storage import setup
from gitmodel.workflows.workspace import Workspace


@dataclass(frozen=True)
class Ailment:
    """``advice`` breaks nothing today. ``repair`` is there when it can be mended without asking anybody."""

    code: str
    message: str
    mend: str
    advice: bool = False
    repair: Callable[[], object] | None = field(default=None, repr=False, compare=False)
    repaired: bool = False

    def to_dict(self) -> dict[str, Any]:
        words = {"code": self.code, "message": self.message, "mend": self.mend}
        return words | {"advice": self.advice, "repairable": self.repair is not None, "repaired": self.repaired}


class Checkup(Struct, frozen=True):
    """``incomplete`` is why not all could be looked at."""

    ailments: tuple[Ailment, ...]
    incomplete: str = ""

    @property
    def open(self) -> list[Ailment]:
        """What needs a person."""
        return [ailment for ailment in self.ailments if not ailment.advice and not ailment.repaired]

    @property
    def exit_code(self) -> ExitCode:
        if self.incomplete:
            return ExitCode.INCOMPLETE
        return ExitCode.INCOMPATIBLE if self.open else ExitCode.OK

    def to_dict(self) -> dict[str, Any]:
        healthy = not self.open and not self.incomplete
        found = [ailment.to_dict() for ailment in self.ailments]
        return {"schema": 1, "healthy": healthy, "incomplete": self.incomplete or None, "ailments": found}


@dataclass
class Patient:
    """A repository; with ``far`` its remotes are asked, too."""

    repo: Repository
    far: bool = False

    @cached_property
    def place(self) -> Workspace:
        return Workspace(self.repo)

    @cached_property
    def initialised(self) -> bool:
        """Whether it has a working tree with DVC set up."""
        return not self.repo.bare and setup.is_initialised(self.repo.root)

    @cached_property
    def past(self) -> History:
        return read(self.repo)


def counted(number: int, what: str) -> str:
    """``1 object``, ``8 objects``."""
    return f"{number} {what}{'' if number == 1 else 's'}"
