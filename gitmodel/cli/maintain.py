"""The commands that look after a repository: fsck, gc, doctor."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gitmodel.cli.console import Format, FormatOption, Quiet, RepoOption, Verbose, console, count, human, table

if TYPE_CHECKING:
    from gitmodel.workflows.findings import Finding, Report
    from gitmodel.workflows.gc import Collected

#: So many names of a list a person reads; json has them all.
_SHOWN = 6

RemoteName = Annotated[
    str,
    typer.Option(
        "--remote-name", "-r", metavar="NAME|URL", help="Which DVC remote, instead of the default; implies --remote."
    ),
]


def register(app: typer.Typer) -> None:
    for command in (fsck, gc, doctor):
        app.command(command.__name__)(command)


def fsck(
    references: Annotated[
        list[str] | None, typer.Argument(metavar="REF", help="What to check; everything stored if not given.")
    ] = None,
    remote: Annotated[bool, typer.Option("--remote", help="Check the DVC remote, too.")] = False,
    remote_name: RemoteName = "",
    repair: Annotated[
        bool, typer.Option("--repair", help="Put good bytes over damaged ones; move away what cannot be mended.")
    ] = False,
    sources: Annotated[
        list[str] | None,
        typer.Option("--from", metavar="PATH", help="A clone or cache that may have good bytes; may be repeated."),
    ] = None,
    format_: FormatOption = Format.TEXT,
    repo: RepoOption = ".",
    quiet: Quiet = False,
    verbose: Verbose = 0,
) -> None:
    """Read every stored byte again; say what is damaged or missing, and which versions suffer.

    Exit code 0: all is well (or mended), 1: something is damaged or missing, 3: not everything could be looked at.

    Example: gitmodel fsck --remote --repair
    """
    from gitmodel.workflows import fsck as workflow

    report = workflow.fsck(
        references or (), repo=repo, remote=remote or bool(remote_name), remote_name=remote_name, repair=repair,
        sources=sources or (), progress=console.progress,
    )  # fmt: skip
    console.clear()
    if format_ is Format.JSON:
        console.data(report.to_dict())
    else:
        for finding in report.findings:
            for line in _finding(finding, report.root, console.verbosity):
                console.say(line)
        for line in _totals(report):
            console.say(line)
    raise typer.Exit(report.exit_code)


def _finding(found: Finding, repo: Path, verbosity: int) -> Iterator[str]:
    mark = "+" if found.mended else "✗" if found.matters else "·"
    yield f"{mark} {found.kind:<12} {_subject(found, repo)}"
    if found.versions:
        files = f"{_listed(found.files)} of " if found.files and found.kind != "workspace" else ""
        yield f"    who: {files}{_listed(found.versions)}"
    if verbosity and not found.path:
        yield from (f"    {name}" for name in found.objects)
    if found.moved:
        yield f"    moved: {_short(found.moved, repo)}"
    if found.mended:
        yield f"    mended: {found.mended}"
    elif found.mend:
        yield f"    mend: {found.mend}"


def _subject(found: Finding, repo: Path) -> str:
    """What it is about, and what is wrong with it: ``.dvc/cache/files/md5/ab/cd (1.2 MB) has other bytes ...``."""
    size = f" ({human(found.size)})" if found.size else ""
    path = _short(found.path, repo) if found.path else ""
    if path:
        return f"{'' if path != found.path or found.where == 'Git' else f'{found.where}: '}{path}{size} {found.message}"
    if found.kind in ("missing", "listing"):
        return f"{found.where}: {found.objects[0]}{size} {found.message}"
    return f"{found.where}: {found.message}{size}"


def _short(path: str, root: Path) -> str:
    """A path as seen from the repository, where it lies in it."""
    return str(Path(path).relative_to(root)) if Path(path).is_relative_to(root) else path


def _listed(names: tuple[str, ...]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _totals(report: Report) -> Iterator[str]:
    read = sum(item.objects for item in report.read), sum(item.size for item in report.read)
    places = ", ".join(dict.fromkeys(item.where for item in report.read if not item.where.startswith("models/")))
    mended = sum(bool(finding.mended) for finding in report.findings)
    open_ = len(report.open)
    verdict = (
        f"{count(open_, 'finding')} that matter{'s' if open_ == 1 else ''}"
        if open_
        else "nothing damaged, nothing missing"
    )
    verdict = f"{mended} mended, {verdict}" if mended else verdict
    yield f"{verdict}: {count(read[0], 'file')}, {human(read[1])} read{f' ({places})' if places else ''}"
    if report.partial:
        yield "this is a shallow clone: older versions were not looked for"
    if report.incomplete:
        yield f"not everything could be looked at: {report.incomplete}"


def gc(
    last: Annotated[
        int, typer.Option("--last", metavar="N", min=1, help="States of each model to keep on each branch.")
    ] = 3,
    younger: Annotated[
        str, typer.Option("--younger-than", metavar="AGE", help="Keep what was in use since: 12h, 14d, 2w; 0 for none.")
    ] = "14d",
    apply: Annotated[bool, typer.Option("--yes", "-y", help="Do it; without, only say what would go.")] = False,
    remote: Annotated[bool, typer.Option("--remote", help="Clean the DVC remote instead of the cache.")] = False,
    remote_name: RemoteName = "",
    also: Annotated[
        list[str] | None,
        typer.Option("--also", metavar="PATH", help="Another repository that keeps weights there; may be repeated."),
    ] = None,
    alone: Annotated[bool, typer.Option("--alone", help="No other repository keeps weights there.")] = False,
    format_: FormatOption = Format.TEXT,
    repo: RepoOption = ".",
    quiet: Quiet = False,
    verbose: Verbose = 0,
) -> None:
    """Free the bytes of old states that no tag, branch or stage needs. Says what would go; --yes does it.

    Example: gitmodel gc --last 5 --younger-than 30d --yes
    """
    from gitmodel.workflows import gc as workflow
    from gitmodel.workflows.retention import Policy, parse_age

    done = workflow.gc(
        repo=repo, policy=Policy(last, parse_age(younger)), remote=remote or bool(remote_name), remote_name=remote_name,
        also=also or (), alone=alone, apply=apply, progress=console.progress,
    )  # fmt: skip
    console.clear()
    if format_ is Format.JSON:
        console.data(done.to_dict())
        return
    for line in _collected(done):
        console.say(line)
    if done.objects and not done.applied:
        console.note("nothing was removed; --yes does it")


def _collected(done: Collected) -> Iterator[str]:
    yield f"{done.where} keeps {count(sum(map(len, done.keeps.values())), 'state')}"
    for reason, labels in done.keeps.items():
        yield f"  {reason}: {_listed(tuple(labels))}"
    if done.going:
        yield "loses bytes" if done.applied else "would lose bytes"
        rows = [
            [
                item.label,
                f"{item.date:%Y-%m-%d %H:%M}" if item.date else "-",
                human(item.size),
                human(item.whole),
                str(item.files),
            ]
            for item in done.going
        ]
        yield from (f"  {line}" for line in table(rows, ["state", "date", "loses", "of", "files"]).splitlines())
    if done.unnamed:
        yield f"  and {count(done.unnamed, 'object')} ({human(done.unnamed_size)}) that nothing in the history names"
    if done.young:
        yield f"  {count(done.young, 'object')} stay for their age: somebody brought or wrote them lately"
    yield from (f"  {note}" for note in done.notes)
    verb = "removed" if done.applied else "would remove"
    yield f"{verb} {count(done.objects, 'object')}, {human(done.size)}" if done.objects else "nothing to remove"


def doctor(
    remote: Annotated[bool, typer.Option("--remote", help="Ask the DVC remote, too.")] = False,
    repair: Annotated[bool, typer.Option("--repair", help="Mend what needs nobody's judgement.")] = False,
    format_: FormatOption = Format.TEXT,
    repo: RepoOption = ".",
    quiet: Quiet = False,
    verbose: Verbose = 0,
) -> None:
    """Name what stands in the way, is left over or is set up weakly, each with its mend.

    Exit code 0: nothing to do (advice aside), 1: something needs a person, 3: not everything could be looked at.

    Example: gitmodel doctor --repair
    """
    from gitmodel.doctor import checkup

    found = checkup.examine(repo, remote=remote, repair=repair)
    if format_ is Format.JSON:
        console.data(found.to_dict())
    else:
        for ailment in found.ailments:
            mark = "+" if ailment.repaired else "·" if ailment.advice else "✗"
            console.say(f"{mark} {ailment.message}  [{ailment.code}]")
            console.say("    mended" if ailment.repaired else f"    mend: {ailment.mend}")
        left = count(len(found.open), "ailment") + " to mend" if found.open else "nothing to mend"
        by_itself = sum(bool(ailment.repair) and not ailment.repaired for ailment in found.ailments)
        console.say(f"{left}{f'; {by_itself} can be mended by --repair' if by_itself else ''}")
        if found.incomplete:
            console.say(f"not everything could be looked at: {found.incomplete}")
    raise typer.Exit(found.exit_code)
