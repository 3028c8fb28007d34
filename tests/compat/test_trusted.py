"""The author's own models in this process: what the machine has no memory for is no fault of a model."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from gitmodel import runtime
from gitmodel.bundle.bundle import Bundle
from gitmodel.bundle.folder import MemoryFolder
from gitmodel.compat.trusted import OwnModel, OwnModels
from gitmodel.compat.verdict import Verdict
from gitmodel.workflows import check
from tests import support

ROOT = Path(__file__).resolve().parents[2]
X = {"x": np.zeros((2, 4), "float32")}
#: More floats than a process has addresses for, however much memory a machine has or says it has.
TOO_MANY = 1 << 50


def hungry() -> onnx.ModelProto:
    """The linear model plus the sum of ``TOO_MANY`` floats, which it makes in each run."""
    made = support.linear_model()
    output = made.graph.output[0].name
    made.graph.node[-1].output[0] = "plain"
    made.graph.initializer.append(numpy_helper.from_array(np.array([TOO_MANY, 1], "int64"), "many"))
    made.graph.node.extend(
        [
            helper.make_node("ConstantOfShape", ["many"], ["constant"]),
            helper.make_node("ReduceSum", ["constant"], ["total"], keepdims=0),
            helper.make_node("Add", ["plain", "total"], [output]),
        ]
    )
    return made


def write(folder: Path, model: onnx.ModelProto, name: str) -> Path:
    path = folder / f"{name}.onnx"
    path.write_bytes(model.SerializeToString())
    return path


def opened(models: OwnModels, path: Path) -> OwnModel:
    return models.open(path, Bundle(path.stem, path.stem, MemoryFolder({}), file=path), prepack=False)


def test_a_model_without_memory_to_run_leaves_the_pair_unjudged(tmp_path: Path) -> None:
    old, new = write(tmp_path, support.linear_model(), "old"), write(tmp_path, hungry(), "new")
    report = check.check_compat(str(old), str(new), repo=tmp_path, models=OwnModels())
    assert report.verdict is Verdict.UNJUDGED
    assert "new.onnx needs more memory than there is" in report.unjudged
    assert report.unjudged.endswith("use smaller golden cases, or a machine with more memory")
    assert "new-error-on-accepted-input" not in {finding.rule for finding in report.findings}


def test_what_the_old_one_has_no_memory_for_is_no_news(tmp_path: Path) -> None:
    with OwnModels() as models:
        for name in ("old", "new"):
            model = opened(models, write(tmp_path, hungry(), name))
            with pytest.raises(runtime.RunFailed):
                model.run(X)
        assert models.failure == ""
    with OwnModels() as models:
        with pytest.raises(runtime.RunFailed):
            opened(models, tmp_path / "new.onnx").run(X)
        with pytest.raises(runtime.RunFailed, match="missing from input feed"):
            opened(models, write(tmp_path, support.linear_model(), "plain")).run({})
        assert models.failure == "", "a model that was refused its inputs had memory enough"


def test_each_signature_is_held_against_its_own(tmp_path: Path) -> None:
    old, new = write(tmp_path, support.linear_model(), "old"), write(tmp_path, support.linear_model(), "new")
    with OwnModels() as models:
        first, second, third, fourth = (opened(models, path) for path in (old, new, old, new))
        assert models.failure == ""
        second.starved = "the first one's"
        assert models.failure == "the first one's"
        first.starved, fourth.starved = "so had OLD", "the second one's"
        assert models.failure == "the second one's"
        third.starved = "so had OLD"
        assert models.failure == ""


#: Opens NEW with 16 MiB more than the process has by then, and says what came of the pair.
STARVING = """
import sys
from pathlib import Path
from gitmodel import runtime
from gitmodel.compat.trusted import OwnModels
from gitmodel.workflows import check
from tests import support

open_session = runtime.open_session

def starving(path, **options):
    if path.stem == "old":
        return open_session(path, **options)
    with support.memory(16 << 20):
        return open_session(path, **options)

runtime.open_session = starving
report = check.check_compat(sys.argv[1], sys.argv[2], repo=Path.cwd(), models=OwnModels())
print(report.verdict, *sorted({finding.rule for finding in report.findings}))
print(report.unjudged)
"""


def test_a_model_without_memory_to_load_leaves_the_pair_unjudged(tmp_path: Path) -> None:
    """In a process of its own: one that has freed much has room whatever the limit."""
    old = write(tmp_path, support.linear_model(), "old")
    new = write(tmp_path, support.wide_model(size=4000), "new")
    command = [sys.executable, "-c", STARVING, str(old), str(new)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    told, why = done.stdout.splitlines()
    assert told.split()[0] == "unjudged"
    assert "model-load-failed" not in told.split()
    assert why.endswith(": use a machine with more memory")
