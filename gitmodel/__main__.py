"""``gitmodel``, and ``python -m gitmodel`` for hooks that know only an interpreter: a process from its first import to its end."""

from __future__ import annotations

import atexit
import gc
import os
import sys
from typing import NoReturn

#: Objects that are made before they are searched for garbage: imports make many, and none of it is any. A command is over before
#: there are as many as this again.
_GARBAGE = 100_000
#: What Python ends with when what was printed could not be written.
_UNWRITTEN = 120


def start() -> NoReturn:
    """Runs the command and ends with it: nothing that was imported or opened is taken apart piece by piece first, which takes as
    long as a tenth of a save of 400 MB."""
    gc.set_threshold(_GARBAGE)
    from gitmodel import cli
    from gitmodel.cli.console import console

    gc.freeze()
    code: int | str | None = 0
    try:
        cli.main()
    except SystemExit as end:
        code = end.code
    if isinstance(code, str):  # as Python does
        console.fail(code)
        code = 1
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        try:
            if stream is not None:  # closed by whoever started us
                stream.flush()
        except (OSError, ValueError):
            code = code or _UNWRITTEN
    os._exit(code or 0)


if __name__ == "__main__":
    start()
