"""What was asked and answered, by version: counted on every request, read by the metrics and the page."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Iterator

from gitmodel.serving.servable import Servable, State, VersionStatus

#: Upper bounds of the histogram of seconds, besides infinity.
BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
#: Versions whose requests are counted, the newest of them: who swaps a thousand times keeps no thousand tallies.
_MOST = 256
#: How many of the newest times the page's percentiles are of.
_NEWEST = 1000
#: Of how many processes' answers they are at most, where several count.
_PARTS = 16


class Tally:
    """One version's requests. ``statuses`` counts HTTP's; ``counts`` go with ``BOUNDS``, one more for what took longer;
    ``seconds`` is their sum, from the whole body to the answer."""

    __slots__ = ("counts", "newest", "seconds", "statuses")

    def __init__(self) -> None:
        self.statuses: Counter[int] = Counter()
        self.counts = [0] * (len(BOUNDS) + 1)
        self.seconds = 0.0
        self.newest: deque[float] = deque(maxlen=_NEWEST)

    def copy(self, *, newest: bool) -> Tally:
        made = Tally()
        made.statuses, made.counts, made.seconds = self.statuses.copy(), self.counts.copy(), self.seconds
        if newest:
            made.newest = self.newest.copy()
        return made

    def add(self, other: Tally) -> None:
        self.statuses.update(other.statuses)
        self.counts = [mine + more for mine, more in zip(self.counts, other.counts, strict=True)]
        self.seconds += other.seconds
        self.newest = deque([*self.newest, *other.newest], maxlen=_NEWEST * _PARTS)

    def percentile(self, share: float) -> float | None:
        """Of the newest answers, in seconds; None before the first."""
        ordered = sorted(self.newest)
        return ordered[min(int(share * len(ordered)), len(ordered) - 1)] if ordered else None


class Traffic:
    """One per process. Requests are told by the event loop alone, loads by the manager's thread."""

    def __init__(self) -> None:
        self._tallies: dict[tuple[str, str], Tally] = {}
        #: (model, whether it became AVAILABLE) -> how often.
        self.loads: Counter[tuple[str, bool]] = Counter()
        #: Answers that were errors, by HTTP status, whatever was asked: no names, which anybody may make up.
        self.errors: Counter[int] = Counter()

    def answered(self, servable: Servable, status: int, seconds: float) -> None:
        tally = self._tallies.get((servable.model, servable.version))
        if tally is None:
            if len(self._tallies) >= _MOST:
                del self._tallies[next(iter(self._tallies))]
            tally = self._tallies[servable.model, servable.version] = Tally()
        tally.statuses[status] += 1
        tally.counts[bisect_left(BOUNDS, seconds)] += 1
        tally.seconds += seconds
        tally.newest.append(seconds)

    def told(self, status: VersionStatus) -> None:
        """A version's state changed."""
        if status.state is State.AVAILABLE or (status.state is State.END and status.reason):
            self.loads[status.model, status.state is State.AVAILABLE] += 1

    def copy(self, *, newest: bool) -> Traffic:
        """As it is now; without ``newest`` no percentiles can be had from it."""
        made = Traffic()
        made.loads, made.errors = self.loads.copy(), self.errors.copy()
        made._tallies = {key: tally.copy(newest=newest) for key, tally in self._tallies.items()}
        return made

    def add(self, other: Traffic) -> None:
        """Counts in what another process counted."""
        self.loads.update(other.loads)
        self.errors.update(other.errors)
        for key, tally in other._tallies.items():
            self._tallies.setdefault(key, Tally()).add(tally)

    def of(self, model: str, version: str) -> Tally:
        return self._tallies.get((model, version)) or Tally()

    def each(self) -> Iterator[tuple[str, str, Tally]]:
        """Model, version and tally, by name."""
        for model, version in sorted(self._tallies):
            yield model, version, self._tallies[model, version]
