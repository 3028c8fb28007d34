"""What NEW asks of runtimes: facts of real models, the installed runtime's limits, those of a card's targets."""

from __future__ import annotations

import itertools
from pathlib import Path

import onnx
import onnxruntime
import pytest

from gitmodel import runtime
from gitmodel.bundle.card import Card
from gitmodel.bundle.yamlio import InvalidYaml
from gitmodel.compat import limits
from gitmodel.compat.changes import Change
from gitmodel.compat.opening import CannotOpen, Opened
from gitmodel.formats import onnx as onnx_format
from gitmodel.formats import onnx_facts, onnx_walk
from gitmodel.formats.onnx_facts import Facts
from gitmodel.formats.source import InvalidModel, UnsafeModel
from gitmodel.runtime import RuntimeLimits
from tests import support
from tests.compat import bad_inputs, pairs
from tests.compat.conftest import signature

NEGATE = "(float[n] x) => (float[n] y) { y = Neg(x) }"


def opened(facts: Facts, **more: object) -> Opened:
    return Opened("new.onnx", signature("(float[n] x) => (float[n] y)"), facts, **more)  # type: ignore[arg-type]  # the test's own


def kinds(found: list[Change]) -> list[tuple[str, str]]:
    return [(change.kind, change.at) for change in found]


def of(text: str | onnx.ModelProto, **opsets: int) -> Facts:
    made = pairs.model(text)
    for domain, version in opsets.items():
        made.opset_import.add(domain=domain.replace("_", "."), version=version)
    return onnx_facts.facts_of(made)


# Facts ----------------------------------------------------------------------------------------------------------------


def test_an_import_counts_when_a_node_uses_it() -> None:
    assert of(NEGATE, com_example=3) == Facts(support.IR_VERSION, {"": support.OPSET})
    found = of("(float[n,4] x) => (float[n,4] y) { y = ai.onnx.ml.Binarizer<threshold = 0.5>(x) }")
    assert found.opsets == {"ai.onnx.ml": 3}
    assert found.foreign == ()


def test_a_domain_is_found_wherever_the_node_stands() -> None:
    nested = """(float[n] x, bool c) => (float[n] y) {
        y = If (c) <then_branch = a () => (float[n] t) { t = com.example.Odd(x) }, else_branch = b () => (float[n] e) { e = Neg(x) }>
    }"""
    assert of(nested, com_example=2).foreign == ("com.example",)
    text = (
        f'<ir_version: {support.IR_VERSION}, opset_import: ["" : {support.OPSET}, "own" : 1]> '
        "agraph (float[n] x) => (float[n] y) { y = own.Twice(x) } "
        f'<domain: "own", opset_import: ["" : {support.OPSET}, "com.example" : 1]> Twice (a) => (b) {{ b = com.example.Odd(a) }}'
    )
    assert onnx_facts.facts_of(onnx.parser.parse_model(text)).foreign == ("com.example",), "its own functions are none"


def test_facts_go_there_and_back() -> None:
    facts = Facts(10, {"": 21, "ai.onnx.ml": 3}, ("com.example",))
    assert Facts.from_dict(facts.to_dict()) == facts


def test_the_checker_is_heard_without_the_large_data() -> None:
    good = support.wide_model()
    skeleton = onnx_format.parse(good.SerializeToString(), "good")
    for _, tensor in onnx_walk.tensors(skeleton):
        onnx_format.detach(tensor)
        tensor.external_data.add(key="location", value="elsewhere")
    assert onnx_facts.complaint(skeleton) == ""
    assert [t.data_location for _, t in onnx_walk.tensors(skeleton)] == [1, 1], "the model stays as it was"
    bad = pairs.model(NEGATE)
    bad.graph.node[0].op_type = "Nope"
    assert onnx_facts.complaint(bad).startswith("No Op registered for Nope")
    assert "\n" not in onnx_facts.complaint(bad)


