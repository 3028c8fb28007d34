"""``release --push`` and ``promote --push``: weights, then commits, then the tag, so that a tag never arrives before its bytes."""

from __future__ import annotations

import re
import shlex
import shutil
import stat
import subprocess
from pathlib import Path

import pytest

from gitmodel.errors import GitmodelError
from gitmodel.git import GitFailed
from gitmodel.storage.remote import RemoteFailed
from gitmodel.workflows.release import promote, release
from gitmodel.workflows.save import save
from gitmodel.workflows.transfer import fetch
from tests import support
from tests.workflows import state

#: Git runs it for each ref that a push is about to move: what there is at that moment is written down.
_WITNESS = """#!/bin/sh
echo "$1 $(find '{storage}' -type f -size +0 -not -name '*.tmp' | wc -l)" >> '{log}'
"""


@pytest.fixture
def author(repo: Path, tmp_path: Path) -> Path:
    """``fraud`` saved and committed, not released; the Git remote ``production`` is empty."""
    subprocess.run(["git", "init", "-q", "--bare", str(tmp_path / "production.git")], check=True)
    support.git(repo, "remote", "add", "production", str(tmp_path / "production.git"))
    saved(repo, tmp_path, 1.0)
    return repo


def saved(repo: Path, tmp_path: Path, scale: float) -> None:
    path = state.write(support.wide_model(scale=scale), tmp_path / f"model-{scale}.onnx")
    save("fraud", [path], repo=repo, message=f"scale {scale}")


def hook(production: Path, name: str, text: str) -> None:
    path = production / "hooks" / name
    path.write_text(text)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def refs(production: Path) -> set[str]:
    return set(support.git(production, "for-each-ref", "--format=%(refname)").split())


def every_version_can_be_had(production: Path, tmp_path: Path) -> bool:
    """From the outside, with nothing at hand: clones, and fetches every version there is a tag of."""
    clone = state.clone(production, tmp_path / f"outside{len(list(tmp_path.iterdir()))}")
    tags = support.git(clone, "tag").split()
    fetch([tag for tag in tags if "@" in tag], repo=clone)
    return bool(tags)


def test_weights_come_first_and_the_tag_last(author: Path, tmp_path: Path) -> None:
    production = tmp_path / "production.git"
    hook(production, "update", _WITNESS.format(storage=tmp_path / "storage", log=tmp_path / "log"))
    release("fraud", repo=author, push="production")
    promote("fraud@v1.0.0", "prod", repo=author, push="production")
    assert (tmp_path / "log").read_text().splitlines() == [
        "refs/heads/main 5", "refs/tags/fraud@v1.0.0 5", "refs/tags/fraud#prod#1 5"
    ]  # fmt: skip
    assert every_version_can_be_had(production, tmp_path)


def test_when_the_weights_cannot_go_nothing_goes_and_no_tag_is_made(author: Path, tmp_path: Path) -> None:
    (tmp_path / "storage").rename(tmp_path / "lost")
    (tmp_path / "storage").write_bytes(b"no folder")
    before = support.git(author, "for-each-ref")
    with pytest.raises(RemoteFailed):
        release("fraud", repo=author, push="production")
    assert support.git(author, "for-each-ref") == before
    assert refs(tmp_path / "production.git") == set()
    (tmp_path / "storage").unlink()
    (tmp_path / "lost").rename(tmp_path / "storage")
    assert release("fraud", repo=author, push="production").tag == "fraud@v1.0.0"
    assert every_version_can_be_had(tmp_path / "production.git", tmp_path)


def test_weights_that_are_not_all_here_hold_the_release_back(author: Path, tmp_path: Path) -> None:
    shutil.rmtree(author / ".dvc" / "cache" / "files" / "md5")
    with pytest.raises(GitmodelError):
        release("fraud", repo=author, push="production")
    assert refs(tmp_path / "production.git") == set()
    assert support.git(author, "tag") == ""


