"""The page at ``/``: models, versions, states, reasons, stages, traffic and latency, as of this moment. Plain HTML that fetches
nothing and runs nothing."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from html import escape
from importlib import resources
from itertools import groupby

from gitmodel.serving.servable import Serving, State, VersionStatus
from gitmodel.serving.traffic import Tally, Traffic

#: Whatever slips through may neither run nor fetch.
POLICY = b"default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'"
_REFRESH = 5
_TONES = {State.AVAILABLE: "good", State.START: "busy", State.LOADING: "busy", State.UNLOADING: "busy"}
_COLUMNS = (
    ("version", ""), ("state", ""), ("stages", ""), ("golden cases", "number"), ("loaded in", "number"), ("requests", "number"),
    ("errors", "number"), ("in flight", "number"), ("p50", "number"), ("p99", "number"), ("commit", ""),
)  # fmt: skip


def render(
    statuses: Sequence[VersionStatus], table: Mapping[str, Serving], traffic: Traffic, *, ready: bool, version: str
) -> bytes:
    """UTF-8. ``statuses`` are in the order they are shown in, by model."""
    word, tone = ("ready", "good") if ready else ("not ready", "bad")
    return "".join(
        [
            '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>gitmodel</title>',
            f'<meta http-equiv="refresh" content="{_REFRESH}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<style>{_style()}</style></head><body><main>",
            f'<header><h1>gitmodel</h1><p class="state {tone}">{word}</p>',
            f"<p>version {escape(version)}, {time.strftime('%Y-%m-%d %H:%M:%S %Z')}</p></header>",
            *(_model(name, rows, table.get(name), traffic) for name, rows in groupby(statuses, lambda s: s.model)),
            ""
            if statuses
            else "<p>No model has a version yet: <code>gitmodel release NAME</code>, then push the tag.</p>",
            '<footer>p50 and p99 are of the newest answers, 1000 of each process. <a href="/metrics">Metrics</a>, ',
            '<a href="/v2/gitmodel/status">the same as JSON</a>.</footer></main></body></html>',
        ]
    ).encode()


@cache
def _style() -> str:
    return resources.files(__package__).joinpath("page.css").read_text()


def _model(name: str, rows: Iterable[VersionStatus], serving: Serving | None, traffic: Traffic) -> str:
    head = "".join(f"<th{_class(kind)}>{title}</th>" for title, kind in _COLUMNS)
    body = "".join(_row(status, serving, traffic.of(name, status.version)) for status in rows)
    return f'<h2>{escape(name)}</h2><div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def _row(status: VersionStatus, serving: Serving | None, tally: Tally) -> str:
    servable = serving.by_version.get(status.version) if serving else None
    is_default = serving is not None and servable is serving.default
    cells = zip(_COLUMNS, _cells(status, servable.in_flight if servable else 0, tally), strict=True)
    texts = "".join(f"<td{_class(kind)}>{text}</td>" for (_, kind), text in cells)
    row = f"<tr{_class('default' if is_default else '')}>{texts}</tr>"
    if not status.reason:
        return row
    return f'{row}<tr class="why"><td colspan="{len(_COLUMNS)}"><div>{escape(status.reason)}</div></td></tr>'


def _cells(status: VersionStatus, in_flight: int, tally: Tally) -> Iterator[str]:
    errors = sum(count for code, count in tally.statuses.items() if code >= 400)
    tone = "bad" if status.reason else _TONES.get(status.state, "")
    yield escape(status.version)
    yield f'<span class="state {tone}">{status.state}</span>'
    yield "".join(f'<span class="stage">{escape(stage)}</span>' for stage in status.stages)
    yield f"{status.golden_passed} of {status.golden_cases}" if status.golden_cases else ""
    yield f"{status.seconds:.2f} s" if status.seconds else ""
    yield str(tally.statuses.total())
    yield str(errors)
    yield str(in_flight)
    yield _milliseconds(tally.percentile(0.5))
    yield _milliseconds(tally.percentile(0.99))
    yield f"<code>{escape(status.commit[:10])}</code>"


def _milliseconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds * 1000:.3g} ms"


def _class(name: str) -> str:
    return f' class="{name}"' if name else ""
