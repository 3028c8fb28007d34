"""``export``: a version as one file of any format, from verified bytes, without taking the place of what is there."""

from __future__ import annotations

import shutil
from contextlib import closing
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import onnxruntime
import pytest

import gitmodel
from gitmodel import formats
from gitmodel.errors import GitmodelError
from gitmodel.formats.source import InvalidModel
from gitmodel.storage.workspace import MissingWeights
from gitmodel.workflows import transfer
from gitmodel.workflows.export import UnclearDestination, WouldOverwrite, export
from gitmodel.workflows.release import release
from gitmodel.workflows.save import save
from gitmodel.workflows.transfer import UnknownTensor
from tests import support
from tests.formats import building
from tests.formats.keeping import contents
from tests.workflows import state
from tests.workflows.conftest import Change

ENDINGS = (".onnx", ".h5", ".hdf5", ".safetensors", ".npz")


@pytest.fixture
def wide(repo: Path, tmp_path: Path) -> Path:
    """``wide``: two tensors with files of their own, labels and another asset, committed."""
    (tmp_path / "labels.txt").write_text("yes\nno\n")
    (tmp_path / "words.json").write_text('["a"]')
    path = state.write(support.wide_model(), tmp_path / "wide.onnx")
    save(
        "wide", [path], repo=repo, labels=tmp_path / "labels.txt", assets=[tmp_path / "words.json"], message="wide"
    )  # fmt: skip
    return path


@pytest.fixture
def checkpoint(repo: Path, tmp_path: Path) -> Path:
    """``state``: a checkpoint with attributes and a compressed tensor."""

    def build(file: Any) -> None:
        file.attrs["epoch"] = 3
        file.create_dataset("w", data=building.large(), chunks=(40, 40), compression="gzip")
        file["b"] = np.arange(3)

    path = building.write_h5(tmp_path / "state.h5", build)
    save("state", [path], repo=repo, message="state")
    return path


# Files ----------------------------------------------------------------------------------------------------------------


def test_the_file_that_was_saved_comes_back(repo: Path, wide: Path, tmp_path: Path) -> None:
    done = export("wide", tmp_path / "out.onnx", repo=repo)
    assert (tmp_path / "out.onnx").read_bytes() == wide.read_bytes()
    assert (done.label, done.files, done.tensors) == ("wide", (tmp_path / "out.onnx",), 2)
    assert (done.size, done.left_out) == (wide.stat().st_size, ())


@pytest.mark.parametrize("ending", ENDINGS)
def test_every_format_has_every_tensor(repo: Path, wide: Path, tmp_path: Path, ending: str) -> None:
    done = export("wide", tmp_path / f"out{ending}", repo=repo)
    assert contents(tmp_path / f"out{ending}") == contents(wide)
    assert done.left_out == (() if ending == ".onnx" else ("the graph",))


def test_a_checkpoint_comes_back_attribute_by_attribute(repo: Path, checkpoint: Path, tmp_path: Path) -> None:
    done = export("state", tmp_path / "out.h5", repo=repo)
    with h5py.File(checkpoint) as ours, h5py.File(tmp_path / "out.h5") as theirs:
        building.assert_same_tree(ours, theirs)
    assert done.left_out == ()
    (said,) = export("state", tmp_path / "out.npz", repo=repo).left_out
    assert "attributes" in said


def test_each_version_is_exported_with_its_own_weights(repo: Path, change: Change, tmp_path: Path) -> None:
    change(1.0)
    release("fraud", repo=repo)
    change(2.0)
    for reference, scale in (("fraud@v1.0.0", 1.0), ("fraud@1", 1.0), ("fraud", 2.0), ("fraud@HEAD~1", 1.0)):
        path = tmp_path / f"{reference.replace('/', '_')}.onnx"
        done = gitmodel.export(reference, path, repo=repo)
        assert done.label == {"fraud@1": "fraud@v1.0.0"}.get(reference, reference)
        assert path.read_bytes() == support.linear_model(scale=scale).SerializeToString()


