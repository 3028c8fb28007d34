"""One copy: ten versions cost what is unique in them, a changed tensor costs itself, and switching rewrites what differs."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import h5py
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from gitmodel.bundle.lock import Lock
from gitmodel.workflows.checkout import checkout
from gitmodel.workflows.save import Saved, save
from tests import support
from tests.workflows import state

TENSORS, SIDE, VERSIONS = 10, 300, 10
BYTES = SIDE * SIDE * 4


@dataclass
class Author:
    """Somebody who trains on and saves what came of it."""

    repo: Path
    folder: Path
    model: onnx.ModelProto

    def train(self, tensor: int, seed: int) -> None:
        """One tensor gets other values."""
        values = np.random.default_rng(seed).normal(size=(SIDE, SIDE)).astype("float32")
        self.model.graph.initializer[tensor].raw_data = values.tobytes()

    def save(self, version: str) -> Saved:
        path = state.write(self.model, self.folder / f"{version}.onnx")
        saved = save("fraud", [path], repo=self.repo, message=version)
        support.git(self.repo, "tag", "-a", "-m", version, f"fraud@{version}")
        return saved

    def lock(self, version: str) -> Lock:
        return Lock.from_text(
            support.git(self.repo, "show", f"fraud@{version}:models/fraud/weights.lock") + "\n", version
        )

    @property
    def stored(self) -> int:
        """Bytes in DVC's cache."""
        return sum(path.stat().st_size for path in (self.repo / ".dvc" / "cache").rglob("*") if path.is_file())

    @property
    def laid_out(self) -> dict[str, tuple[int, int]]:
        """Inode and time of change of each weights file."""
        weights = self.repo / "models" / "fraud" / "weights"
        return {
            path.relative_to(weights).as_posix(): (path.stat().st_ino, path.stat().st_mtime_ns)
            for path in weights.rglob("*")
            if path.is_file()
        }


@pytest.fixture
def author(repo: Path, tmp_path: Path) -> Author:
    return Author(repo, tmp_path, support.wide_model(tensors=TENSORS, size=SIDE))


