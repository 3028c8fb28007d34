"""What a mutation must be judged to be, and how a report is held against it. Written without the rules under test."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import onnx

from gitmodel.bundle.golden import GoldenCase
from gitmodel.compat.rules import PROFILES, Severity
from gitmodel.compat.verdict import Report, Verdict
from gitmodel.versions import Bump
from tests.compat.mutations.corpus import Specimen

Bumps = tuple[str, str, str]
NONE, PATCH, MINOR, MAJOR = (("none",) * 3, ("patch",) * 3, ("minor",) * 3, ("major",) * 3)
BY_NAME: Bumps = ("none", "major", "major")
BY_POSITION: Bumps = ("major", "none", "none")

#: What may stand in any report beside what is expected: it breaks and owes nothing of its own.
REMARKS = frozenset(
    {
        "goldens-missing", "goldens-changed", "golden-identical", "golden-numeric-noise", "weights-unchanged",
        "opset-raised", "nondeterministic-output", "batch-variance",
    }
)  # fmt: skip
#: Why a model does not load: one of them must stand, and owes a major step.
WHY_NOT = frozenset(
    {"ir-exceeds-runtime", "opset-exceeds-runtime", "ml-opset-exceeds-runtime", "custom-domain-used", "op-unsupported",
     "onnx-check-failed", "model-load-failed"}
)  # fmt: skip
Place = tuple[str, str]


@dataclass(frozen=True)
class Truth:
    """``expects`` maps (rule, place) to what it owes by (positional, named, json). ``replayed`` is False where OLD's calls
    cannot be made on NEW; ``exact`` asks for outputs equal bit by bit; ``loads`` is False for what no runtime loads;
    ``same_bytes`` where there is nothing to run; ``witnessed`` is False for a break that no drawn call meets."""

    expects: Mapping[Place, Bumps] = field(default_factory=dict)
    replayed: bool = True
    exact: bool = False
    loads: bool = True
    same_bytes: bool = False
    witnessed: bool = True

    def bump(self, *, ran: bool) -> dict[str, Bump]:
        owed = [*self.expects.values(), *([PATCH] if ran else [])]
        return {
            profile: max((Bump.parse(bumps[i]) for bumps in owed), default=Bump.NONE)
            for i, profile in enumerate(PROFILES)
        }

    def verdict(self) -> Verdict:
        breaks = any(bumps[1] == "major" for bumps in self.expects.values())
        return Verdict.INCOMPATIBLE if breaks else Verdict.COMPATIBLE


#: A model, or the tensors of a checkpoint.
Side = onnx.ModelProto | dict[str, np.ndarray]


@dataclass(frozen=True)
class Mutant:
    """OLD, NEW and the truth about the step between them. ``labels`` are the class names of both, as a bundle has them;
    ``outside``: NEW keeps its weights in a file beside it; ``recorded``: OLD keeps these calls as golden cases."""

    old: Side
    new: Side
    truth: Truth
    labels: tuple[list[str], list[str]] | None = None
    outside: bool = False
    recorded: tuple[GoldenCase, ...] = ()


#: Makes a mutant of a specimen; raises NotDefined where it says nothing about it.
Mutation = Callable[[Specimen], Mutant]
MUTATIONS: dict[str, Mutation] = {}


def mutation(function: Mutation) -> Mutation:
    """Enters a function into the table: ``input_renamed`` is the mutation ``input-renamed``."""
    MUTATIONS[function.__name__.replace("_", "-")] = function
    return function


@dataclass(frozen=True)
class Outcome:
    """One judgement: ``missed`` findings that must stand and do not, ``false`` ones that stand and must not, ``wrong`` what
    else is not as it must be; ``found`` is how many stand as they must."""

    missed: tuple[str, ...] = ()
    false: tuple[str, ...] = ()
    wrong: tuple[str, ...] = ()
    found: int = 0
    unjudged: bool = False

    @property
    def right(self) -> bool:
        return not (self.missed or self.false or self.wrong)


def held_against(report: Report, truth: Truth, state: str) -> Outcome:
    """The report as the truth has it. ``state`` says what is true of OLD: "runs", "refuses" every drawn case, "undrawn" (no
    case can be drawn), "broken" (it does not load), or "deadly": drawn cases end the process that runs them, so that
    a report may say that nobody could judge, and must still tell what the signatures tell."""
    loads = truth.loads and state != "broken"
    ran = state == "runs" and loads and truth.replayed and not truth.same_bytes
    expects = dict(truth.expects)
    if not ran:
        expects = {place: bumps for place, bumps in expects.items() if not _is_behaviour(place[0])}
    opened = loads or truth.same_bytes
    silent = REMARKS if opened else REMARKS | WHY_NOT
    stands = {(f.rule, f.at) for f in report.findings if f.rule not in silent or (f.rule, f.at) in expects}
    stands -= _carried(expects) - expects.keys()
    if state == "deadly":
        stands = {(rule, at) for rule, at in stands if not _is_behaviour(rule)}
    told = WHY_NOT & {f.rule for f in report.findings}
    wrong = [*_verdict(report, replace(truth, expects=expects), state, loads=loads, ran=ran)]
    if not opened and not told:
        wrong.append("it does not say why the model does not load")
    if ran and truth.exact and "golden-identical" not in {f.rule for f in report.findings}:
        wrong.append("outputs are not bit-equal")
    return Outcome(
        tuple(f"{rule} at {at}" for rule, at in sorted(expects.keys() - stands)),
        tuple(f"{rule} at {at}" for rule, at in sorted(stands - expects.keys())),
        tuple(wrong),
        len(expects.keys() & stands),
        report.verdict is Verdict.UNJUDGED,
    )


def _carried(expects: Mapping[Place, Bumps]) -> set[Place]:
    """What may be said of a state whose one half changed: by its own name where it comes out, and where it goes in by that of
    ONNX's training operators, which take X and give the next call's X as X_new."""
    places = [at.partition(".")[::2] for _, at in expects]
    names = [(side, rest.partition(".")[0].partition("[")[0]) for side, rest in places]
    return {("state-pair-changed", f"state.{name}{'_new' if side == 'inputs' else ''}") for side, name in names}


def _verdict(report: Report, truth: Truth, state: str, *, loads: bool, ran: bool) -> list[str]:
    # A break that stands by the signatures alone needs no case; everything else that nobody could run is unjudged.
    tellable = ran or truth.same_bytes or (loads and not truth.replayed)
    verdict = truth.verdict() if tellable else Verdict.UNJUDGED
    bump = truth.bump(ran=ran) if loads or truth.same_bytes else dict.fromkeys(PROFILES, Bump.MAJOR)
    if state == "deadly":
        may = (Verdict.UNJUDGED, truth.verdict())
        return [] if report.verdict in may else [f"verdict {report.verdict}, must be {may[1]} or {may[0]}"]
    wrong = (
        [] if report.verdict is verdict else [f"verdict {report.verdict} ({report.unjudged[:200]}), must be {verdict}"]
    )
    if dict(report.bump) != bump:
        texts = [" ".join(f"{p}:{b[p]}" for p in PROFILES) for b in (report.bump, bump)]
        wrong.append(f"owes {texts[0]}, must be {texts[1]}")
    if ran and not report.cases_run:
        wrong.append("no case was run")
    errors = {f.rule for f in report.findings if f.severity is Severity.ERROR}
    if verdict is Verdict.COMPATIBLE and errors:
        wrong.append(f"errors {sorted(errors)}")
    if state == "runs" and loads and truth.witnessed:
        wrong += [f"{f.rule} shows no witness" for f in report.findings if f.rule in WITNESSED and not f.witness]
    return wrong


#: Breaks whose OLD call the runtime itself refuses: the report must show it.
WITNESSED = frozenset(
    {"input-removed", "input-added-required", "input-rank-changed", "output-removed", "input-renamed", "output-renamed"}
)


def _is_behaviour(rule: str) -> bool:
    return rule.startswith(("golden-", "nan-", "inf-", "new-error-", "output-semantics-"))
