"""``doctor``: each ailment is made, named and, where it needs nobody's judgement, mended; a healthy repository has none."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gitmodel import hooks
from gitmodel.doctor import checkup
from gitmodel.doctor.ailment import Ailment, Checkup
from gitmodel.errors import ExitCode
from gitmodel.git import NotARepository
from gitmodel.workflows.fsck import fsck
from gitmodel.workflows.save import save
from gitmodel.workflows.transfer import pull
from tests import support
from tests.workflows import state
from tests.workflows.keeping import CHANGED, Shop


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    """A repository without an ailment: hooks, a verifying DVC remote, a Git remote that has everything."""
    shop = Shop.make(tmp_path_factory.mktemp("template"))
    config = shop.repo / ".dvc" / "config"
    config.write_text(config.read_text() + "    verify = true\n")
    shop.git("commit", "-qam", "verify")
    shop.git("clone", "-q", "--bare", ".", "../origin.git")
    shop.git("remote", "add", "origin", "../origin.git")
    shop.git("fetch", "-q")
    hooks.install(shop.repo)
    return shop


@pytest.fixture
def shop(template: Shop, tmp_path: Path) -> Shop:
    return template.copied(tmp_path / "shop")


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A bare repository that reports to pushers, and is set up as it should be."""
    path = tmp_path / "production.git"
    subprocess.run(["git", "init", "-q", "--bare", str(path)], check=True)
    hooks.install(path, server=True)
    for key in ("receive.denyDeletes", "receive.denyNonFastForwards"):
        support.git(path, "config", key, "true")
    (path / "hooks" / "update").write_text("#!/bin/sh\nexit 0\n")
    (path / "hooks" / "update").chmod(0o755)
    return path


def codes(found: Checkup) -> list[str]:
    return [ailment.code for ailment in found.ailments]


def only(found: Checkup, code: str) -> Ailment:
    assert codes(found) == [code]
    return found.ailments[0]


def mended(repo: Path, code: str) -> None:
    """Repairs once, and then there is nothing any more."""
    repaired = next(ailment for ailment in checkup.examine(repo, repair=True).ailments if ailment.code == code)
    assert repaired.repaired
    assert codes(checkup.examine(repo)) == []


def test_nothing_ails_a_repository_that_is_in_order(shop: Shop, bare: Path) -> None:
    for repo in (shop.repo, bare):
        found = checkup.examine(repo, remote=True, repair=True)
        assert found == Checkup(())
        assert found.exit_code == ExitCode.OK
        assert found.to_dict()["healthy"] is True


def test_a_fresh_repository_gets_advice_alone(repo: Path) -> None:
    found = checkup.examine(repo)
    assert found.ailments
    assert found.open == []
    assert found.exit_code == ExitCode.OK


def test_looking_changes_nothing(shop: Shop) -> None:
    (shop.repo / ".git" / "index.lock").touch()
    (shop.repo / ".gitattributes").unlink()
    before = state.whole(shop.repo)
    assert checkup.examine(shop.repo).exit_code == ExitCode.INCOMPATIBLE
    assert state.whole(shop.repo) == before


# Locks and left-overs


@pytest.mark.parametrize("name", ["index.lock", "HEAD.lock", "packed-refs.lock", "config.lock", "refs/heads/main.lock"])
def test_a_git_lock_that_nobody_holds_is_stale(shop: Shop, name: str) -> None:
    lock = shop.repo / ".git" / name
    lock.touch()
    found = only(checkup.examine(shop.repo), "stale-git-lock")
    assert str(lock) in found.message
    assert found.mend == f"rm {lock}"
    mended(shop.repo, "stale-git-lock")
    assert not lock.exists()


def test_a_lock_a_process_has_open_is_held(shop: Shop) -> None:
    lock = shop.repo / ".git" / "index.lock"
    with lock.open("w"):
        assert codes(checkup.examine(shop.repo)) == []
    assert codes(checkup.examine(shop.repo)) == ["stale-git-lock"]


