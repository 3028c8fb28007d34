"""Runs the ``console`` blocks of a page as a reader would and holds what the page shows against what really came out.

    scripts/transcripts.py PAGE...            says where a page differs; exit code 1 when one does
    scripts/transcripts.py --write PAGE...    puts the real output where a page differs
    scripts/transcripts.py --fresh PAGE...    the same, and replaces what agrees, too, so that a page is of one run

A page runs from top to bottom in one shell, in an empty home folder with a Git and DVC configuration of its own.

- A block ```` ```console ```` holds ``$ command`` lines (``> `` goes on with a command), each followed by its output.
  A line ``...`` stands for any lines that were left out.
- A block with a title, ```` ```python title="train.py" ````, is written to that file.
- A comment before a block says what is special: ``<!-- transcript: skip -->`` shows without running,
  ``<!-- transcript: background until TEXT -->`` starts a server and reads until TEXT shows.
- ``<!-- transcript: run`` ... ``-->`` runs lines that the reader is not shown.

What differs from run to run (times, digests, ports, folders) is compared by its form.
"""

from __future__ import annotations

import argparse
import contextlib
import difflib
import os
import queue
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

_GIT_CONFIG = "[user]\n\tname = Ada\n\temail = ada@example.org\n[init]\n\tdefaultBranch = main\n"
_DVC_CONFIG = "[core]\n    analytics = false\n    check_update = false\n"
_BLOCK = re.compile(
    r"^<!-- transcript: run\n(?P<hidden>.*?)^-->$"
    r"|(?:^<!-- transcript: (?P<directive>skip|background until [^\n]*?) -->\n+)?"
    r"^(?P<indent> *)```(?P<language>\w+)(?: title=\"(?P<title>[^\"]+)\")?\n(?P<body>.*?)^(?P=indent)```$",
    re.MULTILINE | re.DOTALL,
)
#: What a reader sees instead of the folder of this run and of the port that was free.
HOME, PORT = "/home/ada", "8000"
TIMEOUT = 120.0
_FORMS = (
    (r"\d{4}-\d\d-\d\d", "DATE"),
    (r"\b\d\d:\d\d(:\d\d)?\b", "TIME"),
    (r"\b[0-9a-f]{7,64}\b", "DIGEST"),
    (r"\bpid \d+", "pid N"),
    (r"\btmp-gitmodel-\w+", "tmp-gitmodel-X"),
    (r"\b\d+ rules\b|(?<=\"rules_run\": )\d+", "N rules"),
    (r"\b\d+\.sock\b", "N.sock"),
    (r"\d+\.\d+ s\b", "N s"),
    (r"\d\.\d{3,}(e-?\d+)?", "N"),
    (r"\s+", " "),
)


@dataclass(frozen=True)
class Block:
    """A fenced block of a page; ``start`` and ``end`` are where its body stands in the page's text."""

    language: str
    title: str
    directive: str
    body: str
    start: int
    end: int


@dataclass
class Shown:
    """One command of a page with the output the page shows, and what came out when it ran."""

    command: str
    expected: list[str] = field(default_factory=list)
    actual: list[str] = field(default_factory=list)

    @property
    def agrees(self) -> bool:
        pattern = "".join(
            r"(?:[^\n]*\n)*?" if line == "..." else re.escape(form(line)) + r"\n" for line in self.expected
        )
        return re.fullmatch(pattern, "".join(f"{form(line)}\n" for line in self.actual)) is not None

    def text(self) -> str:
        first, *more = self.command.split("\n")
        return "\n".join([f"$ {first}", *(f"> {line}" for line in more), *self.actual]) + "\n"


def blocks(text: str) -> Iterator[Block]:
    for match in _BLOCK.finditer(text):
        if match["hidden"] is not None:
            yield Block("hidden", "", "", match["hidden"], match.start(), match.end())
        elif not match["indent"]:
            yield Block(
                match["language"], match["title"] or "", match["directive"] or "", match["body"], *match.span("body")
            )


