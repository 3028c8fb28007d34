"""The command line: parses, calls one workflow, renders, returns an exit code. Heavy work is imported by the commands."""

from __future__ import annotations

import copy
import os
import sys
import traceback

import typer

from gitmodel.cli import export, golden, maintain, models, operate, review, transfer
from gitmodel.cli.console import console
from gitmodel.errors import ExitCode, GitmodelError

#: Seconds after which a thread that computes lets one go on that has hashed its block, or compared it: Python's own 5 ms are
#: as long as ten blocks.
_SWITCH = 0.0005

app = typer.Typer(
    name="gitmodel",
    help="Git is the model registry: version, judge and serve models from a Git repository.",
    epilog="A first tour: gitmodel init; gitmodel save fraud model.onnx -m 'First model'; gitmodel release fraud",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(value: bool) -> None:
    if value:
        from importlib import metadata

        console.say(f"gitmodel {metadata.version('gitmodel')}")
        raise typer.Exit


@app.callback()
def _root(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Print the version."),
) -> None: ...


for _module in (models, export, transfer, review, golden, operate, maintain):
    _module.register(app)


def _alone(name: str) -> typer.Typer:
    """The app with that command only, if it has it: typer builds the parsers of all it knows in order to run one, which takes
    longer than to import any of them."""
    wanted = [command for command in app.registered_commands if command.name == name]
    if not wanted:
        return app
    alone = copy.copy(app)
    alone.registered_commands, alone.registered_groups = wanted, []
    return alone


def main() -> None:
    """The command that ``sys.argv`` names. A user's mistake is one line and an exit code; ``-vv`` shows where it came from."""
    # numpy's BLAS is not used here, but its threads would spin beside those that hash.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    sys.setswitchinterval(_SWITCH)
    try:
        _alone(sys.argv[1] if len(sys.argv) > 1 else "")()
    except GitmodelError as error:
        if console.verbosity > 1:
            traceback.print_exc()
        console.fail(f"error[{error.code}]: {error}")
        sys.exit(error.exit_code)
    except OSError as error:
        if console.verbosity > 1:
            traceback.print_exc()
        where = f": {error.filename}" if error.filename else ""
        console.fail(
            f"error[storage-failed]: {error.strerror or error}{where}; nothing was lost: mend the disk or the rights, and run again"
        )
        sys.exit(ExitCode.INCOMPLETE)
    except Exception as error:  # the last line of defence for the person at the terminal
        if console.verbosity > 1:
            raise
        console.fail(
            f"error[internal]: {type(error).__name__}: {error}: this is a bug; run again with -vv and report it"
        )
        sys.exit(ExitCode.INCOMPLETE)