def test_a_lock_is_held_while_a_git_is_at_work(shop: Shop, tmp_path: Path) -> None:
    ready, go = tmp_path / "ready", tmp_path / "go"
    os.mkfifo(ready)
    os.mkfifo(go)
    editor = f"sh -c 'echo > {ready}; cat {go}; echo Message > \"$1\"' --"
    commit = f"git -C {shop.repo} commit -q --allow-empty; :"  # a Git of our own would be a helper that only reads
    with subprocess.Popen(["sh", "-c", commit], env={**os.environ, "GIT_EDITOR": editor}):
        ready.read_text()  # the editor is open
        (shop.repo / ".git" / "HEAD.lock").touch()
        during = codes(checkup.examine(shop.repo, repair=True))
        stays = (shop.repo / ".git" / "HEAD.lock").exists()
        go.write_text("")
    assert stays
    assert "stale-git-lock" not in during


def test_dvcs_lock_of_a_dead_process_is_stale(shop: Shop) -> None:
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    path = shop.repo / ".dvc" / "tmp" / "rwlock"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"write": {"/x": {"pid": gone.pid, "cmd": "dvc add"}}, "read": {}}))
    assert only(checkup.examine(shop.repo), "stale-dvc-lock").repair is not None
    mended(shop.repo, "stale-dvc-lock")
    assert json.loads(path.read_text()) == {"write": {}, "read": {}}


@pytest.mark.parametrize(
    "name",
    [
        ".dvc/cache/files/md5/tmp-gitmodel-x", ".git/gitmodel/staged/staged-x/model.onnx", "models/fraud/.weights.lock.x.tmp",
        "models/fraud/weights/tensors/.a.h5.x.tmp", ".git/gitmodel/store/versions/building-x/model.onnx",
    ],
)  # fmt: skip
def test_what_a_killed_process_left_goes_when_it_is_old(shop: Shop, name: str) -> None:
    path = shop.repo / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("half")
    assert codes(checkup.examine(shop.repo)) == [], "somebody may be at work"
    for old in (path, path.parent):
        os.utime(old, (0, 0))
    found = only(checkup.examine(shop.repo), "left-over")
    assert found.advice
    mended(shop.repo, "left-over")
    assert not path.exists()


# Hooks and settings


def test_hooks_that_are_not_called_are_told(shop: Shop, tmp_path: Path) -> None:
    shop.git("config", "core.hooksPath", str(tmp_path / "team-hooks"))
    found = checkup.examine(shop.repo)
    assert codes(found) == ["hooks-bypassed", "hooks-absent"]
    assert str(tmp_path / "team-hooks") in found.ailments[0].message
    hooks.install(shop.repo)
    assert codes(checkup.examine(shop.repo)) == ["hooks-bypassed"]


def test_a_hook_of_a_python_that_is_gone_is_told_and_mended(shop: Shop) -> None:
    shim = shop.repo / ".git" / "hooks" / "post-tag"
    shim.write_text(shim.read_text().replace(sys.executable, "/gone/python"))
    found = only(checkup.examine(shop.repo), "hook-outdated")
    assert "/gone/python, which is gone" in found.message
    assert not found.advice
    mended(shop.repo, "hook-outdated")


def test_a_hook_of_another_python_is_advice(shop: Shop) -> None:
    shim = shop.repo / ".git" / "hooks" / "post-tag"
    shim.write_text(shim.read_text().replace(sys.executable, shutil.which("sh") or "/bin/sh"))
    assert only(checkup.examine(shop.repo), "hook-outdated").advice


def test_a_repository_that_serves_must_refuse_deletions(bare: Path) -> None:
    support.git(bare, "config", "receive.denyDeletes", "no")
    support.git(bare, "config", "--unset", "receive.denyNonFastForwards")
    (bare / "hooks" / "update").unlink()
    found = checkup.examine(bare)
    assert codes(found) == ["weak-setting", "weak-setting", "tags-may-move"]
    assert found.exit_code == ExitCode.INCOMPATIBLE
    for ailment in found.open:
        assert subprocess.run(ailment.mend, shell=True, check=False).returncode == 0, "the mend can be typed"
    assert codes(checkup.examine(bare)) == ["tags-may-move"]


