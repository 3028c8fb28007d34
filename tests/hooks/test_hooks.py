"""gitmodel.hooks and the shims in hooks/: real Git calls them, real servers are told, and no push or tag ever fails for it."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from gitmodel import hooks, resources
from gitmodel.endpoint import Endpoint, announce
from gitmodel.git import NotARepository
from gitmodel.hooks import WrongRepository
from tests import support
from tests.serving import production as place
from tests.serving.production import Production, Server, infer, rows, said

ALL = (*hooks.LOCAL, *hooks.SERVER)
#: Those that start no Python themselves.
PLAIN = ("reference-transaction", "update")


@pytest.fixture
def production(tmp_path: Path) -> Production:
    return Production.make(tmp_path)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Production, Server]]:
    """A bare repository with its hook and a server, shared by tests that each push models of their own."""
    made = Production.make(tmp_path_factory.mktemp("served"))
    hooks.install(made.bare, server=True)
    made.push()
    with place.serving(made.bare) as server:
        yield made, server


def states(path: Path) -> dict[str, str]:
    return {item.name: item.state for item in hooks.status(path)}


def version_of(server: Server, model: str = "fraud") -> str | None:
    answer = server.ask("POST", f"/v2/models/{model}/infer", infer(rows(1)))
    return answer.who[0]


def tag(repo: Path, name: str, *more: str) -> list[str]:
    """A plain annotated ``git tag``; returns gitmodel's lines."""
    done = support.run("git", "-C", repo, "tag", "-a", "-m", name, *more, name)
    assert done.returncode == 0, done.stderr
    return lines_of(done.stderr)


def lines_of(stderr: str) -> list[str]:
    return [line.removeprefix("gitmodel: ") for line in stderr.splitlines() if line.startswith("gitmodel: ")]


def script(path: Path, body: str, *, mode: int = 0o755) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(mode)
    return path


def record_calls(repo: Path, tmp_path: Path) -> Path:
    """Puts a script that notes each call in the place of the installed hooks' interpreter; returns its notes."""
    calls = tmp_path / "calls"
    fake = script(tmp_path / "python", f"{{ echo \"$@\"; cat; }} >>'{calls}'")
    for name in ALL:
        path = repo / "hooks" / name
        if path.exists():
            text = path.read_text()
            assert sys.executable in text or name in PLAIN
            path.write_text(text.replace(sys.executable, str(fake)))
    return calls


# Installing


def test_hooks_are_installed_reported_and_removed(production: Production) -> None:
    for repo, server, names in ((production.author, False, hooks.LOCAL), (production.bare, True, hooks.SERVER)):
        assert states(repo) == dict.fromkeys(names, "absent")
        found = hooks.install(repo, server=server)
        assert [(item.name, item.state, item.chained) for item in found] == [(n, "installed", False) for n in names]
        for item in found:
            assert stat.S_IMODE(item.path.stat().st_mode) == 0o755
            assert sys.executable in item.path.read_text() or item.name in PLAIN
        before = {item.path: item.path.read_bytes() for item in found}
        assert hooks.install(repo, server=server) == found
        assert {path: path.read_bytes() for path in before} == before
        assert {item.state for item in hooks.uninstall(repo)} == {"absent"}
        assert not any(path.exists() for path in before)
        assert {item.state for item in hooks.uninstall(repo)} == {"absent"}


def test_shims_are_short_and_plain_sh() -> None:
    for name in ALL:
        path = resources.hooks_dir() / name
        text = path.read_text()
        assert text.startswith("#!/bin/sh\n# gitmodel hook: ")
        assert len(text.splitlines()) < 30
        assert subprocess.run(["sh", "-n", str(path)], check=False).returncode == 0


@pytest.mark.parametrize("server", [False, True])
def test_each_kind_of_hook_has_its_kind_of_repository(production: Production, server: bool) -> None:
    wrong = production.author if server else production.bare
    with pytest.raises(WrongRepository) as caught:
        hooks.install(wrong, server=server)
    assert str(wrong) in caught.value.message
    assert "--server" in caught.value.hint
    assert set(states(wrong).values()) == {"absent"}
    with pytest.raises(NotARepository):
        hooks.install(production.storage, server=server)


