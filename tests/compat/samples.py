"""Reports made by hand for the tests of the formats: a break with everything, an unjudged one, a clean one, a hostile one."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

from msgspec.structs import replace

from gitmodel.compat import rules
from gitmodel.compat.changes import Change
from gitmodel.compat.decisions import Flip
from gitmodel.compat.drift import CaseDrift, OutputDrift
from gitmodel.compat.rules import Place
from gitmodel.compat.verdict import Report, owed, worst_first
from gitmodel.versions import Version

SNIPPET = "import gitmodel\nnew = gitmodel.load('fraud').session\nnew.run({}, ['y'])"
WITNESS = "case cases/0: Required inputs (['features']) are missing from input feed (['x'])."
#: What a stranger may call an input: markup of every format, mentions, links, controls, bidi marks, a closing fence.
HOSTILE = (
    "<script>alert(1)</script><img src=x onerror=alert(1)>|`@everyone`|#12 [a](http://evil.example) www.evil.example"
    "\r\n::error file=x::y%0A,:]]>\x00\x1b[31m\u202e\u2028```\n## --> </details>&amp;"
)

RENAMED = Change("input-renamed", "inputs.x", "x", "features", {"name": "x", "witness": WITNESS, "snippet": SNIPPET})
RESIZED = Change("output-dim-changed", "outputs.scores[1]", 214, 217, {"name": "scores", "axis": 1})
MISSING = Change("goldens-missing", "golden", None, None, {"cases": 16, "label": "fraud@v1.2.3"})
IDENTICAL = Change("golden-identical", "behaviour", None, None, {"cases": 16})


def report(changes: Iterable[Change], name: str = "fraud", **fields: Any) -> Report:
    """A report on these changes, each finding on a line of its own."""
    found = worst_first([rules.judge(change) for change in changes])
    placed = tuple(
        replace(f, place=Place(f"models/{name}/signature.yaml", number)) for number, f in enumerate(found, 5)
    )
    base = Report(
        name, f"{name}@v1.2.3", name, "named", placed, 59, 37, base=Version(1, 2, 3), bump=owed(placed),
        rollback_safe=False,
    )  # fmt: skip
    return replace(base, **fields)


def drift(name: str = "scores", *, count: int = 12) -> OutputDrift:
    """Equal, small, large and incomparable cases."""
    sizes = [0.0, 1e-7, 5e-6, 2e-4, math.inf]
    cases = tuple(
        CaseDrift(f"cases/{i}", i % 3, sizes[i % len(sizes)], sizes[i % len(sizes)] < 1e-5) for i in range(count)
    )
    return OutputDrift(
        name, equal=False, within=False, max_abs=2e-4, worst="cases/3", at=(0, 17), agreed=9, decisions=12, distance=0.05,
        cases=12, max_rel=0.013, ulp_p99=1234, ulp_max=99999, cosine=0.99987, mismatched=0.021, flipped=7,
        flips=tuple(Flip(f"cases/{i}", 0, i + 3, i + 9) for i in range(5)), kl=0.01, js=0.002, smallest=(1e-3, 2e-4),
        floor=2e-6, tolerance=(1e-3, 1e-5), by_case=cases,
    )  # fmt: skip


BROKEN = report([RENAMED, RESIZED, MISSING, IDENTICAL], drifts=(drift(), OutputDrift("same")))
CLEAN = report([], "mnist", rollback_safe=True)
UNJUDGED = report([], "spam", unjudged="the remote 'storage' does not have model.onnx")
STRANGE = report(
    [
        Change(
            "input-removed",
            f"inputs.{HOSTILE}",
            HOSTILE,
            None,
            {"name": HOSTILE, "witness": HOSTILE, "snippet": HOSTILE},
        )
    ],
    "churn",
    drifts=(drift(HOSTILE),),
    unjudged="",
)
FIRST = report([IDENTICAL], "new", old="nothing", base=None, rollback_safe=None)
ALL = [CLEAN, UNJUDGED, BROKEN, STRANGE, FIRST]
