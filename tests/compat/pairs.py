"""OLD and NEW for every rule, made from code, so that nothing binary is committed; each rule runs on every pair.

``python -m tests.compat.pairs [RULE...]`` rewrites the reports under ``tests/pairs``: read the diff before committing it.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnx.parser

from tests import support

if TYPE_CHECKING:
    from gitmodel.compat.verdict import Report

SNAPSHOTS = Path(__file__).parents[1] / "pairs"
NAME = "fraud"

#: Makes both sides in the folder it is given and returns two references, as a user would write them there; without the
#: second every model is judged that changed since its release.
Builder = Callable[[Path], tuple[str, str]]
PAIRS: dict[str, Builder] = {}

_HEADER = f'<ir_version: {support.IR_VERSION}, opset_import: ["" : {support.OPSET}, "ai.onnx.ml" : 3], producer_name: "tests">'
_FRACTION = re.compile(r"(?<![\w.-])\d+(?:\.\d+(?:e[-+]\d+)?|e[-+]\d+)(?![\w.])")


#: Pairs that are two models and need no repository.
Sides = tuple[str | onnx.ModelProto, str | onnx.ModelProto]
MODELS: dict[str, Callable[[], Sides]] = {}


def pair(builder: Builder) -> Builder:
    """Enters a function into the table; ``input_removed`` is the pair of the rule ``input-removed``."""
    PAIRS[builder.__name__.replace("_", "-")] = builder
    return builder


def models(builder: Callable[[], Sides]) -> Callable[[], Sides]:
    """Enters a function that gives two models: they become two bare files."""
    rule = builder.__name__.replace("_", "-")
    MODELS[rule] = builder
    PAIRS[rule] = lambda folder: files(folder, *builder())
    return builder


def model(text: str | onnx.ModelProto) -> onnx.ModelProto:
    """A model in ONNX's own text syntax: ``(float[n,4] x) => (float[n,4] y) { y = Neg(x) }``; one that is built stays."""
    return onnx.parser.parse_model(f"{_HEADER} graph {text}") if isinstance(text, str) else text


def files(folder: Path, old: str | onnx.ModelProto, new: str | onnx.ModelProto) -> tuple[str, str]:
    """Both sides as bare files, for which no repository is needed."""
    for name, side in (("old.onnx", old), ("new.onnx", new)):
        (folder / name).write_bytes(model(side).SerializeToString(deterministic=True))
    return "old.onnx", "new.onnx"


def checkpoints(folder: Path, old: dict[str, np.ndarray], new: dict[str, np.ndarray]) -> tuple[str, str]:
    """Both sides as HDF5 files without a graph."""
    for name, tensors in (("old.h5", old), ("new.h5", new)):
        checkpoint(folder / name, tensors)
    return "old.h5", "new.h5"


def checkpoint(path: Path, tensors: dict[str, np.ndarray]) -> None:
    import h5py

    with h5py.File(path, "w") as file:
        for name, values in tensors.items():
            file.create_dataset(name, data=values)


def repository(folder: Path) -> None:
    """Makes the folder a model repository whose commits need no configuration of the user's."""
    from gitmodel.workflows import init

    support.git(folder, "init", "-q")
    support.git(folder, "config", "user.name", "Ada")
    support.git(folder, "config", "user.email", "ada@example.org")
    init.init(folder)
    support.git(folder, "commit", "-qm", "Set up")


def save(folder: Path, text: str | onnx.ModelProto, *, labels: Sequence[str] = (), golden: Path | None = None) -> None:
    """Saves and commits the model as ``fraud``."""
    from gitmodel.workflows import save as workflow

    path = folder / "given.onnx"
    path.write_bytes(model(text).SerializeToString(deterministic=True))
    named = folder / "given.txt"
    named.write_text("".join(f"{label}\n" for label in labels))
    workflow.save(NAME, [path], repo=folder, labels=named if labels else None, golden=golden, message="Save")


def release(folder: Path, step: str = "auto") -> str:
    from gitmodel.workflows import release as workflow

    return workflow.release(NAME, step, repo=folder).tag


