"""``save``: what comes to stand where, what stays as it is, and what a second save costs."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, external_data_helper, helper, numpy_helper

import gitmodel
from gitmodel.bundle.lock import Lock
from gitmodel.bundle.signature import Signatures
from gitmodel.bundle.yamlio import InvalidYaml
from gitmodel.errors import GitmodelError
from gitmodel.formats.goldens import InvalidGolden
from gitmodel.formats.source import InvalidModel
from gitmodel.git import NotARepository, Repository
from gitmodel.runtime import LoadFailed
from gitmodel.storage.setup import NotInitialised
from gitmodel.versions import InvalidName
from gitmodel.workflows.reading import UnclearFiles
from gitmodel.workflows.save import Saved, save
from tests import support
from tests.workflows import state


@pytest.fixture
def linear(tmp_path: Path) -> Path:
    return state.write(support.linear_model(), tmp_path / "linear.onnx")


@pytest.fixture
def wide(tmp_path: Path) -> Path:
    return state.write(support.wide_model(), tmp_path / "wide.onnx")


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A checkpoint as training leaves it: groups, attributes, one large plain tensor, one compressed, one small."""
    path = tmp_path / "checkpoint.h5"
    random = np.random.default_rng(3)
    with h5py.File(path, "w") as file:
        file.attrs["backend"] = "tests"
        layer = file.create_group("dense")
        layer.attrs["units"] = 200
        layer["kernel"] = random.normal(size=(200, 200)).astype("float32")
        layer["bias"] = np.arange(200, dtype="float64")
        packed = file.create_dataset("packed", data=np.zeros((300, 300), "int32"), chunks=(30, 300), compression="gzip")
        packed.attrs["note"] = "mostly nothing"
    return path


def lock_of(repo: Path, name: str = "fraud") -> Lock:
    return Lock.from_text((repo / "models" / name / "weights.lock").read_bytes(), name)


def committed(repo: Path) -> list[str]:
    return support.git(repo, "show", "--name-only", "--format=", "HEAD").splitlines()


def test_what_the_cache_has_already_is_not_added_to_another_model(repo: Path, wide: Path) -> None:
    first = save("fraud", [wide], repo=repo)
    other = save("other", [wide], repo=repo)
    assert (first.added, other.added, other.size) == (first.size, 0, first.size)
    shutil.rmtree(repo / ".dvc" / "cache")
    assert save("other", [wide], repo=repo).added == first.size


@pytest.mark.parametrize("size", [20, 200])
def test_tensors_of_branches_are_saved_and_come_back_as_they_were(repo: Path, tmp_path: Path, size: int) -> None:
    def branch(scale: float) -> onnx.GraphProto:
        held = numpy_helper.from_array(np.full((size, size), scale, "float32"), "w")
        out = support.value_info("out", "float32", ["batch", size])
        return helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["out"])], "branch", [], [out], [held])

    node = helper.make_node("If", ["c"], ["y"], name="choose", then_branch=branch(1), else_branch=branch(2))
    sides = [support.value_info("x", "float32", ["batch", size]), support.value_info("c", "bool", [])]
    model = support.model([node], sides, [support.value_info("y", "float32", ["batch", size])])
    path = state.write(model, tmp_path / "model.onnx")
    save("fraud", [path], repo=repo)
    x = np.ones((1, size), "float32")
    loaded, stock = gitmodel.load("fraud", repo=repo), repo / "models" / "fraud" / "weights" / "model.onnx"
    for chosen in (True, False):
        inputs = {"x": x, "c": np.array(chosen)}
        np.testing.assert_array_equal(loaded.predict(inputs)["y"], x * size * (1 if chosen else 2))
        np.testing.assert_array_equal(
            onnxruntime.InferenceSession(stock).run(None, inputs)[0], loaded.predict(inputs)["y"]
        )
    np.testing.assert_array_equal(loaded.weights["choose.else_branch/w"], np.full((size, size), 2, "float32"))
    gitmodel.export("fraud", tmp_path / "back.onnx", repo=repo)
    assert (tmp_path / "back.onnx").read_bytes() == path.read_bytes()


