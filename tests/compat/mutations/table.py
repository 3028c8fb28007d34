"""The page of the proof, docs/proof.md, made of the rows of a run."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import onnx
import onnxruntime

from tests.compat.mutations import MUTATIONS
from tests.compat.mutations.corpus import Specimen
from tests.compat.mutations.proof import Row

Line = Mapping[str, Any]

_HEAD = """# Proof: the world's models and their mutations

Every model inside the `onnx` package ({onnx}) is judged by `gitmodel check-compat` against itself and against systematic
mutations of itself. What each mutation must be judged to be follows from how it was made; it is written beside it in
`tests/compat/mutations/`, without the rules under test. A judgement is *right* when the verdict, the bump owed by each
profile, every finding at its place, and the absence of any other finding are as they must be.
Written by `python -m tests.compat.mutations --all --write docs/proof.md`; do not edit.

{models} models, {judged} judgements, {right} of them right; {unjudged} rightly *unjudged* (the runtime does not load the
model, or no case can be drawn for it). {seconds:.0f} s of judging, ONNX Runtime {runtime}, {machine}.

*Precision* is the share of findings that had to stand among those that stand, *recall* the share of those that stand among
those that had to. Without recall the mutation must stay silent; precision then is the share of judgements without a finding.

| mutation | models | not defined | unjudged | findings | precision | recall | right |
|---|---:|---:|---:|---:|---:|---:|---:|
"""


def page(lines: Sequence[Line], models: Sequence[Specimen], real: str = "") -> str:
    """Markdown; one row for each mutation, ``real`` (see ``real_models``), and what is wrong below."""
    names = {specimen.name for specimen in models}
    kept = [line for line in lines if line["specimen"] in names and line["mutation"] in MUTATIONS]
    told = [line for line in kept if not line["undefined"]]
    head = _HEAD.format(
        onnx=onnx.__version__, models=len({line["specimen"] for line in kept}), judged=len(told), right=sum(map(_right, told)),
        unjudged=sum(bool(line.get("unjudged")) for line in told), seconds=sum(line["seconds"] for line in told),
        runtime=onnxruntime.__version__, machine=f"Python {platform.python_version()}, {platform.machine()}",
    )  # fmt: skip
    rows = [_row(name, [line for line in kept if line["mutation"] == name]) for name in MUTATIONS]
    return head + "\n".join([*rows, _row("**all**", kept)]) + "\n" + real + _undefined(kept) + _misses(told)


def real_models(rows: Sequence[Row], reference: tuple[int, int]) -> str:
    """The section on the generations of a real classifier."""
    out = ["\n## magika: five generations of a real classifier\n", "| step | findings | right |", "|---|---:|---:|"]
    for row in rows:
        told = row.outcome
        out.append(f"| {row.mutation} | {told.found} | {'yes' if told.right else f'**no**: {told}'} |")
    passed, count = reference
    out.append(
        f"\nThe publisher's own results for standard_v3_3, replayed as golden cases of one row: {passed} of {count} labels, "
        "each score within 1e-6."
    )
    return "\n".join(out) + "\n"


def is_whole(text: str) -> bool:
    """Whether nothing at all was judged otherwise than it must be."""
    return "## Misses" not in text and "**no**" not in text


def _right(line: Line) -> bool:
    return not (line.get("missed") or line.get("false") or line.get("wrong"))


def _row(name: str, lines: Sequence[Line]) -> str:
    told = [line for line in lines if not line["undefined"]]
    found, missed, false = (
        sum(line.get("found", 0) for line in told), *(sum(len(line.get(key, ())) for line in told) for key in ("missed", "false")),
    )  # fmt: skip
    if found + missed:
        precision, recall = _share(found, found + false), _share(found, found + missed)
    else:
        precision, recall = _share(sum(not line.get("false") for line in told), len(told)), "-"
    cells = [
        name, len(told), len(lines) - len(told), sum(bool(line.get("unjudged")) for line in told), found + missed, precision, recall,
        _share(sum(map(_right, told)), len(told)),
    ]  # fmt: skip
    return "| " + " | ".join(map(str, cells)) + " |"


def _share(part: int, whole: int) -> str:
    """Never rounded up to a whole."""
    if not whole:
        return "-"
    return "100 %" if part == whole else f"{min(part / whole * 100, 99.99):.2f} %"


def _undefined(lines: Iterable[Line]) -> str:
    reasons = Counter((line["mutation"], line["undefined"]) for line in lines if line["undefined"])
    out = ["\n## Where a mutation is not defined\n"]
    for name in MUTATIONS:
        found = [f"{reason} ({count})" for (mutation, reason), count in reasons.most_common() if mutation == name]
        out += [f"- `{name}`: {'; '.join(found)}"] if found else []
    return "\n".join(out) + "\n"


def _misses(told: Iterable[Line]) -> str:
    wrong = [line for line in told if not _right(line)]
    if not wrong:
        return ""
    out = ["\n## Misses\n"]
    for line in wrong[:200]:
        said = "; ".join(f"{key}: {', '.join(line[key])}" for key in ("missed", "false", "wrong") if line.get(key))
        out.append(f"- `{line['mutation']}` on `{line['specimen']}`: {' '.join(said.split())[:300]}")
    return "\n".join(out) + (f"\n- and {len(wrong) - 200} more\n" if len(wrong) > 200 else "\n")
