"""Models in sandboxes give what they give outside, and their ends are errors the judge can tell of."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import h5py
import numpy as np
import onnx
import pytest

from gitmodel import formats, registry, runtime
from gitmodel.bundle.bundle import Bundle
from gitmodel.bundle.folder import MemoryFolder
from gitmodel.compat import inside
from gitmodel.compat.isolated import Model, Models
from gitmodel.compat.opening import CannotOpen
from gitmodel.formats import hdf5
from gitmodel.formats.source import InvalidModel, UnsafeModel
from gitmodel.runtime import RunFailed
from gitmodel.sandbox import jail
from gitmodel.sandbox.failures import OutOfMemory, SandboxFailed, SandboxIncomplete
from gitmodel.sandbox.limits import Limits
from gitmodel.sandbox.parent import Child
from tests import support
from tests.compat import bad_inputs, pairs

X = {"x": np.linspace(-1, 1, 8, dtype="float32").reshape(2, 4)}


@pytest.fixture
def models() -> Iterator[Models]:
    with Models(Limits(seconds=20)) as found:
        yield found


def write(folder: Path, model: object, name: str = "model.onnx") -> Path:
    path = folder / name
    path.write_bytes(pairs.model(model).SerializeToString())  # type: ignore[arg-type]  # a model or its text
    return path


def bare(path: Path) -> Bundle:
    return Bundle(path.stem, str(path), MemoryFolder({}), file=path)


def opened(models: Models, path: Path) -> Model:
    return models.open(path, bare(path), prepack=True)


def test_a_model_gives_what_it_gives_outside(models: Models, tmp_path: Path) -> None:
    path = write(tmp_path, support.linear_model())
    session, model = runtime.open_session(path), opened(models, path)
    assert (model.input_names, model.output_names) == (session.input_names, session.output_names)
    assert model.run(X)["scores"].tobytes() == session.run(X)["scores"].tobytes()
    assert list(model.run(X, ["scores"])) == ["scores"]
    for wrong in ({"y": X["x"]}, {"x": X["x"].astype("float64")}, {}):
        with pytest.raises(RunFailed) as ours:
            model.run(wrong)
        with pytest.raises(RunFailed) as theirs:
            session.run(wrong)
        assert ours.value.message == theirs.value.message
    assert models.failure == ""


def test_texts_and_maps_come_out_too(models: Models, tmp_path: Path) -> None:
    model = opened(models, write(tmp_path, "(string[n] x) => (string[m] y) { y = Concat<axis = 0>(x, x) }"))
    assert model.run({"x": np.array(["a", "ö"], dtype=object)})["y"].tolist() == ["a", "ö", "a", "ö"]
    zipped = """(float[n,2] x) => (seq(map(int64, float)) y)
        { y = ai.onnx.ml.ZipMap<classlabels_int64s = [7, 9]>(x) }"""
    model = opened(models, write(tmp_path, zipped, "map.onnx"))
    assert model.run({"x": np.array([[0.25, 0.75]], "float32")})["y"] == [{7: 0.25, 9: 0.75}]


def test_what_a_file_says_of_itself_is_what_it_says_outside(models: Models, tmp_path: Path) -> None:
    path = write(tmp_path, support.linear_model())
    assert models.describe(path) == registry.described(path)
    checkpoint = tmp_path / "weights.h5"
    with h5py.File(checkpoint, "w") as file:
        file["large"] = np.arange(90_000, dtype="float32")
        file.create_dataset("packed", data=np.zeros((300, 300)), chunks=(100, 100), compression="gzip")
        file["small"] = np.arange(3)
    assert models.describe(checkpoint) == registry.described(checkpoint)
    source = formats.read(checkpoint)
    assert {t.name: t.sha256 for t in models.tensors(checkpoint)} == {t.name: hdf5.digest(t) for t in source.tensors}
    source.close()


def test_what_has_run_a_model_reads_no_more(models: Models, tmp_path: Path) -> None:
    path = write(tmp_path, support.wide_model())
    models.describe(path)
    model = opened(models, path)
    assert len(models.tensors(path)) == 2
    assert model.run({"x": np.ones((1, 200), "float32")})["h1"].shape == (1, 200)


def test_why_it_does_not_open_comes_with_what_is_known(models: Models, tmp_path: Path) -> None:
    made = pairs.model("(float[n] x) => (float[n] y) { y = Neg(x) }")
    made.ir_version = 99
    with pytest.raises(CannotOpen, match="IR version") as caught:
        opened(models, write(tmp_path, made))
    assert caught.value.opened.facts.ir == 99
    assert caught.value.opened.limits == runtime.probed()
    assert not caught.value.opened.loads


def test_an_error_of_the_file_is_the_one_it_is_outside(models: Models, tmp_path: Path) -> None:
    with pytest.raises(UnsafeModel, match="links elsewhere"):
        models.describe(bad_inputs.hdf5_external_link(tmp_path))
    with pytest.raises(InvalidModel, match="there is no file"):
        models.describe(tmp_path / "nowhere.onnx")
    with pytest.raises(InvalidModel, match="is empty") as caught:
        models.open(
            bad_inputs.onnx_empty(tmp_path), Bundle("a", "a@v1", MemoryFolder({}), file=tmp_path / "empty.onnx")
        )
    assert caught.value.message == "a@v1: empty.onnx is empty"


def test_one_that_is_gone_says_so_ever_after(models: Models, tmp_path: Path) -> None:
    models.limits = Limits(seconds=1)
    model = opened(models, bad_inputs.onnx_endless_loop(tmp_path))
    for _ in range(2):
        with pytest.raises(SandboxFailed, match="took more than 1 s"):
            model.run(X)
    assert "endless.onnx took more than 1 s" in models.failure


def test_want_of_memory_is_news_only_where_old_has_it(models: Models, tmp_path: Path) -> None:
    models.limits = Limits(seconds=20, memory=1 << 30)
    hungry = bad_inputs.onnx_constant_huge(tmp_path)
    old = opened(models, write(tmp_path, support.linear_model()))
    new = opened(models, hungry)
    for _ in range(3):
        with pytest.raises(RunFailed, match="needs more than"):
            new.run(X)
    assert new._times == 2, "the third was not tried"
    assert "constant.onnx needs more than 1.1 GB" in models.failure
    old.starved = "this one, too"
    assert models.failure == ""


def test_a_machine_without_a_layer_is_told_or_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path, support.linear_model())
    monkeypatch.setattr(Child, "missing", ("no network",))
    heard: list[str] = []
    monkeypatch.setattr(Child, "ask", lambda self, call, **args: {"format": "onnx", "framework": "", "signature": None})
    with Models(told=heard.append) as models:
        models.describe(path)
    assert len(heard) == 1
    assert "no network cannot be had" in heard[0]
    with Models(require=True) as models, pytest.raises(SandboxIncomplete, match="no whole sandbox"):
        models.describe(path)


def test_children_wait_where_the_model_will_be(models: Models, tmp_path: Path) -> None:
    models.run_soon(2, tmp_path / "staged", 0)
    awake = list(models._awake)
    path = write(tmp_path / "staged", support.linear_model())
    elsewhere = write(tmp_path, support.linear_model(), "elsewhere.onnx")
    lock = {"weights.lock": b"# gitmodel weights.lock v1\nfile model.onnx 1 " + b"0" * 64 + b" " + b"0" * 32 + b"\n"}
    bundle = Bundle("fraud", "fraud@v1", MemoryFolder(lock))
    assert models.open(path, bundle)._child in awake
    assert models.open(elsewhere, bundle)._child not in awake


def test_data_beside_a_file_count_whatever_their_name(models: Models, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(support.wide_model(), path, save_as_external_data=True, location="weights.bin", size_threshold=0)
    before = Limits().scaled(path.stat().st_size).memory
    models.limits = Limits()
    models.describe(path)
    model = opened(models, path)
    assert model.limits.memory >= before + 4 * 320_000
    assert model.opened.size == sum(file.stat().st_size for file in tmp_path.iterdir())


# Inside the child: the same functions, called here so that each of them is measured and seen ---------------------------


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> None:
    """What locks a process in is for good, and this one is the tests' own."""
    monkeypatch.setattr(jail, "stop_writing", lambda: None)
    inside._HELD.clear()