def test_a_hook_that_was_there_is_kept_and_put_back(production: Production) -> None:
    folder = production.author / ".git" / "hooks"
    mine = script(folder / "reference-transaction", "exit 0 # mine")
    text = mine.read_text()
    assert states(production.author)["reference-transaction"] == "foreign"
    found = {item.name: item for item in hooks.install(production.author)}
    assert (found["reference-transaction"].state, found["reference-transaction"].chained) == ("installed", True)
    assert (folder / "reference-transaction.user").read_text() == text
    hooks.install(production.author)
    assert (folder / "reference-transaction.user").read_text() == text
    assert {item.name: item.state for item in hooks.uninstall(production.author)} == {
        "reference-transaction": "foreign",
        "post-tag": "absent",
        "pre-push": "absent",
    }
    assert mine.read_text() == text
    assert not (folder / "reference-transaction.user").exists()


def test_two_foreign_hooks_in_one_place_are_left_to_the_user(production: Production) -> None:
    folder = production.bare / "hooks"
    script(folder / "post-receive", "exit 0 # new")
    script(folder / "post-receive.user", "exit 0 # old")
    with pytest.raises(WrongRepository, match=r"post-receive\.user is in the way") as caught:
        hooks.install(production.bare, server=True)
    assert "merge it" in caught.value.hint
    assert "# new" in (folder / "post-receive").read_text()
    assert "# old" in (folder / "post-receive.user").read_text()


def test_a_hook_of_another_version_or_without_its_bit_is_outdated(production: Production) -> None:
    _, item = hooks.install(production.bare, server=True)
    item.path.chmod(0o644)
    assert states(production.bare) == {"update": "installed", "post-receive": "outdated"}
    hooks.install(production.bare, server=True)
    assert states(production.bare) == {"update": "installed", "post-receive": "installed"}
    item.path.write_text(item.path.read_text().replace(sys.executable, "/gone/python"))
    assert states(production.bare) == {"update": "installed", "post-receive": "outdated"}
    hooks.install(production.bare, server=True)
    assert states(production.bare) == {"update": "installed", "post-receive": "installed"}
    assert not item.path.with_name("post-receive.user").exists()


def test_core_hookspath_is_respected(production: Production, tmp_path: Path) -> None:
    elsewhere = tmp_path / "team hooks"
    support.git(production.author, "config", "core.hooksPath", str(elsewhere))
    hooks.install(production.author)
    assert sorted(path.name for path in elsewhere.iterdir()) == sorted(hooks.LOCAL)
    assert not (production.author / ".git" / "hooks" / "post-tag").exists()
    production.save(support.linear_model())
    with place.serving(production.author) as server:
        *_, line = tag(production.author, "fraud@v1.0.0")
        assert line.startswith("fraud v1.0.0 AVAILABLE in ")
        assert version_of(server) == "v1.0.0"


@pytest.mark.parametrize("path", ["/dev/null", "/dev/null/hooks"])
def test_a_hookspath_that_is_no_folder_is_named(production: Production, path: str) -> None:
    support.git(production.author, "config", "core.hooksPath", path)
    with pytest.raises(WrongRepository, match=f"^core.hooksPath points at no folder .{path}"):
        hooks.install(production.author)
    assert set(states(production.author).values()) == {"absent"}


def test_a_relative_hookspath_is_one_of_the_working_tree(production: Production) -> None:
    support.git(production.author, "config", "core.hooksPath", "ci/hooks")
    hooks.install(production.author)
    calls = record_calls(production.author / "ci", production.storage.parent)
    tag(production.author, "fraud@v1.0.0")
    assert "hook post-tag" in calls.read_text()


# A push to a bare repository


def test_the_pusher_reads_what_came_of_a_version(served: tuple[Production, Server]) -> None:
    production, server = served
    pushed = production.push(production.release("good@v1.0.0"))
    (line,) = said(pushed)
    assert line.startswith("good v1.0.0 AVAILABLE in ")
    assert line.endswith(" s, 4/4 golden cases")
    assert f"remote: gitmodel: {line}" in pushed
    assert version_of(server, "good") == "v1.0.0"