def test_a_first_save_writes_the_bundle_and_commits_nothing(repo: Path, wide: Path) -> None:
    head, original = support.git(repo, "rev-parse", "HEAD"), state.digest(wide)
    saved = save("fraud", [wide], repo=repo)
    folder = repo / "models" / "fraud"
    lock = lock_of(repo)
    assert saved == Saved("fraud", True, 2, lock.size, lock.size, lock.digest, 0, saved.signature)
    assert {p.name for p in folder.iterdir()} >= {
        "model.yaml", "signature.yaml", "weights", "weights.dvc", "weights.lock", ".gitignore",
    }  # fmt: skip
    assert {entry.path for entry in lock.files} == {
        "model.onnx", "weights.h5", "tensors/layer0%2Fweight.h5", "tensors/layer1%2Fweight.h5",
    }  # fmt: skip
    assert saved.signature is not None
    assert [str(spec) for spec in saved.signature.inputs] == ["x: float32[batch, 200]"]
    assert support.git(repo, "rev-parse", "HEAD") == head
    assert state.digest(wide) == original


def test_every_file_of_the_lock_stands_where_and_as_it_says(repo: Path, wide: Path) -> None:
    save("fraud", [wide], repo=repo)
    weights = repo / "models" / "fraud" / "weights"
    for entry in lock_of(repo).files:
        path = weights / entry.path
        assert (path.stat().st_size, state.digest(path)) == (entry.size, entry.sha256)
        assert state.digest(state.object_path(repo / ".dvc" / "cache", entry.md5)) == entry.sha256
    expected = state.initializers(wide)
    assert {(t.name, t.dtype, t.shape) for t in lock_of(repo).tensors} == {
        (name, "float32", values.shape) for name, values in expected.items()
    }


def test_a_message_commits_the_bundle_alone(repo: Path, linear: Path) -> None:
    (repo / "notes.txt").write_text("staged by the user")
    support.git(repo, "add", "notes.txt")
    saved = save("fraud", [linear], repo=repo, message="Our words")
    assert saved.commit == support.git(repo, "rev-parse", "HEAD")
    assert support.git(repo, "log", "-1", "--format=%s") == "Our words"
    assert {path.split("/")[1] for path in committed(repo)} == {"fraud"}
    assert support.git(repo, "status", "--porcelain") == "A  notes.txt"


def test_the_same_again_changes_nothing(repo: Path, wide: Path) -> None:
    first = save("fraud", [wide], repo=repo, message="one")
    before = state.whole(repo)
    stats = {path: support.identity(path) for path in (repo / "models").rglob("*")}
    again = save("fraud", [wide], repo=repo, message="two")
    assert not again.changed
    assert (again.commit, again.added, again.digest) == ("", 0, first.digest)
    assert state.whole(repo) == before
    assert {path: support.identity(path) for path in (repo / "models").rglob("*")} == stats, "not even written again"


def test_a_message_given_later_commits_what_was_saved(repo: Path, linear: Path) -> None:
    save("fraud", [linear], repo=repo)
    later = save("fraud", [linear], repo=repo, message="now")
    assert later.changed
    assert later.commit == support.git(repo, "rev-parse", "HEAD")
    assert support.git(repo, "status", "--porcelain") == ""


def test_what_is_not_given_stays(repo: Path, linear: Path, tmp_path: Path) -> None:
    labels, extra = tmp_path / "names.txt", tmp_path / "extra.bin"
    labels.write_text("yes\nno\nmaybe\n")
    extra.write_bytes(b"\0\1")
    cases = support.cases_npz(tmp_path / "cases.npz", rows=3)
    first = save(
        "fraud", [linear], repo=repo, params={"depth": 3}, metrics={"accuracy": 0.9}, labels=labels, assets=[extra],
        golden=cases, description="Finds fraud.",
    )  # fmt: skip
    assert first.golden_cases == 3
    folder = repo / "models" / "fraud"
    kept = ["params.yaml", "metrics.yaml", "assets/labels.txt", "assets/extra.bin", "model.yaml"]
    before = {name: (folder / name).read_bytes() for name in kept}
    assert before["assets/labels.txt"] == labels.read_bytes()
    second = state.write(support.linear_model(scale=2), tmp_path / "second.onnx")
    assert save("fraud", [second], repo=repo).golden_cases == 3
    assert {name: (folder / name).read_bytes() for name in kept} == before
    assert b"Finds fraud." in before["model.yaml"]


def test_new_goldens_take_the_place_of_the_old(repo: Path, linear: Path, tmp_path: Path) -> None:
    save("fraud", [linear], repo=repo, golden=support.cases_npz(tmp_path / "many.npz", rows=5))
    assert save("fraud", [linear], repo=repo, golden=support.cases_npz(tmp_path / "few.npz", rows=2)).golden_cases == 2
    golden = repo / "models" / "fraud" / "golden"
    assert {p.relative_to(golden).as_posix() for p in golden.rglob("*.pb")} == {
        f"few/test_data_set_{n}/{side}_0.pb" for n in (0, 1) for side in ("input", "output")
    }
    assert not save("fraud", [linear], repo=repo, golden=tmp_path / "few.npz").changed


