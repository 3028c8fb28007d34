"""gitmodel.serving.fetching and .opening: real versions fetched, verified, opened and replayed before they may answer."""

from __future__ import annotations

import os
import re
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from gitmodel import runtime
from gitmodel.bundle.bundle import NotServable
from gitmodel.bundle.lock import InvalidLock, Lock
from gitmodel.bundle.signature import Signature, Signatures
from gitmodel.errors import GitmodelError
from gitmodel.registry import UnknownVersion
from gitmodel.runtime import LoadFailed
from gitmodel.serving.fetching import Fetcher
from gitmodel.serving.opening import FilesChanged, Opener
from gitmodel.serving.policy import AspiredVersion
from gitmodel.serving.servable import Servable
from gitmodel.serving.validation import FalseSignature, GoldenFailed, UnlistedFile
from gitmodel.storage.remote import NoRemote, RemoteFailed
from gitmodel.workflows import save, transfer
from tests import support
from tests.serving.production import Loader, Production, rows


def aspired(repo: Path, tag: str, number: int = 1) -> AspiredVersion:
    model, _, version = tag.partition("@")
    return AspiredVersion(model, version, support.git(repo, "rev-parse", f"{tag}^{{commit}}"), number)


def load(repo: Path, tag: str, *, store: Path | None = None, remote_url: str = "") -> Servable:
    """As a server that has just started would."""
    return Loader(Fetcher(repo, store=store, remote_url=remote_url)).load(aspired(repo, tag))


def released(production: Production, tag: str = "fraud@v1.0.0", *, scale: float = 1.0) -> str:
    production.release(tag, scale=scale)
    production.push(tag)
    return tag


def released_as_is(production: Production, message: str, tag: str = "fraud@v1.0.0") -> str:
    """Whatever lies in the author's working tree becomes a version, as plain Git would do it."""
    support.git(production.author, "add", "-A")
    support.git(production.author, "commit", "-qm", message)
    production.tag(tag)
    production.push(tag)
    return tag


def scores(proto: onnx.ModelProto, values: np.ndarray, tmp_path: Path) -> np.ndarray:
    """What ONNX Runtime itself gives for the model that was saved."""
    path = tmp_path / "original.onnx"
    path.write_bytes(proto.SerializeToString())
    return next(iter(runtime.open_session(path).run({"x": values}).values()))


def overwrite(path: Path, data: bytes) -> None:
    path.chmod(stat.S_IMODE(path.stat().st_mode) | stat.S_IWUSR)
    path.write_bytes(data)
    path.chmod(0o444)


def objects(root: Path, *, containing: bytes = b"") -> list[Path]:
    """DVC's objects below a cache or remote, without its listings."""
    found = [p for p in sorted(root.rglob("*")) if p.is_file() and p.suffix != ".dir" and len(p.parent.name) == 2]
    return [p for p in found if containing in p.read_bytes()]


def flipped(path: Path) -> bytes:
    """The file's bytes with the last one changed: same size, other contents."""
    data = path.read_bytes()
    return data[:-1] + bytes([data[-1] ^ 1])


def lock_of(repo: Path, name: str = "fraud") -> Lock:
    return Lock.from_text((repo / "models" / name / "weights.lock").read_bytes(), "test")


def test_a_bare_repository_loads_from_the_remote_its_commit_names(production: Production, tmp_path: Path) -> None:
    tag = released(production)
    found = load(production.bare, tag)
    assert (found.model, found.version, found.number) == ("fraud", "v1.0.0", 1)
    assert found.commit == support.git(production.author, "rev-parse", "HEAD")
    assert found.digest == lock_of(production.author).digest
    assert found.platform == "onnxruntime_onnx"
    assert (found.golden_passed, found.golden_cases) == (4, 4)
    assert 0 < found.run_seconds < 1
    assert [str(spec) for spec in found.signature.inputs] == ["x: float32[batch, 4]"]
    assert dict(found.headers) == {
        b"gitmodel-version": b"v1.0.0",
        b"gitmodel-commit": found.commit.encode(),
        b"gitmodel-weights": b"sha256:" + found.digest.encode(),
    }
    want = scores(support.linear_model(), rows(3), tmp_path)
    assert found.session.run({"x": rows(3)})["scores"].tolist() == want.tolist()


