"""What a server and its workers say to each other. Versions are named by numbers that the server gives."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct

from gitmodel.serving.opening import Fetched
from gitmodel.serving.servable import VersionStatus
from gitmodel.serving.settings import Settings


class Setup(Struct, frozen=True):
    """What a worker is told at its start: its place from 1, and how its server writes its log."""

    number: int
    settings: Settings
    version: str
    log_json: bool
    log_requests: bool


class Hello(Struct, frozen=True):
    """Answered with None as soon as a worker can be asked."""


class Open(Struct, frozen=True):
    """Prepares a version. Answered with Opened; Refused with the reason."""

    number: int
    fetched: Fetched


class Opened(Struct, frozen=True):
    """A version has shown all it has to show; ``digest`` is that of the weights that will answer."""

    digest: str
    golden_passed: int
    golden_cases: int


class Repack(Struct, frozen=True):
    """Goes on with the packed model at ``path``. Answered with None; Refused with the reason."""

    number: int
    path: Path
    fetched: Fetched


class Unload(Struct, frozen=True):
    """Answered with None once the version has no calls in flight, and its memory is free."""

    number: int


class Entry(Struct, frozen=True):
    """``Serving`` in numbers."""

    default: int
    by_version: Mapping[str, int]
    by_stage: Mapping[str, int]


class Prepare(Struct, frozen=True):
    """The table of an epoch, by model. Answered with None when calls can be answered from it as soon as the epoch comes."""

    epoch: int
    table: Mapping[str, Entry]


class Retire(Struct, frozen=True):
    """Tables of earlier epochs than this are not needed any more."""

    epoch: int


class Accept(Struct, frozen=True):
    """A worker that has caught up accepts connections from now on."""


class Show(Struct, frozen=True):
    """What the versions are at, and where stages stand. Answered with None."""

    statuses: tuple[VersionStatus, ...]
    ready: bool
    standing: Mapping[str, Mapping[str, str]]


class Count(Struct, frozen=True):
    """Answered with Counted; without ``newest`` no percentiles can be had from it."""

    newest: bool


class Counted(Struct, frozen=True):
    """A worker's ``Traffic``, pickled, and its calls in flight by version."""

    traffic: bytes
    in_flight: Mapping[int, int]


class Look(Struct, frozen=True):
    """A worker was asked for a page of the whole server; answered with an ``http.Answer``."""

    path: str


class Say(Struct, frozen=True):
    """A line for the log."""

    line: str
