"""gitmodel.storage.setup: DVC made in a repository once, its remote and its cache where the user says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from gitmodel.storage import setup
from gitmodel.storage.remote import NoRemote, Remote
from gitmodel.storage.settings import load_config
from tests import support
from tests.workflows import state


@pytest.fixture
def dvc_repo(git_repo: Path) -> Path:
    setup.init(git_repo)
    return git_repo


def config_text(root: Path) -> str:
    return (root / ".dvc" / "config").read_text()


def test_dvc_is_set_up_once(git_repo: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert not setup.is_initialised(git_repo)
    assert setup.init(git_repo)
    assert setup.is_initialised(git_repo)
    before = state.files(git_repo)
    assert not setup.init(git_repo)
    assert state.files(git_repo) == before
    said = capfd.readouterr()
    assert (said.out, said.err) == ("", ""), "library code says nothing"


def test_what_dvc_refuses_is_one_error(tmp_path: Path) -> None:
    with pytest.raises(setup.NotInitialised) as caught:
        setup.init(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("url", ["../storage", "s3://bucket/weights", "/srv/storage"])
def test_the_same_remote_twice_changes_nothing(dvc_repo: Path, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(dvc_repo)
    assert setup.set_remote(dvc_repo, url)
    before = config_text(dvc_repo)
    assert not setup.set_remote(dvc_repo, url)
    assert config_text(dvc_repo) == before


def test_a_folder_is_kept_relative_to_where_it_was_named(dvc_repo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (dvc_repo / "deep").mkdir()
    monkeypatch.chdir(dvc_repo / "deep")
    setup.set_remote(dvc_repo, "../../storage")
    assert "url = ../../storage\n" in config_text(dvc_repo), "relative to .dvc, as DVC keeps it"
    assert Remote(load_config(dvc_repo / ".dvc")).url == str(dvc_repo.parent / "storage")


def test_a_remote_is_moved_and_others_stay(dvc_repo: Path) -> None:
    support.run("dvc", "remote", "add", "mirror", "s3://mirror", cwd=dvc_repo)
    setup.set_remote(dvc_repo, "/srv/one")
    assert setup.set_remote(dvc_repo, "/srv/two")
    text = config_text(dvc_repo)
    assert "/srv/two" in text
    assert "/srv/one" not in text
    assert "s3://mirror" in text


def test_another_default_remote_is_replaced_as_asked(dvc_repo: Path) -> None:
    support.run("dvc", "remote", "add", "-d", "mirror", "/srv/one", cwd=dvc_repo)
    assert setup.set_remote(dvc_repo, "/srv/one")
    assert Remote(load_config(dvc_repo / ".dvc")).name == "storage"


def test_no_cache_before_init(git_repo: Path) -> None:
    with pytest.raises(setup.NotInitialised, match="run 'gitmodel init'"):
        setup.open_cache(git_repo)


@pytest.mark.parametrize("where", ["absolute", "relative"])
def test_the_cache_is_where_dvc_is_told_it_is(repo: Path, save_model: Callable[..., object], where: str) -> None:
    shared = repo.parent / "shared-cache"
    named = str(shared) if where == "absolute" else "../shared-cache"
    assert support.run("dvc", "cache", "dir", named, cwd=repo).returncode == 0
    save_model()
    assert setup.open_cache(repo).root == shared
    assert state.files(shared)
    assert not (repo / ".dvc" / "cache").exists()
    assert support.run("dvc", "status", cwd=repo).stdout == "Data and pipelines are up to date.\n"


def test_a_broken_configuration_is_one_error(dvc_repo: Path) -> None:
    (dvc_repo / ".dvc" / "config").write_text("[core\n")
    with pytest.raises(NoRemote, match="DVC's configuration cannot be read") as caught:
        setup.open_cache(dvc_repo)
    assert "\n" not in str(caught.value)
