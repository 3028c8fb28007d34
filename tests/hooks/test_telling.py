"""gitmodel.hooks.telling: several servers, servers elsewhere, how long a push waits, and what it says meanwhile."""

from __future__ import annotations

import json
import re
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from gitmodel import endpoint, hooks
from gitmodel.endpoint import NoServer
from gitmodel.hooks import telling
from gitmodel.signing import BadSecret
from tests import support
from tests.hooks.test_hooks import pretending, version_of
from tests.serving import production as place
from tests.serving.production import Production, Server, said

LOAD = "/v2/repository/models/fraud/load"


@pytest.fixture
def production(tmp_path: Path) -> Production:
    made = Production.make(tmp_path)
    hooks.install(made.bare, server=True)
    return made


@pytest.fixture
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose path leaves room for a socket's name."""
    return tmp_path_factory.mktemp("s")


def secret(path: Path, *lines: str) -> Path:
    path.write_text("\n".join(lines))
    path.chmod(0o600)
    return path


@pytest.fixture
def notified(production: Production, tmp_path: Path) -> Iterator[tuple[Production, Server, str]]:
    """A server that takes signed notices, as one on another machine would, and its address for them."""
    keys = secret(tmp_path / "server-secret", "n" * 40, "o" * 40)
    with place.serving(production.bare, "--notify", "127.0.0.1:0", "--notify-secret", str(keys)) as server:
        line = server.wait_for(re.compile(r"signed notices are taken on http://\S+").fullmatch)
        yield production, server, line.rpartition(" ")[2]


def test_a_push_option_says_how_long_to_wait(production: Production, short: Path) -> None:
    support.git(production.bare, "config", "gitmodel.wait", "7")
    answer = b'{"versions":[],"serving":null,"aspired":[],"settled":true,"tags":{}}'
    reply = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(answer), answer)
    with pretending(production.bare, short, reply) as asked:
        production.push("-o", "ci.skip", "-o", "gitmodel.wait=3", production.release("fraud@v1.0.0"))
        lines = said(production.push("-o", "gitmodel.wait=soon", production.release("fraud@v1.1.0")))
        production.push(production.release("fraud@v1.2.0"))
    waits = [json.loads(request.partition(b"\r\n\r\n")[2])["parameters"]["wait"] for request in asked]
    limits = (3.0, hooks.PUSH_WAIT, 7.0)
    assert lines[0] == "gitmodel.wait is 'soon', which is no number of seconds: the wait is up to 30 s"
    assert all(limit - 1.5 <= wait <= limit for limit, wait in zip(limits, waits, strict=True))


def test_push_options_are_switched_on_and_off_with_the_hooks(production: Production) -> None:
    assert support.git(production.bare, "config", "receive.advertisePushOptions") == "true"
    hooks.uninstall(production.bare)
    assert support.git(production.bare, "config", "--get", "receive.advertisePushOptions", check=False) == ""


def test_whoever_waits_hears_that_it_goes_on(production: Production, short: Path) -> None:
    with pretending(production.bare, short, None):
        lines = said(production.push("-o", "gitmodel.wait=1", production.release("fraud@v1.0.0")), waiting=True)
    assert lines[0] == "waiting for fraud since 1 s"
    assert "does not answer (no answer in time)" in lines[1]


def test_many_models_share_one_wait(production: Production, short: Path) -> None:
    answer = b'{"versions":[],"serving":null,"aspired":[],"settled":true,"tags":{}}'
    reply = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(answer), answer)
    names = [f"m{number}" for number in range(5)]
    with pretending(production.bare, short, reply) as asked:
        production.push("-o", "gitmodel.wait=0", *(production.release(f"{name}@v1.0.0") for name in names))
        assert len(asked) == 5, "what the server can say at once is heard"
        notice = telling._Notice({key: [] for key in names}, time.monotonic() - telling._AFTERWARDS, None)
        said_late = telling._tell_server(str(short / "a.sock"), notice)
    assert len(asked) == 6
    assert said_late == ["the wait is over before m1, m2, m3 and 1 more; 'gitmodel status' shows what becomes of them"]
    with pretending(production.bare, Path(tempfile.mkdtemp(dir=short)), None):
        tags = [production.release(f"{name}@v1.1.0") for name in names]
        lines = said(production.push("-o", "gitmodel.wait=1", *tags), waiting=True)
    assert lines[0] == "waiting for m0, m1, m2 and 2 more since 1 s"