def test_the_pusher_reads_why_a_version_is_not_served_and_what_is(served: tuple[Production, Server]) -> None:
    production, server = served
    (line,) = said(production.push(production.release("bad@v1.0.0", broken=True)))
    assert line.startswith("bad v1.0.0 NOT SERVED: 4 of 4 golden cases fail (case cases/0: ")
    assert line.endswith("; nothing serves yet")
    production.push(production.release("bad@v1.1.0"))
    (line,) = said(production.push(production.release("bad@v1.2.0", scale=2.0, broken=True)))
    assert line.startswith("bad v1.2.0 NOT SERVED: ")
    assert line.endswith("; v1.1.0 goes on serving")
    assert version_of(server, "bad") == "v1.1.0"


def test_a_version_without_golden_cases_says_so(served: tuple[Production, Server]) -> None:
    production, _ = served
    production.save(support.linear_model(), "bare")
    (line,) = said(production.push(production.tag("bare@v1.0.0")))
    assert line.startswith("bare v1.0.0 AVAILABLE in ")
    assert line.endswith(" s, no golden cases recorded")


def test_a_version_the_policy_passes_over_is_said_to_be_here(served: tuple[Production, Server]) -> None:
    production, _ = served
    production.push(production.release("other@v1.1.0"))
    (line,) = said(production.push(production.release("other@v1.0.0", scale=2.0)))
    assert line == "other v1.0.0 is here; v1.1.0 serves, as the server's policy has it"
    (line,) = said(production.push(production.release("early@v1.0.0-rc.1")))
    assert line == "early v1.0.0-rc.1 is here; nothing serves, as the server's policy has it"


def test_a_stage_that_moves_says_what_it_brought(served: tuple[Production, Server]) -> None:
    production, server = served
    production.push(production.release("staged@v1.0.0"), production.release("staged@v1.1.0", scale=2.0))
    (line,) = said(production.push(production.tag("staged#prod#1", "staged@v1.0.0^{}")))
    assert line.startswith("staged v1.0.0 AVAILABLE in ")
    assert version_of(server, "staged") == "v1.0.0"


def test_a_version_that_is_withdrawn_goes(served: tuple[Production, Server]) -> None:
    production, server = served
    production.push(production.release("gone@v1.0.0"), production.release("gone@v1.1.0", scale=2.0))
    lines = said(production.push(production.tag("gone@v1.1.0!")))
    assert lines == ["gone v1.1.0 withdrawn; v1.0.0 serves, as the server's policy has it"]
    assert version_of(server, "gone") == "v1.0.0"
    lines = said(production.push(production.tag("gone@v1.0.0!")))
    assert lines == ["gone v1.0.0 withdrawn; nothing serves, as the server's policy has it"]


def test_a_version_that_is_withdrawn_goes_on_while_the_one_before_does_not_load(
    served: tuple[Production, Server],
) -> None:
    production, server = served
    production.push(production.release("stays@v1.0.0", broken=True), production.release("stays@v1.1.0", scale=2.0))
    failed, withdrawn = said(production.push(production.tag("stays@v1.1.0!")))
    assert failed.startswith("stays v1.0.0 NOT SERVED: ")
    assert withdrawn == "stays v1.1.0 withdrawn; v1.1.0 goes on serving until another does, or the server is restarted"
    assert version_of(server, "stays") == "v1.1.0"


def test_a_stage_that_the_server_does_not_follow_is_said_to_have_moved(served: tuple[Production, Server]) -> None:
    production, _ = served
    production.push(production.release("aside@v1.0.0"), production.release("aside@v1.1.0", scale=2.0))
    (line,) = said(production.push(production.tag("aside#staging#1", "aside@v1.0.0^{}")))
    assert line == "aside#staging is on v1.0.0 now; v1.1.0 serves, as the server's policy has it"
    moves = [production.tag(f"aside#staging#{number}", f"aside@v1.{number % 2}.0^{{}}") for number in (2, 3, 4)]
    assert said(production.push(*moves)) == [line], "only the newest of several moves counts"
    lines = said(production.push(production.tag("aside#staging!#5", "aside@v1.0.0^{}")))
    assert lines == ["aside#staging withdrawn; v1.1.0 serves, as the server's policy has it"]


