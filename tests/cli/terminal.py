"""A command at a real pseudo-terminal, as a person has it: what it shows is read, keys are typed, it may be killed."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from tests import support

PATIENCE = 120.0
#: Seconds after which a person would press Ctrl-C again.
_AGAIN = 5.0
#: Makes stdin the session's own terminal, so that Ctrl-C typed there becomes a signal, then becomes the command.
_TAKE = "import fcntl, os, sys, termios; fcntl.ioctl(0, termios.TIOCSCTTY, 0); os.execv(sys.argv[1], sys.argv[1:])"


@dataclass
class Terminal:
    """``text`` is all that was shown so far, line ends as Unix has them."""

    process: subprocess.Popen[bytes]
    descriptor: int
    text: str = ""
    _seen: int = 0

    def until(self, pattern: str) -> str:
        """What is shown up to where ``pattern`` (a regular expression) ends, after what was waited for before."""
        deadline = time.monotonic() + PATIENCE
        while not (found := re.compile(pattern).search(self.text, self._seen)):
            assert self._read(deadline), f"it ended without showing {pattern!r}:\n{self.text}"
        shown, self._seen = self.text[self._seen : found.end()], found.end()
        return shown

    def type(self, keys: str) -> None:
        os.write(self.descriptor, keys.encode())

    def end(self) -> int:
        """Reads to the end; returns the exit code."""
        deadline = time.monotonic() + PATIENCE
        while self._read(deadline):
            pass
        return self.process.wait(PATIENCE)

    def interrupt(self) -> int:
        """Ctrl-C, and again where nothing comes of it; returns the exit code. Python shows a prompt before it listens, and
        notices what comes just between only with the next key."""
        for _ in range(int(PATIENCE / _AGAIN)):
            self.type("\x03")
            deadline = time.monotonic() + _AGAIN
            while select.select([self.descriptor], [], [], max(0.0, deadline - time.monotonic()))[0]:
                if not self._read(deadline):
                    return self.process.wait(PATIENCE)
        raise AssertionError(f"Ctrl-C does not end it:\n{self.text}")

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(PATIENCE)

    def _read(self, deadline: float) -> bool:
        """Takes in what is shown next; False at the end."""
        ready, _, _ = select.select([self.descriptor], [], [], max(0.0, deadline - time.monotonic()))
        assert ready, f"nothing more was shown in {PATIENCE:.0f} s:\n{self.text}"
        with contextlib.suppress(OSError):  # Linux says so when the other side is closed
            if data := os.read(self.descriptor, 65536):
                self.text += data.decode().replace("\r\n", "\n")
                return True
        return False


@contextlib.contextmanager
def terminal(*args: str, cwd: Path, env: Mapping[str, str] | None = None) -> Iterator[Terminal]:
    """Runs ``gitmodel ARGS`` at a terminal of its own."""
    ours, theirs = pty.openpty()
    kept = {key: value for key, value in os.environ.items() if key != "CI"}
    process = subprocess.Popen(
        [sys.executable, "-S", "-c", _TAKE, str(support.BIN / "gitmodel"), *args], cwd=cwd, stdin=theirs, stdout=theirs,
        stderr=theirs, env={**kept, "TERM": "xterm", **(env or {})}, start_new_session=True,
    )  # fmt: skip
    os.close(theirs)
    try:
        yield Terminal(process, ours)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait(PATIENCE)
        os.close(ours)
