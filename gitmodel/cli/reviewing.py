"""The conversation of ``golden review``: a failing case with its statistics, a question, what was answered."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from decimal import ROUND_CEILING, Context
from typing import TYPE_CHECKING

from gitmodel.cli.console import console, count
from gitmodel.errors import GitmodelError

if TYPE_CHECKING:
    from gitmodel.compat.closeness import Closeness
    from gitmodel.workflows.golden_review import Failing, Review

_HELP = """  a  accept: what the model gives now is right from now on
  A  accept this one and all that are left
  r  reject: the recorded outputs stand, the model has to be mended
  s  skip: decide another time; the new outputs stay beside the old ones as *.new
  q  stop here; the next review goes on with what is left"""


class NeedsTerminal(GitmodelError):
    """A question would be asked where nobody can answer."""

    code = "needs-terminal"


def run(name: str, reason: str, repo: str) -> None:
    """Asks about each case that fails, until all are decided or the person stops."""
    from gitmodel.workflows import golden_review as workflow
    from gitmodel.workflows.workspace import Workspace

    place = Workspace.of(repo, progress=console.progress)
    review = workflow.begin(name, repo=place)
    console.clear()
    for line in _summary(review):
        _say(line)
    done = {"accepted": 0, "rejected": 0, "skipped": 0}
    left = list(review.failing)
    while left:
        case = left[0]
        _say("")
        for line in shown(case, len(review.failing) - len(left) + 1, len(review.failing), review.labels):
            _say(line)
        answer = _ask(case, len(left))
        if answer == "q":
            break
        if answer in "aA":
            taken = [case] if answer == "a" else [one for one in left if one.given is not None]
            reason = _reason(reason)
            if not reason:
                continue
            workflow.accept(review, taken, reason, repo=place)
            done["accepted"] += len(taken)
            left = [one for one in left if one not in taken]
        else:
            if answer == "r":
                workflow.reject(review, case, repo=place)
            done["rejected" if answer == "r" else "skipped"] += 1
            left.pop(0)
    if not left:
        workflow.end(review, repo=place)
    _say("")
    _say(", ".join(f"{number} {word}" for word, number in done.items()) + (f", {len(left)} left" if left else ""))
    if done["accepted"]:
        console.note(f"next: git add models/{name} && git commit")


def _summary(review: Review) -> Iterator[str]:
    """What there is to decide, and the worst of it for each output."""
    before = f" ({review.rejected} rejected before)" if review.rejected else ""
    if not review.failing and not review.rejected:
        yield f"{count(review.cases, 'golden case')} of {review.name}, and all hold"
        return
    yield f"{count(review.cases, 'golden case')} of {review.name}, {len(review.failing)} to decide{before}"
    yield from worst(review.failing)


def worst(cases: Sequence[Failing]) -> Iterator[str]:
    """The worst of what these cases show, a line for each output."""
    by_output: dict[str, list[tuple[str, Closeness]]] = {}
    for case in cases:
        for output in case.outputs:
            by_output.setdefault(output.output, []).append((case.name, output))
    for name, found in by_output.items():
        case_name, most = max(found, key=lambda one: (bool(one[1].apart), one[1].max_abs))
        flipped, rows = sum(o.flipped for _, o in found), sum(o.rows for _, o in found)
        broken = sum(o.broken for _, o in found)
        size = most.apart or f"max abs {most.max_abs:.4g}, max rel {max(o.max_rel for _, o in found):.4g}"
        top = f", top-1 changed in {flipped} of {count(rows, 'row')}" if rows else ""
        nan = f", {count(broken, 'value')} became NaN or infinite" if broken else ""
        yield plain(f"  {name}: {size} (worst in {case_name}){top}{nan}")


def shown(case: Failing, number: int, of: int, labels: tuple[str, ...]) -> Iterator[str]:
    """What a person needs to decide about one case, line by line."""
    yield f"{case.name}  ({number} of {of}, {count(case.rows, 'row')})"
    if case.given is None:
        yield f"  the model refuses it: {case.wrong}"
    for output in case.outputs:
        yield f"  {output.output} {output.dtype} {list(output.shape)}"
        yield from (f"    {line}" for line in _statistics(output, labels))


def _statistics(output: Closeness, labels: tuple[str, ...]) -> Iterator[str]:
    if output.apart:
        yield output.apart
        return
    if not output.beyond:
        yield f"within tolerance (largest difference {output.max_abs:.3g})"
        return
    rtol, atol = output.tolerance
    at = f" at {list(output.at)}" if output.at else ""
    yield f"max abs    {output.max_abs:.4g}{at}: {output.old} -> {output.new}"
    yield f"max rel    {output.max_rel:.4g}"
    if output.rows:
        flips = ", ".join(
            f"row {row}: {_label(old, output, labels)} -> {_label(new, output, labels)}"
            for row, old, new in output.flips
        )
        yield f"top-1      {output.flipped} of {count(output.rows, 'row')} changed{f' ({flips})' if flips else ''}"
    if output.broken:
        yield f"broken     {count(output.broken, 'value')} became NaN or infinite"
    yield f"tolerance  {output.beyond} of {count(output.values, 'value')} beyond rtol {rtol:g}, atol {atol:g}; {_passes(output)}"


def _passes(output: Closeness) -> str:
    if math.isinf(output.atol):
        return "no tolerance lets it pass"
    if math.isinf(output.rtol):
        return f"atol {_up(output.atol)} would pass"
    return f"rtol {_up(output.rtol)} would pass, or atol {_up(output.atol)}"


def _up(value: float) -> str:
    """Three digits, rounded up: what is shown must really pass."""
    near = float(f"{value:.3g}")
    up = Context(prec=3, rounding=ROUND_CEILING).create_decimal_from_float(value)
    return f"{near if near >= value else float(up):.3g}"


def _label(index: int, output: Closeness, labels: tuple[str, ...]) -> str:
    return labels[index] if labels and len(labels) == output.shape[-1] else str(index)


def _ask(case: Failing, left: int) -> str:
    """One of a, A, r, s, q. Ctrl-D stops, as q does."""
    keys = "arsqA" if case.given is not None else "rsq"
    words = "[a]ccept, [A]ll left, [r]eject, [s]kip, [q]uit" if case.given is not None else "[r]eject, [s]kip, [q]uit"
    while True:
        try:
            answer = input(f"{words} ({left} left, ? for help): ").strip()
        except EOFError:
            return "q"
        if answer and answer in keys and len(answer) == 1:
            return answer
        console.say(_HELP)


def _reason(before: str) -> str:
    """Why; Enter takes the reason given before, and nothing at all takes the answer back."""
    again = f" [{before}]" if before else ""
    try:
        return input(f"why{again}: ").strip() or before
    except EOFError:
        return ""


def _say(line: str) -> None:
    console.say(plain(line))


def plain(line: str) -> str:
    """Names come from a model's file: what would steer a terminal is shown as a question mark."""
    return "".join(c if c.isprintable() else "?" for c in line)