def test_what_a_person_wrote_into_the_card_stays(repo: Path, linear: Path, tmp_path: Path) -> None:
    save("fraud", [linear], repo=repo)
    card = repo / "models" / "fraud" / "model.yaml"
    card.write_text(f"# why we keep it\n{card.read_text()}licence: MIT\ngates:\n  agreement: 0.99\n")
    text = card.read_text()
    save("fraud", [linear], repo=repo)
    assert card.read_text() == text
    save("fraud", [linear], repo=repo, description="Finds fraud.")
    assert "agreement: 0.99" in card.read_text()
    assert "licence: MIT" in card.read_text()


def test_a_card_that_cannot_be_read_is_refused_before_anything_is_written(repo: Path, linear: Path) -> None:
    save("fraud", [linear], repo=repo)
    (repo / "models" / "fraud" / "model.yaml").write_text("schema_version: 1\nnmae: fraud\n")
    before = state.whole(repo)
    with pytest.raises(InvalidYaml, match="unknown key 'nmae'"):
        save("fraud", [linear], repo=repo, description="new")
    assert state.whole(repo) == before


def test_one_changed_tensor_adds_only_its_own_bytes(repo: Path, tmp_path: Path) -> None:
    model = support.wide_model(tensors=24, size=560)
    first = save("fraud", [state.write(model, tmp_path / "first.onnx")], repo=repo, message="one")
    assert first.size > 30_000_000
    before = state.objects(repo)
    changed = model.graph.initializer[7]
    values = numpy_helper.to_array(changed) + np.float32(1)
    changed.CopyFrom(numpy_helper.from_array(values, changed.name))
    second = save("fraud", [state.write(model, tmp_path / "second.onnx")], repo=repo, message="two")
    fresh = state.objects(repo) - before
    cache = repo / ".dvc" / "cache" / "files" / "md5"
    grown = sum((cache / name).stat().st_size for name in fresh)
    # The tensor's file (its bytes and at most 4 KiB around them), and the new listing of the folder.
    assert values.nbytes < grown < values.nbytes + 8192
    assert len(fresh) == 2
    assert second.added < values.nbytes + 4096
    assert support.run("dvc", "status", cwd=repo).stdout == "Data and pipelines are up to date.\n"


def test_a_save_replaces_an_object_that_has_gone_bad(repo: Path, wide: Path, tmp_path: Path) -> None:
    save("wide", [wide], repo=repo, message="one")
    lock = Lock.from_text((repo / "models" / "wide" / "weights.lock").read_bytes(), "")
    stored = {entry.path: state.object_path(repo / ".dvc" / "cache", entry.md5) for entry in lock.files}
    for path in stored.values():
        state.rot(path)
    save("again", [wide], repo=repo, message="two")
    assert {path: state.digest(stored[path]) for path in stored} == {entry.path: entry.sha256 for entry in lock.files}
    values = gitmodel.load("again", repo=repo).weights["layer0/weight"]
    assert np.array_equal(values, state.initializers(wide)["layer0/weight"])


def test_tied_tensors_are_stored_once(repo: Path, tmp_path: Path) -> None:
    model = support.wide_model()
    one, two = model.graph.initializer
    two.raw_data = one.raw_data
    save("fraud", [state.write(model, tmp_path / "tied.onnx")], repo=repo)
    entries = {entry.path: entry.md5 for entry in lock_of(repo).files}
    assert entries["tensors/layer0%2Fweight.h5"] == entries["tensors/layer1%2Fweight.h5"]


def test_external_data_gives_the_very_bundle_that_inline_data_gives(repo: Path, wide: Path, tmp_path: Path) -> None:
    inline = save("fraud", [wide], repo=repo)
    split = tmp_path / "split"
    split.mkdir()
    model = onnx.load(str(wide))
    onnx.save_model(model, str(split / "wide.onnx"), save_as_external_data=True, location="wide.data", size_threshold=0)
    again = save("fraud", [split / "wide.onnx"], repo=repo)
    assert again.digest == inline.digest
    assert not again.changed


@pytest.mark.parametrize("location", ["../wide.data", "/etc/passwd", "absent.data", "link.data"])
def test_external_data_from_elsewhere_is_refused(repo: Path, wide: Path, tmp_path: Path, location: str) -> None:
    folder = tmp_path / "split"
    folder.mkdir()
    (tmp_path / "wide.data").write_bytes(b"\0" * 200 * 200 * 4)
    (folder / "link.data").symlink_to(tmp_path / "wide.data")
    model = onnx.load(str(wide))
    external_data_helper.set_external_data(model.graph.initializer[0], location)
    model.graph.initializer[0].ClearField("raw_data")
    before = state.whole(repo)
    with pytest.raises(InvalidModel, match="layer0/weight"):
        save("fraud", [state.write(model, folder / "wide.onnx")], repo=repo)
    assert state.whole(repo) == before


