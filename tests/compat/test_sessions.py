"""Sessions that wait for the judge: found by the very files they were opened from, and honest about what was asked before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Future

import numpy as np
import pytest

from gitmodel.compat.sessions import Answers, Prefetched, Sessions
from gitmodel.compat.side_by_side import key_of
from gitmodel.runtime import RunFailed

X = {"x": np.ones((2, 3), "float32")}
OTHER = {"x": np.zeros((2, 3), "float32")}


class Counting:
    """Numbers its answers."""

    def __init__(self) -> None:
        self.asked = 0

    def run(self, inputs: Mapping[str, np.ndarray], outputs: Sequence[str] | None = None) -> dict[str, np.ndarray]:
        self.asked += 1
        return {"y": np.array(self.asked)}


def known(answers: Answers) -> Future[Answers]:
    future: Future[Answers] = Future()
    future.set_result(answers)
    return future


def test_a_session_is_found_by_lock_and_view() -> None:
    sessions, session = Sessions(), Counting()
    sessions.expect(None)
    sessions.keep("abc", "model.onnx", session)
    assert sessions.find("abc", "model.onnx") is session
    assert sessions.find("abc", "model.embed.onnx") is None
    assert sessions.find("abd", "model.onnx") is None


def test_an_answer_is_given_once_so_that_who_asks_again_sees_a_new_one() -> None:
    model = Counting()
    session = Prefetched(model, known({key_of(X): {"y": np.array(-1)}}))
    assert session.run(OTHER) == {"y": 1}
    assert session.run(X) == {"y": -1}
    assert session.run(X) == {"y": 2}


def test_a_call_for_some_of_the_outputs_is_another_call() -> None:
    session = Prefetched(Counting(), known({key_of(X): {"y": np.array(-1)}}))
    assert session.run(X, ["y"]) == {"y": 1}
    assert session.run(X) == {"y": -1}


def test_other_bytes_shapes_types_or_names_are_other_calls() -> None:
    session = Prefetched(Counting(), known({key_of(X): {"y": np.array(-1)}}))
    for inputs in ({"x": X["x"].reshape(3, 2)}, {"x": X["x"].view("int32")}, {"z": X["x"]}, {**X, "z": X["x"]}):
        assert session.run(inputs)["y"] > 0


def test_a_refusal_is_given_once_too() -> None:
    session = Prefetched(Counting(), known({key_of(X): RunFailed("no room")}))
    with pytest.raises(RunFailed, match="no room"):
        session.run(X)
    assert session.run(X) == {"y": 1}


def test_words_have_no_key_and_run() -> None:
    words = {"x": np.array(["a"], dtype=object)}
    assert Prefetched(Counting(), known({key_of(X): {"y": np.array(-1)}})).run(words) == {"y": 1}


def test_what_went_wrong_while_it_was_asked_is_raised() -> None:
    broken: Future[Answers] = Future()
    broken.set_exception(ZeroDivisionError("a mistake of ours"))
    with pytest.raises(ZeroDivisionError):
        Prefetched(Counting(), broken).run(X)
