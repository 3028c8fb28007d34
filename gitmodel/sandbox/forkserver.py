"""A process that has imported what every child needs, and forks them: a child is there in milliseconds.

It looks at no file itself, so that nothing hostile ever runs in it. A request is a command, the number its parent gave the
child, and seconds, with the child's end of a socket pair beside the command to fork, which is not answered: who starts a
child does not wait. The answer to the command to end is how it ended.
"""

from __future__ import annotations

import atexit
import contextlib
import itertools
import os
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

FORK, END = b"F", b"E"
_REQUEST, _ANSWER = struct.Struct("<cId"), struct.Struct("<i")
#: Instead of an exit code: it had to be killed.
_KILLED = 1 << 16
_BLINK = 0.002


@dataclass
class ForkServer:
    """The parent's side. One for each module lives as long as this process; threads take turns."""

    _process: subprocess.Popen[bytes]
    _control: socket.socket
    #: Where it imports from; its children may read that.
    paths: tuple[str, ...]
    _turn: threading.Lock = field(default_factory=threading.Lock, repr=False)
    _numbers: Iterator[int] = field(default_factory=itertools.count, repr=False)

    @classmethod
    def start(cls, module: str) -> ForkServer:
        """Returns at once, while it imports ``module`` and calls its function ``prepare``. Raises OSError."""
        ours, theirs = socket.socketpair()
        paths = _library_paths()
        number = theirs.fileno()
        code = f"import sys;sys.path[:]={paths!r};from gitmodel.sandbox import child;child.wait_for_work({number},{module!r})"
        try:
            process = subprocess.Popen(  # this very interpreter
                [sys.executable, "-I", "-S", "-B", "-c", code],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                pass_fds=[number], env=_environment(), start_new_session=True,
            )  # fmt: skip
        except OSError:
            ours.close()
            raise
        finally:
            theirs.close()
        return cls(process, ours, tuple(paths))

    @property
    def process(self) -> int:
        """Its number."""
        return self._process.pid

    def fork(self, channel: socket.socket) -> int:
        """Has a child forked that talks over ``channel``; returns a number for ``end``. Raises OSError if the server is gone."""
        with self._turn:
            number = next(self._numbers)
            socket.send_fds(self._control, [_REQUEST.pack(FORK, number, 0.0)], [channel.fileno()])
        return number

    def end(self, number: int, patience: float = 0.0) -> int | None:
        """Ends a child, which gets ``patience`` seconds to do so by itself: its exit code then, or minus its signal; None if
        it had to be killed, or the server is gone, and it with the server."""
        with contextlib.suppress(OSError), self._turn:
            self._control.sendall(_REQUEST.pack(END, number, patience))
            answer = self._control.recv(_ANSWER.size, socket.MSG_WAITALL)
            code = _ANSWER.unpack(answer)[0] if len(answer) == _ANSWER.size else _KILLED
            return None if code == _KILLED else int(code)
        return None

    def close(self) -> None:
        self._control.close()
        self._process.wait()


_SERVERS: dict[tuple[str, int], ForkServer] = {}
_STARTING = threading.Lock()


def server(module: str, *, anew: bool = False) -> ForkServer:
    """The fork server of a module, started when there is none yet. ``anew`` gives up the one there is. Raises OSError."""
    key = module, os.getpid()  # one that another process started is not ours to talk to
    with _STARTING:
        if anew and key in _SERVERS:
            _SERVERS.pop(key).close()
        if key not in _SERVERS:
            _SERVERS[key] = ForkServer.start(module)
            # It ends when our end is closed; waited for, it leaves nothing behind.
            atexit.register(_SERVERS[key].close)
        return _SERVERS[key]


def serve(descriptor: int) -> int:
    """The server's life: returns the descriptor of a channel in each child it forks, and never where it began."""
    control, children = socket.socket(fileno=descriptor), dict[int, int]()
    while True:
        text, descriptors, _, _ = socket.recv_fds(control, _REQUEST.size, 1, socket.MSG_WAITALL)
        if len(text) < _REQUEST.size:
            os._exit(0)  # children that are left end with it, as jail.enter has it
        command, number, seconds = _REQUEST.unpack(text)
        if command == END:
            with contextlib.suppress(OSError):
                control.sendall(_ANSWER.pack(_end(children.pop(number, 0), seconds)))
            continue
        with contextlib.suppress(OSError):  # what could not be forked says nothing, like one that died
            children[number] = os.fork()
            if not children[number]:
                control.close()  # a child starts none
                return descriptors[0]
        os.close(descriptors[0])


def _end(process: int, seconds: float) -> int:
    """Waits for a child, or kills it, and takes it off the kernel's list: until then nobody else can have its number."""
    if not process:
        return _KILLED
    until = time.monotonic() + seconds
    while True:
        found, status = os.waitpid(process, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() >= until:
            break
        time.sleep(_BLINK)
    os.kill(process, signal.SIGKILL)
    os.waitpid(process, 0)
    return _KILLED


def _library_paths() -> list[str]:
    """Where this process imports from, without what depends on the current folder."""
    own = str(Path(__file__).resolve().parents[2])
    found = [path for path in sys.path if Path(path).is_absolute()]
    return found if own in found else [own, *found]


def _environment() -> dict[str, str]:
    """Nothing of the caller's: there may be secrets in it."""
    import sysconfig  # what it reads takes milliseconds

    libraries = str(sysconfig.get_config_var("LIBDIR") or "")
    return {"LC_ALL": "C.UTF-8", "OPENBLAS_NUM_THREADS": "1", "LD_LIBRARY_PATH": libraries}