def tag(folder: Path, name: str) -> str:
    """A release made with plain Git, past the gate."""
    support.git(folder, "tag", "-a", "-m", name, name)
    return name


def cases(folder: Path, rows: Sequence[Sequence[float]]) -> Path:
    path = folder / "cases.npz"
    np.savez(path, x=np.array(rows, dtype="float32"))
    return path


def report(rule: str, folder: Path) -> dict[str, Any]:
    """The whole JSON report on a pair, without what differs between machines."""
    from gitmodel.compat.reports import json as json_report
    from gitmodel.workflows import check

    with contextlib.chdir(folder):
        old, new = PAIRS[rule](folder)
        (found,) = [check.check_compat(old, new, repo=folder)] if new else check.check_changed(folder)
    return stable(json.loads(json_report.render([found])))


def judged(old: str, new: str, folder: Path) -> Report:
    """The report on two references."""
    from gitmodel.workflows import check

    return check.check_compat(old, new, repo=folder)


def stable(document: dict[str, Any]) -> dict[str, Any]:
    """Two digits of a fraction are enough, the count of rules grows with every rule, and the runtime has a version."""
    document["rules_run"] = "all"
    text = re.sub(r"ONNX Runtime \d[\w.]*", "ONNX Runtime X", json.dumps(document))
    out: dict[str, Any] = json.loads(text)
    for finding in out["findings"]:
        if finding["at"].startswith("budgets."):  # figures of this machine
            finding["message"] = re.sub(r"\d+(?:\.\d+)?(?:e[-+]\d+)?", "N", finding["message"])
        finding["message"] = _FRACTION.sub(lambda found: f"{float(found[0]):.2g}", finding["message"])
        finding["snippet"] = finding["snippet"] and re.sub(r"\d+\.\d{4,}", "N", finding["snippet"])
    out["outputs"] = [_rounded(output) for output in out["outputs"]]
    return out


def _rounded(value: Any) -> Any:
    """Statistics with two digits, and of the cases only the worst: the others may change places by their last digits."""
    if isinstance(value, dict):
        return {key: _rounded(held[:1] if key == "worst_cases" else held) for key, held in value.items()}
    if isinstance(value, list):
        return [_rounded(held) for held in value]
    return float(f"{value:.2g}") if isinstance(value, float) else value


def snapshot(rule: str) -> Path:
    return SNAPSHOTS / rule / "report.json"


def main(rules: Sequence[str]) -> None:
    """Rewrites the committed reports, of all rules by default."""
    os.environ |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1", "DVC_NO_ANALYTICS": "1"}
    for rule in rules or sorted(PAIRS):
        with tempfile.TemporaryDirectory() as folder:
            text = json.dumps(report(rule, Path(folder)), indent=2, ensure_ascii=False) + "\n"
        path = snapshot(rule)
        path.parent.mkdir(parents=True, exist_ok=True)
        if not path.exists() or path.read_text() != text:
            path.write_text(text)
            sys.stdout.write(f"{path}\n")
    for stale in SNAPSHOTS.iterdir():
        if stale.name not in PAIRS:
            shutil.rmtree(stale)


# Inputs ---------------------------------------------------------------------------------------------------------------

_NEGATE = "(float[batch,4] x) => (float[batch,4] y) { y = Neg(x) }"


@models
def input_added_required() -> Sides:
    return (
        _NEGATE,
        "(float[batch,4] x, float[batch,4] bias) => (float[batch,4] y) { n = Neg(x) y = Add(n, bias) }",
    )


@models
def input_added_with_default() -> Sides:
    return (
        _NEGATE,
        "(float[batch,4] x, float bias = {0.0}) => (float[batch,4] y) { n = Neg(x) y = Add(n, bias) }",
    )


@models
def input_removed() -> Sides:
    return ("(float[batch,4] x, float[batch,1] age) => (float[batch,4] y) { n = Neg(x) y = Add(n, age) }", _NEGATE)