def test_several_models_in_one_push_get_a_line_each(served: tuple[Production, Server]) -> None:
    production, _ = served
    tags = [production.release("one@v1.0.0"), production.release("two@v1.0.0", broken=True)]
    lines = said(production.push(*tags))
    assert [line.partition(" in ")[0].partition(":")[0] for line in lines] == [
        "one v1.0.0 AVAILABLE",
        "two v1.0.0 NOT SERVED",
    ]


def test_a_push_that_may_not_wait_says_that_it_goes_on(served: tuple[Production, Server]) -> None:
    production, server = served
    support.git(production.bare, "config", "gitmodel.wait", "0")
    try:
        lines = said(production.push(production.release("slow@v1.0.0")))
    finally:
        support.git(production.bare, "config", "--unset", "gitmodel.wait")
    assert lines[-1] == "slow is still loading; 'gitmodel status' shows how it ends"
    server.look("slow")
    assert version_of(server, "slow") == "v1.0.0"


def test_a_release_tag_without_its_model_is_named(served: tuple[Production, Server]) -> None:
    production, _ = served
    lines = said(production.push(production.tag("stray@v1.0.0")))
    assert lines[0] == "the commit of stray@v1.0.0 has no models/stray: nothing to serve"


def test_a_stage_without_a_counter_is_told_and_a_model_of_another_folder_is_not(
    served: tuple[Production, Server],
) -> None:
    production, _ = served
    production.push(production.release("plain@v1.0.0"))
    (line,) = said(production.push(production.tag("plain#prod")))
    assert line.startswith("plain v1.0.0 AVAILABLE in ")
    assert said(production.push(production.tag("services=plain@v1.1.0"))) == []


def test_a_push_of_anything_else_says_nothing(served: tuple[Production, Server]) -> None:
    production, _ = served
    support.git(production.author, "commit", "-q", "--allow-empty", "-m", "only a commit")
    assert said(production.push()) == []
    support.git(production.author, "tag", "wip")
    support.git(production.author, "branch", "fraud@v1")
    assert said(production.push("wip", production.tag("release-1"), "refs/heads/fraud@v1")) == []
    assert said(production.push(":refs/tags/wip")) == []


@pytest.mark.parametrize(
    "name",
    ["fraud@v1;id", "`touch x`@v1.0.0", "$(touch${IFS}x)@v1.0.0", "a'b\"c@v1.0.0", "fraud@v1.0.0;touch${IFS}x",
     "fraud@v1.0.0|id", "fraud@v1.0.0&id", "fraud#$(id)", "-@v1.0.0", "HEAD@v1.0.0$", "%s%n@v1.0.0"],
)  # fmt: skip
def test_hostile_names_do_nothing(served: tuple[Production, Server], name: str) -> None:
    production, _ = served
    ref = f"refs/tags/{name}"
    head = support.git(production.author, "rev-parse", "HEAD")
    if support.run("git", "check-ref-format", ref).returncode:
        ref = f"refs/tags/{name.replace('touch x', 'touch${IFS}x')}"
    support.git(production.author, "update-ref", ref, head)
    assert said(production.push(f"{ref}:{ref}")) == []
    assert not list(production.bare.rglob("x"))
    assert not list(production.author.rglob("x"))


def test_a_name_that_is_no_text_hides_no_other(
    served: tuple[Production, Server], monkeypatch: pytest.MonkeyPatch
) -> None:
    production, _ = served
    name = production.release("beside@v1.0.0")
    strange = b"refs/tags/\xff\xfe@v1.0.0"
    author = os.fsencode(production.author)
    subprocess.run([b"git", b"-C", author, b"update-ref", strange, b"HEAD"], check=True)
    # A machine whose locale is not C decodes strictly.
    monkeypatch.setenv("PYTHONIOENCODING", "utf-8:strict")
    done = subprocess.run(
        [b"git", b"-C", author, b"push", b"-q", b"production", b"HEAD", name.encode(), strange],
        capture_output=True, check=True,
    )  # fmt: skip
    assert b"gitmodel: beside v1.0.0 AVAILABLE in " in done.stderr


