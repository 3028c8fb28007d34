"""What runs in the child: it locks itself in, then answers one request after another until the other end is closed."""

from __future__ import annotations

import gc
import os
import socket
import tempfile
from importlib import import_module
from types import ModuleType
from typing import Any

from gitmodel.errors import GitmodelError
from gitmodel.sandbox import forkserver, jail
from gitmodel.sandbox.failures import OutOfMemory
from gitmodel.sandbox.framing import BadFrame, Channel
from gitmodel.sandbox.limits import Limits


def wait_for_work(descriptor: int, name: str) -> None:
    """The life of a fork server, and of the children it becomes. Nothing may start a thread before they lock themselves in:
    they have none that would stay outside, and miss none."""
    module = import_module(name)
    module.prepare()
    gc.freeze()  # else the collector would copy pages that all children share
    serve(forkserver.serve(descriptor), module)


def serve(descriptor: int, module: ModuleType) -> None:
    """A child's life. The first message says where it works, what it may do, and which of the module's functions makes it
    ready."""
    channel = Channel(socket.socket(fileno=descriptor))
    try:
        first = channel.receive()
        os.chdir(first["folder"])
        limits = Limits.from_dict(first["limits"])
        tempfile.tempdir = limits.writable[0] if limits.writable else None
        channel.send({"missing": jail.enter(limits)})
        if first["warm"]:
            getattr(module, first["warm"])()
        while True:
            request = channel.receive()
            jail.meter(limits.seconds)
            channel.send(answer(module, request))
    except BadFrame:  # the parent wants nothing more
        # A hostile file may have left behind what would crash on the way out.
        os._exit(0)


def answer(module: Any, request: dict[str, Any]) -> dict[str, Any]:
    """What the function gives, or the error it raised, as a value."""
    try:
        return {"value": getattr(module, request["call"])(**request["args"])}
    except GitmodelError as error:
        return {"error": error.code, "message": error.message, "hint": error.hint}
    except MemoryError:
        return {"error": OutOfMemory.code, "message": "", "hint": ""}
    except Exception as error:  # whatever a library makes of a hostile file; the child goes on
        return {"error": "", "message": f"{type(error).__name__}: {error}"[:400], "hint": ""}
