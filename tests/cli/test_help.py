"""The help of every command: there is an example, every option says what it does, and the examples are real commands."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

import pytest
import typer.main

from gitmodel.cli import app
from tests import support

#: The commands of the whole path, as the contract of the command line names them.
CONTRACT = {
    "init", "save", "list", "log", "show", "check-compat", "release", "promote", "rollback", "checkout", "export", "push", "fetch", "pull",
    "fsck", "gc", "doctor", "serve", "status", "hooks install", "hooks uninstall", "hooks status",
    "golden add", "golden record", "golden review", "golden accept", "golden list",
}  # fmt: skip
REPORTING = {"doctor", "export", "fsck", "gc", "list", "log", "show", "check-compat", "status", "golden list"}


def commands(group: object = None, prefix: str = "") -> Iterator[tuple[str, object]]:
    """(name, click command) of everything a person may call."""
    group = group or typer.main.get_command(app)
    for name, command in sorted(group.commands.items()):  # type: ignore[attr-defined]  # typer vendors click untyped
        if command.hidden:
            continue
        if hasattr(command, "commands"):
            yield from commands(command, f"{prefix}{name} ")
        else:
            yield f"{prefix}{name}", command


COMMANDS = dict(commands())


def flags_of(name: str) -> set[str]:
    return {flag for parameter in COMMANDS[name].params for flag in parameter.opts}  # type: ignore[attr-defined]  # as above


def test_the_commands_are_those_of_the_contract() -> None:
    assert set(COMMANDS) == CONTRACT


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_the_help_has_an_example_that_parses(name: str) -> None:
    text: str = COMMANDS[name].help  # type: ignore[attr-defined]  # as above
    examples = re.findall(r"Example: (gitmodel .*)", text)
    assert len(examples) == 1
    words = shlex.split(examples[0])[1:]
    assert words[: len(name.split())] == name.split()
    COMMANDS[name].make_context(name, words[len(name.split()) :], resilient_parsing=False)  # type: ignore[attr-defined]  # as above


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_option_says_what_it_does(name: str) -> None:
    for parameter in COMMANDS[name].params:  # type: ignore[attr-defined]  # as above
        if parameter.name != "help":
            assert parameter.help, parameter.name


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_can_be_quiet_loud_and_elsewhere(name: str) -> None:
    assert {"--quiet", "-q", "--verbose", "-v", "--repo", "-C"} <= flags_of(name)
    assert ("--format" in flags_of(name)) == (name in REPORTING)


def test_the_help_of_a_real_run_shows_the_example() -> None:
    done = support.run("gitmodel", "save", "--help")
    assert done.returncode == 0
    assert done.stderr == ""
    assert "Example: gitmodel save fraud model.onnx" in " ".join(done.stdout.split())


def test_the_tour_names_real_commands() -> None:
    epilog: str = typer.main.get_command(app).epilog or ""
    tour = epilog.partition(": ")[2].split("; ")
    assert len(tour) == 3
    for step in tour:
        words = shlex.split(step)
        assert words[0] == "gitmodel"
        assert words[1] in COMMANDS
