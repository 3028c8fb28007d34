"""What is gathered about one pair of bundles while it is judged, and how that ends early."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field

from gitmodel.compat.changes import Change
from gitmodel.compat.drift import OutputDrift
from gitmodel.compat.opening import Opens
from gitmodel.errors import GitmodelError


class Stop(Exception):
    """Ends a comparison early; why is in what was gathered."""


@dataclass
class Gathered:
    """``models`` opens what has to be read or run; ``cases`` were run, ``generated`` ones where none are recorded."""

    models: Opens
    changes: list[Change] = field(default_factory=list)
    cases: int = 0
    generated: bool = False
    unjudged: str = ""
    drifts: tuple[OutputDrift, ...] = ()
    noise: str = ""
    remembered: bool = False

    @contextlib.contextmanager
    def judging(self) -> Iterator[None]:
        """Whatever cannot be read or run leaves the pair unjudged: a mistake in a file is no mistake in the command."""
        with self.models:
            try:
                yield
            except Stop:
                pass
            except GitmodelError as error:
                self.unjudged = str(error)
            except MemoryError:  # what both gave is compared here
                self.unjudged = "there is not memory enough to compare what the models give: use smaller golden cases"
            if failure := self.models.failure:
                self.unjudged = failure
                self.changes = [change for change in self.changes if change.kind != "new-error-on-accepted-input"]
