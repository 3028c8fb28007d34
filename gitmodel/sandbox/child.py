"""What runs in the child: it locks itself in, then answers one request after another until the other end is closed."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import socket
import tempfile
from importlib import import_module
from types import ModuleType
from typing import Any

from gitmodel.errors import GitmodelError
from gitmodel.sandbox import forkserver, jail
from gitmodel.sandbox.failures import NO_MEMORY, TOO_LARGE, OutOfMemory
from gitmodel.sandbox.framing import BadFrame, Channel, TooLarge
from gitmodel.sandbox.limits import Limits


def wait_for_work(descriptor: int, name: str) -> None:
    """The life of a fork server, and of the children it becomes. Nothing may start a thread before they lock themselves in:
    they have none that would stay outside, and miss none."""
    # Who started it may have had signals set aside, and that is inherited.
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    module = import_module(name)
    module.prepare()
    gc.freeze()  # else the collector would copy pages that all children share
    own = os.getpid()
    channel = forkserver.serve(descriptor)
    jail.die_with_parent(own)
    serve(channel, module)


def serve(descriptor: int, module: ModuleType) -> None:
    """A child's life. A hostile file may have left behind what would crash on the way out, so it leaves at once."""
    try:
        _live(Channel(socket.socket(fileno=descriptor)), module)
    except BadFrame:  # the parent wants nothing more
        os._exit(0)
    except MemoryError:
        os._exit(NO_MEMORY)
    except BaseException:
        os._exit(1)


def _live(channel: Channel, module: ModuleType) -> None:
    """The first message says where it works, what it may do, and which of the module's functions makes it ready."""
    first = channel.receive()
    with contextlib.suppress(OSError):
        os.chdir(first["folder"])
    limits = Limits.from_dict(first["limits"])
    tempfile.tempdir = limits.writable[0] if limits.writable else None
    channel.gives = limits.answer
    channel.send({"missing": jail.enter(limits)})
    if first["warm"]:
        getattr(module, first["warm"])()
    while True:
        request = channel.receive()
        jail.meter(limits.seconds)
        try:
            channel.send(answer(module, request))
        except TooLarge:
            channel.send({"error": TOO_LARGE})
        except MemoryError:
            channel.send({"error": OutOfMemory.code})


def answer(module: Any, request: dict[str, Any]) -> dict[str, Any]:
    """What the function gives, or the error it raised, as a value."""
    try:
        return {"value": getattr(module, request["call"])(**request["args"])}
    except GitmodelError as error:
        return {"error": error.code, "message": error.message, "hint": error.hint}
    except MemoryError:
        return {"error": OutOfMemory.code}
    except Exception as error:  # whatever a library makes of a hostile file; the child goes on
        return {"error": "", "message": f"{type(error).__name__}: {error}"[:400], "hint": ""}
