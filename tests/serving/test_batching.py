"""gitmodel.serving.batching: calls that wait are answered together, each gets what is its own, and nobody waits for company."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import helper

from gitmodel import runtime
from gitmodel.bundle.signature import Signature
from gitmodel.formats import onnx as onnx_format
from gitmodel.runtime import RunFailed
from gitmodel.serving.batching import _MOST_LINES, Batcher
from gitmodel.serving.fetching import Fetcher
from gitmodel.serving.opening import Opener
from gitmodel.serving.policy import AspiredVersion
from gitmodel.serving.servable import Servable
from gitmodel.workflows import save, transfer
from tests import support
from tests.serving import production as place
from tests.serving.production import PATIENCE, Loader, Production, infer


def servable(batch_rows: int = 8) -> Servable:
    none: Any = None
    return Servable("m", "v1.0.0", 1, "c", "d", "onnx", Signature((), ()), none, 1.0, 0, 0, batch_rows=batch_rows)


class Model:
    """Doubles; a run takes until it is let go on, and is noted. A row of -1 is refused, together with all in its batch."""

    def __init__(self, *, held: bool = False) -> None:
        self.sizes: list[int] = []
        self.begun, self.go_on = threading.Semaphore(0), threading.Event()
        if not held:
            self.go_on.set()

    def run(self, inputs: Any, _: Sequence[str] | None) -> dict[str, np.ndarray]:
        self.begun.release()
        assert self.go_on.wait(PATIENCE)
        x = inputs["x"]
        self.sizes.append(len(x))
        if (x == -1).any():
            raise RunFailed("a row of -1")
        return {"y": x * 2}


def calls(batcher: Batcher, one: Servable, model: Model, values: Sequence[np.ndarray]) -> list[Callable[[], Any]]:
    """Calls in threads; each result is a function that gives the answer or raises."""
    pool = ThreadPoolExecutor(len(values))
    futures = [pool.submit(batcher.run, one, {"x": value}, None, model.run) for value in values]
    pool.shutdown(wait=False)
    return [lambda future=future: future.result(PATIENCE)["y"] for future in futures]  # type: ignore[misc]  # bound now


def waiting(batcher: Batcher, one: Servable, count: int) -> None:
    """Until so many calls wait."""
    place.until(lambda: sum(len(line.waiting) for line in batcher._lines.get(one, {}).values()) >= count)


def x(*values: float) -> np.ndarray:
    return np.array(values, "float32").reshape(-1, 1)


def test_who_finds_the_model_idle_runs_at_once_and_the_others_go_together() -> None:
    batcher, one, model = Batcher(), servable(8), Model(held=True)
    (first,) = calls(batcher, one, model, [x(1)])
    assert model.begun.acquire(timeout=PATIENCE)
    others = calls(batcher, one, model, [x(2), x(3, 4), x(5), x(6)])
    waiting(batcher, one, 4)
    model.go_on.set()
    assert np.array_equal(first(), x(2))
    answers = [other() for other in others]
    assert sorted(answer.tolist() for answer in answers) == [[[4.0]], [[6.0], [8.0]], [[10.0]], [[12.0]]]
    assert model.sizes == [1, 5]


def test_a_batch_has_no_more_rows_than_it_may() -> None:
    batcher, one, model = Batcher(), servable(4), Model(held=True)
    (first,) = calls(batcher, one, model, [x(0)])
    assert model.begun.acquire(timeout=PATIENCE)
    others = calls(batcher, one, model, [x(n, n, n) for n in range(5)])
    waiting(batcher, one, 5)
    model.go_on.set()
    for call in (first, *others):
        call()
    assert model.sizes == [1, 3, 3, 3, 3, 3]


@pytest.mark.parametrize("value", [x(*range(8)), x(*range(9)), np.empty((0, 1), "float32")])
def test_what_is_a_batch_by_itself_waits_for_nobody(value: np.ndarray) -> None:
    batcher, one, model = Batcher(wait=60), servable(8), Model()
    assert np.array_equal(batcher.run(one, {"x": value}, None, model.run)["y"], value * 2)
    assert not batcher._lines.get(one)


def test_one_that_is_refused_takes_nobody_with_it() -> None:
    batcher, one, model = Batcher(), servable(8), Model(held=True)
    (first,) = calls(batcher, one, model, [x(1)])
    assert model.begun.acquire(timeout=PATIENCE)
    others = calls(batcher, one, model, [x(2), x(-1), x(3)])
    waiting(batcher, one, 3)
    model.go_on.set()
    first()
    found: list[object] = []
    for other in others:
        try:
            found.append(other().tolist())
        except RunFailed as error:
            found.append(error.message)
    assert found == [[[4.0]], "a row of -1", [[6.0]]]


def test_calls_of_other_shapes_or_outputs_do_not_mix() -> None:
    batcher, one, model = Batcher(), servable(8), Model()
    for shape in ((2, 1), (2, 3)):
        batcher.run(one, {"x": np.ones(shape, "float32")}, None, model.run)
    batcher.run(one, {"x": np.ones((2, 1), "float64")}, None, model.run)
    batcher.run(one, {"x": np.ones((2, 1), "float32")}, ["y"], model.run)
    assert len(batcher._lines[one]) == 4
    for width in range(3 * _MOST_LINES):
        batcher.run(one, {"x": np.ones((2, width + 5), "float32")}, None, model.run)
    assert len(batcher._lines[one]) <= _MOST_LINES


def test_a_batch_may_stay_open_for_a_moment() -> None:
    batcher, one, model = Batcher(wait=60), servable(3), Model()
    start = time.monotonic()
    answers = calls(batcher, one, model, [x(1), x(2), x(3)])
    assert [answer().tolist() for answer in answers] == [[[2.0]], [[4.0]], [[6.0]]]
    assert model.sizes == [3]
    assert time.monotonic() - start < 30, "it is full"
    Batcher(wait=0.05).run(one, {"x": x(1)}, None, model.run)


def test_a_model_that_gives_other_rows_back_answers_each_by_itself() -> None:
    batcher, one, model = Batcher(), servable(8), Model(held=True)
    whole = model.run

    def summed(inputs: Any, outputs: Sequence[str] | None) -> dict[str, np.ndarray]:
        return {"y": whole(inputs, outputs)["y"].sum(keepdims=True)}

    model.run = summed  # type: ignore[method-assign,assignment]  # what it does here
    (first,) = calls(batcher, one, model, [x(1)])
    assert model.begun.acquire(timeout=PATIENCE)
    others = calls(batcher, one, model, [x(2, 3), x(4, 5)])
    waiting(batcher, one, 2)
    model.go_on.set()
    first()
    assert [other().tolist() for other in others] == [[[10.0]], [[18.0]]]


def test_many_callers_each_get_their_own() -> None:
    batcher, one, model = Batcher(), servable(16), Model()
    with ThreadPoolExecutor(32) as pool:
        answers = list(pool.map(lambda n: batcher.run(one, {"x": x(n)}, None, model.run)["y"], range(2000)))
    assert [answer.tolist() for answer in answers] == [[[2.0 * n]] for n in range(2000)]
    assert sum(model.sizes) == 2000
    assert not any(line.busy or line.waiting for line in batcher._lines[one].values())


def mean_of_the_batch() -> Any:
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], keepdims=1),
        helper.make_node("Sub", ["x", "mean"], ["y"]),
    ]
    return support.model(
        nodes, [support.value_info("x", "float32", ["n", 2])], [support.value_info("y", "float32", ["n", 2])]
    )


def fixed() -> Any:
    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    return support.model(
        nodes, [support.value_info("x", "float32", [4, 2])], [support.value_info("y", "float32", [4, 2])]
    )


@pytest.mark.parametrize(
    ("model", "batched"), [(support.linear_model, True), (mean_of_the_batch, False), (fixed, False)]
)
def test_only_a_model_whose_rows_stand_for_themselves_is_batched(
    tmp_path: Path, model: Callable[[], Any], batched: bool
) -> None:
    production = Production.make(tmp_path)
    production.save(model())
    production.push(production.tag("fraud@v1.0.0"))
    warned: list[str] = []
    loader = Loader(Fetcher(production.bare), Opener(batch_rows={"": 4, "other": 9}, warned=warned.append))
    wanted = AspiredVersion("fraud", "v1.0.0", support.git(production.author, "rev-parse", "HEAD"), 1)
    assert loader.load(wanted).batch_rows == (4 if batched else 0)
    assert warned == ([] if batched else ["fraud v1.0.0 is not batched: its rows do not stand for themselves"])


def test_a_named_signature_is_not_batched_by_what_was_tried_of_the_default_one(tmp_path: Path) -> None:
    production = Production.make(tmp_path)
    paths = [tmp_path / name for name in ("whole.onnx", "peak.onnx")]
    for path, model in zip(paths, (support.linear_model(), support.linear_model(output_name="half")), strict=True):
        path.write_bytes(model.SerializeToString())
    save.save("fraud", [paths[0]], repo=production.author, signatures={"half": paths[1]}, message="two")
    transfer.push(["fraud"], repo=production.author)
    production.push(production.tag("fraud@v1.0.0"))
    wanted = AspiredVersion("fraud", "v1.0.0", support.git(production.author, "rev-parse", "HEAD"), 1)
    loaded = Loader(Fetcher(production.bare), Opener(batch_rows={"": 4})).load(wanted)
    assert loaded.batch_rows == 4
    assert loaded.named["half"].batch_rows == 0


def test_a_server_batches_what_is_slow_and_answers_as_it_would_without(tmp_path: Path) -> None:
    """Wide enough to take a thread; the answers of many at once are those of one after the other, but for rounding."""
    production = Production.make(tmp_path)
    model = support.wide_model(tensors=2, size=1500)
    production.save(model)
    production.push(production.tag("fraud@v1.0.0"))
    proto = onnx_format.signature_of(model, "m")
    values = np.random.default_rng(0).normal(size=(24, 1500)).astype("float32")
    path = tmp_path / "m.onnx"
    path.write_bytes(model.SerializeToString())
    wanted = runtime.open_session(path).run({proto.inputs[0].name: values})[proto.outputs[0].name]
    with place.serving(production.bare, "--batch", "fraud=16") as server, ThreadPoolExecutor(12) as pool:
        bodies = [infer(values[i : i + 1]) for i in range(24)]
        answers = list(pool.map(lambda body: server.ask("POST", "/v2/models/fraud/infer", body), bodies))
    assert {answer.status for answer in answers} == {200}
    found = np.array([answer.json["outputs"][0]["data"] for answer in answers])
    np.testing.assert_allclose(found, wanted, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("text", ["x", "1", "fraud=", "fraud=0", "fraud=5000", "fraud=²"])
def test_what_is_no_number_of_rows_is_wrong_usage(tmp_path: Path, text: str) -> None:
    done = support.gitmodel("serve", "--batch", text, cwd=tmp_path)
    assert done.returncode == 2
    assert "--batch" in done.stderr