@models
def input_renamed() -> Sides:
    return (_NEGATE, "(float[batch,4] features) => (float[batch,4] y) { y = Neg(features) }")


@models
def input_reordered() -> Sides:
    body = "=> (float[batch,4] y) { y = Sub(x, mean) }"
    return (f"(float[batch,4] x, float[batch,4] mean) {body}", f"(float[batch,4] mean, float[batch,4] x) {body}")


@models
def input_became_required() -> Sides:
    body = "=> (float[batch,4] y) { y = Mul(x, scale) }"
    return (f"(float[batch,4] x, float[1] scale = {{2.0}}) {body}", f"(float[batch,4] x, float[1] scale) {body}")


@models
def input_became_optional() -> Sides:
    body = "=> (float[batch,4] y) { y = Mul(x, scale) }"
    return (f"(float[batch,4] x, float[1] scale) {body}", f"(float[batch,4] x, float[1] scale = {{2.0}}) {body}")


@models
def input_default_changed() -> Sides:
    text = "(float[batch,4] x, float[1] scale = {%s}) => (float[batch,4] y) { y = Mul(x, scale) }"
    return text % "2.0", text % "2.25"


@models
def input_dtype_changed() -> Sides:
    return (
        "(float[batch,4] x) => (float[batch,4] y) { y = Neg(x) }",
        "(int32[batch,4] x) => (float[batch,4] y) { f = Cast<to = 1>(x) y = Neg(f) }",
    )


@models
def input_rank_changed() -> Sides:
    return (
        "(float[batch,4] x) => (float[batch] y) <int64[1] axes = {1}> { y = ReduceSum<keepdims = 0>(x, axes) }",
        "(float[batch,2,2] x) => (float[batch] y) <int64[2] axes = {1, 2}> { y = ReduceSum<keepdims = 0>(x, axes) }",
    )


@models
def input_rank_relaxed() -> Sides:
    new = model(_NEGATE)
    new.graph.input[0].type.tensor_type.ClearField("shape")
    return (_NEGATE, new)


@models
def input_dim_relaxed() -> Sides:
    body = "<int64[1] axes = {1}> { y = ReduceSum<keepdims = 0>(x, axes) }"
    return (f"(float[batch,4] x) => (float[batch] y) {body}", f"(float[batch,width] x) => (float[batch] y) {body}")


@models
def input_dim_fixed() -> Sides:
    return (_NEGATE, "(float[1,4] x) => (float[1,4] y) { y = Neg(x) }")


@models
def input_dim_changed() -> Sides:
    body = "<int64[1] axes = {1}> { y = ReduceSum<keepdims = 0>(x, axes) }"
    return (f"(float[batch,4] x) => (float[batch] y) {body}", f"(float[batch,5] x) => (float[batch] y) {body}")


_JOINED = "=> (float[total,4] y) { y = Concat<axis = 0>(left, right) }"


@models
def input_dims_unified() -> Sides:
    return (f"(float[n,4] left, float[m,4] right) {_JOINED}", f"(float[n,4] left, float[n,4] right) {_JOINED}")


@models
def input_dims_separated() -> Sides:
    return (f"(float[n,4] left, float[n,4] right) {_JOINED}", f"(float[n,4] left, float[m,4] right) {_JOINED}")


# Both sides -----------------------------------------------------------------------------------------------------------


@models
def value_kind_changed() -> Sides:
    return (_NEGATE, "(float[batch,4] x) => (seq(float[batch,4]) y) { n = Neg(x) y = SequenceConstruct(n) }")


@models
def string_tensor_changed() -> Sides:
    return (
        "(float[batch,4] x) => (int64[batch] label) { label = ArgMax<axis = 1, keepdims = 0>(x) }",
        """(float[batch,4] x) => (string[batch] label) {
            index = ArgMax<axis = 1, keepdims = 0>(x)
            label = ai.onnx.ml.LabelEncoder<keys_int64s = [0, 1, 2, 3], values_strings = ["a", "b", "c", "d"]>(index)
        }""",
    )


