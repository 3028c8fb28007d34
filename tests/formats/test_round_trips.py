"""A model saved and exported is the model that was given: tensor by tensor, attribute by attribute, in every format that
can express it."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import h5py
import onnx
import pytest
from hypothesis import HealthCheck, given, settings

from gitmodel import formats
from tests.formats import building, keeping, strategies
from tests.formats.keeping import contents, exported

#: What it runs again and again is measured by the tests of each part; tracing it would double its time.
pytestmark = pytest.mark.no_cover

PACKAGE = Path(onnx.__file__).parent
SHIPPED = sorted(PACKAGE.rglob("*.onnx"))
#: The formats that hold tensors alone.
CHECKPOINTS = (".h5", ".safetensors", ".npz")

relaxed = settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])


@pytest.fixture(autouse=True)
def _hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of small files are written here, and none has to outlive a power cut."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


def assert_onnx_comes_back(path: Path, root: Path) -> Path:
    back = exported(path, ".onnx", root)
    keeping.assert_same_model(onnx.load(str(back)), onnx.load(str(path)))
    return back


def assert_tensors_come_back(path: Path, ending: str, root: Path) -> None:
    assert contents(exported(path, ending, root)) == contents(path)


def numbers_of(path: Path) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """What an HDF5 file without a graph gives of the tensors: texts are no tensors there."""
    return {name: found for name, found in contents(path).items() if found[0] != "string"}


# The models of the onnx package ---------------------------------------------------------------------------------------


def test_the_onnx_package_has_models() -> None:
    assert len(SHIPPED) > 100


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: path.relative_to(PACKAGE).as_posix())
def test_a_model_of_the_onnx_package_comes_back(path: Path, tmp_path: Path) -> None:
    assert assert_onnx_comes_back(path, tmp_path / "onnx").read_bytes() == path.read_bytes()
    found = numbers_of(path)
    for ending in CHECKPOINTS:
        assert numbers_of(exported(path, ending, tmp_path / ending)) == found


def test_the_test_models_of_every_operator_come_back(tmp_path: Path) -> None:
    """All that hold tensors, and of the others one of each kind: the rest differ in the shapes of their inputs."""
    from onnx.backend.test.case import node

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # operators overflow on purpose
        models = {case.name: case.model for case in node.collect_testcases(None) if case.model is not None}
    kinds = {tuple(step.op_type for step in model.graph.node): name for name, model in models.items()}
    chosen = {name for name, model in models.items() if any(keeping.tensors_in(model))} | set(kinds.values())
    assert len(models) > len(chosen) > 500
    differing = []
    for number, name in enumerate(sorted(chosen)):
        path = tmp_path / f"{number}.onnx"  # a name of its own: taking the place of a file makes the disk wait
        path.write_bytes(models[name].SerializeToString())
        back = exported(path, ".onnx", tmp_path / "onnx")
        if back.read_bytes() != path.read_bytes():
            differing.append(name)
        back.unlink()
    assert differing == []


# Real models ----------------------------------------------------------------------------------------------------------


@pytest.mark.realdata
def test_every_generation_of_a_real_classifier_comes_back(real_data: Path, tmp_path: Path) -> None:
    models = sorted((real_data / "magika").rglob("*.onnx"))
    assert len(models) == 5
    for path in models:
        root = tmp_path / path.parent.name
        root.mkdir()
        assert exported(path, ".onnx", root / "onnx").read_bytes() == path.read_bytes()
        for ending in CHECKPOINTS:
            assert_tensors_come_back(path, ending, root / ending)


@pytest.mark.realdata
def test_a_real_keras_checkpoint_comes_back(real_data: Path, tmp_path: Path) -> None:
    path = real_data / "magika" / "standard_v1" / "model.h5"
    with h5py.File(path) as ours, h5py.File(exported(path, ".h5", tmp_path / "h5")) as theirs:
        building.assert_same_tree(ours, theirs)
    for ending in CHECKPOINTS:
        assert_tensors_come_back(path, ending, tmp_path / ending)


# Generated models -----------------------------------------------------------------------------------------------------


@relaxed
@given(strategies.models())
def test_any_onnx_model_comes_back(tmp_path_factory: pytest.TempPathFactory, model: onnx.ModelProto) -> None:
    root = tmp_path_factory.mktemp("model")
    assert_onnx_comes_back(building.write_onnx(root / "model.onnx", model), root / "onnx")


@relaxed
@given(strategies.models())
def test_the_tensors_of_any_onnx_model_come_back_in_every_format(
    tmp_path_factory: pytest.TempPathFactory, model: onnx.ModelProto
) -> None:
    root = tmp_path_factory.mktemp("model")
    path = building.write_onnx(root / "model.onnx", model)
    for ending in CHECKPOINTS:
        back = exported(path, ending, root / ending)
        if ending == ".h5":  # names that are no paths are escaped there
            assert sorted(numbers_of(back).values()) == sorted(numbers_of(path).values())
        else:
            assert contents(back) == contents(path)
        again = exported(back, ".h5", root / "again")
        assert numbers_of(again).keys() == numbers_of(back).keys() or ending != ".h5"


@relaxed
@given(strategies.hdf5_trees())
def test_any_hdf5_file_comes_back(tmp_path_factory: pytest.TempPathFactory, tree: dict[str, object]) -> None:
    root = tmp_path_factory.mktemp("tree")
    path = building.write_h5(
        root / "model.h5", lambda file: strategies.fill(file, tree), track_order=tree["ordered"], libver="v110"
    )
    with h5py.File(path) as ours, h5py.File(exported(path, ".h5", root / "h5")) as theirs:
        building.assert_same_tree(ours, theirs)
    for ending in (".safetensors", ".npz"):
        assert_tensors_come_back(path, ending, root / ending)


@relaxed
@given(strategies.models())
def test_a_conversion_gives_what_an_export_gives(
    tmp_path_factory: pytest.TempPathFactory, model: onnx.ModelProto
) -> None:
    root = tmp_path_factory.mktemp("model")
    path = building.write_onnx(root / "model.onnx", model)
    for ending in (".onnx", *CHECKPOINTS):
        formats.write(formats.read(path), root / f"converted{ending}")
        assert contents(root / f"converted{ending}") == contents(exported(path, ending, root / ending))
