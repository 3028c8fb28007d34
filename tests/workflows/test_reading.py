"""Which one model the given files make, or the object: graphs, weights and shards together, and what does not go together."""

from __future__ import annotations

import re
from pathlib import Path

import h5py
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from gitmodel.errors import GitmodelError
from gitmodel.formats import npz, safetensors
from gitmodel.formats.source import InvalidModel, Source, TensorData
from gitmodel.versions import InvalidName
from gitmodel.workflows.reading import Given, UnclearFiles
from tests import support
from tests.formats.building import by_name, large, matmul, point_outside, write_h5, write_onnx


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    """``y = x @ w``."""
    return write_onnx(tmp_path / "graph.onnx", matmul(weights={"w": large()}))


@pytest.fixture
def weightless(tmp_path: Path) -> Path:
    """The same without the values of ``w``."""
    model = matmul(weights={"w": large()})
    model.graph.initializer[0].ClearField("raw_data")
    return write_onnx(tmp_path / "weightless.onnx", model)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    return write_h5(tmp_path / "weights.h5", lambda file: file.create_dataset("w", data=large(1)))


def shard(path: Path, *names: str) -> Path:
    tensors = tuple(TensorData(name, "float32", (2,), memoryview(np.ones(2, "float32").tobytes())) for name in names)
    module = safetensors if path.suffix == ".safetensors" else npz
    module.write(Source("drawn", "", tensors), path)
    return path


# What was given -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", [str, Path])
@pytest.mark.parametrize("listed", [True, False])
def test_one_file_may_be_given_as_it_is(graph: Path, form: type, listed: bool) -> None:
    assert Given.of([form(graph)] if listed else form(graph)).files == (graph,)


def test_every_file_that_was_named_is_counted(graph: Path, weights: Path, tmp_path: Path) -> None:
    given = Given.of([graph, weights], tmp_path / "more.h5", {"embed": tmp_path / "embed.onnx"})
    assert given.paths == [graph, weights, tmp_path / "more.h5", tmp_path / "embed.onnx"]
    assert given.label == str(graph)


def test_an_object_is_no_file(graph: Path) -> None:
    model = onnx.load(graph)
    given = Given.of(model, example=1)
    assert (given.files, given.model, given.example, given.key) == ((), model, 1, [])
    assert given.label == "the ModelProto"
    assert Given.of({"w": large()}).label == "the mapping"


@pytest.mark.parametrize("name", ["", "a/b", "..", "a b", "-a", "é", "a" * 101])
def test_a_signatures_name_can_be_a_file_and_a_path_of_a_url(graph: Path, name: str) -> None:
    with pytest.raises(InvalidName, match="no signature name"):
        Given.of(graph, signatures={name: graph})


def test_the_models_own_signature_is_not_given_twice(graph: Path) -> None:
    with pytest.raises(UnclearFiles, match="'default' is the model's own signature"):
        Given.of(graph, signatures={"default": graph})


def test_objects_in_a_list_are_refused(graph: Path) -> None:
    with pytest.raises(UnclearFiles, match="a list may name files only"):
        Given.of([graph, onnx.load(graph)])


def test_what_has_to_be_converted_can_be_beforehand(tmp_path: Path) -> None:
    with pytest.raises(InvalidModel, match="no model that can be saved"):
        Given.of(object()).convert()
    arrays = {"w": large()}
    given = Given.of(arrays)
    given.convert()
    arrays.clear()
    with given.open() as source:
        assert list(by_name(source)) == ["w"], "not converted again"
    Given.of(tmp_path / "absent.onnx").convert()


# What tells one request from another ----------------------------------------------------------------------------------


def test_another_request_has_another_key(graph: Path, weights: Path, tmp_path: Path) -> None:
    other = write_onnx(tmp_path / "other.onnx", matmul(weights={"w": large(2)}))
    requests = [
        Given.of(graph),
        Given.of(other),
        Given.of([graph, weights]),
        Given.of([weights, graph]),
        Given.of(graph, weights),
        Given.of(weights, graph),
        Given.of(graph, signatures={"embed": other}),
        Given.of(graph, signatures={"tags": other}),
        Given.of(graph, signatures={"embed": graph}),
        Given.of(graph, signatures={"embed": other, "tags": other}),
        Given.of([graph, other]),
    ]
    keys = [tuple(given.key) for given in requests]
    assert len(set(keys)) == len(keys)
    assert [tuple(Given.of(given.files, given.weights, dict(given.signatures)).key) for given in requests] == keys


def test_the_same_name_elsewhere_has_another_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = []
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        monkeypatch.chdir(tmp_path / folder)
        keys.append(Given.of("model.onnx", "weights.h5", {"embed": "embed.onnx"}).key)
    assert not set(keys[0]) & set(keys[1])
    one = tmp_path / "one"
    assert Given.of(one / "model.onnx", one / "weights.h5", {"embed": one / "embed.onnx"}).key == keys[0]