def test_when_the_branch_is_refused_no_tag_arrives(author: Path, tmp_path: Path) -> None:
    production = tmp_path / "production.git"
    release("fraud", repo=author, push="production")
    other = state.clone(production, tmp_path / "other")
    (other / "README").write_text("somebody was quicker")
    support.git(other, "add", "README")
    support.git(other, "commit", "-qm", "quicker")
    support.git(other, "push", "-q", "origin", "main")
    saved(author, tmp_path, 1.001)
    with pytest.raises(GitFailed, match=r"'fraud@v1\.\d\.\d' is made here but not pushed") as caught:
        release("fraud", repo=author, push="production")
    assert "\n" not in str(caught.value)
    assert refs(production) == {"refs/heads/main", "refs/tags/fraud@v1.0.0"}
    support.git(author, "pull", "-q", "--no-rebase", "--no-edit", "production", "main")
    made = support.git(author, "tag").split()[-1]
    support.git(author, "push", "-q", "production", "HEAD")  # as the hint says
    support.git(author, "push", "-q", "production", made)
    assert every_version_can_be_had(production, tmp_path)


def test_when_the_tag_is_refused_the_same_command_sends_it_later(author: Path, tmp_path: Path) -> None:
    production = tmp_path / "production.git"
    hook(
        production,
        "update",
        'case "$1" in refs/tags/*) echo "not today" >&2; exit 1;; esac\n'.join(["#!/bin/sh\n", ""]),
    )
    with pytest.raises(GitFailed, match="not pushed"):
        release("fraud", repo=author, push="production")
    assert refs(production) == {"refs/heads/main"}
    (production / "hooks" / "update").unlink()
    assert release("fraud", repo=author, push="production").tag == "fraud@v1.0.0"
    assert every_version_can_be_had(production, tmp_path)


def test_a_version_that_stayed_here_is_promoted_with_its_weights(author: Path, tmp_path: Path) -> None:
    """The tag of the version takes its commit along; its bytes have to be there before."""
    release("fraud", repo=author)
    promote("fraud@v1.0.0", "prod", repo=author, push="production")
    assert refs(tmp_path / "production.git") == {"refs/tags/fraud@v1.0.0", "refs/tags/fraud#prod#1"}
    support.git(tmp_path / "production.git", "symbolic-ref", "HEAD", "refs/heads/main")
    support.git(tmp_path / "production.git", "branch", "main", "fraud@v1.0.0^{}")
    assert every_version_can_be_had(tmp_path / "production.git", tmp_path)


def test_a_version_that_is_there_is_promoted_while_the_dvc_remote_is_down(author: Path, tmp_path: Path) -> None:
    """Rolling back must not wait for storage that only new versions need."""
    release("fraud", repo=author, push="production")
    (tmp_path / "storage").rename(tmp_path / "lost")
    promote("fraud@v1.0.0", "prod", repo=author, push="production")
    assert "refs/tags/fraud#prod#1" in refs(tmp_path / "production.git")


def test_of_two_releases_at_once_one_is_the_version(author: Path, tmp_path: Path) -> None:
    production = tmp_path / "production.git"
    support.git(author, "push", "-q", "production", "main")
    authors = [author, tmp_path / "second"]
    subprocess.run(["git", "clone", "-q", "-o", "production", str(production), str(authors[1])], check=True)
    for number, place in enumerate(authors):
        support.run("gitmodel", "pull", cwd=place)
        saved(place, tmp_path, 2.0 + number)
    command = [str(support.BIN / "gitmodel"), "release", "fraud", "--push", "production"]
    running = [subprocess.Popen(command, cwd=place, stderr=subprocess.PIPE, text=True) for place in authors]
    said = [process.communicate()[1] for process in running]
    codes = [process.returncode for process in running]
    assert sorted(codes) == [0, 3], said
    winner, loser = codes.index(0), codes.index(3)
    assert "is made here but not pushed" in said[loser]
    assert "Traceback" not in said[loser]
    assert refs(production) == {"refs/heads/main", "refs/tags/fraud@v1.0.0"}
    for ref in ("main", "fraud@v1.0.0^{}"):
        assert support.git(production, "rev-parse", ref) == support.git(authors[winner], "rev-parse", "HEAD")
    assert every_version_can_be_had(production, tmp_path)