def test_tensors_in_files_of_their_own_are_found(production: Production, tmp_path: Path) -> None:
    production.save(support.wide_model(), "wide")
    production.tag("wide@v1.0.0")
    production.push("wide@v1.0.0")
    found = load(production.bare, "wide@v1.0.0")
    values = np.ones((2, 200), "float32")
    want = scores(support.wide_model(), values, tmp_path)
    assert found.session.run({"x": values})["h1"].tolist() == want.tolist()
    assert len(objects(production.bare / "gitmodel" / "store")) == 3  # two tensors and the ONNX view


@pytest.mark.parametrize("size", [300, 20_000])
def test_tensors_of_branches_are_found(production: Production, size: int) -> None:
    def branch(scale: float) -> onnx.GraphProto:
        held = numpy_helper.from_array(np.full(size, scale, "float32"), "w")
        out = support.value_info("out", "float32", [size])
        return helper.make_graph([helper.make_node("Add", ["x", "w"], ["out"])], "branch", [], [out], [held])

    nodes = [
        helper.make_node("Constant", [], ["c"], value=numpy_helper.from_array(np.array(True))),
        helper.make_node("If", ["c"], ["y"], then_branch=branch(1), else_branch=branch(2)),
    ]
    x, y = (support.value_info(name, "float32", [size]) for name in ("x", "y"))
    production.save(support.model(nodes, [x], [y]), "fraud")
    production.tag("fraud@v1.0.0")
    production.push("fraud@v1.0.0")
    found = load(production.bare, "fraud@v1.0.0")
    assert found.session.run({"x": np.zeros(size, "float32")})["y"].tolist() == [1.0] * size


def test_a_working_repository_loads_from_its_dvc_cache(production: Production) -> None:
    production.release("fraud@v1.0.0")
    production.lose_remote()
    assert load(production.author, "fraud@v1.0.0").golden_passed == 4


def test_weights_that_were_saved_in_another_working_tree_are_at_hand(production: Production, tmp_path: Path) -> None:
    tag = released(production)
    support.git(production.author, "worktree", "add", "-q", "--detach", str(tmp_path / "linked"))
    shutil.rmtree(production.storage)
    assert load(tmp_path / "linked", tag).version == "v1.0.0"


def test_a_working_repository_with_an_empty_cache_loads_from_the_remote(production: Production) -> None:
    production.release("fraud@v1.0.0")
    shutil.rmtree(production.author / ".dvc" / "cache")
    assert load(production.author, "fraud@v1.0.0").golden_passed == 4


def test_a_damaged_object_in_the_cache_is_not_believed(production: Production) -> None:
    production.release("fraud@v1.0.0")
    for path in objects(production.author / ".dvc" / "cache"):
        overwrite(path, flipped(path))
    assert load(production.author, "fraud@v1.0.0").golden_passed == 4
    production.lose_remote()
    with pytest.raises(GitmodelError):
        load(production.author, "fraud@v1.0.0", store=production.storage.parent / "another")


def test_other_bytes_in_the_remote_are_refused(production: Production) -> None:
    tag = released(production)
    for path in objects(production.storage):
        overwrite(path, flipped(path))
    with pytest.raises(RemoteFailed):
        load(production.bare, tag)
    assert not (production.bare / "gitmodel" / "store" / "versions").exists()


def test_a_remote_that_is_mended_serves_again(production: Production) -> None:
    tag = released(production)
    loader = Loader(Fetcher(production.bare))
    production.storage.rename(production.storage.with_name("away"))
    with pytest.raises(RemoteFailed):
        loader.load(aspired(production.bare, tag))
    production.storage.with_name("away").rename(production.storage)
    assert loader.load(aspired(production.bare, tag)).golden_passed == 4


