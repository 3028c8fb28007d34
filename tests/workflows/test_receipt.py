"""Receipts of a save: what has not changed is not read again, and whatever has changed is, however well it hides."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from gitmodel.bundle.lock import FileEntry, Lock
from gitmodel.errors import GitmodelError
from gitmodel.formats import safetensors
from gitmodel.formats.source import Source, TensorData
from gitmodel.git import Repository
from gitmodel.storage.digests import is_settled
from gitmodel.storage.workspace import WouldLose
from gitmodel.workflows import receipt
from gitmodel.workflows import save as module
from gitmodel.workflows.save import Saved, save
from tests import support
from tests.workflows import state

#: Saves once more, and prints the user's files that were opened and the heavy libraries that were imported.
_WATCHED = """
import sys
opened = set()
def watch(event, arguments):
    if event in ("open", "mmap.__new__") and arguments:
        opened.add(str(arguments[0]))
sys.addaudithook(watch)
from gitmodel.workflows.save import save
name, repo, message, *files = sys.argv[1:]
saved = save(name, files, repo=repo, message=message)
heavy = {"numpy", "onnx", "h5py", "onnxruntime", "google.protobuf", "dvc", "dvc_data"} & set(sys.modules)
weights = repo + "/models/" + name + "/weights/"
print(saved.changed, sorted(opened & set(files)), sorted(n for n in opened if n.startswith(weights)), sorted(heavy))
"""


def settle(*paths: Path) -> None:
    """Waits until another change of these files would show."""
    for path in paths:
        for at in (path.stat().st_mtime_ns, path.stat().st_ctime_ns):
            while not is_settled(at):
                time.sleep(0.001)


def keeping_times(path: Path, change: Callable[[Path], object]) -> None:
    """Changes a file so that size and time of change say nothing of it."""
    before = path.stat()
    change(path)
    assert path.stat().st_size == before.st_size
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def replace_with(data: bytes) -> Callable[[Path], object]:
    def replace(path: Path) -> None:
        other = path.with_name(f"{path.name}.new")
        other.write_bytes(data)
        other.replace(path)

    return replace


def write(data: bytes) -> Callable[[Path], object]:
    def overwrite(path: Path) -> None:
        with path.open("r+b") as file:
            file.write(data)

    return overwrite


@dataclass
class Place:
    """A repository, a folder of the user's own, and what the last save was given."""

    repo: Path
    folder: Path
    given: list[Path | str] = field(default_factory=list)
    options: dict[str, Any] = field(default_factory=dict)

    def model(self, name: str = "model.onnx", scale: float = 1.0) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        return state.write(support.wide_model(scale=scale), path)

    def save(self, *files: Path | str, name: str = "fraud", **options: Any) -> Saved:
        if files:
            self.given, self.options = list(files), options
        return save(name, self.given, repo=self.repo, **self.options)

    @property
    def bundle(self) -> Path:
        return self.repo / "models" / "fraud"

    @property
    def receipt(self) -> Path:
        return receipt.path_for(Repository.open(self.repo).state_dir, "fraud")

    def remember(self, *files: Path | str, watched: tuple[Path, ...] = (), **options: Any) -> Saved:
        """Saves files that have been left alone for long enough, so that a receipt is kept."""
        settle(*(Path(file) for file in files), *watched)
        saved = self.save(*files, **options)
        assert self.receipt.is_file()
        return saved

    def is_believed(self) -> bool:
        """Whether the next save goes by the receipt: told a lie there, it repeats it."""
        told = json.loads(self.receipt.read_bytes())
        self.receipt.write_text(json.dumps(told | {"stale": 77}))
        believed = self.save().stale_goldens == 77
        if believed:
            self.receipt.write_text(json.dumps(told))
        return believed

    def assert_right(self) -> None:
        """A save now is one of what the files hold now: under a name without a receipt they make the same."""
        saved = self.save()
        assert saved.digest == save(f"truth-{time.monotonic_ns()}", self.given, repo=self.repo, **self.options).digest
        lock = Lock.from_text((self.bundle / "weights.lock").read_bytes(), "fraud")
        for entry in lock.files:
            assert state.digest(self.bundle / "weights" / entry.path) == entry.sha256
            assert state.digest(state.object_path(self.repo / ".dvc" / "cache", entry.md5)) == entry.sha256


