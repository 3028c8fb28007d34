"""Rules as data: the files themselves, and one pair of models per rule whose whole report is kept."""

from __future__ import annotations

import json
import string
from pathlib import Path
from typing import Any

import pytest

from gitmodel.bundle.yamlio import InvalidYaml
from gitmodel.compat import rules
from gitmodel.compat.changes import Change
from gitmodel.compat.reports.wording import WHO
from gitmodel.compat.rules import PROFILES, Rule, Severity
from gitmodel.versions import Bump, InvalidVersion
from tests.compat import pairs

FOLDER = Path(rules.__file__).parent
RULES = [rules.load(name) for name in rules.names()]
#: Values for every field a message may name, of the types the facts really have.
_ARGS: dict[str, Any] = {
    "name": "scores", "axis": 1, "index": 3, "first": "inputs.a[0]", "second": "inputs.b[0]", "label": "fraud@v1.0.0",
    "error": "it does not fit", "worst": "cases/3", "max_abs": 0.25, "agreement": 0.5, "threshold": 0.9, "cases": 16,
    "failed": 2, "count": 3, "total": 4, "declared": Bump.PATCH, "required": Bump.MAJOR,
    "version": "fraud@v1.0.1", "base": "fraud@v1.0.0", "distance": 0.3, "limit": 0.1,
    "what": "agreement 0.9 to 0.5", "where": "inputs.x", "fingerprint": "57c7ae2c19995296",
    "input": "h_in", "file": "model.yaml", "unlike": "features",
    "floor": 0.001, "setting": "batch 1", "side": "OLD", "promised": "float32[7]", "got": [4], "slice": "country=DE",
    "share": 0.5, "has": 12, "most": 9, "runtime": "ONNX Runtime 1.16", "target": "onnxruntime 1.3",
    "last": "onnxruntime 1.31", "domain": "com.example", "ratio": 10.5, "low": 9.5,
    "high": 11.5, "budget": 1.2, "before": "1 ms", "after": "10.5 ms",
}  # fmt: skip


def ids(rule: Rule) -> str:
    return rule.id


def test_every_rule_has_a_pair_and_every_pair_a_rule() -> None:
    assert sorted(pairs.PAIRS) == list(rules.names())
    assert sorted(path.name for path in pairs.SNAPSHOTS.iterdir()) == list(rules.names())


@pytest.mark.parametrize("rule", sorted(pairs.PAIRS))
def test_the_pair_of_a_rule_gives_the_report_that_is_kept(rule: str, tmp_path: Path) -> None:
    report = pairs.report(rule, tmp_path)
    assert rule in [finding["rule"] for finding in report["findings"]]
    assert report == json.loads(pairs.snapshot(rule).read_text()), "run: python -m tests.compat.pairs; read the diff"


@pytest.mark.parametrize("rule", RULES, ids=ids)
def test_the_file_is_named_like_its_rule(rule: Rule) -> None:
    assert (FOLDER / f"{rule.id}.yaml").is_file()


def test_there_is_nothing_but_rules_beside_the_reader() -> None:
    assert sorted(p.name for p in FOLDER.iterdir() if p.suffix != ".pyc" and p.name != "__pycache__") == sorted(
        ["__init__.py", *(f"{name}.yaml" for name in rules.names())]
    )


@pytest.mark.parametrize("rule", RULES, ids=ids)
def test_a_rule_says_who_breaks_why_and_what_mends_it(rule: Rule) -> None:
    assert set(rule.who.split()) <= set(WHO)
    assert rule.who
    assert rule.message[0] != " "
    for text in (rule.why, rule.fix):
        assert text.endswith((".", "npz")), text
        assert "  " not in text
    assert set(rule.bump) == set(PROFILES)


@pytest.mark.parametrize("rule", RULES, ids=ids)
def test_a_rule_names_its_mirror_or_says_why_it_has_none(rule: Rule) -> None:
    if rule.mirror.startswith("none: "):
        assert len(rule.mirror) > len("none: ") + 10
    else:
        assert rule.mirror in rules.names()


@pytest.mark.parametrize("rule", [r for r in RULES if r.id.startswith("input-")], ids=ids)
def test_an_input_rule_has_a_mirror_on_the_output_side_or_a_reason(rule: Rule) -> None:
    assert rule.mirror.startswith(("output-", "none: "))


@pytest.mark.parametrize("rule", [r for r in RULES if r.id.startswith("output-")], ids=ids)
def test_an_output_rule_has_a_mirror_on_the_input_side_or_a_reason(rule: Rule) -> None:
    assert rule.mirror.startswith(("input-", "none: "))