def test_a_bare_repository_that_does_not_serve_may_be_set_up_as_it_likes(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", "--bare", str(tmp_path / "plain.git")], check=True)
    assert only(checkup.examine(tmp_path / "plain.git"), "hooks-absent").advice


def test_lines_that_keep_weights_out_of_git_are_put_back(shop: Shop) -> None:
    (shop.repo / "models" / "fraud" / ".gitignore").write_text("/other\n")
    assert only(checkup.examine(shop.repo), "gitignore-line-missing").repair is not None
    mended(shop.repo, "gitignore-line-missing")
    assert (shop.repo / "models" / "fraud" / ".gitignore").read_text() == "/other\n/weights\n"


def test_a_line_elsewhere_that_ignores_weights_will_do(shop: Shop) -> None:
    (shop.repo / "models" / "fraud" / ".gitignore").unlink()
    (shop.repo / ".gitignore").write_text("models/*/weights/\n")
    assert codes(checkup.examine(shop.repo)) == []


def test_attributes_are_put_back_beside_the_users_own(shop: Shop) -> None:
    (shop.repo / ".gitattributes").write_text("*.txt text\n")
    assert only(checkup.examine(shop.repo), "gitattributes-line-missing").repair is not None
    mended(shop.repo, "gitattributes-line-missing")
    assert (shop.repo / ".gitattributes").read_text().startswith("*.txt text\n")


def test_weights_in_git_need_a_person(shop: Shop) -> None:
    shop.git("add", "-f", "models/fraud/weights/model.onnx")
    found = only(checkup.examine(shop.repo, repair=True), "weights-in-git")
    assert "models/fraud/weights/model.onnx" in found.message
    assert found.repair is None


def test_large_model_files_anywhere_in_git_are_told(shop: Shop) -> None:
    sizes = {
        "big.safetensors": 3 << 20,
        "models/fraud/odd näme.onnx": 1 << 20,
        "models/fraud/assets/table.npz": 2 << 20,
    }
    for path, size in (sizes | {"small.onnx": 1000, "film.mp4": 4 << 20}).items():
        (shop.repo / path).parent.mkdir(exist_ok=True)
        (shop.repo / path).write_bytes(bytes(size))
        shop.git("add", "-f", path)
    assert codes(checkup.examine(shop.repo)) == []
    shop.git("commit", "-qm", "models")
    found = next(ailment for ailment in checkup.examine(shop.repo).ailments if ailment.code == "model-in-git")
    assert found.message == "2 large model files in Git itself, such as big.safetensors (3 MiB)"
    assert found.advice


def test_the_advice_on_a_model_in_git_can_be_typed_whatever_its_name(shop: Shop) -> None:
    name = "it's\nbig.onnx"
    (shop.repo / name).write_bytes(bytes(1 << 20))
    shop.git("add", "-f", name)
    shop.git("commit", "-qm", "a model")
    found = next(ailment for ailment in checkup.examine(shop.repo).ailments if ailment.code == "model-in-git")
    assert "it's\\nbig.onnx" in found.message
    assert shlex.split(found.mend.replace(",", " ").replace("&&", " ")).count(name) == 2


def test_a_partial_clone_brings_no_model_to_be_asked_for_its_size(shop: Shop) -> None:
    (shop.repo / "big.onnx").write_bytes(bytes(1 << 20))
    shop.git("add", "-f", "big.onnx")
    shop.git("commit", "-qm", "a model")
    shop.git("config", "uploadpack.allowFilter", "true")
    clone = shop.folder / "partial"
    command = ["git", "clone", "-q", "--no-checkout", "--filter=blob:none", f"file://{shop.repo}", str(clone)]
    subprocess.run(command, check=True)
    absent = f"?{shop.git('rev-parse', 'HEAD:big.onnx')}"
    listing = ("rev-list", "--objects", "--missing=print", "HEAD")
    assert absent in support.git(clone, *listing).splitlines()
    done = checkup.examine(clone)
    assert not done.incomplete
    assert "model-in-git" not in codes(done), "nobody here knows how large it is"
    assert absent in support.git(clone, *listing).splitlines()


def test_a_repository_without_a_commit_has_no_models_in_it(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    assert not checkup.examine(tmp_path).incomplete


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"gpg.format": "ssh"}, "no key is named"),
        ({"gpg.format": "ssh", "user.signingKey": "/nowhere/key"}, "/nowhere/key, which is not there"),
        ({"gpg.program": "no-such-program"}, "no-such-program is not here"),
        ({"gpg.format": "ssh", "user.signingKey": "ssh-ed25519 AAAA"}, ""),
        ({"gpg.format": "ssh", "gpg.ssh.defaultKeyCommand": "ssh-add -L"}, ""),
    ],
)
def test_signing_without_a_key_is_told(shop: Shop, settings: dict[str, str], words: str) -> None:
    if settings.get("gpg.format") == "ssh" and shutil.which("ssh-keygen") is None:
        pytest.skip("there is no ssh-keygen")
    for key, value in settings.items():
        shop.git("config", key, value)
    assert codes(checkup.examine(shop.repo)) == [], "nobody asked for signatures"
    shop.git("config", "tag.gpgSign", "true")
    found = checkup.examine(shop.repo)
    assert [ailment.code for ailment in found.ailments if words in ailment.message] == ["signing-impossible"] * bool(
        words
    )