def test_without_a_server_the_push_says_so(production: Production) -> None:
    hooks.install(production.bare, server=True)
    name = production.release("fraud@v1.0.0")
    assert said(production.push(name)) == ["no server is running here; the next one will serve what was pushed"]
    assert support.git(production.bare, "tag") == name


def test_what_a_dead_server_left_is_swept_by_the_next_push(production: Production) -> None:
    hooks.install(production.bare, server=True)
    server = place.start(production.bare)
    server.kill()
    left = production.bare / "gitmodel" / "servers" / f"{server.pid}.json"
    assert left.exists()
    (line,) = said(production.push(production.release("fraud@v1.0.0")))
    assert line.startswith("no server is running here")
    assert not left.exists()
    assert not Path(server.admin).exists()


@contextlib.contextmanager
def pretending(repo: Path, folder: Path, answer: bytes | None) -> Iterator[list[bytes]]:
    """A process that announces itself as a server of ``repo`` and gives this answer, or never any."""
    asked: list[bytes] = []
    admin = folder / "a.sock"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(admin))
        listener.listen()
        listener.settimeout(0.05)
        announced = announce(repo / "gitmodel", Endpoint(os.getpid(), "http://127.0.0.1:9", str(admin)))
        enough = threading.Event()

        def run() -> None:
            held = []
            while not enough.is_set():
                with contextlib.suppress(TimeoutError):
                    held.append(listener.accept()[0])
                    held[-1].settimeout(place.PATIENCE)
                    asked.append(place.read_request(held[-1]))
                    if answer is not None:
                        held[-1].sendall(answer)
                        held[-1].close()
            for connection in held:
                connection.close()

        thread = threading.Thread(target=run)
        thread.start()
        try:
            yield asked
        finally:
            enough.set()
            thread.join(place.PATIENCE)
            announced.unlink(missing_ok=True)


@pytest.fixture
def short(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose path leaves room for a socket's name."""
    return tmp_path_factory.mktemp("s")


def test_a_server_that_hangs_is_asked_once_and_not_for_long(production: Production, short: Path) -> None:
    hooks.install(production.bare, server=True)
    support.git(production.bare, "config", "gitmodel.wait", "0")
    tags = [production.release("fraud@v1.0.0"), production.release("spam@v1.0.0")]
    with pretending(production.bare, short, None) as asked:
        *_, line = said(production.push(*tags))
    assert "does not answer (no answer in time)" in line
    assert len(asked) == 1
    assert support.git(production.bare, "tag").split() == tags


@pytest.mark.parametrize("body", [b"[]", b"{}", b"null", b"not JSON", b'{"versions": 1}'])
def test_a_server_that_speaks_another_language_fails_no_push(production: Production, short: Path, body: bytes) -> None:
    hooks.install(production.bare, server=True)
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    name = production.release("fraud@v1.0.0")
    with pretending(production.bare, short, answer):
        done = production.try_push(name)
    assert done.returncode == 0
    (line,) = said(done.stderr)
    assert "server" in line
    assert "internal" not in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("text", "wait"), [("0", 0.0), ("2.5", 2.5), ("-1", 0.0), ("soon", None), ("9999", 600.0), ("nan", None)]
)
def test_the_wait_is_what_git_config_says_within_reason(
    production: Production, short: Path, text: str, wait: float | None
) -> None:
    from gitmodel.git import Repository

    support.git(production.bare, "config", "gitmodel.wait", text)
    production.push(production.release("fraud@v1.0.0"))
    head = support.git(production.bare, "rev-parse", "fraud@v1.0.0")
    commit = support.git(production.bare, "rev-parse", "fraud@v1.0.0^{}")
    answer = (
        b'{"versions":[],"serving":null,"aspired":[],"settled":true,"tags":{"fraud@v1.0.0":"%s"}}' % commit.encode()
    )
    reply = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(answer), answer)
    with pretending(production.bare, short, reply) as asked:
        repo = Repository.open(production.bare)
        heard: list[str] = []
        hooks.after_receive(repo, [f"{'0' * 40} {head} refs/tags/fraud@v1.0.0\n"], heard.append)
        repo.close()
    *refused, line = heard
    assert line == "fraud v1.0.0 is here; nothing serves, as the server's policy has it"
    no_number = f"gitmodel.wait is '{text}', which is no number of seconds: the wait is up to 30 s"
    assert refused == ([no_number] if wait is None else [])
    sent = float(asked[0].rpartition(b'"wait": ')[2].rstrip(b"}"))
    limit = hooks.PUSH_WAIT if wait is None else wait
    assert limit - 1 <= sent <= limit


