"""gitmodel.storage.settings against DVC itself: where the cache is, what a commit's configuration says."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from gitmodel.bundle.lock import FileEntry
from gitmodel.storage import settings, setup
from gitmodel.storage.remote import NoRemote, Remote, RemoteFailed
from tests import support

LEVELS = ["system", "global", "repo", "local"]


@pytest.fixture
def files(git_repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """The four files DVC reads, by the names DVC gives them; the first two named by DVC's own variables."""
    monkeypatch.setenv("DVC_SYSTEM_CONFIG_DIR", str(tmp_path / "system"))
    monkeypatch.setenv("DVC_GLOBAL_CONFIG_DIR", str(tmp_path / "global"))
    dvc_dir = git_repo / ".dvc"
    dvc_dir.mkdir()
    (dvc_dir / "config").touch()
    return dict(
        zip(
            LEVELS,
            [tmp_path / "system/config", tmp_path / "global/config", dvc_dir / "config", dvc_dir / "config.local"],
            strict=True,
        )
    )


def put(path: Path, text: str) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)


def dvcs_own(dvc_dir: Path) -> Path:
    """What ``dvc cache dir`` prints, asked in this process."""
    from dvc.repo import Repo

    with Repo(str(dvc_dir.parent)) as repo:
        return Path(repo.cache.local_cache_dir)


def test_the_files_are_those_dvc_reads(files: dict[str, Path]) -> None:
    from dvc.config import Config

    dvc_dir = files["repo"].parent
    assert settings.config_files(dvc_dir) == list(files.values())
    assert {level: Path(path) for level, path in Config(str(dvc_dir)).files.items()} == files


