"""What the terminal gets: messages and progress on stderr, results on stdout, colour only where a person looks."""

from __future__ import annotations

import json
import os
import sys
import time
from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated, Any

import typer

#: Seconds between two looks of a counter.
_REDRAW = 0.1


class Format(StrEnum):
    """How a report is written."""

    TEXT = "text"
    JSON = "json"


@dataclass
class Console:
    """One per process; the options of every command set it."""

    quiet: bool = False
    verbosity: int = 0
    progress_shown: bool = False
    progress_at: float = 0.0

    def say(self, text: str = "") -> None:
        """A result, on stdout."""
        print(text, flush=True)

    def note(self, text: str) -> None:
        """A message for the person, on stderr; silent with -q."""
        self.clear()
        if not self.quiet:
            sys.stderr.write(f"{text}\n")  # in one piece: several threads tell

    def fail(self, text: str) -> None:
        """An error, in one line whatever names it tells of."""
        self.clear()
        print("".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text), file=sys.stderr)

    def data(self, value: Any) -> None:
        """One JSON document, alone on stdout."""
        print(as_json(value))

    @property
    def colour(self) -> bool:
        return sys.stdout.isatty() and "NO_COLOR" not in os.environ and os.environ.get("TERM") != "dumb"

    def progress(self, done: int, total: int, moved: int = 0, size: int = 0) -> None:
        """A counter of files and bytes that overwrites itself, on a terminal only."""
        now = time.monotonic()
        if not total or self.quiet or not sys.stderr.isatty() or (done < total and now - self.progress_at < _REDRAW):
            return
        self.progress_shown, self.progress_at = True, now
        parts = [f"{done}/{count(total, 'file')}", *([f"{human(moved)} of {human(size)}"] if size else [])]
        print(f"\r\033[K  {', '.join(parts)}", end="", file=sys.stderr, flush=True)

    def clear(self) -> None:
        if self.progress_shown:
            print("\r\033[K", end="", file=sys.stderr)
            self.progress_shown = False


def as_json(value: Any) -> str:
    """As every command writes its documents."""
    return json.dumps(value, indent=2, default=str)


console = Console()


def _set_quiet(value: bool) -> bool:
    console.quiet = value
    return value


def _set_verbosity(value: int) -> int:
    console.verbosity = value
    return value


Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but results and errors.", callback=_set_quiet)]
Verbose = Annotated[
    int,
    typer.Option(
        "--verbose",
        "-v",
        count=True,
        show_default=False,
        help="Say more; -vv shows the traceback of an error.",
        callback=_set_verbosity,
    ),
]
RepoOption = Annotated[str, typer.Option("--repo", "-C", metavar="PATH", help="Work in this repository.")]
FormatOption = Annotated[Format, typer.Option("--format", help="Text for people, json for programs.")]


def human(size: float) -> str:
    """Bytes as a person says them, in powers of ten."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000 or unit == "GB":
            return f"{size:.0f} {unit}" if unit == "B" or size >= 100 else f"{size:.1f} {unit}"
        size /= 1000
    raise AssertionError


def count(number: int, what: str) -> str:
    """``1 tensor``, ``8 tensors``."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def table(rows: list[list[str]], header: list[str]) -> str:
    """Left-aligned columns; the header in capitals."""
    widths = [max(len(str(row[i])) for row in [header, *rows]) for i in range(len(header))]
    lines = [[name.upper() for name in header], *rows]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )
