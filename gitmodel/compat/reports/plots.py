"""Drift as pictures: plain SVG text, coloured by the classes of page.css. Nothing is known here of models or verdicts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from html import escape

from msgspec import Struct

from gitmodel.compat.drift import CaseDrift, OutputDrift
from gitmodel.compat.rules import plain

WIDTH, HEIGHT = 640, 256
LEFT, RIGHT, TOP, BOTTOM = 64, 96, 18, 30
#: Room below the scale for differences of zero, and above it for infinite ones, in pixels.
_BAND = 28
_WORST, _BAR = 5, 24
_MAX_TICKS = 7


class Scale(Struct, frozen=True):
    """Powers of ten on the way up: ``low`` and ``high`` are exponents, zero has a place below, infinity one above."""

    low: int
    high: int

    @classmethod
    def of(cls, values: Sequence[float]) -> Scale:
        exponents = [math.log10(value) for value in values if 0 < value < math.inf]
        if not exponents:
            return cls(-6, 0)
        low, high = math.floor(min(exponents)), math.ceil(max(exponents))
        # A scale of one power would make an abyss of every pebble.
        return cls(low - 1, high + 1) if high - low < 2 else cls(low, high)

    def y(self, value: float) -> float:
        """Pixels from the top."""
        top, bottom = TOP + _BAND, HEIGHT - BOTTOM - _BAND
        if value <= 0:
            return HEIGHT - BOTTOM - _BAND / 2
        if not math.isfinite(value):
            return TOP + _BAND / 2
        share = (math.log10(value) - self.low) / (self.high - self.low)
        return bottom - min(max(share, 0.0), 1.0) * (bottom - top)

    @property
    def ticks(self) -> range:
        return range(self.low, self.high + 1, max(1, math.ceil((self.high - self.low) / _MAX_TICKS)))


def by_case(drift: OutputDrift) -> str:
    """The largest difference of each case, the worst first, against what is tolerated anywhere and the noise floor."""
    atol, floor = drift.tolerance[1], drift.floor
    scale = Scale.of([*(case.max_abs for case in drift.by_case), atol, floor])
    label = f"largest absolute difference of output {plain(drift.name)} in each of {len(drift.by_case)} cases"
    return _svg(HEIGHT, label, [*_axis(scale), *_lines(scale, atol, floor), *_points(scale, drift.by_case)])


def worst_cases(drift: OutputDrift) -> str:
    """The cases with the largest differences as bars, each as long as its share of the largest."""
    cases = sorted(drift.by_case, key=lambda case: -case.max_abs)[:_WORST]
    largest = max((c.max_abs for c in cases if math.isfinite(c.max_abs)), default=0.0)
    parts: list[str] = []
    for number, case in enumerate(cases):
        y = 8 + number * _BAR
        share = 1.0 if not math.isfinite(case.max_abs) else case.max_abs / largest if largest else 0.0
        width = max(share * (WIDTH - 220 - RIGHT), 2)
        kind = "bar-in" if case.within else "bar-out"
        name = _cut(f"{case.case}, row {case.row}")
        parts += [
            f'<text x="208" y="{y + 13}" text-anchor="end">{name}</text>',
            f'<rect class="{kind}" x="216" y="{y + 2}" width="{width:.1f}" height="{_BAR - 8}" rx="2"/>',
            f'<text x="{216 + width + 6:.1f}" y="{y + 13}">{number_text(case.max_abs)}</text>',
        ]
    return _svg(16 + len(cases) * _BAR, f"the worst cases of output {plain(drift.name)}", parts)


def number_text(value: float | None) -> str:
    """A number as short as it still says something."""
    if value is None:
        return "-"
    return "not comparable" if not math.isfinite(value) else f"{value:.3g}"


def _axis(scale: Scale) -> Iterator[str]:
    right = WIDTH - RIGHT
    for exponent in scale.ticks:
        y = scale.y(10.0**exponent)
        yield f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield f'<text x="{LEFT - 8}" y="{y + 4:.1f}" text-anchor="end">1e{exponent}</text>'
    for value, name in ((0.0, "equal"), (math.inf, "apart")):
        yield f'<text x="{LEFT - 8}" y="{scale.y(value) + 4:.1f}" text-anchor="end">{name}</text>'
    yield f'<text x="{(LEFT + right) / 2:.0f}" y="{HEIGHT - 8}" text-anchor="middle">cases, the worst first</text>'


def _lines(scale: Scale, atol: float, floor: float) -> Iterator[str]:
    """The two measures; their names keep apart where the lines do not."""
    names = []
    if atol > 0:
        names.append(("tolerance", f"atol {atol:.2g}", scale.y(atol)))
    if floor > 0:
        names.append(("floor", f"noise {floor:.2g}", scale.y(floor)))
    close = len(names) == 2 and abs(names[0][2] - names[1][2]) < 14
    for kind, name, y in names:
        shift = (-4 if y <= min(n[2] for n in names) else 12) if close else 4
        if close and names[0][2] == names[1][2]:
            shift = -4 if kind == "tolerance" else 12
        yield f'<line class="{kind}" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{y:.1f}" y2="{y:.1f}"/>'
        yield f'<text class="tone-{kind}" x="{WIDTH - RIGHT + 6}" y="{y + shift:.1f}">{name}</text>'


def _points(scale: Scale, cases: Sequence[CaseDrift]) -> Iterator[str]:
    step = (WIDTH - LEFT - RIGHT) / max(len(cases), 1)
    for number, case in enumerate(cases):
        x, y = LEFT + (number + 0.5) * step, scale.y(case.max_abs)
        title = f"<title>{_text(case.case)}, row {case.row}: {number_text(case.max_abs)}</title>"
        if case.within:
            yield f'<circle class="in" cx="{x:.1f}" cy="{y:.1f}" r="3.5">{title}</circle>'
        else:
            # Another shape as well as another colour.
            yield f'<path class="out" d="M{x - 4:.1f} {y - 4:.1f}l8 8m0 -8l-8 8">{title}</path>'


def _svg(height: int, label: str, parts: Sequence[str]) -> str:
    named = escape(label)
    return f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{named}">{"".join(parts)}</svg>'


def _text(text: str) -> str:
    return escape(plain(text))


def _cut(text: str, limit: int = 30) -> str:
    shown = plain(text)
    return escape(shown if len(shown) <= limit else f"…{shown[1 - limit :]}")
