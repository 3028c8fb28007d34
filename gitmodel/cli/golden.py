"""The commands over golden cases: add, record, review, accept, list."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gitmodel.cli.console import Format, FormatOption, Quiet, RepoOption, Verbose, console, count, human, table
from gitmodel.errors import ExitCode

if TYPE_CHECKING:
    from gitmodel.bundle.golden import Slice
    from gitmodel.workflows.golden_add import Added

#: With fewer a change may slip through.
_FEW = 16

golden_app = typer.Typer(help="Add, list, review and accept golden cases.", no_args_is_help=True, rich_markup_mode=None)
Name = Annotated[str, typer.Argument(metavar="NAME", help="The model's name.")]


def register(app: typer.Typer) -> None:
    app.add_typer(golden_app, name="golden")


@golden_app.command("add")
def add(
    name: Name,
    file: Annotated[
        str, typer.Argument(metavar="NPZ", help="Arrays named after the model's inputs and, if recorded, its outputs.")
    ] = "",
    group: Annotated[str, typer.Option("--group", metavar="GROUP", help="The group they go to; the file's name.")] = "",
    slice_: Annotated[
        str, typer.Option("--slice", metavar="KEY=VALUE", help="The part of the callers they stand for.")
    ] = "",
    agreement: Annotated[
        float | None,
        typer.Option("--agreement", help="Share of decisions that must stay in this slice.", min=0.0, max=1.0),
    ] = None,
    distance: Annotated[
        float | None,
        typer.Option("--distance", help="How far values may move in this slice, as a share of their size.", min=0.0),
    ] = None,
    from_traffic: Annotated[
        str, typer.Option("--from-traffic", metavar="FOLDER", help="Take requests that 'serve --record' wrote there.")
    ] = "",
    auto: Annotated[
        int,
        typer.Option(
            "--auto", metavar="N", help="Draw N inputs from the signature, the same each time.", min=0, max=256
        ),
    ] = 0,
    limit: Annotated[
        int, typer.Option("--limit", metavar="N", help="Add at most N new ones, spread over what is there.", min=0)
    ] = 0,
    repo: RepoOption = ".",
    quiet: Quiet = False,
    verbose: Verbose = 0,
) -> None:
    """Add golden cases to those a model has; outputs that are not given are what the model gives.

    Example: gitmodel golden add fraud cases.npz --slice country=DE --agreement 0.95
    """
    from gitmodel.workflows import golden_add

    if (bool(file) + bool(from_traffic) + bool(auto)) != 1:
        raise typer.BadParameter("give one of NPZ, --from-traffic and --auto", param_hint="NPZ")
    origin = golden_add.Origin(Path(file) if file else None, Path(from_traffic) if from_traffic else None, auto)
    part = _slice(slice_, agreement, distance)
    _tell(name, golden_add.add(name, origin, repo=repo, group=group, part=part, limit=limit))


def _slice(text: str, agreement: float | None, distance: float | None) -> Slice | None:
    from gitmodel.bundle.golden import Slice

    if not text:
        if agreement is not None or distance is not None:
            raise typer.BadParameter(
                "thresholds belong to a slice; the card has those of the model", param_hint="--slice"
            )
        return None
    if not all(part.strip() for part in text.partition("=")):
        raise typer.BadParameter("write it as KEY=VALUE, such as country=DE", param_hint="--slice")
    return Slice(text, agreement, distance)


def _tell(name: str, done: Added) -> None:
    left_out = f", {done.left_out} drawn inputs left out" if done.left_out else ""
    known = f", {done.known} known already" if done.known else ""
    console.note(f"added {count(len(done.added), 'golden case')} to {done.group}{known}{left_out}")
    if done.wrong:
        console.note(
            f"warning: the model does not give the outputs of {len(done.wrong)} of them ({done.wrong[0]}): it would be refused"
        )
    from gitmodel.formats import golden_files

    heavy = "; each clone has them all" if done.size > golden_files.LARGE_BYTES else ""
    few = f"; {_FEW} or more are good" if done.total < _FEW else ""
    console.note(f"{name} has {count(done.total, 'golden case')}, {human(done.size)}{few}{heavy}")
    if done.added:
        console.note(f"next: git add models/{name} && git commit")


@golden_app.command("record")
def record(
    name: Name,
    case: Annotated[
        list[str] | None,
        typer.Option("--case", metavar="CASE", help="Only this case, or this group; may be repeated."),
    ] = None,
    by: Annotated[
        str, typer.Option("--by", metavar="REF", help="The version to run them through, instead of the working tree's.")
    ] = "",
    repo: RepoOption = ".",
    quiet: Quiet = False,
    verbose: Verbose = 0,
) -> None:
    """Run golden cases that have no outputs yet and record what the model gives; others are left alone.

    Example: gitmodel golden record fraud --by fraud@v1.2.0
    """
    from gitmodel.workflows import golden_add

    done = golden_add.record(name, repo=repo, by=by, cases=case or ())
    kept = f", {done.kept} had them already" if done.kept else ""
    console.note(f"recorded the outputs of {count(len(done.recorded), 'golden case')}{kept}")
    if done.recorded:
        console.note(f"next: git add models/{name} && git commit")


@golden_app.command("review")
def review(
    name: Name,
    reason: Annotated[
        str, typer.Option("--reason", metavar="TEXT", help="Why outputs are accepted; asked for otherwise.")
    ] = "",
    repo: RepoOption = ".",
    quiet: Quiet = False,
    verbose: Verbose = 0,
) -> None:
    """Go through the golden cases that no longer hold: accept the new outputs, or reject or skip them.

    On a terminal only; 'golden accept' is for scripts. Interrupted, it goes on where it was.

    Example: gitmodel golden review fraud
    """
    from gitmodel.cli.reviewing import NeedsTerminal, run

    if not (sys.stdin.isatty() and sys.stdout.isatty()) or os.environ.get("CI"):
        raise NeedsTerminal(
            "a review asks questions, and there is nobody to answer",
            hint=f"'gitmodel golden list {name} --check' shows what fails, 'gitmodel golden accept {name} --case CASE --reason TEXT'"
            " accepts it",
        )
    run(name, reason, repo)


@golden_app.command("accept")
def accept(
    name: Name,
    case: Annotated[
        list[str] | None,
        typer.Option("--case", metavar="CASE", help="This case, or all of this group; may be repeated."),
    ] = None,
    all_: Annotated[bool, typer.Option("--all", help="All cases that no longer hold.")] = False,
    reason: Annotated[
        str, typer.Option("--reason", metavar="TEXT", help="Why; kept beside the cases for who reviews the commit.")
    ] = "",
    repo: RepoOption = ".",
    quiet: Quiet = False,
    verbose: Verbose = 0,
) -> None:
    """Record anew what the model gives for golden cases that no longer hold, and why that is right.

    Example: gitmodel golden accept fraud --case held-out/3 --reason "Trained on June"
    """
    from gitmodel.cli.reviewing import worst
    from gitmodel.workflows import golden_review

    if bool(case) == all_:
        raise typer.BadParameter("name cases with --case, or give --all", param_hint="--case")
    if not reason.strip():
        raise typer.BadParameter("say why: who reviews the commit reads it", param_hint="--reason")
    done = golden_review.accept_named(name, case or (), reason, repo=repo)
    held = f"; {count(done.held, 'case')} held already" if done.held else ""
    console.note(f"accepted {count(len(done.cases), 'golden case')} of {name}{held}")
    for line in worst(done.cases):
        console.note(line)
    if done.cases:
        console.note(f"next: git add models/{name} && git commit")


@golden_app.command("list")
def list_(
    reference: Annotated[str, typer.Argument(metavar="REF", help="fraud, fraud@v1.2.0, fraud#prod or a commit.")],
    check: Annotated[
        bool, typer.Option("--check", help="Run each and tell which hold; exit code 1 when one does not.")
    ] = False,
    format_: FormatOption = Format.TEXT,
    repo: RepoOption = ".",
    quiet: Quiet = False,
    verbose: Verbose = 0,
) -> None:
    """List the golden cases of a model, by group.

    Example: gitmodel golden list fraud --check
    """
    from gitmodel.cli.golden_table import HEADER, cells, to_dict
    from gitmodel.cli.reviewing import plain
    from gitmodel.workflows import golden

    groups = golden.cases_of(reference, repo=repo, check=check, progress=console.progress)
    console.clear()
    failing = [row for group in groups for row in group.rows if row.wrong]
    if format_ is Format.JSON:
        console.data({"schema": 1, "ref": reference, "checked": check, "groups": [to_dict(group) for group in groups]})
    elif not groups:
        console.note(f"{reference} has no golden cases; 'gitmodel golden add' makes some")
    else:
        console.say(
            table(
                [cells(group, check) for group in groups],
                HEADER,
            )
        )
        for row in failing:
            console.say(plain(f"  {row.name}: {row.wrong}"))
    if failing:
        raise typer.Exit(ExitCode.INCOMPATIBLE)
