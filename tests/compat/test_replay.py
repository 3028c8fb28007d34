"""OLD and NEW run side by side in ONNX Runtime, and a version held against its own recorded outputs."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
import numpy as np
import pytest

from gitmodel import runtime
from gitmodel.bundle.card import Gates
from gitmodel.bundle.golden import GoldenCase, Slice
from gitmodel.compat import behaviour, bridge, changes, generate, rules
from gitmodel.compat.changes import Change
from gitmodel.compat.replay import Replay, SelfCheck, check_self, replay
from tests.compat.conftest import Open, signature
from tests.compat.pairs import scaled

GATES = Gates()
ROWS = [[1.0, 2.0, 3.0, 4.0], [4.0, 3.0, 2.0, 1.0], [0.0, 9.0, 0.0, 0.0], [0.5, 0.25, 8.0, 1.0]]


def cases(rows: Sequence[Sequence[float]] = ROWS) -> list[GoldenCase]:
    return [GoldenCase(f"cases/{i}", {"x": np.array([row], "float32")}, {}) for i, row in enumerate(rows)]


def run(open_model: Open, old: str, new: str, *, given: Sequence[GoldenCase] = (), gates: Gates = GATES) -> Replay:
    """Both models on four rows, as ``check-compat`` runs them."""
    comparison = changes.compare(signature(old), signature(new))
    over = bridge.over(comparison)
    return replay(open_model(old), open_model(new), given or cases(), signature(old), gates, bridge=over)


def kinds(shown: Replay, gates: Gates = GATES) -> list[str]:
    return [change.kind for change in behaviour.changes(shown, gates)]


def test_bit_equal_outputs(open_model: Open) -> None:
    shown = run(open_model, "(float[n,4] x) => (float[n,4] y) { y = Neg(x) }", scaled("-1.0"))
    assert kinds(shown) == ["golden-identical"]
    assert (shown.cases, shown.errors, shown.refused) == (4, (), ())


def test_noise_within_tolerance(open_model: Open) -> None:
    shown = run(open_model, scaled("1.0"), scaled("1.0001220703125"))
    assert kinds(shown) == ["golden-numeric-noise"]
    (output,) = shown.outputs
    assert output.worst == "cases/2"
    assert output.max_abs == 9 * 2**-13


def test_drift_beyond_tolerance_with_the_same_decisions(open_model: Open) -> None:
    shown = run(open_model, scaled("1.0"), scaled("1.0625"))
    (change,) = behaviour.changes(shown, GATES)
    assert (change.kind, change.at) == ("golden-drift", "outputs.y")
    assert (change.args["agreement"], change.args["worst"], change.args["max_abs"]) == (1.0, "cases/2", 9 / 16)


def test_decisions_that_fail_the_gate(open_model: Open) -> None:
    new = "(float[n,4] x) => (float[n,4] y) <float[4] scale = {9.0, 1.0, 1.0, 1.0}> { y = Mul(x, scale) }"
    shown = run(open_model, scaled("1.0"), new)
    (change,) = behaviour.changes(shown, GATES)
    assert change.kind == "golden-failed"
    assert (change.args["agreement"], change.args["threshold"]) == (0.75, 0.9)
    assert kinds(shown, Gates(agreement=0.7, distance=10.0)) == ["golden-drift"]


def test_scores_far_off_fail_though_every_decision_stays(open_model: Open) -> None:
    shown = run(open_model, scaled("1.0"), scaled("1000.0"))
    (change,) = behaviour.changes(shown, GATES)
    assert (change.kind, change.args["far"], change.args["agreement"]) == ("golden-failed", True, 1.0)
    assert kinds(shown, Gates(distance=1000.0)) == ["golden-drift"]


def test_the_cards_tolerance_counts(open_model: Open) -> None:
    gates = Gates(tolerance={"y": (0.0, 1.0)})
    assert kinds(run(open_model, scaled("1.0"), scaled("1.0625"), gates=gates), gates) == ["golden-numeric-noise"]
    strict = Gates(tolerance={"y": (0.0, 0.0)})
    assert kinds(run(open_model, scaled("1.0"), scaled("1.0001220703125"), gates=strict), strict) == ["golden-drift"]


def test_nan_and_infinity_where_numbers_were(open_model: Open) -> None:
    log = "(float[n,4] x) => (float[n,4] y) { y = Log(x) }"
    root = "(float[n,4] x) => (float[n,4] y) <float one = {1.0}> { m = Sub(x, one) y = Sqrt(m) }"
    assert kinds(run(open_model, scaled("1.0"), log)) == ["inf-introduced"]
    assert kinds(run(open_model, scaled("1.0"), root)) == ["nan-introduced"]


def test_a_nan_that_was_there_before_is_no_news(open_model: Open) -> None:
    root = "(float[n,4] x) => (float[n,4] y) <float one = {%s}> { m = Sub(x, one) y = Sqrt(m) }"
    assert kinds(run(open_model, root % "1.0", root % "1.0")) == ["golden-identical"]
    other = "(float[n,4] x) => (float[n,4] y) <float one = {1.0}> { m = Sub(x, one) k = Sqrt(m) y = Abs(k) }"
    assert kinds(run(open_model, root % "1.0", other)) == ["golden-identical"]


def test_new_refuses_what_old_answers(open_model: Open) -> None:
    old = "(int64[n] i) => (float[n] y) <float[4] table = {0, 1, 2, 3}> { y = Gather(table, i) }"
    new = "(int64[n] i) => (float[n] y) <float[2] table = {0, 1}> { y = Gather(table, i) }"
    given = [GoldenCase(f"cases/{i}", {"i": np.array([i])}, {}) for i in range(6)]
    shown = run(open_model, old, new, given=given)
    assert [name for name, _ in shown.errors] == ["cases/2", "cases/3"]
    assert [name for name, _ in shown.refused] == ["cases/4", "cases/5"]
    assert shown.cases == 4
    refused, error = behaviour.changes(shown, GATES)
    assert (refused.kind, refused.args["count"]) == ("golden-refused", 2)
    assert error.kind == "new-error-on-accepted-input"
    with pytest.raises(runtime.RunFailed) as raised:
        open_model(new).run(given[2].inputs)
    assert error.args["witness"] == str(raised.value)
    assert "idx=2" in str(raised.value)


def test_enough_cases_are_enough_and_refused_ones_do_not_count(open_model: Open) -> None:
    text = "(int64[n] i) => (float[n] y) <float[4] table = {0, 1, 2, 3}> { y = Gather(table, i) }"
    given = [GoldenCase(f"cases/{i}", {"i": np.array([i])}, {}) for i in (9, 0, 8, 1, 2, 3)]
    session = open_model(text)
    shown = replay(session, session, iter(given), signature(text), GATES, enough=2)
    assert (shown.cases, len(shown.refused)) == (2, 2)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("(float[n,4] x) => (int64[n] y) { y = ArgMax<axis=1, keepdims=0>(x) }", "ArgMin", "golden-failed"),
        (
            "(float[n,4] x) => (bool[n,4] y) <float k = {1.0}> { y = Greater(x, k) }",
            "GreaterOrEqual",
            "golden-failed",
        ),
        ("(float[n,4] x) => (float16[n,4] y) { h = Cast<to=10>(x) y = Abs(h) }", "Neg", "golden-failed"),
        ("(float[n,4] x) => (double[n,4] y) { h = Cast<to=11>(x) y = Abs(h) }", "Neg", "golden-failed"),
    ],
    ids=["int64", "bool", "float16", "float64"],
)
def test_every_kind_of_output_is_compared(open_model: Open, old: str, new: str, expected: str) -> None:
    operator = next(word for word in ("ArgMax", "Greater", "Abs") if f"{word}(" in old or f"{word}<" in old)
    assert kinds(run(open_model, old, old)) == ["golden-identical"]
    assert kinds(run(open_model, old, old.replace(operator, new))) == [expected]


def test_words_are_compared(open_model: Open) -> None:
    text = """(float[n,4] x) => (string[n] y) {
        i = ArgMax<axis=1, keepdims=0>(x)
        y = ai.onnx.ml.LabelEncoder<keys_int64s=[0, 1, 2, 3], values_strings=["a", "b", "c", "d"]>(i)
    }"""
    assert kinds(run(open_model, text, text)) == ["golden-identical"]
    assert kinds(run(open_model, text, text.replace('"d"', '"e"'))) == ["golden-failed"]


_ZIPMAP = """(float[n,2] x) => (seq(map(string, float)) y) {
    y = ai.onnx.ml.ZipMap<classlabels_strings=["cat", "dog"]>(x)
}"""


def test_maps_under_other_keys_are_another_answer(open_model: Open) -> None:
    given = cases([[0.25, 0.75]])
    assert kinds(run(open_model, _ZIPMAP, _ZIPMAP, given=given)) == ["golden-identical"]
    assert kinds(run(open_model, _ZIPMAP, _ZIPMAP.replace("dog", "fox"), given=given)) == ["golden-failed"]


def test_one_renamed_key_among_many_is_another_answer(open_model: Open) -> None:
    names = ", ".join(f'"class {i}"' for i in range(50))
    text = f"""(float[n,50] x) => (seq(map(string, float)) y) {{
        y = ai.onnx.ml.ZipMap<classlabels_strings=[{names}]>(x)
    }}"""
    given = [GoldenCase("cases/0", {"x": np.eye(50, dtype="float32")}, {})]
    assert kinds(run(open_model, text, text, given=given)) == ["golden-identical"]
    assert kinds(run(open_model, text, text.replace("class 7", "class VII"), given=given)) == ["golden-failed"]


def test_sequences_of_tensors_of_several_shapes_are_compared(open_model: Open) -> None:
    text = """(float[1,4] x) => (seq(float[1,k]) y) <int64[2] split = {1, 3}> {
        m = Abs(x) y = SplitToSequence<axis=1>(m, split)
    }"""
    assert kinds(run(open_model, text, text)) == ["golden-identical"]
    assert kinds(run(open_model, text, text.replace("Abs", "Neg"))) == ["golden-failed"]
    assert kinds(run(open_model, text, text.replace("{1, 3}", "{2, 2}"))) == ["golden-failed"]


def test_a_shape_that_changed_without_a_word_is_a_failure(open_model: Open) -> None:
    old = "(float[n,4] x) => (float[k] y) <int64[1] flat = {-1}> { y = Reshape(x, flat) }"
    new = "(float[n,4] x) => (float[k] y) <int64[1] flat = {-1}> { m = Reshape(x, flat) y = Concat<axis=0>(m, m) }"
    (output,) = run(open_model, old, new).outputs
    assert (output.agreement, output.max_abs) == (0.0, float("inf"))


def test_renamed_tensors_are_fed_and_read_under_their_new_names(open_model: Open) -> None:
    shown = run(open_model, scaled("1.0"), scaled("1.0").replace(" x", " image").replace("(x", "(image"))
    assert kinds(shown) == ["golden-identical"]
    shown = run(open_model, scaled("1.0"), scaled("2.0").replace(" y", " scores"))
    assert shown.outputs[0].name == "y"
    assert kinds(shown) == ["golden-failed"]


def test_an_input_that_became_wider_is_cast_as_a_front_end_casts_it(open_model: Open) -> None:
    new = "(double[n,4] x) => (float[n,4] y) { f = Cast<to=1>(x) y = %s(f) }"
    assert kinds(run(open_model, scaled("-1.0"), new % "Neg")) == ["golden-identical"]
    assert kinds(run(open_model, scaled("-1.0"), new % "Abs")) == ["golden-failed"]


def test_removed_outputs_are_left_out_and_the_others_compared(open_model: Open) -> None:
    two = "(float[n,4] x) => (float[n,4] y, float[n,4] z) { y = Neg(x) z = Abs(x) }"
    assert [output.name for output in run(open_model, two, scaled("-1.0")).outputs] == ["y"]


def test_outputs_whose_meaning_changed_say_nothing_of_their_own(open_model: Open) -> None:
    shown = run(open_model, scaled("1.0"), scaled("-1.0"))
    assert list(behaviour.changes(shown, GATES, {"y"})) == []


def test_generated_cases_show_a_difference_too(open_model: Open) -> None:
    text = scaled("1.0")
    drawn = list(generate.cases(signature(text), count=16))
    assert kinds(run(open_model, text, text, given=drawn)) == ["golden-identical"]
    assert kinds(run(open_model, text, scaled("-1.0"), given=drawn)) == ["golden-failed"]


# Bridges --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "stopped"),
    [
        ("(float[n] x) => (float[n] y)", "(float[n] x, float[n] z) => (float[n] y)", True),
        ("(float[n] x) => (float[n] y)", "(int32[n] x) => (float[n] y)", True),
        ("(float[n] x) => (float[n] y)", "(double[n] x) => (float[n] y)", False),
        ("(float[n] x) => (float[n] y)", "(float[4] x) => (float[n] y)", True),
        ("(float[4] x) => (float[n] y)", "(float[n] x) => (float[n] y)", False),
        ("(float[n] x) => (float[n] y)", "(float[n] image) => (float[n] y)", False),
        ("(float[n] x) => (float[n] y)", "(float[n] x) => (string[n] y)", False),
        ("(float[n] x) => (float[n] y)", "(float[n] x) => (seq(float[n]) y)", False),
        ("(float[n] x) => (float[n] y)", "(seq(float[n]) x) => (float[n] y)", True),
        ("(string[n] x) => (float[n] y)", "(int64[n] x) => (float[n] y)", True),
        ("(float[n] x) => (float[n] y)", "(float[n] x) => (float[n,2] y)", False),
    ],
)
def test_only_what_changed_at_the_inputs_stops_the_replay(old: str, new: str, stopped: bool) -> None:
    assert bridge.stops(changes.compare(signature(old), signature(new)).changes) is stopped


@pytest.mark.parametrize(
    ("new", "left_out"),
    [
        ("(float[n] x) => (int32[n] y, float[n] z)", {"y"}),
        ("(float[n] x) => (double[n] y, float[n] z)", set()),
        ("(float[n] x) => (float[n,2] y, float[n] z)", {"y"}),
        ("(float[n] x) => (seq(float[n]) y, float[n] z)", {"y"}),
        ("(float[n] x) => (string[n] y, float[n] z)", {"y"}),
        ("(int32[n] x) => (float[n] y, float[n] z)", set()),
    ],
)
def test_which_outputs_cannot_be_held_side_by_side(new: str, left_out: set[str]) -> None:
    old = signature("(float[n] x) => (float[n] y, float[n] z)")
    assert bridge.incomparable(old, changes.compare(old, signature(new)).changes) == left_out


def test_other_labels_make_every_output_incomparable() -> None:
    old = signature("(float[n] x) => (float[n] y, float[n] z)")
    assert bridge.incomparable(old, [Change("label-renamed", "labels")]) == {"y", "z"}


@pytest.mark.parametrize(
    ("kind", "at", "seen"),
    [
        ("input-removed", "inputs.x", True),
        ("input-renamed", "inputs.x", True),
        ("output-removed", "outputs.y", True),
        ("output-renamed", "outputs.y", True),
        ("value-kind-changed", "inputs.x", True),
        ("value-kind-changed", "outputs.y", False),
        ("label-removed", "labels", False),
        ("tensor-removed", "tensors.w", False),
        ("output-dim-changed", "outputs.y[0]", False),
    ],
)
def test_which_breaks_the_runtime_itself_shows(kind: str, at: str, seen: bool) -> None:
    assert bridge.can_be_seen(Change(kind, at)) is seen


# A version against itself ---------------------------------------------------------------------------------------------


def recorded(value: float, name: str = "y", number: int = 0) -> GoldenCase:
    inputs = {"x": np.array([[1, 2, 3, 4]], "float32")}
    return GoldenCase(f"cases/{number}", inputs, {name: np.array([[1, 2, 3, 4]], "float32") * np.float32(value)})


def own(open_model: Open, given: Sequence[GoldenCase], gates: Gates = GATES, text: str = scaled("2.0")) -> SelfCheck:
    return check_self(open_model(text), given, signature(text), gates)


def test_a_version_keeps_what_it_recorded(open_model: Open) -> None:
    check = own(open_model, [recorded(2.0), recorded(2.0001, number=1)])
    assert (check.cases, check.passed, check.failures) == (2, 2, ())
    assert list(behaviour.self_check(check, "fraud")) == []


def test_a_version_that_does_not_keep_what_it_recorded(open_model: Open) -> None:
    check = own(open_model, [recorded(2.0), recorded(1.0, number=1)])
    assert (check.cases, check.passed) == (2, 1)
    assert check.failures == ("case cases/1: output 'y' differs by up to 4",)
    (change,) = behaviour.self_check(check, "fraud@v1.0.0")
    assert (change.kind, change.args["failed"], change.args["cases"]) == ("golden-self-failed", 1, 2)
    assert own(open_model, [recorded(1.0)], Gates(tolerance={"y": (1.0, 0.0)})).passed == 1


def test_no_cases_are_no_failure(open_model: Open) -> None:
    check = own(open_model, [])
    assert (check.cases, check.passed, list(behaviour.self_check(check, "fraud"))) == (0, 0, [])


def test_a_recorded_input_that_is_refused_fails_with_the_runtimes_words(open_model: Open) -> None:
    (failure,) = own(
        open_model, [GoldenCase("cases/0", {"z": np.zeros((1, 4), "float32")}, {"y": np.zeros((1, 4))})]
    ).failures
    assert failure.startswith("case cases/0: ")
    assert "['x']" in failure


@pytest.mark.parametrize(
    "outputs",
    [{}, {"other": np.zeros((1, 4), "float32")}, {"#1": np.zeros((1, 4), "float32")}],
    ids=["none", "unknown", "unnamed"],
)
def test_a_case_passes_only_by_an_output_that_was_compared(open_model: Open, outputs: dict[str, np.ndarray]) -> None:
    inputs = {"x": np.array([[1, 2, 3, 4]], "float32")}
    assert own(open_model, [GoldenCase("cases/0", inputs, outputs)]).passed == 0


@pytest.mark.parametrize(
    ("values", "words"),
    [
        (np.zeros((1, 3), "float32"), "in shape, type or NaN"),
        (np.zeros((1, 4), "int64"), "in shape, type or NaN"),
        (np.full((1, 4), np.nan, "float32"), "differs"),
    ],
    ids=["shape", "type", "nan"],
)
def test_what_was_recorded_must_fit(open_model: Open, values: np.ndarray, words: str) -> None:
    case = GoldenCase("cases/0", {"x": np.array([[1, 2, 3, 4]], "float32")}, {"y": values})
    (failure,) = own(open_model, [case]).failures
    assert words in failure


def test_outputs_that_were_not_recorded_are_not_asked(open_model: Open) -> None:
    text = "(float[n,4] x) => (float[n,4] y, float[n,4] z) <float k = {2.0}> { y = Mul(x, k) z = Neg(x) }"
    assert own(open_model, [recorded(2.0)], text=text).passed == 1


# Slices, thresholds of the owner's, edges -----------------------------------------------------------------------------

FLIPS_FIRST = "(float[n,4] x) => (float[n,4] y) <float[4] scale = {9.0, 1.0, 1.0, 1.0}> { y = Mul(x, scale) }"


def sliced(part: Slice) -> list[GoldenCase]:
    """Four cases, of which the first, which flips, stands for the slice together with the second, which stays."""
    return [msgspec.structs.replace(case, slice=part if i < 2 else None) for i, case in enumerate(cases())]


@pytest.mark.parametrize(
    ("part", "told"),
    [
        (Slice("country=DE", agreement=0.9), True),
        (Slice("country=DE", agreement=0.5), False),
        (Slice("country=DE", distance=0.01), True),
        (Slice("country=DE", agreement=0.5, distance=10.0), False),
        (Slice("country=DE"), False),
    ],
)
def test_a_slice_is_held_against_its_own_thresholds(open_model: Open, part: Slice, told: bool) -> None:
    loose = Gates(agreement=0.1, distance=10.0)
    shown = run(open_model, scaled("1.0"), FLIPS_FIRST, given=sliced(part), gates=loose)
    (found,) = shown.slices
    assert (found.slice, found.output.cases, found.output.agreement) == (part, 2, 0.5)
    assert kinds(shown, loose) == ["golden-drift", *(["slice-regressed"] if told else [])]
    for change in behaviour.changes(shown, loose):
        if change.kind == "slice-regressed":
            message = rules.judge(change).message
            assert "country=DE" in message
            assert ("decisions" in message) == (part.agreement is not None)


def test_a_slice_of_an_output_that_cannot_be_compared_says_nothing(open_model: Open) -> None:
    shown = run(open_model, scaled("1.0"), FLIPS_FIRST, given=sliced(Slice("de", agreement=1.0)))
    assert list(behaviour.changes(shown, GATES, {"y"})) == []


def test_the_agreement_the_card_asks_for_is_a_promise(open_model: Open) -> None:
    asked = Gates.from_dict({"agreement": 0.9}, "gates")
    assert asked == Gates(), "it is the same measure, asked for"
    shown = run(open_model, scaled("1.0"), FLIPS_FIRST, gates=asked)
    assert kinds(shown, asked) == ["agreement-below"]
    assert kinds(shown, GATES) == ["golden-failed"]
    met = Gates.from_dict({"agreement": 0.7, "distance": 0.1}, "gates")
    assert kinds(run(open_model, scaled("1.0"), FLIPS_FIRST, gates=met), met) == ["golden-failed"], "it is the distance"


def test_edges_are_compared_but_not_counted_and_old_may_refuse_them(open_model: Open) -> None:
    old = "(int64[n] i) => (float[n] y) <float[4] table = {0, 1, 2, 3}> { y = Gather(table, i) }"
    new = "(int64[n] i) => (float[n] y) <float[2] table = {0, 1}> { y = Gather(table, i) }"
    given, beyond = (
        [GoldenCase(f"{name}/{i}", {"i": np.array([i])}, {}) for i in numbers]
        for name, numbers in (("cases", (0, 1)), ("edges", (2, 9)))
    )
    shown = replay(open_model(old), open_model(new), given, signature(old), GATES, edges=beyond)
    assert (shown.cases, shown.refused, [name for name, _ in shown.errors]) == (2, (), ["edges/2"])