def test_an_interpreter_that_is_gone_is_told_and_the_push_is_done(production: Production) -> None:
    hooks.install(production.bare, server=True)
    path = production.bare / "hooks" / "post-receive"
    path.write_text(path.read_text().replace(sys.executable, "/gone/python"))
    (line,) = said(production.push(production.release("fraud@v1.0.0")))
    assert "/gone/python is gone" in line
    assert "hooks install --server" in line
    assert support.git(production.bare, "tag") == "fraud@v1.0.0"


def test_a_foreign_post_receive_gets_the_same_and_may_fail(production: Production, tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    script(production.bare / "hooks" / "post-receive", f"{{ echo \"args: $*\"; cat; }} >>'{seen}'; echo mine; exit 1")
    hooks.install(production.bare, server=True)
    calls = record_calls(production.bare, tmp_path)
    name = production.release("fraud@v1.0.0")
    pushed = production.push(name)
    assert "remote: mine" in pushed
    head = support.git(production.author, "rev-parse", "HEAD")
    object_id = support.git(production.author, "rev-parse", name)
    lines = [f"{'0' * 40} {head} refs/heads/main", f"{'0' * 40} {object_id} refs/tags/{name}"]
    assert seen.read_text().splitlines() == ["args: ", *lines]
    assert calls.read_text().splitlines() == ["-P -m gitmodel hook post-receive", *lines]


def test_a_foreign_hook_that_may_not_run_is_not_run(production: Production) -> None:
    script(production.bare / "hooks" / "post-receive", "echo mine", mode=0o644)
    hooks.install(production.bare, server=True)
    assert "mine" not in production.push()


# A plain tag in a working repository


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Production, Server]]:
    """A working repository with its hooks and a server, shared by tests that each tag models of their own."""
    made = Production.make(tmp_path_factory.mktemp("local"))
    hooks.install(made.author)
    with place.serving(made.author) as server:
        yield made, server


def test_a_plain_annotated_tag_tells_the_local_server(local: tuple[Production, Server]) -> None:
    production, server = local
    production.save(support.linear_model(), "fraud")
    (line,) = tag(production.author, "fraud@v1.0.0")
    assert line.startswith("fraud v1.0.0 AVAILABLE in ")
    production.save(support.linear_model(scale=2.0), "fraud")
    (line,) = tag(production.author, "fraud@v1.1.0")
    assert line.startswith("fraud v1.1.0 AVAILABLE in ")
    assert version_of(server) == "v1.1.0"
    (line,) = tag(production.author, "fraud#prod#1", "--force")
    assert line.startswith("fraud v1.1.0 AVAILABLE in ")


def test_it_does_so_from_a_subfolder_a_linked_worktree_and_from_elsewhere(local: tuple[Production, Server]) -> None:
    production, server = local
    production.save(support.linear_model(), "places")
    worktree = production.author.parent / "linked worktree"
    support.git(production.author, "worktree", "add", "-q", str(worktree), "--detach")
    git_dir = ("--git-dir", str(production.author / ".git"))
    ways = (("-C", str(production.author / "models")), ("-C", str(worktree)), git_dir)
    for patch, how in enumerate(ways):
        name = f"places@v1.0.{patch}"
        done = support.run("git", *how, "tag", "-a", "-m", name, name, cwd=production.storage)
        (line,) = lines_of(done.stderr)
        assert line.startswith(f"places v1.0.{patch} AVAILABLE in ")
        assert version_of(server, "places") == f"v1.0.{patch}"


