"""Requests that manage a server over the network are signed, with a secret both sides keep in a file.

HMAC-SHA256 over the version of the scheme, the time, a nonce, method and path, and the digest of the body, one per line. A
signature counts for a minute, and once. Two secrets may be in use at a time, so that one can be replaced without a pause.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
import stat
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from gitmodel.errors import ExitCode, GitmodelError

TIME, NONCE, SIGNATURE = "gitmodel-time", "gitmodel-nonce", "gitmodel-signature"
#: Seconds by which the clocks of both sides may differ.
SKEW = 60
_SCHEME = "v1"
_LEAST_BYTES, _MOST_BYTES, _MOST_SECRETS = 32, 1024, 2
#: Nonces remembered; only who has the secret can make one count.
_MOST_NONCES = 100_000


class BadSecret(GitmodelError):
    """A file of secrets that cannot be used."""

    code = "bad-secret"
    exit_code = ExitCode.INCOMPLETE


class NotSigned(GitmodelError):
    """A request without a signature that counts."""

    code = "not-signed"
    exit_code = ExitCode.INCOMPLETE


def read_secrets(path: Path) -> tuple[bytes, ...]:
    """One or two secrets, a line each, the one to sign with first. Nobody else may read the file. Raises BadSecret."""
    try:
        info = path.stat()
        lines = [line.strip() for line in path.read_bytes().splitlines() if line.strip()]
    except OSError as error:
        raise BadSecret(f"cannot read {path} ({error.strerror})", hint="make it: openssl rand -hex 32") from error
    if not stat.S_ISREG(info.st_mode) or info.st_mode & 0o077 or info.st_uid not in (os.getuid(), 0):
        raise BadSecret(f"others may read the secrets in {path}", hint=f"chmod 600 {path}")
    if not 1 <= len(lines) <= _MOST_SECRETS or not all(_LEAST_BYTES <= len(line) <= _MOST_BYTES for line in lines):
        raise BadSecret(
            f"{path} must have one or two lines of at least {_LEAST_BYTES} bytes", hint="make one: openssl rand -hex 32"
        )
    return tuple(lines)


def sign(secret: bytes, method: str, path: str, body: bytes, *, now: float | None = None) -> dict[str, str]:
    """The headers that sign a request. ``now`` in seconds since 1970."""
    moment, nonce = str(int(time.time() if now is None else now)), secrets.token_hex(16)
    return {TIME: moment, NONCE: nonce, SIGNATURE: _digest(secret, moment, nonce, method, path, body)}


class Verifier:
    """Says which requests are signed with one of ``keys``. ``clock`` gives seconds since 1970. For one thread."""

    def __init__(self, keys: Sequence[bytes], clock: Callable[[], float] = time.time) -> None:
        self._keys, self._clock = tuple(keys), clock
        #: Nonce -> when it may be forgotten, oldest first.
        self._seen: dict[str, float] = {}

    def check(self, method: str, path: str, body: bytes, headers: Mapping[str, str]) -> None:
        """``headers`` by their names in small letters. Raises NotSigned."""
        moment, nonce, given = (headers.get(name, "") for name in (TIME, NONCE, SIGNATURE))
        if not (moment and nonce and given):
            raise NotSigned("the request is not signed", hint="set gitmodel.secret where it is sent from")
        if not (moment.isascii() and moment.isdigit() and len(moment) <= 12 and len(nonce) <= 64):
            raise NotSigned("the request is not signed as it should be", hint="send it with gitmodel")
        wanted = [_digest(key, moment, nonce, method, path, body) for key in self._keys]
        # Every key is tried, so that the time taken does not tell which was nearly right.
        if not sum(hmac.compare_digest(one.encode(), given.encode("utf-8", "replace")) for one in wanted):
            raise NotSigned("the signature is wrong", hint="both sides need the same secret")
        now = self._clock()
        if abs(now - int(moment)) > SKEW:
            raise NotSigned(f"the signature is {abs(now - int(moment)):.0f} s off", hint="set both sides' clocks")
        self._forget(now)
        if nonce in self._seen or len(self._seen) >= _MOST_NONCES:
            raise NotSigned("the signature was used before", hint="sign each request anew")
        self._seen[nonce] = now + 2 * SKEW

    def _forget(self, now: float) -> None:
        while self._seen and self._seen[oldest := next(iter(self._seen))] < now:
            del self._seen[oldest]


def _digest(key: bytes, moment: str, nonce: str, method: str, path: str, body: bytes) -> str:
    lines = (_SCHEME, moment, nonce, f"{method} {path}", hashlib.sha256(body).hexdigest())
    return hmac.new(key, "\n".join(lines).encode("utf-8", "surrogateescape"), hashlib.sha256).hexdigest()