@pytest.mark.parametrize(("state", "goes_on"), [("AVAILABLE", False), ("LOADING", True), ("END", True)])
def test_a_model_that_is_there_is_not_said_to_be_loading_while_another_is(
    production: Production, short: Path, state: str, goes_on: bool
) -> None:
    tag = production.release("fraud@v1.0.0")
    row = {"version": "v1.0.0", "state": state, "reason": "", "seconds": 0.5, "golden_passed": 4, "golden_cases": 4}
    row["reason"] = "no memory yesterday" if state == "END" else ""
    commit = support.git(production.author, "rev-parse", f"{tag}^{{commit}}")
    answer = {"versions": [row], "serving": "v1.0.0", "aspired": ["v1.0.0"], "settled": False, "tags": {tag: commit}}
    body = json.dumps(answer).encode()
    with pretending(production.bare, short, b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)):
        lines = said(production.push(tag))
    told = {
        "AVAILABLE": "fraud v1.0.0 AVAILABLE in 0.5 s, 4/4 golden cases",
        "LOADING": "fraud v1.0.0 LOADING",
        "END": "fraud v1.0.0 NOT SERVED: no memory yesterday; v1.0.0 goes on serving",
    }
    assert lines == [told[state], *["fraud is still loading; 'gitmodel status' shows how it ends"] * goes_on]


def test_each_of_several_servers_is_told_and_named(production: Production) -> None:
    with place.serving(production.bare) as one, place.serving(production.bare) as other:
        support.git(production.bare, "config", "--add", "gitmodel.server", "/nobody/here.sock")
        support.git(production.bare, "config", "--add", "gitmodel.server", one.admin)  # is known already
        lines = said(production.push(production.release("fraud@v1.0.0")))
        assert {version_of(server) for server in (one, other)} == {"v1.0.0"}
    assert len(lines) == 3
    starts = [f"{server.admin}: fraud v1.0.0 AVAILABLE in " for server in (one, other)]
    for start in (*starts, "the server at /nobody/here.sock does not answer"):
        assert any(line.startswith(start) for line in lines), lines


@pytest.mark.parametrize("key", ["n", "o"])
def test_a_server_elsewhere_is_told_with_a_signature(
    notified: tuple[Production, Server, str], tmp_path: Path, key: str
) -> None:
    production, server, url = notified
    elsewhere = Production(tmp_path / "author", tmp_path / "mirror.git", production.storage)
    support.run("git", "clone", "-q", "--bare", production.bare, elsewhere.bare)
    hooks.install(elsewhere.bare, server=True)
    support.git(elsewhere.bare, "config", "gitmodel.server", url)
    support.git(elsewhere.bare, "config", "gitmodel.secret", str(secret(tmp_path / "secret", key * 40)))
    name = production.release("fraud@v1.0.0")
    support.git(production.author, "push", "-q", "production", "HEAD")
    support.run("git", "-C", production.author, "push", "-q", "--no-verify", production.bare, name)
    support.git(production.author, "remote", "add", "mirror", str(elsewhere.bare))
    pushed = support.run("git", "-C", production.author, "push", "mirror", "HEAD", name)
    (line,) = said(pushed.stderr)
    assert "fraud v1.0.0" in line
    assert version_of(server) == "v1.0.0"


