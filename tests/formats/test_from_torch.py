"""PyTorch modules become ONNX that gives what they give, for other values and other numbers of rows as well."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gitmodel.errors import GitmodelError
from gitmodel.formats import memory
from gitmodel.formats.frameworks import ConversionDiffers, ConversionFailed, MissingConverter
from tests.formats import building
from tests.formats.converting import ROWS, ran, refused, signature

#: The libraries warn of their own future; an error for that is for their authors.
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def torch() -> Any:
    module = pytest.importorskip("torch", reason="PyTorch is not installed")
    module.manual_seed(0)
    return module


@pytest.fixture
def net(torch: Any) -> Any:
    """With parts that behave otherwise in training, one of which is in evaluation mode already."""
    nn = torch.nn
    built = nn.Sequential(
        nn.Linear(4, 200), nn.BatchNorm1d(200), nn.Dropout(0.5), nn.Linear(200, 100), nn.Linear(100, 3)
    )
    built(torch.randn(8, 4))  # the running means move
    built[2].eval()
    return built


def module(torch: Any, forward: Callable[..., Any]) -> Any:
    return type("Net", (torch.nn.Module,), {"forward": lambda self, *args, **kwargs: forward(*args, **kwargs)})()


@pytest.mark.parametrize("count", [1, 2, 5])
def test_rows_are_free_whatever_the_example_has(net: Any, tmp_path: Path, count: int) -> None:
    source, session = ran(net, tmp_path, ROWS[:count])
    assert signature(source) == (["input: float32[batch, 4]"], ["output: float32[batch, 3]"])
    assert source.framework.startswith("pytorch ")
    assert [len(case.inputs["input"]) for case in source.cases] == [count, 2 * count]
    assert session.run({"input": ROWS[:7]})["output"].shape == (7, 3)


def test_parameters_keep_their_names_and_values(net: Any, tmp_path: Path) -> None:
    """But for those into which the exporter folds a batch normalization."""
    source, _ = ran(net, tmp_path, ROWS)
    found = building.by_name(source)
    for name in ("3.weight", "4.weight", "4.bias"):
        assert np.array_equal(building.array(found[name]), net.state_dict()[name].numpy())


def test_every_part_is_in_the_mode_it_was_in(net: Any) -> None:
    before = [part.training for part in net.modules()]
    memory.of(net, example=ROWS)
    assert [part.training for part in net.modules()] == before
    assert set(before) == {True, False}
    refused(ConversionFailed, net, ROWS[:, :2])
    assert [part.training for part in net.modules()] == before


def test_gradients_and_parameters_stay(torch: Any, net: Any) -> None:
    before = {name: value.clone() for name, value in net.state_dict().items()}
    memory.of(net, example=ROWS)
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(parameter.requires_grad for parameter in net.parameters())
    assert net(torch.randn(3, 4)).requires_grad


def test_the_same_model_gives_the_same_bytes_and_no_path_of_its_author(net: Any) -> None:
    one, other = (memory.of(net, example=ROWS[:count]).graph.SerializeToString(deterministic=True) for count in (2, 3))
    assert one == other
    assert __file__.encode() not in one


def test_inputs_are_named_after_the_parameters_and_outputs_after_their_keys(torch: Any, tmp_path: Path) -> None:
    class Net(torch.nn.Module):  # type: ignore[misc]  # torch is untyped here
        def forward(self, x: Any, scale: Any = None, shift: Any = None) -> Any:
            return {"scaled": x * scale, "x": x, "both": (x + 1, [x + 2, None])}

    example = {"scale": torch.ones(3, 1), "x": ROWS[:3]}
    source, _ = ran(Net(), tmp_path, example)
    assert signature(source)[0] == ["x: float32[batch, 4]", "scale: float32[batch, 1]"]
    names = [text.partition(":")[0] for text in signature(source)[1]]
    assert names == ["scaled", "output_x", "both_0", "both_1_0"]


@pytest.mark.parametrize("shape", ["one", "tuple", "nested"])
def test_an_example_has_the_shape_of_a_call(torch: Any, tmp_path: Path, shape: str) -> None:
    a, b = torch.randn(3, 4), torch.randn(3, 4)
    net, example, inputs = {
        "one": (torch.nn.Identity(), a, ["input"]),
        "tuple": (module(torch, lambda x, y: x + y), (a, b), ["args_0", "args_1"]),
        "nested": (module(torch, lambda p, d: p[0] + d["k"]), ((a, b), {"k": b}), ["args_0_0", "args_0_1", "args_1_k"]),
    }[shape]  # fmt: skip
    source, _ = ran(net, tmp_path, example)
    assert [text.partition(":")[0] for text in signature(source)[0]] == inputs


def test_a_model_of_one_size_keeps_that_of_the_example(torch: Any, tmp_path: Path) -> None:
    class Net(torch.nn.Module):  # type: ignore[misc]  # torch is untyped here
        def __init__(self) -> None:
            super().__init__()
            self.table = torch.nn.Parameter(torch.randn(3, 4))

        def forward(self, x: Any) -> Any:
            return x + self.table

    source, _ = ran(Net(), tmp_path, ROWS[:3])
    assert signature(source) == (["x: float32[3, 4]"], ["output: float32[3, 4]"])
    assert len(source.cases) == 2, "the same size with other values"


def test_whole_numbers_and_recurrent_layers_are_taken(torch: Any, tmp_path: Path) -> None:
    class Net(torch.nn.Module):  # type: ignore[misc]  # torch is untyped here
        def __init__(self) -> None:
            super().__init__()
            self.words, self.layer = torch.nn.Embedding(10, 4), torch.nn.LSTM(4, 5, batch_first=True)

        def forward(self, ids: Any) -> Any:
            return self.layer(self.words(ids))[0]

    source, _ = ran(Net(), tmp_path, np.array([[1, 2, 3], [4, 5, 6]]))
    assert signature(source) == (["ids: int64[batch, 3]"], ["output: float32[batch, 3, 5]"])


def test_a_compiled_module_goes_the_older_way(torch: Any, tmp_path: Path) -> None:
    scripted = torch.jit.script(torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2)))
    source, _ = ran(scripted, tmp_path, ROWS[:3].reshape(3, 2, 2))
    assert signature(source) == (["input: float32[batch, 2, 2]"], ["output: float32[batch, 2]"])


@pytest.fixture
def no_onnxscript(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == "onnxscript"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "onnxscript", None)  # as Python marks what cannot be imported


@pytest.mark.usefixtures("no_onnxscript")
def test_without_onnxscript_the_older_exporter_is_taken(net: Any, tmp_path: Path) -> None:
    source, _ = ran(net, tmp_path, ROWS)
    assert signature(source) == (["input: float32[batch, 4]"], ["output: float32[batch, 3]"])


@pytest.mark.usefixtures("no_onnxscript")
def test_what_only_the_newer_exporter_could_do_asks_for_onnxscript(torch: Any) -> None:
    net = module(torch, lambda x: x if x.sum() > 0 else -x)
    assert "onnxscript" in refused(MissingConverter, net, ROWS)


def test_a_branch_that_a_trace_would_forget_is_refused(torch: Any) -> None:
    net = module(torch, lambda x: x if x.sum() > 0 else -x)
    assert "branches on values" in refused(ConversionFailed, net, ROWS)


def test_chance_in_a_model_is_caught(torch: Any, tmp_path: Path) -> None:
    with pytest.raises(ConversionDiffers, match=r"'output' differs in \d+ of 160 values, by up to \d"):
        ran(module(torch, lambda x: x + torch.randn_like(x)), tmp_path, ROWS)


@pytest.mark.parametrize(
    ("example", "words"),
    [
        (None, "is traced with inputs, and there are none: give example="),
        ((ROWS, ROWS, ROWS), "does not fit forward"),
        ({"wrong": ROWS}, "does not fit forward"),
        (ROWS.astype("float64"), "must have the same dtype"),
        (ROWS[:, :3], "cannot be multiplied"),
    ],
    ids=["none", "too many", "wrong name", "wrong type", "wrong size"],
)
def test_an_example_that_does_not_fit_is_refused(net: Any, example: Any, words: str) -> None:
    assert words in refused(ConversionFailed, net, example)


def test_what_onnx_has_no_words_for_is_refused(torch: Any) -> None:
    assert "linalg_eig" in refused(ConversionFailed, module(torch, lambda x: torch.linalg.eig(x)[0].real), ROWS[:4])
    assert "'output_1' as int" in refused(ConversionFailed, module(torch, lambda x: (x, 3)), ROWS)


def test_tensors_by_name_are_no_arrays(net: Any) -> None:
    with pytest.raises(GitmodelError, match="is a Tensor, no plain numpy array"):
        memory.of(net.state_dict())