@pytest.mark.parametrize("rule", RULES, ids=ids)
def test_every_variant_of_a_message_can_be_written(rule: Rule) -> None:
    for when in ({}, *(variant["when"] for variant in rule.variants)):
        finding = rule.apply(Change(rule.id, "inputs.x", "OLD", "NEW", {**_ARGS, **when}))
        for text in (finding.message, finding.fix, finding.why):
            assert text
            assert "{" not in text, f"{text} is a template still"
            assert "None" not in text


@pytest.mark.parametrize("rule", RULES, ids=ids)
def test_templates_name_only_what_facts_have(rule: Rule) -> None:
    for template in (rule.message, rule.fix, *(str(v.get("message", "")) for v in rule.variants)):
        fields = {field for _, field, _, _ in string.Formatter().parse(template) if field is not None}
        assert fields <= {"old", "new", "at", *_ARGS}


@pytest.mark.parametrize("rule", RULES, ids=ids)
def test_what_owes_a_major_bump_by_name_is_an_error_and_what_no_bump_pays_for_too(rule: Rule) -> None:
    if rule.bump["named"] is Bump.MAJOR or not rule.curable:
        assert rule.severity is Severity.ERROR
    if rule.severity is Severity.INFO:
        assert rule.bump["named"] < Bump.MAJOR
        assert rule.curable


def test_a_variant_changes_what_it_names_and_keeps_the_rest() -> None:
    other = rules.judge(Change("output-added", "outputs.y", None, "y: float32[n]", {"name": "y", "appended": False}))
    appended = rules.judge(Change("output-added", "outputs.y", None, "y: float32[n]", {"name": "y", "appended": True}))
    assert other.bump == {"positional": Bump.MAJOR, "named": Bump.MINOR, "json": Bump.MINOR}
    assert appended.bump == dict.fromkeys(PROFILES, Bump.MINOR)
    assert (appended.message, appended.severity, appended.why) == (other.message, other.severity, other.why)


@pytest.mark.parametrize("side", ["input", "output"])
def test_a_wider_type_spares_clients_whose_server_casts(side: str) -> None:
    args = {"name": "x", "direction": "widened"}
    found = rules.judge(Change(f"{side}-dtype-changed", f"{side}s.x", "float32", "float64", args))
    assert found.bump == {"positional": Bump.MAJOR, "named": Bump.MAJOR, "json": Bump.MINOR}
    assert "wider" in found.message
    narrowed = rules.judge(
        Change(f"{side}-dtype-changed", f"{side}s.x", "float64", "float32", {**args, "direction": "narrowed"})
    )
    assert narrowed.bump == dict.fromkeys(PROFILES, Bump.MAJOR)


def test_a_finding_carries_the_fact_and_its_witness() -> None:
    args = {"name": "x", "witness": "case 3: Invalid input name: x"}
    found = rules.judge(Change("input-removed", "inputs.x", "x: float32[n]", None, args))
    assert (found.rule, found.at, found.old, found.new) == ("input-removed", "inputs.x", "x: float32[n]", None)
    assert found.witness == "case 3: Invalid input name: x"
    assert found.args == args


_RULE = """\
id: made-up
who: C
severity: error
bump: major
message: "it broke"
why: "Because."
fix: "Mend it."
"""


def test_a_rule_file_is_read_strictly() -> None:
    assert Rule.from_yaml(_RULE.encode(), "made-up.yaml").bump == dict.fromkeys(PROFILES, Bump.MAJOR)
    with pytest.raises(InvalidYaml, match="unknown key 'sevreity'"):
        Rule.from_yaml(f"{_RULE}sevreity: info\n".encode(), "made-up.yaml")
    with pytest.raises(ValueError, match="fatal"):
        Rule.from_yaml(_RULE.replace("error", "fatal").encode(), "made-up.yaml")
    with pytest.raises(InvalidVersion, match="huge"):
        Rule.from_yaml(_RULE.replace("bump: major", "bump: huge").encode(), "made-up.yaml")
    with pytest.raises(KeyError):
        Rule.from_yaml(_RULE.replace("bump: major", "bump: {named: major}").encode(), "made-up.yaml")


def test_a_fact_without_a_rule_is_a_mistake_of_ours() -> None:
    with pytest.raises(FileNotFoundError):
        rules.judge(Change("no-such-rule", "inputs.x"))