def commands(body: str) -> list[Shown]:
    """The commands of a console block with the output shown. Raises ValueError for a block that begins otherwise."""
    shown: list[Shown] = []
    for line in body.splitlines():
        if line.startswith("$ "):
            shown.append(Shown(line[2:]))
        elif not shown:
            raise ValueError(f"a console block must begin with '$ ': {line!r}")
        elif line.startswith("> ") and not shown[-1].expected:
            shown[-1].command += f"\n{line[2:]}"
        else:
            shown[-1].expected.append(line)
    return shown


def form(line: str) -> str:
    """The line with what differs from run to run replaced by a word for it."""
    for pattern, word in _FORMS:
        line = re.sub(pattern, word, line)
    return line.strip()


class Shell:
    """One bash for a page: folders, variables and exit codes live on from command to command, as at a terminal."""

    def __init__(self, home: Path) -> None:
        self.home, self.port = home, _free_port()
        (home / "gitconfig").write_text(_GIT_CONFIG)
        (home / ".config-dvc").mkdir()
        (home / ".config-dvc" / "config").write_text(_DVC_CONFIG)
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("GIT_", "DVC_", "COV"))}
        self.environment = kept | {
            "HOME": str(home),
            "GIT_CONFIG_GLOBAL": str(home / "gitconfig"),
            "GIT_CONFIG_NOSYSTEM": "1",
            "DVC_NO_ANALYTICS": "1",
            "DVC_GLOBAL_CONFIG_DIR": str(home / ".config-dvc"),
            "DVC_SYSTEM_CONFIG_DIR": str(home / ".config-dvc"),
            "DVC_SITE_CACHE_DIR": str(home / ".cache-dvc"),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{kept.get('PATH', os.defpath)}",
            "PYTHONWARNINGS": "ignore",
            "COLUMNS": "120",
            "LC_ALL": "C.UTF-8",
        }
        self.folder = home
        self._servers: list[tuple[subprocess.Popen[str], threading.Thread]] = []
        self._bash = self._start("exec bash --noprofile --norc", stdin=subprocess.PIPE)

    def __enter__(self) -> Shell:
        return self

    def __exit__(self, *_: object) -> None:
        for process, reader in (*self._servers, (self._bash, None)):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
            if reader is not None:
                reader.join()
            for pipe in filter(None, (process.stdin, process.stdout)):
                pipe.close()

    def _start(self, command: str, stdin: int = subprocess.DEVNULL) -> subprocess.Popen[str]:
        return subprocess.Popen(
            ["bash", "-c", command], cwd=self.folder, env=self.environment, text=True, stdin=stdin,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip

    def run(self, command: str) -> list[str]:
        """The lines a command prints, stdout and stderr as they come."""
        assert self._bash.stdin is not None and self._bash.stdout is not None
        mark = "-- end of command --"
        self._bash.stdin.write(
            f"{{ {self._own(command)}\n}} </dev/null; __status=$?; printf '\\n{mark} %s\\n' \"$PWD\"; (exit $__status)\n"
        )
        self._bash.stdin.flush()
        timer = threading.Timer(TIMEOUT, os.killpg, (self._bash.pid, signal.SIGKILL))
        timer.start()
        lines = []
        try:
            for line in self._bash.stdout:
                if line.startswith(mark):
                    self.folder = Path(line.removeprefix(mark).strip())
                    break
                lines.append(line.rstrip("\n"))
            else:
                raise SystemExit(f"'{command}' ended the shell or took more than {TIMEOUT:.0f} s:\n" + "\n".join(lines))
        finally:
            timer.cancel()
        if lines and not lines[-1]:  # the line break before the mark, when the output ended with one of its own
            lines.pop()
        return [self._shown(line) for line in lines]

    def start(self, command: str, until: str) -> list[str]:
        """Starts a server and returns its lines up to the one with ``until`` in it; it is ended with the page."""
        server = self._start(f"exec {self._own(command)}")
        found: queue.Queue[str | None] = queue.Queue()

        def read() -> None:
            assert server.stdout is not None
            for line in server.stdout:
                found.put(line.rstrip("\n"))
            found.put(None)

        # The pipe must go on being read, or a full one would stop the server.
        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        self._servers.append((server, reader))
        lines: list[str] = []
        while True:
            try:
                line = found.get(timeout=TIMEOUT)
            except queue.Empty:
                line = None
            if line is None:
                raise SystemExit(f"'{command}' ended, or never said {until}:\n" + "\n".join(lines))
            lines.append(self._shown(line))
            if until in line:
                return lines

    def write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(self._own(text))

    def _own(self, text: str) -> str:
        return re.sub(rf"\b{PORT}\b", str(self.port), text)

    def _shown(self, line: str) -> str:
        line = line.replace(str(self.home), HOME).replace(f":{self.port}", f":{PORT}")
        return line.rstrip()


def run_page(path: Path, *, write: bool = False, fresh: bool = False) -> list[str]:
    """Runs one page; returns what differs, a text per command. With ``write`` or ``fresh`` the page is put right."""
    text = path.read_text()
    if not any(block.language == "console" for block in blocks(text)):
        return []
    differences, replaced = [], []
    with tempfile.TemporaryDirectory(prefix="gitmodel-docs-") as home, Shell(Path(home).resolve()) as shell:
        for block in blocks(text):
            if block.title and block.language != "console":
                shell.write(block.title, block.body)
            elif block.language == "hidden":
                shell.run(f"set -e\n{block.body}\nset +e")
            elif block.language == "console" and block.directive != "skip":
                shown = commands(block.body)
                _run_block(shell, block, shown)
                wrong = [one for one in shown if not one.agrees]
                differences += [_difference(path, one) for one in wrong]
                if wrong or fresh:
                    replaced.append((block, "".join(_kept(one, fresh) for one in shown)))
    if (write or fresh) and replaced:
        for block, body in reversed(replaced):
            text = text[: block.start] + body + text[block.end :]
        path.write_text(text)
    return differences


def _run_block(shell: Shell, block: Block, shown: list[Shown]) -> None:
    for one in shown:
        if block.directive.startswith("background"):
            one.actual = shell.start(one.command, block.directive.removeprefix("background until "))
        else:
            one.actual = shell.run(one.command)


def _kept(one: Shown, fresh: bool) -> str:
    """What the block is to say: what came out; where the page is right, as short as it was, and as it was unless fresh."""
    gaps = one.expected.count("...") if one.agrees else 0
    if gaps == 1 and fresh:
        first = one.expected.index("...")
        last = len(one.expected) - first - 1
        short = [*one.actual[:first], "...", *one.actual[len(one.actual) - last :]]
        return Shown(one.command, actual=short).text()
    if one.agrees and (not fresh or gaps):
        return Shown(one.command, actual=one.expected).text()
    return one.text()


def _difference(path: Path, one: Shown) -> str:
    lines = difflib.unified_diff(one.expected, one.actual, f"{path.name}: as shown", "as it is", lineterm="", n=1)
    return f"$ {one.command}\n" + "\n".join(lines)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("pages", nargs="+", type=Path, metavar="PAGE")
    parser.add_argument("--write", action="store_true", help="put the real output into the blocks that differ")
    parser.add_argument("--fresh", action="store_true", help="put all output in anew")
    options = parser.parse_args()
    found = [
        difference for page in options.pages for difference in run_page(page, write=options.write, fresh=options.fresh)
    ]
    for difference in found:
        print(difference, end="\n\n")
    if found and not (options.write or options.fresh):
        raise SystemExit(f"{len(found)} commands print something else than the pages show; --write puts it in")


if __name__ == "__main__":
    main()
