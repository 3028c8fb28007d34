"""A source's tensors as objects of the cache: each once, under the right names, and only what is new."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import onnxruntime
import pytest
from msgspec.structs import replace

from gitmodel.bundle.lock import FileEntry, Lock, TensorEntry
from gitmodel.files import StorageFailed
from gitmodel.formats import binding, hdf5, signatures
from gitmodel.formats import onnx as onnx_format
from gitmodel.formats.source import Source, TensorData
from gitmodel.storage.blocks import Hashed
from gitmodel.storage.cache import Cache
from gitmodel.storage.drafts import Drafts
from gitmodel.storage.workspace import plan
from gitmodel.workflows.store import lock_before, store_weights
from tests.formats.building import LARGE, by_name, large, matmul, write_h5, write_onnx
from tests.formats.test_signatures import graph, head
from tests.workflows import state

X = np.random.default_rng(4).normal(size=(3, LARGE)).astype("float32")


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "cache")


def chain(tmp_path: Path, **weights: np.ndarray) -> Source:
    """``y = x @ ...`` over these weights in turn."""
    path = tmp_path / f"chain-{len(list(tmp_path.iterdir()))}.onnx"
    return onnx_format.read(write_onnx(path, graph("y", weights, *weights)))


def objects(cache: Cache) -> dict[str, int]:
    """The inode of each: an object that is written again has another one."""
    found = [path for path in cache.objects.rglob("*") if path.is_file()]
    return {path.relative_to(cache.objects).as_posix(): path.stat().st_ino for path in found}


def assert_whole(lock: Lock, cache: Cache) -> None:
    """Every file of the lock is in the cache as the lock says."""
    for entry in lock.files:
        path = cache.path(entry.md5)
        assert (path.stat().st_size, state.digest(path)) == (entry.size, entry.sha256), entry.path


def run(lock: Lock, cache: Cache, folder: Path, view: str = "model.onnx") -> list[np.ndarray]:
    """What the stock runtime gives for ``X``."""
    plan(lock, cache, folder).apply()
    answers: list[np.ndarray] = onnxruntime.InferenceSession(folder / view).run(None, {"x": X})
    return answers


def test_a_large_tensor_has_a_file_and_a_small_one_a_place_in_the_views(cache: Cache, tmp_path: Path) -> None:
    lock, added = store_weights(chain(tmp_path, w=large(), head=head()), cache, None)
    assert [(t.name, t.dtype, t.shape, t.file) for t in lock.tensors] == [
        ("head", "float32", (LARGE, 3), "weights.h5"),
        ("w", "float32", (LARGE, LARGE), "tensors/w.h5"),
    ]
    assert [entry.path for entry in lock.files] == ["model.onnx", "tensors/w.h5", "weights.h5"]
    assert sorted(added) == list(lock.files)
    assert len(objects(cache)) == 3
    assert_whole(lock, cache)
    np.testing.assert_allclose(run(lock, cache, tmp_path / "weights")[0], X @ large() @ head(), rtol=1e-4, atol=1e-4)
    with h5py.File(tmp_path / "weights" / "weights.h5") as view:
        np.testing.assert_array_equal(view["w"][()], large())
        np.testing.assert_array_equal(view["head"][()], head())


def test_the_same_again_stores_nothing(cache: Cache, tmp_path: Path) -> None:
    lock, _ = store_weights(chain(tmp_path, w=large(), head=head()), cache, None)
    before = objects(cache)
    assert store_weights(chain(tmp_path, w=large(), head=head()), cache, lock) == (lock, [])
    assert objects(cache) == before
    # Whoever has no parent stores nothing either, but finds out by hashing.
    assert store_weights(chain(tmp_path, w=large(), head=head()), cache, None)[0] == lock
    assert objects(cache) == before


def test_one_changed_tensor_adds_its_own_file_alone(cache: Cache, tmp_path: Path) -> None:
    first, _ = store_weights(chain(tmp_path, a=large(1), b=large(2)), cache, None)
    before = objects(cache)
    second, added = store_weights(chain(tmp_path, a=large(1), b=large(3)), cache, first)
    assert [entry.path for entry in added] == ["tensors/b.h5"]
    assert len(objects(cache).keys() - before.keys()) == 1
    assert {k: v for k, v in objects(cache).items() if k in before} == before
    assert_whole(second, cache)


def test_bytes_are_compared_and_written_while_headers_are_not_known_yet(
    cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, _ = store_weights(chain(tmp_path, a=large(1), b=large(2)), cache, None)
    begun = {"compared": threading.Event(), "written": threading.Event()}
    ends_with, add, tensor_file = Cache.ends_with, Cache.add, hdf5.tensor_file

    def comparing(self: Cache, entry: FileEntry, body: memoryview) -> bool:
        begun["compared"].set()
        return ends_with(self, entry, body)

    def adding(self: Cache, *args: Any) -> Hashed:
        begun["written"].set()
        return add(self, *args)

    def header(dtype: str, shape: tuple[int, ...]) -> hdf5.TensorFile:
        assert all(event.wait(30) for event in begun.values())
        return tensor_file(dtype, shape)

    monkeypatch.setattr(Cache, "ends_with", comparing)
    monkeypatch.setattr(Cache, "add", adding)
    monkeypatch.setattr(hdf5, "tensor_file", header)
    second, added = store_weights(chain(tmp_path, a=large(1), b=large(3)), cache, first)
    assert [entry.path for entry in added] == ["tensors/b.h5"]
    assert_whole(second, cache)


def test_a_lock_that_names_files_with_other_headers_is_not_believed(cache: Cache, tmp_path: Path) -> None:
    """Another version of HDF5 may write other headers; a lock may have been edited."""
    first, _ = store_weights(chain(tmp_path, a=large(1), b=large(2)), cache, None)
    foreign = []
    for entry in first.files:
        data = bytearray(cache.path(entry.md5).read_bytes())
        data[60] ^= 1
        foreign.append(cache.add(bytes(data)).entry(entry.path) if entry.path.startswith("tensors/") else entry)
    digests = {entry.path: entry.sha256 for entry in foreign}
    edited = Lock.of([replace(tensor, sha256=digests[tensor.file]) for tensor in first.tensors], foreign)
    second, _ = store_weights(chain(tmp_path, a=large(1), b=large(3)), cache, edited)
    assert_whole(second, cache)
    assert store_weights(chain(tmp_path, a=large(1), b=large(3)), Cache(tmp_path / "other"), None)[0] == second


@pytest.mark.parametrize("with_parent", [True, False])
def test_tied_and_renamed_tensors_are_one_object(cache: Cache, tmp_path: Path, with_parent: bool) -> None:
    first, _ = store_weights(chain(tmp_path, a=large(), b=large()), cache, None)
    assert len({entry.md5 for entry in first.files if entry.path.startswith("tensors/")}) == 1
    second, added = store_weights(chain(tmp_path, c=large()), cache, first if with_parent else None)
    assert {entry.md5 for entry in second.files} & {entry.md5 for entry in first.files}
    assert "tensors/c.h5" not in {entry.path for entry in added} or not with_parent
    assert_whole(second, cache)


def test_a_packed_tensor_stays_packed_and_has_its_values_digest(cache: Cache, tmp_path: Path) -> None:
    values = np.zeros((300, 300), "int32")
    values[0] = 7

    def packed(level: int) -> Source:
        path = tmp_path / f"{level}.h5"
        options = {"compression": "gzip", "compression_opts": level, "chunks": (30, 300)} if level else {}
        return hdf5.read(write_h5(path, lambda file: file.create_dataset("w", data=values, **options)))

    locks: list[Lock] = []
    for level in (0, 1, 9):
        source = packed(level)
        lock, _ = store_weights(source, cache, locks[-1] if locks else None)
        source.close()
        assert_whole(lock, cache)
        locks.append(lock)
    assert len({lock.tensors[0].sha256 for lock in locks}) == 1
    sizes = [entry.size for lock in locks for entry in lock.files if entry.path == "tensors/w.h5"]
    assert sizes[0] > values.nbytes > 10 * max(sizes[1:])


# What is not believed -------------------------------------------------------------------------------------------------


def another_sha256(lock: Lock) -> Lock:
    return replace(lock, files=tuple(replace(entry, sha256="0" * 64) for entry in lock.files))


def another_tensor_digest(lock: Lock) -> Lock:
    return replace(lock, tensors=tuple(replace(entry, sha256="0" * 64) for entry in lock.tensors))


def another_md5(lock: Lock) -> Lock:
    return replace(lock, files=tuple(replace(entry, md5="0" * 32) for entry in lock.files))


def another_size(lock: Lock) -> Lock:
    return replace(lock, files=tuple(replace(entry, size=1) for entry in lock.files))


def another_file(lock: Lock) -> Lock:
    """``a`` stands where ``b`` does."""
    swap = {"tensors/a.h5": "tensors/b.h5"}
    return replace(lock, tensors=tuple(replace(entry, file=swap.get(entry.file, entry.file)) for entry in lock.tensors))


def no_files(lock: Lock) -> Lock:
    return Lock(lock.tensors, ())


@pytest.mark.parametrize(
    "edit", [another_sha256, another_tensor_digest, another_md5, another_size, another_file, no_files]
)
def test_a_lock_that_was_edited_is_not_believed(cache: Cache, tmp_path: Path, edit: Callable[[Lock], Lock]) -> None:
    source = chain(tmp_path, a=large(1), b=large(2), head=head())
    lock, _ = store_weights(source, cache, None)
    again, _ = store_weights(chain(tmp_path, a=large(1), b=large(2), head=head()), cache, edit(lock))
    assert again == lock
    assert_whole(again, cache)


def gone(path: Path) -> None:
    path.unlink()


def truncated(path: Path) -> None:
    path.chmod(0o644)
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("harm", [state.damage, gone, truncated])
@pytest.mark.parametrize("name", ["model.onnx", "weights.h5", "tensors/w.h5"])
def test_an_object_that_came_to_harm_is_stored_again(
    cache: Cache, tmp_path: Path, harm: Callable[[Path], None], name: str
) -> None:
    lock, _ = store_weights(chain(tmp_path, w=large(), head=head()), cache, None)
    entry = lock.file(name)
    assert entry is not None
    harm(cache.path(entry.md5))
    assert store_weights(chain(tmp_path, w=large(), head=head()), cache, lock) == (lock, [])
    assert_whole(lock, cache)


def test_a_parent_of_other_types_and_shapes_is_no_help_and_no_harm(cache: Cache, tmp_path: Path) -> None:
    first, _ = store_weights(chain(tmp_path, w=large()), cache, None)
    flat = Source("drawn", "", (TensorData("w", "float32", (LARGE * LARGE,), memoryview(large().tobytes())),))
    second, added = store_weights(flat, cache, first)
    assert [t.shape for t in second.tensors] == [(LARGE * LARGE,)]
    assert {entry.path for entry in added} == {"tensors/w.h5"}, "the view links to it alike"
    assert_whole(second, cache)


def test_what_cannot_be_stored_is_one_error_and_nothing_is_left_running(tmp_path: Path) -> None:
    import threading

    (tmp_path / "cache").write_bytes(b"no folder")
    source = chain(tmp_path, **{f"w{number}": large(number) for number in range(12)})
    with pytest.raises(StorageFailed, match="the DVC cache"):
        store_weights(source, Cache(tmp_path / "cache"), None)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("save")]


# Several signatures ---------------------------------------------------------------------------------------------------


def test_graphs_over_the_same_weights_are_views_of_the_same_files(cache: Cache, tmp_path: Path) -> None:
    main, embed = chain(tmp_path, w=large(), head=head()), chain(tmp_path, w=large())
    alone, _ = store_weights(chain(tmp_path, w=large(), head=head()), cache, None)
    lock, added = store_weights(signatures.join(main, {"embed": embed}), cache, alone)
    assert [entry.path for entry in added] == ["model.embed.onnx"]
    assert lock.tensors == alone.tensors
    assert lock.file("model.onnx") == alone.file("model.onnx")
    folder = tmp_path / "weights"
    np.testing.assert_allclose(run(lock, cache, folder)[0], X @ large() @ head(), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(run(lock, cache, folder, "model.embed.onnx")[0], X @ large(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("own", [large(7), head(7)], ids=["large", "small"])
def test_a_graphs_own_values_do_not_disturb_the_others(cache: Cache, tmp_path: Path, own: np.ndarray) -> None:
    first = large() if len(own[0]) == LARGE else head()
    main, embed = chain(tmp_path, w=first), chain(tmp_path, w=own)
    lock, _ = store_weights(signatures.join(main, {"embed": embed}), cache, None)
    assert [t.name for t in lock.tensors] == ["embed/w", "w"]
    folder = tmp_path / "weights"
    np.testing.assert_allclose(run(lock, cache, folder)[0], X @ first, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(run(lock, cache, folder, "model.embed.onnx")[0], X @ own, rtol=1e-4, atol=1e-4)
    with h5py.File(folder / "weights.h5") as view:
        np.testing.assert_array_equal(view["embed/w"][()], own)


def test_a_tensor_bound_by_name_is_not_taken_for_a_graphs_own(cache: Cache, tmp_path: Path) -> None:
    """The first graph's ``embed/w`` is called ``embed.w`` in the weights; the graph ``embed`` has a ``w`` of its own."""
    model = matmul(weights={"w": large(1)})
    model.graph.initializer[0].name = model.graph.node[0].input[1] = "embed/w"
    model.graph.initializer[0].ClearField("raw_data")
    weights = hdf5.read(write_h5(tmp_path / "weights.h5", lambda file: file.create_dataset("embed.w", data=large(1))))
    main = binding.bind(onnx_format.read(write_onnx(tmp_path / "graph.onnx", model)), weights, "graph.onnx")
    joined = signatures.join(main, {"embed": chain(tmp_path, w=large(2))})
    lock, _ = store_weights(joined, cache, None)
    joined.close()
    folder = tmp_path / "weights"
    np.testing.assert_allclose(run(lock, cache, folder)[0], X @ large(1), rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(run(lock, cache, folder, "model.embed.onnx")[0], X @ large(2), rtol=1e-4, atol=1e-4)


def test_a_graph_may_call_a_shared_tensor_otherwise(cache: Cache, tmp_path: Path) -> None:
    """Both graphs say ``a/w``; the weights they are bound to say ``a.w``."""
    model = matmul(weights={"w": large(1)})
    model.graph.initializer[0].name = model.graph.node[0].input[1] = "a/w"
    model.graph.initializer[0].ClearField("raw_data")
    path = write_onnx(tmp_path / "graph.onnx", model)
    weights = [
        hdf5.read(write_h5(tmp_path / f"{name}.h5", lambda file: file.create_dataset("a.w", data=large(1))))
        for name in ("one", "two")
    ]
    main, other = (binding.bind(onnx_format.read(path), source, "graph.onnx") for source in weights)
    joined = signatures.join(main, {"embed": other})
    assert set(by_name(joined)) == {"a.w"}
    lock, _ = store_weights(joined, cache, None)
    for source in (joined, other):
        source.close()
    for view in ("model.onnx", "model.embed.onnx"):
        np.testing.assert_allclose(run(lock, cache, tmp_path / "weights", view)[0], X @ large(1), rtol=1e-4, atol=1e-4)


# The lock of a folder -------------------------------------------------------------------------------------------------


def test_a_folder_without_a_lock_has_none(tmp_path: Path) -> None:
    assert lock_before(tmp_path) is None
    lock = Lock.of([TensorEntry("w", "float32", (1,), "0" * 64, "f")], [FileEntry("f", 4, "0" * 64, "0" * 32)])
    (tmp_path / "elsewhere").write_text(lock.to_text())
    (tmp_path / "weights.lock").symlink_to("elsewhere")
    assert lock_before(tmp_path) is None, "a repository may hold links to anywhere"
    (tmp_path / "weights.lock").unlink()
    (tmp_path / "weights.lock").write_text(lock.to_text())
    assert lock_before(tmp_path) == lock
    for damaged in (f"<<<<<<< HEAD\n{lock.to_text()}", lock.to_text()[:-40], ""):
        (tmp_path / "weights.lock").write_text(damaged)
        assert lock_before(tmp_path) is None, "a save is to mend it"


def test_only_what_is_new_is_drafted(cache: Cache, tmp_path: Path) -> None:
    first, _ = store_weights(chain(tmp_path, a=large(1), b=large(2)), cache, None)
    with Drafts.below(tmp_path / "drafts") as drafts:
        second, _ = store_weights(chain(tmp_path, a=large(1), b=large(3)), cache, first, drafts)
        (changed,) = (entry for entry in second.files if entry.path == "tensors/b.h5")
        assert [path.name for path in (tmp_path / "drafts").iterdir()] == [changed.sha256]
        plan(second, cache, tmp_path / "weights", drafts=drafts).apply()
    assert_whole(second, cache)
    assert state.digest(tmp_path / "weights" / "tensors" / "b.h5") == changed.sha256