@pytest.fixture
def place(repo: Path, tmp_path: Path) -> Place:
    (tmp_path / "mine").mkdir()
    return Place(repo, tmp_path / "mine")


# Nothing has changed --------------------------------------------------------------------------------------------------


def test_unchanged_files_are_believed(place: Place) -> None:
    first = place.remember(place.model())
    assert place.is_believed()
    again = place.save()
    assert (again.changed, again.added, again.digest, again.tensors) == (False, 0, first.digest, first.tensors)
    assert again.signature == first.signature


def test_no_byte_of_an_unchanged_model_is_read_and_nothing_heavy_imported(place: Place) -> None:
    path = place.model()
    settle(path)
    first = watched(place, path)
    assert first.startswith(f"True ['{path}'] ")
    assert "'h5py', 'numpy', 'onnxruntime'" in first, "the watch sees what is read"
    for message, changed in (("", False), ("one", True), ("two", False)):
        assert watched(place, path, message) == f"{changed} [] [] []\n"


def watched(place: Place, path: Path, message: str = "") -> str:
    """What a process that saves the file says of itself."""
    command = [sys.executable, "-c", _WATCHED, "fraud", str(place.repo), message, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def test_what_else_is_given_is_written_without_reading_the_model(place: Place) -> None:
    path = place.model()
    place.remember(path)
    saved = save("fraud", [path], repo=place.repo, params={"depth": 3}, description="Finds fraud.", message="one")
    assert saved.changed
    assert (place.bundle / "params.yaml").read_text() == "depth: 3\n"
    assert "Finds fraud." in (place.bundle / "model.yaml").read_text()
    assert place.is_believed(), "the receipt follows"
    again = save("fraud", [path], repo=place.repo, params={"depth": 3}, description="Finds fraud.", message="two")
    assert not again.changed


def test_the_same_file_by_another_spelling_is_the_same(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    path = place.model()
    place.remember(path)
    monkeypatch.chdir(place.folder)
    for spelling in ("model.onnx", "./model.onnx", str(path)):
        place.given = [spelling]
        assert place.is_believed()


def test_each_model_has_a_receipt_of_its_own(place: Place) -> None:
    one, two = place.model("one.onnx"), place.model("two.onnx", 2.0)
    place.remember(one)
    save("other", [two], repo=place.repo)
    assert place.is_believed()
    place.given = [two]
    place.assert_right()


def test_missing_weight_files_are_laid_out_again(place: Place) -> None:
    path = place.model()
    place.remember(path)
    shutil.rmtree(place.bundle / "weights")
    assert place.is_believed()
    place.assert_right()


# The user's files have changed ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", [replace_with, write])
def test_a_file_of_equal_size_and_times_is_read_again(
    place: Place, way: Callable[[bytes], Callable[[Path], object]]
) -> None:
    path = place.model()
    first = place.remember(path)
    keeping_times(path, way(support.wide_model(scale=2.0).SerializeToString()))
    place.assert_right()
    assert place.save().digest != first.digest


def test_a_file_moved_into_its_place_is_read_again(place: Place) -> None:
    path, other = place.model(), place.model("other.onnx", 2.0)
    before = path.stat()
    os.utime(other, ns=(before.st_atime_ns, before.st_mtime_ns))
    first = place.remember(path, watched=(other,))
    other.replace(path)
    assert place.save().digest != first.digest
    place.assert_right()


def test_the_same_name_elsewhere_is_read_again(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    digests = []
    for number, folder in enumerate(("one", "two"), 1):
        path = place.model(f"{folder}/model.onnx", float(number))
        settle(path)
        monkeypatch.chdir(path.parent)
        digests.append(place.save("model.onnx").digest)
        place.assert_right()
    assert len(set(digests)) == 2


@pytest.mark.parametrize("linked", ["file", "folder"])
def test_a_link_that_leads_elsewhere_now_is_followed_again(place: Place, linked: str) -> None:
    one, two = place.model("one/model.onnx"), place.model("two/model.onnx", 2.0)
    link = place.folder / ("link.onnx" if linked == "file" else "link")

    def lead_to(target: Path) -> Path:
        link.unlink(missing_ok=True)
        link.symlink_to(target if linked == "file" else target.parent)
        return link if linked == "file" else link / "model.onnx"

    first = place.remember(lead_to(one), watched=(two,))
    assert place.is_believed()
    lead_to(two)
    assert place.save().digest != first.digest
    place.assert_right()


def with_external_data(folder: Path, scale: float = 1.0) -> tuple[Path, Path]:
    """The model with its tensors in ``w.data`` beside it."""
    folder.mkdir(exist_ok=True)
    path = folder / "model.onnx"
    model = support.wide_model(scale=scale)
    onnx.save_model(model, str(path), save_as_external_data=True, location="w.data", size_threshold=0)
    return path, folder / "w.data"


@pytest.mark.parametrize("way", [replace_with, write])
def test_changed_external_data_is_read_again(place: Place, way: Callable[[bytes], Callable[[Path], object]]) -> None:
    path, data = with_external_data(place.folder)
    first = place.remember(path, watched=(data,))
    assert place.is_believed()
    changed = bytes(byte ^ 1 if number == 100 else byte for number, byte in enumerate(data.read_bytes()))
    keeping_times(data, way(changed))
    assert place.save().digest != first.digest
    place.assert_right()


def test_external_data_that_is_gone_is_missed(place: Place) -> None:
    path, data = with_external_data(place.folder)
    place.remember(path, watched=(data,))
    data.unlink()
    with pytest.raises(GitmodelError, match=r"its data should be in w\.data"):
        place.save()


def test_external_data_beside_a_link_belongs_to_the_link(place: Place) -> None:
    """One graph, linked into the folder of each run, where the run's own weights are."""
    digests = []
    for number, folder in enumerate(("one", "two"), 1):
        path, data = with_external_data(place.folder / folder, float(number))
        path.replace(place.folder / "model.onnx")
        path.symlink_to("../model.onnx")
        settle(data, place.folder / "model.onnx")
    for folder in ("one", "two", "one"):
        digests.append(place.save(place.folder / folder / "model.onnx").digest)
        place.assert_right()
    assert digests[0] == digests[2] != digests[1]


def weightless(place: Place) -> Path:
    """The model's graph alone."""
    model = support.wide_model()
    for tensor in model.graph.initializer:
        tensor.ClearField("raw_data")
    return state.write(model, place.folder / "graph.onnx")


def weights(place: Place, name: str, scale: float) -> Path:
    path = place.folder / name
    with h5py.File(path, "w") as file:
        for tensor in support.wide_model(scale=scale).graph.initializer:
            file[tensor.name] = numpy_helper.to_array(tensor)
    return path


def test_other_weights_are_read(place: Place) -> None:
    graph, one, two = weightless(place), weights(place, "one.h5", 1.0), weights(place, "two.h5", 2.0)
    first = place.remember(graph, watched=(one, two), weights=one)
    assert place.is_believed()
    assert place.save(graph, weights=two).digest != first.digest
    place.assert_right()
    assert place.save(graph, weights=one).digest == first.digest
    keeping_times(one, replace_with(two.read_bytes()))
    assert place.save(graph, weights=one).digest != first.digest
    place.assert_right()


def test_other_signatures_are_read(place: Place) -> None:
    path, one, two = (place.model(f"{scale}.onnx", scale) for scale in (1.0, 2.0, 3.0))

    def views(**graphs: Path) -> tuple[str, set[str]]:
        digest = place.save(path, signatures=graphs).digest
        place.assert_right()
        return digest, {file.name for file in (place.bundle / "weights").glob("*.onnx")}

    settle(path, one, two)
    alone, first, other = views(), views(embed=one), views(embed=two)
    assert len({alone[0], first[0], other[0]}) == 3
    assert alone[1] == {"model.onnx"}
    assert first[1] == {"model.onnx", "model.embed.onnx"}
    assert views(tags=one)[1] == {"model.onnx", "model.tags.onnx"}
    assert views(embed=one) == first
    assert views(embed=one, tags=two)[1] == {"model.onnx", "model.embed.onnx", "model.tags.onnx"}
    assert views() == alone
    views(embed=one)
    keeping_times(one, replace_with(two.read_bytes()))
    assert views(embed=one) == other


def test_files_in_another_order_are_read_again(place: Place) -> None:
    """What shards say of themselves in words, the first one says."""
    files = []
    for name in ("a", "b"):
        tensor = TensorData(name, "float32", (2,), memoryview(np.ones(2, "float32").tobytes()))
        files.append(place.folder / f"{name}.safetensors")
        safetensors.write(Source("drawn", "", (tensor,), metadata={"said by": name}), files[-1])
    settle(*files)
    first = place.save(*files)
    place.assert_right()
    second = place.save(*reversed(files))
    place.assert_right()
    assert first.digest != second.digest


@pytest.fixture
def rewriting(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str, Callable[[], object]], None]]:
    """``rewriting("plan", action)``: the next save does that just before this step of its own."""

    def before(step: str, action: Callable[[], object]) -> None:
        real = getattr(module, step)

        def stepping(*arguments: Any, **options: Any) -> Any:
            monkeypatch.setattr(module, step, real)
            action()
            return real(*arguments, **options)

        monkeypatch.setattr(module, step, stepping)

    yield before
    monkeypatch.undo()


@pytest.mark.parametrize("step", ["store_weights", "plan", "_write"])
@pytest.mark.parametrize("way", [replace_with, write])
def test_a_file_rewritten_while_it_is_saved_is_read_again(
    place: Place,
    rewriting: Callable[[str, Callable[[], object]], None],
    step: str,
    way: Callable[[bytes], Callable[[Path], object]],
) -> None:
    """A training run may be through with its next checkpoint before the last one is saved."""
    path = place.model()

    def next_checkpoint() -> None:
        way(support.wide_model(scale=2.0).SerializeToString())(path)
        settle(path)

    settle(path)
    rewriting(step, next_checkpoint)
    try:
        place.save(path)
    except GitmodelError as error:  # to refuse what changed under its hands is right, too
        assert "model.onnx" in str(error)
    place.assert_right()


# The bundle has changed -----------------------------------------------------------------------------------------------


def edited_digest(lock: Path) -> None:
    """Each file has another sha256."""
    text = lock.read_text()
    entries = Lock.from_text(text, "fraud").files
    for entry in entries:
        text = text.replace(entry.sha256, "0" * 64)
    lock.write_text(text)


def in_conflict(lock: Path) -> None:
    lock.write_text(f"<<<<<<< HEAD\n{lock.read_text()}=======\n>>>>>>> theirs\n")


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def gone(path: Path) -> None:
    path.unlink()


@pytest.mark.parametrize("edit", [edited_digest, in_conflict, emptied, gone])
def test_an_edited_lock_is_written_anew(place: Place, edit: Callable[[Path], None]) -> None:
    place.remember(place.model())
    lock = place.bundle / "weights.lock"
    before = lock.read_bytes()
    edit(lock)
    assert place.save().changed
    assert lock.read_bytes() == before
    place.assert_right()


@pytest.mark.parametrize("name", ["signature.yaml", "weights.dvc", ".gitignore"])
@pytest.mark.parametrize("edit", [emptied, gone])
def test_a_file_of_ours_that_was_edited_is_written_anew(place: Place, name: str, edit: Callable[[Path], None]) -> None:
    place.remember(place.model())
    path = place.bundle / name
    before = path.read_bytes()
    edit(path)
    place.save()
    assert path.read_bytes() == before
    place.assert_right()


def test_weights_changed_by_hand_are_not_overwritten(place: Place) -> None:
    place.remember(place.model())
    tensor = place.bundle / "weights" / "tensors" / "layer0%2Fweight.h5"
    keeping_times(tensor, replace_with(tensor.read_bytes()[:-1] + b"!"))
    by_hand = tensor.read_bytes()
    with pytest.raises(WouldLose, match="layer0"):
        place.save()
    assert tensor.read_bytes() == by_hand
    tensor.unlink()
    place.assert_right()


def test_objects_that_are_gone_are_stored_again(place: Place) -> None:
    place.remember(place.model())
    lock = Lock.from_text((place.bundle / "weights.lock").read_bytes(), "fraud")

    def path_of(entry: FileEntry) -> Path:
        return state.object_path(place.repo / ".dvc" / "cache", entry.md5)

    for entry in lock.files:
        path_of(entry).unlink()
        place.assert_right()
        path_of(entry).chmod(0o644)
        os.truncate(path_of(entry), entry.size - 1)
        place.assert_right()


def test_gates_are_asked_again_when_the_card_changes(place: Place, tmp_path: Path) -> None:
    one, two = (state.write(support.linear_model(scale=s), place.folder / f"{s}.onnx") for s in (1.0, 1.000001))
    place.save(one, golden=support.cases_npz(tmp_path / "cases.npz", rows=3))
    assert place.remember(two).stale_goldens == 0
    assert place.is_believed()
    card = place.bundle / "model.yaml"
    card.write_text(f"{card.read_text()}gates: {{tolerance: {{scores: {{rtol: 0.0, atol: 0.0}}}}}}\n")
    assert place.save().stale_goldens > 0
    settle(two)
    assert place.save().stale_goldens > 0, "and remembered"


def test_golden_cases_that_were_edited_are_run_again(place: Place, tmp_path: Path) -> None:
    path = state.write(support.linear_model(), place.folder / "model.onnx")
    place.save(path, golden=support.cases_npz(tmp_path / "cases.npz", rows=3))
    place.remember(path)
    assert place.is_believed()
    output = place.bundle / "golden" / "cases" / "test_data_set_1" / "output_0.pb"
    values = numpy_helper.to_array(onnx.load_tensor(str(output)))
    output.write_bytes(numpy_helper.from_array(values[:, ::-1].copy(), "scores").SerializeToString())
    assert place.save().stale_goldens == 1
    shutil.rmtree(output.parent)
    again = place.save()
    assert (again.stale_goldens, again.golden_cases) == (0, 2)


def test_groups_in_the_card_become_signatures(place: Place) -> None:
    place.remember(place.model())
    card = place.bundle / "model.yaml"
    card.write_text(f"{card.read_text()}signatures: {{embed: {{outputs: [h1]}}}}\n")
    assert place.save().changed
    assert "embed:" in (place.bundle / "signature.yaml").read_text()


# Receipts themselves --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text", [b"", b"{", b"[]", b"null", b"7", b"{}", b'{"given": 1}', b"\xff\xfe", b'{"schema": 1, "what": 2}']
)
def test_a_receipt_that_makes_no_sense_is_none(place: Place, text: bytes) -> None:
    place.remember(place.model())
    place.receipt.write_bytes(text)
    place.assert_right()
    assert place.is_believed(), "and there is a new one"