def test_weights_nobody_pushed_are_missing_by_name(production: Production) -> None:
    production.save(support.linear_model(), "spam")
    path = production.author.parent / "fraud.onnx"
    path.write_bytes(support.linear_model(seed=5).SerializeToString())
    save.save("fraud", [path], repo=production.author, message="never sent")
    production.push(production.tag("fraud@v1.0.0"))
    with pytest.raises(RemoteFailed, match=r"model\.onnx") as caught:
        load(production.bare, "fraud@v1.0.0")
    assert "gitmodel push" in caught.value.hint


def test_golden_cases_that_fail_refuse_the_version_with_the_reason(production: Production) -> None:
    production.push(production.release("fraud@v1.0.0", broken=True))
    with pytest.raises(GoldenFailed, match="4 of 4 golden cases fail") as caught:
        load(production.bare, "fraud@v1.0.0")
    assert "case cases/0: output 'scores' differs" in caught.value.message


def test_a_checkpoint_without_a_graph_is_not_servable(production: Production) -> None:
    path = production.author.parent / "weights.h5"
    with h5py.File(path, "w") as file:
        file["layer/weight"] = np.ones((3, 3), "float32")
    save.save("fraud", [path], repo=production.author, message="a checkpoint")
    transfer.push(["fraud"], repo=production.author)
    production.push(production.tag("fraud@v1.0.0"))
    with pytest.raises(NotServable, match=r"fraud@v1\.0\.0 is a checkpoint without a graph"):
        load(production.bare, "fraud@v1.0.0")


def test_a_file_the_lock_does_not_list_is_never_opened(production: Production) -> None:
    production.save(support.wide_model())
    lock = production.author / "models" / "fraud" / "weights.lock"
    hidden = "tensors/layer0%2Fweight.h5"
    lines = lock.read_text().splitlines(keepends=True)
    kept = [line for line in lines if not line.startswith(f"file {hidden}")]
    assert len(kept) == len(lines) - 1
    lock.write_text("".join(kept))
    tag = released_as_is(production, "hide a file")
    with pytest.raises(UnlistedFile, match=f"fraud@v1.0.0 points at '{hidden}'"):
        load(production.bare, tag)


@pytest.mark.parametrize("location", ["../../outside", "/etc/hostname", "nowhere"])
def test_a_model_that_points_elsewhere_is_never_opened(production: Production, location: str) -> None:
    production.save(support.wide_model())
    folder = production.author / "models" / "fraud"
    model = onnx.load_model(folder / "weights" / "model.onnx", load_external_data=False)
    for entry in model.graph.initializer[0].external_data:
        if entry.key == "location":
            entry.value = location
    (folder / "weights" / "model.onnx").write_bytes(model.SerializeToString())
    vouch(production, "model.onnx")
    tag = released_as_is(production, "point elsewhere")
    with pytest.raises(UnlistedFile, match="points at"):
        load(production.bare, tag)


def vouch(production: Production, path: str) -> None:
    """Puts the file as it lies in the weights folder into lock and remote, as somebody without gitmodel could."""
    import hashlib

    folder = production.author / "models" / "fraud"
    data = (folder / "weights" / path).read_bytes()
    md5, sha256 = hashlib.md5(data).hexdigest(), hashlib.sha256(data).hexdigest()
    lock = folder / "weights.lock"
    lines = lock.read_text().splitlines()
    others = [line for line in lines if not line.startswith(f"file {path} ")]
    lock.write_text("\n".join([*others, f"file {path} {len(data)} {sha256} {md5}"]) + "\n")
    target = production.storage / "files" / "md5" / md5[:2] / md5[2:]
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(data)


def test_what_the_runtime_does_not_load_is_refused(production: Production) -> None:
    production.save(support.linear_model())
    view = production.author / "models" / "fraud" / "weights" / "model.onnx"
    model = onnx.load_model(view)
    model.graph.node[0].op_type = "NoSuchOperator"
    view.write_bytes(model.SerializeToString())
    vouch(production, "model.onnx")
    tag = released_as_is(production, "an operator nobody has")
    with pytest.raises(LoadFailed, match="NoSuchOperator"):
        load(production.bare, tag)


