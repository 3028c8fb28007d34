"""What a child is asked to do in these tests: things that should be refused, and things that should not."""

from __future__ import annotations

import contextlib
import os
import socket
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from gitmodel.files import StorageFailed

TRIED: list[str] = []


def prepare() -> None:
    TRIED.append("prepare")


def warm() -> None:
    TRIED.append("warm")


def tried() -> list[str]:
    return TRIED


def process() -> int:
    return os.getpid()


def parent() -> int:
    return os.getppid()


def descriptors() -> list[str]:
    """What the open ones are, in order."""
    found = []
    for number in range(64):
        with contextlib.suppress(OSError):
            found.append(str(Path(f"/proc/self/fd/{number}").readlink()))
    return found


def start_another() -> int:
    """A process that a hostile model might leave behind."""
    number = os.fork()
    if not number:
        time.sleep(60)
        os._exit(0)
    return number


def same(value: Any) -> Any:
    return value


def read(path: str) -> str:
    return Path(path).read_text()


def write(path: str, size: int) -> int:
    with Path(path).open("wb") as file:
        return file.write(bytes(size))


def unpack(size: int) -> str:
    """Writes where temporary files go; returns the folder."""
    with tempfile.TemporaryDirectory() as folder, tempfile.NamedTemporaryFile(dir=folder) as file:
        file.write(bytes(size))
        file.flush()
        return str(Path(folder).parent)


def connect(port: int) -> None:
    socket.create_connection(("127.0.0.1", port), 1)


def kill(process: int) -> None:
    os.kill(process, 0)


def execute(path: str) -> None:
    os.posix_spawn(path, [path], {})


def environment() -> dict[str, str]:
    return dict(os.environ)


def open_many(count: int) -> int:
    with contextlib.ExitStack() as stack:
        return len([stack.enter_context(Path("/dev/null").open()) for _ in range(count)])


def take(size: int) -> int:
    return int(np.ones(size, "u1").sum())


def give(size: int) -> np.ndarray:
    return np.zeros(size, "u1")


def give_texts(size: int) -> np.ndarray:
    return np.array(["x" * size], dtype=object)


def hear(texts: np.ndarray) -> int:
    return len(texts)


def spin() -> None:
    while True:
        pass


def sleep(seconds: float) -> None:
    time.sleep(seconds)


def crash(number: int) -> None:
    os.kill(os.getpid(), number)


def leave() -> None:
    os._exit(7)


def refuse() -> None:
    raise StorageFailed("there is no room", hint="make some")


def stumble() -> None:
    raise KeyError("what a library raises")


def babble() -> None:
    """Says something that is no message, as a child would that has been taken over."""
    for descriptor in range(3, 200):
        with contextlib.suppress(OSError):
            os.write(descriptor, b"\xff" * 64)