@pytest.mark.parametrize(
    "change",
    [{"schema": 2}, {"given": []}, {"given": None}, {"files": []}, {"files": None}, {"files": {"/nowhere": [1]}}, {"bundle": ""}],
    ids=str,
)  # fmt: skip
def test_a_receipt_of_something_else_is_none(place: Place, change: dict[str, Any]) -> None:
    place.remember(place.model())
    told = json.loads(place.receipt.read_bytes())
    place.receipt.write_text(json.dumps(told | {"stale": 77} | change))
    assert place.save().stale_goldens == 0


def test_receipts_that_cannot_be_written_are_done_without(place: Place) -> None:
    place.receipt.parent.mkdir(parents=True)
    place.receipt.parent.rmdir()
    place.receipt.parent.write_bytes(b"no folder")
    place.save(place.model())
    place.assert_right()


def test_a_file_so_fresh_that_it_could_change_unseen_leaves_no_receipt(place: Place) -> None:
    path = place.model()
    place.remember(path)
    later = time.time_ns() + 3600 * 10**9
    os.utime(path, ns=(later, later))
    place.save()
    assert not place.receipt.exists()
    at = path.stat().st_mtime_ns
    write(support.wide_model(scale=2.0).SerializeToString())(path)
    os.utime(path, ns=(at, at))
    place.assert_right()


