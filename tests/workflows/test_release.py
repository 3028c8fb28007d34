"""``release`` and ``promote``: annotated tags that stock Git and GTO read, made only of what is committed, and never moved."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest

from gitmodel.compat.verdict import Report, Verdict
from gitmodel.errors import GitmodelError
from gitmodel.git import GitFailed, Repository
from gitmodel.registry import UnknownModel, UnknownVersion
from gitmodel.versions import Bump, InvalidName, InvalidVersion
from gitmodel.workflows.listing import read_trailers
from gitmodel.workflows.release import (
    GateRefused,
    NothingChanged,
    Uncommitted,
    VersionExists,
    promote,
    release,
)
from gitmodel.workflows.save import save
from tests import support
from tests.workflows import state
from tests.workflows.conftest import Change
from tests.workflows.state import judged


def tags(repo: Path) -> list[str]:
    return support.git(repo, "tag", "--list").splitlines()


def test_the_first_version_is_an_annotated_tag_on_the_commit(repo: Path, change: Change) -> None:
    change(1.0)
    done = release("fraud", repo=repo)
    assert done.tag == "fraud@v1.0.0"
    assert support.git(repo, "cat-file", "-t", "fraud@v1.0.0") == "tag"
    assert support.git(repo, "rev-parse", "fraud@v1.0.0^{commit}") == support.git(repo, "rev-parse", "HEAD")
    assert done.commit == support.git(repo, "rev-parse", "HEAD")


def test_the_tag_carries_a_block_that_git_itself_reads(released: Path) -> None:
    lock = (released / "models" / "fraud" / "weights.lock").read_bytes()
    text = support.git(released, "tag", "-l", "--format=%(contents)", "fraud@v1.0.0")
    read = subprocess.run(
        ["git", "interpret-trailers", "--parse"], input=f"{text}\n", capture_output=True, text=True, check=True
    ).stdout
    trailers = dict(line.split(": ", 1) for line in read.splitlines())
    assert trailers == {
        "Gitmodel-Schema": "1",
        "Model": "fraud",
        "Version": "v1.0.0",
        "Weights": f"sha256:{hashlib.sha256(lock).hexdigest()}",
        "Verdict": "compatible",
        "Required-Bump": "none",
        "Cases-Run": "16",
        "Base": "none",
    }
    assert read_trailers(text) == trailers


def test_the_authors_words_stand_before_the_block(released: Path, change: Change) -> None:
    change(1.01)
    release("fraud", repo=released, message="Trained on June\n\nVersion: not this one")
    text = Repository.open(released).tag_message("fraud@v1.1.0")
    assert text.splitlines()[0] == "fraud v1.1.0"
    assert "Trained on June" in text
    assert read_trailers(text)["Version"] == "v1.1.0"
    assert read_trailers(text)["Base"] == "v1.0.0"


def test_by_default_the_version_takes_the_bump_that_is_owed(released: Path, change: Change, tmp_path: Path) -> None:
    told: list[Report] = []
    save("fraud", [tmp_path / "fraud-1.0.onnx"], repo=released, metrics={"accuracy": 0.9}, message="metrics")
    assert release("fraud", repo=released).tag == "fraud@v1.0.1"
    change(1.01)
    assert release("fraud", repo=released, told=told.append).tag == "fraud@v1.1.0"
    assert told[0].required_bump is Bump.MINOR
    renamed = state.write(support.linear_model(input_name="features"), tmp_path / "renamed.onnx")
    save("fraud", [renamed], repo=released, golden=support.cases_npz(tmp_path / "f.npz", name="features"), message="x")
    done = release("fraud", repo=released)
    assert done.tag == "fraud@v2.0.0"
    assert judged(done).verdict is Verdict.INCOMPATIBLE


@pytest.mark.parametrize(
    ("step", "tag"), [("minor", "v1.1.0"), ("major", "v2.0.0"), ("1.5.2", "v1.5.2"), ("v3.0.0-rc.1",) * 2]
)
def test_a_step_that_pays_may_be_chosen(released: Path, change: Change, step: str, tag: str) -> None:
    change(1.01)
    assert release("fraud", step, repo=released).tag == f"fraud@{tag}"


@pytest.mark.parametrize("step", ["patch", "1.0.1"])
def test_a_step_too_small_is_refused_with_the_one_that_pays(released: Path, change: Change, step: str) -> None:
    change(1.01)
    before = state.whole(released)
    with pytest.raises(GateRefused, match="gitmodel release fraud minor") as caught:
        release("fraud", step, repo=released)
    assert caught.value.exit_code == 1
    assert caught.value.report.required_bump is Bump.MINOR
    assert state.whole(released) == before


def test_nothing_changed_gives_no_version(released: Path, change: Change) -> None:
    change(1.0, name="churn")
    before = state.whole(released)
    for step in ("auto", "major", "2.0.0"):
        with pytest.raises(NothingChanged, match=r"fraud is what fraud@v1\.0\.0 is"):
            release("fraud", step, repo=released)
    assert state.whole(released) == before


def test_a_version_that_exists_or_is_lower_is_refused(released: Path, change: Change) -> None:
    change(1.01)
    release("fraud", repo=released)
    change(1.02)
    before = state.whole(released)
    with pytest.raises(VersionExists, match=r"fraud@v1\.0\.0 exists"):
        release("fraud", "1.0.0", repo=released)
    with pytest.raises(VersionExists, match=r"fraud@v1\.0\.5 is below fraud@v1\.1\.0"):
        release("fraud", "1.0.5", repo=released)
    assert state.whole(released) == before


@pytest.mark.parametrize("step", ["1.0", "v1", "1.2.3.4", "01.2.3", "huge", "none", "", "--force"])
def test_a_step_that_is_none_is_refused(released: Path, change: Change, step: str) -> None:
    change(1.01)
    with pytest.raises(InvalidVersion):
        release("fraud", step, repo=released)
    assert tags(released) == ["fraud@v1.0.0"]


def test_only_what_is_committed_is_released(released: Path, tmp_path: Path) -> None:
    cases = support.cases_npz(tmp_path / "new.npz")
    save("fraud", [state.write(support.linear_model(scale=1.01), tmp_path / "n.onnx")], repo=released, golden=cases)
    with pytest.raises(Uncommitted, match="not committed"):
        release("fraud", repo=released)
    support.git(released, "add", "models")
    with pytest.raises(Uncommitted):
        release("fraud", repo=released)
    support.git(released, "commit", "-qm", "now")
    assert release("fraud", repo=released).tag == "fraud@v1.1.0"


def test_other_work_in_the_tree_is_no_hindrance(released: Path, change: Change) -> None:
    change(1.01)
    (released / "notes.txt").write_text("mine")
    assert release("fraud", repo=released).tag == "fraud@v1.1.0"
    assert support.git(released, "status", "--porcelain") == "?? notes.txt"


def test_what_is_not_there_cannot_be_released(git_repo: Path, released: Path) -> None:
    for name in ("nothing", "models"):
        with pytest.raises(UnknownModel, match="models here: fraud"):
            release(name, repo=released)
    with pytest.raises(InvalidName):
        release("../x", repo=released)


def test_before_the_first_commit_there_is_nothing_to_name(git_repo: Path, tmp_path: Path) -> None:
    from gitmodel.workflows.init import init

    init(git_repo)
    save("fraud", [state.write(support.linear_model(), tmp_path / "m.onnx")], repo=git_repo)
    with pytest.raises(Uncommitted, match="there is no commit yet"):
        release("fraud", repo=git_repo)


def test_a_withdrawn_version_is_not_given_out_again(released: Path, change: Change) -> None:
    change(1.01)
    release("fraud", repo=released)
    support.git(released, "tag", "-a", "-m", "withdrawn", "fraud@v1.1.0!", "fraud@v1.1.0^{}")
    change(1.02)
    with pytest.raises(VersionExists, match=r"v1\.1\.0 exists"):
        release("fraud", "1.1.0", repo=released)
    assert release("fraud", repo=released).tag == "fraud@v1.2.0"


def test_a_first_version_that_was_withdrawn_does_not_bar_the_next(released: Path, change: Change) -> None:
    support.git(released, "tag", "-a", "-m", "withdrawn", "fraud@v1.0.0!", "fraud@v1.0.0^{}")
    change(1.01)
    assert release("fraud", repo=released).tag == "fraud@v1.0.1"


def test_without_weights_there_is_no_verdict_and_no_version(released: Path, change: Change, tmp_path: Path) -> None:
    change(1.01)
    copy = state.clone(released, tmp_path / "clone")
    before = state.whole(copy)
    with pytest.raises(GateRefused, match="cannot be judged is not released") as caught:
        release("fraud", repo=copy)
    assert caught.value.exit_code == 3
    assert state.whole(copy) == before


def test_a_signed_release_verifies(released: Path, change: Change, tmp_path: Path) -> None:
    if not shutil.which("ssh-keygen"):
        pytest.skip("needs ssh-keygen")
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    (tmp_path / "allowed").write_text(f"ada@example.org {key.with_suffix('.pub').read_text()}")
    for name, value in (
        ("gpg.format", "ssh"), ("user.signingKey", str(key)), ("gpg.ssh.allowedSignersFile", str(tmp_path / "allowed")),
    ):  # fmt: skip
        support.git(released, "config", name, value)
    change(1.01)
    release("fraud", repo=released, sign=True)
    verified = support.run("git", "verify-tag", "fraud@v1.1.0", cwd=released)
    assert verified.returncode == 0, verified.stderr
    assert "ada@example.org" in verified.stderr


def test_a_key_that_is_not_there_makes_no_tag(released: Path, change: Change, tmp_path: Path) -> None:
    support.git(released, "config", "gpg.format", "ssh")
    support.git(released, "config", "user.signingKey", str(tmp_path / "absent"))
    change(1.01)
    with pytest.raises(GitFailed) as caught:
        release("fraud", repo=released, sign=True)
    assert "\n" not in str(caught.value)
    assert tags(released) == ["fraud@v1.0.0"]


@pytest.fixture
def production(released: Path, tmp_path: Path) -> Path:
    bare = tmp_path / "production.git"
    subprocess.run(["git", "init", "-q", "--bare", str(bare)], check=True)
    support.git(released, "remote", "add", "production", str(bare))
    return bare


def test_a_push_sends_weights_then_the_branch_then_the_tag(
    released: Path, production: Path, change: Change, tmp_path: Path
) -> None:
    change(1.01)
    done = release("fraud", repo=released, push="production")
    assert done.tag in done.pushed
    assert tags(production) == ["fraud@v1.1.0"]
    assert support.git(production, "rev-parse", "main") == done.commit
    stored = {p.relative_to(tmp_path / "storage").as_posix() for p in (tmp_path / "storage").rglob("*") if p.is_file()}
    lock = (released / "models" / "fraud" / "weights.lock").read_text()
    wanted = [line.split()[-1] for line in lock.splitlines() if line.startswith("file ")]
    assert {f"files/md5/{md5[:2]}/{md5[2:]}" for md5 in wanted} <= stored


def test_a_push_the_other_side_refuses_says_what_is_left_to_do(
    released: Path, production: Path, change: Change
) -> None:
    hook = production / "hooks" / "pre-receive"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\necho 'not on Fridays' >&2\nexit 1\n")
    hook.chmod(0o755)
    change(1.01)
    with pytest.raises(GitFailed, match=r"'fraud@v1\.1\.0' is made here but not pushed") as caught:
        release("fraud", repo=released, push="production")
    assert "git push production HEAD && git push production 'fraud@v1.1.0'" in caught.value.hint
    assert "\n" not in str(caught.value)
    hook.unlink()
    support.git(released, "push", "-q", "production", "HEAD", "fraud@v1.1.0")  # as the hint says
    assert tags(production) == ["fraud@v1.1.0"]


def test_a_detached_head_pushes_the_tag_alone(released: Path, production: Path, change: Change) -> None:
    change(1.01)
    support.git(released, "checkout", "-q", "--detach")
    release("fraud", repo=released, push="production")
    assert support.git(production, "for-each-ref", "--format=%(refname)") == "refs/tags/fraud@v1.1.0"


def test_a_git_remote_that_is_not_there_is_refused_before_the_tag(released: Path, change: Change) -> None:
    change(1.01)
    before = state.whole(released)
    with pytest.raises(GitmodelError, match="nowhere"):
        release("fraud", repo=released, push="nowhere")
    with pytest.raises(GitmodelError, match="nowhere"):
        promote("fraud@v1.0.0", "prod", repo=released, push="nowhere")
    assert state.whole(released) == before


def test_no_tag_without_its_weights_at_the_remote(
    released: Path, production: Path, change: Change, tmp_path: Path
) -> None:
    change(1.01)
    (tmp_path / "storage").rmdir()
    (tmp_path / "storage").write_text("no folder")
    with pytest.raises(GitmodelError, match="storage"):
        release("fraud", repo=released, push="production")
    assert tags(released) == ["fraud@v1.0.0"]
    assert tags(production) == []


def test_a_stage_moves_by_new_tags_and_keeps_its_history(released: Path, change: Change) -> None:
    change(1.01)
    release("fraud", repo=released)
    assert promote("fraud@v1.0.0", "prod", repo=released) == ("fraud#prod#1", "v1.0.0", "")
    assert promote("fraud@latest", "prod", repo=released, message="All is well")[0] == "fraud#prod#2"
    assert promote("fraud#prod", "canary", repo=released)[:2] == ("fraud#canary#1", "v1.1.0")
    assert promote("fraud@1.0", "prod", repo=released)[:2] == ("fraud#prod#3", "v1.0.0")
    assert support.git(released, "rev-parse", "fraud#prod#3^{}") == support.git(
        released, "rev-parse", "fraud@v1.0.0^{}"
    )
    assert support.git(released, "cat-file", "-t", "fraud#prod#2") == "tag"
    message = Repository.open(released).tag_message("fraud#prod#2")
    assert message.startswith("All is well")
    assert read_trailers(message) == {"Model": "fraud", "Stage": "prod", "Version": "v1.1.0"}


def test_a_stage_is_put_on_versions_alone(released: Path, change: Change, tmp_path: Path) -> None:
    change(1.01)
    for reference in ("fraud", "fraud@HEAD", str(tmp_path / "fraud-1.0.onnx")):
        with pytest.raises(UnknownVersion, match="no released version"):
            promote(reference, "prod", repo=released)
    with pytest.raises(UnknownVersion, match="has no version"):
        promote("fraud@v7.0.0", "prod", repo=released)
    for stage in ("", "a b", "prod;id", "../x"):
        with pytest.raises(InvalidName, match="no stage name"):
            promote("fraud@v1.0.0", stage, repo=released)
    assert tags(released) == ["fraud@v1.0.0"]


def test_a_stage_that_stands_there_already_makes_no_tag(released: Path) -> None:
    promote("fraud@v1.0.0", "prod", repo=released)
    with pytest.raises(NothingChanged, match=r"fraud#prod is on v1\.0\.0 already"):
        promote("fraud@v1.0.0", "prod", repo=released)
    assert tags(released) == ["fraud#prod#1", "fraud@v1.0.0"]


def test_a_stage_that_was_withdrawn_can_be_put_back(released: Path) -> None:
    promote("fraud@v1.0.0", "prod", repo=released)
    support.git(released, "tag", "-a", "-m", "off", "fraud#prod!#2", "fraud@v1.0.0^{}")
    assert promote("fraud@v1.0.0", "prod", repo=released)[0] == "fraud#prod#3"


def test_a_promotion_is_pushed_with_its_version(released: Path, production: Path) -> None:
    _, _, said = promote("fraud@v1.0.0", "prod", repo=released, push="production")
    assert tags(production) == ["fraud#prod#1", "fraud@v1.0.0"]
    assert "fraud#prod#1" in said