@pytest.mark.parametrize("golden", [{"x": rows(2)}, None], ids=["with cases", "without"])
@pytest.mark.parametrize(
    ("old", "new", "wrong"),
    [
        ("name: x", "name: q", "input 'q: float32[batch, 4]' (the graph has 'x: float32[batch, 4]')"),
        (
            "name: scores",
            "name: score",
            "output 'score: float32[batch, 3]' (the graph has 'scores: float32[batch, 3]')",
        ),
        ("dtype: float32", "dtype: float64", "input 'x: float64[batch, 4]' (the graph has 'x: float32[batch, 4]')"),
        ("[batch, 4]", "[batch, 5]", "input 'x: float32[batch, 5]' (the graph has 'x: float32[batch, 4]')"),
        ("[batch, 4]", "[4]", "input 'x: float32[4]' (the graph has 'x: float32[batch, 4]')"),
    ],
)
def test_a_signature_that_the_graph_does_not_bear_out_is_refused(
    production: Production, golden: dict[str, np.ndarray] | None, old: str, new: str, wrong: str
) -> None:
    production.save(support.linear_model(), golden=golden)
    path = production.author / "models" / "fraud" / "signature.yaml"
    assert old in path.read_text()
    path.write_text(path.read_text().replace(old, new))
    tag = released_as_is(production, "say otherwise")
    with pytest.raises(FalseSignature, match=re.escape(wrong)):
        load(production.bare, tag)


def test_a_signature_that_leaves_out_a_necessary_input_is_refused(production: Production) -> None:
    inputs = [support.value_info(name, "float32", [2]) for name in ("a", "b")]
    total = [helper.make_node("Add", ["a", "b"], ["c"])]
    production.save(support.model(total, inputs, [support.value_info("c", "float32", [2])]))
    path = production.author / "models" / "fraud" / "signature.yaml"
    said = Signatures.from_yaml(path.read_bytes(), "signature.yaml").by_name["default"]
    path.write_text(Signatures({"default": Signature(said.inputs[:1], said.outputs)}).to_yaml())
    tag = released_as_is(production, "forget one")
    with pytest.raises(FalseSignature, match=r"input 'b: float32\[2\]' \(which the graph needs\)"):
        load(production.bare, tag)


def test_a_signature_may_promise_less_than_the_graph(production: Production) -> None:
    production.save(support.linear_model())
    path = production.author / "models" / "fraud" / "signature.yaml"
    path.write_text(path.read_text().replace("batch", "7"))
    assert load(production.bare, released_as_is(production, "seven rows, no fewer")).signature.inputs[0].shape == (7, 4)


def test_the_signature_that_the_card_names_is_that_of_its_own_graph(production: Production) -> None:
    paths = [production.storage.parent / name for name in ("whole.onnx", "half.onnx")]
    for path, model in zip(paths, (support.linear_model(), support.linear_model(output_name="half")), strict=True):
        path.write_bytes(model.SerializeToString())
    save.save("fraud", [paths[0]], repo=production.author, signatures={"half": paths[1]})
    transfer.push(["fraud"], repo=production.author)
    card = production.author / "models" / "fraud" / "model.yaml"
    card.write_text(re.sub("(?m)^signature:.*\n", "", card.read_text()) + "signature: half\n")
    found = load(production.bare, released_as_is(production, "half of it"))
    assert [spec.name for spec in found.signature.outputs] == ["half"]
    assert list(found.session.run({"x": rows(1)})) == ["half"]


def test_a_damaged_lock_is_refused(production: Production) -> None:
    production.save(support.linear_model())
    (production.author / "models" / "fraud" / "weights.lock").write_text("nothing of the kind\n")
    tag = released_as_is(production, "damage")
    with pytest.raises(InvalidLock, match=r"fraud@v1.0.0: weights\.lock"):
        load(production.bare, tag)


def test_what_killed_servers_left_half_made_is_swept(production: Production) -> None:
    tag = released(production)
    load(production.bare, tag)
    store = production.bare / "gitmodel" / "store"
    kept = {path: path.read_bytes() for path in store.rglob("*") if path.is_file()}
    left = [store / "files" / "md5" / "tmp-gitmodel-1", store / "versions" / "building-1" / "model.onnx"]
    anothers = [store / "files" / "md5" / "tmp-gitmodel-2", store / "versions" / "building-2" / "model.onnx"]
    for path in left + anothers:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"half of it")
    for path in (left[0], left[1].parent):
        os.utime(path, (0, 0))
    Fetcher(production.bare)
    assert not any(path.exists() for path in (*left, left[1].parent))
    assert all(path.exists() for path in anothers)
    assert {path: path.read_bytes() for path in kept} == kept