def test_an_object_leaves_no_receipt(place: Place) -> None:
    place.remember(place.model())
    save("fraud", {"w": np.ones(3, "float32")}, repo=place.repo)
    assert not place.receipt.exists()
    place.assert_right()


def test_a_branch_of_its_own_is_saved_anew(place: Place) -> None:
    """The receipt is of the other branch's bundle."""
    path = place.model()
    place.remember(path)
    support.git(place.repo, "add", ".")
    support.git(place.repo, "commit", "-qm", "one")
    support.git(place.repo, "checkout", "-q", "-b", "side", "HEAD~1")
    assert not (place.bundle / "weights.lock").exists()
    place.assert_right()


def test_a_receipt_names_what_was_read(tmp_path: Path) -> None:
    folder, file, kept = tmp_path / "bundle", tmp_path / "file", tmp_path / "kept" / "fraud.json"
    folder.mkdir()
    (folder / "weights.lock").write_text("lock")
    file.write_bytes(b"one")
    states = receipt.states([file, tmp_path / "gone"])
    assert list(states) == [str(file)]
    receipt.write(kept, ["a", "b"], states, folder, ("onnx", "tests", 3))
    found = receipt.find(kept, ["a", "b"], folder)
    assert found is not None
    assert (found.format, found.framework, found.stale, found.files) == ("onnx", "tests", 3, states)
    assert receipt.find(kept, ["b", "a"], folder) is None
    assert receipt.find(tmp_path / "none.json", ["a", "b"], folder) is None
    (folder / "weights.lock").write_text("other")
    assert receipt.find(kept, ["a", "b"], folder) is None
    receipt.write(kept, ["a", "b"], {}, folder, ("onnx", "tests", 3))
    assert not kept.exists(), "of nothing there is none"


