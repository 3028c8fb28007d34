"""What a request must be before it is looked at: meant for this server, from no other site's page, its body as it is, signed where
that is asked."""

from __future__ import annotations

import ipaddress
import itertools
import os
import re
from collections.abc import Collection, Mapping
from typing import Any

from msgspec import Struct

from gitmodel.serving.http import CLOSE, HttpError
from gitmodel.signing import Verifier

_LOOPBACK = ("localhost", "127.0.0.1", "[::1]")
_NAME_AND_PORT = re.compile(r"(\[[0-9a-fA-F:.]+\]|[^:\[\]]+)(?::\d+)?")
#: What a request's id may be, so that it can stand in a log and a header as it is.
_ID = re.compile(rb"[A-Za-z0-9._:/+=-]{1,128}")
#: Values of Host that were found right, so that each is looked at once. Bounded: anybody may send any.
_MOST_KNOWN = 1000


class Notices(Struct, frozen=True):
    """Where signed requests to load are taken over the network, and what checks them."""

    port: int
    verifier: Verifier


class Guard:
    """``hosts`` are names the server goes by besides those of this machine; without any it goes by these alone where it
    listens on loopback, by every name elsewhere. A page of another site can reach a server on loopback by a name of its own
    that leads there (DNS rebinding), or post to it blindly; both betray themselves in Host and Origin."""

    def __init__(self, listens: str, hosts: Collection[str] = ()) -> None:
        named = {host.lower() for host in hosts}
        own = {*_LOOPBACK, listens.lower()}
        self._allowed = named | own if named or _is_loopback(listens) else None
        self._known: set[bytes] = set()
        # Ids of different processes differ, and tell nothing.
        self._prefix, self._count = os.urandom(6).hex().encode() + b"-", itertools.count(1)

    def check(self, scope: Mapping[str, Any], headers: Mapping[bytes, bytes], *, crowded: bool = False) -> bytes:
        """The client's own id for its request, if it gave one that can be kept, else b''. ``headers`` are the scope's by name.
        ``crowded`` turns away all but who manages the server. Raises HttpError."""
        if crowded and port_of(scope) is not None:
            raise HttpError(503, "too many connections; try again", [CLOSE])
        host, origin = headers.get(b"host", b""), headers.get(b"origin")
        if host not in self._known and port_of(scope) is not None:
            self._check_host(host)
        if origin is not None:
            _check_origin(origin, host)
        if b"content-encoding" in headers:
            _check_encoding(headers[b"content-encoding"])
        name = headers.get(b"x-request-id")
        return name if name and _ID.fullmatch(name) else b""

    def name(self) -> bytes:
        """An id for a request that has none."""
        return self._prefix + b"%d" % next(self._count)

    def _check_host(self, host: bytes) -> None:
        found = _NAME_AND_PORT.fullmatch(host.decode("latin-1"))
        if self._allowed is not None and (found is None or found[1].lower() not in self._allowed):
            raise HttpError(421, "this server does not go by that name; see 'gitmodel serve --allow-host'", [CLOSE])
        if len(self._known) < _MOST_KNOWN:
            self._known.add(host)


def port_of(scope: Mapping[str, Any]) -> int | None:
    """The port that a request came in on; None for a Unix socket, 0 where the server does not say."""
    server = scope.get("server")
    return server[1] if server else 0


def _check_origin(origin: bytes, host: bytes) -> None:
    if origin.partition(b"://")[2].lower() != host.lower():
        raise HttpError(403, "pages of other sites may not ask here", [CLOSE])


def _check_encoding(value: bytes) -> None:
    if value.strip().lower() not in (b"", b"identity"):
        said = value.decode("latin-1")[:40]
        # RFC 9110, 15.5.16: Accept-Encoding says which codings would have been taken.
        raise HttpError(
            415, f"Content-Encoding '{said}' is not supported: send the body uncompressed", [(b"accept-encoding", b"identity")]
        )  # fmt: skip


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
