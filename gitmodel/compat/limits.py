"""Facts about what NEW asks of runtimes: versions, domains, files outside, and why it does not load where it does not."""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import cache
from importlib import resources

from gitmodel.bundle import yamlio
from gitmodel.bundle.card import Card
from gitmodel.compat.changes import Change
from gitmodel.compat.opening import CannotOpen, Opened
from gitmodel.errors import GitmodelError
from gitmodel.formats.onnx_facts import ML, ONNX, Facts
from gitmodel.formats.source import UnsafeModel
from gitmodel.runtime import RuntimeLimits

_TARGETS = "targets.yaml"
_UNSUPPORTED = re.compile(
    r"Could not find an implementation for|is not a registered function/op|No Op registered for|"
    r"[Nn]o opset import for domain|not a registered"
)


def changes(old: Opened | None, new: Opened, card: Card) -> Iterator[Change]:
    """What NEW asks of runtimes that OLD, if there is one, did not, and what OLD's ``card`` forbids; both load."""
    if old is not None:
        yield from _raised(old.facts, new.facts)
    yield from _targets(new, card)
    for domain in new.facts.foreign:
        if domain not in card.domains and (old is None or domain not in old.facts.foreign):
            yield Change(
                "custom-domain-used",
                f"domains.{domain}",
                None,
                domain,
                {"label": new.label, "domain": domain, "loads": True},
            )
    if new.complaint and (old is None or new.complaint != old.complaint):
        yield Change(
            "onnx-check-failed", "model", None, None, {"label": new.label, "error": new.complaint, "loads": True}
        )


def why_not(error: GitmodelError, card: Card | None) -> Iterator[Change]:
    """Why a model does not open, as exactly as can be told; ``card`` is OLD's where there is one."""
    if not isinstance(error, CannotOpen):
        kind = "unsafe-content" if isinstance(error, UnsafeModel) else "model-load-failed"
        yield Change(kind, "model", None, None, {"error": error.message})
        return
    found = [*_outside(error.opened), *_beyond(error.opened), *_unknown(error, card)]
    if not found:
        found = [Change("model-load-failed", "model", None, None, {"error": error.message})]
        if complaint := error.opened.complaint:
            found.append(
                Change(
                    "onnx-check-failed",
                    "model",
                    None,
                    None,
                    {"label": error.opened.label, "error": complaint, "loads": False},
                )
            )
    yield from found


def _outside(opened: Opened) -> Iterator[Change]:
    for kind, text in opened.outside:
        rule = "external-data-escapes" if kind == "escapes" else "external-data-missing"
        yield Change(rule, "model", None, None, {"error": f"{opened.label}: {text}"})
        return  # one is enough to act on: the others are most often of the same file


def _beyond(opened: Opened) -> Iterator[Change]:
    if opened.limits is not None:
        yield from _exceeded(opened, opened.limits, target=False)


def _unknown(error: CannotOpen, card: Card | None) -> Iterator[Change]:
    facts, allowed = error.opened.facts, card.domains if card else ()
    for domain in facts.foreign:
        if domain not in allowed:
            yield Change(
                "custom-domain-used",
                f"domains.{domain}",
                None,
                domain,
                {"label": error.opened.label, "domain": domain, "loads": False},
            )
    if _UNSUPPORTED.search(error.message) and not (set(facts.foreign) - set(allowed)):
        yield Change("op-unsupported", "model", None, None, {"error": error.message})


def _targets(new: Opened, card: Card) -> Iterator[Change]:
    for name in card.targets:
        known = target_limits().get(name)
        if known is None:
            first, last = next(iter(target_limits())), next(reversed(target_limits()))
            args = {"target": name, "first": first, "last": last}
            yield Change("target-unknown", f"targets.{name}", None, None, args)
        else:
            yield from _exceeded(new, known, target=True)


def _exceeded(opened: Opened, limits: RuntimeLimits, *, target: bool) -> Iterator[Change]:
    """Each number of the model's that is larger than the runtime's."""
    facts = opened.facts
    for rule, has, most in (
        ("ir-exceeds-runtime", facts.ir, limits.ir),
        ("opset-exceeds-runtime", facts.opsets.get(ONNX, 0), limits.opset),
        ("ml-opset-exceeds-runtime", facts.opsets.get(ML, 0), limits.ml),
    ):
        if has > most:
            at = f"targets.onnxruntime {limits.version}" if target else "model"
            args = {
                "label": opened.label,
                "has": has,
                "most": most,
                "runtime": f"ONNX Runtime {limits.version}",
                "target": target,
            }
            yield Change(rule, at, most if target else None, has, args)


def _raised(old: Facts, new: Facts) -> Iterator[Change]:
    for domain, version in sorted(new.opsets.items()):
        before = old.opsets.get(domain)
        if before is not None and before < version:
            args = {"domain": domain or "ai.onnx"}
            yield Change("opset-raised", f"opsets.{domain or 'ai.onnx'}", before, version, args)


@cache
def target_limits() -> dict[str, RuntimeLimits]:
    """The limits of ONNX Runtime releases by target name, oldest first (``targets.yaml``, which names its source)."""
    data = resources.files(__package__).joinpath(_TARGETS).read_bytes()
    found = yamlio.load_mapping(data, _TARGETS)["onnxruntime"]
    return {f"onnxruntime {release}": RuntimeLimits(release, *numbers) for release, numbers in found.items()}