def version(number: int) -> str:
    return f"v1.{number}.0"


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten versions, each with one tensor other than the one before; to be copied, not changed."""
    folder = tmp_path_factory.mktemp("ten")
    author = Author(state.model_repository(folder), folder, support.wide_model(tensors=TENSORS, size=SIDE))
    for number in range(VERSIONS):
        if number:
            author.train(number, seed=100 + number)
        author.save(version(number))
    return folder


@pytest.fixture
def ten(saved: Path, tmp_path: Path) -> Author:
    """Ten versions, the last one laid out."""
    folder = shutil.copytree(saved, tmp_path / "ten")
    return Author(folder / "repo", folder, onnx.load(str(folder / f"{version(VERSIONS - 1)}.onnx")))


def test_ten_versions_cost_the_unique_bytes_of_all(ten: Author) -> None:
    files = [ten.folder / f"{version(number)}.onnx" for number in range(VERSIONS)]
    needed = sum(map(len, {values.tobytes() for file in files for values in state.initializers(file).values()}))
    assert needed == (TENSORS + VERSIONS - 1) * BYTES
    # Beside them: a header of 2 KiB a tensor, the two views, and the listing of each version.
    assert needed <= ten.stored <= needed * 1.01
    # The views of all versions are the same two files: only what the tensors hold differs.
    views = {entry for number in range(VERSIONS) for entry in ten.lock(version(number)).files if "/" not in entry.path}
    assert len(views) == 2


def test_a_changed_tensor_costs_itself_whatever_its_place(author: Author) -> None:
    author.save(version(0))
    for number in range(1, TENSORS):
        before = author.stored
        author.train(number, seed=number)
        assert author.save(version(number)).added <= BYTES + 4096
        assert BYTES <= author.stored - before <= BYTES + (64 << 10)


def test_a_changed_value_among_the_small_ones_costs_the_views_alone(author: Author) -> None:
    small = numpy_helper.from_array(np.zeros(16, "float32"), "bias")
    author.model.graph.initializer.append(small)
    author.save(version(0))
    before = author.stored
    author.model.graph.initializer[-1].raw_data = np.ones(16, "float32").tobytes()
    author.save(version(1))
    assert author.stored - before <= 64 << 10


def test_going_back_to_what_was_saved_before_costs_nothing_but_a_listing(ten: Author) -> None:
    before = ten.stored
    ten.model = onnx.load(str(ten.folder / f"{version(3)}.onnx"))
    assert ten.save("v2.0.0").changed
    assert ten.lock("v2.0.0") == ten.lock(version(3))
    assert ten.stored == before


def test_tensors_added_and_removed_cost_themselves(author: Author) -> None:
    author.save(version(0))
    before = author.stored
    del author.model.graph.initializer[TENSORS - 1], author.model.graph.node[TENSORS - 1]
    author.model.graph.output[0].name = f"h{TENSORS - 2}"
    author.save(version(1))
    assert author.stored - before <= 64 << 10


def test_tied_tensors_are_stored_once(author: Author) -> None:
    tied = author.model.graph.initializer[0].raw_data
    for tensor in author.model.graph.initializer:
        tensor.raw_data = tied
    saved = author.save(version(0))
    assert BYTES < author.stored < BYTES * 1.1 + (64 << 10)
    assert saved.added < BYTES * 1.1 + (64 << 10)
    assert saved.size > TENSORS * BYTES
    assert len({entry.md5 for entry in author.lock(version(0)).files if "/" in entry.path}) == 1


def test_another_model_with_the_same_tensors_costs_its_views(author: Author) -> None:
    author.save(version(0))
    before = author.stored
    path = state.write(author.model, author.folder / "copy.onnx")
    save("copy", [path], repo=author.repo)
    assert author.stored == before, "it is the same files"
    author.model.graph.node.pop()
    author.model.graph.output[0].name = f"h{TENSORS - 2}"
    save("part", [state.write(author.model, path)], repo=author.repo)
    assert author.stored - before <= 64 << 10


def test_every_way_in_stores_a_tensor_as_the_others_do(author: Author) -> None:
    """ONNX, HDF5 and arrays in memory of the same values share every tensor file."""
    author.save(version(0))
    before = author.stored
    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in author.model.graph.initializer}
    with h5py.File(author.folder / "same.h5", "w") as file:
        for name, values in arrays.items():
            file[name] = values
    save("hdf5", [author.folder / "same.h5"], repo=author.repo)
    save("arrays", arrays, repo=author.repo)
    np.savez(author.folder / "same.npz", allow_pickle=False, **arrays)
    save("npz", [author.folder / "same.npz"], repo=author.repo)
    assert author.stored - before <= 3 * (64 << 10)


def test_switching_rewrites_the_tensors_that_differ_alone(ten: Author) -> None:
    now = VERSIONS - 1
    for target in (VERSIONS - 2, 0, 5, VERSIONS - 1):
        before = ten.laid_out
        done = checkout(f"fraud@{version(target)}", repo=ten.repo)
        differ = {entry.path for entry in ten.lock(version(target)).files if entry not in ten.lock(version(now)).files}
        assert len(differ) == abs(target - now)
        assert done.files == len(differ)
        after = ten.laid_out
        assert after.keys() == before.keys()
        assert {path for path in after if after[path] != before[path]} == differ
        for entry in ten.lock(version(target)).files:
            assert state.digest(ten.repo / "models" / "fraud" / "weights" / entry.path) == entry.sha256
        now = target
    assert support.git(ten.repo, "status", "--porcelain") == ""


def test_saving_a_changed_model_rewrites_the_tensors_that_differ_alone(ten: Author) -> None:
    before = ten.laid_out
    ten.train(4, seed=7)
    ten.save("v2.0.0")
    after = ten.laid_out
    assert {path for path in after if after[path] != before[path]} == {"tensors/layer4%2Fweight.h5"}


def test_both_views_read_every_version_from_the_one_copy(ten: Author) -> None:
    for number in (0, 4, VERSIONS - 1):
        checkout(f"fraud@{version(number)}", repo=ten.repo)
        weights = ten.repo / "models" / "fraud" / "weights"
        expected = state.initializers(ten.folder / f"{version(number)}.onnx")
        through_onnx = state.initializers(weights / "model.onnx")
        with h5py.File(weights / "weights.h5") as view:
            for name, values in expected.items():
                np.testing.assert_array_equal(through_onnx[name], values, strict=True)
                np.testing.assert_array_equal(view[name][()], values, strict=True)