def test_a_link_that_leads_elsewhere_has_another_key(graph: Path, weightless: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.onnx"
    link.symlink_to(graph)
    before = Given.of(link).key
    link.unlink()
    link.symlink_to(weightless)
    assert Given.of(link).key != before


def test_a_link_is_not_the_file_it_leads_to(graph: Path, tmp_path: Path) -> None:
    """External data stand beside the link."""
    (tmp_path / "other").mkdir()
    link = tmp_path / "other" / "graph.onnx"
    link.symlink_to(graph)
    assert Given.of(link).key != Given.of(graph).key


# What it makes --------------------------------------------------------------------------------------------------------


def read(given: Given) -> tuple[str, dict[str, bytes], set[Path]]:
    """Format, tensors and files."""
    with given.open() as source:
        return source.format, {t.name: bytes(t.data) for t in source.tensors}, set(source.files)


def test_a_graph_alone_and_a_checkpoint_alone(graph: Path, weights: Path) -> None:
    assert read(Given.of(graph)) == ("onnx", {"w": large().tobytes()}, {graph})
    assert read(Given.of(weights)) == ("hdf5", {"w": large(1).tobytes()}, {weights})


@pytest.mark.parametrize("way", ["listed", "listed the other way", "as an option"])
def test_a_graph_takes_the_checkpoints_weights(weightless: Path, weights: Path, way: str) -> None:
    given = {
        "listed": Given.of([weightless, weights]),
        "listed the other way": Given.of([weights, weightless]),
        "as an option": Given.of(weightless, weights),
    }[way]
    assert read(given) == ("onnx+hdf5", {"w": large(1).tobytes()}, {weightless, weights})


def test_an_object_takes_a_checkpoints_weights(weightless: Path, weights: Path) -> None:
    model = onnx.load_model_from_string(weightless.read_bytes())
    assert read(Given.of(model, weights)) == ("onnx+hdf5", {"w": large(1).tobytes()}, {weights})


@pytest.mark.parametrize("suffix", ["safetensors", "npz"])
def test_shards_make_one_checkpoint(tmp_path: Path, suffix: str) -> None:
    one, two = shard(tmp_path / f"1.{suffix}", "a", "b"), shard(tmp_path / f"2.{suffix}", "c")
    kind, tensors, files = read(Given.of([one, two]))
    assert (kind, set(tensors), files) == (suffix, {"a", "b", "c"}, {one, two})


@pytest.mark.parametrize(("given", "missing"), [([1], 2), ([2], 1), ([1, 3], 2)])
def test_shards_without_the_others_are_refused(
    tmp_path: Path, weightless: Path, given: list[int], missing: int
) -> None:
    shards = [shard(tmp_path / f"model-0000{number}-of-00003.safetensors", f"t{number}") for number in (1, 2, 3)]
    chosen = [shards[number - 1] for number in given]
    said = (
        f"{chosen[0]} is one shard of 3, and {shards[missing - 1].name} is not given: give {tmp_path}/model.safetensors"
    )
    with pytest.raises(UnclearFiles, match=re.escape(said)), Given.of(chosen).open():
        raise AssertionError
    with pytest.raises(UnclearFiles, match="is one shard of 3"), Given.of(weightless, chosen[0]).open():
        raise AssertionError
    with Given.of(shards).open() as source:
        assert set(by_name(source)) == {"t1", "t2", "t3"}


def test_shards_of_two_checkpoints_are_not_all_of_one(tmp_path: Path) -> None:
    shards = [shard(tmp_path / f"{name}-00001-of-00002.safetensors", name) for name in ("a", "b")]
    said = r"a-00001-of-00002\.safetensors is one shard of 2, and a-00002-of-00002\.safetensors is not given"
    with pytest.raises(UnclearFiles, match=said), Given.of(shards).open():
        raise AssertionError


def test_the_one_shard_of_one_is_whole(tmp_path: Path) -> None:
    with Given.of(shard(tmp_path / "model-00001-of-00001.safetensors", "a")).open() as source:
        assert set(by_name(source)) == {"a"}


def test_a_graph_may_take_its_weights_from_several_shards(tmp_path: Path, weightless: Path) -> None:
    def only(name: str, values: np.ndarray) -> Path:
        tensor = TensorData(name, "float32", values.shape, memoryview(values.tobytes()))
        safetensors.write(Source("drawn", "", (tensor,)), tmp_path / f"{name}.safetensors")
        return tmp_path / f"{name}.safetensors"

    files = [only("w", large(1)), only("momentum", large(2))]
    _, tensors, read_ = read(Given.of([weightless, *files]))
    assert tensors == {"w": large(1).tobytes(), "momentum": large(2).tobytes()}
    assert read_ == {weightless, *files}


def test_external_data_is_among_the_files_that_were_read(tmp_path: Path) -> None:
    model = matmul(weights={"w": large()})
    (tmp_path / "w.data").write_bytes(model.graph.initializer[0].raw_data)
    point_outside(model.graph.initializer[0], location="./w.data")
    path = write_onnx(tmp_path / "graph.onnx", model)
    assert read(Given.of(path)) == ("onnx", {"w": large().tobytes()}, {path, tmp_path / "w.data"})


def test_further_graphs_are_joined(graph: Path, tmp_path: Path) -> None:
    other = write_onnx(tmp_path / "other.onnx", matmul(weights={"w": large(2)}))
    with Given.of(graph, signatures={"same": graph, "other": other}).open() as source:
        assert set(by_name(source)) == {"w", "other/w"}
        assert {name: dict(named.bound_names) for name, named in source.named.items()} == {
            "same": {"w": "w"}, "other": {"other/w": "w"},
        }  # fmt: skip
        assert set(source.files) == {graph, other}


def test_further_graphs_take_their_weights_from_where_the_first_does(weightless: Path, weights: Path) -> None:
    """As exporters write a SavedModel's signatures: graphs without weights over one checkpoint."""
    with Given.of(weightless, weights, {"embed": weightless}).open() as source:
        assert {t.name: bytes(t.data) for t in source.tensors} == {"w": large(1).tobytes()}
        assert list(source.named["embed"].bound_names.values()) == ["w"]


def test_the_users_files_are_let_go_of(weights: Path, weightless: Path) -> None:
    with Given.of([weightless, weights]).open() as source:
        assert source.groups
        tensor = by_name(source)["w"]
    assert not source.groups
    assert bytes(tensor.data) == large(1).tobytes(), "what is mapped stays"
    with h5py.File(weights, "r+") as file:  # nobody holds HDF5's lock
        file["w"][0] = 0


def test_files_are_let_go_of_after_a_refusal_too(weights: Path, weightless: Path) -> None:
    with h5py.File(weights, "r+") as file:
        file.move("w", "v")
    with pytest.raises(InvalidModel, match="the weights have v"), Given.of([weightless, weights]).open():
        raise AssertionError
    with h5py.File(weights, "r+") as file:
        del file["v"]


def two_graphs(graph: Path, weights: Path) -> Given:
    return Given.of([graph, graph])


def two_checkpoints(graph: Path, weights: Path) -> Given:
    return Given.of([weights, weights])


def two_formats(graph: Path, weights: Path) -> Given:
    return Given.of([weights, shard(weights.with_name("w.npz"), "a")])


def the_same_shard_twice(graph: Path, weights: Path) -> Given:
    one = shard(weights.with_name("w.npz"), "a")
    return Given.of([one, one])


def nothing(graph: Path, weights: Path) -> Given:
    return Given.of([])


def a_graph_as_weights(graph: Path, weights: Path) -> Given:
    return Given.of(graph, graph)


def a_checkpoint_as_a_signature(graph: Path, weights: Path) -> Given:
    return Given.of(graph, signatures={"embed": weights})


def a_signature_that_is_not_there(graph: Path, weights: Path) -> Given:
    return Given.of(graph, signatures={"embed": graph.with_name("absent.onnx")})


def an_object_nobody_knows(graph: Path, weights: Path) -> Given:
    return Given.of(object())


@pytest.mark.parametrize(
    ("give", "said"),
    [
        (two_graphs, "2 graphs do not make one model"),
        (two_checkpoints, "only shards without a graph or groups make one checkpoint"),
        (two_formats, "make no checkpoint|make one checkpoint"),
        (the_same_shard_twice, "'a' stands in two of the files"),
        (nothing, "no file was given"),
        (a_graph_as_weights, "2 graphs do not make one model"),
        (a_checkpoint_as_a_signature, "the signature 'embed' has no graph"),
        (a_signature_that_is_not_there, "there is no file .*absent"),
        (an_object_nobody_knows, "no model that can be saved"),
    ],
)
def test_what_makes_no_model_is_refused(graph: Path, weights: Path, give: object, said: str) -> None:
    assert callable(give)
    with pytest.raises(GitmodelError, match=said) as raised, give(graph, weights).open():
        raise AssertionError
    assert "\n" not in str(raised.value)


def test_a_models_values_are_those_of_the_file(graph: Path) -> None:
    with Given.of(graph).open() as source:
        (tensor,) = source.tensors
        expected = numpy_helper.to_array(onnx.load(graph).graph.initializer[0])
        assert bytes(tensor.data) == expected.tobytes()
        assert source.signature is not None
        assert support.value_info("y", "float32", [1]).name == source.signature.outputs[0].name
