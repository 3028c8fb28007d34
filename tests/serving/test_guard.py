"""gitmodel.serving.guard: who the server takes a request for it to be for, and from; and the ids of requests."""

from __future__ import annotations

from typing import Any

import pytest

from gitmodel.serving.guard import Guard
from gitmodel.serving.http import HttpError


def asked(*headers: tuple[str, str], port: int | None = 8000) -> dict[str, Any]:
    return {"headers": [(k.encode(), v.encode("latin-1")) for k, v in headers], "server": ("127.0.0.1", port)}


def check(guard: Guard, scope: dict[str, Any]) -> bytes:
    return guard.check(scope, dict(scope["headers"])) or guard.name()


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:8000", "127.0.0.1:8000", "[::1]:8000", "[::1]"])
def test_on_loopback_it_goes_by_the_names_of_this_machine(host: str) -> None:
    assert check(Guard("127.0.0.1"), asked(("host", host)))


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "", "a:b:c", "[::1", "é"]
)
def test_a_name_that_only_leads_there_is_refused(host: str) -> None:
    guard = Guard("127.0.0.1")
    for _ in range(2):
        with pytest.raises(HttpError, match="--allow-host") as refused:
            check(guard, asked(("host", host)))
        assert refused.value.status == 421
    with pytest.raises(HttpError):
        check(guard, asked())


def test_names_that_were_given_are_those_besides_this_machines() -> None:
    guard = Guard("0.0.0.0", ["Models.example"])
    assert check(guard, asked(("host", "models.example:80")))
    assert check(guard, asked(("host", "localhost")))
    with pytest.raises(HttpError):
        check(guard, asked(("host", "10.0.0.5:80")))


def test_in_a_crowd_only_who_manages_the_server_gets_in() -> None:
    guard, scope = Guard("127.0.0.1"), asked(("host", "localhost"))
    with pytest.raises(HttpError, match="too many connections") as refused:
        guard.check(scope, dict(scope["headers"]), crowded=True)
    assert refused.value.status == 503
    scope = asked(("host", "localhost"), port=None)
    assert guard.check(scope, dict(scope["headers"]), crowded=True) == b""


def test_elsewhere_any_name_will_do_and_on_the_socket_too() -> None:
    assert check(Guard("10.0.0.5"), asked(("host", "anything.example")))
    assert check(Guard("127.0.0.1"), asked(("host", "anything.example"), port=None))
    assert check(Guard("127.0.0.1"), asked(port=None))


def test_what_is_remembered_of_hosts_is_bounded() -> None:
    guard = Guard("10.0.0.5")
    for number in range(3000):
        check(guard, asked(("host", f"h{number}.example")))
    assert len(guard._known) <= 1000


@pytest.mark.parametrize(
    "origin", ["http://evil.example", "null", "", "http://localhost:9000", "http://[", "localhost:8000"]
)
def test_pages_of_other_sites_may_not_ask(origin: str) -> None:
    guard = Guard("127.0.0.1")
    assert check(guard, asked(("host", "localhost:8000"), ("origin", "http://localhost:8000")))
    with pytest.raises(HttpError) as refused:
        check(guard, asked(("host", "localhost:8000"), ("origin", origin)))
    assert refused.value.status == 403


def test_a_request_has_an_id_its_own_if_it_can_be_kept() -> None:
    guard = Guard("127.0.0.1")
    here = ("host", "localhost")
    assert check(guard, asked(here, ("x-request-id", "trace-1/2.3"))) == b"trace-1/2.3"
    made = [
        check(guard, asked(here, *more)) for more in ([], [("x-request-id", "a b")], [("x-request-id", "x" * 129)], [])
    ]
    assert len(set(made)) == len(made)
    assert all(name.isascii() and b" " not in name for name in made)
    assert check(Guard("127.0.0.1"), asked(here)) not in made
