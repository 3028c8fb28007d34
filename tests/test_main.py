"""gitmodel.__main__: the process ends at once, with all it had to say and to write down."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import support

_START = (
    "import atexit, sys; atexit.register(print, 'at exit'); from gitmodel import __main__, cli; "
    "sys.argv = ['gitmodel', {}]; "
)


@pytest.fixture(autouse=True)
def _buffered(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)


def start(before: str, *args: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    code = _START.format(", ".join(map(repr, args))) + before + "__main__.start(); print('never')"
    return support.run(sys.executable, "-c", code, cwd=cwd)


def test_what_waits_for_the_end_is_done_and_nothing_after_it(tmp_path: Path) -> None:
    done = start("", "--version", cwd=tmp_path)
    version, *others = done.stdout.splitlines()
    assert version.startswith("gitmodel ")
    assert others == ["at exit"]
    assert (done.returncode, done.stderr) == (0, "")


def test_what_is_printed_arrives_whole_through_a_pipe(tmp_path: Path) -> None:
    done = start("cli.main = lambda: print('x' * 1_000_000); ", "list", cwd=tmp_path)
    assert done.stdout == "x" * 1_000_000 + "\nat exit\n"


@pytest.mark.parametrize(("ends", "code"), [("3", 3), ("None", 0), ("'why'", 1)])
def test_its_exit_code_is_the_commands(tmp_path: Path, ends: str, code: int) -> None:
    done = start(f"cli.main = lambda: sys.exit({ends}); ", cwd=tmp_path)
    assert done.returncode == code
    assert done.stderr == ("why\n" if code == 1 else "")


def test_what_could_not_be_written_is_no_success(tmp_path: Path) -> None:
    code = (
        "import sys; from gitmodel import __main__, cli; cli.main = lambda: sys.stdout.write('lost'); __main__.start()"
    )
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([sys.executable, "-c", code], stdout=writer, cwd=tmp_path, check=False)
    os.close(writer)
    assert done.returncode == 120


@pytest.mark.parametrize(("command", "code"), [("--version >&-", 0), ("--version 2>&-", 0), ("list 2>&-", 2)])
def test_a_closed_stream_changes_no_exit_code(tmp_path: Path, command: str, code: int) -> None:
    done = subprocess.run(f"{sys.executable} -m gitmodel {command}", shell=True, cwd=tmp_path, check=False)
    assert done.returncode == code


def test_an_error_of_the_user_ends_it_as_documented(tmp_path: Path) -> None:
    done = support.gitmodel("list", cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error[not-a-repository]: ")
