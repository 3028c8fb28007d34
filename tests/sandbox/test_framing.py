"""Messages between a process and its child: what is no message is an error, and never more memory than was allowed."""

from __future__ import annotations

import json
import socket
import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from gitmodel.sandbox.framing import BadFrame, Channel, Late


def pair(most: int = 1 << 20) -> tuple[Channel, Channel]:
    one, other = socket.socketpair()
    return Channel(one, most), Channel(other, most)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text() | st.integers(), inner, max_size=4),
    max_leaves=12,
)


@given(values)
def test_what_is_sent_arrives(value: object) -> None:
    ours, theirs = pair()
    ours.send(value, 5)
    assert theirs.receive(5) == value
    ours.close()
    theirs.close()


@given(
    arrays.arrays(
        arrays.scalar_dtypes().filter(lambda d: d.kind in "biufc"), arrays.array_shapes(min_dims=0, min_side=0)
    )
)
def test_arrays_arrive_bit_for_bit(array: np.ndarray) -> None:
    ours, theirs = pair()
    ours.send({"a": array, "b": [array]}, 5)
    found = theirs.receive(5)
    for other in (found["a"], found["b"][0]):
        assert (other.dtype, other.shape, other.tobytes()) == (array.dtype, array.shape, array.tobytes())
    ours.close()
    theirs.close()


def frame(text: bytes, body: bytes = b"", length: int | None = None, size: int | None = None) -> bytes:
    sizes = (len(text) if length is None else length, len(body) if size is None else size)
    return struct.pack("<IQ", *sizes) + text + body


def array(dtype: object = "<f4", shape: object = (1,)) -> bytes:
    return json.dumps({"array": dtype, "shape": shape}).encode()


@pytest.mark.parametrize(
    "sent",
    [
        b"\xff" * 12,
        frame(b"{}", length=1 << 31),
        frame(b"{}", size=1 << 40),
        frame(b"no json"),
        frame(b"[" * 200_000),
        frame(b"\xff\xfe"),
        frame(b'{"what": 1}'),
        frame(b'{"map": [1]}'),
        frame(b'{"map": [[[1], 2]]}'),
        frame(array(), b"abc"),
        frame(array(shape=(-1,)), b"abcd"),
        frame(array(shape=(1 << 62, 4)), b"abcd"),
        frame(array(dtype="O"), b"abcdefgh"),
        frame(array(dtype="no type"), b"abcd"),
        frame(array(dtype="(,)i4"), b"abcd"),
        frame(b'{"array": "<f4", "shape": [Infinity]}', b"abcd"),
        frame(b'{"texts": ["a"], "shape": [7]}'),
        frame(b"{}", length=100),
    ],
)
def test_what_is_no_message_is_an_error(sent: bytes) -> None:
    one, other = socket.socketpair()
    one.sendall(sent)
    one.close()
    channel = Channel(other, 1 << 20)
    with pytest.raises(BadFrame):
        channel.receive(5)
    channel.close()


def test_room_is_made_for_what_came_not_for_what_was_announced() -> None:
    one, other = socket.socketpair()
    one.sendall(frame(b"{}", size=1 << 30))
    one.close()
    tracemalloc.start()
    with pytest.raises(BadFrame):
        Channel(other).receive(5)
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()
    other.close()


def test_silence_is_late() -> None:
    ours, theirs = pair()
    with pytest.raises(Late):
        theirs.receive(0.05)
    ours.close()
    with pytest.raises(BadFrame, match="gone"):
        theirs.receive(0.05)
    theirs.close()


def test_who_does_not_listen_is_late() -> None:
    ours, theirs = pair()
    with pytest.raises(Late):
        ours.send({"a": np.zeros(8 << 20, "u1")}, 0.05)
    theirs.close()
    with pytest.raises(BadFrame):
        ours.send("more", 0.05)
    ours.close()
