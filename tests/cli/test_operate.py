"""gitmodel.cli.operate: serve, status and hooks as a person or a script meets them: words, formats and exit codes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from gitmodel import cli
from gitmodel.endpoint import Endpoint, announce
from tests import support
from tests.serving import production as place
from tests.serving.production import Production, Server


@dataclass(frozen=True)
class Said:
    code: int
    out: str
    err: str


Runs = Callable[..., Said]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Runs:
    """Runs the command line in this process."""

    def call(*args: str | Path) -> Said:
        monkeypatch.setattr(sys, "argv", ["gitmodel", *map(str, args)])
        capsys.readouterr()
        try:
            cli.main()
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        out, err = capsys.readouterr()
        return Said(code, out, err)

    return call


@pytest.fixture
def production(tmp_path: Path) -> Production:
    return Production.make(tmp_path)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Production, Server]]:
    """A server of one good model with two versions and one that is broken."""
    made = Production.make(tmp_path_factory.mktemp("served"))
    tags = [made.release("fraud@v1.0.0"), made.tag("fraud#prod#1"), made.release("spam@v1.0.0", broken=True)]
    made.save(support.linear_model(), "plain")
    made.push(*tags, made.tag("plain@v1.0.0"))
    with place.serving(made.bare) as server:
        yield made, server


def table(text: str) -> list[list[str]]:
    return [re.split(r"  +", line) for line in text.splitlines()]


# status


def test_status_shows_servers_and_versions(served: tuple[Production, Server], run: Runs) -> None:
    production, server = served
    said = run("status", "--repo", production.bare)
    assert (said.code, said.err) == (0, "")
    first, header, *rows = said.out.splitlines()
    assert first == f"{server.url}  pid {server.pid}  not ready  management: {server.admin}"
    assert header.split() == ["MODEL", "VERSION", "STATE", "STAGES", "GOLDEN", "COMMIT", "REASON"]
    fraud, plain, spam = table("\n".join(rows))
    commit = support.git(production.bare, "rev-parse", "fraud@v1.0.0^{commit}")[:10]
    assert fraud == ["fraud", "v1.0.0", "AVAILABLE", "prod", "4/4", commit, "-"]
    assert plain[:5] == ["plain", "v1.0.0", "AVAILABLE", "-", "-"]
    assert spam[:3] == ["spam", "v1.0.0", "END"]
    assert spam[-1].startswith("4 of 4 golden cases fail")


def test_status_for_programs_is_one_document_on_stdout(served: tuple[Production, Server], run: Runs) -> None:
    production, server = served
    said = run("status", "--format", "json", "-C", production.bare)
    assert (said.code, said.err) == (0, "")
    (found,) = json.loads(said.out)
    assert (found["pid"], found["url"], found["admin"], found["ready"]) == (server.pid, server.url, server.admin, False)
    by_model = {row["model"]: row for row in found["versions"]}
    assert (by_model["fraud"]["state"], by_model["fraud"]["stages"]) == ("AVAILABLE", ["prod"])
    assert by_model["spam"]["reason"].startswith("4 of 4 golden cases fail")


def test_versions_are_listed_highest_first_whatever_came_when(production: Production, run: Runs) -> None:
    wanted = ["v1.10.0", "v1.9.0", "v1.2.0"]
    for version in ("v1.9.0", "v1.10.0", "v1.2.0"):
        production.push(production.release(f"fraud@{version}"))
    with place.serving(production.bare, "--follow", "all") as server:
        shown = run("status", "-C", production.bare).out.splitlines()[2:]
        assert [line.split()[1] for line in shown] == wanted
        (found,) = json.loads(run("status", "-C", production.bare, "--format", "json").out)
        assert [row["version"] for row in found["versions"]] == wanted
        page = server.ask("GET", "/").body.decode()
        assert re.findall(r"<td>(v1\.[0-9]+\.0)</td>", page) == wanted
        index = server.ask("POST", "/v2/repository/index", b"{}").json
        assert [row["version"] for row in index] == wanted


def test_watching_shows_what_changes_until_ctrl_c(production: Production) -> None:
    production.push(production.release("fraud@v1.0.0"))
    with place.serving(production.bare) as server:
        command = [str(support.BIN / "gitmodel"), "status", "--watch", "--repo", str(production.bare)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as watching:
            assert watching.stdout is not None
            for line in watching.stdout:
                if "AVAILABLE" in line:
                    break
            production.push(production.release("fraud@v1.1.0", scale=2.0))
            server.look("fraud")
            for line in watching.stdout:
                if "v1.1.0" in line and "AVAILABLE" in line:
                    break
            else:
                raise AssertionError("the new version was never shown")
            watching.send_signal(signal.SIGINT)
            assert watching.wait(place.PATIENCE) == 130
            assert watching.stderr is not None
            assert "Traceback" not in watching.stderr.read()


def test_status_of_a_server_without_versions(production: Production, run: Runs) -> None:
    with place.serving(production.bare) as server:
        said = run("status", "--repo", production.bare)
    first = f"{server.url}  pid {server.pid}  ready  management: {server.admin}"
    assert said.out == f"{first}\nno versions yet\n"


@pytest.mark.parametrize("format_", ["text", "json"])
def test_status_without_a_server_is_exit_3(production: Production, run: Runs, format_: str) -> None:
    said = run("status", "--repo", production.bare, "--format", format_)
    assert (said.code, said.out) == (3, "")
    (line,) = said.err.splitlines()
    assert line.startswith("error[no-server]: no server is running for this repository")
    assert "gitmodel serve" in line


def test_status_of_a_server_that_does_not_answer_is_exit_3(production: Production, run: Runs) -> None:
    announce(production.bare / "gitmodel", Endpoint(os.getpid(), "http://127.0.0.1:9", "/nobody/here.sock"))
    said = run("status", "--repo", production.bare)
    assert said.code == 3
    (line,) = said.err.splitlines()
    assert "/nobody/here.sock does not answer" in line


def test_a_server_that_does_not_answer_hides_no_other(production: Production, run: Runs) -> None:
    announce(production.bare / "gitmodel", Endpoint(os.getpid(), "http://127.0.0.1:9", "/nobody/here.sock"))
    with place.serving(production.bare) as server:
        said = run("status", "--repo", production.bare)
    assert server.url in said.out
    assert "/nobody/here.sock does not answer" in said.out + said.err


@pytest.mark.parametrize(
    "command", [["status"], ["serve", "--port", "0"], ["hooks", "status"], ["hooks", "install"], ["hooks", "uninstall"]]
)
def test_outside_a_repository_it_is_exit_2_and_one_line(tmp_path: Path, run: Runs, command: list[str]) -> None:
    said = run(*command, "--repo", tmp_path)
    assert (said.code, said.out) == (2, "")
    (line,) = said.err.splitlines()
    assert line.startswith("error[not-a-repository]")
    assert str(tmp_path) in line


# serve


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--port", "65536"], "--port"),
        (["--port", "-1"], "--port"),
        (["--port", "http"], "--port"),
        (["--poll", "0"], "--poll"),
        (["--threads", "0"], "--threads"),
        (["--record-every", "0"], "--record-every"),
        (["--record-limit", "0"], "--record-limit"),
        (["--follow", "../prod"], "no stage name"),
        (["--follow", ""], "no stage name"),
        (["--nothing"], "--nothing"),
        (["extra"], "extra"),
    ],
)
def test_serve_with_wrong_options_is_exit_2(production: Production, run: Runs, options: list[str], says: str) -> None:
    said = run("serve", "--repo", production.bare, *options)
    assert said.code == 2
    assert says in said.err
    assert "Traceback" not in said.err


def test_serve_tells_what_it_does_on_stderr_alone(production: Production) -> None:
    production.push(production.release("fraud@v1.0.0"))
    server = place.start(production.bare)
    server.look()
    production.push(production.release("fraud@v1.1.0", scale=2.0, broken=True))
    server.look()
    production.save(support.linear_model(), "plain")
    production.push(production.tag("plain@v1.0.0"))
    server.look()
    assert server.stop() == 0
    told = [re.sub(r"^\d\d:\d\d:\d\d ", "", line) for line in server.lines]
    assert f"serving {production.bare} on {server.url} (management: {server.admin}, pid {server.pid})" in told
    changes = [re.sub(r" in \d+\.\d\d s|\(case .*", "", line) for line in told if re.match(r"\w+ v1", line)]
    assert [line for line in changes if not line.endswith("START")] == [
        "fraud v1.0.0 LOADING",
        "fraud v1.0.0 AVAILABLE, 4/4 golden cases",
        "fraud v1.1.0 LOADING",
        "fraud v1.1.0 END: 4 of 4 golden cases fail ",
        "plain v1.0.0 LOADING",
        "plain v1.0.0 AVAILABLE, no golden cases recorded",
    ]
    assert told[-1] == "stopped"


def test_serve_warns_of_a_model_that_is_not_there(production: Production) -> None:
    production.push(production.release("fraud@v1.0.0"))
    with place.serving(production.bare, "--model", "fraud", "--model", "typo") as server:
        assert "warning: there is no version of 'typo' here yet" in server.lines
        assert server.ask("GET", "/v2/models/fraud/ready").status == 200


def test_serve_may_be_quiet(production: Production) -> None:
    production.release("fraud@v1.0.0")
    command = [str(support.BIN / "gitmodel"), "serve", "-q", "--repo", str(production.author), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        folder = production.author / ".git" / "gitmodel" / "servers"
        try:
            place.until(lambda: list(folder.glob("*.json")))
        finally:
            process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=place.PATIENCE)
    assert (process.returncode, out, err) == (0, "", "")


# hooks


def test_hooks_are_installed_listed_and_removed(production: Production, run: Runs) -> None:
    for repo, options, names in (
        (production.author, [], ["reference-transaction", "post-tag", "pre-push"]),
        (production.bare, ["--server"], ["update", "post-receive"]),
    ):
        said = run("hooks", "status", "--repo", repo)
        assert (said.code, said.err) == (1, "")
        assert [row[:3] for row in table(said.out)[1:]] == [[name, "absent", "-"] for name in names]
        said = run("hooks", "install", *options, "--repo", repo)
        assert (said.code, said.err) == (0, "")
        header, *rows = table(said.out)
        assert header == ["HOOK", "STATE", "CHAINED", "PATH"]
        assert [row[:3] for row in rows] == [[name, "installed", "-"] for name in names]
        assert all(Path(row[3]).exists() for row in rows)
        assert run("hooks", "status", "--repo", repo) == said
        said = run("hooks", "uninstall", "--repo", repo)
        assert (said.code, [row[1] for row in table(said.out)[1:]]) == (0, ["absent"] * len(names))
        assert run("hooks", "status", "--repo", repo).code == 1


def test_a_chained_hook_is_shown_and_a_foreign_one_is_exit_1(production: Production, run: Runs) -> None:
    hook = production.bare / "hooks" / "post-receive"
    hook.write_text("#!/bin/sh\nexit 0\n")
    said = run("hooks", "status", "--repo", production.bare)
    assert (said.code, table(said.out)[2][:3]) == (1, ["post-receive", "foreign", "-"])
    run("hooks", "install", "--server", "--repo", production.bare)
    said = run("hooks", "status", "--repo", production.bare)
    assert (said.code, table(said.out)[2][:3]) == (0, ["post-receive", "installed", "yes"])


@pytest.mark.parametrize("server", [True, False])
def test_hooks_in_the_wrong_kind_of_repository_are_exit_2(production: Production, run: Runs, server: bool) -> None:
    repo, options = (production.author, ["--server"]) if server else (production.bare, [])
    said = run("hooks", "install", *options, "--repo", repo)
    assert (said.code, said.out) == (2, "")
    (line,) = said.err.splitlines()
    assert line.startswith("error[wrong-repository]")
    assert "--server" in line


def test_hooks_alone_shows_what_there_is(run: Runs) -> None:
    said = run("hooks")
    for word in ("install", "uninstall", "status"):
        assert word in said.out + said.err


@pytest.mark.parametrize(
    "command", [["serve"], ["status"], ["hooks", "install"], ["hooks", "uninstall"], ["hooks", "status"]]
)
def test_every_command_has_help_with_an_example(run: Runs, command: list[str]) -> None:
    said = run(*command, "--help")
    assert said.code == 0
    assert f"Example: gitmodel {' '.join(command)}" in " ".join(said.out.split())


def test_the_command_that_hooks_call_is_not_in_the_help(run: Runs) -> None:
    assert not re.search(r"^\s+hook\s", run("--help").out, re.MULTILINE)


# What the hooks run


def hook(name: str, lines: str, cwd: Path, **environment: str) -> Said:
    env = {**os.environ, **environment}
    done = support.run("gitmodel", "hook", name, cwd=cwd, input=lines, env=env)
    return Said(done.returncode, done.stdout, done.stderr)


def test_an_unknown_hook_is_exit_2(production: Production) -> None:
    said = hook("pre-commit", "", production.bare)
    assert said.code == 2
    assert "no hook 'pre-commit'" in said.err


def test_a_hook_finds_its_repository_where_git_says(served: tuple[Production, Server]) -> None:
    production, _ = served
    head = support.git(production.bare, "rev-parse", "fraud@v1.0.0")
    line = f"{'0' * 40} {head} refs/tags/fraud@v1.0.0\n"
    for cwd, environment in (
        (production.bare, {"GIT_DIR": "."}),
        (production.storage, {"GIT_DIR": str(production.bare)}),
    ):
        said = hook("post-receive", line, cwd, **environment)
        assert (said.code, said.out) == (0, "")
        assert said.err.startswith("gitmodel: fraud v1.0.0 AVAILABLE in ")


def test_a_hook_ignores_what_is_no_line_of_git(served: tuple[Production, Server]) -> None:
    production, _ = served
    said = hook(
        "post-receive", "\nnonsense\na b\n1 2 refs/heads/main\n1 0000 refs/tags/fraud@v1.0.0\n", production.bare
    )
    assert said == Said(0, "", "")


def test_a_hook_outside_a_repository_fails_nothing(tmp_path: Path) -> None:
    said = hook("post-receive", "0 1 refs/tags/fraud@v1.0.0\n", tmp_path)
    assert (said.code, said.out) == (0, "")
    assert "is not in a Git repository" in said.err


def test_a_hook_keeps_the_users_git_configuration_and_drops_the_pushs(
    served: tuple[Production, Server], tmp_path: Path
) -> None:
    production, server = served
    config = tmp_path / "config"
    config.write_text(f"[gitmodel]\n\tserver = {server.admin}\n")
    head = support.git(production.author, "rev-parse", "HEAD")
    said = hook(
        "post-tag",
        f"{'0' * 40} {head} refs/tags/fraud@v1.0.0\n",
        production.author,
        GIT_CONFIG_GLOBAL=str(config),
        GIT_DIR=".git",
        GIT_INDEX_FILE="/nowhere/index",
        GIT_OBJECT_DIRECTORY="/nowhere/objects",
        GIT_QUARANTINE_PATH="/nowhere",
        GIT_PREFIX="",
    )
    assert said.code == 0
    assert said.err.startswith("gitmodel: fraud v1.0.0 AVAILABLE in ")