def test_the_size_is_that_of_all_its_files(tmp_path: Path) -> None:
    model = bad_inputs.good_onnx()
    path = tmp_path / "model.onnx"
    onnx.save(model, path, save_as_external_data=True, location="w.bin", size_threshold=0)
    found = onnx_format.parse(path.read_bytes(), "model")
    assert onnx_facts.size(found, path) == path.stat().st_size + 64
    assert list(onnx_facts.outside(found, tmp_path)) == []


# The installed runtime ------------------------------------------------------------------------------------------------


def test_the_probe_finds_where_the_installed_runtime_ends() -> None:
    found = runtime.probed()
    assert found.version == onnxruntime.__version__
    for one_more, words in (
        (runtime._one_node("Not", "", found.ir + 1, 7), "IR version"),
        (runtime._one_node("Not", "", 4, found.opset + 1), f"till opset {found.opset}"),
        (runtime._one_node("Binarizer", "ai.onnx.ml", 4, 7, found.ml + 1), f"till opset {found.ml}"),
    ):
        with pytest.raises(Exception, match=words):
            onnxruntime.InferenceSession(one_more)
    assert RuntimeLimits.from_dict(found.to_dict()) == found


def test_the_probe_is_what_a_file_of_targets_says_of_that_release() -> None:
    found = runtime.probed()
    release = ".".join(found.version.split(".")[:2])
    known = limits.target_limits().get(f"onnxruntime {release}")
    assert known is None or (known.ir, known.opset, known.ml) == (found.ir, found.opset, found.ml)


@pytest.mark.parametrize("limit", [1, 2, 3, 4, 7, 8, 100])
def test_the_newest_that_loads_is_found(limit: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "_loads", lambda model: int(model) <= limit)
    assert runtime._newest(lambda number: str(number).encode(), 1) == limit


# Targets --------------------------------------------------------------------------------------------------------------


def test_known_releases_never_lose_what_an_older_one_loads() -> None:
    found = list(limits.target_limits().values())
    assert len(found) >= 10
    for older, newer in itertools.pairwise(found):
        assert older.ir <= newer.ir
        assert older.opset <= newer.opset
        assert older.ml <= newer.ml


def test_a_target_is_asked_of_new_alone() -> None:
    card = Card("fraud", targets=("onnxruntime 1.16", "onnxruntime 1.31"))
    new = opened(Facts(10, {"": 19, "ai.onnx.ml": 4}))
    found = list(limits.changes(opened(Facts(10, {"": 19})), new, card))
    assert kinds(found) == [
        ("ir-exceeds-runtime", "targets.onnxruntime 1.16"),
        ("ml-opset-exceeds-runtime", "targets.onnxruntime 1.16"),
    ]
    assert (found[0].old, found[0].new) == (9, 10)


def test_a_target_nobody_knows_is_said() -> None:
    found = list(limits.changes(None, opened(Facts(8, {"": 17})), Card("fraud", targets=("onnxruntime 0.1",))))
    assert kinds(found) == [("target-unknown", "targets.onnxruntime 0.1")]


# Changes --------------------------------------------------------------------------------------------------------------


def test_a_raised_opset_is_told_and_a_lowered_one_is_not() -> None:
    old, new = opened(Facts(8, {"": 17, "ai.onnx.ml": 3})), opened(Facts(8, {"": 18, "ai.onnx.ml": 2}))
    assert kinds(list(limits.changes(old, new, Card("fraud")))) == [("opset-raised", "opsets.ai.onnx")]
    assert list(limits.changes(None, new, Card("fraud"))) == []


def test_a_domain_is_told_once_and_not_where_the_card_allows_it() -> None:
    plain, odd = opened(Facts(8, {})), opened(Facts(8, {}, ("com.microsoft",)))
    assert kinds(list(limits.changes(plain, odd, Card("f")))) == [("custom-domain-used", "domains.com.microsoft")]
    assert list(limits.changes(odd, odd, Card("f"))) == []
    assert list(limits.changes(plain, odd, Card("f", domains=("com.microsoft",)))) == []
    assert kinds(list(limits.changes(None, odd, Card("f")))) == [("custom-domain-used", "domains.com.microsoft")]


