"""The command ``export``: a version as one file of another tool's format."""

from __future__ import annotations

from typing import Annotated

import typer

from gitmodel.cli.console import Format, FormatOption, Quiet, RepoOption, Verbose, console, count, human
from gitmodel.cli.transfer import Remote


def register(app: typer.Typer) -> None:
    app.command("export")(export)


def export(
    reference: Annotated[str, typer.Argument(metavar="REF", help="fraud, fraud@v1.2.0, fraud#prod, or a model file.")],
    dest: Annotated[
        str,
        typer.Argument(metavar="DEST", help="A file: .onnx, .h5, .safetensors or .npz; or a folder, ending with /."),
    ],
    as_: Annotated[
        str,
        typer.Option("--as", metavar="ENDING", help="The format of the file in a folder: onnx, h5, safetensors, npz."),
    ] = "",
    tensor: Annotated[
        list[str] | None, typer.Option("--tensor", metavar="NAME", help="Only this tensor; may be repeated.")
    ] = None,
    signature: Annotated[
        str, typer.Option("--signature", metavar="NAME", help="The graph that this signature has to itself.")
    ] = "",
    force: Annotated[bool, typer.Option("--force", help="Replace files that are there.")] = False,
    remote: Remote = "",
    format_: FormatOption = Format.TEXT,
    repo: RepoOption = ".",
    quiet: Quiet = False,
    verbose: Verbose = 0,
) -> None:
    """Write a model as one file: ONNX, HDF5, safetensors or npz; in a folder, with its assets and signature.

    Example: gitmodel export fraud@v1.2.0 fraud.onnx
    """
    from msgspec.structs import asdict

    from gitmodel.workflows import export as workflow

    done = workflow.export(
        reference,
        dest,
        repo=repo,
        tensors=tensor or (),
        signature=signature,
        format=as_,
        force=force,
        remote=remote,
        progress=console.progress,
    )
    if format_ is Format.JSON:
        console.data({**asdict(done), "files": [str(file) for file in done.files]})
    else:
        for file in done.files:
            console.say(str(file))
    console.note(f"exported {done.label}: {count(done.tensors, 'tensor')}, {human(done.size)}")
    for what in done.left_out:
        console.note(f"left out, as {done.files[0].suffix} has no place for it: {what}")
