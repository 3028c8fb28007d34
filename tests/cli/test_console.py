"""The terminal's rules: results on stdout, messages on stderr, colour and progress only where a person looks."""

from __future__ import annotations

import json
import os
import pty
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gitmodel.cli.console import Console, human, table
from tests import support
from tests.cli.command import Command
from tests.workflows import state

COLOUR = re.compile(r"\033\[\d+m")


def on_terminal(*args: str | Path, cwd: Path, streams: str = "both", **variables: str) -> str:
    """Runs gitmodel with a terminal for stdout and stderr (or one of them) and returns all that arrived there."""
    controller, terminal = pty.openpty()
    pipe = subprocess.DEVNULL
    child = subprocess.Popen(
        [str(support.BIN / "gitmodel"), *map(str, args)],
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=terminal if streams in ("both", "stdout") else pipe,
        stderr=terminal if streams in ("both", "stderr") else pipe,
        env={**os.environ, "TERM": "xterm", **variables},
    )
    os.close(terminal)
    said = b""
    try:
        while block := os.read(controller, 4096):
            said += block
    except OSError:  # Linux's way of saying that the other side is closed
        pass
    os.close(controller)
    child.wait(timeout=60)
    return said.decode()


@pytest.fixture
def pair(tmp_path: Path) -> list[Path]:
    return [state.write(support.linear_model(scale=s), tmp_path / f"{s}.onnx") for s in (1.0, 1.5)]


def test_colour_is_for_terminals_alone(pair: list[Path], tmp_path: Path) -> None:
    assert COLOUR.search(on_terminal("check-compat", *pair, cwd=tmp_path))
    assert not COLOUR.search(on_terminal("check-compat", *pair, cwd=tmp_path, NO_COLOR="1"))
    assert not COLOUR.search(on_terminal("check-compat", *pair, cwd=tmp_path, NO_COLOR=""))
    assert not COLOUR.search(on_terminal("check-compat", *pair, cwd=tmp_path, TERM="dumb"))
    piped = support.gitmodel("check-compat", *pair, cwd=tmp_path)
    assert not COLOUR.search(piped.stdout + piped.stderr)


def test_a_document_has_no_colour_even_on_a_terminal(pair: list[Path], tmp_path: Path) -> None:
    said = on_terminal("check-compat", *pair, "--format", "json", cwd=tmp_path, streams="stdout")
    assert json.loads(said)["schema"] == 1


def test_progress_is_for_terminals_alone_and_is_wiped(
    repo: Path, save_model: Callable[..., object], tmp_path: Path
) -> None:
    save_model()
    said = on_terminal("push", cwd=repo)
    assert re.search(r"3/3 files, ([\d.]+ k?B) of \1\r", said)
    assert re.search(r"\r\033\[K3 objects sent to 'storage'", said)
    copy = state.clone(repo, tmp_path / "clone")
    assert "files" not in on_terminal("pull", "-q", cwd=copy)
    third = state.clone(repo, tmp_path / "third")
    piped = support.gitmodel("pull", cwd=third)
    assert "\r" not in piped.stderr
    assert piped.stderr == "2 objects brought and verified (1 bundle is here)\n"


def test_an_error_follows_progress_on_a_line_of_its_own(
    repo: Path, save_model: Callable[..., object], tmp_path: Path
) -> None:
    save_model()
    support.gitmodel("push", cwd=repo)
    lock = (repo / "models" / "fraud" / "weights.lock").read_text()
    md5 = next(line.split()[-1] for line in lock.splitlines() if line.startswith("file model.onnx "))
    state.damage(state.object_path(tmp_path / "storage", md5))
    copy = state.clone(repo, tmp_path / "clone")
    said = on_terminal("pull", cwd=copy)
    assert re.search(r"(^|\r\033\[K|\n)error\[remote-failed\]", said)


