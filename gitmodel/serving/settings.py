"""What whoever starts a server says."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path

from msgspec import Struct


class Settings(Struct, frozen=True):
    """``poll`` in seconds between looks at the refs without a hint; ``threads`` per call; ``max_body`` in bytes. ``record`` is a
    folder for every ``record_every``-th answered request, ``record_limit`` of each version at most. ``hosts`` are the names
    the server goes by: see ``Guard``. ``notify`` is HOST:PORT, where notices signed with a ``secret`` are taken. ``prepack``
    packs large weights beside the serving. ``batch_rows`` says, by model, how many rows of different calls are run together
    ('': of any model), ``batch_wait`` how many seconds a batch stays open. ``workers`` are
    processes that answer calls, each up to ``connections`` at a time; ``body_seconds`` for a client to send a body."""

    repo: Path
    models: Collection[str] = ()
    follow: str = "auto"
    host: str = "127.0.0.1"
    port: int = 8000
    admin: Path | None = None
    remote_url: str = ""
    store: Path | None = None
    poll: float = 5.0
    threads: int = 1
    max_body: int = 64 << 20
    record: Path | None = None
    record_every: int = 1
    record_limit: int = 256
    hosts: Collection[str] = ()
    notify: str = ""
    secret: Path | None = None
    connections: int = 1000
    workers: int = 1
    prepack: bool = True
    batch_rows: Mapping[str, int] = {}
    batch_wait: float = 0.0
    body_seconds: float = 30.0
