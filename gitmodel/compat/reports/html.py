"""One page that holds everything and needs no network: verdict on top, findings with witness and mend, drift in pictures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import cache
from html import escape
from importlib import resources

from gitmodel.compat import rules
from gitmodel.compat.drift import OutputDrift
from gitmodel.compat.reports import plots, wording
from gitmodel.compat.reports.plots import number_text
from gitmodel.compat.rules import PROFILES, Finding, Severity
from gitmodel.compat.verdict import Report
from gitmodel.versions import Bump

_MARK = {Severity.ERROR: "✗", Severity.WARNING: "!", Severity.INFO: "·"}
#: Whatever slips through may neither run nor fetch.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def render(reports: list[Report], *, colour: bool = False) -> str:  # noqa: ARG001  # the reader's device decides
    ordered = wording.worst_first(reports)
    summary = wording.summary(reports)
    return "\n".join(
        [
            f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{_text(summary)}</title>',
            f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<style>\n{_style()}</style></head>",
            "<body><main>",
            _banner(ordered, summary),
            *([_models(ordered)] if len(ordered) > 1 else []),
            *(part for number, report in enumerate(ordered) for part in _report(report, number, len(ordered) > 1)),
            "<footer>Written by <code>gitmodel check-compat</code>. What each rule means: "
            "<code>docs/reference/rules.md</code>.</footer>",
            "</main></body></html>",
        ]
    )


@cache
def _style() -> str:
    return resources.files(__package__).joinpath("page.css").read_text()


def _banner(reports: list[Report], summary: str) -> str:
    word, _, rest = summary.partition("  ")
    tone = str(wording.worst(reports)) if reports else "nothing"
    below = "".join(f"<p>{wording.found(r)}; {_text(wording.counts(r))}</p>" for r in reports[:1] if len(reports) == 1)
    head = f'<h1><span class="word">{_text(word)}</span> {_text(rest)}</h1>'
    return f'<header class="banner {tone}">{head}{below}</header>'


def _models(reports: list[Report]) -> str:
    rows = []
    for number, report in enumerate(reports):
        cells = [
            f'<span class="word">{_text(str(report.verdict))}</span>',
            f'<a href="#model-{number}">{_text(report.model)}</a>',
            _text(wording.owed(report)),
            _text(report.unjudged or wording.found(report)),
        ]
        rows.append(f'<tr class="{report.verdict}">{"".join(f"<td>{cell}</td>" for cell in cells)}</tr>')
    head = "<tr><th>verdict</th><th>model</th><th>bump</th><th>found</th></tr>"
    return f'<div class="scroll"><table>{head}{"".join(rows)}</table></div>'


def _report(report: Report, number: int, titled: bool) -> Iterator[str]:
    yield f'<section id="model-{number}">'
    if titled:
        yield f'<h2 class="{report.verdict}"><span class="word">{report.verdict}</span> {_text(report.model)}</h2>'
    if report.unjudged:
        yield f'<article class="warning"><h4>Could not judge</h4><p>{_text(report.unjudged)}</p></article>'
    yield _facts(report, titled)
    loud = [found for found in report.findings if found.severity is not Severity.INFO]
    yield from (_finding(found) for found in loud)
    remarks = [found for found in report.findings if found.severity is Severity.INFO]
    if remarks:
        yield f'<h3>Remarks</h3><ul class="remarks">{"".join(map(_remark, remarks))}</ul>'
    if report.drifts:
        yield from _outputs(report.drifts)
    yield "</section>"


def _facts(report: Report, apart: bool) -> str:
    """Bumps by profile and the version to tag, as cards; those of one model among others say, too, what the banner says
    of one alone."""
    unknown = "unknown" if report.unjudged else ""
    cards = [(f"{p} bump", unknown or str(report.bump.get(p, Bump.NONE)), p == report.profile) for p in PROFILES]
    if report.next_version and not report.unjudged and report.required_bump is not Bump.NONE:
        cards.append(("next version", str(report.next_version), False))
    if report.declared is not None:
        cards.append(("declared bump", str(report.declared), False))
    if report.rollback_safe is not None:
        cards.append(("rollback", "safe" if report.rollback_safe else "unsafe", False))
    if apart:
        cards += [("old", report.old, False), ("new", report.new, False)]
        cards.append(("run", wording.counts(report).removesuffix(" run"), False))
    shown = "".join(
        f"<div{' class=judged' if judged else ''}><dt>{_text(name)}</dt><dd>{_text(value)}</dd></div>"
        for name, value, judged in cards
    )
    return f'<dl class="cards">{shown}</dl>'


def _finding(found: Finding) -> str:
    rows = []
    if values := wording.values(found):
        rows.append(("was", f"<code>{escape(values[0])}</code>"))
        rows.append(("now", f"<code>{escape(values[1])}</code>"))
    rows.append(("who", f"{_text(wording.who(found))}. {_text(found.why)}"))
    if found.witness:
        rows.append(("seen", f"<code>{_text(found.witness)}</code>"))
    rows.append(("mend", _text(found.fix)))
    listed = "".join(f"<dt>{name}</dt><dd>{body}</dd>" for name, body in rows)
    code = "\n".join(wording.exact(found.snippet))
    snippet = f"<details><summary>See it happen</summary><pre>{escape(code)}</pre></details>" if code else ""
    mark = f'<span class="mark">{_MARK[found.severity]}</span>'
    return (
        f'<article class="{found.severity}"><h4>{mark}{_text(found.message)}</h4>'
        f'<p class="where">{_where(found)}</p><dl>{listed}</dl>{snippet}</article>'
    )


def _remark(found: Finding) -> str:
    return f'<li>{_text(found.message)} <span class="where">{_where(found)}</span></li>'


def _where(found: Finding) -> str:
    place = f" · <code>{_text(found.place)}</code>" if found.place else ""
    return f"{found.severity} · {found.rule}{place}"


def _outputs(drifts: Iterable[OutputDrift]) -> Iterator[str]:
    drifts = list(drifts)
    yield "<h3>Outputs, NEW against OLD</h3>"
    heads = ("output", "largest", "in case", "relative", "beyond tolerance", "agreement", "cosine", "ULP p99", "flips")
    head = "".join(f"<th{'' if i in (0, 2) else ' class=number'}>{name}</th>" for i, name in enumerate(heads))
    yield f'<div class="scroll"><table><tr>{head}</tr>{"".join(map(_statistics, drifts))}</table></div>'
    for drift in drifts:
        if drift.by_case and not drift.equal:
            yield from _pictures(drift)
        yield _flips(drift)


def _statistics(drift: OutputDrift) -> str:
    place = f"{_text(drift.worst)}{_text(list(drift.at)) if drift.at else ''}"
    cells = [
        (f"<code>{_text(drift.name)}</code>", ""),
        ("equal" if drift.equal else number_text(drift.max_abs), "number"),
        (place, ""),
        (number_text(drift.max_rel), "number"),
        (f"{drift.mismatched:.1%}", "number"),
        (f"{drift.agreement:.1%}", "number"),
        (f"{drift.cosine:.6f}", "number"),
        (number_text(drift.ulp_p99), "number"),
        (str(drift.flipped), "number"),
    ]
    return f"<tr>{''.join(f'<td class={kind or chr(34) * 2}>{cell}</td>' for cell, kind in cells)}</tr>"


def _pictures(drift: OutputDrift) -> Iterator[str]:
    rtol, atol = drift.tolerance
    said = f"Tolerance {rtol:g} relative, {atol:g} absolute: circles are within it, crosses beyond."
    said += " What lies below the dashed line passes whatever OLD's value is." if atol else ""
    if drift.smallest is not None:
        said += f" The smallest that would pass: {drift.smallest[0]:.3g} relative, {drift.smallest[1]:.3g} absolute."
    yield f"<h3>Output <code>{_text(drift.name)}</code></h3>"
    yield f"<figure>{plots.by_case(drift)}<figcaption>{said}</figcaption></figure>"
    yield f"<figure>{plots.worst_cases(drift)}<figcaption>The worst cases.</figcaption></figure>"


def _flips(drift: OutputDrift) -> str:
    if not drift.flips:
        return ""
    rows = "".join(
        f'<tr><td>{_text(f.case)}</td><td class="number">{f.row}</td><td class="number">{_text(f.old)}</td>'
        f'<td class="number">{_text(f.new)}</td></tr>'
        for f in drift.flips
    )
    head = '<tr><th>case</th><th class="number">row</th><th class="number">was</th><th class="number">now</th></tr>'
    more = drift.flipped - len(drift.flips)
    rest = f"<figcaption>{more} more</figcaption>" if more > 0 else ""
    name = _text(drift.name)
    return f"<h3>Decisions of <code>{name}</code> that changed</h3><figure><table>{head}{rows}</table>{rest}</figure>"


def _text(text: object) -> str:
    return escape(rules.plain(text))
