"""What runs in the child: it locks itself in, then answers one request after another until the other end is closed."""

from __future__ import annotations

import os
import socket
import tempfile
from importlib import import_module
from typing import Any

from gitmodel.errors import GitmodelError
from gitmodel.sandbox import jail
from gitmodel.sandbox.failures import OutOfMemory
from gitmodel.sandbox.framing import BadFrame, Channel
from gitmodel.sandbox.limits import Limits


def serve(descriptor: int) -> None:
    """The child's life. The first message says what it may do, which module's functions will be asked for, and which of
    them makes ready; it locks itself in before it imports anything that starts threads, for those would stay outside."""
    channel = Channel(socket.socket(fileno=descriptor))
    try:
        first = channel.receive()
        limits = Limits.from_dict(first["limits"])
        tempfile.tempdir = limits.writable[0] if limits.writable else None
        channel.send({"missing": jail.enter(limits)})
        module = import_module(first["module"])
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
