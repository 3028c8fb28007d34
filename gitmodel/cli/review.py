"""The reviewer's commands: check-compat, release, promote."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gitmodel.cli.console import Quiet, RepoOption, Verbose, console

if TYPE_CHECKING:
    from gitmodel.compat.verdict import Report
    from gitmodel.workflows.workspace import Workspace


class Mode(StrEnum):
    """Which callers count: see gitmodel/compat/modes.py."""

    BACKWARD = "backward"
    FULL = "full"
    TRANSITIVE = "transitive"


class ReleaseMode(StrEnum):
    """A version is judged against the one before it alone, so ``transitive`` is not among them."""

    BACKWARD = "backward"
    FULL = "full"


class Profile(StrEnum):
    """Which clients the verdict is for."""

    POSITIONAL = "positional"
    NAMED = "named"
    JSON = "json"


class ReportFormat(StrEnum):
    """How the verdict is written; one module each in compat/reports."""

    TEXT = "text"
    JSON = "json"
    MARKDOWN = "markdown"
    GITHUB = "github"
    JUNIT = "junit"
    SARIF = "sarif"
    HTML = "html"


#: Of the commands that move a stage.
WhyOption = Annotated[str, typer.Option("--message", "-m", metavar="TEXT", help="Why.")]
PushOption = Annotated[str, typer.Option("--push", metavar="REMOTE", help="Push the version and the stage there.")]


def register(app: typer.Typer) -> None:
    app.command("check-compat")(check_compat)
    app.command("release")(release)
    app.command("promote")(promote)
    app.command("rollback")(rollback)


def check_compat(
    old: Annotated[str, typer.Argument(metavar="OLD", help="A reference or a model file.")] = "",
    new: Annotated[
        str, typer.Argument(metavar="NEW", help="A reference or a model file; the working tree if not given.")
    ] = "",
    against: Annotated[
        str,
        typer.Option("--against", metavar="REV", help="Compare what HEAD changed with this revision, both from Git."),
    ] = "",
    profile: Annotated[Profile, typer.Option("--profile", help="Which clients the verdict is for.")] = Profile.NAMED,
    mode: Annotated[
        Mode, typer.Option("--mode", help="backward; full: rollback, too; transitive: all versions a stage is on, too.")
    ] = Mode.BACKWARD,
    remote: Annotated[
        str, typer.Option("--remote", metavar="NAME|URL", help="Fetch weights from this DVC remote.")
    ] = "",
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
    format_: Annotated[ReportFormat, typer.Option("--format", help="What is written to stdout.")] = ReportFormat.TEXT,
    report: Annotated[
        list[str] | None,
        typer.Option("--report", metavar="FORMAT=FILE", help="Write the report to a file as well; may be repeated."),
    ] = None,
    repo: RepoOption = ".",
    quiet: Quiet = False,
    verbose: Verbose = 0,
) -> None:
    """Judge a model change: who breaks, and which semver bump is owed.

    Without arguments every model of the working tree changed since its latest release is judged. What a revision
    names is read from Git, and DVC's configuration from OLD. Exit code 0: compatible (or the declared bump is enough),
    1: incompatible, 2: wrong usage, 3: could not judge. With -v each break comes with lines of Python that show it, and
    with the entry that would allow it.

    Example: gitmodel check-compat fraud@v1.2.0 fraud --report html=report.html
    """
    from datetime import date

    from gitmodel.compat.isolated import Models
    from gitmodel.sandbox.limits import Limits
    from gitmodel.workflows import check

    files = _files(report or [])
    if against and old:
        raise typer.BadParameter("give OLD and NEW, or --against, not both", param_hint="--against")
    models = Models(Limits(time_limit, int(memory_limit * (1 << 30))), require_sandbox, console.note)
    terms: dict[str, Any] = {
        "profile": str(profile), "mode": str(mode), "remote": remote, "today": date.today(), "models": models,
    }  # fmt: skip
    if old:
        before, after = _sides(old, new)
        reports = check.check_all(before, after, repo=repo, progress=console.progress, **terms)
    else:
        reports = check.check_changed(repo, against=against, progress=console.progress, **terms)
    console.clear()
    if against and (left := check.uncommitted(repo)):
        console.note(f"not judged: what is not committed of {', '.join(map(ascii, left[:8]))}")
    _tell(reports, format_, files, against)
    raise typer.Exit(max(report.exit_code for report in reports) if reports else 0)


def _tell(reports: list[Report], format_: ReportFormat, files: dict[Path, str], against: str) -> None:
    if not reports and format_ is ReportFormat.TEXT:
        console.say(f"NOTHING COMPARED  no model differs from {against or 'its latest release'}")
    else:
        console.say(_rendered(format_, reports, colour=console.colour))
    for file, name in files.items():
        _write(file, _rendered(name, reports))
    if console.verbosity:
        _show_entries(reports)


def _rendered(name: str, reports: list[Report], *, colour: bool = False) -> str:
    from gitmodel.compat import reports as formats
    from gitmodel.compat.reports import text

    if name == ReportFormat.TEXT:
        return text.render(reports, colour=colour, snippets=console.verbosity > 0)
    return formats.renderer(name).render(reports, colour=colour)


def _files(given: list[str]) -> dict[Path, str]:
    """Which format goes where, from ``--report FORMAT=FILE``."""
    found: dict[Path, str] = {}
    for item in given:
        name, _, file = item.partition("=")
        if name not in set(ReportFormat) or not file:
            raise typer.BadParameter(
                f"'{item}' is not FORMAT=FILE with one of {', '.join(ReportFormat)}", param_hint="--report"
            )
        if Path(file) in found or not Path(file).parent.is_dir():
            problem = "is named twice" if Path(file) in found else "is in no folder there is"
            raise typer.BadParameter(f"'{file}' {problem}", param_hint="--report")
        found[Path(file)] = name
    return found


def _write(path: Path, text: str) -> None:
    """Raises StorageFailed."""
    from gitmodel.files import storing

    with storing(str(path)):
        path.write_text(f"{text}\n", encoding="utf-8")


def _show_entries(reports: list[Report]) -> None:
    """What to paste into the allow-lists, on stderr."""
    from gitmodel.compat import allow

    for report in reports:
        if text := allow.to_paste(report.findings):
            console.note(f"to accept it, commit to models/{report.model}/allow.yaml on the base branch:\n{text}")


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
    mode: Annotated[
        ReleaseMode, typer.Option("--mode", help="backward; full: who is put back on the old version counts, too.")
    ] = ReleaseMode.BACKWARD,
    repo: RepoOption = ".",
    quiet: Quiet = False,
    verbose: Verbose = 0,
) -> None:
    """Judge the committed model and tag it as the next version.

    Example: gitmodel release fraud --push production
    """
    from gitmodel.workflows.workspace import Workspace

    place = Workspace.of(repo, progress=console.progress)
    release_in(place, name, step, message=message, sign=sign, push=push, mode=str(mode))


def release_in(
    place: Workspace,
    name: str,
    step: str,
    *,
    message: str = "",
    sign: bool = False,
    push: str = "",
    mode: str = "backward",
) -> None:
    """Releases, and tells of the verdict and of what comes next."""
    from gitmodel import registry
    from gitmodel.compat.reports import text
    from gitmodel.workflows import release as workflow

    def told(report: Report) -> None:
        console.clear()
        if report.findings or report.unjudged:
            console.note(text.render([report], colour=False))

    done = workflow.release(name, step, repo=place, message=message, sign=sign, push=push, mode=mode, told=told)
    console.say(done.tag)
    if done.pushed:
        console.note(done.pushed)
    elif not push:
        console.note(f"next: gitmodel push; git push REMOTE HEAD '{done.tag}'")
    if place.repo.shallow:
        console.note(f"warning: {registry.left_out(place.repo)}; {done.tag} may be taken where it came from")
    if done.fleeting:
        console.note(
            f"warning: of the caches here a linked worktree's alone has the bytes of {done.tag}, and 'git worktree remove' deletes it: "
            f"run 'gitmodel push {done.tag}' before, unless the remote has them"
        )


def promote(
    reference: Annotated[str, typer.Argument(metavar="REF", help="The version, such as fraud@v1.2.0.")],
    stage: Annotated[str, typer.Argument(metavar="STAGE", help="The stage, such as prod.")],
    message: WhyOption = "",
    push: PushOption = "",
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


def rollback(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The model's name.")],
    stage: Annotated[str, typer.Argument(metavar="STAGE", help="The stage.")] = "prod",
    message: WhyOption = "",
    push: PushOption = "",
    repo: RepoOption = ".",
    quiet: Quiet = False,
    verbose: Verbose = 0,
) -> None:
    """Put a stage back on the version it stood on before; again goes further back.

    Example: gitmodel rollback fraud --push production -m "v1.1.0 confuses cats with dogs"
    """
    from gitmodel.workflows import rollback as workflow

    done = workflow.rollback(name, stage, repo=repo, message=message, push=push)
    console.say(done.tag)
    console.note(f"{stage} is back on {done.version}; it was on {done.left}")
    if done.pushed:
        console.note(done.pushed)
    else:
        console.note(f"next: git push REMOTE '{done.tag}'")