# Caches, remotes, copies


def test_a_cache_that_is_no_folder_is_told(shop: Shop) -> None:
    shutil.rmtree(shop.cache)
    shop.cache.write_text("in the way")
    assert "cache-unusable" in codes(checkup.examine(shop.repo))


def test_a_cache_on_another_file_system_is_told(shop: Shop) -> None:
    elsewhere = Path("/dev/shm")
    if not elsewhere.is_dir() or elsewhere.stat().st_dev == shop.repo.stat().st_dev:
        pytest.skip("there is only one file system")
    with (shop.repo / ".dvc" / "config").open("a") as config:
        config.write(f"[cache]\n    dir = {elsewhere / 'gitmodel-nothing-here'}\n")
    assert "cache-far" in codes(checkup.examine(shop.repo))


def test_damaged_objects_that_were_moved_away_are_told(shop: Shop) -> None:
    orphan = state.object_path(shop.cache, "ab" + "0" * 30)
    orphan.parent.mkdir(exist_ok=True)
    orphan.write_bytes(b"bad")
    fsck(repo=shop.repo, repair=True)
    assert only(checkup.examine(shop.repo), "quarantine").advice


def test_a_remote_that_dvc_trusts_blindly_is_told_and_set_to_verify(shop: Shop) -> None:
    config = shop.repo / ".dvc" / "config"
    before = config.read_text()
    config.write_text(before.replace("    verify = true\n", ""))
    assert only(checkup.examine(shop.repo), "remote-not-verified").advice
    mended(shop.repo, "remote-not-verified")
    assert "../../storage" in config.read_text()
    assert support.run("dvc", "config", "remote.storage.verify", cwd=shop.repo).stdout.strip() == "True"


def test_a_remote_that_is_set_up_elsewhere_is_left_to_the_person(shop: Shop) -> None:
    (shop.repo / ".dvc" / "config.local").write_text("['remote \"mine\"']\n    url = ../../storage\n")
    assert only(checkup.examine(shop.repo, repair=True), "remote-not-verified").repair is None


def test_a_remote_that_is_gone_is_told(shop: Shop) -> None:
    shop.storage.rename(shop.folder / "unmounted")
    found = only(checkup.examine(shop.repo), "remote-unreachable")
    assert str(shop.storage) in found.message


def test_without_a_remote_weights_lie_here_alone(shop: Shop) -> None:
    (shop.repo / ".dvc" / "config").write_text("")
    assert only(checkup.examine(shop.repo), "no-remote").advice
    shop.object(CHANGED, "fraud@v1.0.0").unlink()
    found = checkup.examine(shop.repo)
    assert codes(found) == ["released-bytes-gone", "no-remote"]
    assert "fraud@v1.0.0 are not here, and there is no remote" in found.ailments[0].message


def test_bytes_of_a_release_that_are_nowhere_are_told_when_the_remote_is_asked(shop: Shop) -> None:
    for root in (shop.cache, shop.storage):
        shop.object(CHANGED, "fraud@v1.0.0", root).unlink()
    assert codes(checkup.examine(shop.repo)) == []
    found = only(checkup.examine(shop.repo, remote=True), "released-bytes-gone")
    assert "fraud@v1.0.0 are neither here nor in the remote 'storage'" in found.message


