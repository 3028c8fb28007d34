"""The commands that move weights: checkout, push, fetch, pull."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from gitmodel.cli.console import Quiet, RepoOption, Verbose, console, count

if TYPE_CHECKING:
    from gitmodel.workflows.transfer import Moved

Remote = Annotated[
    str,
    typer.Option(
        "--remote", "-r", metavar="NAME|URL", help="The DVC remote, by name or URL; the default one if not given."
    ),
]


def register(app: typer.Typer) -> None:
    for command in (checkout, push, fetch, pull):
        app.command(command.__name__)(command)


def checkout(
    reference: Annotated[str, typer.Argument(metavar="REF", help="The version to put into the working tree.")],
    repo: RepoOption = ".",
    quiet: Quiet = False,
    verbose: Verbose = 0,
) -> None:
    """Make models/NAME that of a version; the branch and other models stay.

    Example: gitmodel checkout fraud@v1.1.0
    """
    from gitmodel.workflows import checkout as workflow

    done = workflow.checkout(reference, repo=repo, progress=console.progress)
    where = f" ({done.commit[:10]})" if done.commit else ""
    console.note(f"{done.label}{where} is in the working tree; weight files rewritten: {done.files}")


def push(
    references: Annotated[
        list[str] | None, typer.Argument(metavar="REF", help="What to send; every model and version if not given.")
    ] = None,
    remote: Remote = "",
    repo: RepoOption = ".",
    quiet: Quiet = False,
    verbose: Verbose = 0,
) -> None:
    """Send weights to the DVC remote, only what is missing there.

    Example: gitmodel push fraud@v1.2.0
    """
    from gitmodel.workflows import transfer

    moved = transfer.push(references or (), repo=repo, remote=remote, progress=console.progress)
    console.note(f"{count(moved.objects, 'object')} sent to '{moved.remote}' ({_bundles(moved)} there)")


def fetch(
    references: Annotated[
        list[str] | None,
        typer.Argument(metavar="REF", help="What to bring; the working tree's models if not given."),
    ] = None,
    tensor: Annotated[
        list[str] | None,
        typer.Option("--tensor", metavar="NAME", help="Only the file this tensor stands in; may be repeated."),
    ] = None,
    view: Annotated[
        str, typer.Option("--view", metavar="onnx|hdf5", help="Only what this view of the weights needs.")
    ] = "",
    remote: Remote = "",
    repo: RepoOption = ".",
    quiet: Quiet = False,
    verbose: Verbose = 0,
) -> None:
    """Bring weights into the cache, verified, and leave the working tree alone. Works in a bare repository, too.

    Example: gitmodel fetch fraud@v1.2.0 --view onnx
    """
    from gitmodel.workflows import transfer

    moved = transfer.fetch(
        references or (), repo=repo, remote=remote, tensors=tensor or (), view=view, progress=console.progress
    )
    part = "part of " if tensor or view else ""
    console.note(f"{_brought(moved)} ({part}{_bundles(moved)} here)")


def pull(
    references: Annotated[
        list[str] | None,
        typer.Argument(metavar="REF", help="What to bring; the working tree's models if not given."),
    ] = None,
    remote: Remote = "",
    repo: RepoOption = ".",
    quiet: Quiet = False,
    verbose: Verbose = 0,
) -> None:
    """Bring weights from the DVC remote, only what is missing here, and verify what is brought.

    Example: gitmodel pull
    """
    from gitmodel.workflows import transfer

    moved = transfer.pull(references or (), repo=repo, remote=remote, progress=console.progress)
    console.note(f"{_brought(moved)} ({_bundles(moved)} here)")


def _brought(moved: Moved) -> str:
    return f"{count(moved.objects, 'object')} brought{' and verified' if moved.objects else ''}"


def _bundles(moved: Moved) -> str:
    return f"{count(moved.bundles, 'bundle')} {'is' if moved.bundles == 1 else 'are'}"
