"""The reviewer's commands: check-compat, release, promote."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated

import typer

from gitmodel.cli.console import Format, FormatOption, Quiet, RepoOption, Verbose, console

if TYPE_CHECKING:
    from gitmodel.workflows.workspace import Workspace


class Profile(StrEnum):
    """Which clients the verdict is for."""

    POSITIONAL = "positional"
    NAMED = "named"
    JSON = "json"


def register(app: typer.Typer) -> None:
    app.command("check-compat")(check_compat)
    app.command("release")(release)
    app.command("promote")(promote)


def check_compat(
    old: Annotated[str, typer.Argument(metavar="OLD", help="A reference or a model file.")] = "",
    new: Annotated[
        str, typer.Argument(metavar="NEW", help="A reference or a model file; the working tree if not given.")
    ] = "",
    against: Annotated[
        str, typer.Option("--against", metavar="REV", help="Compare changed models with this revision.")
    ] = "",
    profile: Annotated[Profile, typer.Option("--profile", help="Which clients the verdict is for.")] = Profile.NAMED,
    require_sandbox: Annotated[
        bool, typer.Option("--require-sandbox", help="Judge only where a stranger's model can be locked in wholly.")
    ] = False,
    time_limit: Annotated[
        float,
        typer.Option("--time-limit", metavar="SECONDS", min=1, help="Processor time for opening and for each run."),
    ] = 10.0,
    memory_limit: Annotated[
        float, typer.Option("--memory-limit", metavar="GB", min=0.5, help="Memory of each model, besides its weights.")
    ] = 4.0,
    format_: FormatOption = Format.TEXT,
    repo: RepoOption = ".",
    quiet: Quiet = False,
    verbose: Verbose = 0,
) -> None:
    """Judge a model change: who breaks, and which semver bump is owed.

    Without arguments every model changed since its latest release is judged. Exit code 0: compatible (or the
    declared bump is enough), 1: incompatible, 2: wrong usage, 3: could not judge.

    Example: gitmodel check-compat fraud@v1.2.0 fraud
    """
    from gitmodel.compat import reports as formats
    from gitmodel.compat.isolated import Models
    from gitmodel.sandbox.limits import Limits
    from gitmodel.workflows import check

    models = Models(Limits(time_limit, int(memory_limit * (1 << 30))), require_sandbox, console.note)
    if against and old:
        raise typer.BadParameter("give OLD and NEW, or --against, not both", param_hint="--against")
    if old:
        before, after = _sides(old, new)
        reports = [
            check.check_compat(before, after, repo=repo, profile=profile, progress=console.progress, models=models)
        ]
    else:
        reports = check.check_changed(repo, against=against, profile=profile, progress=console.progress, models=models)
    console.clear()
    if not reports and format_ is Format.TEXT:
        console.say(f"no model differs from {against or 'its latest release'}: nothing to judge")
        return
    console.say(formats.renderer(format_).render(reports, colour=console.colour))
    raise typer.Exit(max(report.exit_code for report in reports) if reports else 0)


def _sides(old: str, new: str) -> tuple[str, str]:
    """One reference stands for two: ``fraud`` for its latest release and the working tree, ``fraud@v1`` for OLD alone."""
    if new:
        return old, new
    name, mark, _ = old.replace("#", "@").partition("@")
    if "." in name or "/" in name:
        raise typer.BadParameter("a file is compared with another: name NEW, too", param_hint="NEW")
    return (old, name) if mark else (f"{name}@latest", name)


def release(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The model's name.")],
    step: Annotated[
        str, typer.Argument(metavar="BUMP|VERSION", help="auto, patch, minor, major, or a version.")
    ] = "auto",
    message: Annotated[str, typer.Option("--message", "-m", metavar="TEXT", help="Words for the tag.")] = "",
    sign: Annotated[bool, typer.Option("--sign", help="Sign the tag, as git tag --sign does.")] = False,
    push: Annotated[
        str, typer.Option("--push", metavar="REMOTE", help="Send weights, then the commit, then the tag.")
    ] = "",
    repo: RepoOption = ".",
    quiet: Quiet = False,
    verbose: Verbose = 0,
) -> None:
    """Judge the committed model and tag it as the next version.

    Example: gitmodel release fraud --push production
    """
    from gitmodel.workflows.workspace import Workspace

    release_in(Workspace.of(repo, progress=console.progress), name, step, message=message, sign=sign, push=push)


def release_in(
    place: Workspace, name: str, step: str, *, message: str = "", sign: bool = False, push: str = ""
) -> None:
    """Releases, and tells of the verdict and of what comes next."""
    from gitmodel.compat.reports import text
    from gitmodel.compat.verdict import Report
    from gitmodel.workflows import release as workflow

    def told(report: Report) -> None:
        console.clear()
        if report.findings or report.unjudged:
            console.note(text.render([report], colour=False))

    done = workflow.release(name, step, repo=place, message=message, sign=sign, push=push, told=told)
    console.say(done.tag)
    if done.pushed:
        console.note(done.pushed)
    elif not push:
        console.note(f"next: gitmodel push; git push REMOTE HEAD '{done.tag}'")


def promote(
    reference: Annotated[str, typer.Argument(metavar="REF", help="The version, such as fraud@v1.2.0.")],
    stage: Annotated[str, typer.Argument(metavar="STAGE", help="The stage, such as prod.")],
    message: Annotated[str, typer.Option("--message", "-m", metavar="TEXT", help="Why.")] = "",
    push: Annotated[str, typer.Option("--push", metavar="REMOTE", help="Push the version and the stage there.")] = "",
    repo: RepoOption = ".",
    quiet: Quiet = False,
    verbose: Verbose = 0,
) -> None:
    """Put a stage on a version; the move is a tag, so history stays.

    Example: gitmodel promote fraud@v1.1.0 prod --push production
    """
    from gitmodel.workflows import release as workflow

    tag, version, pushed = workflow.promote(reference, stage, repo=repo, message=message, push=push)
    console.say(tag)
    console.note(f"{stage} is on {version}")
    if pushed:
        console.note(pushed)
