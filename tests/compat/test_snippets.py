"""Snippets: what a reader copies from a report shows exactly the break that the report tells of."""

from __future__ import annotations

import contextlib
import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest

from gitmodel import runtime
from gitmodel.bundle.golden import GoldenCase
from gitmodel.compat import snippets
from gitmodel.compat.changes import Change
from gitmodel.compat.rules import Finding
from gitmodel.compat.verdict import Report
from gitmodel.workflows import check
from tests import support
from tests.compat import pairs

SHOWN = [rule for rule in sorted(pairs.PAIRS) if '"snippet": "' in pairs.snapshot(rule).read_text()]
REFUSED = [
    rule
    for rule in SHOWN
    # What a model returns in another shape than it declares is no error of the runtime's.
    if rule != "output-shape-lies"
    and any(f["witness"] for f in json.loads(pairs.snapshot(rule).read_text())["findings"])
]


def judged(rule: str, folder: Path) -> Report:
    old, new = pairs.PAIRS[rule](folder)
    return pairs.judged(old, new, folder)


def run(found: Finding, folder: Path) -> str:
    """What the snippet prints, run as it stands in the report."""
    printed = io.StringIO()
    with contextlib.chdir(folder), contextlib.redirect_stdout(printed):
        exec(compile(found.snippet, found.rule, "exec"), {})
    return printed.getvalue()


