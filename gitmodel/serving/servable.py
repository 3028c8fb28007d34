"""A loaded version and the states a version goes through."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import msgspec
from msgspec import Struct

from gitmodel.bundle.signature import DEFAULT, Signature
from gitmodel.versions import Version

if TYPE_CHECKING:
    import numpy as np

    from gitmodel.runtime import Session


#: A call that takes longer than this, in seconds, leaves the event loop for a thread.
INLINE_SECONDS = 0.001
#: What a small call takes may hang on its values. One that has kept the event loop for so many seconds is counted ...
SLOW_SECONDS = 0.005
#: ... and when such calls have kept it for so long, but for this share of the time, a machine that stands still now and then taken
#: for as bad as that, the version's calls go to threads: for a while, each time for twice as long.
_MOST_KEPT, _SHARE_KEPT, _APART_FIRST, _APART_MOST = 0.25, 0.05, 60.0, 3600.0


class State(StrEnum):
    """TensorFlow Serving's. An error is carried beside the state, not as one."""

    START = "START"
    LOADING = "LOADING"
    AVAILABLE = "AVAILABLE"
    UNLOADING = "UNLOADING"
    END = "END"


class VersionStatus(Struct, frozen=True):
    """What an operator sees of one version. ``seconds`` is how long loading took; ``reason`` why it failed."""

    model: str
    version: str
    commit: str
    state: State
    reason: str = ""
    seconds: float = 0.0
    golden_passed: int = 0
    golden_cases: int = 0
    digest: str = ""
    number: int = 0
    stages: tuple[str, ...] = ()
    since: float = msgspec.field(default_factory=time.time)


def in_order(statuses: Iterable[VersionStatus]) -> list[VersionStatus]:
    """As people and programs are shown them: by model, the highest version first, and of one whose tag was forced onto another
    commit the newest change."""
    newest_first = sorted(statuses, key=lambda status: (Version.parse(status.version), status.since), reverse=True)
    return sorted(newest_first, key=lambda status: status.model)


class States(Protocol):
    """What a server's versions are at, whoever keeps count."""

    def statuses(self, model: str = "") -> list[VersionStatus]:
        """By model, the newest change last; of all models without one."""

    def standing(self) -> Mapping[str, Mapping[str, str]]:
        """By model and stage, the version it stands on in Git, served or not."""

    def ready(self) -> bool:
        """True when every model is served that must be."""


@dataclass(eq=False)
class Servable:
    """A version that can answer. ``run_seconds`` is the measured time of one small call, which had ``run_bytes``
    of tensors; ``in_flight`` is counted by
    the event loop alone, so it needs no lock. ``labels`` name its classes, if they have names.

    ``called`` is the name of its signature; ``named`` has the model's others, each as a servable of the same version.
    ``repack`` is given it, and the path of the same model with its weights packed, to go on with if that keeps the golden
    cases; None where the weights are packed already. Up to ``batch_rows`` rows of different calls may be run together; 0: each call by
    itself. ``usual`` decodes the bodies of usual calls, as ``Plan.decode`` does. ``path`` is the model's, ``size`` that of its
    weights in bytes. Nothing here leads back to the servable: a circle would keep its memory for long."""

    model: str
    version: str
    number: int
    commit: str
    digest: str
    platform: str
    signature: Signature
    session: Session
    run_seconds: float
    golden_passed: int
    golden_cases: int
    labels: tuple[str, ...] = ()
    in_flight: int = 0
    path: Path | None = None
    size: int = 0
    repack: Callable[[Servable, Path], None] | None = None
    usual: Callable[[bytes], tuple[str | None, dict[str, np.ndarray]] | None] | None = None
    batch_rows: int = 0
    run_bytes: int = 1
    called: str = DEFAULT
    named: Mapping[str, Servable] = field(default_factory=dict)
    #: Seconds that slow calls have kept the event loop, and when they were counted; until when calls go to threads for that, and for
    #: how long they do the next time.
    _kept: float = 0.0
    _counted: float = 0.0
    _apart_until: float = 0.0
    _apart: float = _APART_FIRST

    def by_signature(self, name: str) -> Servable:
        """The one that answers calls of this signature, '' is its own. Raises KeyError."""
        return self if name in ("", self.called) else self.named[name]

    @property
    def quick(self) -> bool:
        """Whether a small call may be run on the event loop."""
        return self.run_seconds <= INLINE_SECONDS and not self._apart_until

    def quick_with(self, size: int) -> bool:
        """Whether a call with so many bytes of tensors may, if the time of a run grows as they do."""
        return self.quick and self.run_seconds * max(1.0, size / self.run_bytes) <= INLINE_SECONDS

    def kept_others(self, seconds: float, now: float) -> None:
        """A call took so long on the event loop, and ended ``now``."""
        self._kept = max(0.0, self._kept - _SHARE_KEPT * (now - self._counted)) + seconds
        self._counted = now
        if self._kept > _MOST_KEPT:
            self._apart_until, self._apart = now + self._apart, min(2 * self._apart, _APART_MOST)

    def comes_back(self, now: float) -> None:
        """To the event loop, if it is time for that."""
        if self._apart_until and now > self._apart_until:
            self._kept = self._apart_until = 0.0

    @cached_property
    def outputs(self) -> list[str] | None:
        """Those a call without a choice gets, where that is not all the graph has; else None."""
        names = [spec.name for spec in self.signature.outputs]
        return names if set(names) < set(self.session.output_names) else None

    @cached_property
    def headers(self) -> tuple[tuple[bytes, bytes], ...]:
        """What every answer says of who gave it."""
        return (
            (b"gitmodel-version", self.version.encode()),
            (b"gitmodel-commit", self.commit.encode()),
            (b"gitmodel-weights", f"sha256:{self.digest}".encode()),
        )


class Serving(Struct, frozen=True):
    """One model's entry in the table: the version asked for by default, and all that can be asked for by name, or by the
    stage that stands on them. A stage stays with a version that answers until the one it was put on does."""

    default: Servable
    by_version: Mapping[str, Servable]
    by_stage: Mapping[str, Servable] = {}
