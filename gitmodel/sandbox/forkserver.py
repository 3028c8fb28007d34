"""A process that has imported what every child needs, and forks them: a child is there in milliseconds.

It looks at no file itself, so that nothing hostile ever runs in it. A request is a command, the number its parent gave the
child, and seconds, with the child's end of a socket pair beside the command to fork, which is not answered: who starts a
child does not wait. The answer to the command to end is that number and how it ended.
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
_REQUEST, _ANSWER = struct.Struct("<cId"), struct.Struct("<Ii")
#: Instead of an exit code: it had to be killed.
_KILLED = 1 << 16
_BLINK = 0.002
#: Seconds after which a server that says nothing is given up; it may still be importing.
_PATIENCE = 60.0


@dataclass
class ForkServer:
    """The parent's side. One for each module lives as long as this process; threads take turns."""

    _process: subprocess.Popen[bytes]
    _control: socket.socket
    #: Where it imports from; its children may read that.
    paths: tuple[str, ...]
    _owner: int = field(default_factory=os.getpid)
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
                [sys.executable, "-I", "-S", "-c", code],
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
            self._control.settimeout(_PATIENCE)
            socket.send_fds(self._control, [_REQUEST.pack(FORK, number, 0.0)], [channel.fileno()])
        return number

    def end(self, number: int, patience: float = 0.0) -> int | None:
        """Ends a child, which gets ``patience`` seconds to do so by itself: its exit code then, or minus its signal; None if
        it had to be killed, or the server is gone, and it with the server."""
        if self._owner != os.getpid():  # the lock may have been held when this process was forked
            return None
        with self._turn:
            try:
                self._control.settimeout(patience + _PATIENCE)
                self._control.sendall(_REQUEST.pack(END, number, patience))
                code = self._answer(number)
            except OSError:
                self._process.kill()
                self._process.wait()  # so that nobody takes it for alive
                return None
        return None if code == _KILLED else code

    def _answer(self, number: int) -> int:
        """What became of that child; what was said of others, to somebody who was interrupted, is passed over."""
        while True:
            answer = self._control.recv(_ANSWER.size)
            if len(answer) < _ANSWER.size:
                raise ConnectionError("it is gone")
            found, code = _ANSWER.unpack(answer)
            if found == number:
                return int(code)

    def close(self) -> None:
        """Ends it, and all its children."""
        with self._turn:
            with contextlib.suppress(OSError):
                self._control.shutdown(socket.SHUT_RDWR)  # whoever else holds a copy of our end
            self._control.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def disown(self) -> None:
        """For a process that was forked from the owner: it lets go of its copy, and waits for nobody's end."""
        self._control.close()
        self._process.returncode = 0


_SERVERS: dict[str, ForkServer] = {}
_STARTING = threading.Lock()


def server(module: str, *, instead_of: ForkServer | None = None) -> ForkServer:
    """The fork server of a module, started when there is none yet, or only one that is given up. Raises OSError."""
    with _STARTING:
        found = _SERVERS.get(module)
        if found is None or found is instead_of:
            _SERVERS[module] = ForkServer.start(module)
            if found is not None:
                found.close()
        return _SERVERS[module]


@atexit.register
def _close_all() -> None:
    while _SERVERS:
        _SERVERS.popitem()[1].close()


def _forget() -> None:
    """In a process that this one forked: those servers are not its own, and nobody holds the lock."""
    global _STARTING  # noqa: PLW0603  # a lock cannot be freed by who does not hold it
    _STARTING = threading.Lock()
    for found in _SERVERS.values():
        found.disown()
    _SERVERS.clear()


os.register_at_fork(after_in_child=_forget)


def serve(descriptor: int) -> int:
    """The server's life: returns the descriptor of a channel in each child it forks, and never where it began."""
    control, children = socket.socket(fileno=descriptor), dict[int, int]()
    while True:
        text, descriptors, _, _ = socket.recv_fds(control, _REQUEST.size, 1, socket.MSG_WAITALL)
        if len(text) < _REQUEST.size:
            os._exit(0)  # children that are left end with it, as jail.die_with_parent has it
        command, number, seconds = _REQUEST.unpack(text)
        if command == END:
            with contextlib.suppress(OSError):
                control.sendall(_ANSWER.pack(number, _end(children.pop(number, 0), seconds)))
            continue
        with contextlib.suppress(OSError):  # what could not be forked says nothing, like one that died
            children[number] = os.fork()
            if not children[number]:
                control.close()  # a child starts none
                os.setsid()  # what it starts ends with it
                return descriptors[0]
        os.close(descriptors[0])


def _end(process: int, seconds: float) -> int:
    """Waits for a child, or kills it, and takes it off the kernel's list: until then nobody else can have its number."""
    if not process:
        return _KILLED
    until = time.monotonic() + seconds
    while (ended := os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT)) is None:
        if time.monotonic() >= until:
            break
        time.sleep(_BLINK)
    with contextlib.suppress(OSError):
        os.killpg(process, signal.SIGKILL)
    with contextlib.suppress(OSError):  # it has not got a group of its own yet
        os.kill(process, signal.SIGKILL)
    status = os.waitpid(process, 0)[1]
    return _KILLED if ended is None else os.waitstatus_to_exitcode(status)


def _library_paths() -> list[str]:
    """Where this process imports from, without what depends on the current folder."""
    own = str(Path(__file__).resolve().parents[2])
    found = [str(path) for path in sys.path if Path(path).is_absolute()]
    return found if own in found else [own, *found]


def _environment() -> dict[str, str]:
    """Nothing of the caller's: there may be secrets in it."""
    import sysconfig  # what it reads takes milliseconds

    libraries = str(sysconfig.get_config_var("LIBDIR") or "")
    return {"LC_ALL": "C.UTF-8", "OPENBLAS_NUM_THREADS": "1", "LD_LIBRARY_PATH": libraries}
