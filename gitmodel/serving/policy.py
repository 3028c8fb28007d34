"""Which versions should be served, as a pure function of what Git says."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from msgspec import Struct

from gitmodel.registry import Release, StageMove
from gitmodel.versions import check_name

AUTO, LATEST = "auto", "latest"
PROD = "prod"


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


class VersionPolicy(Struct, frozen=True):
    """``latest``: the latest release. A stage's name: the version it stands on. ``auto``: stage ``prod`` once a model
    has one, the latest release until then."""

    follow: str = AUTO

    def __post_init__(self) -> None:
        if self.follow not in (AUTO, LATEST):
            check_name(self.follow, "stage")

    def aspired(
        self, model: str, releases: Sequence[Release], stages: Mapping[str, StageMove]
    ) -> tuple[AspiredVersion, ...]:
        """The versions of one model that should be served; empty when there is none."""
        chosen = self._chosen(releases, stages)
        if chosen is None:
            return ()
        standing = tuple(sorted(s for s, move in stages.items() if move.ref.commit == chosen.ref.commit))
        return (AspiredVersion(model, str(chosen.version), chosen.ref.commit, chosen.number, standing),)

    def _chosen(self, releases: Sequence[Release], stages: Mapping[str, StageMove]) -> Release | None:
        stage = PROD if self.follow == AUTO and PROD in stages else self.follow
        if stage not in (AUTO, LATEST):
            move = stages.get(stage)
            return next((r for r in reversed(releases) if move and r.version == move.version), None)
        finished = [r for r in releases if not r.version.pre]
        return finished[-1] if finished else None
