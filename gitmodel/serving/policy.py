"""Which versions should be served, as a pure function of what Git says."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field

from msgspec import Struct

from gitmodel.errors import GitmodelError
from gitmodel.registry import LATEST, PROD, Release, StageMove
from gitmodel.versions import InvalidVersion, Version, check_name

AUTO, ALL, STAGES = "auto", "all", "stages"
#: Versions of one model at a time; more are a slip of the finger.
_MOST = 100
_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")


@dataclass(frozen=True)
class AspiredVersion:
    """A version that should be served. ``number`` is its place in the order of release, from 1, for clients that
    want digits; ``stages`` are those that stand on it."""

    model: str
    version: str
    commit: str
    number: int
    stages: tuple[str, ...] = field(default=(), compare=False)

    @property
    def key(self) -> tuple[str, str, str]:
        return (self.model, self.version, self.commit)


class InvalidPolicy(GitmodelError):
    """No rule for what to serve."""

    code = "invalid-policy"


class VersionPolicy(Struct, frozen=True):
    """``latest``: the latest release; ``latest:N``: the N latest. A stage's name: the version it stands on; ``stages``: all
    that a stage stands on. ``all``: every release. Versions, such as ``v1.0.0,v1.2.0``, or whole commit ids: those, and
    for a commit nothing else that a tag may come to stand on. ``auto``: stage ``prod`` once a model has one, the latest
    release until then. Raises InvalidPolicy, InvalidName."""

    follow: str = AUTO

    def __post_init__(self) -> None:
        if self.follow.startswith(f"{LATEST}:"):
            if not 1 <= _count(self.follow) <= _MOST:
                raise InvalidPolicy(
                    f"'{self.follow}' names no number of versions", hint=f"such as latest:2, up to {_MOST}"
                )
        elif self.follow not in (AUTO, LATEST, ALL, STAGES) and not _named(self.follow):
            check_name(self.follow, "stage")

    def aspired(
        self, model: str, releases: Sequence[Release], stages: Mapping[str, StageMove]
    ) -> tuple[AspiredVersion, ...]:
        """The versions of one model that should be served, the one for calls that name none last; empty when there is
        none."""
        found = [release for release in self._chosen(releases, stages) if release is not None]
        last = {release.version: release for release in reversed(found)}  # each once, where it stands last
        return tuple(_aspired(model, release, stages) for release in reversed(last.values()))

    @property
    def fills(self) -> bool:
        """Whether it asks for a number of versions: while one of them does not answer, another may stand in for it."""
        return self.follow.startswith(f"{LATEST}:")

    def lacking(self, held: Collection[str], stages: Collection[str]) -> list[str]:
        """What it names of which there is nothing among these versions and commits, and these stages."""
        if named := _named(self.follow):
            return [str(name) for name in named if str(name) not in held]
        is_stage = self.follow not in (AUTO, LATEST, ALL, STAGES) and not self.follow.startswith(f"{LATEST}:")
        return [f"stage '{self.follow}'"] if is_stage and self.follow not in stages else []

    def _chosen(self, releases: Sequence[Release], stages: Mapping[str, StageMove]) -> Sequence[Release | None]:
        finished = [release for release in releases if not release.version.pre]
        by_stage = {stage: _at(releases, move) for stage, move in stages.items()}
        usual = by_stage[PROD] if PROD in by_stage else next(reversed(finished), None)
        if self.follow == LATEST or self.follow.startswith(f"{LATEST}:"):
            return finished[-_count(self.follow) :]
        if self.follow == AUTO:
            return [usual]
        if self.follow == STAGES:
            standing = [release for release in by_stage.values() if release is not None]
            return [*_finished_last(standing), by_stage.get(PROD)]
        if self.follow == ALL:
            return [*_finished_last(releases), usual]
        if wanted := _named(self.follow):
            return [next((r for r in reversed(releases) if name in (r.version, r.ref.commit)), None) for name in wanted]
        return [by_stage.get(self.follow)]


def _aspired(model: str, release: Release, stages: Mapping[str, StageMove]) -> AspiredVersion:
    standing = tuple(sorted(s for s, move in stages.items() if move.ref.commit == release.ref.commit))
    return AspiredVersion(model, str(release.version), release.ref.commit, release.number, standing)


def _finished_last(releases: Sequence[Release]) -> list[Release]:
    return sorted(releases, key=lambda release: (not release.version.pre, release.version))


def _at(releases: Sequence[Release], move: StageMove) -> Release | None:
    return next((release for release in reversed(releases) if release.version == move.version), None)


def _count(follow: str) -> int:
    """The N of ``latest:N``, 1 for ``latest``; 0 when it is no number."""
    _, colon, text = follow.partition(":")
    return (int(text) if text.isascii() and text.isdigit() and len(text) < 4 else 0) if colon else 1


def _named(follow: str) -> list[Version | str]:
    """The versions and commits named; none when it names something else."""
    texts = [text.strip() for text in follow.split(",")]
    try:
        return [text if _COMMIT.fullmatch(text) else Version.parse(text) for text in texts]
    except InvalidVersion:
        return []