def test_a_broken_version_is_told_where_it_was_tagged(local: tuple[Production, Server]) -> None:
    production, _ = local
    support.git(production.author, "config", "core.hooksPath", "/nowhere")
    production.release("broken@v1.0.0", broken=True)
    support.git(production.author, "config", "--unset", "core.hooksPath")
    (line,) = tag(production.author, "broken@v1.0.1")
    assert line.startswith("broken v1.0.1 NOT SERVED: 4 of 4 golden cases fail")


def test_housekeeping_changes_nothing_and_tells_nothing_old(production: Production) -> None:
    production.save(support.linear_model())
    production.tag("fraud@v1.0.0")
    production.tag("fraud@v1.1.0")
    hooks.install(production.author)
    with place.serving(production.author) as server:
        for command in (["pack-refs", "--all"], ["gc", "-q", "--prune=now"]):
            done = support.run("git", "-C", production.author, *command)
            assert done.returncode == 0, done.stderr
            assert not [line for line in lines_of(done.stderr) if "v1.0.0" in line]
            assert version_of(server) == "v1.1.0"
        assert support.git(production.author, "tag").split() == ["fraud@v1.0.0", "fraud@v1.1.0"]
        assert len([line for line in server.lines if line.endswith("LOADING")]) == 1


def test_packing_many_tags_starts_python_once_at_most(production: Production, tmp_path: Path) -> None:
    for number in range(5):
        production.tag(f"fraud@v1.{number}.0")
    hooks.install(production.author)
    calls = record_calls(production.author / ".git", tmp_path)
    support.git(production.author, "pack-refs", "--all")
    assert len(support.git(production.author, "tag").split()) == 5
    started = calls.read_text() if calls.exists() else ""
    assert started.count("-m gitmodel") <= 1


def test_a_configured_server_elsewhere_is_told_too(production: Production) -> None:
    production.push(production.release("fraud@v1.0.0"))
    hooks.install(production.author)
    with place.serving(production.bare) as server:
        support.git(production.author, "config", "--add", "gitmodel.server", server.admin)
        support.git(production.author, "config", "--add", "gitmodel.server", "/nobody/here.sock")
        lines = tag(production.author, "fraud@v1.1.0")
    assert len(lines) == 2
    absent = "the server does not have fraud@v1.1.0 yet: v1.0.0 serves until it has fetched and looks again"
    assert f"{server.admin}: {absent}" in lines
    assert any(line.startswith("the server at /nobody/here.sock does not answer") for line in lines)


def test_without_a_server_a_tag_is_a_tag(production: Production) -> None:
    hooks.install(production.author)
    production.save(support.linear_model())
    assert tag(production.author, "fraud@v1.0.0") == []
    assert support.git(production.author, "tag") == "fraud@v1.0.0"


def test_a_local_server_that_hangs_fails_no_tag(production: Production, short: Path) -> None:
    hooks.install(production.author)
    support.git(production.author, "config", "gitmodel.wait", "0")
    with pretending(production.author / ".git", short, None):
        *_, line = tag(production.author, "fraud@v1.0.0")
    assert "no answer in time" in line
    assert support.git(production.author, "tag") == "fraud@v1.0.0"


def test_only_release_and_stage_tags_start_python(production: Production, tmp_path: Path) -> None:
    hooks.install(production.author)
    calls = record_calls(production.author / ".git", tmp_path)
    repo = production.author

    def git(*args: str) -> None:
        support.git(repo, *args)

    git("commit", "-q", "--allow-empty", "-m", "a commit")
    git("commit", "-q", "--allow-empty", "--amend", "-m", "another")
    git("branch", "fraud@v1.0.0")
    git("checkout", "-q", "-b", "topic")
    git("tag", "wip")
    git("tag", "v1.0.0")
    git("tag", "-a", "-m", "x", "release-1")
    git("tag", "-a", "-m", "x", "fraud@latest")
    git("tag", "-d", "wip")
    git("notes", "add", "-m", "a note")
    git("update-ref", "refs/remotes/production/fraud@v1", "HEAD")
    git("push", "-q", "production", "HEAD")
    git("fetch", "-q", "production")
    (repo / "file").write_text("x")
    git("add", "file")
    git("stash", "-q")
    git("merge", "-q", "main")
    git("reset", "-q", "--hard", "HEAD")
    assert not calls.exists()
    git("tag", "-a", "-m", "x", "fraud@v1.0.0", "HEAD")
    git("tag", "-a", "-m", "x", "fraud#prod#1", "HEAD")
    noted = calls.read_text().splitlines()
    assert [line for line in noted if line.startswith("-P")] == ["-P -m gitmodel hook post-tag"] * 2
    assert [line.split()[2] for line in noted if not line.startswith("-P")] == [
        "refs/tags/fraud@v1.0.0",
        "refs/tags/fraud#prod#1",
    ]


