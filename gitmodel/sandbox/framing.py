"""Messages between a process and its child: JSON, and after it the bytes of the arrays it names. Never pickle: what a
child says is a stranger's word.

A frame is two little-endian lengths (u32 of the JSON, u64 of all arrays together), then both.
"""

from __future__ import annotations

import json
import math
import socket
import struct
import time
from dataclasses import dataclass, field
from typing import Any

_HEAD = struct.Struct("<IQ")
MAX_TEXT = 128 << 20
_KINDS = "biufc"
#: Bytes of room to begin with; it is doubled as it fills.
_PIECE = 1 << 20


class BadFrame(Exception):
    """What came is no message: the other side is gone, late, or speaks something else."""


class Late(BadFrame):
    """Nothing came in time."""


class TooLarge(Exception):
    """There is more to say than may be said at once."""


@dataclass
class Channel:
    """One end of a socket pair. A message that comes may have ``takes`` bytes of arrays, one that goes ``gives``."""

    socket: socket.socket
    takes: int = 1 << 40
    gives: int = 1 << 40
    _sizes: list[int] = field(default_factory=list, repr=False)

    def send(self, value: Any, seconds: float | None = None) -> None:
        """Raises BadFrame, Late, and, before anything is sent, TooLarge."""
        buffers: list[memoryview] = []
        text = json.dumps(_packed(value, buffers)).encode()
        if len(text) > MAX_TEXT or sum(map(len, buffers)) > self.gives:
            raise TooLarge
        try:
            self.socket.settimeout(seconds)
            self.socket.sendall(_HEAD.pack(len(text), sum(map(len, buffers))) + text)
            for buffer in buffers:
                self.socket.sendall(buffer)
        except TimeoutError:
            raise Late from None
        except OSError as error:
            raise BadFrame(error.strerror or str(error)) from None

    def receive(self, seconds: float | None = None) -> Any:
        """The next value. Raises BadFrame, Late."""
        until = None if seconds is None else time.monotonic() + seconds
        length, size = _HEAD.unpack(self._read(_HEAD.size, until))
        if length > MAX_TEXT or size > self.takes:
            raise BadFrame(f"a message of {length + size} bytes")
        text = bytes(self._read(length, until))
        body = self._read(size, until)
        try:
            return _unpacked(json.loads(text), body)
        except Exception as error:  # numpy raises SyntaxError for some names of types
            raise BadFrame(f"no message ({error})") from None

    def _read(self, size: int, until: float | None) -> bytearray:
        """So many bytes; memory is taken as they come, for the number is a stranger's word."""
        body, filled = bytearray(min(size, _PIECE)), 0
        try:
            while filled < size:
                if filled == len(body):
                    body.extend(bytes(min(filled, size - filled)))
                self.socket.settimeout(None if until is None else max(until - time.monotonic(), 0.001))
                with memoryview(body) as whole:
                    count = self.socket.recv_into(whole[filled:])
                if not count:
                    raise BadFrame("it is gone")
                filled += count
        except TimeoutError:
            raise Late from None
        except OSError as error:
            raise BadFrame(error.strerror or str(error)) from None
        return body

    def close(self) -> None:
        self.socket.close()


def _packed(value: Any, buffers: list[memoryview]) -> Any:
    """The value as JSON can have it; arrays are named by type and shape, their bytes go to ``buffers``."""
    if isinstance(value, dict):
        # In pairs: a map of ONNX may have numbers for keys.
        return {"map": [[key, _packed(inner, buffers)] for key, inner in value.items()]}
    if isinstance(value, list | tuple):
        return [_packed(inner, buffers) for inner in value]
    if not hasattr(value, "dtype"):
        return value
    if value.dtype.kind not in _KINDS:
        return {"texts": [str(text) for text in value.ravel().tolist()], "shape": list(value.shape)}
    import numpy as np

    values = np.ascontiguousarray(value)
    buffers.append(values.reshape(-1).view("u1").data if values.size else memoryview(b""))
    return {"array": values.dtype.str, "shape": list(value.shape)}


def _unpacked(whole: Any, body: bytearray) -> Any:
    """The inverse. Raises ValueError and kin for what ``_packed`` never makes."""
    used = 0

    def unpack(value: Any) -> Any:
        nonlocal used
        if isinstance(value, list):
            return [unpack(inner) for inner in value]
        if not isinstance(value, dict):
            return value
        if "map" in value:
            return {key: unpack(inner) for key, inner in value["map"]}
        import numpy as np

        shape = tuple(map(int, value["shape"]))
        if "texts" in value:
            return np.array(value["texts"], dtype=object).reshape(shape)
        dtype = np.dtype(value["array"])
        size = math.prod(shape) * dtype.itemsize
        if dtype.kind not in _KINDS or min(shape, default=0) < 0 or used + size > len(body):
            raise ValueError("an array that is none")
        used += size
        return np.frombuffer(body, dtype, math.prod(shape), used - size).reshape(shape)

    return unpack(whole)