def test_missing_weights_are_fetched_and_damaged_ones_refused(repo: Path, wide: Path, tmp_path: Path) -> None:
    transfer.push(repo=repo)
    copy = state.clone(repo, tmp_path / "clone")
    export("wide@HEAD", tmp_path / "out.onnx", repo=copy)
    assert (tmp_path / "out.onnx").read_bytes() == wide.read_bytes()
    lines = (repo / "models" / "wide" / "weights.lock").read_text().splitlines()
    md5 = next(line.split()[-1] for line in lines if line.startswith("file tensors/"))
    state.damage(state.object_path(repo / ".dvc" / "cache", md5))
    with pytest.raises(MissingWeights, match="other bytes"):
        export("wide", tmp_path / "damaged.onnx", repo=repo)
    assert not (tmp_path / "damaged.onnx").exists()


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("name", ["wide", "state"])
@pytest.mark.parametrize("path", ["weights.h5", "tensors/"])
def test_bytes_that_have_gone_bad_do_not_leave(
    repo: Path, wide: Path, checkpoint: Path, tmp_path: Path, ending: str, name: str, path: str
) -> None:
    if (name, ending) == ("state", ".onnx"):
        pytest.skip("it has no graph")
    lines = (repo / "models" / name / "weights.lock").read_text().splitlines()
    md5 = next(line.split()[-1] for line in lines if line.startswith(f"file {path}"))
    state.rot(state.object_path(repo / ".dvc" / "cache", md5))
    (tmp_path / "out").mkdir()
    old = tmp_path / "out" / f"old{ending}"
    old.write_bytes(b"old")
    for target in (old, old.with_stem("new")):
        with pytest.raises(MissingWeights, match=f"other bytes for {path}.*fsck --repair"):
            export(name, target, repo=repo, force=True)
    assert [found.read_bytes() for found in (tmp_path / "out").iterdir()] == [b"old"]


def test_one_tensor_that_has_gone_bad_does_not_leave(repo: Path, wide: Path, tmp_path: Path) -> None:
    lines = (repo / "models" / "wide" / "weights.lock").read_text().splitlines()
    md5 = next(line.split()[-1] for line in lines if line.startswith("file tensors/layer1"))
    state.rot(state.object_path(repo / ".dvc" / "cache", md5))
    export("wide", tmp_path / "good.npz", repo=repo, tensors=["layer0/weight"])
    with pytest.raises(MissingWeights, match="other bytes for tensors/layer1"):
        export("wide", tmp_path / "bad.npz", repo=repo, tensors=["layer1/weight"])
    assert not (tmp_path / "bad.npz").exists()


def test_a_bundle_outside_any_repository_is_exported(repo: Path, wide: Path, tmp_path: Path) -> None:
    shutil.copytree(repo / "models" / "wide", tmp_path / "bundle")
    export(str(tmp_path / "bundle"), tmp_path / "out.onnx", repo=tmp_path)
    assert (tmp_path / "out.onnx").read_bytes() == wide.read_bytes()
    state.damage(tmp_path / "bundle" / "weights" / "weights.h5")
    with pytest.raises(MissingWeights, match=r"weights\.h5 .* is not what weights\.lock says"):
        export(str(tmp_path / "bundle"), tmp_path / "again.onnx", repo=tmp_path)


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_model_file_is_converted(tmp_path: Path, ending: str) -> None:
    path = state.write(support.wide_model(), tmp_path / "m.onnx")
    done = export(str(path), tmp_path / f"out{ending}", repo=tmp_path)
    assert contents(tmp_path / f"out{ending}") == contents(path)
    assert (done.label, done.tensors) == (str(path), 2)


