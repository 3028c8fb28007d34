"""Cases run through OLD and NEW side by side: in stacks where rows are independent, else one by one, with the same outcome."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gitmodel import runtime
from gitmodel.bundle.card import Gates
from gitmodel.bundle.golden import GoldenCase
from gitmodel.bundle.signature import Dim, Signature, TensorSpec
from gitmodel.compat import behaviour, generate, side_by_side
from gitmodel.compat.replay import Replay, replay
from gitmodel.compat.side_by_side import STACK, STACK_BYTES, Answer, Arrays, Recalling, Runs, one_by_one, stacked
from gitmodel.errors import GitmodelError
from tests.compat import pairs
from tests.compat.conftest import Open, signature

LINEAR = "(float[n,4] x) => (float[n,4] y) <float[4,4] w = {%s}> { y = MatMul(x, w) }"
NEGATED = "(float[n,4] x) => (float[n,4] y) { y = Neg(x) }"


class Counted:
    """A session that counts the rows of each call."""

    def __init__(self, session: Runs) -> None:
        self._session = session
        self.rows: list[int] = []

    def run(self, inputs: Arrays, outputs: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        self.rows.append(len(next(iter(inputs.values()))) if inputs else 0)
        return self._session.run(inputs, outputs)


def linear(seed: int) -> str:
    return LINEAR % ", ".join(map(str, np.random.default_rng(seed).integers(-4, 5, 16).astype(float)))


def cases(*rows: int, name: str = "x", width: int = 4) -> list[GoldenCase]:
    """A case for each number of rows, with small whole numbers, which any order of adding up gives exactly."""
    random = np.random.default_rng(5)
    drawn = (random.integers(-9, 10, (count, width)).astype("float32") for count in rows)
    return [GoldenCase(f"cases/{number}", {name: values}, {}) for number, values in enumerate(drawn)]


def same(inputs: Arrays) -> Arrays:
    return inputs


def text_of(answers: Iterable[Answer]) -> list[tuple[str, object, object]]:
    """Answers as values that can be compared."""

    def side(outputs: Arrays | GitmodelError) -> object:
        if isinstance(outputs, GitmodelError):
            return str(outputs)
        return {name: (str(v.dtype), v.shape, v.tolist()) for name, v in outputs.items()}

    return [(answer.case.name, side(answer.before), side(answer.after)) for answer in answers]


def run(
    open_model: Open, old: str, new: str, given: Sequence[GoldenCase], call: Callable[[Arrays], Arrays] = same
) -> tuple[list[int], list[int]]:
    """Rows of each call to OLD and NEW in stacks, held against the answers one by one."""
    before, after = Counted(open_model(old)), Counted(open_model(new))
    answers = text_of(stacked(before, after, given, call, signature(old)))
    assert answers == text_of(one_by_one(open_model(old), open_model(new), given, call))
    assert [name for name, _, _ in answers] == [case.name for case in given]
    return before.rows, after.rows


def test_cases_that_go_together_are_the_rows_of_one_call(open_model: Open) -> None:
    assert run(open_model, linear(1), linear(2), cases(1, 3, 2, 1)) == ([7], [7])


def test_a_stack_ends_after_so_many_cases(open_model: Open) -> None:
    rows, _ = run(open_model, linear(1), linear(2), cases(*[1] * (2 * STACK + 3)))
    assert rows == [STACK, STACK, 3]


def test_a_stack_ends_where_its_inputs_become_too_large(open_model: Open) -> None:
    text, full = NEGATED.replace("4]", "1024]"), STACK_BYTES // 4096
    given = cases(full - 1, 1, 1, 2 * full, 2, width=1024)
    rows, _ = run(open_model, text, text, given)
    assert rows == [full, 1, 2 * full, 2]


def test_a_case_alone_is_run_as_it_is(open_model: Open) -> None:
    assert run(open_model, linear(1), linear(2), cases(3)) == ([3], [3])
    assert run(open_model, linear(1), linear(2), []) == ([], [])


def test_only_neighbours_of_one_kind_go_together(open_model: Open) -> None:
    text = "(float[n,k] x) => (float[n,k] y) { y = Neg(x) }"
    given = [*cases(1, 2), *cases(1, 1, width=3), *cases(2, width=4)]
    assert run(open_model, text, text, given)[0] == [3, 2, 2]


def test_every_input_is_stacked(open_model: Open) -> None:
    text = "(float[n,4] a, float[n] b) => (float[n] y) <int64[1] last = {1}> { s = ReduceSum(a, last) t = Squeeze(s, last) y = Add(t, b) }"
    values = [np.arange(count, dtype="float32") for count in (2, 3)]
    given = [GoldenCase(f"cases/{len(b)}", {"a": np.outer(b, np.ones(4, "float32")), "b": b * 10}, {}) for b in values]
    assert run(open_model, text, text, given)[0] == [5]


def test_new_is_called_as_the_bridge_says(open_model: Open) -> None:
    old, new = (
        linear(1),
        linear(2)
        .replace("(float[n,4] x)", "(double[n,4] image)")
        .replace("{ y = MatMul(x, w) }", "{ x = Cast<to=1>(image) y = MatMul(x, w) }"),
    )

    def call(inputs: Arrays) -> Arrays:
        return {"image": inputs["x"].astype("float64")}

    assert run(open_model, old, new, cases(1, 2), call) == ([3], [3])


def test_both_sides_run_at_the_same_time(open_model: Open) -> None:
    together = threading.Barrier(2, timeout=30)

    class Waiting(Counted):
        def run(self, inputs: Arrays, outputs: Sequence[str] | None = None) -> dict[str, np.ndarray]:
            together.wait()
            return super().run(inputs, outputs)

    before, after = Waiting(open_model(linear(1))), Waiting(open_model(linear(2)))
    assert len(list(one_by_one(before, after, cases(1, 2, 3), same))) == 3
    assert before.rows == after.rows == [1, 2, 3]


# Where stacks will not do ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "(float[1,4] x) => (float[1,4] y) { y = Neg(x) }",
        "(float[n,4] x) => (float[m,4] y) { y = Neg(x) }",
        "(float[n,4] x) => (float[n,4] y, float[4] z) <int64[1] a = {0}> { y = Neg(x) z = ReduceSum<keepdims=0>(x, a) }",
        "(float[n,4] x) => (float[4] z) <int64[1] a = {0}> { z = ReduceSum<keepdims=0>(x, a) }",
        "(float[n,4] x) => (float z) { z = ReduceSum<keepdims=0>(x) }",
        "(float[n,4] x, float[4] b) => (float[n,4] y) { y = Add(x, b) }",
        "(float[n,4] x, float b) => (float[n,4] y) { y = Add(x, b) }",
        "(float[n,4] x) => (seq(float[n,4]) y) { y = SequenceConstruct(x) }",
    ],
    ids=["fixed", "other symbol", "one of two", "no rows", "scalar", "bias", "scalar input", "sequence"],
)
def test_rows_that_are_not_independent_by_the_signature_are_not_stacked(open_model: Open, text: str) -> None:
    given = cases(1, 1, 1)
    if " b)" in text:
        bias = np.float32(2) if "float b" in text else np.arange(4, dtype="float32")
        given = [GoldenCase(case.name, {**case.inputs, "b": np.asarray(bias)}, {}) for case in given]
    before, after = Counted(open_model(text)), Counted(open_model(text))
    answers = list(stacked(before, after, given, same, signature(text)))
    assert before.rows == after.rows == [1, 1, 1]
    assert not any(isinstance(side, GitmodelError) for answer in answers for side in (answer.before, answer.after))


@pytest.mark.parametrize("shape", [None, (), (None, 4), (3, 4)])
def test_a_first_dimension_that_says_nothing_is_not_stacked(open_model: Open, shape: tuple[Dim, ...] | None) -> None:
    specs = [TensorSpec(name, "float32", shape) for name in "xy"]
    before, after = Counted(open_model(NEGATED)), Counted(open_model(NEGATED))
    given = cases(3, 3)
    assert len(list(stacked(before, after, given, same, Signature((specs[0],), (specs[1],))))) == 2
    assert before.rows == [3, 3]


def test_a_row_that_is_refused_does_not_cost_the_others(open_model: Open) -> None:
    old = "(int64[n] i) => (float[n] y) <float[4] table = {0, 1, 2, 3}> { y = Gather(table, i) }"
    new = "(int64[n] i) => (float[n] y) <float[2] table = {0, 1}> { y = Gather(table, i) }"
    given = [GoldenCase(f"cases/{i}", {"i": np.array([i])}, {}) for i in range(6)]
    # Together they are refused, so each runs by itself.
    assert run(open_model, old, new, given) == ([6, *[1] * 6], [6, *[1] * 6])
    assert run(open_model, old, new, given[:2]) == ([2], [2])


def test_sides_that_disagree_about_rows_run_one_by_one(open_model: Open) -> None:
    doubled = "(float[n,4] x) => (float[m,4] y) { y = Concat<axis=0>(x, x) }"
    assert run(open_model, NEGATED, doubled, cases(1, 2)) == ([3, 1, 2], [3, 1, 2])
    scalar = "(float[n,4] x) => (float y) { y = ReduceSum<keepdims=0>(x) }"
    assert run(open_model, NEGATED, scalar, cases(1, 2)) == ([3, 1, 2], [3, 1, 2])
    listed = "(float[n,4] x) => (seq(float[n,4]) y) { y = SequenceConstruct(x) }"
    before, after = Counted(open_model(NEGATED)), Counted(open_model(listed))
    answers = list(stacked(before, after, cases(1, 2), same, signature(NEGATED)))
    assert before.rows == [3, 1, 2]
    assert [len(answer.after["y"]) for answer in answers if not isinstance(answer.after, GitmodelError)] == [1, 1]


def test_a_model_that_does_not_keep_to_its_signature_runs_one_by_one(open_model: Open) -> None:
    text = "(float[n,4] x) => (float[n,4] y) <int64[1] first = {0}> { y = ReduceSum<keepdims=1>(x, first) }"
    assert run(open_model, text, text, cases(2, 3)) == ([5, 2, 3], [5, 2, 3])


def test_new_with_a_fixed_number_of_rows_gets_what_it_takes(open_model: Open) -> None:
    new = "(float[2,4] x) => (float[2,4] y) { y = Neg(x) }"
    assert run(open_model, NEGATED, new, cases(2, 2, 3)) == ([7, 2, 2, 3], [7, 2, 2, 3])


def test_a_model_that_needs_no_inputs_runs_one_by_one(open_model: Open) -> None:
    text = "(float[n,4] x) => (float[n,4] y) <float[2,4] x = {1, 2, 3, 4, 5, 6, 7, 8}> { y = Neg(x) }"
    whole = signature(text)
    assert [spec.optional for spec in whole.inputs] == [True]
    given = [GoldenCase(f"cases/{number}", {}, {}) for number in range(3)]
    before, after = Counted(open_model(text)), Counted(open_model(text))
    answers = text_of(stacked(before, after, given, same, whole))
    assert len(answers) == 3
    assert len({str(sides) for _, *sides in answers}) == 1


@pytest.mark.parametrize(("kind", "size"), [("float", 0), ("float[1]", 1), ("float[m]", 1), ("float[m]", 4)])
def test_an_optional_input_belongs_to_its_own_case(open_model: Open, kind: str, size: int) -> None:
    """It has no rows; with as many cases as there are columns it would fit all the same."""
    text = f"""(float[n,4] x, {kind} k) => (float[n,4] y) <{kind.replace("m", "1")} k = {{1}}> {{ y = Mul(x, k) }}"""
    given = [
        GoldenCase(case.name, {**case.inputs, "k": np.full((size,) if size else (), number, "float32")}, {})
        for number, case in enumerate(cases(1, 1, 1, 1))
    ]
    run(open_model, text, text, given)


# The same verdict -----------------------------------------------------------------------------------------------------


def verdict(
    open_model: Callable[[str], Runs], old: str, new: str, given: Sequence[GoldenCase]
) -> tuple[Replay, Replay]:
    """One by one, and in stacks."""
    gates = Gates(agreement=0.8)
    sessions, whole = (open_model(old), open_model(new)), signature(old)
    return replay(*sessions, given, whole, gates), replay(*sessions, given, whole, gates, enough=len(given))


WHOLE_NUMBERS = st.integers(-8, 8).map(float)


@settings(max_examples=60)
@given(
    width=st.integers(1, 5),
    classes=st.integers(1, 4),
    edits=st.lists(st.tuples(st.integers(0, 19), WHOLE_NUMBERS), max_size=3),
    rows=st.lists(st.integers(1, 5), min_size=1, max_size=20),
    data=st.data(),
)
def test_stacks_say_what_single_cases_say(
    tmp_path_factory: pytest.TempPathFactory,
    width: int,
    classes: int,
    edits: list[tuple[int, float]],
    rows: list[int],
    data: st.DataObject,
) -> None:
    weights = data.draw(st.lists(WHOLE_NUMBERS, min_size=width * classes, max_size=width * classes))
    changed = list(weights)
    for at, value in edits:
        changed[at % len(changed)] = value
    old, new = (small(width, classes, values) for values in (weights, changed))
    folder = tmp_path_factory.mktemp("models")

    def open_(text: str) -> runtime.Session:
        path = folder / f"{'old' if text is old else 'new'}.onnx"
        path.write_bytes(pairs.model(text).SerializeToString())
        return runtime.open_session(path)

    single, together = verdict(open_, old, new, cases(*rows, width=width))
    assert together == single
    assert single.cases == len(rows)
    gates = Gates(agreement=0.8)
    assert list(behaviour.changes(together, gates)) == list(behaviour.changes(single, gates))


def small(width: int, classes: int, weights: Sequence[float]) -> str:
    """``y = x @ w`` and the class it decides for."""
    listed = ", ".join(map(str, weights))
    return f"""(float[n,{width}] x) => (float[n,{classes}] y, int64[n] best) <float[{width},{classes}] w = {{{listed}}}> {{
        y = MatMul(x, w)
        best = ArgMax<axis=1, keepdims=0>(y)
    }}"""


def test_what_is_refused_is_told_alike(open_model: Open) -> None:
    old = "(int64[n] i) => (float[n] y) <float[4] table = {0, 1, 2, 3}> { y = Gather(table, i) }"
    new = "(int64[n] i) => (float[n] y) <float[3] table = {0, 1, 3}> { y = Gather(table, i) }"
    given = [GoldenCase(f"cases/{i}", {"i": np.array([i])}, {}) for i in (0, 5, 1, 3, 2, 9)]
    single, together = verdict(open_model, old, new, given)
    assert together == single
    assert [name for name, _ in single.refused] == ["cases/5", "cases/9"]
    assert [name for name, _ in single.errors] == ["cases/3"]


def test_enough_answers_are_enough_in_stacks_too(open_model: Open) -> None:
    old = "(int64[n] i) => (float[n] y) <float[4] table = {0, 1, 2, 3}> { y = Gather(table, i) }"
    given = [GoldenCase(f"cases/{i}", {"i": np.array([i % 5])}, {}) for i in range(60)]
    session, whole = open_model(old), signature(old)
    shown = replay(session, session, given, whole, Gates(), enough=20)
    assert (shown.cases, len(shown.refused)) == (20, 4), "every fifth is refused"


def test_drawn_cases_of_a_real_signature_go_in_one_call(open_model: Open) -> None:
    text = linear(3)
    given: list[GoldenCase] = list(generate.cases(signature(text), count=generate.COUNT))
    before, after = Counted(open_model(text)), Counted(open_model(text))
    shown = replay(before, after, given, signature(text), Gates(), enough=generate.COUNT)
    assert (shown.cases, len(before.rows), len(after.rows)) == (generate.COUNT, 1, 1)
    recorded = Counted(open_model(text))
    replay(recorded, recorded, given, signature(text), Gates())
    assert len(recorded.rows) == 2 * generate.COUNT, "recorded cases run as they were recorded"


# The same inputs once -------------------------------------------------------------------------------------------------


def test_the_same_inputs_run_once_and_give_the_same(open_model: Open) -> None:
    counted = Counted(open_model(NEGATED))
    session = Recalling(counted)
    one, two = (case.inputs for case in cases(1, 2))
    first = session.run(one)
    assert session.run(dict(one)) is first
    assert counted.rows == [1]
    assert session.run({"x": one["x"] + 1})["y"][0, 0] != first["y"][0, 0]
    session.run(two)
    session.run(one, ["y"])
    assert counted.rows == [1, 1, 2, 1], "only whole answers are kept"


def test_many_answers_and_words_are_not_kept(open_model: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(side_by_side, "RECALLED", 20)
    counted = Counted(open_model(NEGATED))
    session = Recalling(counted)
    for case in (*cases(1, 2), *cases(1, 2)):
        session.run(case.inputs)
    assert counted.rows == [1, 2, 2], "16 bytes are kept, 32 more are not"
    words = Counted(open_model("(string[n] x) => (string[n] y) { y = Identity(x) }"))
    session = Recalling(words)
    for _ in range(2):
        session.run({"x": np.array(["a"], "O")})
    assert words.rows == [1, 1]
    listed = Counted(open_model("(float[n,4] x) => (seq(float[n,4]) y) { y = SequenceConstruct(x) }"))
    session = Recalling(listed)
    for case in (*cases(1), *cases(1)):
        session.run(case.inputs)
    assert listed.rows == [1, 1]


def test_what_is_refused_is_refused_again(open_model: Open) -> None:
    session = Recalling(open_model(NEGATED))
    for _ in range(2):
        with pytest.raises(runtime.RunFailed):
            session.run({"x": np.ones((1, 3), "float32")})


def test_without_memory_for_a_thread_it_is_memory_that_is_missing(
    open_model: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")  # what Python says of pthread_create's EAGAIN

    session = open_model(linear(1))
    case = GoldenCase("one", {"x": np.ones((1, 4), "float32")}, {})
    monkeypatch.setattr(threading.Thread, "start", start)
    with pytest.raises(MemoryError):
        list(one_by_one(session, session, [case], lambda inputs: inputs))


@pytest.mark.parametrize("text", [NEGATED, "(float[2,4] x) => (float[2,4] y) { y = Neg(x) }"])
def test_the_first_calls_are_those_that_are_made_first(text: str, open_model: Open) -> None:
    asked: list[Arrays] = []
    session = open_model(text)

    class Watched:
        def run(self, inputs: Arrays, outputs: Sequence[str] | None = None) -> dict[str, np.ndarray]:
            asked.append(inputs)
            return session.run(inputs, outputs)

    declared = signature(text)
    answers = stacked(Watched(), session, generate.cases(declared), same, declared)
    assert len([next(answers) for _ in range(STACK)]) == STACK
    first = side_by_side.first_calls(generate.cases(declared), declared)
    assert list(map(side_by_side.key_of, first)) == list(map(side_by_side.key_of, asked))