@pytest.mark.usefixtures("free")
def test_inside_a_model_is_loaded_run_and_timed(tmp_path: Path) -> None:
    inside.warm()
    path = str(write(tmp_path, support.linear_model()))
    said = inside.load(path, "label", {"prepack": True})
    assert (said["failed"], said["inputs"], said["outputs"], said["complaint"]) == (None, ["x"], ["scores"], "")
    assert inside.run(X, None)["scores"].shape == (2, 3)
    assert inside.time_runs(X, 3) > 0
    assert inside.time_load(path, {}) > 0
    assert inside.peak(path, {}, X) >= 0
    with pytest.raises(RunFailed):
        inside.run({}, None)


@pytest.mark.usefixtures("free")
def test_inside_what_is_wrong_is_found_before_it_is_opened(tmp_path: Path) -> None:
    path = bad_inputs.onnx_data_absolute(tmp_path)
    said = inside.load(str(path), "label", {})
    assert said["outside"][0][0] == "escapes"
    assert said["failed"][0].startswith("label: tensor 'w' keeps its data in '/etc/passwd'")
    assert "session" not in inside._HELD
    newer = inside.load(str(bad_inputs.onnx_newer_opset(tmp_path)), "label", {})
    assert newer["limits"] == runtime.probed().to_dict()


@pytest.mark.usefixtures("free")
def test_inside_want_of_memory_has_a_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = write(tmp_path, support.linear_model())
    inside.load(str(path), "label", {})

    def starve(*_: object, **__: object) -> None:
        raise RunFailed("Failed to allocate memory for requested buffer of size 7")

    monkeypatch.setattr(inside._HELD["session"], "run", starve)
    with pytest.raises(OutOfMemory):
        inside.run(X, None)

    def refuse(*_: object, **__: object) -> None:
        raise runtime.LoadFailed("std::bad_alloc")

    monkeypatch.setattr(runtime, "open_session", refuse)
    with pytest.raises(OutOfMemory):
        inside.load(str(path), "label", {})


def test_inside_a_file_is_described(tmp_path: Path) -> None:
    path = bad_inputs.FILES["npz-huge"]
    bad_inputs.write_good(tmp_path)
    assert inside.describe(str(tmp_path / "good.npz")) == {"format": "npz", "framework": "", "signature": None}
    assert inside.describe(str(tmp_path / "good.onnx"))["signature"]["inputs"][0]["name"] == "x"
    assert inside.tensors(str(tmp_path / "good.h5"), digests=True)[0][:3] == ["kernel", "float32", [4, 4]]
    with pytest.raises(InvalidModel):
        inside.describe(str(path(tmp_path)))
