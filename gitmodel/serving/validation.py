"""What a version has to show before it may answer: graphs that keep to their lock and their signatures, golden cases that hold on
this host, and, to be batched, rows that stand for themselves."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Sequence
from typing import Any

from msgspec import structs

from gitmodel import runtime
from gitmodel.bundle.bundle import GOLDEN, ONNX_VIEW, Bundle
from gitmodel.bundle.card import Gates
from gitmodel.bundle.golden import GoldenCase
from gitmodel.bundle.lock import FileEntry
from gitmodel.bundle.signature import DEFAULT, Signature, TensorSpec
from gitmodel.compat import generate, replay
from gitmodel.compat.side_by_side import has_rows
from gitmodel.errors import ExitCode, GitmodelError
from gitmodel.formats import goldens
from gitmodel.formats import onnx as onnx_format

#: Drawn rows that are run together and apart.
_ROWS = 4
#: Units in the last place that a deep model's rounding may come to: several sums of thousands of products, one after the other.
_ROUNDING = 64
#: How many inputs or outputs of the graph are named where one is not among them.
_NAMED = 3


class GoldenFailed(GitmodelError):
    """A version does not give the outputs it recorded, on this host."""

    code = "golden-failed"
    exit_code = ExitCode.INCOMPATIBLE


class UnlistedFile(GitmodelError):
    """A model points at a file that weights.lock does not vouch for."""

    code = "external-data-escapes"


class FalseSignature(GitmodelError):
    """A signature promises what the graph does not have: calls that keep to it would be refused."""

    code = "signature-false"
    exit_code = ExitCode.INCOMPATIBLE


def refuse_false(bundle: Bundle, entries: Sequence[FileEntry], read: Callable[[FileEntry], bytes]) -> None:
    """The graphs read only what the lock lists, and are called as their signatures say; ``read`` gives a file's bytes. Raises
    UnlistedFile, FalseSignature, InvalidModel."""
    listed = {entry.path for entry in entries}
    for view in (entry for entry in entries if entry.path.endswith(".onnx")):
        graph = onnx_format.parse(read(view), bundle.label)
        if strange := onnx_format.locations_of(graph) - listed:
            raise UnlistedFile(
                f"{bundle.label} points at '{min(strange)[:80]}'",
                hint="save it with gitmodel; only files in weights.lock are opened",
            )
        own = onnx_format.signature_of(graph, bundle.label)
        for name, said in bundle.signatures.by_name.items():
            if structs.replace(bundle, called=name).view == view.path and (wrong := _unlike(said, own)):
                raise FalseSignature(
                    f"{bundle.label}: signature.yaml and the graph differ in {wrong}", hint="save the model again"
                )


def recorded(bundle: Bundle, signature: Signature) -> list[GoldenCase]:
    """Golden cases are calls of the graph that has no name, with all its outputs. Raises InvalidGolden."""
    if bundle.view != ONNX_VIEW:
        return []
    whole = bundle.signatures.by_name.get(DEFAULT, signature)
    return goldens.read(bundle.folder, GOLDEN, whole, bundle.label)


def check(session: runtime.Session, cases: list[GoldenCase], signature: Signature, gates: Gates) -> replay.SelfCheck:
    """Raises GoldenFailed."""
    found = replay.check_self(session, cases, signature, gates)
    if found.failures:
        raise GoldenFailed(
            f"{len(found.failures)} of {found.cases} golden cases fail ({found.failures[0]})",
            hint="mend the model or record new cases",
        )
    return found


def rows_stand_alone(session: runtime.Session, signature: Signature) -> bool:
    """Whether drawn rows give together what each gives by itself, within the tolerance that golden cases have, or but for rounding:
    of a sum that nearly cancels, little is left but that."""
    import numpy as np

    if not has_rows(signature) or not generate.possible(signature):
        return False
    cases = list(itertools.islice(generate.cases(signature), _ROWS))
    try:
        apart = [session.run(case.inputs) for case in cases]
        joined, answers = (
            {name: np.concatenate([one[name] for one in parts]) for name in parts[0]}
            for parts in ([case.inputs for case in cases], apart)
        )
        if not replay.check_self(session, [GoldenCase("together", joined, answers)], signature, Gates()).failures:
            return True
        together = session.run(joined)
    except (runtime.RunFailed, ValueError):  # refused, or rows of other shapes
        return False
    return all(_rounded(answers[name], together[name]) for name in answers)


def _rounded(alone: Any, together: Any) -> bool:
    """Whether no value of a row differs by more than rounding can make of its largest."""
    import numpy as np

    if (
        not isinstance(alone, np.ndarray)
        or alone.dtype not in (np.float32, np.float64)
        or alone.shape != together.shape
    ):
        return False
    rows, others = (values.reshape(len(values), -1).astype(np.float64) for values in (alone, together))
    if not rows.size or not (np.isfinite(rows).all() and np.isfinite(others).all()):
        return False
    most = _ROUNDING * float(np.finfo(alone.dtype).eps) * np.abs(rows).max(axis=1, keepdims=True)
    return bool((np.abs(rows - others) <= most).all())


def warm_up(session: runtime.Session, signature: Signature, cases: list[GoldenCase]) -> tuple[float, int]:
    """Runs a call a few times and returns the fastest, in seconds, with the bytes of its tensors. Golden cases have warmed it up
    already."""
    drawn = generate.cases(signature) if generate.possible(signature) else iter(())
    case = cases[0] if cases else next(drawn, None)
    if case is None:
        return 1.0, 1
    best, size = 1.0, sum(getattr(value, "nbytes", 0) for value in case.inputs.values())
    for _ in range(3):
        start = time.perf_counter()
        try:
            session.run(case.inputs)
        except runtime.RunFailed:
            return 1.0, 1
        best = min(best, time.perf_counter() - start)
    return best, max(size, 1)


def _unlike(said: Signature, own: Signature) -> str:
    """What a signature says that the graph does not bear out; empty when there is nothing. It may leave outputs out, and say
    a size where the graph takes any."""
    for name, claims, graph in (("input", said.inputs, own.inputs), ("output", said.outputs, own.outputs)):
        held = {spec.name: spec for spec in graph}
        for claim in claims:
            if claim.name not in held or not _may_be(claim, held[claim.name]):
                there = [held[claim.name]] if claim.name in held else graph[:_NAMED]
                return f"{name} '{claim}' (the graph has {', '.join(map(repr, map(str, there)))})"
    return next(
        (
            f"input '{spec}' (which the graph needs)"
            for spec in own.inputs
            if not spec.optional and said.input(spec.name) is None
        ),
        "",
    )


def _may_be(claim: TensorSpec, held: TensorSpec) -> bool:
    if (claim.dtype, claim.kind, claim.key) != (held.dtype, held.kind, held.key):
        return False
    if claim.shape is None or held.shape is None:
        return True
    sizes = zip(claim.shape, held.shape, strict=False)
    return len(claim.shape) == len(held.shape) and all(
        a == b for a, b in sizes if isinstance(a, int) and isinstance(b, int)
    )
