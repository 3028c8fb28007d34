"""gitmodel.registry: what a reference means, against real tags, and that GTO reads the same from them."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from gitmodel import registry
from gitmodel.errors import GitmodelError
from gitmodel.git import GitFailed, Repository, UnknownRevision
from gitmodel.registry import UnknownModel, UnknownVersion, resolve
from gitmodel.versions import InvalidName
from gitmodel.workflows.release import promote, release
from tests import support
from tests.workflows import state

VERSIONS = ("v1.0.0", "v1.2.0", "v1.10.0", "v2.0.0-rc.1")


def tag(repo: Path, name: str, revision: str = "HEAD") -> None:
    """An annotated tag, each a minute after the one before: GTO goes by dates."""
    minutes = len(support.git(repo, "tag", "--list").splitlines())
    environment = {**os.environ, "GIT_COMMITTER_DATE": f"2026-01-01T00:{minutes:02}:00+0000"}
    done = support.run("git", "tag", "-a", "-m", name, name, revision, cwd=repo, env=environment)
    assert done.returncode == 0, done.stderr


@pytest.fixture
def tagged(repo: Path, save_model: Callable[..., object]) -> Path:
    """``fraud`` in four versions, each a commit of its own, then one commit more; two stages; ``churn`` untagged."""
    for number, version in enumerate(VERSIONS):
        save_model(scale=1 + number / 10, message=version)
        tag(repo, f"fraud@{version}")
    tag(repo, "fraud#prod#1", "fraud@v1.0.0^{}")
    tag(repo, "fraud#prod#2", "fraud@v1.10.0^{}")
    tag(repo, "fraud#canary#1", "fraud@v2.0.0-rc.1^{}")
    save_model("churn", message="churn")
    save_model(scale=3.0, message="newest")
    return repo


def commit_of(repo: Path, revision: str) -> str:
    return support.git(repo, "rev-parse", f"{revision}^{{commit}}")


@pytest.mark.parametrize(
    ("reference", "revision", "label"),
    [
        ("fraud@v1.2.0", "fraud@v1.2.0", "fraud@v1.2.0"),
        ("fraud@1.2.0", "fraud@v1.2.0", "fraud@v1.2.0"),
        ("fraud@1.2", "fraud@v1.2.0", "fraud@v1.2.0"),
        ("fraud@1", "fraud@v1.10.0", "fraud@v1.10.0"),
        ("fraud@v1", "fraud@v1.10.0", "fraud@v1.10.0"),
        ("fraud@latest", "fraud@v1.10.0", "fraud@v1.10.0"),
        ("fraud@2.0.0-rc.1", "fraud@v2.0.0-rc.1", "fraud@v2.0.0-rc.1"),
        ("fraud#prod", "fraud@v1.10.0", "fraud#prod"),
        ("fraud#canary", "fraud@v2.0.0-rc.1", "fraud#canary"),
        ("fraud@HEAD", "HEAD", "fraud@HEAD"),
        ("fraud@HEAD~2", "HEAD~2", "fraud@HEAD~2"),
        ("fraud@main", "main", "fraud@main"),
        ("fraud@fraud@v1.0.0", "fraud@v1.0.0", "fraud@fraud@v1.0.0"),
    ],
)
def test_a_reference_names_one_commit(tagged: Path, reference: str, revision: str, label: str) -> None:
    bundle = resolve(Repository.open(tagged), reference)
    assert (bundle.name, bundle.label, bundle.commit) == ("fraud", label, commit_of(tagged, revision))
    assert bundle.card.name == "fraud"


def test_a_commit_may_be_named_in_full_or_short(tagged: Path) -> None:
    repo = Repository.open(tagged)
    commit = commit_of(tagged, "HEAD~1")
    assert resolve(repo, f"fraud@{commit}").commit == resolve(repo, f"fraud@{commit[:10]}").commit == commit


def test_a_short_commit_id_of_digits_alone_is_no_version(tagged: Path) -> None:
    head = subprocess.run(
        ["git", "-C", str(tagged), "cat-file", "commit", "HEAD"], capture_output=True, check=True
    ).stdout
    number, digits = 0, ""
    while not digits.isdigit():
        body = head + f"try {number}\n".encode()
        digits = hashlib.sha1(b"commit %d\0" % len(body) + body).hexdigest()[:7]
        number += 1
    commit = subprocess.run(
        ["git", "-C", str(tagged), "hash-object", "-t", "commit", "-w", "--stdin"],
        input=body, capture_output=True, check=True,
    ).stdout.decode().strip()  # fmt: skip
    assert resolve(Repository.open(tagged), f"fraud@{digits}").commit == commit


def test_a_name_alone_is_the_working_tree(tagged: Path) -> None:
    (tagged / "models" / "fraud" / "metrics.yaml").write_text("accuracy: 1.0\n")
    bundle = resolve(Repository.open(tagged), "fraud")
    assert bundle.commit == ""
    assert bundle.metrics == {"accuracy": 1.0}
    assert resolve(Repository.open(tagged), "fraud@HEAD").metrics == {}


def test_a_name_alone_is_the_last_commit_of_a_bare_repository(tagged: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare.git"
    subprocess.run(["git", "clone", "-q", "--bare", str(tagged), str(bare)], check=True)
    repo = Repository.open(bare)
    assert resolve(repo, "fraud").commit == commit_of(tagged, "HEAD")
    assert registry.models(repo, repo.head()) == ["churn", "fraud"]
    with pytest.raises(UnknownModel, match="models here: churn, fraud"):
        resolve(repo, "nothing")


def test_of_many_models_the_first_are_named(tagged: Path) -> None:
    for number in range(6):
        shutil.copytree(tagged / "models" / "fraud", tagged / "models" / f"model{number}")
    with pytest.raises(UnknownModel, match=r"models here: churn, fraud, model0, .*, model5$"):
        resolve(Repository.open(tagged), "nothing")
    shutil.copytree(tagged / "models" / "fraud", tagged / "models" / "model6")
    with pytest.raises(UnknownModel, match=r"models here: churn, fraud, model0, .*, model5, …$"):
        resolve(Repository.open(tagged), "nothing")


@pytest.mark.parametrize(
    ("reference", "error", "said"),
    [
        ("nothing", UnknownModel, "models here: churn, fraud"),
        ("nothing@HEAD", UnknownModel, "models here: churn, fraud"),
        ("churn@fraud@v1.0.0", UnknownModel, "has no models/churn/model.yaml"),
        ("fraud@v9.9.9", UnknownVersion, "versions: v1.0.0, v1.2.0, v1.10.0, v2.0.0-rc.1"),
        ("fraud@9", UnknownVersion, "has no version '9'"),
        ("fraud@2", UnknownVersion, "has no version '2'"),
        ("churn@latest", UnknownVersion, "gitmodel release churn"),
        ("churn@1", UnknownVersion, "none yet"),
        ("fraud#dev", UnknownVersion, "stages: canary, prod"),
        ("churn#prod", UnknownVersion, "none yet"),
        ("fraud@", UnknownRevision, "no revision ''"),
        ("fraud#", UnknownVersion, "no stage ''"),
        ("fraud@nothing", UnknownRevision, "'nothing'"),
        ("fraud@--all", UnknownRevision, "'--all'"),
        ("fraud@HEAD\n", UnknownRevision, "HEAD"),
        ("fraud@v1.0.0;id", UnknownVersion, "v1.0.0;id"),
        ("", InvalidName, "no model name"),
        ("@v1.0.0", InvalidName, "no model name"),
        ("../fraud", InvalidName, "no model name"),
        ("models/fraud2", InvalidName, "no model name"),
    ],
)
def test_what_names_nothing_is_said_with_what_there_is(
    tagged: Path, reference: str, error: type[GitmodelError], said: str
) -> None:
    with pytest.raises(error) as caught:
        resolve(Repository.open(tagged), reference)
    assert said in str(caught.value)


def test_a_file_or_a_folder_is_a_bundle_of_its_own(tagged: Path, tmp_path: Path) -> None:
    path = state.write(support.linear_model(), tmp_path / "other.onnx")
    bundle = resolve(None, str(path))
    assert (bundle.name, bundle.file, bundle.commit) == ("other", path, "")
    assert bundle.card.framework == "tests"
    assert bundle.signature is not None
    folder = resolve(None, str(tagged / "models" / "fraud"))
    assert (folder.name, folder.file) == ("fraud", None)
    assert folder.lock.size > 0
    with pytest.raises(UnknownModel, match="no model file"):
        resolve(None, "fraud")


def test_a_withdrawn_version_is_no_version(tagged: Path) -> None:
    tag(tagged, "fraud@v1.10.0!", "fraud@v1.10.0^{}")
    repo = Repository.open(tagged)
    assert [str(r.version) for r in registry.versions(repo, "fraud").releases] == ["v1.0.0", "v1.2.0", "v2.0.0-rc.1"]
    assert resolve(repo, "fraud@latest").label == "fraud@v1.2.0"
    with pytest.raises(UnknownVersion):
        resolve(repo, "fraud@v1.10.0")


def test_a_pre_release_is_the_latest_only_when_it_is_all_there_is(
    repo: Path, save_model: Callable[..., object]
) -> None:
    save_model()
    tag(repo, "fraud@v1.0.0-rc.1")
    opened = Repository.open(repo)
    assert resolve(opened, "fraud@latest").label == "fraud@v1.0.0-rc.1"
    tag(repo, "fraud@v0.9.0")
    assert resolve(opened, "fraud@latest").label == "fraud@v0.9.0"


def test_the_move_with_the_highest_number_counts_whatever_the_dates(tagged: Path) -> None:
    tag(tagged, "fraud#prod#10", "fraud@v1.2.0^{}")
    tag(tagged, "fraud#prod#9", "fraud@v1.0.0^{}")
    moves = [move for move in registry.stage_moves(Repository.open(tagged), "fraud") if move.tag.stage == "prod"]
    assert [(move.tag.counter, str(move.version)) for move in moves] == [
        (1, "v1.0.0"), (2, "v1.10.0"), (9, "v1.0.0"), (10, "v1.2.0"),
    ]  # fmt: skip
    assert resolve(Repository.open(tagged), "fraud#prod").commit == commit_of(tagged, "fraud@v1.2.0")


def test_a_stage_that_was_withdrawn_stands_nowhere(tagged: Path) -> None:
    tag(tagged, "fraud#prod!#3", "fraud@v1.10.0^{}")
    with pytest.raises(UnknownVersion, match="stages: canary"):
        resolve(Repository.open(tagged), "fraud#prod")


def test_a_stage_on_a_commit_without_a_version_says_so(tagged: Path) -> None:
    tag(tagged, "fraud#dev#1", "HEAD")
    assert registry.stages(Repository.open(tagged), "fraud")["dev"].version is None
    assert resolve(Repository.open(tagged), "fraud#dev").commit == commit_of(tagged, "HEAD")


def test_names_that_begin_alike_are_kept_apart(repo: Path, save_model: Callable[..., object]) -> None:
    for name in ("fraud", "fraud-2"):
        save_model(name)
        tag(repo, f"{name}@v1.0.0")
    found = registry.all_versions(Repository.open(repo))
    assert {name: [str(r.tag) for r in known.releases] for name, known in found.items()} == {
        "fraud": ["fraud@v1.0.0"],
        "fraud-2": ["fraud-2@v1.0.0"],
    }


def test_strange_and_stray_tags_are_passed_over(tagged: Path) -> None:
    root = support.git(tagged, "rev-list", "--max-parents=0", "HEAD")
    blob = support.git(tagged, "rev-parse", "HEAD:.gitattributes")
    for name in ("fraud@v1;id", "fraud@v01.0.0", "fraud@v1", "v9.0.0", "fraud@v1.0.0@x", "fraud@deprecated"):
        support.git(tagged, "tag", "-a", "-m", "x", name)
    support.git(tagged, "tag", "fraud@v8.0.0", blob)
    tag(tagged, "fraud@v9.0.0", root)
    assert [str(r.version) for r in registry.versions(Repository.open(tagged), "fraud").releases] == list(VERSIONS)


def test_a_version_number_stays_taken_once_it_was_given_out(tagged: Path) -> None:
    tag(tagged, "fraud@v1.2.0!", "fraud@v1.2.0^{}")
    assert {str(version) for version in registry.versions(Repository.open(tagged), "fraud").taken} == set(VERSIONS)


def test_a_folder_without_a_card_is_no_model(tagged: Path) -> None:
    (tagged / "models" / "notes").mkdir()
    (tagged / "models" / "notes" / "readme.txt").write_text("mine")
    support.git(tagged, "add", "models/notes")
    support.git(tagged, "commit", "-qm", "notes")
    repo = Repository.open(tagged)
    assert registry.models(repo) == registry.models(repo, repo.head()) == ["churn", "fraud"]


def gto(repo: Path, *args: str) -> str:
    done = support.run("gto", *args, cwd=repo)
    assert done.returncode == 0, done.stderr
    return done.stdout


NOWHERE = "1" * 40


@pytest.mark.parametrize("name", ["nightly", "me@home", "ticket#42", "fraud@deprecated"])
@pytest.mark.parametrize("content", ["", NOWHERE])
def test_a_broken_tag_that_is_none_of_ours_is_in_nobodys_way(tagged: Path, name: str, content: str) -> None:
    before = everything(tagged)
    (tagged / ".git" / "refs" / "tags" / name).write_text(content)
    assert everything(tagged) == before


def everything(repo: Path) -> tuple[object, ...]:
    opened = Repository.open(repo)
    found = registry.all_versions(opened)
    assert found["fraud"] == registry.versions(opened, "fraud")
    return (
        found,
        registry.all_stages(opened, found),
        registry.stages(opened, "fraud"),
        registry.standing(opened, "fraud"),
    )


@pytest.mark.parametrize("content", ["", NOWHERE])
def test_a_broken_version_is_never_passed_over(tagged: Path, content: str) -> None:
    (tagged / ".git" / "refs" / "tags" / "fraud@v9.0.0").write_text(content)
    opened = Repository.open(tagged)
    with pytest.raises(GitFailed):
        registry.versions(opened, "fraud")
    with pytest.raises(GitFailed):
        registry.all_versions(opened)
    assert registry.versions(opened, "other") == registry.Versions(), "another model's"


def test_a_version_whose_card_is_not_here_is_one_all_the_same(tagged: Path, tmp_path: Path) -> None:
    """Left out, it would make another version the latest."""
    card = tagged / "models" / "fraud" / "model.yaml"
    card.write_text(f"{card.read_text()}# of its own\n")
    support.git(tagged, "commit", "-qam", "Another card")
    tag(tagged, "fraud@v5.0.0")
    support.git(tagged, "config", "uploadpack.allowFilter", "true")
    partial = tmp_path / "partial.git"
    support.git(tmp_path, "clone", "-q", "--bare", "--filter=blob:none", f"file://{tagged}", str(partial))
    support.git(partial, "remote", "remove", "origin")
    oid = support.git(tagged, "rev-parse", "HEAD:models/fraud/model.yaml")
    (tagged / ".git" / "objects" / oid[:2] / oid[2:]).unlink()
    for place in (tagged, partial):
        found = registry.versions(Repository.open(place), "fraud")
        assert [str(r.version) for r in found.releases] == [*VERSIONS, "v5.0.0"]
        assert registry.all_versions(Repository.open(place))["fraud"] == found


def test_a_card_that_is_no_file_makes_no_version(tagged: Path) -> None:
    card = tagged / "models" / "fraud" / "model.yaml"
    card.rename(card.with_name("other.yaml"))
    card.symlink_to("other.yaml")
    support.git(tagged, "add", "models")
    support.git(tagged, "commit", "-qm", "A link")
    tag(tagged, "fraud@v5.0.0")
    opened = Repository.open(tagged)
    assert [str(r.version) for r in registry.versions(opened, "fraud").releases] == list(VERSIONS)
    with pytest.raises(UnknownVersion, match=r"the commit of fraud@v5\.0\.0 has no models/fraud"):
        resolve(opened, "fraud@v5.0.0")


def test_gto_lists_our_versions_and_stages(tagged: Path) -> None:
    lines = gto(tagged, "show", "fraud", "--plain").splitlines()
    rows = {line.split()[-1]: line.split() for line in lines if "fraud@" in line}
    assert set(rows) == {f"fraud@{version}" for version in VERSIONS}
    assert [stage in rows["fraud@v1.10.0"] for stage in ("prod", "canary")] == [True, False]
    assert [stage in rows["fraud@v2.0.0-rc.1"] for stage in ("prod", "canary")] == [False, True]
    assert "prod" not in rows["fraud@v1.0.0"]


def test_gto_tells_what_release_and_promote_made(repo: Path, save_model: Callable[..., object]) -> None:
    save_model()
    release("fraud", repo=repo)
    promote("fraud@v1.0.0", "prod", repo=repo)
    told = gto(repo, "history", "fraud", "--plain")
    assert "fraud@v1.0.0" in told
    assert "fraud#prod#1" in told


def test_what_gto_registers_assigns_and_withdraws_we_read(repo: Path, save_model: Callable[..., object]) -> None:
    save_model()
    gto(repo, "register", "fraud", "--version", "v1.4.0")
    gto(repo, "assign", "fraud", "--version", "v1.4.0", "--stage", "prod")
    opened = Repository.open(repo)
    assert resolve(opened, "fraud@latest").label == "fraud@v1.4.0"
    assert resolve(opened, "fraud#prod").commit == commit_of(repo, "HEAD")
    gto(repo, "deprecate", "fraud", "v1.4.0", "prod")
    assert registry.stages(opened, "fraud") == {}
    gto(repo, "deprecate", "fraud", "v1.4.0")
    assert registry.versions(opened, "fraud").releases == []