def test_a_push_of_branches_starts_no_python(production: Production, tmp_path: Path) -> None:
    hooks.install(production.bare, server=True)
    calls = record_calls(production.bare, tmp_path)
    support.git(production.author, "branch", "fraud@v1.0.0")
    production.push("refs/heads/fraud@v1.0.0")
    assert not calls.exists()


def test_a_tag_that_is_refused_tells_nobody(production: Production, tmp_path: Path) -> None:
    script(production.author / ".git" / "hooks" / "reference-transaction", '[ "$1" != prepared ]')
    hooks.install(production.author)
    calls = record_calls(production.author / ".git", tmp_path)
    done = support.run("git", "-C", production.author, "tag", "-a", "-m", "x", "fraud@v1.0.0")
    assert done.returncode != 0
    assert support.git(production.author, "tag") == ""
    assert not calls.exists()


def test_a_foreign_reference_transaction_gets_the_same_each_time(production: Production, tmp_path: Path) -> None:
    seen = tmp_path / "seen"
    repo = production.author
    script(repo / ".git" / "hooks" / "reference-transaction", f"{{ echo \"$*\"; cat; }} >>'{seen}'")
    support.git(repo, "tag", "-a", "-m", "x", "fraud@v1.0.0")
    alone = seen.read_text()
    support.git(repo, "tag", "-d", "fraud@v1.0.0")
    seen.unlink()
    hooks.install(repo)
    record_calls(repo / ".git", tmp_path)
    date = support.git(repo, "log", "-1", "--format=%ct")
    assert date
    support.git(repo, "tag", "-a", "-m", "x", "fraud@v1.0.0")

    def shape(text: str) -> list[list[str]]:
        """The lines with the tag's own id, which its date decides, left out."""
        return [line.split()[::2] for line in text.splitlines()]

    assert shape(seen.read_text()) == shape(alone)
    assert seen.read_text().splitlines()[0] == "prepared"
    assert "refs/tags/fraud@v1.0.0" in alone


def test_local_hooks_without_their_interpreter_or_without_post_tag_fail_nothing(production: Production) -> None:
    hooks.install(production.author)
    folder = production.author / ".git" / "hooks"
    post_tag = folder / "post-tag"
    post_tag.write_text(post_tag.read_text().replace(sys.executable, "/gone/python"))
    assert tag(production.author, "fraud@v1.0.0") == []
    post_tag.unlink()
    done = support.run("git", "-C", production.author, "tag", "-a", "-m", "x", "fraud@v1.1.0")
    assert done.returncode == 0
    assert support.git(production.author, "tag").split() == ["fraud@v1.0.0", "fraud@v1.1.0"]


def test_a_path_with_blanks_and_quotes_is_a_path_like_any_other(tmp_path: Path) -> None:
    folder = tmp_path / 'it\'s a "path" $HOME'
    folder.mkdir()
    made = Production.make(folder)
    hooks.install(made.bare, server=True)
    hooks.install(made.author)
    (line,) = said(made.push(made.release("fraud@v1.0.0")))
    assert line.startswith("no server is running here")


def test_an_interpreter_with_a_quote_in_its_path_is_found(
    production: Production, monkeypatch: pytest.MonkeyPatch
) -> None:
    odd = production.storage.parent / "it's here" / "python"
    odd.parent.mkdir()
    shutil.copy(script(production.storage.parent / "plain", "echo called >&2; cat >/dev/null"), odd)
    monkeypatch.setattr(sys, "executable", str(odd))
    hooks.install(production.author)
    done = support.run("git", "-C", production.author, "tag", "-a", "-m", "x", "fraud@v1.0.0")
    assert done.stderr == "called\n"
