"""gitmodel.storage.dvc_locks against the real command: it waits for us, we know its dead from its living."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from gitmodel.storage import dvc_locks
from tests import support


@pytest.fixture
def dead() -> int:
    """The id of a process that is gone."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def tmp(repo: Path) -> Path:
    folder = repo / ".dvc" / "tmp"
    folder.mkdir(exist_ok=True)
    return folder


def test_dvc_is_kept_out_while_we_hold_its_lock(repo: Path) -> None:
    (repo / "data.txt").write_text("data")
    with dvc_locks.hold(repo):
        done = support.run("dvc", "add", "data.txt", cwd=repo)
        assert done.returncode != 0
        assert "lock" in done.stderr


def test_what_dvc_leaves_after_its_work_is_not_stale(repo: Path) -> None:
    (repo / "data.txt").write_text("data")
    assert support.run("dvc", "add", "-q", "data.txt", cwd=repo).returncode == 0
    assert (tmp(repo) / "lock").exists()
    assert dvc_locks.stale(repo) == []


def test_readers_and_writers_that_died_are_taken_out(repo: Path, dead: int) -> None:
    alive = {"pid": os.getpid(), "cmd": "dvc add"}
    gone = {"pid": dead, "cmd": "dvc add"}
    listed = {"write": {"/x": gone, "/y": alive}, "read": {"/z": [gone, alive]}}
    path = tmp(repo) / "rwlock"
    path.write_text(json.dumps(listed))
    assert dvc_locks.stale(repo) == [path]
    dvc_locks.clear(repo, path)
    assert json.loads(path.read_text()) == {"write": {"/y": alive}, "read": {"/z": [alive]}}
    assert dvc_locks.stale(repo) == []


def test_a_list_dvc_cannot_read_is_emptied_and_dvc_works_again(repo: Path) -> None:
    (repo / "data.txt").write_text("data")
    path = tmp(repo) / "rwlock"
    path.write_text("{half")
    assert support.run("dvc", "add", "data.txt", cwd=repo).returncode != 0
    assert dvc_locks.stale(repo) == [path]
    dvc_locks.clear(repo, path)
    assert support.run("dvc", "add", "-q", "data.txt", cwd=repo).returncode == 0


@pytest.mark.parametrize(("whose", "stale"), [("dead", True), ("alive", False), ("elsewhere", False)])
def test_a_lock_of_hard_links_is_stale_when_its_process_is_gone(repo: Path, dead: int, whose: str, stale: bool) -> None:
    host = "elsewhere.example" if whose == "elsewhere" else socket.gethostname()
    path = tmp(repo) / "lock"
    path.write_text(f"{path}|{host}|{os.getpid() if whose == 'alive' else dead}|12345")
    assert dvc_locks.stale(repo) == ([path] if stale else [])
    if stale:
        dvc_locks.clear(repo, path)
        assert not path.exists()


def test_an_id_that_is_no_process_is_dead(dead: int) -> None:
    assert not dvc_locks.is_alive(dead)
    assert dvc_locks.is_alive(os.getpid())