def test_a_checkpoint_keeps_groups_attributes_and_compression(
    repo: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved = save("fraud", [checkpoint], repo=repo, message="one")
    assert saved.signature is None
    weights = repo / "models" / "fraud" / "weights"
    assert not (weights / "model.onnx").exists()
    monkeypatch.chdir("/")
    with h5py.File(checkpoint) as original, h5py.File(weights / "weights.h5") as view:
        for name in ("dense/kernel", "dense/bias", "packed"):
            assert view[name].dtype == original[name].dtype
            assert np.array_equal(view[name][()], original[name][()])
        assert dict(view.attrs) == {"backend": "tests"}
        assert dict(view["dense"].attrs) == {"units": 200}
        assert view["packed"].compression == "gzip"
        assert view["packed"].attrs["note"] == "mostly nothing"
    packed = lock_of(repo).file("tensors/packed.h5")
    assert packed is not None
    assert packed.size < 300 * 300, "compressed as it came"
    assert not save("fraud", [checkpoint], repo=repo, message="two").changed


def test_a_checkpoint_restored_and_saved_again_adds_no_tensor(repo: Path, checkpoint: Path, tmp_path: Path) -> None:
    save("fraud", [checkpoint], repo=repo)
    other = tmp_path / "other.h5"
    shutil.copy(checkpoint, other)
    with h5py.File(other, "r+") as file:
        file["dense"]["bias"][0] = 99.0
    before = {entry.path: entry.md5 for entry in lock_of(repo).files}
    save("fraud", [other], repo=repo)
    after = {entry.path: entry.md5 for entry in lock_of(repo).files}
    assert {path for path in after if after[path] != before.get(path)} == {"weights.h5"}


def weightless(tmp_path: Path, *, rename: Callable[[str], str] = str) -> tuple[Path, Path]:
    """The wide model as a graph whose weights stand in an HDF5 file under ``rename``'s names."""
    model = support.wide_model()
    weights = tmp_path / "weights.h5"
    with h5py.File(weights, "w") as file:
        for tensor in model.graph.initializer:
            file[rename(tensor.name)] = numpy_helper.to_array(tensor)
            tensor.ClearField("raw_data")
            tensor.data_location = TensorProto.EXTERNAL
    return state.write(model, tmp_path / "graph.onnx"), weights


@pytest.mark.parametrize("rename", [str, lambda name: name.replace("/", ".")], ids=["same", "dotted"])
@pytest.mark.parametrize("as_option", [True, False])
def test_a_graph_takes_its_weights_from_the_checkpoint(
    repo: Path, wide: Path, tmp_path: Path, rename: Callable[[str], str], as_option: bool
) -> None:
    graph, weights = weightless(tmp_path, rename=rename)
    files, option = ([graph], weights) if as_option else ([weights, graph], None)
    saved = save("fraud", files, repo=repo, weights=option)
    assert saved.signature is not None
    folder = repo / "models" / "fraud" / "weights"
    expected = state.initializers(wide)
    through_onnx = state.initializers(folder / "model.onnx")
    with h5py.File(folder / "weights.h5") as view:
        for name, values in expected.items():
            assert np.array_equal(through_onnx[name], values)
            assert np.array_equal(view[rename(name)][()], values)
    x = np.ones((1, 200), "float32")
    outputs = gitmodel.load("fraud", repo=repo).predict({"x": x})
    save("inline", [wide], repo=repo)
    assert np.array_equal(outputs["h1"], gitmodel.load("inline", repo=repo).predict({"x": x})["h1"])


def test_a_graph_without_its_weights_is_refused(repo: Path, tmp_path: Path) -> None:
    graph, weights = weightless(tmp_path)
    before = state.whole(repo)
    with pytest.raises(InvalidModel, match="'layer0/weight': it has no data"):
        save("fraud", [graph], repo=repo)
    with h5py.File(weights, "r+") as file:
        del file["layer1/weight"]
    with pytest.raises(InvalidModel, match="no weights for 'layer1/weight'"):
        save("fraud", [graph], repo=repo, weights=weights)
    with h5py.File(weights, "r+") as file:
        file["layer1/weight"] = np.zeros((200, 199), "float32")
    with pytest.raises(InvalidModel, match=r"float32\[200, 200\] in the graph and float32\[200, 199\] in the weights"):
        save("fraud", [graph], repo=repo, weights=weights)
    assert state.whole(repo) == before


def test_text_and_integers_travel_in_both_views(repo: Path, tmp_path: Path) -> None:
    words = numpy_helper.from_array(np.array(["yes", "no"], object), "words")
    index = numpy_helper.from_array(np.array([1, 0], "int64"), "index")
    node = helper.make_node("Gather", ["words", "x"], ["word"])
    keep = helper.make_node("Identity", ["index"], ["order"])
    inputs = [support.value_info("x", "int64", ["n"])]
    outputs = [support.value_info("word", "string", ["n"]), support.value_info("order", "int64", [2])]
    model = support.model([node, keep], inputs, outputs)
    model.graph.initializer.extend([words, index])
    save("fraud", [state.write(model, tmp_path / "words.onnx")], repo=repo)
    answer = gitmodel.load("fraud", repo=repo).predict({"x": np.array([1, 0, 0])})
    assert answer["word"].tolist() == ["no", "yes", "yes"]
    with h5py.File(repo / "models" / "fraud" / "weights" / "weights.h5") as view:
        assert [word.decode() for word in view["words"][()]] == ["yes", "no"]
        assert view["index"][()].tolist() == [1, 0]


def test_paths_are_relative_to_where_the_user_is(repo: Path, linear: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (repo / "deep").mkdir()
    monkeypatch.chdir(repo / "deep")
    save("fraud", ["../../linear.onnx"])
    assert (repo / "models" / "fraud" / "weights.lock").is_file()


def test_a_linked_worktree_is_a_place_like_any_other(repo: Path, linear: Path, tmp_path: Path) -> None:
    support.git(repo, "worktree", "add", "-q", str(tmp_path / "tree"), "-b", "side")
    saved = save("fraud", [linear], repo=tmp_path / "tree", message="one")
    assert support.git(repo, "rev-parse", "side") == saved.commit
    assert not (repo / "models").exists()
    assert support.run("dvc", "status", cwd=tmp_path / "tree").stdout == "Data and pipelines are up to date.\n"


def test_yaml_files_are_read_strictly(repo: Path, linear: Path, tmp_path: Path) -> None:
    params = tmp_path / "params.yaml"
    params.write_text("rate: 1e-3\nmode: no\n")
    save("fraud", [linear], repo=repo, params=params)
    assert gitmodel.load("fraud", repo=repo).params == {"rate": 0.001, "mode": "no"}
    before = state.whole(repo)
    for text, said in (("a: 1\na: 2\n", "'a' stands twice"), ("- 1\n", "must be a mapping"), ("a: &x [*x]\n", "alias")):
        params.write_text(text)
        with pytest.raises(InvalidYaml, match=said):
            save("fraud", [linear], repo=repo, params=params)
    with pytest.raises(UnclearFiles, match="there is no metrics file"):
        save("fraud", [linear], repo=repo, metrics=tmp_path / "absent.yaml")
    assert state.whole(repo) == before


def test_files_that_make_no_model_are_refused(repo: Path, linear: Path, wide: Path, checkpoint: Path) -> None:
    before = state.whole(repo)
    for given, said in (([linear, wide], "2 graphs do not make one model"), ([], "no file was given")):
        with pytest.raises(UnclearFiles, match=said):
            save("fraud", given, repo=repo)
    with pytest.raises(InvalidModel, match="only shards without a graph or groups make one checkpoint"):
        save("fraud", [checkpoint, checkpoint], repo=repo)
    with pytest.raises(UnclearFiles, match=r"there is no file .*absent"):
        save("fraud", [linear], repo=repo, assets=[linear.parent / "absent"])
    with pytest.raises(UnclearFiles, match=r"there is no file .*absent"):
        save("fraud", [linear], repo=repo, labels=linear.parent / "absent")
    assert state.whole(repo) == before


def test_two_assets_of_one_name_are_refused(repo: Path, linear: Path, tmp_path: Path) -> None:
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "labels.txt").write_text(folder)
    one, two = (tmp_path / folder / "labels.txt" for folder in ("a", "b"))
    with pytest.raises(UnclearFiles, match=r"labels\.txt"):
        save("fraud", [linear], repo=repo, assets=[one, two])
    with pytest.raises(UnclearFiles, match=r"labels\.txt"):
        save("fraud", [linear], repo=repo, assets=[one], labels=two)


def test_goldens_that_do_not_fit_are_refused_and_leave_nothing(
    repo: Path, linear: Path, checkpoint: Path, tmp_path: Path
) -> None:
    before = state.whole(repo)
    with pytest.raises(InvalidGolden, match="'y' the model has no tensor for"):
        save("fraud", [linear], repo=repo, golden=support.cases_npz(tmp_path / "y.npz", name="y"))
    with pytest.raises(GitmodelError, match="Got: 5 Expected: 4"):
        save("fraud", [linear], repo=repo, golden=support.cases_npz(tmp_path / "five.npz", width=5))
    with pytest.raises(InvalidGolden, match="golden cases need a graph"):
        save("fraud", [checkpoint], repo=repo, golden=support.cases_npz(tmp_path / "x.npz"))
    assert state.whole(repo) == before


def test_what_cannot_be_served_is_not_saved(repo: Path, tmp_path: Path) -> None:
    model = support.linear_model()
    model.graph.node[0].op_type = "NoSuchOperator"
    before = state.whole(repo)
    with pytest.raises(LoadFailed, match=r"odd\.onnx"):
        save("fraud", [state.write(model, tmp_path / "odd.onnx")], repo=repo, message="one")
    assert state.whole(repo) == before


def test_the_users_own_file_in_the_weights_folder_is_not_lost(repo: Path, linear: Path, wide: Path) -> None:
    save("fraud", [linear], repo=repo, message="one")
    mine = repo / "models" / "fraud" / "weights" / "mine.onnx"
    shutil.copy(wide, mine)
    before = state.whole(repo)
    for given in (mine, linear):
        with pytest.raises(GitmodelError, match=r"mine\.onnx"):
            save("fraud", [given], repo=repo)
        assert state.whole(repo) == before


@pytest.mark.parametrize("link", ["models", "models/fraud", "models/fraud/weights", "models/fraud/weights/tensors"])
def test_nothing_is_written_through_a_symbolic_link(repo: Path, wide: Path, tmp_path: Path, link: str) -> None:
    victim = tmp_path / "victim"
    victim.mkdir()
    (repo / link).parent.mkdir(parents=True, exist_ok=True)
    (repo / link).symlink_to(victim)
    with pytest.raises(GitmodelError, match="symbolic link"):
        save("fraud", [wide], repo=repo)
    assert list(victim.iterdir()) == []


def test_the_place_must_be_a_model_repository(git_repo: Path, linear: Path, tmp_path: Path) -> None:
    with pytest.raises(NotInitialised):
        save("fraud", [linear], repo=git_repo)
    with pytest.raises(NotARepository):
        save("fraud", [linear], repo=tmp_path)


def test_an_object_is_made_into_a_model_before_others_have_to_wait(repo: Path) -> None:
    with Repository.open(repo).lock(), pytest.raises(InvalidModel, match="no model that can be saved"):
        save("fraud", object(), repo=repo)


@pytest.mark.parametrize("name", ["", "../x", "a/b", "a b", "a@v1.0.0", "a#b", "-a", "a_", "é", "a" * 101, "$(id)"])
def test_an_illegal_name_is_refused(repo: Path, linear: Path, name: str) -> None:
    before = state.whole(repo)
    with pytest.raises(InvalidName):
        save(name, [linear], repo=repo)
    assert state.whole(repo) == before


def test_the_users_own_dvc_yaml_stays(repo: Path, linear: Path) -> None:
    save("fraud", [linear], repo=repo, params={"depth": 3})
    written = repo / "models" / "fraud" / "dvc.yaml"
    assert written.read_text() == "params:\n- params.yaml\n"
    save("fraud", [linear], repo=repo, metrics={"accuracy": 0.9})
    assert written.read_text() == "params:\n- params.yaml\nmetrics:\n- metrics.yaml\n"
    written.write_text(f"# our plots\n{written.read_text()}plots:\n- roc.csv\n")
    text = written.read_text()
    save("fraud", [linear], repo=repo, metrics={"accuracy": 0.8})
    assert written.read_text() == text


def test_models_live_side_by_side(repo: Path, linear: Path, wide: Path) -> None:
    save("fraud", [linear], repo=repo, message="one")
    before = state.files(repo / "models" / "fraud")
    save("fraud-2", [wide], repo=repo, message="two")
    assert state.files(repo / "models" / "fraud") == before
    assert {path.split("/")[1] for path in committed(repo)} == {"fraud-2"}


# Several signatures ---------------------------------------------------------------------------------------------------

X = np.random.default_rng(6).normal(size=(3, 200)).astype("float32")


@pytest.fixture
def embed(tmp_path: Path) -> Path:
    """A second graph over the first weight of ``wide``: ``e = x @ layer0/weight``."""
    return write_embed(tmp_path / "embed.onnx", support.wide_model())


def write_embed(path: Path, model: onnx.ModelProto) -> Path:
    model.graph.node.pop()
    model.graph.initializer.pop()
    model.graph.node[0].output[0] = model.graph.output[0].name = "e"
    return state.write(model, path)


def signatures_of(repo: Path) -> dict[str, list[str]]:
    """What goes in and out of each signature of ``fraud``."""
    text = (repo / "models" / "fraud" / "signature.yaml").read_bytes()
    found = Signatures.from_yaml(text, "signature.yaml").by_name
    return {name: [spec.name for spec in (*one.inputs, *one.outputs)] for name, one in found.items()}


def run(repo: Path, view: str) -> np.ndarray:
    """What the stock runtime gives for ``X``, in the working tree."""
    (answer,) = onnxruntime.InferenceSession(repo / "models" / "fraud" / "weights" / view).run(None, {"x": X})
    return np.asarray(answer)


def test_two_graphs_over_the_same_weights_store_them_once(repo: Path, wide: Path, embed: Path) -> None:
    alone = save("fraud", [wide], repo=repo, message="one")
    both = save("fraud", [wide], repo=repo, signatures={"embed": embed}, message="two")
    entry = lock_of(repo).file("model.embed.onnx")
    assert entry is not None
    assert (both.added, both.size, both.tensors) == (entry.size, alone.size + entry.size, alone.tensors)
    assert both.signature == alone.signature
    assert signatures_of(repo) == {"default": ["x", "h1"], "embed": ["x", "e"]}
    weights = state.initializers(wide)
    hidden = X @ weights["layer0/weight"]
    np.testing.assert_allclose(run(repo, "model.embed.onnx"), hidden, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(run(repo, "model.onnx"), hidden @ weights["layer1/weight"], rtol=1e-4, atol=1e-4)
    assert support.run("dvc", "status", cwd=repo).stdout == "Data and pipelines are up to date.\n"
    assert not save("fraud", [wide], repo=repo, signatures={"embed": embed}, message="three").changed


def test_a_graphs_own_values_have_its_name_before_theirs(repo: Path, wide: Path, tmp_path: Path) -> None:
    other = write_embed(tmp_path / "other.onnx", support.wide_model(scale=2.0))
    save("fraud", [wide], repo=repo, signatures={"embed": other})
    assert {t.name for t in lock_of(repo).tensors} == {"layer0/weight", "layer1/weight", "embed/layer0/weight"}
    weights, own = state.initializers(wide), state.initializers(other)["layer0/weight"]
    np.testing.assert_allclose(run(repo, "model.embed.onnx"), X @ own, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(
        run(repo, "model.onnx"), X @ weights["layer0/weight"] @ weights["layer1/weight"], rtol=1e-4, atol=1e-4
    )
    with h5py.File(repo / "models" / "fraud" / "weights" / "weights.h5") as view:
        np.testing.assert_array_equal(view["embed/layer0/weight"][()], own)


def test_a_signature_that_is_not_given_again_goes(repo: Path, wide: Path, embed: Path) -> None:
    alone = save("fraud", [wide], repo=repo)
    save("fraud", [wide], repo=repo, signatures={"embed": embed})
    again = save("fraud", [wide], repo=repo)
    assert (again.changed, again.digest) == (True, alone.digest)
    assert signatures_of(repo) == {"default": ["x", "h1"]}
    assert not (repo / "models" / "fraud" / "weights" / "model.embed.onnx").exists()


def test_a_model_in_memory_may_have_further_graphs_too(repo: Path, wide: Path, embed: Path) -> None:
    from_files = save("fraud", [wide], repo=repo, signatures={"embed": embed})
    in_memory = save("fraud", onnx.load(str(wide)), repo=repo, signatures={"embed": embed})
    assert (in_memory.changed, in_memory.digest) == (False, from_files.digest)


def test_graphs_without_weights_take_those_of_the_checkpoint(repo: Path, wide: Path, tmp_path: Path) -> None:
    """As exporters write a SavedModel: a graph for each signature, and the variables beside them."""
    graph, weights = weightless(tmp_path)
    model = onnx.load(str(graph), load_external_data=False)
    embed = write_embed(tmp_path / "embed.onnx", model)
    save("fraud", [graph], weights=weights, signatures={"embed": embed}, repo=repo)
    assert {t.name for t in lock_of(repo).tensors} == {"layer0/weight", "layer1/weight"}
    expected = X @ state.initializers(wide)["layer0/weight"]
    np.testing.assert_allclose(run(repo, "model.embed.onnx"), expected, rtol=1e-4, atol=1e-4)


def card_says(repo: Path, text: str) -> None:
    card = repo / "models" / "fraud" / "model.yaml"
    card.write_text(f"{card.read_text()}signatures: {text}\n")


def test_groups_of_outputs_in_the_card_are_signatures_after_the_next_save(repo: Path, tmp_path: Path) -> None:
    model = support.wide_model()
    model.graph.output.append(support.value_info("h0", "float32", ["batch", 200]))
    path = state.write(model, tmp_path / "two.onnx")
    save("fraud", [path], repo=repo)
    assert signatures_of(repo) == {"default": ["x", "h1", "h0"]}
    card_says(repo, "{embed: {outputs: [h0]}, both: {outputs: [h0, h1]}}")
    saved = save("fraud", [path], repo=repo, message="grouped")
    assert (saved.changed, saved.added) == (True, 0)
    assert signatures_of(repo) == {"default": ["x", "h1", "h0"], "embed": ["x", "h0"], "both": ["x", "h0", "h1"]}
    assert {path.name for path in (repo / "models" / "fraud" / "weights").glob("*.onnx")} == {"model.onnx"}
    assert not save("fraud", [path], repo=repo, message="again").changed


@pytest.mark.parametrize(
    ("groups", "said"),
    [
        ("{embed: {outputs: [h7]}}", "signature 'embed' names 'h7', which the model does not have"),
        ("{embed: {inputs: [h1]}}", "signature 'embed' names 'h1', which the model does not have"),
        ("{default: {outputs: [h1]}}", "signature 'default': a graph has that name"),
        ("{tags: {outputs: [h1]}}", "signature 'tags': a graph has that name"),
    ],
)
def test_groups_the_model_does_not_have_are_refused(
    repo: Path, wide: Path, embed: Path, groups: str, said: str
) -> None:
    save("fraud", [wide], repo=repo)
    card_says(repo, groups)
    before = state.whole(repo)
    done = support.gitmodel("save", "fraud", wide, "--signature", f"tags={embed}", cwd=repo)
    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert state.whole(repo) == before


def test_the_command_line_gives_signatures_by_name(repo: Path, wide: Path, embed: Path) -> None:
    done = support.gitmodel(
        "save", "fraud", wide, "--signature", f"embed={embed}", "--signature", f"tags={embed}", "-m", "one", cwd=repo
    )
    assert (done.returncode, done.stdout) == (0, "")
    assert list(signatures_of(repo)) == ["default", "embed", "tags"]
    before = state.whole(repo)
    for option, said in (
        ("embed", "NAME=FILE"),
        ("embed=", "NAME=FILE"),
        (f"={embed}", "no signature name"),
        (f"a/b={embed}", "no signature name"),
        (f"default={embed}", "'default' is the model's own signature"),
        ("embed=absent.onnx", "there is no file absent.onnx"),
    ):
        done = support.gitmodel("save", "fraud", wide, "--signature", option, cwd=repo)
        assert done.returncode == 2, option
        assert said in done.stderr, option
        assert "internal" not in done.stderr
    assert state.whole(repo) == before


def test_a_signature_given_twice_is_not_half_lost(repo: Path, wide: Path, embed: Path) -> None:
    done = support.gitmodel(
        "save", "fraud", wide, "--signature", f"embed={embed}", "--signature", f"embed={wide}", cwd=repo
    )
    assert done.returncode == 2
    assert "embed" in done.stderr
    assert not (repo / "models" / "fraud").exists()


def test_a_graph_that_cannot_be_served_is_not_saved_under_any_name(repo: Path, wide: Path, tmp_path: Path) -> None:
    model = support.linear_model()
    model.graph.node[0].op_type = "NoSuchOperator"
    odd = state.write(model, tmp_path / "odd.onnx")
    before = state.whole(repo)
    with pytest.raises(LoadFailed, match=r"wide\.onnx, signature 'embed'"):
        save("fraud", [wide], repo=repo, signatures={"embed": odd}, message="one")
    assert state.whole(repo) == before


def test_a_signatures_graph_in_the_weights_folder_is_not_lost(repo: Path, wide: Path, embed: Path) -> None:
    save("fraud", [wide], repo=repo, signatures={"embed": embed})
    own = repo / "models" / "fraud" / "weights" / "model.embed.onnx"
    before = state.whole(repo)
    with pytest.raises(GitmodelError, match=r"model\.embed\.onnx lies in the folder that is about to be written"):
        save("fraud", [wide], repo=repo, signatures={"embed": own})
    assert state.whole(repo) == before
