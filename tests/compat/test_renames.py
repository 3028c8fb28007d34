"""Renamings under replay: believed until the values say otherwise."""

from __future__ import annotations

from pathlib import Path

import pytest

from gitmodel.compat import rules
from gitmodel.compat.changes import Change
from gitmodel.compat.renames import settle
from gitmodel.compat.rules import Finding
from gitmodel.versions import Bump
from tests.compat import pairs
from tests.compat.conftest import signature

NEW = signature("(float[n,4] features) => (float[n,4] y, float[n,4] z)")
RENAMED = Change("input-renamed", "inputs.x", "x", "features", {"name": "x", "witness": "case 0: no"})


def failed(name: str, distance: float, agreement: float = 0.0) -> Change:
    return Change("golden-failed", f"outputs.{name}", args={"distance": distance, "agreement": agreement})


FAILED = [failed(name, 0.75) for name in "yz"]
REFUSED = Change("new-error-on-accepted-input", "behaviour")
DRIFT = Change("golden-drift", "outputs.z")


def kinds(found: list[Change]) -> list[str]:
    return [change.kind for change in found]


def test_an_input_is_believed_to_be_renamed_while_one_output_stays() -> None:
    assert settle([RENAMED], [], NEW, 2) == [RENAMED]
    assert settle([RENAMED], [FAILED[0], DRIFT], NEW, 2) == [RENAMED, FAILED[0], DRIFT]
    assert settle([RENAMED], [], NEW, 0) == [RENAMED]


def test_a_case_that_is_refused_beside_others_refutes_nothing() -> None:
    assert settle([RENAMED], [REFUSED, DRIFT], NEW, 2) == [RENAMED, REFUSED, DRIFT]


@pytest.mark.parametrize(("shown", "compared"), [(FAILED, 2), ([REFUSED], 0)])
def test_an_input_whose_values_lead_elsewhere_is_gone_and_the_other_new(shown: list[Change], compared: int) -> None:
    removed, added = settle([RENAMED], shown, NEW, compared)
    assert (removed.kind, removed.at, removed.new) == ("input-removed", "inputs.x", None)
    assert (added.kind, added.at, added.new) == ("input-added-required", "inputs.features", "features: float32[n, 4]")
    assert removed.args["witness"] == "case 0: no"
    assert "'features' looks like it" in rules.judge(removed).message


@pytest.mark.parametrize("shown", [failed("y", 0.4), failed("y", 0.0, 0.75), Change("nan-introduced", "outputs.y")])
def test_a_model_that_was_trained_again_or_broken_is_still_fed_with_the_renamed_input(shown: Change) -> None:
    assert settle([RENAMED], [shown], NEW, 1) == [RENAMED, shown]


def test_facts_about_cases_stay_when_those_about_outputs_fall() -> None:
    refused = Change("golden-refused", "golden")
    assert kinds(settle([RENAMED], [refused, *FAILED], NEW, 2)) == [
        "input-removed",
        "input-added-required",
        "golden-refused",
    ]


def test_an_output_is_judged_by_its_own_values() -> None:
    renamed = [Change("output-renamed", f"outputs.{old}", old, new, {"name": old}) for old, new in ("ay", "bz")]
    found = settle(renamed, [failed("b", 0.0), DRIFT], NEW, 2)
    assert [(change.kind, change.at) for change in found] == [
        ("output-renamed", "outputs.a"),
        ("output-removed", "outputs.b"),
        ("output-added", "outputs.z"),
        ("golden-drift", "outputs.z"),
    ]
    assert found[2].args["appended"] is True
    assert "'z' looks like it" in rules.judge(found[1]).message


def test_an_input_of_another_signature_is_none_of_these() -> None:
    elsewhere = Change("input-renamed", "signatures.embed.inputs.x", "x", "features", {"name": "x"})
    assert settle([elsewhere], FAILED, NEW, 2) == [elsewhere, *FAILED]


def test_a_renaming_to_what_the_model_lacks_is_left_to_who_says_that_it_is_stale() -> None:
    stale = Change("input-renamed", "inputs.x", "x", "nobody", {"name": "x"})
    assert settle([stale], FAILED, NEW, 2) == [stale, *FAILED]


# The whole way ----------------------------------------------------------------------------------------------------------

OLD = "(float[n,4] weight) => (float[n,4] y) { y = Exp(weight) }"


def judged(folder: Path, old: str, new: str) -> dict[str, Finding]:
    sides = (str(folder / side) for side in pairs.files(folder, old, new))
    return {finding.rule: finding for finding in pairs.judged(next(sides), next(sides), folder).findings}


def test_an_input_that_only_looks_like_the_old_one(tmp_path: Path) -> None:
    found = judged(tmp_path, OLD, "(float[n,4] height) => (float[n,4] y) { y = Neg(height) }")
    assert {"input-removed", "input-added-required"} <= found.keys()
    assert not {"input-renamed", "golden-failed"} & found.keys()
    assert "Required inputs (['height']) are missing" in found["input-removed"].witness


def test_an_input_that_is_the_old_one_under_another_name(tmp_path: Path) -> None:
    assert {"input-renamed", "golden-identical"} <= judged(tmp_path, OLD, OLD.replace("weight", "height")).keys()


def test_an_output_that_only_looks_like_the_old_one(tmp_path: Path) -> None:
    old = "(float[n,4] x) => (float[n,4] y, float[n,4] a) { y = Neg(x) a = Exp(x) }"
    found = judged(tmp_path, old, "(float[n,4] x) => (float[n,4] y, float[n,4] b) { y = Neg(x) b = Neg(x) }")
    assert {"output-removed", "output-added"} <= found.keys()
    assert not {"output-renamed", "golden-failed"} & found.keys()
    assert found["output-removed"].bump["positional"] is Bump.MAJOR
