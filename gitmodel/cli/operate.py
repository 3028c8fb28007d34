"""The operator's commands: serve, status, hooks; and the hidden one that Git's hooks call."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gitmodel.cli.console import Format, FormatOption, Quiet, RepoOption, Verbose, as_json, console, table
from gitmodel.errors import ExitCode

if TYPE_CHECKING:
    from gitmodel.hooks import HookStatus

#: Seconds between two looks of ``status --watch``.
_LOOK = 1.0
#: What ``git rev-parse --local-env-vars`` names, and the quarantine of a push.
_LOCAL_VARIABLES = (
    "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_COMMON_DIR", "GIT_CONFIG", "GIT_CONFIG_COUNT", "GIT_CONFIG_PARAMETERS", "GIT_DIR",
    "GIT_GRAFT_FILE", "GIT_IMPLICIT_WORK_TREE", "GIT_INDEX_FILE", "GIT_INTERNAL_SUPER_PREFIX", "GIT_NO_REPLACE_OBJECTS",
    "GIT_OBJECT_DIRECTORY", "GIT_PREFIX", "GIT_QUARANTINE_PATH", "GIT_REPLACE_REF_BASE", "GIT_SHALLOW_FILE", "GIT_WORK_TREE",
)  # fmt: skip

hooks_app = typer.Typer(help="Install, remove and look at the Git hooks.", no_args_is_help=True, rich_markup_mode=None)


def register(app: typer.Typer) -> None:
    app.command("serve")(serve)
    app.command("status")(status)
    app.add_typer(hooks_app, name="hooks")
    app.command("hook", hidden=True)(hook)


def serve(
    repo: RepoOption = ".",
    model: Annotated[
        list[str] | None, typer.Option("--model", metavar="NAME", help="Serve this model only; may be repeated.")
    ] = None,
    follow: Annotated[
        str,
        typer.Option(
            "--follow",
            metavar="latest[:N]|STAGE|stages|all|VERSIONS",
            help="What to serve; auto: stage prod if there is one, else the latest release.",
        ),
    ] = "auto",
    host: Annotated[str, typer.Option("--host", metavar="ADDRESS", help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[
        int, typer.Option("--port", metavar="N", help="Port to listen on; 0 takes a free one.", min=0, max=65535)
    ] = 8000,
    admin: Annotated[
        str, typer.Option("--admin", metavar="SOCKET", help="Unix socket for management (mode 0600).")
    ] = "",
    remote: Annotated[
        str, typer.Option("--remote", metavar="URL", help="DVC remote to fetch from, instead of the commit's own.")
    ] = "",
    poll: Annotated[
        float, typer.Option("--poll", metavar="SECONDS", help="How often to look at the refs unasked.", min=0.1)
    ] = 5.0,
    threads: Annotated[
        int, typer.Option("--threads", metavar="N", help="Threads per call inside the runtime.", min=1)
    ] = 1,
    record: Annotated[
        str, typer.Option("--record", metavar="FOLDER", help="Write answered requests there, for 'golden add'.")
    ] = "",
    record_every: Annotated[
        int, typer.Option("--record-every", metavar="N", help="Record only each N-th answered request.", min=1)
    ] = 1,
    record_limit: Annotated[
        int, typer.Option("--record-limit", metavar="N", help="Stop after N requests of a version.", min=1)
    ] = 256,
    allow_host: Annotated[
        list[str] | None,
        typer.Option("--allow-host", metavar="NAME", help="A name the server goes by; may be repeated."),
    ] = None,
    notify: Annotated[
        str, typer.Option("--notify", metavar="HOST:PORT", help="Take signed notices of hooks elsewhere there.")
    ] = "",
    notify_secret: Annotated[
        str, typer.Option("--notify-secret", metavar="FILE", help="The secret they are signed with (mode 0600).")
    ] = "",
    batch: Annotated[
        list[str] | None,
        typer.Option(
            "--batch", metavar="[NAME=]ROWS", help="Run calls that wait for each other together; may be repeated."
        ),
    ] = None,
    batch_wait: Annotated[
        float,
        typer.Option("--batch-wait", metavar="SECONDS", help="How long a batch stays open for more.", min=0, max=1),
    ] = 0.0,
    prepack: Annotated[
        bool, typer.Option(help="Pack large weights beside the serving, on disk, for speed in large batches.")
    ] = True,
    workers: Annotated[
        int, typer.Option("--workers", metavar="N", help="Processes that answer calls, kept in step.", min=1, max=256)
    ] = 1,
    connections: Annotated[
        int, typer.Option("--connections", metavar="N", help="Connections at a time and worker; more get 503.", min=1)
    ] = 1000,
    body_timeout: Annotated[
        float,
        typer.Option("--body-timeout", metavar="SECONDS", help="How long a client may take to send a body.", min=0.1),
    ] = 30.0,
    log: Annotated[Format, typer.Option("--log", help="Lines for people, or JSON for programs.")] = Format.TEXT,
    log_requests: Annotated[
        bool, typer.Option("--log-requests", help="Note every request, not only those that failed here.")
    ] = False,
    quiet: Quiet = False,
    verbose: Verbose = 0,
) -> None:
    """Serve the models of a repository, working or bare; swap when its refs say so.

    Example: gitmodel serve --repo /srv/models.git --port 8000
    """
    from gitmodel.serving.journal import Journal
    from gitmodel.serving.server import serve as run
    from gitmodel.serving.settings import Settings

    if bool(notify) != bool(notify_secret):
        raise typer.BadParameter(
            "notices are taken with a secret: give both", param_hint="--notify and --notify-secret"
        )
    settings = Settings(
        Path(repo), models=model or (), follow=follow, host=host, port=port, admin=Path(admin) if admin else None,
        remote_url=remote, poll=poll, threads=threads, record=Path(record) if record else None, record_every=record_every,
        record_limit=record_limit, hosts=allow_host or (), notify=notify,
        secret=Path(notify_secret) if notify_secret else None, batch_rows=_batches(batch or ()), batch_wait=batch_wait,
        prepack=prepack, connections=connections, workers=workers,
        body_seconds=body_timeout,
    )  # fmt: skip
    journal = Journal(console.note, as_json=log is Format.JSON, requests=log_requests)
    run(settings, journal)
    journal.stopped()


def status(
    format_: FormatOption = Format.TEXT,
    watch: Annotated[bool, typer.Option("--watch", help="Go on, and show what changes, until Ctrl-C.")] = False,
    repo: RepoOption = ".",
    quiet: Quiet = False,
    verbose: Verbose = 0,
) -> None:
    """Show the servers of a repository and the versions they serve. Exit code 3 when there is none.

    Example: gitmodel status --repo /srv/models.git
    """
    from gitmodel.endpoint import NoServer

    shown = _status(format_, repo)
    console.say(shown)
    while watch:
        time.sleep(_LOOK)
        try:
            now = _status(format_, repo)
        except NoServer as error:  # it may come back
            now = as_json([]) if format_ is Format.JSON else str(error)
        if now != shown:
            shown = now
            console.say(("" if format_ is Format.JSON else "\n") + shown)


def _status(format_: Format, repo: str) -> str:
    """What is to be shown. Raises NoServer."""
    from msgspec.structs import asdict

    from gitmodel import endpoint
    from gitmodel.git import Repository

    found = endpoint.running(Repository.open(Path(repo)).state_dir)
    if not found:
        raise endpoint.NoServer("no server is running for this repository", hint="start one with 'gitmodel serve'")
    answers, silent = [], []
    for server in found:
        try:
            answers.append((server, endpoint.request(server.admin, "GET", "/v2/gitmodel/status", timeout=10)))
        except endpoint.NoServer as error:
            silent.append(error)
    for refusal in silent if answers else silent[1:]:
        console.fail(f"warning: {refusal}")
    if not answers:
        raise silent[0]
    if format_ is Format.JSON:
        return as_json([asdict(server) | answer for server, answer in answers])
    lines = []
    for server, answer in answers:
        ready = "ready" if answer["ready"] else "not ready"
        lines.append(f"{server.url}  pid {server.pid}  {ready}  management: {server.admin}")
        lines.append(_versions(answer["versions"]))
    return "\n".join(lines)


def _versions(statuses: list[dict[str, Any]]) -> str:
    if not statuses:
        return "no versions yet"
    rows = [
        [
            row["model"], row["version"], row["state"], ", ".join(row["stages"]) or "-",
            f"{row['golden_passed']}/{row['golden_cases']}" if row["golden_cases"] else "-", row["commit"][:10], row["reason"] or "-",
        ]
        for row in statuses
    ]  # fmt: skip
    return table(rows, ["model", "version", "state", "stages", "golden", "commit", "reason"])


@hooks_app.command("install")
def install(
    server: Annotated[
        bool, typer.Option("--server", help="In a bare repository: report to the pusher what is served.")
    ] = False,
    repo: RepoOption = ".",
    quiet: Quiet = False,
    verbose: Verbose = 0,
) -> None:
    """Install the hooks; foreign ones are kept and called first.

    Example: gitmodel hooks install --server --repo /srv/models.git
    """
    from gitmodel import hooks

    _print_hooks(hooks.install(Path(repo), server=server))


@hooks_app.command("uninstall")
def uninstall(repo: RepoOption = ".", quiet: Quiet = False, verbose: Verbose = 0) -> None:
    """Remove our hooks and put back those they were chained to.

    Example: gitmodel hooks uninstall
    """
    from gitmodel import hooks

    _print_hooks(hooks.uninstall(Path(repo)))


@hooks_app.command("status")
def hooks_status(repo: RepoOption = ".", quiet: Quiet = False, verbose: Verbose = 0) -> None:
    """Show which hooks are installed. Exit code 1 when one is not.

    Example: gitmodel hooks status
    """
    from gitmodel import hooks

    found = hooks.status(Path(repo))
    _print_hooks(found)
    if any(item.state != "installed" for item in found):
        raise typer.Exit(ExitCode.INCOMPATIBLE)


def hook(name: Annotated[str, typer.Argument(help="post-tag, post-receive or pre-push.")]) -> None:
    """What the installed hooks run. It never fails what Git has already done."""
    from gitmodel import hooks
    from gitmodel.errors import GitmodelError
    from gitmodel.git import Repository

    # Git names the repository in the environment, and other Git commands would inherit it. It calls pre-push in the working tree,
    # which that name does not always lead to.
    where = Path("." if name == "pre-push" else os.environ.get("GIT_DIR") or ".").resolve()
    for variable in _LOCAL_VARIABLES:
        os.environ.pop(variable, None)
    received = partial(hooks.after_receive, options=_push_options())
    runs: dict[str, Callable[[Repository, list[str], hooks.Say], None]] = {
        "post-tag": hooks.after_tag,
        "post-receive": received,
        "pre-push": hooks.before_push,
    }
    if name not in runs:
        raise typer.BadParameter(f"no hook '{name}'")

    def say(line: str) -> None:
        print(f"gitmodel: {line}", file=sys.stderr, flush=True)

    try:
        runs[name](Repository.open(where), sys.stdin.buffer.read().decode(errors="replace").splitlines(), say)
    except GitmodelError as error:
        say(str(error))
        if name == "pre-push":  # nothing is done yet
            raise typer.Exit(error.exit_code) from error


def _batches(texts: Iterable[str]) -> dict[str, int]:
    """Rows by model of ``[NAME=]ROWS``; '' stands for any."""
    found: dict[str, int] = {}
    for text in texts:
        name, _, rows = text.rpartition("=")
        if not rows.isascii() or not rows.isdigit() or not 2 <= int(rows) <= 4096 or name in found:
            raise typer.BadParameter("write ROWS or NAME=ROWS, from 2 to 4096, each once", param_hint="--batch")
        found[name] = int(rows)
    return found


def _push_options() -> list[str]:
    """What ``git push -o`` was given; Git hands it over in the environment (githooks(5))."""
    count = os.environ.get("GIT_PUSH_OPTION_COUNT", "")
    return [os.environ.get(f"GIT_PUSH_OPTION_{i}", "") for i in range(int(count) if count.isdigit() else 0)]


def _print_hooks(found: list[HookStatus]) -> None:
    rows = [[item.name, item.state, "yes" if item.chained else "-", str(item.path)] for item in found]
    console.say(table(rows, ["hook", "state", "chained", "path"]))