# Outputs --------------------------------------------------------------------------------------------------------------


@models
def output_added() -> Sides:
    return (_NEGATE, "(float[batch,4] x) => (float[batch,4] y, float[batch,4] size) { y = Neg(x) size = Abs(x) }")


@models
def output_removed() -> Sides:
    return ("(float[batch,4] x) => (float[batch,4] y, float[batch,4] size) { y = Neg(x) size = Abs(x) }", _NEGATE)


@models
def output_renamed() -> Sides:
    return (_NEGATE, "(float[batch,4] x) => (float[batch,4] scores) { scores = Neg(x) }")


@models
def output_reordered() -> Sides:
    body = "{ y = Neg(x) size = Abs(x) }"
    return (
        f"(float[batch,4] x) => (float[batch,4] y, float[batch,4] size) {body}",
        f"(float[batch,4] x) => (float[batch,4] size, float[batch,4] y) {body}",
    )


@models
def output_dtype_changed() -> Sides:
    return (
        _NEGATE,
        "(float[batch,4] x) => (int64[batch,4] y) { n = Neg(x) y = Cast<to = 7>(n) }",
    )


@models
def output_rank_changed() -> Sides:
    return (
        _NEGATE,
        "(float[batch,4] x) => (float[batch,1,4] y) <int64[1] axes = {1}> { n = Neg(x) y = Unsqueeze(n, axes) }",
    )


@models
def output_rank_fixed() -> Sides:
    old = model(_NEGATE)
    old.graph.output[0].type.tensor_type.ClearField("shape")
    return (old, _NEGATE)


@models
def output_dim_changed() -> Sides:
    return (
        _NEGATE,
        "(float[batch,4] x) => (float[batch,5] y) <int64[5] order = {0, 1, 2, 3, 0}> "
        "{ n = Neg(x) y = Gather<axis = 1>(n, order) }",
    )


@models
def output_dim_fixed() -> Sides:
    return ("(float[batch,4] x) => (float[batch,width] y) { y = Neg(x) }", _NEGATE)


@models
def output_dim_relaxed() -> Sides:
    return (_NEGATE, "(float[batch,4] x) => (float[batch,width] y) { y = Neg(x) }")


@pair
def output_dim_unlinked(folder: Path) -> tuple[str, str]:
    return files(folder, _NEGATE, "(float[batch,4] x) => (float[rows,4] y) { y = Neg(x) }")


# Labels ---------------------------------------------------------------------------------------------------------------


def _labelled(folder: Path, old: Sequence[str], new: Sequence[str]) -> tuple[str, str]:
    """A classifier with as many classes as it has labels; the classes beyond the fourth repeat the first."""
    repository(folder)
    tags: list[str] = []
    for labels in (old, new):
        order = ", ".join(str(i % 4) for i in range(len(labels)))
        text = (
            f"(float[batch,4] x) => (float[batch,{len(labels)}] scores) <int64[{len(labels)}] order = {{{order}}}> "
            "{ scores = Gather<axis = 1>(x, order) }"
        )
        save(folder, text, labels=labels)
        tags.append(tag(folder, f"{NAME}@v{len(tags) + 1}.0.0"))
    return tags[0], tags[1]


@pair
def label_appended(folder: Path) -> tuple[str, str]:
    return _labelled(folder, ["cat", "dog", "owl", "pig"], ["cat", "dog", "owl", "pig", "bat"])


@pair
def label_inserted(folder: Path) -> tuple[str, str]:
    return _labelled(folder, ["cat", "dog", "owl", "pig"], ["bat", "cat", "dog", "owl", "pig"])


@pair
def label_removed(folder: Path) -> tuple[str, str]:
    return _labelled(folder, ["cat", "dog", "owl", "pig"], ["cat", "dog", "pig"])


@pair
def label_renamed(folder: Path) -> tuple[str, str]:
    return _labelled(folder, ["cat", "dog", "owl", "pig"], ["cat", "hound", "owl", "pig"])


