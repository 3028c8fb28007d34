"""Starts a child, asks it, and gives it up when it is late or gone; what it says is data, and its end is an error."""

from __future__ import annotations

import contextlib
import signal
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from gitmodel.sandbox import forkserver
from gitmodel.sandbox.failures import NO_MEMORY, TOO_LARGE, OutOfMemory, Refused, SandboxFailed
from gitmodel.sandbox.forkserver import ForkServer
from gitmodel.sandbox.framing import MAX_TEXT, BadFrame, Channel, Late, TooLarge
from gitmodel.sandbox.limits import Limits

_MEND = "look where the model comes from; if it is meant to be so large or slow, raise --time-limit or --memory-limit"
#: What the libraries read of the machine, and the dynamic linker's own.
_MACHINE = (
    "/lib", "/lib64", "/usr/lib", "/usr/lib64", "/usr/local/lib", "/etc/ld.so.cache", "/sys/devices/system/cpu",
    "/sys/fs/cgroup", "/proc/cpuinfo", "/proc/meminfo", "/proc/self/status",
    "/dev/urandom", "/dev/null", "/etc/localtime", "/usr/share/locale",
)  # fmt: skip


@dataclass
class Child:
    """A child that calls functions of one module."""

    _server: ForkServer = field(repr=False)
    #: What the server knows it by.
    _number: int
    _channel: Channel
    limits: Limits
    #: What it is busy with, for messages.
    label: str = "the model"
    #: Why it can do nothing more.
    failure: SandboxFailed | None = None
    _missing: tuple[str, ...] | None = field(default=None, repr=False)
    _ended: bool = False

    @classmethod
    def start(cls, module: str, limits: Limits, warm: str = "") -> Child:
        """Returns at once, while the child locks itself in and calls the function ``warm`` of ``module``. Raises SandboxFailed."""
        folder = _folder()
        try:
            with contextlib.ExitStack() as undo:
                ours, theirs = map(undo.enter_context, socket.socketpair())
                server, number = _forked(module, theirs)
                undo.pop_all()
                theirs.close()
        except OSError as error:
            raise SandboxFailed(f"no child can be started ({error})", hint="mend the machine") from None
        child = cls(server, number, Channel(ours, takes=limits.answer), limits)
        seen = (*limits.readable, *_MACHINE, *server.paths, sys.base_prefix, sys.exec_prefix)
        with contextlib.suppress(BadFrame):  # whoever asks first is told
            first = {"folder": folder, "warm": warm, "limits": replace(limits, readable=seen).to_dict()}
            child._channel.send(first, limits.patience)
        return child

    @property
    def missing(self) -> tuple[str, ...]:
        """The layers of the sandbox that this machine does not have. Raises SandboxFailed."""
        if self._missing is None:
            self._missing = tuple(map(str, self._talk().get("missing", ())))
        return self._missing

    def ask(self, call: str, /, **args: Any) -> Any:
        """What the function ``call`` gives. Raises SandboxFailed, OutOfMemory, and Refused for an error of its own."""
        self.missing  # noqa: B018  # it is said first
        said = self._talk({"call": call, "args": args})
        if "value" in said:
            return said["value"]
        code, message, hint = (str(said.get(key, "")) for key in ("error", "message", "hint"))
        if code == OutOfMemory.code:
            raise self._starved()
        if code == TOO_LARGE:
            most = f"{self.limits.answer / 1e9:.1f} GB at once, or {MAX_TEXT / 1e9:.1f} GB of texts"
            text = f"{self.label} gives more than {most}"
            raise OutOfMemory(text, hint="use smaller cases, or raise --memory-limit")
        raise Refused(code, message, hint)

    def _talk(self, value: Any = None) -> Mapping[str, Any]:
        """The child's next word, after it was told ``value`` if there is one."""
        if self.failure is not None:
            raise self.failure
        try:
            if value is not None:
                self._channel.send(value, self.limits.patience)
            said = self._channel.receive(self.limits.patience)
            if not isinstance(said, Mapping):
                raise BadFrame("no mapping")
        except TooLarge:  # nothing was sent
            text = f"{self.label} cannot be asked with more than {MAX_TEXT / 1e9:.1f} GB of texts"
            raise OutOfMemory(text, hint="use smaller cases") from None
        except BadFrame as error:
            raise self._given_up(error) from None
        except MemoryError:
            text = f"{self.label} gives more than goes into this machine's memory"
            self.failure = SandboxFailed(text, hint="use smaller cases, or a larger machine")
            self.close()
            raise self.failure from None
        except BaseException:  # the answer is still under way: it would be taken for the next one
            self.failure = SandboxFailed(f"{self.label} was interrupted", hint="run it again")
            self.close()
            raise
        return said

    def _starved(self) -> OutOfMemory:
        return OutOfMemory(f"{self.label} needs more than {self.limits.memory / 1e9:.1f} GB of memory", hint=_MEND)

    def close(self) -> None:
        self._end()

    def _end(self, patience: float = 0.0) -> int | None:
        """Its exit code, or minus its signal, if it ended by itself in so many seconds; now it is gone in any case."""
        if self._ended:
            return None
        self._ended = True
        code = self._server.end(self._number, patience)
        self._channel.close()
        return code

    def _given_up(self, error: BadFrame) -> SandboxFailed:
        """Ends the child and says why it ended, for good."""
        late = isinstance(error, Late)
        ended = self._end(0.0 if late else 1.0)
        if late or ended == -signal.SIGXCPU:
            self.failure = SandboxFailed(f"{self.label} took more than {self.limits.seconds:.0f} s", hint=_MEND)
        elif ended == NO_MEMORY:
            self.failure = SandboxFailed(str(self._starved()), hint=_MEND)
        elif ended is not None and ended < 0:
            text = f"{self.label} crashed the process that opened it ({_signal(-ended)})"
            self.failure = SandboxFailed(text, hint="look where it comes from; export the model again")
        else:
            why = error if ended is None else f"exit code {ended}, {error}"
            text = f"{self.label} could not be opened in a sandbox ({why})"
            self.failure = SandboxFailed(text, hint="mend the Python environment, or report this")
        return self.failure


def _folder() -> str:
    """Where this process is; the root where that is gone."""
    try:
        return str(Path.cwd())
    except OSError:
        return "/"


def _signal(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:  # those for real time have no names
        return f"signal {number}"


def _forked(module: str, channel: socket.socket) -> tuple[ForkServer, int]:
    """A new child's server and number. A server that is gone, killed for want of memory perhaps, is started anew. Raises
    OSError."""
    found = forkserver.server(module)
    try:
        return found, found.fork(channel)
    except OSError:
        found = forkserver.server(module, instead_of=found)
        return found, found.fork(channel)