def test_a_reader_that_goes_away_is_no_error(repo: Path, save_model: Callable[..., object]) -> None:
    save_model()
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [str(support.BIN / "gitmodel"), "show", "fraud"], cwd=repo, stdout=writer, stderr=subprocess.PIPE, check=False
    )
    os.close(writer)
    assert b"Traceback" not in done.stderr
    assert b"error[internal]" not in done.stderr


@pytest.fixture
def gitmodel(repo: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    return Command(repo, monkeypatch, capfd)


def test_a_mistake_is_one_line_and_vv_shows_where_it_came_from(gitmodel: Command) -> None:
    plain = gitmodel("show", "nothing")
    assert (plain.code, plain.out) == (2, "")
    assert plain.err.startswith("error[unknown-model]: there is no model 'nothing'")
    assert plain.err.count("\n") == 1
    assert gitmodel("show", "nothing", "-q").err == plain.err, "quiet hides messages, not errors"
    assert gitmodel("show", "nothing", "-v").err == plain.err
    loud = gitmodel("show", "nothing", "-vv")
    assert loud.code == 2
    assert loud.err.startswith("Traceback")
    assert loud.err.endswith(plain.err)


def test_a_name_that_would_move_the_cursor_is_escaped(gitmodel: Command) -> None:
    done = gitmodel("save", "fra\nud\x1b[2J\udcff", "absent.onnx")
    assert done.err.startswith(r"error[invalid-name]: 'fra\nud\x1b[2J\udcff' is no model name")
    assert done.err.count("\n") == 1


def test_a_bug_of_ours_is_one_line_too(gitmodel: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    from gitmodel.workflows import listing

    def broken(repo: str) -> None:
        raise ZeroDivisionError("by zero")

    monkeypatch.setattr(listing, "list_models", broken)
    done = gitmodel("list")
    assert done.code == 3
    assert done.err == "error[internal]: ZeroDivisionError: by zero: this is a bug; run again with -vv and report it\n"
    with pytest.raises(ZeroDivisionError):
        gitmodel("list", "-vv")


@pytest.mark.parametrize("args", [["--version"], ["list", "--help"], ["-h"]])
def test_what_was_asked_for_is_a_result(gitmodel: Command, args: list[str]) -> None:
    done = gitmodel(*args)
    assert (done.code, done.err) == (0, "")
    assert done.out


@pytest.mark.parametrize(
    "args", [["nothing"], ["list", "--nothing"], ["save"], ["save", "fraud"], ["list", "--format", "xml"], ["log"]]
)
def test_wrong_usage_is_code_two_and_no_traceback(gitmodel: Command, args: list[str]) -> None:
    done = gitmodel(*args)
    assert (done.code, done.out) == (2, "")
    assert "Traceback" not in done.err
    assert done.err


def test_without_a_command_the_help_is_shown(gitmodel: Command) -> None:
    done = gitmodel()
    assert "Usage: gitmodel" in done.out + done.err


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (1234, "1.2 kB"), (99_900, "99.9 kB"), (123_456, "123 kB"),
        (400_000_000, "400 MB"), (1_500_000_000, "1.5 GB"), (2_000_000_000_000, "2000 GB"),
    ],
)  # fmt: skip
def test_bytes_are_said_in_powers_of_ten(size: int, text: str) -> None:
    assert human(size) == text


@given(st.lists(st.lists(st.text("abc é", max_size=8), min_size=2, max_size=2), max_size=5))
def test_columns_of_a_table_begin_below_each_other(rows: list[list[str]]) -> None:
    lines = table(rows, ["one", "two"]).split("\n")
    assert len(lines) == len(rows) + 1
    start = lines[0].index("TWO")
    for line, (first, second) in zip(lines[1:], rows, strict=True):
        assert line[: start - 2].rstrip() == first.rstrip()
        assert line[start:].rstrip() == second.rstrip()


def test_a_counter_without_a_total_is_not_shown(capfd: pytest.CaptureFixture[str]) -> None:
    Console().progress(1, 0)
    Console(quiet=True).note("hidden")
    assert capfd.readouterr() == ("", "")
