"""How far one output of NEW is from OLD's over all cases: equality, tolerance, decisions, distance, and the worst of each."""

from __future__ import annotations

import heapq
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from gitmodel.bundle.card import Gates
from gitmodel.bundle.signature import TensorSpec
from gitmodel.compat import decisions, numbers
from gitmodel.compat.decisions import Flip
from gitmodel.compat.numbers import Numbers
from gitmodel.compat.semantics import NONE_SEEN, Rows, look

if TYPE_CHECKING:
    import numpy as np

#: How many cases are told of one by one: the worst.
KEPT = 256
#: What NEW may differ by beyond its tolerance, in multiples of what OLD differs from itself by.
FLOORS = 2.0


class CaseDrift(Struct, frozen=True):
    """One case: its largest absolute difference, in which ``row`` of the first axis, and whether all is within tolerance."""

    case: str
    row: int
    max_abs: float
    within: bool


class OutputDrift(Struct, frozen=True):
    """How one output differs over all cases.

    ``max_abs`` is the largest absolute difference, found in case ``worst`` at index ``at`` (infinite where the values
    cannot be held side by side at all, which happened ``apart`` times); ``max_rel`` the largest as a share of OLD's
    value; ``beyond`` the largest of those beyond ``tolerance`` (rtol, atol), ``beyond_share`` the same as a share of the
    largest magnitude of its case, and ``mismatched`` the share, 0 to 1, of elements that are; ``smallest`` the smallest
    tolerance, in the same proportions, that would let all pass. ULPs count the numbers of OLD's type in between;
    ``cosine`` is the lowest of any case. ``agreement`` is the share of decisions that stay: the top-1 of the last axis,
    each value of a discrete output, for other numbers each element within tolerance; ``flips`` are the worst of those
    ``flipped``. ``kl`` and ``js`` are mean divergences of a row in nats, None unless both sides are probabilities.
    ``distance`` is how far the values moved as a share of OLD's own: the sum of differences over the sum of magnitudes,
    at most 1, averaged over cases. ``floor`` is by how much OLD differs from itself, and ``floor_share`` the same as a
    share of its case, both as far as that counts (see noise.py); ``largest`` is OLD's largest magnitude in a case that
    differs. ``by_case`` has the worst cases; ``rows_before`` and ``rows_after`` are what OLD's and NEW's rows look like.
    """

    name: str
    equal: bool = True
    within: bool = True
    max_abs: float = 0.0
    worst: str = ""
    at: tuple[int, ...] = ()
    max_rel: float = 0.0
    beyond: float = 0.0
    beyond_share: float = 0.0
    ulp_p99: int = 0
    ulp_max: int = 0
    cosine: float = 1.0
    mismatched: float = 0.0
    agreed: int = 0
    decisions: int = 0
    flipped: int = 0
    flips: tuple[Flip, ...] = ()
    kl: float | None = None
    js: float | None = None
    smallest: tuple[float, float] = (0.0, 0.0)
    floor: float = 0.0
    floor_share: float = 0.0
    tolerance: tuple[float, float] = (0.0, 0.0)
    largest: float = 0.0
    nan: bool = False
    inf: bool = False
    apart: int = 0
    distance: float = 0.0
    cases: int = 0
    by_case: tuple[CaseDrift, ...] = ()
    rows_before: Rows = NONE_SEEN
    rows_after: Rows = NONE_SEEN

    @property
    def agreement(self) -> float:
        return self.agreed / self.decisions if self.decisions else 1.0

    @property
    def noise(self) -> bool:
        """Whether all that differs does so within tolerance, or hardly more than OLD from itself."""
        return self.within or self.beyond_share <= FLOORS * self.floor_share

    @classmethod
    def from_dict(cls, value: Mapping[str, Any]) -> OutputDrift:
        """From what ``msgspec.to_builtins`` gives, after JSON too. Raises TypeError, KeyError."""
        lists = {name: tuple(value[name]) for name in ("at", "smallest", "tolerance")}
        parts = {"flips": tuple(Flip(**flip) for flip in value["flips"])}
        cases = tuple(CaseDrift(**case) for case in value["by_case"])
        rows = {name: Rows(**value[name]) for name in ("rows_before", "rows_after")}
        return cls(**{**value, **lists, **parts, **rows, "by_case": cases})