def test_a_tag_that_has_gone_or_moved_since_is_refused(production: Production) -> None:
    tag = released(production)
    before = aspired(production.bare, tag)
    loader = Loader(Fetcher(production.bare))
    support.git(production.bare, "tag", "-f", "-a", "-m", "moved", tag, f"{tag}^{{commit}}~")
    with pytest.raises(UnknownVersion, match="no longer on"):
        loader.load(before)
    support.git(production.bare, "tag", "-d", tag)
    with pytest.raises(UnknownVersion, match="no longer on"):
        loader.load(before)


def test_a_version_that_was_withdrawn_is_called_so(production: Production) -> None:
    tag = released(production)
    before = aspired(production.bare, tag)
    production.push(production.tag(f"{tag}!"))
    with pytest.raises(UnknownVersion, match=r"fraud@v1\.0\.0 has been withdrawn"):
        Loader(Fetcher(production.bare)).load(before)


def set_remote(production: Production, text: str) -> None:
    (production.author / ".dvc" / "config").write_text(text)


def test_a_relative_remote_means_nothing_to_a_bare_repository(production: Production) -> None:
    set_remote(production, "[core]\n    remote = storage\n['remote \"storage\"']\n    url = ../../storage\n")
    production.save(support.linear_model())
    tag = released_as_is(production, "relative")
    with pytest.raises(NoRemote, match=r"'\.\./\.\./storage' is relative") as caught:
        load(production.bare, tag)
    assert "--remote URL" in caught.value.hint
    assert load(production.bare, tag, remote_url=str(production.storage)).version == "v1.0.0"
    with pytest.raises(NoRemote, match="'storage' is relative"):
        load(production.bare, tag, remote_url="storage", store=production.storage.parent / "another")


def test_a_relative_remote_that_is_not_the_default_is_in_nobodys_way(production: Production) -> None:
    text = (production.author / ".dvc" / "config").read_text()
    set_remote(production, text + "['remote \"backup\"']\n    url = ../../backup\n")
    production.save(support.linear_model())
    tag = released_as_is(production, "a second remote")
    assert load(production.bare, tag).version == "v1.0.0"


def test_a_commit_without_dvc_needs_a_remote_by_hand(production: Production) -> None:
    production.save(support.linear_model())
    support.git(production.author, "rm", "-q", "--cached", ".dvc/config")
    support.git(production.author, "commit", "-qm", "without DVC")
    production.push(production.tag("fraud@v1.0.0"))
    with pytest.raises(NoRemote, match=r"no \.dvc/config") as caught:
        load(production.bare, "fraud@v1.0.0")
    assert "--remote URL" in caught.value.hint
    assert load(production.bare, "fraud@v1.0.0", remote_url=str(production.storage)).version == "v1.0.0"


def test_the_remote_given_wins_over_the_commits_own(production: Production) -> None:
    tag = released(production)
    moved = production.storage.with_name("moved")
    production.storage.rename(moved)
    assert load(production.bare, tag, remote_url=str(moved)).golden_passed == 4


def test_a_restart_without_the_remote_serves_from_the_store(production: Production) -> None:
    tag = released(production)
    load(production.bare, tag)
    production.lose_remote()
    assert load(production.bare, tag).golden_passed == 4


def test_the_store_is_read_only_and_its_versions_are_links_into_it(production: Production) -> None:
    load(production.bare, released(production))
    store = production.bare / "gitmodel" / "store"
    (stored,) = objects(store)
    (view,) = (store / "versions").rglob("model.onnx")
    assert stat.S_IMODE(stored.stat().st_mode) == 0o444
    assert view.samefile(stored)
    assert not list((store / "versions").glob("building-*"))