def test_a_release_that_was_not_pushed_is_told_when_the_remote_is_asked(shop: Shop) -> None:
    shop.object(CHANGED, root=shop.storage).unlink()
    found = only(checkup.examine(shop.repo, remote=True), "not-pushed")
    assert "fraud@v1.1.0" in found.message
    assert found.advice


def test_bytes_of_a_release_in_the_cache_of_a_linked_worktree_alone_are_told(shop: Shop) -> None:
    linked = shop.folder / "linked"
    shop.git("worktree", "add", "-q", "--detach", str(linked))
    pull(["fraud@v1.1.0"], repo=linked)
    shop.object(CHANGED).unlink()
    assert "in-linked-worktree" not in codes(checkup.examine(shop.repo, remote=True)), "the remote has them"
    shop.object(CHANGED, root=shop.storage).unlink()
    for repo in (shop.repo, linked):
        found = only(checkup.examine(repo, remote=True), "in-linked-worktree")
        assert "fraud@v1.1.0" in found.message
        assert found.advice


def test_a_remote_that_cannot_be_asked_leaves_the_rest_to_be_told(shop: Shop) -> None:
    (shop.repo / ".dvc" / "config").write_text(
        "['remote \"web\"']\n    url = s3://nowhere/x\n    endpointurl = http://127.0.0.1:1\n    connect_timeout = 1\n"
        "    verify = true\n[core]\n    remote = web\n"
    )
    (shop.repo / ".git" / "index.lock").touch()
    found = checkup.examine(shop.repo, remote=True)
    assert codes(found) == ["stale-git-lock"]
    assert "'web'" in found.incomplete
    assert found.exit_code == ExitCode.INCOMPLETE


def test_lightweight_release_tags_are_told(shop: Shop) -> None:
    shop.git("tag", "fraud@v1.2.0")
    shop.git("tag", "not-ours")
    shop.git("push", "-q", "origin", "main")
    found = only(checkup.examine(shop.repo), "lightweight-tag")
    assert found.message.startswith("fraud@v1.2.0:")


def test_commits_that_are_nowhere_else_are_told(shop: Shop) -> None:
    shop.git("commit", "-q", "--allow-empty", "-m", "mine")
    assert only(checkup.examine(shop.repo), "commits-only-here").message.startswith("1 commit on")
    shop.git("remote", "remove", "origin")
    assert only(checkup.examine(shop.repo), "only-copy").advice


def test_a_model_saved_by_git_init_alone_needs_dvc_and_is_examined_all_the_same(git_repo: Path) -> None:
    (git_repo / "a").write_text("a")
    support.git(git_repo, "add", "a")
    support.git(git_repo, "commit", "-qm", "a")
    assert codes(checkup.examine(git_repo)) == ["hooks-absent", "only-copy"]


def test_a_repair_that_fails_is_told(shop: Shop) -> None:
    lock = shop.repo / ".git" / "refs" / "heads" / "x.lock"
    lock.mkdir()  # what cannot be unlinked
    found = checkup.examine(shop.repo, repair=True)
    assert not found.ailments[0].repaired
    assert "could not be mended" in found.incomplete


def test_outside_a_repository_there_is_nothing_to_examine(tmp_path: Path) -> None:
    with pytest.raises(NotARepository):
        checkup.examine(tmp_path)


def test_what_ails_is_told_for_programs(shop: Shop) -> None:
    (shop.repo / ".git" / "index.lock").touch()
    document = checkup.examine(shop.repo).to_dict()
    assert (document["schema"], document["healthy"], document["incomplete"]) == (1, False, None)
    (ailment,) = document["ailments"]
    assert (ailment["code"], ailment["repairable"], ailment["repaired"]) == ("stale-git-lock", True, False)


def test_a_thing_saved_after_a_repair_is_saved(shop: Shop, tmp_path: Path, save_file: Callable[[], Path]) -> None:
    (shop.repo / ".git" / "index.lock").touch()
    checkup.examine(shop.repo, repair=True)
    assert save("spam", [save_file()], repo=shop.repo, message="spam").commit


@pytest.fixture
def save_file(tmp_path: Path) -> Callable[[], Path]:
    return lambda: state.write(support.linear_model(), tmp_path / "linear.onnx")