@pytest.fixture
def second(author: Path, tmp_path: Path) -> Path:
    """A second clone of ``production``, to which ``author`` has sent ``fraud@v1.0.0``, with a model of its own saved; then
    ``author`` releases ``fraud@v2.0.0``."""
    release("fraud", repo=author, push="production")
    other = tmp_path / "second"
    support.git(tmp_path, "clone", "-q", "-o", "production", "-b", "main", str(tmp_path / "production.git"), str(other))
    support.run("gitmodel", "pull", cwd=other)
    saved(author, tmp_path, 2.0)
    saved(other, tmp_path, 3.0)
    release("fraud", "v2.0.0", repo=author, push="production")
    return other


def commands(hint: str) -> list[str]:
    """What a hint has a person run, as it stands there."""
    return re.findall(r"git (?:tag|pull|fetch|push)(?: [^\s,;&()]+)+", hint)


def do(repo: Path, *lines: str) -> None:
    for line in lines:
        support.git(repo, *shlex.split(line)[1:])


def test_who_loses_a_number_to_somebody_else_reads_what_helps(author: Path, second: Path, tmp_path: Path) -> None:
    for _ in range(2):  # the same command again says the same
        with pytest.raises(GitFailed, match=r"^'fraud@v2\.0\.0' is made here but not pushed: production has") as caught:
            release("fraud", "v2.0.0", repo=second, push="production")
        assert support.git(author, "rev-parse", "HEAD")[:10] in str(caught.value)
        assert "git push" not in str(caught.value)
    give_up, bring = commands(caught.value.hint)
    assert (give_up, bring) == ("git tag -d 'fraud@v2.0.0'", "git pull --tags production main")
    do(second, give_up, f"{bring} --no-rebase --no-edit -X ours")
    made = release("fraud", repo=second, push="production").tag
    assert made > "fraud@v2.0.0"
    assert f"refs/tags/{made}" in refs(tmp_path / "production.git")
    assert every_version_can_be_had(tmp_path / "production.git", tmp_path)


def test_a_version_that_is_another_at_the_remote_is_not_promoted(author: Path, second: Path, tmp_path: Path) -> None:
    release("fraud", "v2.0.0", repo=second)
    before = support.git(second, "for-each-ref")
    with pytest.raises(GitFailed, match=r"^production has another tag 'fraud@v2\.0\.0', on ") as caught:
        promote("fraud@v2.0.0", "prod", repo=second, push="production")
    assert "git tag -d 'fraud@v2.0.0'" in caught.value.hint
    assert support.git(second, "for-each-ref") == before
    assert "refs/tags/fraud#prod#1" not in refs(tmp_path / "production.git")


def test_who_moves_a_stage_second_takes_the_move_back_and_moves_it_again(
    author: Path, second: Path, tmp_path: Path
) -> None:
    promote("fraud@v2.0.0", "prod", repo=author, push="production")
    with pytest.raises(GitFailed, match=r"^'fraud#prod#1' is made here but not pushed: production has") as caught:
        promote("fraud@v1.0.0", "prod", repo=second, push="production")
    assert commands(caught.value.hint) == ["git tag -d 'fraud#prod#1'", "git fetch --tags production"]
    do(second, *commands(caught.value.hint))
    assert promote("fraud@v1.0.0", "prod", repo=second, push="production")[0] == "fraud#prod#2"
    assert "refs/tags/fraud#prod#2" in refs(tmp_path / "production.git")


def test_a_stage_that_is_refused_can_be_taken_back_or_sent_later(author: Path, tmp_path: Path) -> None:
    production = tmp_path / "production.git"
    release("fraud", repo=author)
    hook(production, "update", '#!/bin/sh\ncase "$1" in *#*) echo "not today" >&2; exit 1;; esac\n')
    with pytest.raises(GitFailed, match=r"^'fraud#prod#1' is made here but not pushed \(.*not today") as caught:
        promote("fraud@v1.0.0", "prod", repo=author, push="production")
    version, stage, back = commands(caught.value.hint)
    do(author, back)
    assert support.git(author, "tag") == "fraud@v1.0.0"
    with pytest.raises(GitFailed):
        promote("fraud@v1.0.0", "prod", repo=author, push="production")
    (production / "hooks" / "update").unlink()
    do(author, version, stage)
    assert refs(production) == {"refs/tags/fraud@v1.0.0", "refs/tags/fraud#prod#1"}