def test_what_has_changed_since_is_named(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for path in (one, two):
        path.write_bytes(b"one")
    settle(one, two)
    states = receipt.states([one, two])
    assert receipt.settled(states)
    assert receipt.changed_since(states) == ""
    (tmp_path / "another name").hardlink_to(one)
    assert receipt.changed_since(states) == "", "its bytes are the same"
    replace_with(b"two")(two)
    assert receipt.changed_since(states) == str(two)
    one.unlink()
    assert receipt.changed_since(states) == str(one)
    later = time.time_ns() + 3600 * 10**9
    os.utime(two, ns=(later, later))
    assert not receipt.settled(receipt.states([two]))


@pytest.mark.parametrize(
    "path",
    ["weights.lock", "signature.yaml", "model.yaml", "golden/test_data_set_0/input_0.pb", "golden/x/test_data_set_0/a.pb"],
)  # fmt: skip
def test_what_a_bundle_is_known_by(tmp_path: Path, path: str) -> None:
    seen = {receipt.fingerprint(tmp_path)}
    (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
    for text in ("one", "two", "one more"):
        (tmp_path / path).write_text(text)
        seen.add(receipt.fingerprint(tmp_path))
    assert len(seen) == 4
    (tmp_path / "metrics.yaml").write_text("accuracy: 0.9\n")
    assert receipt.fingerprint(tmp_path) in seen