def test_what_the_checker_has_against_both_is_no_change() -> None:
    bad, worse = opened(Facts(8, {}), complaint="a"), opened(Facts(8, {}), complaint="b")
    assert list(limits.changes(bad, bad, Card("f"))) == []
    assert kinds(list(limits.changes(bad, worse, Card("f")))) == [("onnx-check-failed", "model")]


# Why it does not load -------------------------------------------------------------------------------------------------


def why(facts: Facts, message: str = "it does not load", **more: object) -> list[str]:
    error = CannotOpen(message, "", opened(facts, **more))
    return [change.kind for change in limits.why_not(error, None)]


def test_the_reason_is_as_exact_as_can_be_told() -> None:
    edge = RuntimeLimits("1.31.1", 13, 26, 5)
    assert why(Facts(14, {"": 27, "ai.onnx.ml": 6}), limits=edge) == [
        "ir-exceeds-runtime", "opset-exceeds-runtime", "ml-opset-exceeds-runtime",
    ]  # fmt: skip
    assert why(Facts(8, {}, ("odd",)), "Fatal error: odd:A(-1) is not a registered function/op") == [
        "custom-domain-used"
    ]
    assert why(Facts(8, {}), "Could not find an implementation for Max(13)") == ["op-unsupported"]
    assert why(Facts(8, {}), outside=(("escapes", "a"), ("missing", "b"))) == ["external-data-escapes"]
    assert why(Facts(8, {}), outside=(("fit", "a"),)) == ["external-data-missing"]
    assert why(Facts(8, {})) == ["model-load-failed"]
    assert why(Facts(8, {}), complaint="bad") == ["model-load-failed", "onnx-check-failed"]


def test_a_file_that_cannot_be_read_is_one_or_the_other() -> None:
    assert [c.kind for c in limits.why_not(InvalidModel("no model"), None)] == ["model-load-failed"]
    assert [c.kind for c in limits.why_not(UnsafeModel("a bomb"), None)] == ["unsafe-content"]


# The card -------------------------------------------------------------------------------------------------------------


def test_the_card_keeps_what_it_asks() -> None:
    text = (
        "schema_version: 1\nname: fraud\ntargets: [onnxruntime 1.16, onnxruntime 1.20]\ndomains: [com.microsoft]\n"
        "budgets:\n  latency: 1.2\n  size: 2\n"
    )
    card = Card.from_yaml(text, "card")
    assert card.targets == ("onnxruntime 1.16", "onnxruntime 1.20")
    assert (card.budgets.latency, card.budgets.memory, card.budgets.size) == (1.2, None, 2.0)
    assert Card.from_yaml(card.to_yaml(), "card") == card
    assert "budgets" not in Card("fraud").to_yaml()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("targets: onnxruntime 1.16", "must be a list"),
        ("targets: [1.16]", "must be a list of names"),
        ("targets: [tensorrt 8]", "has 'tensorrt 8'"),
        ("targets: [onnxruntime 1.16, onnxruntime 1.16]", "names one twice"),
        ("domains: [no, no]", "names one twice"),
        ("budgets: 1.2", "must be a mapping"),
        ("budgets: {latency: fast}", "must be a finite number"),
        ("budgets: {latency: .nan}", "must be a finite number"),
        ("budgets: {latency: -1}", "latency is -1"),
        ("budgets: {speed: 1}", "unknown key 'speed'"),
    ],
)
def test_the_card_is_read_strictly(line: str, words: str) -> None:
    with pytest.raises(InvalidYaml, match=words):
        Card.from_yaml(f"schema_version: 1\nname: fraud\n{line}\n", "card")