def test_the_pusher_reads_how_weights_that_are_missing_are_brought(production: Production) -> None:
    with place.serving(production.bare):
        name = production.release("fraud@v1.0.0")
        for path in production.storage.rglob("*"):
            if path.is_file():
                path.unlink()
        (production.storage / "files" / "other").write_text("so that it holds something")
        (line,) = said(production.push(name))
    assert line.startswith("fraud v1.0.0 NOT SERVED: ")
    assert line.endswith("or not whole: run 'gitmodel push' where it was saved; nothing serves yet")


def test_a_server_elsewhere_that_has_not_fetched_yet_says_so(
    notified: tuple[Production, Server, str], tmp_path: Path
) -> None:
    """The author pushes to one repository; the server's own is a clone of it that fetches when it likes."""
    production, server, url = notified
    production.push(production.release("fraud@v1.0.0"), production.release("fraud@v1.1.0", scale=2.0))
    hub = tmp_path / "hub.git"
    support.run("git", "clone", "-q", "--bare", production.bare, hub)
    hooks.install(hub, server=True)
    support.git(hub, "config", "gitmodel.server", url)
    support.git(hub, "config", "gitmodel.secret", str(secret(tmp_path / "secret", "n" * 40)))
    support.git(production.author, "remote", "set-url", "production", str(hub))
    absent = "the server does not have {} yet: v1.1.0 serves until it has fetched and looks again"
    assert said(production.push(production.release("fraud@v1.2.0", scale=3.0))) == [absent.format("fraud@v1.2.0")]
    moved = production.tag("fraud#prod#1", "fraud@v1.0.0^{}")
    assert said(production.push(moved)) == [absent.format(moved)]
    support.git(production.bare, "fetch", "-q", str(hub), "refs/tags/*:refs/tags/*")
    (line,) = said(production.push(production.tag("fraud#prod#2", "fraud@v1.0.0^{}")))
    assert line == absent.format("fraud#prod#2").replace("v1.1.0", "v1.0.0"), "it looked, and found what was fetched"
    assert version_of(server) == "v1.0.0"


def test_without_the_right_signature_nothing_is_looked_at(
    notified: tuple[Production, Server, str], tmp_path: Path
) -> None:
    _, server, url = notified
    wrong = secret(tmp_path / "wrong", "w" * 40)
    for key, why in (
        (None, "wants signed requests, and git config gitmodel.secret names no file"),
        (wrong, "the signature is wrong"),
    ):
        with pytest.raises(NoServer, match=why):
            endpoint.request(url, "POST", LOAD, {}, timeout=5, secret=key)
    with pytest.raises(BadSecret):
        endpoint.request(url, "POST", LOAD, {}, timeout=5, secret=tmp_path / "none")
    right = secret(tmp_path / "right", "n" * 40)
    for method, path in (
        ("GET", "/v2"),
        ("POST", "/v2/repository/index"),
        ("GET", LOAD),
        ("POST", "/v2/models/fraud/infer"),
    ):
        with pytest.raises(NoServer, match="404"):
            endpoint.request(url, method, path, {}, timeout=5, secret=right)
    with pytest.raises(NoServer, match="parameters may hold 'wait'"):
        endpoint.request(url, "POST", LOAD, {"parameters": {"file": "/etc/passwd"}}, timeout=5, secret=right)
    assert endpoint.request(url, "POST", LOAD, {"parameters": {"wait": 1}}, timeout=5, secret=right)["serving"] is None
    assert server.ask("POST", LOAD, b"{}").status == 403, "and not on the port for callers, whatever is signed"


@pytest.mark.parametrize(
    "admin", ["ftp://h", "http://", "http://h:x", "http://a@h", "http://h/path", "http://h?x", "://"]
)
def test_what_is_no_address_is_named(admin: str) -> None:
    with pytest.raises(NoServer, match="is no address of a server"):
        endpoint.request(admin, "POST", LOAD, {}, timeout=1)