@pytest.mark.parametrize("rule", REFUSED)
def test_a_snippet_raises_what_the_witness_says(rule: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    seen = [found for found in judged(rule, tmp_path).findings if found.witness]
    for found in seen:
        with pytest.raises(Exception, match=r"\w") as raised:
            run(found, tmp_path)
        assert found.witness.endswith(runtime.clean(str(raised.value)))


@pytest.mark.parametrize("rule", ["golden-drift", "golden-failed", "gates-changed", "nan-introduced", "inf-introduced"])
def test_a_snippet_prints_the_values_that_differ(rule: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    report = judged(rule, tmp_path)
    found = next(f for f in report.findings if f.at == "outputs.y")
    before, after, *size = (np.array(line.strip("[]").split(), "float32") for line in run(found, tmp_path).splitlines())
    (drift,) = report.drifts
    if np.isfinite(drift.max_abs):
        assert float(size[0][0]) == pytest.approx(drift.max_abs, rel=1e-5)
        assert np.max(np.abs(before - after)) == pytest.approx(drift.max_abs, rel=1e-5)
    else:
        assert np.all(np.isfinite(before))
        assert not np.all(np.isfinite(after))


def test_a_snippet_is_a_script_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    worst = judged("bump-too-small", tmp_path).findings[0]
    done = support.run(sys.executable, "-c", worst.snippet, cwd=tmp_path)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].endswith("Required inputs (['features']) are missing from input feed (['x']).")


def test_outputs_that_cannot_be_subtracted_are_only_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = "(float[batch,4] x) => (bool[batch,4] y) <float zero = {0.0}> { y = %s(x, zero) }"
    pairs.files(tmp_path, text % "Less", text % "Greater")
    report = check.check_compat("old.onnx", "new.onnx", repo=tmp_path)
    found = next(f for f in report.findings if f.at == "outputs.y")
    assert "True" in run(found, tmp_path)


WIDE = "(float[batch,64] x) => (float[batch,64] y) { y = Neg(x) }"


@pytest.mark.parametrize("recorded", [True, False], ids=["recorded", "generated"])
def test_large_inputs_are_taken_from_where_the_case_came_from(
    recorded: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    rows = np.random.default_rng(0).normal(size=(3, 64)).astype("float32")
    pairs.repository(tmp_path)
    pairs.save(tmp_path, WIDE, golden=pairs.cases(tmp_path, rows.tolist()) if recorded else None)
    old = pairs.release(tmp_path)
    # Less than what would make it another input, more than the gates let pass.
    grown = "<float much = {1.4}> { n = Neg(features) y = Mul(n, much) }"
    pairs.save(tmp_path, f"(float[batch,64] features) => (float[batch,64] y) {grown}")
    report = check.check_compat(old, pairs.NAME, repo=tmp_path)
    found = {f.rule: f for f in report.findings}
    assert "case = next(case for case in cases if" in found["golden-failed"].snippet
    assert "new_inputs = {'features': inputs['x']}" in found["golden-failed"].snippet
    assert run(found["golden-failed"], tmp_path)
    with pytest.raises(runtime.RunFailed, match="features"):
        run(found["input-renamed"], tmp_path)


def test_a_bridged_call_that_fails_is_made_over_the_bridge(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    one_row = "<int64[2] one_row = {1, 4}> { n = Neg(features) y = Reshape(n, one_row) }"
    pairs.files(
        tmp_path,
        "(float[batch,4] x) => (float[batch,4] y) { y = Neg(x) }",
        f"(float[batch,4] features) => (float[batch,4] y) {one_row}",
    )
    report = check.check_compat("old.onnx", "new.onnx", repo=tmp_path)
    found = {f.rule: f for f in report.findings}
    assert "inputs = {'features': np.ones((3, 4), 'float32')}" in found["new-error-on-accepted-input"].snippet
    with pytest.raises(Exception, match="reshape"):
        run(found["new-error-on-accepted-input"], tmp_path)


ARRAYS = {
    "zeros": np.zeros((2, 3), "int64"),
    "ones": np.ones((), "float32"),
    "empty": np.zeros((0, 4), "float32"),
    "minus zero": np.array([-0.0], "float32"),
    "fractions": np.array([[0.1, 1e-45], [3.4e38, -2.5]], "float32"),
    "flags": np.array([True, False]),
    "words": np.array([["it's", "\x1b[31m\n"]], object),
    "unsigned": np.array([2**64 - 1], "uint64"),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_what_is_written_out_is_the_very_array(name: str) -> None:
    values = ARRAYS[name]
    text = snippets._literal(values)
    assert text
    assert "\n" not in text
    assert "\x1b" not in text
    again = eval(text, {"np": np})
    assert (again.dtype, again.shape) == (values.dtype, values.shape)
    assert again.tolist() == values.tolist() if values.dtype == object else again.tobytes() == values.tobytes()


@pytest.mark.parametrize(
    "values", [np.full((2,), np.nan, "float32"), np.arange(40), [np.zeros(1)], np.array([b"x"], object)], ids=str
)
def test_what_cannot_be_written_out_is_not(values: object) -> None:
    assert snippets._literal(values) == ""


def test_nothing_is_drawn_where_no_case_shows_anything() -> None:
    def never() -> list[GoldenCase]:
        raise AssertionError

    changes = [Change("input-removed", "inputs.x"), Change("golden-numeric-noise", "outputs.y", args={"worst": "a/0"})]
    make: Callable[[], list[GoldenCase]] = never
    assert snippets.attach(changes, make, None) == changes  # type: ignore[arg-type]  # not looked at


def test_a_case_that_is_not_among_them_adds_nothing() -> None:
    changes = [Change("golden-failed", "outputs.y", args={"worst": "a/0"})]
    assert snippets.attach(changes, list, None) == changes  # type: ignore[arg-type]  # not looked at


def test_hostile_names_stay_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    hostile = "x'}); raise SystemExit('run') #\n\x1b[31m"
    old = pairs.model("(float[batch,4] x) => (float[batch,4] y) { y = Neg(x) }")
    old.graph.input[0].name = hostile
    old.graph.node[0].input[0] = hostile
    pairs.files(
        tmp_path,
        onnx.ModelProto.FromString(old.SerializeToString()),
        "(float[batch,5] z) => (float[batch,5] y) { y = Neg(z) }",
    )
    report = check.check_compat("old.onnx", "new.onnx", repo=tmp_path)
    found = next(f for f in report.findings if f.witness)
    assert "\x1b" not in found.snippet
    with pytest.raises(Exception, match="input"):
        run(found, tmp_path)