@dataclass
class Gauge:
    """Takes in one output case by case; ``drift`` is what it showed so far."""

    spec: TensorSpec
    gates: Gates
    _drift: dict[str, Any] = field(default_factory=dict)
    _sums: Numbers = field(default_factory=Numbers)
    _ulps: Counter[int] = field(default_factory=Counter)
    _flips: list[Flip] = field(default_factory=list)
    _cases: list[tuple[float, int, CaseDrift]] = field(default_factory=list)
    _chances: bool | None = None
    _divergence: list[float] = field(default_factory=lambda: [0.0, 0.0])
    _rows: int = 0
    _moved: float = 0.0
    _beyond_share: float = 0.0
    _pieces: int = 0
    _agreed: int = 0
    _decisions: int = 0
    _flipped: int = 0
    _apart: int = 0
    _worst: tuple[str, tuple[int, ...]] = ("", ())
    _turn: int = 0
    _looks: tuple[Rows, Rows] = (NONE_SEEN, NONE_SEEN)

    @property
    def tolerance(self) -> tuple[float, float]:
        return self.gates.tolerance_for(self.spec.name, self.spec.dtype)

    def take(self, case: str, old: Any, new: Any) -> None:
        """One more case. Sequences and maps are compared piece by piece."""
        before, after = _pieces(old), _pieces(new)
        if before.keys() != after.keys():
            found = [self._never(case)]
        else:
            found = [self._piece(case, piece, after[key]) for key, piece in before.items()]
        if found:
            self._keep(max(found, key=lambda one: (not one.within, one.max_abs)))

    def look(self, old: Any, new: Any) -> None:
        """What the rows of one more case are, of all that NEW gives."""
        self._looks = look(self._looks[0], old), look(self._looks[1], new)

    def drift(self) -> OutputDrift:
        sums = self._sums
        chances = self._chances and self._rows
        kl, js = (part / self._rows for part in self._divergence) if chances else (None, None)
        return OutputDrift(
            name=self.spec.name,
            equal=sums.equal,
            within=sums.mismatched == 0,
            max_abs=sums.max_abs,
            worst=self._worst[0],
            at=self._worst[1],
            max_rel=sums.max_rel,
            beyond=sums.beyond,
            beyond_share=self._beyond_share,
            ulp_p99=numbers.percentile(self._ulps, 0.99),
            ulp_max=sums.ulp_max,
            cosine=sums.cosine,
            mismatched=sums.mismatched / sums.elements if sums.elements else 0.0,
            agreed=self._agreed,
            decisions=self._decisions,
            flipped=self._flipped,
            flips=tuple(self._flips),
            kl=kl,
            js=js,
            smallest=numbers.smallest(self.tolerance, sums.factor, sums.extra),
            tolerance=self.tolerance,
            largest=sums.largest,
            nan=sums.nan,
            inf=sums.inf,
            apart=self._apart,
            distance=self._moved / self._pieces if self._pieces else 0.0,
            cases=self._turn,
            by_case=tuple(entry for *_, entry in sorted(self._cases, key=lambda one: (-one[0], -one[1]))),
            rows_before=self._looks[0],
            rows_after=self._looks[1],
        )

    def _keep(self, entry: CaseDrift) -> None:
        # Of cases that are alike the first ones stay.
        heapq.heappush(self._cases, (entry.max_abs, -self._turn, entry))
        if len(self._cases) > KEPT:
            heapq.heappop(self._cases)
        self._turn += 1

    def _piece(self, case: str, a: np.ndarray, b: np.ndarray) -> CaseDrift:
        if a.shape != b.shape or _family(a) != _family(b):
            return self._never(case)
        counted = a.dtype.kind in "iu" and self.tolerance != (0.0, 0.0)
        if a.dtype.kind in "fc" or counted:
            return self._numbers(case, a, b)
        return self._discrete(case, a, b)

    def _numbers(self, case: str, a: np.ndarray, b: np.ndarray) -> CaseDrift:
        found = numbers.measure(a, b, self.tolerance)
        if decisions.decides(a):
            rows = a.size // a.shape[-1]
            flipped, worst = (0, []) if found.equal else decisions.flips(case, a, b)
            self._decide(rows, rows - flipped, flipped, worst)
        else:
            self._decide(a.size, a.size - found.mismatched)
        if a.dtype.kind == "f" and found.equal:
            self._ulps[0] += a.size
        # What is infinitely large tells no share of itself.
        measurable = 0 < found.size < math.inf
        self._moved += min(found.gap / found.size, 1.0) if measurable else float(found.gap > 0)
        self._pieces += 1
        self._chance(a, b, found.equal)
        return self._merge(case, found, a.shape)

    def _discrete(self, case: str, a: np.ndarray, b: np.ndarray) -> CaseDrift:
        import numpy as np

        wrong = int(np.count_nonzero(a != b))
        worst = decisions.discrete_flips(case, a, b) if wrong else []
        self._decide(a.size, a.size - wrong, wrong, worst)
        size, place = _discrete_distance(a, b) if wrong else (0.0, 0)
        found = Numbers(wrong == 0, a.size, wrong, size, place, beyond=size, extra=size)
        return self._merge(case, found, a.shape)

    def _never(self, case: str) -> CaseDrift:
        """Values of another shape, type or set of keys: no decision stays."""
        self._decide(1, 0)
        self._apart += 1
        self._chances = False
        far = math.inf
        return self._merge(case, Numbers(False, 1, 1, far, beyond=far, factor=far, extra=far, cosine=0.0), ())

    def _decide(self, count: int, agreed: int, flipped: int = 0, worst: list[Flip] | None = None) -> None:
        self._decisions += count
        self._agreed += agreed
        self._flipped += flipped
        if worst:
            self._flips = decisions.surest([*self._flips, *worst])

    def _chance(self, a: np.ndarray, b: np.ndarray, equal: bool) -> None:
        if self._chances is False or not a.size:
            return
        self._chances = decisions.are_probabilities(a) and (equal or decisions.are_probabilities(b))
        if self._chances:
            self._rows += a.size // a.shape[-1]
            if not equal:
                kl, js = decisions.divergence(a, b)
                self._divergence = [self._divergence[0] + kl, self._divergence[1] + js]

    def _merge(self, case: str, found: Numbers, shape: tuple[int, ...]) -> CaseDrift:
        sums, within = self._sums, found.mismatched == 0
        at = _index(found.at, shape) if found.max_abs else ()
        if found.max_abs > sums.max_abs or (not within and sums.mismatched == 0):
            self._worst = case, at
        for name in ("max_abs", "max_rel", "beyond", "factor", "extra", "largest", "ulp_max"):
            setattr(sums, name, max(getattr(sums, name), getattr(found, name)))
        if found.beyond:
            share = found.beyond / found.largest if found.largest else math.inf
            self._beyond_share = max(self._beyond_share, share)
        sums.equal, sums.nan, sums.inf = sums.equal and found.equal, sums.nan or found.nan, sums.inf or found.inf
        sums.elements, sums.mismatched = sums.elements + found.elements, sums.mismatched + found.mismatched
        sums.cosine = min(sums.cosine, found.cosine)
        self._ulps.update(found.ulps)
        return CaseDrift(case, at[0] if at else 0, found.max_abs, within)


