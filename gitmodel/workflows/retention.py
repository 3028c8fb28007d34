"""Which bundles of a history are kept, and why: a pure function of what was read and of a policy."""

from __future__ import annotations

import heapq
import re
from collections.abc import Iterator
from datetime import datetime, timedelta

from msgspec import Struct

from gitmodel.errors import GitmodelError
from gitmodel.history.past import Change, History, Why

_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_AGE = re.compile(r"([0-9]{1,6})([mhdw])")
DEFAULT_LAST, DEFAULT_AGE = 3, "14d"


class InvalidAge(GitmodelError):
    """Text that is no span of time."""

    code = "invalid-age"


class Policy(Struct, frozen=True):
    """Besides what tags, branches and working trees hold: the ``last`` states of each model on each branch, and all that
    was in use less than ``younger`` ago."""

    last: int = DEFAULT_LAST
    younger: timedelta = timedelta(days=14)


def parse_age(text: str) -> timedelta:
    """``90m``, ``12h``, ``14d``, ``2w``, ``0``. Raises InvalidAge."""
    match = _AGE.fullmatch(text)
    if match:
        return timedelta(**{_UNITS[match[2]]: int(match[1])})
    if text == "0":
        return timedelta(0)
    raise InvalidAge(f"'{text[:20]}' is no span of time", hint="write it like 12h, 14d or 2w, or 0 for none")


def kept(past: History, policy: Policy, now: datetime) -> dict[str, str]:
    """By the digest of each lock that is kept, the weightiest reason."""
    reasons: dict[str, str] = {}
    weight = list(Why).index
    for mention in sorted(past.mentions, key=lambda mention: weight(mention.why)):
        reasons.setdefault(mention.digest, mention.why)
    for digest in _last(past, policy.last):
        reasons.setdefault(digest, f"last {policy.last}")
    since = now - policy.younger
    young = [change for change in past.changes if change.date > since]
    # What a young commit replaced was in use until then.
    for digest in [
        *(side for change in young for side in (change.old, change.new)),
        *(digest for date, digest in past.loose if date > since),
    ]:
        if digest:
            reasons.setdefault(digest, "young")
    return reasons


def _last(past: History, count: int) -> set[str]:
    """The newest states of each model on each branch."""
    by_commit: dict[str, list[Change]] = {}
    for change in past.changes:
        by_commit.setdefault(change.commit, []).append(change)
    found: set[str] = set()
    for tip in set(past.branches.values()):
        states: dict[str, set[str]] = {}
        for commit in _newest_first(past, tip):
            for change in by_commit.get(commit, ()):
                known = states.setdefault(change.model, set())
                if change.new and len(known) < count:
                    known.add(change.new)
        found = found.union(*states.values())
    return found


def _newest_first(past: History, tip: str) -> Iterator[str]:
    """A commit and all before it, as ``git log`` goes through them."""
    waiting, seen = [(-past.parents[tip][0].timestamp(), tip)], {tip}
    while waiting:
        _, commit = heapq.heappop(waiting)
        yield commit
        for parent in past.parents[commit][1]:
            if parent not in seen and parent in past.parents:
                seen.add(parent)
                heapq.heappush(waiting, (-past.parents[parent][0].timestamp(), parent))