def test_without_dvcs_variables_they_are_where_the_system_keeps_such_files(
    git_repo: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dvc.config import Config

    for name in ("DVC_SYSTEM_CONFIG_DIR", "DVC_GLOBAL_CONFIG_DIR"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("XDG_CONFIG_DIRS", f"{tmp_path / 'one'}:{tmp_path / 'two'}")
    found = settings.config_files(git_repo / ".dvc")
    assert [str(path) for path in found] == list(Config(str(git_repo / ".dvc")).files.values())
    assert found[1] == tmp_path / "home" / "dvc" / "config"


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize(
    "text",
    [
        "[cache]\n    dir = {place}\n",
        "[core]\n    analytics = false\n[cache]\ndir={place}\n",
        "[CACHE]\nDIR = {place}\n",
        '[ "cache" ]  # far away\n    dir = "{place}"\n',
        "['cache']\r\ndir = {place}\r\n",
        "[cache]\n    dir = ../relative\n",
        "[cache]\n    local = shared\n['remote \"shared\"']\n    url = {place}\n",
        "[cache]\n    type = copy\n",
    ],
)
def test_a_cache_named_in_any_file_is_where_dvc_has_it(
    files: dict[str, Path], tmp_path: Path, level: str, text: str
) -> None:
    put(files[level], text.replace("{place}", str(tmp_path / "place")))
    found = setup.open_cache(files["repo"].parent.parent).root
    assert found == dvcs_own(files["repo"].parent)
    assert (found == files["repo"].parent / "cache") == ("type = copy" in text)


def test_the_nearest_file_wins(files: dict[str, Path], tmp_path: Path) -> None:
    for level in LEVELS:
        put(files[level], f"[cache]\n    dir = {tmp_path / level}\n")
        assert setup.open_cache(files["repo"].parent.parent).root == tmp_path / level
        assert dvcs_own(files["repo"].parent) == tmp_path / level


def test_who_says_nothing_of_the_cache_costs_no_import_of_dvc(files: dict[str, Path]) -> None:
    texts = [
        "# [cache]\n# dir = elsewhere\n",
        "[core]\n    site_cache_dir = /var/cache/dvc\n",
        "",
        "[core]\n    remote = cache\n['remote \"cache\"']\n    url = /srv/cache # [cache]\n",
    ]
    for level, text in zip(LEVELS, texts, strict=True):
        put(files[level], text)
    root = files["repo"].parent.parent
    code = (
        "import json, pathlib, sys; from gitmodel.storage import setup\n"
        f"found = setup.open_cache(pathlib.Path({str(root)!r})).root\n"
        "print(json.dumps([str(found), sorted({'dvc', 'dvc_data', 'dvc_objects', 'fsspec'} & set(sys.modules))]))"
    )
    answer = json.loads(subprocess.check_output([sys.executable, "-c", code], text=True))
    assert answer == [str(root / ".dvc" / "cache"), []]
    assert dvcs_own(root / ".dvc") == root / ".dvc" / "cache"


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("data", [b"[core\n", b"nonsense\n", b"[core]\n    remote = \xff\n", b"[[cache]]\n"])
def test_what_dvc_would_not_read_is_not_read_here(files: dict[str, Path], level: str, data: bytes) -> None:
    files[level].parent.mkdir(exist_ok=True)
    files[level].write_bytes(data)
    with pytest.raises(NoRemote, match="DVC's configuration cannot be read") as caught:
        setup.open_cache(files["repo"].parent.parent)
    assert "\n" not in str(caught.value)


def test_a_file_that_may_not_be_read_is_one_error(files: dict[str, Path]) -> None:
    files["local"].mkdir()
    with pytest.raises(NoRemote, match="DVC's configuration cannot be read"):
        setup.open_cache(files["repo"].parent.parent)


# What a commit holds, and what is named by hand ---------------------------------------------------------------------


def test_a_commits_configuration_is_used_as_it_stands(tmp_path: Path) -> None:
    text = f"[core]\n    remote = s\n['remote \"s\"']\n    url = {tmp_path}\n"
    remote = Remote(settings.config_from_text(text))
    assert (remote.name, remote.url) == ("s", str(tmp_path))


def test_a_commits_configuration_lies_above_the_users(files: dict[str, Path], tmp_path: Path) -> None:
    put(files["global"], f"[core]\n    remote = mine\n['remote \"mine\"']\n    url = {tmp_path / 'mine'}\n")
    assert Remote(settings.config_from_text("")).url == str(tmp_path / "mine")
    text = f"[core]\n    remote = theirs\n['remote \"theirs\"']\n    url = {tmp_path / 'theirs'}\n"
    assert Remote(settings.config_from_text(text)).url == str(tmp_path / "theirs")


def test_a_commits_own_caches_and_other_remotes_are_nobodys_business(tmp_path: Path) -> None:
    text = (
        f"[core]\n    remote = s\n['remote \"s\"']\n    url = {tmp_path}\n['remote \"backup\"']\n    url = ../backup\n"
    )
    assert Remote(settings.config_from_text(text)).name == "s"


def test_a_strangers_commit_runs_nothing_and_reads_nothing_here(files: dict[str, Path], tmp_path: Path) -> None:
    witness = tmp_path / "witness"
    text = (
        "[core]\n    remote = s\n    site_cache_dir = /srv\n[cache]\n    dir = /srv\n"
        "['remote \"s\"']\n    url = webdav://127.0.0.1:9/x\n"
        f"    bearer_token_command = touch {witness}\n    cert_path = {files['repo']}\n"
        "['remote \"t\"']\n    url = s3://bucket/x\n    configpath = /srv/config\n    credentialpath = /srv/credentials\n"
        "['remote \"u\"']\n    url = ssh://127.0.0.1/x\n    keyfile = /srv/key\n"
    )
    config = settings.config_from_text(text)
    assert {key for remote in config["remote"].values() for key in remote} <= {
        "url", "verify", "use_ssl", "listobjects", "allow_anonymous_login"
    }  # fmt: skip
    assert "dir" not in config["cache"]
    with pytest.raises(RemoteFailed):
        Remote(config).lacks([FileEntry("a", 1, "", "0" * 32)])
    assert not witness.exists()
    put(files["global"], "['remote \"u\"']\n    url = ssh://127.0.0.1/x\n    keyfile = /home/ada/key\n")
    assert settings.config_from_text(text)["remote"]["u"]["keyfile"] == "/home/ada/key", "the user's own counts"


@pytest.mark.parametrize("url", ["../storage", "storage", "~/storage"])
def test_a_relative_remote_means_nothing_without_a_working_tree(url: str) -> None:
    with pytest.raises(NoRemote, match=f"'{url}' is relative") as caught:
        settings.config_from_text(f"[core]\n    remote = s\n['remote \"s\"']\n    url = {url}\n")
    assert "--remote URL" in caught.value.hint
    with pytest.raises(NoRemote, match=f"'{url}' is relative"):
        settings.config_for_url(url)


def test_a_commits_configuration_that_cannot_be_read_is_one_error() -> None:
    with pytest.raises(NoRemote, match="cannot be read") as caught:
        settings.config_from_text("[core\n")
    assert "\n" not in str(caught.value)


def test_a_url_is_taken_as_it_is_written(tmp_path: Path) -> None:
    place = tmp_path / "a # [folder] = 'here'"
    assert Remote(settings.config_for_url(str(place))).url == str(place)


def test_a_url_of_no_kind_dvc_knows_is_one_error() -> None:
    with pytest.raises(NoRemote, match="ftp://"):
        settings.config_for_url("ftp://host/weights")


def test_the_users_settings_hold_for_a_url_by_hand(files: dict[str, Path], tmp_path: Path) -> None:
    put(files["global"], "[core]\n    checksum_jobs = 3\n")
    assert settings.config_for_url(str(tmp_path))["core"]["checksum_jobs"] == 3


def test_gitmodel_and_dvc_agree_on_the_command_line(files: dict[str, Path], tmp_path: Path) -> None:
    root = files["repo"].parent.parent
    assert support.run("dvc", "cache", "dir", "--local", str(tmp_path / "elsewhere"), cwd=root).returncode == 0
    assert setup.open_cache(root).root == tmp_path / "elsewhere"
    assert support.run("dvc", "cache", "dir", cwd=root).stdout.strip() == str(tmp_path / "elsewhere")