@pair
def label_reordered(folder: Path) -> tuple[str, str]:
    return _labelled(folder, ["cat", "dog", "owl", "pig"], ["cat", "owl", "dog", "pig"])


@pair
def labels_removed(folder: Path) -> tuple[str, str]:
    repository(folder)
    save(folder, _NEGATE, labels=["cat", "dog", "owl", "pig"])
    old = release(folder)
    (folder / "models" / NAME / "assets" / "labels.txt").unlink()
    return old, NAME


# Checkpoints ----------------------------------------------------------------------------------------------------------

_KERNEL = np.arange(6, dtype="float32").reshape(2, 3)


@pair
def tensor_removed(folder: Path) -> tuple[str, str]:
    return checkpoints(folder, {"dense/kernel": _KERNEL, "dense/bias": _KERNEL[0]}, {"dense/kernel": _KERNEL})


@pair
def tensor_added(folder: Path) -> tuple[str, str]:
    return checkpoints(folder, {"dense/kernel": _KERNEL}, {"dense/kernel": _KERNEL, "dense/bias": _KERNEL[0]})


@pair
def tensor_shape_changed(folder: Path) -> tuple[str, str]:
    return checkpoints(folder, {"dense/kernel": _KERNEL}, {"dense/kernel": _KERNEL.reshape(3, 2)})


@pair
def tensor_dtype_changed(folder: Path) -> tuple[str, str]:
    return checkpoints(folder, {"dense/kernel": _KERNEL}, {"dense/kernel": _KERNEL.astype("float64")})


@pair
def tensor_values_changed(folder: Path) -> tuple[str, str]:
    return checkpoints(
        folder, {"dense/kernel": _KERNEL, "dense/bias": _KERNEL[0]}, {"dense/kernel": _KERNEL, "dense/bias": _KERNEL[1]}
    )


_DENSE = "(float[batch,2] x) => (float[batch,3] y) <float[2,3] kernel = {0, 1, 2, 3, 4, 5}> { y = MatMul(x, kernel) }"


@pair
def graph_added(folder: Path) -> tuple[str, str]:
    checkpoint(folder / "old.h5", {"kernel": _KERNEL})
    return "old.h5", files(folder, _DENSE, _DENSE)[1]


@pair
def graph_removed(folder: Path) -> tuple[str, str]:
    checkpoint(folder / "new.h5", {"kernel": _KERNEL})
    return files(folder, _DENSE, _DENSE)[0], "new.h5"


# Behaviour ------------------------------------------------------------------------------------------------------------


def scaled(scale: str) -> str:
    """Multiplies by a constant: exact arithmetic, so that the reports are the same on every processor."""
    return f"(float[batch,4] x) => (float[batch,4] y) <float scale = {{{scale}}}> {{ y = Mul(x, scale) }}"


@models
def golden_identical() -> Sides:
    return (_NEGATE, scaled("-1.0"))


@models
def golden_numeric_noise() -> Sides:
    return (scaled("1.0"), scaled("1.0001220703125"))


@models
def golden_drift() -> Sides:
    return (scaled("1.0"), scaled("1.0625"))


@models
def golden_failed() -> Sides:
    return (scaled("1.0"), scaled("-1.0"))


@models
def nan_introduced() -> Sides:
    return ("(float[batch,4] x) => (float[batch,4] y) { y = Abs(x) }", _NEGATE.replace("Neg", "Sqrt"))


@models
def inf_introduced() -> Sides:
    divided = (
        "(float[batch,4] x) => (float[batch,4] y) <float one = {1.0}, float by = {%s}> "
        "{ n = Abs(x) m = Add(n, one) y = Div(m, by) }"
    )
    return (divided % "1.0", divided % "0.0")


@models
def new_error_on_accepted_input() -> Sides:
    return (
        _NEGATE,
        "(float[batch,4] x) => (float[batch,4] y) <int64[2] one_row = {1, 4}> { n = Neg(x) y = Reshape(n, one_row) }",
    )