def test_a_store_of_ones_own_is_used(production: Production, tmp_path: Path) -> None:
    load(production.bare, released(production), store=tmp_path / "fast disk")
    assert objects(tmp_path / "fast disk")
    assert not (production.bare / "gitmodel" / "store").exists()


def test_a_store_that_was_damaged_is_not_served_from(production: Production, tmp_path: Path) -> None:
    tag = released(production)
    loader = Loader(Fetcher(production.bare))
    loader.load(aspired(production.bare, tag))
    (stored,) = objects(production.bare / "gitmodel" / "store")
    good = stored.read_bytes()
    for again in (loader, Loader(Fetcher(production.bare))):
        overwrite(stored, flipped(stored))
        found = again.load(aspired(production.bare, tag))
        (view,) = (production.bare / "gitmodel" / "store" / "versions").rglob("model.onnx")
        assert view.read_bytes() == stored.read_bytes() == good
        want = scores(support.linear_model(), rows(3), tmp_path)
        assert found.session.run({"x": rows(3)})["scores"].tolist() == want.tolist()
    overwrite(stored, flipped(stored))
    production.lose_remote()
    with pytest.raises(GitmodelError):
        loader.load(aspired(production.bare, tag))


def test_a_versions_folder_with_other_files_is_not_served_from(production: Production) -> None:
    tag = released(production)
    load(production.bare, tag)
    (view,) = (production.bare / "gitmodel" / "store" / "versions").rglob("model.onnx")
    view.unlink()
    view.write_bytes(support.linear_model(seed=9).SerializeToString())
    load(production.bare, tag)
    assert view.samefile(objects(production.bare / "gitmodel" / "store")[0])


def test_versions_with_the_same_weights_share_them(production: Production) -> None:
    released(production)
    (production.author / "models" / "fraud" / "README.md").write_text("what it is for")
    tag = released_as_is(production, "words only", "fraud@v1.0.1")
    loader = Loader(Fetcher(production.bare))
    one, two = (loader.load(aspired(production.bare, name)) for name in ("fraud@v1.0.0", tag))
    assert (one.version, two.version) == ("v1.0.0", "v1.0.1")
    assert one.digest == two.digest
    assert len(objects(production.bare / "gitmodel" / "store")) == 1


def echo(dtype: str, shape: list[int | str | None]) -> onnx.ModelProto:
    nodes = [helper.make_node("Identity", ["x"], ["y"])]
    return support.model(nodes, [support.value_info("x", dtype, shape)], [support.value_info("y", dtype, shape)])


def never() -> onnx.ModelProto:
    """Takes exactly three elements, which its signature does not say."""
    nodes = [helper.make_node("Reshape", ["x", "three"], ["y"])]
    inputs, outputs = [support.value_info("x", "float32", ["n"])], [support.value_info("y", "float32", [3])]
    return support.model(nodes, inputs, outputs, {"three": np.array([3])})


@pytest.mark.parametrize(
    ("model", "measured"),
    [
        (lambda: echo("float32", ["n"]), True),
        (lambda: echo("string", ["n"]), True),
        (lambda: echo("int64", []), True),
        (lambda: echo("bfloat16", ["n"]), False),
        (never, False),
    ],
    ids=["numbers", "text", "scalar", "not drawable", "refuses"],
)
def test_without_golden_cases_a_call_is_drawn_to_warm_it_up(
    production: Production, model: Callable[[], onnx.ModelProto], measured: bool
) -> None:
    production.save(model())
    production.push(production.tag("fraud@v1.0.0"))
    found = load(production.bare, "fraud@v1.0.0")
    assert (found.golden_passed, found.golden_cases) == (0, 0)
    assert (found.run_seconds < 1.0) == measured


def test_files_that_changed_since_they_were_verified_are_not_opened(production: Production) -> None:
    tag = released(production)
    fetched = Fetcher(production.bare).fetch(aspired(production.bare, tag))
    assert Opener().open(fetched).golden_passed == 4
    (view,) = (production.bare / "gitmodel" / "store" / "versions").rglob("model.onnx")
    data = view.read_bytes()
    view.unlink()
    view.write_bytes(data)
    with pytest.raises(FilesChanged, match="is not what was verified"):
        Opener().open(fetched)
