"""Every mistake and misfortune of the path from a file to a version, through the real command: one line, its code, no harm."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from onnx import external_data_helper

from gitmodel.workflows import transfer
from gitmodel.workflows.init import init
from gitmodel.workflows.release import release
from gitmodel.workflows.save import save
from tests import support
from tests.workflows import state

LFS = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "4d" * 32 + "\nsize 12345\n"
DVC = "outs:\n- md5: a304afb96060aad90176268345e10355\n  size: 37891850\n  hash: md5\n  path: model.onnx\n"
MENDABLE, INCOMPLETE = 2, 3


@dataclass
class Place:
    """A model repository with ``fraud`` released as v1.0.0 and pushed, and a folder beside it for the user's files."""

    repo: Path
    folder: Path
    environment: dict[str, str] = field(default_factory=dict)
    prefix: list[str] = field(default_factory=list)

    @property
    def storage(self) -> Path:
        return self.folder / "storage"

    def file(self, name: str, data: bytes | str) -> Path:
        path = self.folder / name
        path.write_bytes(data if isinstance(data, bytes) else data.encode())
        return path

    def model(self, scale: float = 2.0) -> Path:
        return state.write(support.wide_model(scale=scale), self.folder / f"{scale}.onnx")

    def clone(self) -> None:
        """From here on the repository is a clone without weights."""
        self.repo = state.clone(self.repo, self.folder / "clone")

    def object_of(self, root: Path, path: str) -> Path:
        lines = (self.repo / "models" / "fraud" / "weights.lock").read_text().splitlines()
        return state.object_path(root, next(line.split()[-1] for line in lines if line.startswith(f"file {path} ")))


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder every case gets a copy of: building it takes longer than what is tested."""
    folder = tmp_path_factory.mktemp("template")
    found = Place(state.model_repository(folder), folder)
    save("fraud", [found.model(1.0)], repo=found.repo, message="one")
    release("fraud", repo=found.repo)
    transfer.push(repo=found.repo)
    return folder


@pytest.fixture
def place(template: Path, tmp_path: Path) -> Place:
    shutil.copytree(template, tmp_path / "place", symlinks=True)
    return Place(tmp_path / "place" / "repo", tmp_path / "place")


Prepare = Callable[[Place], list[str | Path]]


@dataclass(frozen=True)
class Case:
    """``prepare`` brings the misfortune about and gives the command; then exit code, error code and words of the line."""

    prepare: Prepare
    exit_code: int
    code: str
    says: tuple[str, ...]


CASES: dict[str, Case] = {}


def case(exit_code: int, code: str, *says: str) -> Callable[[Prepare], Prepare]:
    """Enters a function below into the table under its own name."""

    def enter(prepare: Prepare) -> Prepare:
        CASES[prepare.__name__.replace("_", " ")] = Case(prepare, exit_code, code, says)
        return prepare

    return enter


def saving(path: Path, *options: str | Path) -> list[str | Path]:
    return ["save", "fraud", path, "-m", "two", *options]


# --- what is no model -------------------------------------------------------------------------------------------------


@case(MENDABLE, "invalid-model", "empty.onnx is empty", "export")
def an_empty_graph(place: Place) -> list[str | Path]:
    return saving(place.file("empty.onnx", b""))


@case(MENDABLE, "invalid-model", "empty.h5 is empty")
def an_empty_checkpoint(place: Place) -> list[str | Path]:
    return saving(place.file("empty.h5", b""))


@case(MENDABLE, "invalid-model", "cut.onnx is not a whole ONNX file", "cut short")
def a_truncated_graph(place: Place) -> list[str | Path]:
    return saving(place.file("cut.onnx", place.model().read_bytes()[:50_000]))


@case(MENDABLE, "invalid-model", "cut.h5", "whole HDF5 file")
def a_truncated_checkpoint(place: Place) -> list[str | Path]:
    with h5py.File(place.folder / "whole.h5", "w") as file:
        file["kernel"] = np.ones((200, 200))
    return saving(place.file("cut.h5", (place.folder / "whole.h5").read_bytes()[:100_000]))


@case(MENDABLE, "invalid-model", "random.onnx is not a")
def a_random_file_as_graph(place: Place) -> list[str | Path]:
    return saving(place.file("random.onnx", np.random.default_rng(5).bytes(4096)))


@case(MENDABLE, "invalid-model", "random.h5", "whole HDF5 file")
def a_random_file_as_checkpoint(place: Place) -> list[str | Path]:
    return saving(place.file("random.h5", np.random.default_rng(5).bytes(4096)))


@case(MENDABLE, "invalid-model", "text.onnx is not a")
def a_text_as_graph(place: Place) -> list[str | Path]:
    return saving(place.file("text.onnx", "<html>404 not found</html>\n"))


@case(MENDABLE, "invalid-model", "lfs.onnx is a Git LFS pointer", "git lfs pull")
def a_git_lfs_pointer_as_graph(place: Place) -> list[str | Path]:
    return saving(place.file("lfs.onnx", LFS))


@case(MENDABLE, "invalid-model", "lfs.h5 is a Git LFS pointer", "git lfs pull")
def a_git_lfs_pointer_as_checkpoint(place: Place) -> list[str | Path]:
    return saving(place.file("lfs.h5", LFS))


@case(MENDABLE, "invalid-model", "model.onnx is a DVC pointer", "dvc pull")
def a_dvc_pointer_as_graph(place: Place) -> list[str | Path]:
    return saving(place.file("model.onnx", DVC))


@case(MENDABLE, "invalid-model", "model.onnx.dvc is a DVC pointer", "dvc pull")
def a_dvc_pointer_by_its_own_name(place: Place) -> list[str | Path]:
    return saving(place.file("model.onnx.dvc", DVC))


@case(MENDABLE, "invalid-model", "there is no file", "absent.onnx")
def a_file_that_is_not_there(place: Place) -> list[str | Path]:
    return saving(place.folder / "absent.onnx")


@case(MENDABLE, "invalid-model", "storage is not a file")
def a_folder_as_model(place: Place) -> list[str | Path]:
    return saving(place.storage)


@case(MENDABLE, "invalid-model", "model.pkl has an unknown ending", ".onnx, .h5")
def a_file_of_another_format(place: Place) -> list[str | Path]:
    return saving(place.file("model.pkl", b"\x80\x04."))


@case(MENDABLE, "invalid-model", "'layer0/weight'", "../away.data")
def external_data_from_outside(place: Place) -> list[str | Path]:
    model = support.wide_model()
    external_data_helper.set_external_data(model.graph.initializer[0], "../away.data")
    model.graph.initializer[0].ClearField("raw_data")
    return saving(state.write(model, place.folder / "outside.onnx"))


@case(INCOMPLETE, "model-load-failed", "newer.onnx", "IR version: 99", "older opset and IR version")
def a_newer_file_format_than_the_runtimes(place: Place) -> list[str | Path]:
    model = support.linear_model()
    model.ir_version = 99
    return saving(state.write(model, place.folder / "newer.onnx"))


@case(INCOMPLETE, "model-load-failed", "newer.onnx", "pset 999", "older opset and IR version")
def newer_operators_than_the_runtimes(place: Place) -> list[str | Path]:
    model = support.linear_model()
    model.opset_import[0].version = 999
    return saving(state.write(model, place.folder / "newer.onnx"))


@case(INCOMPLETE, "model-load-failed", "odd.onnx", "NoSuchOperator")
def an_operator_nobody_has(place: Place) -> list[str | Path]:
    model = support.linear_model()
    model.graph.node[0].op_type = "NoSuchOperator"
    return saving(state.write(model, place.folder / "odd.onnx"))


# --- what does not belong to the model --------------------------------------------------------------------------------


@case(MENDABLE, "unclear-files", "2 graphs", "one .onnx, one checkpoint")
def two_graphs_at_once(place: Place) -> list[str | Path]:
    return ["save", "fraud", place.model(2.0), place.model(3.0)]


@case(MENDABLE, "invalid-golden", "cases.npz", "'features'")
def golden_cases_of_another_model(place: Place) -> list[str | Path]:
    return saving(place.model(), "--golden", support.cases_npz(place.folder / "cases.npz", name="features"))


@case(MENDABLE, "invalid-golden", "cases.npz is no npz")
def golden_cases_that_are_none(place: Place) -> list[str | Path]:
    return saving(place.model(), "--golden", place.file("cases.npz", b"PK\x03\x04 not really"))


@case(MENDABLE, "invalid-yaml", "params.yaml", "line 2", "stands twice")
def params_with_a_key_twice(place: Place) -> list[str | Path]:
    return saving(place.model(), "--params", place.file("params.yaml", "depth: 3\ndepth: 4\n"))


@case(MENDABLE, "unclear-files", "there is no file", "labels.txt")
def labels_that_are_not_there(place: Place) -> list[str | Path]:
    return saving(place.model(), "--labels", place.folder / "labels.txt")


@case(MENDABLE, "would-lose", "mine.onnx")
def a_file_of_the_users_among_the_weights(place: Place) -> list[str | Path]:
    shutil.copy(place.model(), place.repo / "models" / "fraud" / "weights" / "mine.onnx")
    return saving(place.model())


# --- names and references ---------------------------------------------------------------------------------------------


@case(MENDABLE, "invalid-name", "'../fraud' is no model name", "letters, digits")
def a_name_that_leaves_its_folder(place: Place) -> list[str | Path]:
    return ["save", "../fraud", place.model()]


@case(MENDABLE, "invalid-name", "'$(id)' is no model name")
def a_name_for_the_shell(place: Place) -> list[str | Path]:
    return ["save", "$(id)", place.model()]


@case(MENDABLE, "invalid-name", "'' is no model name")
def no_name_at_all(place: Place) -> list[str | Path]:
    return ["save", "", place.model()]


@case(MENDABLE, "invalid-name", "'fraud@v1.0.0' is no model name")
def a_version_where_a_name_is_wanted(place: Place) -> list[str | Path]:
    return ["release", "fraud@v1.0.0"]


@case(MENDABLE, "unknown-model", "'nothing'", "models here: fraud")
def an_unknown_model(place: Place) -> list[str | Path]:
    return ["show", "nothing"]


@case(MENDABLE, "unknown-model", "nothing has no models/nothing/model.yaml", "models here: fraud")
def a_release_of_an_unknown_model(place: Place) -> list[str | Path]:
    return ["release", "nothing"]


@case(MENDABLE, "unknown-version", "fraud has no version '7'", "versions: v1.0.0")
def an_unknown_version(place: Place) -> list[str | Path]:
    return ["checkout", "fraud@7"]


@case(MENDABLE, "unknown-version", "fraud has no stage 'prod'", "gitmodel promote")
def an_unknown_stage(place: Place) -> list[str | Path]:
    return ["show", "fraud#prod"]


@case(MENDABLE, "unknown-revision", "no revision 'nowhere'")
def an_unknown_revision(place: Place) -> list[str | Path]:
    return ["show", "fraud@nowhere"]


def ghost(place: Place, *command: str) -> list[str | Path]:
    """A tag of a model that no commit has."""
    support.git(place.repo, "tag", "-a", "-m", "ghost", "ghost@v1.0.0")
    return list(command)


@case(MENDABLE, "unknown-version", "ghost@v1.0.0 has no models/ghost")
def showing_a_tag_of_an_unknown_model(place: Place) -> list[str | Path]:
    return ghost(place, "show", "ghost@v1.0.0")


@case(MENDABLE, "unknown-version", "ghost@v1.0.0 has no models/ghost")
def a_checkout_of_a_tag_of_an_unknown_model(place: Place) -> list[str | Path]:
    return ghost(place, "checkout", "ghost@v1.0.0")


@case(MENDABLE, "unknown-version", "ghost@v1.0.0 has no models/ghost")
def a_pull_of_a_tag_of_an_unknown_model(place: Place) -> list[str | Path]:
    return ghost(place, "pull", "ghost@v1.0.0")


@case(MENDABLE, "unknown-version", "ghost@v1.0.0 has no models/ghost")
def a_promotion_of_a_tag_of_an_unknown_model(place: Place) -> list[str | Path]:
    return ghost(place, "promote", "ghost@v1.0.0", "prod")


@case(MENDABLE, "unknown-model", "ghost", "models here: fraud")
def the_log_of_a_tag_of_an_unknown_model(place: Place) -> list[str | Path]:
    return ghost(place, "log", "ghost")


# --- releases ---------------------------------------------------------------------------------------------------------


@case(MENDABLE, "nothing-changed", "fraud is what fraud@v1.0.0 is")
def a_release_with_nothing_changed(place: Place) -> list[str | Path]:
    return ["release", "fraud"]


def changed(place: Place, step: str) -> list[str | Path]:
    save("fraud", [place.model(1.1)], repo=place.repo, message="two")
    return ["release", "fraud", step]


@case(MENDABLE, "version-exists", "fraud@v1.0.0 exists", "never move")
def a_version_that_exists(place: Place) -> list[str | Path]:
    return changed(place, "1.0.0")


@case(MENDABLE, "version-exists", "fraud@v0.9.0 is below fraud@v1.0.0")
def a_version_below_the_latest(place: Place) -> list[str | Path]:
    return changed(place, "v0.9.0")


@case(MENDABLE, "invalid-version", "'1.1' is no semantic version", "v1.2.0")
def a_version_that_is_none(place: Place) -> list[str | Path]:
    return changed(place, "1.1")


@case(MENDABLE, "invalid-version", "'huge' is no bump", "major, minor or patch")
def a_bump_that_is_none(place: Place) -> list[str | Path]:
    return changed(place, "huge")


@case(MENDABLE, "uncommitted", "fraud has changes that are not committed", "save with -m")
def a_release_from_a_dirty_tree(place: Place) -> list[str | Path]:
    save("fraud", [place.model()], repo=place.repo)
    return ["release", "fraud"]


@case(MENDABLE, "would-lose", "has changes that are not committed")
def a_checkout_over_a_dirty_tree(place: Place) -> list[str | Path]:
    save("fraud", [place.model()], repo=place.repo)
    return ["checkout", "fraud@v1.0.0"]


@case(MENDABLE, "unknown-version", "fraud@HEAD is no released version")
def a_promotion_of_what_was_not_released(place: Place) -> list[str | Path]:
    save("fraud", [place.model()], repo=place.repo, message="two")
    return ["promote", "fraud@HEAD", "prod"]


@case(INCOMPLETE, "git-failed", "there is no Git remote 'nowhere'")
def a_push_to_a_git_remote_that_is_not_there(place: Place) -> list[str | Path]:
    return ["promote", "fraud@v1.0.0", "prod", "--push", "nowhere"]


# --- weights and remotes ----------------------------------------------------------------------------------------------


@case(MENDABLE, "no-remote", "no DVC remote is set", "gitmodel init --remote URL")
def a_push_without_a_dvc_remote(place: Place) -> list[str | Path]:
    support.run("dvc", "remote", "remove", "storage", cwd=place.repo)
    return ["push"]


@case(MENDABLE, "no-remote", "no DVC remote is set", "gitmodel init --remote URL")
def a_pull_without_a_dvc_remote(place: Place) -> list[str | Path]:
    place.clone()
    support.run("dvc", "remote", "remove", "storage", cwd=place.repo)
    return ["pull"]


@case(MENDABLE, "no-remote", "'nowhere'", "dvc remote list")
def a_dvc_remote_nobody_set(place: Place) -> list[str | Path]:
    return ["push", "--remote", "nowhere"]


@case(MENDABLE, "no-remote", "'cloud' needs a plugin", "dvc-gs", "gitmodel[gs]")
def a_dvc_remote_without_its_plugin(place: Place) -> list[str | Path]:
    support.run("dvc", "remote", "add", "cloud", "gs://bucket/weights", cwd=place.repo)
    return ["push", "--remote", "cloud"]


@case(INCOMPLETE, "remote-failed", "does not have tensors/layer0%2Fweight.h5", "gitmodel push")
def weights_missing_from_the_remote(place: Place) -> list[str | Path]:
    place.clone()
    place.object_of(place.storage, "tensors/layer0%2Fweight.h5").unlink()
    return ["pull"]


@case(INCOMPLETE, "remote-failed", "cannot be reached, or holds nothing")
def a_remote_folder_that_is_gone(place: Place) -> list[str | Path]:
    place.clone()
    place.storage.rename(place.folder / "unmounted")
    return ["pull"]


@case(INCOMPLETE, "remote-failed", "cannot be reached, or holds nothing")
def a_checkout_whose_weights_cannot_be_had(place: Place) -> list[str | Path]:
    place.clone()
    place.storage.rename(place.folder / "unmounted")
    return ["checkout", "fraud@v1.0.0"]


@case(INCOMPLETE, "remote-failed", "other bytes for tensors/layer0%2Fweight.h5 than weights.lock says")
def a_damaged_object_in_the_remote(place: Place) -> list[str | Path]:
    place.clone()
    state.damage(place.object_of(place.storage, "tensors/layer0%2Fweight.h5"))
    return ["pull"]


@case(
    INCOMPLETE,
    "missing-weights",
    "other bytes for tensors/layer0%2Fweight.h5 than weights.lock says",
    "gitmodel fsck --repair",
)
def a_damaged_object_in_the_cache(place: Place) -> list[str | Path]:
    shutil.rmtree(place.repo / "models" / "fraud" / "weights")
    state.damage(place.object_of(place.repo / ".dvc" / "cache", "tensors/layer0%2Fweight.h5"))
    return ["pull"]


@case(INCOMPLETE, "missing-weights", "other bytes for tensors/layer0%2Fweight.h5 than weights.lock says")
def a_damaged_object_that_would_be_pushed(place: Place) -> list[str | Path]:
    shutil.rmtree(place.storage)
    state.damage(place.object_of(place.repo / ".dvc" / "cache", "tensors/layer0%2Fweight.h5"))
    return ["push"]


@case(INCOMPLETE, "missing-weights", "not in the DVC cache", "gitmodel pull")
def a_push_of_weights_that_are_not_here(place: Place) -> list[str | Path]:
    place.clone()
    place.object_of(place.storage, "tensors/layer0%2Fweight.h5").unlink()
    return ["push"]


@case(MENDABLE, "invalid-lock", "fraud: weights.lock line 2", "leaves its folder")
def a_lock_that_names_a_path_outside(place: Place) -> list[str | Path]:
    lock = place.repo / "models" / "fraud" / "weights.lock"
    lock.write_text(f"# gitmodel weights.lock v1\nfile ../../../.bashrc 1 {'0' * 64} {'0' * 32}\n")
    return ["pull"]


# --- Git and the file system ------------------------------------------------------------------------------------------


@case(INCOMPLETE, "git-failed", "another Git process holds index.lock", "remove a stale .git/index.lock")
def a_stale_index_lock(place: Place) -> list[str | Path]:
    (place.repo / ".git" / "index.lock").touch()
    return saving(place.model())


@case(INCOMPLETE, "git-failed", "Git does not know your name", "git config user.name")
def a_user_git_does_not_know(place: Place) -> list[str | Path]:
    support.git(place.repo, "config", "user.useConfigOnly", "true")
    place.environment["GIT_CONFIG_GLOBAL"] = os.devnull
    return saving(place.model())


@case(INCOMPLETE, "git-failed", "Git does not know your name", "git config user.name")
def a_user_with_an_empty_name(place: Place) -> list[str | Path]:
    place.environment["GIT_AUTHOR_NAME"] = ""
    return saving(place.model())


@case(INCOMPLETE, "storage-failed", "cannot write the DVC cache")
def a_cache_that_is_no_folder(place: Place) -> list[str | Path]:
    shutil.rmtree(place.repo / ".dvc" / "cache")
    (place.repo / ".dvc" / "cache").write_text("in the way")
    return saving(place.model())


def without_rights(place: Place, folder: Path) -> None:
    """Nothing below ``folder`` may be written any more, by nobody: root, who may do everything, gives up that right."""
    for path in [folder, *folder.rglob("*")]:
        if not path.is_symlink():
            path.chmod(path.stat().st_mode & ~0o222)
    if os.geteuid() == 0:
        if not shutil.which("setpriv"):
            pytest.skip("root may write everywhere")
        place.prefix = ["setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all"]


@case(INCOMPLETE, "storage-failed", "cannot write the DVC cache", "Permission denied")
def a_cache_that_may_only_be_read(place: Place) -> list[str | Path]:
    without_rights(place, place.repo / ".dvc" / "cache")
    return saving(place.model())


@case(INCOMPLETE, "git-failed", ".git/gitmodel", "Permission denied")
def a_repository_that_may_only_be_read(place: Place) -> list[str | Path]:
    without_rights(place, place.repo / ".git")
    return saving(place.model())


@case(INCOMPLETE, "remote-failed", "'storage'", "Permission denied")
def a_remote_that_may_only_be_read(place: Place) -> list[str | Path]:
    save("fraud", [place.model()], repo=place.repo, message="two")
    without_rights(place, place.storage)
    return ["push"]


@case(MENDABLE, "no-remote", "DVC's configuration cannot be read", ".dvc/config")
def a_dvc_configuration_that_cannot_be_read(place: Place) -> list[str | Path]:
    (place.repo / ".dvc" / "config").write_text("[core\n")
    return ["push"]


def unchanged(repo: Path, before: dict[str, Any]) -> bool:
    """As it was, but that whole and right objects a remote had may have come into the cache."""
    after = state.whole(repo)
    for name in set(after["files"]) - set(before["files"]):
        folder, _, rest = name.removeprefix(".dvc/cache/files/md5/").partition("/")
        if f"{folder}{rest}" != hashlib.md5((repo / name).read_bytes()).hexdigest():
            return False
        del after["files"][name]
    return after == before


@pytest.mark.parametrize("name", CASES)
def test_it_is_one_line_with_its_code_and_changes_nothing(place: Place, name: str) -> None:
    case = CASES[name]
    command = case.prepare(place)
    before = state.whole(place.repo)
    storage = state.files(place.storage) if place.storage.exists() else None
    argv = [*place.prefix, support.BIN / "gitmodel", *command]
    done = support.run(*argv, cwd=place.repo, env={**os.environ, **place.environment})
    assert done.stderr.startswith(f"error[{case.code}]: "), done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    for words in case.says:
        assert words in done.stderr
    assert "Traceback" not in done.stdout + done.stderr
    assert done.stdout == ""
    assert done.returncode == case.exit_code
    assert unchanged(place.repo, before)
    assert (state.files(place.storage) if place.storage.exists() else None) == storage


# --- places that are no model repository ------------------------------------------------------------------------------

ANYWHERE = [
    ["list"], ["log", "fraud"], ["save", "fraud", "MODEL"], ["init"], ["push"], ["pull"], ["release", "fraud"],
    ["promote", "fraud@v1.0.0", "prod"], ["checkout", "fraud@v1.0.0"],
]  # fmt: skip
WRITING = [command for command in ANYWHERE if command[0] not in ("list", "log", "init")]


def refused(folder: Path, command: list[str], code: str, *says: str) -> None:
    model = state.write(support.linear_model(), folder.parent / "model.onnx")
    done = support.gitmodel(*[str(model) if word == "MODEL" else word for word in command], cwd=folder)
    assert done.stderr.startswith(f"error[{code}]: "), done.stderr
    assert done.stderr.count("\n") == 1, done.stderr
    assert all(words in done.stderr for words in says), done.stderr
    assert (done.stdout, done.returncode) == ("", MENDABLE)


@pytest.mark.parametrize("command", [*ANYWHERE, ["check-compat"]], ids=lambda command: command[0])
def test_outside_any_git_repository(tmp_path: Path, command: list[str]) -> None:
    (tmp_path / "plain").mkdir()
    refused(tmp_path / "plain", command, "not-a-repository", "is not in a Git repository", "git init")
    assert list((tmp_path / "plain").iterdir()) == []


def test_a_reference_outside_any_git_repository(tmp_path: Path) -> None:
    (tmp_path / "plain").mkdir()
    refused(tmp_path / "plain", ["show", "fraud"], "unknown-model", "run inside a repository")


@pytest.mark.parametrize("command", WRITING, ids=lambda command: command[0])
def test_in_a_repository_that_was_not_initialised(git_repo: Path, command: list[str]) -> None:
    refused(git_repo, command, "not-initialised", "is no model repository yet", "gitmodel init")
    assert state.files(git_repo) == {}


def test_a_check_where_there_is_nothing(git_repo: Path, tmp_path: Path) -> None:
    refused(git_repo, ["check-compat"], "nothing-to-compare", "there is no model here", "gitmodel save")
    subprocess.run(["git", "init", "-q", "--bare", str(tmp_path / "empty.git")], check=True)
    refused(tmp_path / "empty.git", ["check-compat"], "needs-working-tree", "is a bare repository", "--against")


@pytest.mark.parametrize("command", [["init"], *WRITING], ids=lambda command: command[0])
def test_in_a_bare_repository(tmp_path: Path, command: list[str]) -> None:
    bare = tmp_path / "bare.git"
    subprocess.run(["git", "init", "-q", "--bare", str(bare)], check=True)
    before = state.whole(bare)
    refused(bare, command, "needs-working-tree", "is a bare repository", "a clone of it")
    assert state.whole(bare) == before


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    refused(tmp_path, ["list", "--repo", "absent"], "not-a-repository", "there is no folder absent")


# --- what is no misfortune --------------------------------------------------------------------------------------------


def test_saving_the_same_twice_says_so_and_changes_nothing(place: Place) -> None:
    path = place.model(1.0)
    before = state.whole(place.repo)
    files = [p for p in place.repo.rglob("*") if p.is_file() and ".git" not in p.parts]
    written = {p: (p.stat().st_ino, p.stat().st_mtime_ns) for p in files}
    done = support.gitmodel("save", "fraud", path, "-m", "two", cwd=place.repo)
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr.startswith("fraud unchanged: 2 tensors, ")
    assert done.stderr.count("\n") == 1
    assert state.whole(place.repo) == before
    cache = place.repo / ".dvc" / "cache"  # what is relied on there is touched: another repository may share it
    now = {p: (p.stat().st_ino, p.stat().st_mtime_ns) for p in files}
    assert {p: s for p, s in now.items() if not p.is_relative_to(cache)} == {
        p: s for p, s in written.items() if not p.is_relative_to(cache)
    }
    assert {p: s[0] for p, s in now.items()} == {p: s[0] for p, s in written.items()}


def test_a_repository_without_commits_can_be_saved_into(git_repo: Path, tmp_path: Path) -> None:
    init(git_repo)
    path = state.write(support.linear_model(), tmp_path / "model.onnx")
    done = support.gitmodel("save", "fraud", path, "-m", "the very first", cwd=git_repo)
    assert done.returncode == 0, done.stderr
    assert support.git(git_repo, "log", "--format=%s") == "the very first"
