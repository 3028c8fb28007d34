"""Starts a child, asks it, and gives it up when it is late or gone; what it says is data, and its end is an error."""

from __future__ import annotations

import contextlib
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from gitmodel.sandbox.failures import OutOfMemory, Refused, SandboxFailed
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

    _process: subprocess.Popen[bytes]
    _channel: Channel
    limits: Limits
    #: What it is busy with, for messages.
    label: str = "the model"
    #: Why it can do nothing more.
    failure: SandboxFailed | None = None
    _missing: tuple[str, ...] | None = field(default=None, repr=False)

    @classmethod
    def start(cls, module: str, limits: Limits, warm: str = "") -> Child:
        """Returns at once, while the child locks itself in, imports ``module`` and calls its function ``warm``. Raises
        SandboxFailed."""
        ours, theirs = socket.socketpair()
        paths = _library_paths()
        code = f"import sys;sys.path[:]={paths!r};from gitmodel.sandbox import child;child.serve({theirs.fileno()})"
        try:
            process = subprocess.Popen(  # this very interpreter
                [sys.executable, "-I", "-S", "-B", "-c", code],
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                pass_fds=[theirs.fileno()], env=_environment(),
            )  # fmt: skip
        except OSError as error:
            ours.close()
            raise SandboxFailed(f"no child can be started ({error})", hint="mend the machine") from None
        finally:
            theirs.close()
        child = cls(process, Channel(ours, limits.memory), limits)
        seen = (*limits.readable, *_MACHINE, *paths, sys.base_prefix, sys.exec_prefix)
        with contextlib.suppress(BadFrame):  # whoever asks first is told
            given = replace(limits, readable=seen).to_dict()
            child._channel.send({"module": module, "warm": warm, "limits": given}, limits.patience)
        return child

    @property
    def missing(self) -> tuple[str, ...]:
        """The layers of the sandbox that this machine does not have. Raises SandboxFailed."""
        if self._missing is None:
            self._missing = tuple(map(str, self._receive().get("missing", ())))
        return self._missing

    @property
    def process(self) -> int:
        """Its number."""
        return self._process.pid

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
        self._channel.close()
        with contextlib.suppress(OSError):
            self._process.kill()
        self._process.wait()

    def _given_up(self, error: BadFrame) -> SandboxFailed:
        """Ends the child and says why it ended, for good."""
        late = isinstance(error, Late)
        if not late:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(1)
        ended = self._process.poll()
        self.close()
        if late or ended == -signal.SIGXCPU:
            self.failure = SandboxFailed(f"{self.label} took more than {self.limits.seconds:.0f} s", hint=_MEND)
        elif ended is not None and ended < 0:
            text = f"{self.label} crashed the process that opened it ({signal.Signals(-ended).name})"
            self.failure = SandboxFailed(text, hint="look where it comes from; export the model again")
        else:
            text = f"{self.label} could not be opened in a sandbox (exit code {ended}, {error})"
            self.failure = SandboxFailed(text, hint="mend the Python environment, or report this")
        return self.failure


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
