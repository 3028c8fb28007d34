"""Several signatures of one model: what further graphs share with the first one, and what groups of its outputs make."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper

from gitmodel.bundle.card import Group
from gitmodel.bundle.signature import Signature, Signatures, TensorSpec
from gitmodel.formats import onnx as onnx_format
from gitmodel.formats import signatures
from gitmodel.formats.source import InvalidModel, Source, TensorData
from tests import support
from tests.formats.building import LARGE, array, by_name, large, write_h5, write_onnx

BATCH = ("batch", LARGE)


def graph(output: str, weights: dict[str, np.ndarray], *names: str) -> onnx.ModelProto:
    """``output = x @ name @ name ...`` with these weights inside."""
    flows = ["x", *(f"h{number}" for number in range(len(names) - 1)), output]
    nodes = [helper.make_node("MatMul", [flows[i], name], [flows[i + 1]]) for i, name in enumerate(names)]
    columns = weights[names[-1]].shape[-1]
    inputs = [support.value_info("x", "float32", ["batch", LARGE])]
    return support.model(nodes, inputs, [support.value_info(output, "float32", ["batch", columns])], weights)


def head(seed: int = 9) -> np.ndarray:
    """Too small for a file of its own."""
    return np.random.default_rng(seed).normal(size=(LARGE, 3)).astype("float32")


def read(path: Path, model: onnx.ModelProto) -> Source:
    return onnx_format.read(write_onnx(path, model))


@pytest.fixture
def main(tmp_path: Path) -> Source:
    """``scores = x @ w @ head``."""
    return read(tmp_path / "main.onnx", graph("scores", {"w": large(), "head": head()}, "w", "head"))


@pytest.fixture
def embed(tmp_path: Path) -> Source:
    """``e = x @ w`` with the main graph's ``w``."""
    return read(tmp_path / "embed.onnx", graph("e", {"w": large()}, "w"))


def signature(output: str, columns: int) -> Signature:
    return Signature((TensorSpec("x", "float32", BATCH),), (TensorSpec(output, "float32", ("batch", columns)),))


# Further graphs -------------------------------------------------------------------------------------------------------


def test_a_tensor_of_the_same_name_and_values_is_shared(main: Source, embed: Source) -> None:
    joined = signatures.join(main, {"embed": embed})
    assert set(by_name(joined)) == {"w", "head"}
    assert by_name(joined)["w"] is by_name(main)["w"]
    named = joined.named["embed"]
    assert (named.graph, named.signature, dict(named.bound_names)) == (embed.graph, embed.signature, {"w": "w"})
    assert (joined.graph, joined.signature, joined.bound_names) == (main.graph, main.signature, main.bound_names)


def test_every_file_counts(main: Source, embed: Source, tmp_path: Path) -> None:
    joined = signatures.join(main, {"embed": embed, "again": embed})
    assert joined.files == (tmp_path / "main.onnx", *[tmp_path / "embed.onnx"] * 2)


@pytest.mark.parametrize(
    "other",
    [large(seed=1), large()[:, :-1], large().view("int32"), large().T.copy(), -0.0 * large()],
    ids=["values", "shape", "dtype", "order", "sign of zero"],
)
@pytest.mark.parametrize("small", [True, False])
def test_other_values_have_a_name_of_their_own(tmp_path: Path, small: bool, other: np.ndarray) -> None:
    first = np.zeros_like(large()) if np.all(other == 0) else large()
    if small:
        first, other = first[:3, :3].copy(), other[:3, :4].copy() if other.shape[1] < LARGE else other[:3, :3].copy()
    main = read(tmp_path / "main.onnx", constant(first))
    joined = signatures.join(main, {"embed": read(tmp_path / "embed.onnx", constant(other))})
    tensors = by_name(joined)
    assert set(tensors) == {"w", "embed/w"}
    np.testing.assert_array_equal(array(tensors["w"]), first, strict=True)
    np.testing.assert_array_equal(array(tensors["embed/w"]), other, strict=True)
    assert dict(joined.named["embed"].bound_names) == {"embed/w": "w"}


def constant(values: np.ndarray) -> onnx.ModelProto:
    """A model that gives ``w``."""
    kind = onnx.helper.np_dtype_to_tensor_dtype(values.dtype)
    output = helper.make_tensor_value_info("y", kind, values.shape)
    return support.model([helper.make_node("Identity", ["w"], ["y"])], [], [output], {"w": values})


def test_the_last_byte_counts(main: Source, embed: Source) -> None:
    body = bytearray(by_name(embed)["w"].data)
    body[-1] ^= 1
    changed = replace(embed, tensors=(replace(embed.tensors[0], data=memoryview(body)),))
    assert set(by_name(signatures.join(main, {"embed": changed}))) == {"w", "head", "embed/w"}


def test_a_nan_is_the_same_nan(tmp_path: Path) -> None:
    values = np.full((4, 4), np.nan, "float32")
    one, other = (read(tmp_path / name, constant(values)) for name in ("one.onnx", "other.onnx"))
    assert set(by_name(signatures.join(one, {"embed": other}))) == {"w"}


