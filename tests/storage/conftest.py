"""Servers of the kinds DVC speaks to: each is started when the first test asks for it, and serves until the last one is done."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from functools import cache

import pytest

from tests.storage.servers import Server


@pytest.fixture(scope="session")
def server_of(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Server]]:
    with contextlib.ExitStack() as stack:
        yield cache(lambda kind: stack.enter_context(Server.running(kind, tmp_path_factory.mktemp(kind) / "served")))
