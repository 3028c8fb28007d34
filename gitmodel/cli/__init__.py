"""The command line: parses, calls one workflow, renders, returns an exit code. Heavy work is imported by the commands."""

from __future__ import annotations

import atexit
import copy
import gc
import os
import sys
import traceback
from typing import NoReturn

import typer

from gitmodel.cli import export, golden, maintain, models, operate, review, transfer
from gitmodel.cli.console import console
from gitmodel.errors import ExitCode, GitmodelError

#: Seconds after which a thread that computes lets one go on that has hashed its block, or compared it: Python's own 5 ms are
#: as long as ten blocks.
_SWITCH = 0.0005
#: Objects that are made before they are searched for garbage: imports make many, and none of it is any.
_GARBAGE = 20_000

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


#: What Python ends with when what was printed could not be written.
_UNWRITTEN = 120


def start() -> NoReturn:
    """The entry point of a process, which ends with it: nothing that was imported or opened is taken apart piece by piece
    first, which takes as long as a tenth of a save of 400 MB."""
    code: int | str | None = 0
    try:
        main()
    except SystemExit as end:
        code = end.code
    if isinstance(code, str):  # as Python does
        print(code, file=sys.stderr)
        code = 1
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:  # closed by whoever started us
                stream.flush()
        except (OSError, ValueError):
            code = code or _UNWRITTEN
    os._exit(code or 0)


def main() -> None:
    """The command that ``sys.argv`` names. A user's mistake is one line and an exit code; ``-vv`` shows where it came from."""
    # numpy's BLAS is not used here, but its threads would spin beside those that hash.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    sys.setswitchinterval(_SWITCH)
    gc.freeze()
    gc.set_threshold(_GARBAGE)
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