def test_a_name_that_is_taken_already_is_left_to_who_has_it(tmp_path: Path) -> None:
    main = read(tmp_path / "main.onnx", graph("y", {"w": large(), "embed/w": large(1)}, "w", "embed/w"))
    joined = signatures.join(main, {"embed": read(tmp_path / "e.onnx", graph("e", {"w": large(2)}, "w"))})
    (own,) = joined.named["embed"].bound_names
    assert set(by_name(joined)) == {"w", "embed/w", own}
    np.testing.assert_array_equal(array(by_name(joined)["embed/w"]), large(1))
    np.testing.assert_array_equal(array(by_name(joined)[own]), large(2))


def test_several_graphs_share_and_differ_each_for_itself(main: Source, embed: Source, tmp_path: Path) -> None:
    other = read(tmp_path / "other.onnx", graph("o", {"w": large(1)}, "w"))
    joined = signatures.join(main, {"embed": embed, "one": other, "two": other})
    assert set(by_name(joined)) == {"w", "head", "one/w", "two/w"}
    assert {name: dict(named.bound_names) for name, named in joined.named.items()} == {
        "embed": {"w": "w"}, "one": {"one/w": "w"}, "two": {"two/w": "w"},
    }  # fmt: skip


def test_weights_without_a_graph_are_no_signature(main: Source, tmp_path: Path) -> None:
    from gitmodel.formats import hdf5

    checkpoint = hdf5.read(write_h5(tmp_path / "weights.h5", lambda file: file.create_dataset("w", data=large())))
    with pytest.raises(InvalidModel, match="the signature 'embed' has no graph"):
        signatures.join(main, {"embed": checkpoint})
    checkpoint.close()


def test_comparing_large_tensors_takes_no_memory(main: Source, embed: Source) -> None:
    def tensor(last: bytes) -> TensorData:
        return TensorData("w", "uint8", (64 << 20,), memoryview(bytes((64 << 20) - 1) + last))

    same, other = (replace(embed, tensors=(tensor(last),)) for last in (b"\0", b"\1"))
    whole = replace(main, tensors=(tensor(b"\0"),))
    tracemalloc.start()
    joined = signatures.join(whole, {"same": same, "other": other})
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert set(by_name(joined)) == {"w", "other/w"}
    assert peak < 32 << 20


# Groups ---------------------------------------------------------------------------------------------------------------

X, MASK = TensorSpec("x", "float32", BATCH), TensorSpec("mask", "bool", ("batch",))
Y, E = TensorSpec("y", "float32", ("batch", 3)), TensorSpec("e", "float32", ("batch", 64))
WHOLE = Signature((X, MASK), (Y, E))
SOURCE = Source("onnx", "", (), WHOLE)


def test_a_group_is_part_of_the_whole_in_the_order_it_says() -> None:
    groups = {"embed": Group(outputs=("e",)), "back": Group(("mask", "x"), ("e", "y")), "all": Group()}
    assert signatures.of(SOURCE, groups, "model.onnx") == Signatures(
        {
            "default": WHOLE,
            "embed": Signature((X, MASK), (E,)),
            "back": Signature((MASK, X), (E, Y)),
            "all": WHOLE,
        }
    )


def test_graphs_and_groups_stand_beside_each_other(main: Source, embed: Source) -> None:
    joined = signatures.join(main, {"embed": embed})
    found = signatures.of(joined, {"scores_only": Group(outputs=("scores",))}, "model.onnx")
    assert list(found.by_name) == ["default", "embed", "scores_only"]
    assert found.by_name["embed"] == signature("e", LARGE)
    assert found.by_name["scores_only"] == found.by_name["default"] == signature("scores", 3)


@pytest.mark.parametrize(
    ("groups", "said", "mend"),
    [
        ({"embed": Group(outputs=("z",))}, "signature 'embed' names 'z', which the model does not have", "y, e"),
        ({"embed": Group(inputs=("y",))}, "signature 'embed' names 'y', which the model does not have", "x, mask"),
        ({"default": Group(outputs=("e",))}, "signature 'default': a graph has that name", "model.yaml"),
    ],
)
def test_a_group_of_what_the_model_does_not_have_is_refused(groups: dict[str, Group], said: str, mend: str) -> None:
    with pytest.raises(InvalidModel, match=said) as raised:
        signatures.of(SOURCE, groups, "model.onnx")
    assert raised.value.message.startswith("model.onnx: ")
    assert mend in raised.value.hint
    assert "\n" not in raised.value.message


def test_a_group_may_not_take_a_graphs_name(main: Source, embed: Source) -> None:
    with pytest.raises(InvalidModel, match="signature 'embed': a graph has that name"):
        signatures.of(signatures.join(main, {"embed": embed}), {"embed": Group()}, "model.onnx")


def test_a_checkpoint_has_no_outputs_to_group() -> None:
    checkpoint = Source("hdf5", "", ())
    assert signatures.of(checkpoint, {}, "weights.h5") == Signatures({})
    with pytest.raises(InvalidModel, match=r"weights\.h5: signature 'embed': there is no graph to group"):
        signatures.of(checkpoint, {"embed": Group()}, "weights.h5")
