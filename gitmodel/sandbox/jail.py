"""What a child gives up before it looks at anything: limits of the kernel, the network, the file system, its parent.

Sources: setrlimit(2), unshare(2), prctl(2), landlock(7) and the kernel's Documentation/userspace-api/landlock.rst.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path

from gitmodel.sandbox.limits import Limits

_NO_NEW_PRIVS, _PDEATHSIG, _SIGKILL = 38, 1, 9
_NEWUSER, _NEWNET = 0x10000000, 0x40000000
_CREATE, _ADD, _RESTRICT = 444, 445, 446  # the same numbers on every architecture
_VERSION_FLAG, _PATH_BENEATH = 1, 1
_READ_FILE, _READ_DIR = 1 << 2, 1 << 3
_WRITE = 1 << 1 | 1 << 4 | 1 << 5 | 1 << 7 | 1 << 8  # write to files, remove and make folders and files
_TRUNCATE = 1 << 14
#: Rights over files that each version of Landlock can take away: all there are, so that what is new is denied, too.
_RIGHTS = {1: 13, 2: 14, 3: 15, 4: 15}
_NEWEST = 16
_TCP, _SCOPES = 0b11, 0b11
_SCOPED_SINCE, _NET_SINCE = 6, 4


class _Ruleset(ctypes.Structure):
    _fields_ = (("files", ctypes.c_uint64), ("net", ctypes.c_uint64), ("scoped", ctypes.c_uint64))


class _Beneath(ctypes.Structure):
    _pack_ = 1
    _fields_ = (("allowed", ctypes.c_uint64), ("parent", ctypes.c_int32))


def enter(limits: Limits) -> list[str]:
    """Takes away all it can from this process, for good; returns what could not be taken, each by name."""
    layers: tuple[tuple[str, Callable[[Limits], None]], ...] = (
        ("one thread", _alone),
        ("resource limits", _limit),
        ("no network", _unplug),
        ("read-only files (Landlock)", _wall_in),
    )
    missing = []
    for name, take in layers:
        try:
            take(limits)
        except (OSError, ValueError, AttributeError):
            missing.append(name)
    return missing


def die_with_parent(parent: int) -> None:
    """Ends this process with the process ``parent``, which started it; at once if that has ended already."""
    with contextlib.suppress(OSError, AttributeError):
        _checked(_libc().prctl(_PDEATHSIG, _SIGKILL, 0, 0, 0))
    if os.getppid() != parent:
        os._exit(1)


def meter(seconds: float) -> None:
    """Gives this process ``seconds`` more of processor time, in whole ones."""
    used = time.process_time()
    allowed = int(used + seconds) + 2
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_CPU, (allowed, resource.getrlimit(resource.RLIMIT_CPU)[1]))


def stop_writing() -> None:
    """From here on no file can be written at all."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def _alone(limits: Limits) -> None:  # noqa: ARG001  # every layer is called alike
    """What is given up is given up by one thread: others, older than that, would go on as before."""
    if len(list(Path("/proc/self/task").iterdir())) > 1:
        raise OSError("there are threads")


def _limit(limits: Limits) -> None:
    if sys.platform != "linux":
        raise OSError("elsewhere RLIMIT_AS is not kept")
    for which, most in (
        (resource.RLIMIT_AS, limits.memory),
        (resource.RLIMIT_FSIZE, limits.file_bytes),
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_NOFILE, limits.files),
    ):
        hard = resource.getrlimit(which)[1]
        allowed = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(which, (allowed, allowed))


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _checked(result: int) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result


def _unplug(limits: Limits) -> None:  # noqa: ARG001  # every layer is called alike
    """A network of its own without any interface; who is not root needs a user namespace of its own for that."""
    try:
        _checked(_libc().unshare(_NEWNET))
    except OSError:
        _checked(_libc().unshare(_NEWUSER | _NEWNET))


def _wall_in(limits: Limits) -> None:
    """Landlock: reads below ``readable``, writes below ``writable``, and nothing else of the file system."""
    libc = _libc()
    version = _checked(libc.syscall(_CREATE, None, ctypes.c_size_t(0), _VERSION_FLAG))
    rights = (1 << _RIGHTS.get(version, _NEWEST)) - 1
    asked = _Ruleset(rights, _TCP if version >= _NET_SINCE else 0, _SCOPES if version >= _SCOPED_SINCE else 0)
    size = 24 if version >= _SCOPED_SINCE else 16 if version >= _NET_SINCE else 8
    ruleset = _checked(libc.syscall(_CREATE, ctypes.byref(asked), ctypes.c_size_t(size), 0))
    try:
        for path in limits.readable:
            _allow(libc, ruleset, path, _READ_FILE | _READ_DIR)
        for path in limits.writable:
            _allow(libc, ruleset, path, (_READ_FILE | _READ_DIR | _WRITE | _TRUNCATE) & rights)
        _checked(libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0))
        _checked(libc.syscall(_RESTRICT, ruleset, 0))
    finally:
        os.close(ruleset)


def _allow(libc: ctypes.CDLL, ruleset: int, path: str, rights: int) -> None:
    """What is not there needs no rule. Of a file only what can be done with files may be allowed."""
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return
    try:
        allowed = rights if Path(path).is_dir() else rights & (_READ_FILE | 1 << 1 | _TRUNCATE)
        rule = _Beneath(allowed, descriptor)
        _checked(libc.syscall(_ADD, ruleset, _PATH_BENEATH, ctypes.byref(rule), 0))
    finally:
        os.close(descriptor)