@pair
def golden_self_failed(folder: Path) -> tuple[str, str]:
    repository(folder)
    save(folder, scaled("1.0"), golden=cases(folder, [[1, 2, 3, 4], [4, 3, 2, 1]]))
    old = release(folder)
    save(folder, scaled("-1.0"))
    return old, NAME


@pair
def goldens_changed(folder: Path) -> tuple[str, str]:
    repository(folder)
    save(folder, scaled("1.0"), golden=cases(folder, [[1, 2, 3, 4], [4, 3, 2, 1]]))
    old = release(folder)
    save(folder, scaled("1.0625"), golden=cases(folder, [[0, 0, 0, 1]]))
    return old, NAME


@pair
def golden_refused(folder: Path) -> tuple[str, str]:
    from gitmodel.formats import onnx as onnx_format

    repository(folder)
    save(folder, scaled("1.0"), golden=cases(folder, [[1, 2, 3, 4], [4, 3, 2, 1]]))
    narrow = np.zeros((1, 3), "float32")
    recorded = folder / "models" / NAME / "golden" / "cases" / "test_data_set_1" / "input_0.pb"
    recorded.write_bytes(onnx_format.encode_tensor("x", narrow))
    support.git(folder, "commit", "-qam", "Damage a case")
    old = tag(folder, f"{NAME}@v1.0.0")
    save(folder, scaled("1.0625"), golden=cases(folder, [[1, 2, 3, 4], [4, 3, 2, 1]]))
    return old, NAME


@pair
def goldens_missing(folder: Path) -> tuple[str, str]:
    repository(folder)
    save(folder, scaled("1.0"))
    old = release(folder)
    save(folder, scaled("1.0625"))
    return old, NAME


@pair
def gates_changed(folder: Path) -> tuple[str, str]:
    repository(folder)
    save(folder, scaled("1.0"), golden=cases(folder, [[1, 2, 3, 4], [4, 3, 2, 1]]))
    old = release(folder)
    save(folder, scaled("1.0625"), golden=cases(folder, [[1, 2, 3, 4], [4, 3, 2, 1]]))
    card = folder / "models" / NAME / "model.yaml"
    card.write_text(card.read_text() + "gates:\n  agreement: 0.5\n")
    return old, NAME


# The file and the repository ------------------------------------------------------------------------------------------


@models
def model_load_failed() -> Sides:
    return (
        _NEGATE,
        "(float[batch,4] x) => (float[batch,4] y) { text = Cast<to = 8>(x) n = Neg(text) y = Cast<to = 1>(n) }",
    )


@models
def weights_unchanged() -> Sides:
    return (_NEGATE, _NEGATE)


@pair
def signature_stale(folder: Path) -> tuple[str, str]:
    repository(folder)
    save(folder, scaled("1.0"))
    old = release(folder)
    save(folder, scaled("1.0625"))
    signature = folder / "models" / NAME / "signature.yaml"
    signature.write_text(signature.read_text().replace("dtype: float32", "dtype: float64", 1))
    return old, NAME


@pair
def model_removed(folder: Path) -> tuple[str, str]:
    repository(folder)
    save(folder, _NEGATE)
    old = release(folder)
    shutil.rmtree(folder / "models" / NAME)
    return old, ""


@pair
def bump_too_small(folder: Path) -> tuple[str, str]:
    repository(folder)
    save(folder, _NEGATE)
    old = release(folder)
    save(folder, "(float[batch,4] features) => (float[batch,4] y) { y = Neg(features) }")
    return old, tag(folder, f"{NAME}@v1.0.1")


# Run as a script this is another module than the one the others enter their pairs into, unless it is told.
sys.modules.setdefault("tests.compat.pairs", sys.modules[__name__])
from tests.compat import pairs_limits, pairs_meaning, pairs_noise, pairs_policy  # noqa: E402, F401  # enter their pairs

if __name__ == "__main__":
    # The modules above register with this module's own name, not with __main__.
    sys.modules["tests.compat.pairs"].main(sys.argv[1:])
