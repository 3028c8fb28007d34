"""A stranger's branch is data: DVC's configuration, policy and names on it obey nobody, and nothing of it is run."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from gitmodel.compat.verdict import Report, Verdict
from gitmodel.errors import ExitCode
from gitmodel.registry import UnknownModel
from gitmodel.storage.remote import RemoteFailed
from gitmodel.workflows import check, save, transfer
from gitmodel.workflows.workspace import Workspace
from tests import support
from tests.compat import pairs
from tests.compat.pairs import scaled
from tests.compat.pairs_policy import ALLOW, CARD, RENAMED, entry, write
from tests.workflows import state

ONE, FLIPPED = scaled("1.0"), scaled("-1.0")
ROWS = [[1.0, 2.0, 3.0, 4.0], [4.0, 3.0, 2.0, 1.0], [0.0, 9.0, 0.0, 0.0]]
Put = Callable[..., None]


@pytest.fixture
def put(repo: Path, tmp_path: Path) -> Put:
    """Saves, commits and pushes the weights of a model given as text."""

    def put_(text: str, *, golden: bool = False, name: str = "fraud") -> None:
        path = tmp_path / "given.onnx"
        path.write_bytes(pairs.model(text).SerializeToString())
        cases = pairs.cases(tmp_path, ROWS) if golden else None
        save.save(name, [path], repo=repo, golden=cases, message="Save")
        transfer.push(repo=repo)

    return put_


@pytest.fixture
def branch(repo: Path, put: Put) -> Path:
    """``main`` has a model with golden cases; checked out is the branch ``theirs``, whose model answers otherwise."""
    put(ONE, golden=True)
    support.git(repo, "branch", "-M", "main")
    support.git(repo, "switch", "-qc", "theirs")
    put(FLIPPED)
    return repo


def rules_of(report: Report) -> set[str]:
    return {finding.rule for finding in report.findings}


def judged(repo: Path, against: str = "main") -> Report:
    (report,) = check.check_changed(repo, against=against)
    return report


# What is read ---------------------------------------------------------------------------------------------------------


def test_both_sides_come_from_git_and_nothing_is_written(branch: Path) -> None:
    shutil.rmtree(branch / "models")
    before = state.whole(branch)
    report = judged(branch)
    assert (report.old, report.new) == ("fraud@main", "fraud@HEAD")
    assert {"golden-failed", "golden-self-failed"} <= rules_of(report)
    assert state.whole(branch) == before


def test_what_is_not_committed_does_not_count(branch: Path) -> None:
    support.git(branch, "switch", "-q", "main")
    write(branch, {CARD: "absurd: ["})
    assert check.check_changed(branch, against="main") == []


def test_a_bare_repository_judges_its_head(branch: Path, tmp_path: Path) -> None:
    support.git(branch, "clone", "-q", "--bare", ".", str(tmp_path / "bare.git"))
    report = judged(tmp_path / "bare.git")
    assert "golden-failed" in rules_of(report), "weights come from the remote the base names"


def test_a_file_that_is_called_like_a_reference_is_not_read(branch: Path) -> None:
    pairs.files(branch, ONE, ONE)
    (branch / "new.onnx").rename(branch / "fraud@fix.onnx")
    support.git(branch, "branch", "fix.onnx")
    shutil.copytree(branch / "models" / "fraud", branch / "fraud@main")
    (branch / "fraud@main" / "model.yaml").write_text("absurd: [")
    report = in_folder(branch, "fraud@main", "fraud@fix.onnx")
    assert (report.old, report.new) == ("fraud@main", "fraud@fix.onnx")
    assert "golden-failed" in rules_of(report)


def in_folder(folder: Path, old: str, new: str) -> Report:
    here = Path.cwd()
    os.chdir(folder)
    try:
        return check.check_compat(old, new)
    finally:
        os.chdir(here)


# DVC's configuration --------------------------------------------------------------------------------------------------


def without_weights(repo: Path) -> None:
    shutil.rmtree(repo / ".dvc" / "cache")


def sides(repo: Path) -> list[tuple[str, Report]]:
    """Every way to judge what is checked out."""
    return [
        ("against", judged(repo)),
        ("two revisions", check.check_compat("fraud@main", "fraud@theirs", repo=repo)),
        ("working tree", check.check_compat("fraud@main", "fraud", repo=repo)),
    ]


HOSTILE = "[core]\n    remote = evil\n['remote \"evil\"']\n    url = {url}\n"


@pytest.mark.parametrize("name", [".dvc/config", ".dvc/config.local"])
def test_a_remote_that_the_branch_names_is_not_asked(branch: Path, tmp_path: Path, name: str) -> None:
    """The bytes would be the right ones, so only where they come from can tell."""
    shutil.copytree(tmp_path / "storage", tmp_path / "evil")
    (tmp_path / "storage").rename(tmp_path / "away")
    write(branch, {name: HOSTILE.format(url=tmp_path / "evil")})
    support.git(branch, "add", "-f", name)
    support.git(branch, "commit", "-qm", "Move the remote")
    for way in ("against", "two revisions", "working tree"):
        shutil.rmtree(branch / ".dvc" / "cache", ignore_errors=True)
        report = dict(sides(branch))[way]
        assert (report.verdict, report.exit_code) == (Verdict.UNJUDGED, ExitCode.INCOMPLETE), way
        assert str(tmp_path / "storage") in report.unjudged
    (tmp_path / "away").rename(tmp_path / "storage")
    for way, report in sides(branch):
        assert "golden-failed" in rules_of(report), way


def command(witness: Path) -> str:
    """A configuration whose remote has DVC run a command."""
    return (
        "[core]\n    remote = evil\n['remote \"evil\"']\n    url = webdav://127.0.0.1:9/x\n"
        f"    bearer_token_command = touch {witness}\n"
    )


def test_a_cache_that_another_working_tree_names_is_not_opened(branch: Path, tmp_path: Path) -> None:
    support.git(branch, "worktree", "add", "-q", "--detach", str(tmp_path / "linked"))
    config = tmp_path / "linked" / ".dvc" / "config.local"
    config.write_text(f"[cache]\n    dir = {tmp_path / 'elsewhere'}\n")
    place = Workspace.open(branch)
    assert [cache.root for cache in place.beside()] == [tmp_path / "elsewhere"]
    assert place.trusting(place.repo.head()).beside() == []


def test_a_command_in_the_branchs_configuration_is_not_run(branch: Path, tmp_path: Path) -> None:
    witness = tmp_path / "was-here"
    text = command(witness)
    for name in (".dvc/config", ".dvc/config.local"):
        write(branch, {name: text})
    support.git(branch, "add", "-f", ".dvc/config", ".dvc/config.local")
    support.git(branch, "commit", "-qm", "Run me")
    without_weights(branch)
    for way, report in sides(branch):
        assert "golden-failed" in rules_of(report), way
    assert not witness.exists()
    without_weights(branch)
    with pytest.raises(RemoteFailed):
        transfer.fetch(["fraud"], repo=branch)  # of a branch one trusts
    assert witness.exists(), "it is a command that does run"


def test_a_command_in_a_commit_is_not_run_even_when_it_is_the_base(branch: Path, tmp_path: Path) -> None:
    witness = tmp_path / "was-here"
    text = command(witness)
    write(branch, {".dvc/config": text}, "Run me")
    support.git(branch, "commit", "-q", "--allow-empty", "-m", "Again")
    without_weights(branch)
    assert check.check_compat("fraud@theirs", "fraud@main", repo=branch).verdict is Verdict.UNJUDGED
    assert not witness.exists()


def test_the_users_own_configuration_counts(branch: Path, tmp_path: Path) -> None:
    (tmp_path / "storage").rename(tmp_path / "mine")
    without_weights(branch)
    own = branch / ".dvc" / "config.local"
    own.write_text(f"['remote \"storage\"']\n    url = {tmp_path / 'mine'}\n")
    assert "golden-failed" in rules_of(judged(branch))


def test_a_remote_that_is_named_counts(branch: Path, tmp_path: Path) -> None:
    (tmp_path / "storage").rename(tmp_path / "mine")
    without_weights(branch)
    report = check.check_compat("fraud@main", "fraud", repo=branch, remote=str(tmp_path / "mine"))
    assert "golden-failed" in rules_of(report)


def test_a_relative_remote_of_the_base_starts_where_it_always_did(branch: Path) -> None:
    support.git(branch, "switch", "-q", "main")
    config = branch / ".dvc" / "config"
    config.write_text(config.read_text().replace(f"{branch.parent}/storage", "../../storage"))
    support.git(branch, "commit", "-qam", "Relative")
    support.git(branch, "switch", "-q", "theirs")
    without_weights(branch)
    assert "golden-failed" in rules_of(judged(branch))


def test_where_nobody_names_a_remote_the_user_is_told_how(branch: Path) -> None:
    support.git(branch, "switch", "-q", "main")
    write(branch, {".dvc/config": ""}, "No remote")
    support.git(branch, "switch", "-q", "theirs")
    without_weights(branch)
    report = judged(branch)
    assert report.verdict is Verdict.UNJUDGED
    assert "--remote" in report.unjudged


def test_a_cache_that_the_branch_names_is_not_written(branch: Path, tmp_path: Path) -> None:
    config = branch / ".dvc" / "config"
    write(branch, {".dvc/config": f"{config.read_text()}[cache]\n    dir = {tmp_path / 'there'}\n"}, "Cache")
    without_weights(branch)
    assert "golden-failed" in rules_of(judged(branch))
    assert not (tmp_path / "there").exists()


def test_a_cache_that_the_branch_replaces_by_a_link_is_not_written(branch: Path, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    without_weights(branch)
    (branch / ".dvc" / "cache").symlink_to(tmp_path / "there")
    support.git(branch, "add", "-f", ".dvc/cache")
    support.git(branch, "commit", "-qm", "Link")
    assert "golden-failed" in rules_of(judged(branch))
    assert not list((tmp_path / "there").iterdir())


def test_a_cache_that_the_base_names_is_used_when_it_is_one(branch: Path, tmp_path: Path) -> None:
    support.git(branch, "switch", "-q", "main")
    config = branch / ".dvc" / "config"
    write(branch, {".dvc/config": f"{config.read_text()}[cache]\n    dir = ../../shared\n"}, "Cache")
    support.git(branch, "switch", "-q", "theirs")
    (branch / ".dvc" / "cache").rename(tmp_path / "shared")
    (tmp_path / "storage").rename(tmp_path / "away")
    assert "golden-failed" in rules_of(judged(branch))
    (tmp_path / "shared").rename(tmp_path / "gone")
    shutil.rmtree(branch / ".git" / "gitmodel" / "replays")
    assert judged(branch).verdict is Verdict.UNJUDGED
    assert not (tmp_path / "shared").exists(), "nothing is made where a commit says"


# Links and names ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["signature.yaml", "model.yaml", "weights.lock"])
def test_a_link_in_place_of_a_file_is_not_followed(branch: Path, tmp_path: Path, name: str) -> None:
    path = branch / "models" / "fraud" / name
    (tmp_path / "outside").write_bytes(path.read_bytes())
    path.unlink()
    path.symlink_to(tmp_path / "outside")
    support.git(branch, "commit", "-qam", "Link")
    report = judged(branch)
    assert (report.verdict, report.exit_code) == (Verdict.UNJUDGED, ExitCode.INCOMPLETE)
    assert f"has no {name}" in report.unjudged
    if name == "model.yaml":
        with pytest.raises(UnknownModel):
            check.check_compat("fraud@main", "fraud@theirs", repo=branch)
    else:
        assert check.check_compat("fraud@main", "fraud@theirs", repo=branch).unjudged


def test_a_model_that_is_a_link_is_no_model(branch: Path, tmp_path: Path) -> None:
    (branch / "models" / "fraud").rename(tmp_path / "outside")
    (branch / "models" / "fraud").symlink_to(tmp_path / "outside")
    support.git(branch, "add", "-A")
    support.git(branch, "commit", "-qm", "Link")
    assert rules_of(judged(branch)) == {"model-removed"}
    with pytest.raises(UnknownModel, match="symbolic link"):
        check.check_compat("fraud@main", "fraud", repo=branch)


@pytest.mark.parametrize("name", ["a\n::error::b", "\x1b[2J", "-rf", "..hidden", "x\udcff", "fraud v2", "$(touch x)"])
def test_a_name_nobody_could_release_is_not_judged_and_not_printed_as_it_is(branch: Path, name: str) -> None:
    target = branch / "models" / name
    shutil.copytree(branch / "models" / "fraud", target)
    support.git(branch, "add", "-A", "--", "models")
    support.git(branch, "commit", "-qm", "Name")
    other = [report for report in check.check_changed(branch, against="main") if report.model != "fraud"]
    assert [report.verdict for report in other] == [Verdict.UNJUDGED]
    assert all(text.isprintable() for text in (other[0].model, other[0].new, other[0].unjudged))


def test_names_in_a_model_do_not_steer_the_terminal(tmp_path: Path) -> None:
    hostile = pairs.model("(float[n,4] x) => (float[n,4] y) { y = Neg(x) }")
    hostile.graph.input[0].name = hostile.graph.node[0].input[0] = "x\n::warning::\x1b[2J"
    pairs.files(tmp_path, "(float[n,4] x) => (float[n,4] y) { y = Neg(x) }", hostile)
    report = check.check_compat(str(tmp_path / "old.onnx"), str(tmp_path / "new.onnx"), repo=tmp_path)
    assert "input-renamed" in rules_of(report)
    for finding in report.findings:
        assert all(text.isprintable() for text in (finding.message, finding.fix, finding.witness))


# Its own goalposts ----------------------------------------------------------------------------------------------------

LOOSE = 'gates:\n  tolerance:\n    "*": {rtol: 1.0e9, atol: 1.0e9}\n  agreement: 0.0\n  distance: 1.0e9\n'


def verdict_without_help(repo: Path) -> tuple[object, ...]:
    report = judged(repo)
    assert (report.verdict, report.exit_code) == (Verdict.INCOMPATIBLE, ExitCode.INCOMPATIBLE)
    return report.required_bump, report.cases_run


def test_a_branch_cannot_help_itself(branch: Path) -> None:
    """Wide tolerances, no golden cases, a list that allows its own breaks, whoever is hit taken out: all at once."""
    bare = verdict_without_help(branch)
    broken = judged(branch)
    from gitmodel.compat.allow import to_paste

    files: dict[str, str | None] = {
        CARD: (branch / CARD).read_text() + LOOSE + "consumers_complete: true\n",
        ALLOW: to_paste(broken.findings) + "\n",
        "consumers/nobody.yaml": "name: nobody\nmodel: fraud\ninputs: [x]\noutputs: []\n",
    }
    write(branch, files, "Help")
    support.git(branch, "rm", "-rq", "models/fraud/golden")
    support.git(branch, "commit", "-qm", "No cases")
    assert verdict_without_help(branch) == bare
    report = judged(branch)
    told = {"gates-changed", "goldens-changed", "allowlist-changed", "consumers-changed", "policy-changed"}
    assert told | {"golden-failed"} <= rules_of(report)
    assert not any(finding.allowed or finding.spared for finding in report.findings)


def test_a_branch_that_drops_the_card_has_dropped_the_model(branch: Path) -> None:
    support.git(branch, "rm", "-q", CARD)
    support.git(branch, "commit", "-qm", "No card")
    report = judged(branch)
    assert rules_of(report) == {"model-removed"}
    assert report.exit_code is ExitCode.INCOMPATIBLE


def test_wide_tolerances_of_new_do_not_excuse_cases_that_lie(repo: Path, put: Put, tmp_path: Path) -> None:
    put(ONE, golden=True)
    support.git(repo, "branch", "-M", "main")
    support.git(repo, "switch", "-qc", "theirs")
    rows = np.array(ROWS, "float32")
    np.savez(tmp_path / "lying.npz", x=rows, y=-rows)
    save.save("fraud", [tmp_path / "given.onnx"], repo=repo, golden=tmp_path / "lying.npz", message="Lie")
    write(repo, {CARD: (repo / CARD).read_text() + LOOSE}, "Loose")
    assert {"golden-self-failed", "gates-changed"} <= rules_of(judged(repo))


def test_gates_alone_need_no_weights(branch: Path, tmp_path: Path) -> None:
    support.git(branch, "switch", "-q", "main")
    write(branch, {CARD: (branch / CARD).read_text() + LOOSE}, "Loose")
    without_weights(branch)
    (tmp_path / "storage").rename(tmp_path / "away")
    report = judged(branch, "HEAD~1")
    assert rules_of(report) == {"gates-changed", "weights-unchanged"}


@pytest.mark.parametrize("side", ["base", "branch"])
@pytest.mark.parametrize("name", [ALLOW, "models/fraud/consumers/a.yaml", "consumers/a.yaml"])
def test_policy_that_cannot_be_read_is_not_judged(branch: Path, side: str, name: str) -> None:
    if side == "base":
        support.git(branch, "switch", "-q", "main")
    write(branch, {name: "a: &x [1]\nb: *x\n"}, "Absurd")
    support.git(branch, "switch", "-q", "theirs")
    report = judged(branch)
    assert (report.verdict, report.exit_code) == (Verdict.UNJUDGED, ExitCode.INCOMPLETE)
    assert name.rpartition("/")[2] in report.unjudged


def test_one_model_that_cannot_be_read_does_not_hide_another(branch: Path, put: Put) -> None:
    put(RENAMED, name="spam")
    write(branch, {CARD: "absurd: ["}, "Absurd")
    found = {report.model: report for report in check.check_changed(branch, against="main")}
    assert {name: report.exit_code for name, report in found.items()} == {
        "fraud": ExitCode.INCOMPLETE,
        "spam": ExitCode.OK,
    }


def test_an_entry_of_the_base_allows_and_one_of_the_branch_does_not(repo: Path, put: Put) -> None:
    put(ONE)
    support.git(repo, "branch", "-M", "main")
    support.git(repo, "switch", "-qc", "theirs")
    put(RENAMED)
    write(repo, {ALLOW: entry()}, "Allow myself")
    report = judged(repo)
    assert (report.exit_code, "allowlist-changed" in rules_of(report)) == (ExitCode.INCOMPATIBLE, True)
    support.git(repo, "switch", "-q", "main")
    write(repo, {ALLOW: entry()}, "Allow it")
    support.git(repo, "switch", "-q", "theirs")
    report = judged(repo)
    assert report.exit_code is ExitCode.OK
    (found,) = [finding for finding in report.findings if finding.rule == "input-renamed"]
    assert found.allowed == "the one client moves along"


# A branch that is behind its base -------------------------------------------------------------------------------------


@pytest.fixture
def behind(repo: Path, put: Put) -> Path:
    """The branch ``theirs`` describes the model anew; since it left, ``main`` has other weights and lists."""
    put(ONE)
    support.git(repo, "branch", "-M", "main")
    support.git(repo, "switch", "-qc", "theirs")
    write(repo, {CARD: (repo / CARD).read_text() + "description: better words\n"}, "Describe")
    support.git(repo, "switch", "-q", "main")
    put(RENAMED)
    write(repo, {ALLOW: entry(), "consumers/shop.yaml": "name: shop\nmodel: fraud\n"}, "Lists")
    put(ONE, name="spam")
    support.git(repo, "switch", "-q", "theirs")
    return repo


def test_what_the_base_changed_since_is_not_the_branchs_doing(behind: Path) -> None:
    report = judged(behind)
    assert rules_of(report) == {"weights-unchanged", "allow-unmatched"}
    assert (report.model, report.exit_code) == ("fraud", ExitCode.OK)


def test_what_both_changed_is_judged_as_the_branch_has_it(behind: Path, put: Put) -> None:
    put(FLIPPED)
    found = rules_of(judged(behind))
    assert {"input-removed", "input-added-required"} <= found, "answers differ: nothing says that it is the same input"
    assert not {"signature-stale", "allowlist-changed"} & found


def test_a_model_that_the_branch_takes_away_is_gone_though_the_base_changed_it(behind: Path) -> None:
    support.git(behind, "rm", "-rq", "models/fraud")
    support.git(behind, "commit", "-qm", "Gone")
    assert rules_of(judged(behind)) == {"model-removed"}


def test_without_a_common_commit_the_two_are_compared_as_they_are(behind: Path) -> None:
    tree = support.git(behind, "rev-parse", "HEAD^{tree}")
    orphan = support.git(behind, "commit-tree", "-m", "Alone", tree)
    support.git(behind, "reset", "-q", "--soft", orphan)
    found = {report.model: rules_of(report) for report in check.check_changed(behind, against="main")}
    assert found["spam"] == {"model-removed"}
    assert "input-renamed" in found["fraud"]