def test_a_file_can_be_converted_onto_itself(tmp_path: Path) -> None:
    path = building.write_h5(tmp_path / "m.h5", lambda file: file.create_dataset("w", data=building.large()))
    before = contents(path)
    export(str(path), path, repo=tmp_path, force=True)
    assert contents(path) == before


def test_a_graph_without_its_weights_is_not_converted(tmp_path: Path) -> None:
    model = building.matmul(weights={"w": building.large()})
    building.point_outside(model.graph.initializer[0], location="gone.bin", offset=0)
    with pytest.raises(InvalidModel, match=r"its data should be in gone\.bin, which is missing"):
        export(str(state.write(model, tmp_path / "m.onnx")), tmp_path / "out.h5", repo=tmp_path)


# Some tensors ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", [".h5", ".safetensors", ".npz"])
def test_chosen_tensors_are_exported_alone(repo: Path, wide: Path, tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"one{ending}"
    done = export("wide", path, repo=repo, tensors=["layer1/weight"])
    assert contents(path) == {"layer1/weight": contents(wide)["layer1/weight"]}
    assert done.tensors == 1
    export(str(wide), path, repo=repo, tensors=["layer1/weight"], force=True)
    assert list(contents(path)) == ["layer1/weight"]


def test_of_chosen_tensors_no_other_file_is_fetched(repo: Path, wide: Path, tmp_path: Path) -> None:
    transfer.push(repo=repo)
    copy = state.clone(repo, tmp_path / "clone")
    export("wide", tmp_path / "one.h5", repo=copy, tensors=["layer0/weight"])
    assert len(state.objects(copy)) == 1


def test_a_chosen_tensor_keeps_its_compression(repo: Path, checkpoint: Path, tmp_path: Path) -> None:
    export("state", tmp_path / "one.h5", repo=repo, tensors=["w"])
    with h5py.File(tmp_path / "one.h5") as file:
        assert (list(file), file["w"].compression) == (["w"], "gzip")


def test_an_unknown_tensor_is_refused_with_what_is_near(repo: Path, wide: Path, tmp_path: Path) -> None:
    for reference in ("wide", str(wide)):
        with pytest.raises(UnknownTensor, match=r"no tensor 'layer1/weigth' in .*: near it: layer1/weight"):
            export(reference, tmp_path / "one.h5", repo=repo, tensors=["layer1/weigth"])


def test_chosen_tensors_are_no_onnx_model(repo: Path, wide: Path, tmp_path: Path) -> None:
    with pytest.raises(UnclearDestination, match=r"one\.onnx cannot hold single tensors: .*export them as \.h5"):
        export("wide", tmp_path / "one.onnx", repo=repo, tensors=["layer0/weight"])


# Folders --------------------------------------------------------------------------------------------------------------


def test_a_folder_gets_the_model_and_what_belongs_to_it(repo: Path, wide: Path, tmp_path: Path) -> None:
    done = export("wide", f"{tmp_path}/out/", repo=repo)
    out = tmp_path / "out"
    assert [path.relative_to(out).as_posix() for path in done.files] == [
        "wide.onnx", "signature.yaml", "assets/labels.txt", "assets/words.json",
    ]  # fmt: skip
    assert (out / "wide.onnx").read_bytes() == wide.read_bytes()
    assert (out / "assets" / "labels.txt").read_text() == "yes\nno\n"
    assert (out / "signature.yaml").read_bytes() == (repo / "models" / "wide" / "signature.yaml").read_bytes()
    assert done.size == sum(path.stat().st_size for path in done.files)
    x = np.ones((1, 200), "float32")
    assert onnxruntime.InferenceSession(str(out / "wide.onnx")).run(None, {"x": x})[0].shape == (1, 200)


def test_a_folder_that_is_there_needs_no_slash(repo: Path, checkpoint: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    assert export("state", tmp_path / "out", repo=repo).files[0] == tmp_path / "out" / "state.h5"
    named = export("state", tmp_path / "out", repo=repo, format="safetensors", force=True).files
    assert named[0] == tmp_path / "out" / "state.safetensors"
    assert export("state", tmp_path / "out", repo=repo, format=".npz", force=True).files[0].suffix == ".npz"


def test_a_file_in_a_folder_carries_no_assets_of_a_bare_model(tmp_path: Path) -> None:
    path = state.write(support.linear_model(), tmp_path / "m.onnx")
    done = export(str(path), f"{tmp_path}/out/", repo=tmp_path)
    assert [file.name for file in done.files] == ["m.onnx", "signature.yaml"]


# Several signatures ---------------------------------------------------------------------------------------------------


@pytest.fixture
def several(repo: Path, tmp_path: Path) -> dict[str, Path]:
    """``match``: three graphs that share one large tensor and have small and large ones of their own."""
    shared = {"w": building.large()}
    files = {}
    for seed, name in enumerate(("default", "embed", "score"), 1):
        own = {"own": building.large(seed), "small": np.array([seed], "f4"), "same": np.array([7], "f4")}
        files[name] = state.write(building.matmul(weights={**shared, **own}), tmp_path / f"given-{name}.onnx")
    further = {name: files[name] for name in ("embed", "score")}
    save("match", files["default"], repo=repo, signatures=further, message="three")
    return files


def test_each_signatures_graph_comes_back(repo: Path, several: dict[str, Path], tmp_path: Path) -> None:
    for name in ("embed", "score"):
        path = tmp_path / f"{name}.onnx"
        done = export("match", path, repo=repo, signature=name)
        assert path.read_bytes() == several[name].read_bytes()
        assert (done.tensors, done.left_out) == (4, ())
    done = export("match", tmp_path / "main.onnx", repo=repo)
    assert (tmp_path / "main.onnx").read_bytes() == several["default"].read_bytes()
    assert done.left_out == ("the graphs of other signatures (embed, score)",)


def test_a_folder_gets_every_graph(repo: Path, several: dict[str, Path], tmp_path: Path) -> None:
    done = export("match", f"{tmp_path}/out/", repo=repo)
    assert [file.name for file in done.files] == [
        "match.onnx", "match.embed.onnx", "match.score.onnx", "signature.yaml",
    ]  # fmt: skip
    for name, file in (("default", "match.onnx"), ("embed", "match.embed.onnx"), ("score", "match.score.onnx")):
        assert (tmp_path / "out" / file).read_bytes() == several[name].read_bytes()
    assert done.left_out == ()
    assert done.size == sum(file.stat().st_size for file in done.files)
    (tmp_path / "out" / "match.onnx").unlink()
    with pytest.raises(WouldOverwrite, match=r"match\.embed\.onnx"):
        export("match", tmp_path / "out", repo=repo)


def test_bytes_that_only_one_graph_needs_and_that_have_gone_bad_replace_no_graph(
    repo: Path, several: object, tmp_path: Path
) -> None:
    export("match", f"{tmp_path}/out/", repo=repo)
    before = {file: file.read_bytes() for file in (tmp_path / "out").iterdir()}
    lines = (repo / "models" / "match" / "weights.lock").read_text().splitlines()
    md5 = next(line.split()[-1] for line in lines if line.startswith("file tensors/") and "score" in line)
    state.rot(state.object_path(repo / ".dvc" / "cache", md5))
    states = {file: support.identity(file) for file in before}
    with pytest.raises(MissingWeights, match=r"other bytes for tensors/.*score"):
        export("match", tmp_path / "out", repo=repo, force=True)
    assert {file: support.identity(file) for file in (tmp_path / "out").iterdir()} == states


def test_other_formats_hold_the_tensors_of_every_graph(repo: Path, several: dict[str, Path], tmp_path: Path) -> None:
    done = export("match", tmp_path / "out.safetensors", repo=repo)
    assert done.left_out == ("the graphs",)
    found = contents(tmp_path / "out.safetensors")
    assert set(found) == {
        "w", "own", "small", "same", "embed/own", "embed/small", "score/own", "score/small",
    }  # fmt: skip
    assert found["embed/own"] == contents(several["embed"])["own"]


def test_a_signature_without_a_graph_of_its_own_is_named(repo: Path, several: object, tmp_path: Path) -> None:
    with pytest.raises(InvalidModel, match="no graph of its own for the signature 'rank': there is: embed, score"):
        export("match", tmp_path / "out.onnx", repo=repo, signature="rank")


# What is refused ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["out.onnx", "out.onnx.data"])
def test_a_file_that_is_there_is_kept_unless_it_is_forced(repo: Path, wide: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(WouldOverwrite, match=rf"{name} is there already.*--force") as caught:
        export("wide", tmp_path / "out.onnx", repo=repo)
    assert caught.value.exit_code == 2
    assert (tmp_path / name).read_text() == "mine"
    export("wide", tmp_path / "out.onnx", repo=repo, force=True)
    assert (tmp_path / "out.onnx").read_bytes() == wide.read_bytes()


def test_an_asset_that_is_there_is_kept_too(repo: Path, wide: Path, tmp_path: Path) -> None:
    (tmp_path / "out" / "assets").mkdir(parents=True)
    (tmp_path / "out" / "assets" / "labels.txt").write_text("mine")
    with pytest.raises(WouldOverwrite, match=r"assets/labels\.txt"):
        export("wide", tmp_path / "out", repo=repo)
    assert [path.name for path in (tmp_path / "out").rglob("*")] == ["assets", "labels.txt"]


@pytest.mark.parametrize(
    ("dest", "options", "said"),
    [
        ("out.pt", {}, r"out\.pt does not say its format: known: \.onnx, .*a folder ends with '/'"),
        ("out", {}, "out does not say its format"),
        ("out.onnx", {"format": "h5"}, r"out\.onnx is no name for the format 'h5'"),
        ("out/", {"format": "pickle"}, "no format 'pickle' to export to"),
        ("out.safetensors.index.json", {}, "does not say its format"),
    ],
)
def test_an_unclear_destination_is_refused_before_anything_is_read(
    repo: Path, wide: Path, tmp_path: Path, dest: str, options: dict[str, Any], said: str
) -> None:
    shutil.rmtree(repo / ".dvc" / "cache")
    with pytest.raises(UnclearDestination, match=said):
        export("wide", f"{tmp_path}/{dest}", repo=repo, **options)


def test_a_checkpoint_is_no_onnx_model(repo: Path, checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(InvalidModel, match=r"out\.onnx cannot hold this model: ONNX needs a graph"):
        export("state", tmp_path / "out.onnx", repo=repo)


def test_a_folder_that_is_not_there_is_named(repo: Path, wide: Path, tmp_path: Path) -> None:
    with pytest.raises(UnclearDestination, match=r"there is no folder .*/absent: make it"):
        export("wide", tmp_path / "absent" / "out.onnx", repo=repo)


def test_what_is_unknown_is_said(repo: Path, tmp_path: Path) -> None:
    with pytest.raises(GitmodelError, match="no model 'nothing'"):
        export("nothing", tmp_path / "out.onnx", repo=repo)
    with pytest.raises(GitmodelError, match="is no model file"):
        export("nothing", tmp_path / "out.onnx", repo=tmp_path)


def test_an_export_can_be_saved_as_the_same_version(repo: Path, wide: Path, checkpoint: Path, tmp_path: Path) -> None:
    """Exported and saved again nothing changes: not a byte has to be stored."""
    for name, ending in (("wide", ".onnx"), ("state", ".h5")):
        export(name, tmp_path / f"back{ending}", repo=repo)
        assert not save(name, [tmp_path / f"back{ending}"], repo=repo, message="again").changed
    with closing(formats.read(tmp_path / "back.h5")) as source:
        assert {tensor.name for tensor in source.tensors} == {"w", "b"}
