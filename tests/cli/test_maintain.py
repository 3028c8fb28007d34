"""fsck, gc and doctor as a person or a script meets them: words, formats and exit codes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from tests.cli.command import Command
from tests.workflows import state
from tests.workflows.keeping import CHANGED, GRAPH, Shop


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Shop:
    return Shop.make(tmp_path_factory.mktemp("template"))


@pytest.fixture
def shop(template: Shop, tmp_path: Path) -> Shop:
    return template.copied(tmp_path / "shop")


@pytest.fixture
def gitmodel(shop: Shop, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    return Command(shop.repo, monkeypatch, capfd)


# fsck


def test_fsck_says_in_a_line_that_all_is_well(gitmodel: Command) -> None:
    said = gitmodel("fsck", "--remote")
    assert (said.code, said.err) == (0, "")
    (line,) = said.out.splitlines()
    assert line.startswith("nothing damaged, nothing missing: 18 files, ")
    assert line.endswith("read (the DVC cache, the remote 'storage')")


def test_fsck_names_the_object_who_suffers_and_the_mend(gitmodel: Command, shop: Shop) -> None:
    path = shop.object(CHANGED)
    state.damage(path)
    said = gitmodel("fsck")
    assert said.code == 1
    what, who, mend, total = said.out.splitlines()
    assert what.startswith(f"✗ corrupt      {path.relative_to(shop.repo)} (16")
    assert what.endswith("has other bytes than its name says; for its mode 0444 DVC would trust it")
    assert who == f"    who: {CHANGED} of fraud@v1.1.0, fraud, fraud@main"
    assert mend == "    mend: gitmodel fsck --repair"
    assert total.startswith("1 finding that matters: ")


def test_fsck_says_what_it_mended_and_from_where(gitmodel: Command, shop: Shop) -> None:
    state.damage(shop.object(CHANGED))
    said = gitmodel("fsck", "--repair")
    assert said.code == 0
    assert said.out.startswith("+ corrupt ")
    assert f"    mended: from models/fraud/weights/{CHANGED}\n" in said.out
    assert "1 mended, nothing damaged, nothing missing" in said.out


def test_fsck_says_where_bad_bytes_went(gitmodel: Command, shop: Shop) -> None:
    for root in (shop.cache, shop.storage):
        state.damage(shop.object(CHANGED, "fraud@v1.0.0", root))
    said = gitmodel("fsck", "--repair")
    assert said.code == 1
    assert f"    moved: .git/gitmodel/quarantine/{shop.md5(CHANGED, 'fraud@v1.0.0')}\n" in said.out
    assert "--from PATH" in said.out
    again = gitmodel("fsck")
    assert again.code == 1
    assert again.out.startswith(f"✗ missing      the DVC cache: {shop.md5(CHANGED, 'fraud@v1.0.0')} (16")


def test_fsck_takes_good_bytes_from_where_it_is_told(gitmodel: Command, shop: Shop, tmp_path: Path) -> None:
    other = shop.copied(tmp_path / "other")
    shutil.rmtree(shop.storage)
    state.damage(shop.object(CHANGED, "fraud@v1.0.0"))
    assert "mended: from ../../other/repo" in gitmodel("fsck", "--repair", "--from", "../../other/repo").out
    assert other.repo.is_dir()


def test_fsck_of_a_remote_that_is_gone_is_exit_3(gitmodel: Command, shop: Shop) -> None:
    shop.storage.rename(shop.folder / "unmounted")
    said = gitmodel("fsck", "--remote")
    assert said.code == 3
    assert "not everything could be looked at: the remote 'storage' cannot be reached" in said.out


def test_fsck_for_programs_is_one_document_on_stdout(gitmodel: Command, shop: Shop) -> None:
    state.damage(shop.object(GRAPH))
    said = gitmodel("fsck", "--format", "json")
    assert (said.code, said.err) == (1, "")
    document = json.loads(said.out)
    assert document["clean"] is False
    (found,) = document["findings"]
    assert (found["kind"], found["objects"], found["matters"]) == ("corrupt", [shop.md5(GRAPH)], True)
    assert found["versions"][:2] == ["fraud@v1.0.0", "fraud@v1.1.0"]


def test_fsck_lists_all_objects_of_a_group_when_asked_to_say_more(gitmodel: Command, shop: Shop) -> None:
    orphan = state.object_path(shop.cache, "d41d8cd98f00b204e9800998ecf8427e")
    orphan.parent.mkdir(exist_ok=True)
    orphan.touch()
    assert "d41d8cd98f00b204e9800998ecf8427e" not in gitmodel("fsck").out
    said = gitmodel("fsck", "-v")
    assert said.code == 0
    assert "· unreferenced the DVC cache: 1 object that nothing in the whole history names" in said.out
    assert "    d41d8cd98f00b204e9800998ecf8427e\n" in said.out


def test_fsck_of_one_version_and_of_one_that_is_not(gitmodel: Command, shop: Shop) -> None:
    state.damage(shop.object(CHANGED, "fraud@v1.0.0"))
    assert gitmodel("fsck", "fraud@v1.1.0").code == 0
    assert gitmodel("fsck", "fraud@v1.0.0").code == 1
    said = gitmodel("fsck", "fraud@v7.0.0")
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith("error[unknown-version]: ")


def test_a_remote_that_is_named_is_meant(gitmodel: Command) -> None:
    assert "the remote 'storage'" in gitmodel("fsck", "-r", "storage").out
    said = gitmodel("fsck", "-r", "nowhere")
    assert said.code == 2
    assert said.err.startswith("error[no-remote]: ")


# gc


def test_gc_says_what_would_go_and_does_it_when_told(gitmodel: Command, shop: Shop) -> None:
    shop.save(2.5, "try")
    commit = shop.git("rev-parse", "--short=10", "HEAD")
    shop.save(3.0, "better")
    shop.age()
    said = gitmodel("gc", "--last", "1", "--younger-than", "0")
    assert said.code == 0
    assert said.out.splitlines()[:3] == [
        "the DVC cache keeps 3 states", "  released: fraud@v1.0.0, fraud@v1.1.0", "  working tree: fraud",
    ]  # fmt: skip
    assert "would lose bytes\n  STATE " in said.out
    assert f"\n  fraud@{commit}  " in said.out
    assert said.out.splitlines()[-1].startswith("would remove 2 objects, ")
    assert said.err == "nothing was removed; --yes does it\n"
    done = gitmodel("gc", "--last", "1", "--younger-than", "0", "--yes")
    assert (done.code, done.err) == (0, "")
    assert done.out.splitlines()[-1].startswith("removed 2 objects, ")
    assert gitmodel("gc", "--last", "1", "--younger-than", "0").out.splitlines()[-1] == "nothing to remove"
    assert gitmodel("fsck").code == 0


def test_gc_keeps_what_is_young_unless_told(gitmodel: Command, shop: Shop) -> None:
    for scale in (2.5, 3.0, 3.5, 4.0, 4.5):
        shop.save(scale, "try")
    assert gitmodel("gc").out.splitlines()[-1] == "nothing to remove"


def test_gc_for_programs_is_one_document_on_stdout(gitmodel: Command) -> None:
    document = json.loads(gitmodel("gc", "--format", "json").out)
    assert (document["schema"], document["applied"], document["objects"]) == (1, False, 0)
    assert document["keeps"]["released"] == ["fraud@v1.0.0", "fraud@v1.1.0"]


def test_gc_refuses_what_others_may_use_and_a_span_that_is_none(gitmodel: Command) -> None:
    said = gitmodel("gc", "--remote")
    assert (said.code, said.out) == (2, "")
    assert said.err.startswith("error[shared-place]: the remote 'storage' may hold weights of other repositories: ")
    assert gitmodel("gc", "--remote", "--alone").code == 0
    assert gitmodel("gc", "--younger-than", "soon").err.startswith("error[invalid-age]: 'soon' is no span of time")
    assert gitmodel("gc", "--last", "0").code == 2


# doctor


def test_doctor_gives_advice_with_exit_0_and_ailments_with_1(gitmodel: Command, shop: Shop) -> None:
    said = gitmodel("doctor")
    assert said.code == 0
    assert "· no hooks are installed: a server here learns of new tags by polling only  [hooks-absent]" in said.out
    assert "    mend: gitmodel hooks install\n" in said.out
    lock = shop.repo / ".git" / "index.lock"
    lock.touch()
    said = gitmodel("doctor")
    assert said.code == 1
    assert said.out.splitlines()[0] == f"✗ {lock} is held by no process and keeps Git from writing  [stale-git-lock]"
    assert said.out.splitlines()[-1] == "1 ailment to mend; 2 can be mended by --repair"
    said = gitmodel("doctor", "--repair")
    assert said.code == 0
    assert said.out.splitlines()[0].startswith("+ ")
    assert "nothing to mend" in said.out
    assert not lock.exists()


def test_doctor_for_programs_is_one_document_on_stdout(gitmodel: Command) -> None:
    said = gitmodel("doctor", "--format", "json", "--remote")
    document = json.loads(said.out)
    assert (said.code, said.err, document["healthy"]) == (0, "", True)
    assert {"hooks-absent", "only-copy"} <= {ailment["code"] for ailment in document["ailments"]}


def test_outside_a_repository_each_says_so(gitmodel: Command, tmp_path: Path) -> None:
    for verb in ("fsck", "gc", "doctor"):
        said = gitmodel(verb, "-C", tmp_path)
        assert (said.code, said.out) == (2, "")
        assert said.err.startswith("error[not-a-repository]: ")
