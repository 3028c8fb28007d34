"""Starts a child, asks it, and gives it up when it is late or gone; what it says is data, and its end is an error."""

from __future__ import annotations

import contextlib
import signal
import socket
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from gitmodel.sandbox import forkserver
from gitmodel.sandbox.failures import OutOfMemory, Refused, SandboxFailed
from gitmodel.sandbox.forkserver import ForkServer
from gitmodel.sandbox.framing import BadFrame, Channel, Late
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
        ours, theirs = socket.socketpair()
        try:
            server, number = _forked(module, theirs)
        except OSError as error:
            ours.close()
            raise SandboxFailed(f"no child can be started ({error})", hint="mend the machine") from None
        finally:
            theirs.close()
        child = cls(server, number, Channel(ours, limits.memory), limits)
        seen = (*limits.readable, *_MACHINE, *server.paths, sys.base_prefix, sys.exec_prefix)
        with contextlib.suppress(BadFrame):  # whoever asks first is told
            first = {"folder": str(Path.cwd()), "warm": warm, "limits": replace(limits, readable=seen).to_dict()}
            child._channel.send(first, limits.patience)
        return child

    @property
    def missing(self) -> tuple[str, ...]:
        """The layers of the sandbox that this machine does not have. Raises SandboxFailed."""
        if self._missing is None:
            self._missing = tuple(map(str, self._receive().get("missing", ())))
        return self._missing

    def ask(self, call: str, /, **args: Any) -> Any:
        """What the function ``call`` gives. Raises SandboxFailed, OutOfMemory, and Refused for an error of its own."""
        said = self._exchange({"call": call, "args": args})
        if "value" in said:
            return said["value"]
        code, message, hint = (str(said.get(key, "")) for key in ("error", "message", "hint"))
        if code == OutOfMemory.code:
            text = f"{self.label} needs more than {self.limits.memory / 1e9:.1f} GB of memory"
            raise OutOfMemory(text, hint=_MEND)
        raise Refused(code, message, hint)

    def _exchange(self, value: Any) -> Mapping[str, Any]:
        if self.failure is not None:
            raise self.failure
        self.missing  # noqa: B018  # it comes first
        try:
            self._channel.send(value, self.limits.patience)
        except BadFrame as error:
            raise self._given_up(error) from None
        return self._receive()

    def _receive(self) -> Mapping[str, Any]:
        if self.failure is not None:
            raise self.failure
        try:
            said = self._channel.receive(self.limits.patience)
            if not isinstance(said, Mapping):
                raise BadFrame("no mapping")
        except BadFrame as error:
            raise self._given_up(error) from None
        return said

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
        elif ended is not None and ended < 0:
            text = f"{self.label} crashed the process that opened it ({signal.Signals(-ended).name})"
            self.failure = SandboxFailed(text, hint="look where it comes from; export the model again")
        else:
            why = error if ended is None else f"exit code {ended}, {error}"
            text = f"{self.label} could not be opened in a sandbox ({why})"
            self.failure = SandboxFailed(text, hint="mend the Python environment, or report this")
        return self.failure


def _forked(module: str, channel: socket.socket) -> tuple[ForkServer, int]:
    """A new child's server and number. A server that is gone, killed for want of memory perhaps, is started anew. Raises
    OSError."""
    try:
        found = forkserver.server(module)
        return found, found.fork(channel)
    except (BrokenPipeError, ConnectionResetError):
        found = forkserver.server(module, anew=True)
        return found, found.fork(channel)