def _index(flat: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    import numpy as np

    return tuple(int(i) for i in np.unravel_index(flat, shape)) if shape and all(shape) else ()


def _discrete_distance(a: np.ndarray, b: np.ndarray) -> tuple[float, int]:
    """The largest difference of integers, exact at any size, and its flat index; there is none to speak of between words."""
    x, y = a.reshape(-1), b.reshape(-1)
    places = (x != y).nonzero()[0]
    if a.dtype.kind not in "iu":
        return (math.inf if a.dtype.kind != "b" else 1.0), int(places[0])
    far = (x[places] > y[places]) if a.dtype == b.dtype else None
    if far is None or a.dtype.itemsize == 8 or b.dtype.itemsize == 8:
        sizes = [abs(int(p) - int(q)) for p, q in zip(x[places].tolist(), y[places].tolist(), strict=True)]
        top = max(range(len(sizes)), key=sizes.__getitem__)
        return float(sizes[top]), int(places[top])
    gaps = abs(x[places].astype("int64") - y[places].astype("int64"))
    return float(gaps.max()), int(places[gaps.argmax()])


def _family(values: np.ndarray) -> str:
    """Types that are compared by value: all floats, all integers; everything else only with its own kind."""
    kind = values.dtype.kind
    return {"u": "i", "U": "O"}.get(kind, kind)


def _pieces(value: Any) -> dict[str, np.ndarray]:
    """The arrays a value is made of, by place: a tensor is one; a list of maps (ONNX's ZipMap) rows, in the order of their keys."""
    import numpy as np

    if isinstance(value, dict):
        return {f"[{key!r}]{place}": piece for key, held in value.items() for place, piece in _pieces(held).items()}
    if isinstance(value, list):
        if value and all(isinstance(row, dict) and row.keys() == value[0].keys() for row in value):
            # The keys are part of the place: with other keys the rows are not the same thing at all.
            keys = sorted(value[0], key=str)
            return {f"rows of {keys!r}": np.array([[row[key] for key in keys] for row in value])}
        return {f"[{i}]{place}": piece for i, held in enumerate(value) for place, piece in _pieces(held).items()}
    return {"": np.asarray(value)}
