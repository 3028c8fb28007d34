"""The author's commands: init, save, list, log, show."""

from __future__ import annotations

import contextlib
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from gitmodel.cli.console import Format, FormatOption, Quiet, RepoOption, Verbose, console, count, human, table

if TYPE_CHECKING:
    from gitmodel.workflows.save import Saved


def register(app: typer.Typer) -> None:
    for command in (init, save, list_, log, show):
        app.command(command.__name__.rstrip("_"))(command)


def init(
    remote: Annotated[
        str, typer.Option("--remote", metavar="URL", help="Where weights are stored: a folder, s3://, ssh:// ...")
    ] = "",
    hooks: Annotated[bool, typer.Option("--hooks", help="Install the local Git hooks, too.")] = False,
    repo: RepoOption = ".",
    quiet: Quiet = False,
    verbose: Verbose = 0,
) -> None:
    """Make a Git repository a model repository. Safe to repeat.

    Example: gitmodel init --remote s3://bucket/weights --hooks
    """
    from gitmodel.workflows import init as workflow

    result = workflow.init(repo, remote=remote)
    for line in result.done:
        console.note(f"{line}")
    if hooks:
        from gitmodel import hooks as git_hooks

        git_hooks.install(Path(repo))
        console.note("local hooks installed")
    if result.done:
        console.note("next: git commit -m 'Set up gitmodel'; gitmodel save NAME FILE -m MESSAGE")
    else:
        console.note(f"{result.root} is a model repository already; nothing to change")


def save(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The model's name.")],
    files: Annotated[
        list[str], typer.Argument(metavar="FILE", help="A .onnx or .h5 file, or a graph and its weights.")
    ],
    weights: Annotated[str, typer.Option("--weights", metavar="H5", help="Weights for the graph, bound by name.")] = "",
    signature: Annotated[
        list[str] | None,
        typer.Option(
            "--signature", metavar="NAME=ONNX", help="A further graph over the same weights; may be repeated."
        ),
    ] = None,
    params: Annotated[str, typer.Option("--params", metavar="YAML", help="Hyperparameters.")] = "",
    metrics: Annotated[str, typer.Option("--metrics", metavar="YAML", help="Metrics of this model.")] = "",
    asset: Annotated[
        list[str] | None, typer.Option("--asset", metavar="FILE", help="A file to keep with it; may be repeated.")
    ] = None,
    labels: Annotated[str, typer.Option("--labels", metavar="FILE", help="Class names, one per line.")] = "",
    golden: Annotated[
        str, typer.Option("--golden", metavar="NPZ", help="Inputs (and outputs) to record as golden cases.")
    ] = "",
    description: Annotated[
        str, typer.Option("--description", metavar="TEXT", help="One sentence for the model card.")
    ] = "",
    message: Annotated[
        str, typer.Option("--message", "-m", metavar="TEXT", help="Commit the bundle with this message.")
    ] = "",
    release: Annotated[
        str, typer.Option("--release", metavar="BUMP", help="Release it, too: auto, patch, minor, major.")
    ] = "",
    repo: RepoOption = ".",
    quiet: Quiet = False,
    verbose: Verbose = 0,
) -> None:
    """Save a model file as a bundle under models/NAME.

    Example: gitmodel save fraud model.onnx --metrics metrics.yaml --golden cases.npz -m "Deeper trees"
    """
    from gitmodel.formats import mapping
    from gitmodel.workflows import save as workflow
    from gitmodel.workflows.workspace import Workspace

    cut = workflow.ChangedMeanwhile("a file was cut short while it was read, or its disk failed", hint=workflow.QUIET)
    mapping.end_when_cut(f"error[{cut.code}]: {cut}\n", cut.exit_code)
    if release and not message:
        raise typer.BadParameter("a release names a commit: give -m MESSAGE, too", param_hint="--release")
    named: dict[str, str] = {}
    for key, _, file in (text.partition("=") for text in signature or ()):
        if not file or key in named:
            said = f"'{key}' is there twice" if file else "write NAME=FILE, such as embed=embed.onnx"
            raise typer.BadParameter(said, param_hint="--signature")
        named[key] = file
    place = Workspace.of(repo, progress=console.progress)
    with contextlib.ExitStack() as turn:
        if release:
            from gitmodel.workflows.prefetch import Prefetch

            # Together they are one turn: the version is that of this very commit, whoever else saves meanwhile.
            turn.enter_context(place.repo.lock())
            place.sessions = sessions = turn.enter_context(Prefetch(place, name))
            # Where models are run meanwhile, imports would hold them up, and there is more time afterwards.
            place.idle = lambda: None if sessions.begun else _load_release()
        result = workflow.save(
            name, files, repo=place, weights=weights or None, signatures=named, params=params or None,
            metrics=metrics or None, assets=asset or (), labels=labels or None, golden=golden or None,
            description=description, message=message,
        )  # fmt: skip
        _tell(name, result)
        if release:
            from gitmodel.cli.review import release_in

            release_in(place, name, release)


def _load_release() -> None:
    """What a release needs beyond a save, imported where there is time for it."""
    import_module("gitmodel.compat.reports.text")
    import_module("gitmodel.workflows.release")
    import_module("gitmodel.workflows.running")


def _tell(name: str, result: Saved) -> None:
    if not result.changed:
        console.note(
            f"{name} unchanged: {count(result.tensors, 'tensor')}, {human(result.size)}, sha256:{result.digest[:12]}"
        )
    else:
        parts = [count(result.tensors, "tensor"), f"{human(result.size)} ({human(result.added)} new)"]
        parts += [count(result.golden_cases, "golden case")] if result.golden_cases else []
        console.note(f"saved {name}: {', '.join(parts)}, sha256:{result.digest[:12]}")
    for note in result.notes:
        console.note(f"note: {note}")
    if result.stale_goldens:
        console.note(
            f"warning: {result.stale_goldens} golden cases recorded earlier no longer hold: mend the model, or "
            f"see 'gitmodel golden review {name}'"
        )
    if result.commit:
        console.note(f"committed {result.commit[:10]}")
    elif result.changed:
        console.note(f"next: git add models/{name} && git commit, then gitmodel release {name}")


def list_(
    format_: FormatOption = Format.TEXT, repo: RepoOption = ".", quiet: Quiet = False, verbose: Verbose = 0
) -> None:
    """List the models: latest version, stages, size, date.

    Example: gitmodel list --format json
    """
    from msgspec.structs import asdict

    from gitmodel.workflows import listing

    rows = listing.list_models(repo)
    if format_ is Format.JSON:
        console.data([asdict(row) for row in rows])
        return
    if not rows:
        console.note("no models yet; gitmodel save NAME FILE makes one")
        return
    cells = [
        [
            row.name,
            (row.latest or "unreleased") + (" *" if row.unreleased and row.latest else ""),
            ", ".join(f"{stage}={version}" for stage, version in row.stages.items()) or "-",
            human(row.size) if row.size is not None else "-",
            f"{row.date:%Y-%m-%d %H:%M}" if row.date else "not committed",
        ]
        for row in rows
    ]
    console.say(table(cells, ["model", "latest", "stages", "size", "changed"]))
    if any(row.unreleased and row.latest for row in rows):
        console.note("* changed since its latest release")
    _tell_left_out(repo)


def log(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The model's name.")],
    format_: FormatOption = Format.TEXT,
    repo: RepoOption = ".",
    quiet: Quiet = False,
    verbose: Verbose = 0,
) -> None:
    """Show the versions of a model, newest first.

    Example: gitmodel log fraud
    """
    from msgspec.structs import asdict

    from gitmodel.workflows import listing

    entries = listing.log(name, repo)
    if format_ is Format.JSON:
        console.data([asdict(entry) for entry in entries])
        return
    if not entries:
        console.note(f"{name} has no version yet; gitmodel release {name} makes one")
        _tell_left_out(repo)
        return
    cells = [
        [
            entry.version, f"{entry.date:%Y-%m-%d %H:%M}", entry.author, entry.verdict or "-", human(entry.size), human(entry.stored),
            entry.digest[:12] or "-", ", ".join(entry.stages) or "-", entry.changed or "-",
        ]
        for entry in entries
    ]  # fmt: skip
    console.say(
        table(cells, ["version", "date", "author", "verdict", "size", "stored", "weights", "stages", "changed"])
    )
    for entry in entries:
        if not entry.annotated:
            console.note(f"warning: {name}@{entry.version} is a lightweight tag; releases should be annotated")
    _tell_left_out(repo)


def _tell_left_out(repo: str) -> None:
    from gitmodel.workflows import listing

    if said := listing.left_out(repo):
        console.note(said)


def show(
    reference: Annotated[
        str, typer.Argument(metavar="REF", help="fraud, fraud@v1.2.0, fraud#prod, a commit or a file.")
    ],
    format_: FormatOption = Format.TEXT,
    repo: RepoOption = ".",
    quiet: Quiet = False,
    verbose: Verbose = 0,
) -> None:
    """Show a bundle: card, signatures, params, metrics, weights.

    Example: gitmodel show fraud@latest
    """
    from gitmodel.bundle import yamlio
    from gitmodel.workflows import listing

    body = listing.show(reference, repo)
    if format_ is Format.JSON:
        console.data(body)
    else:
        console.say(
            yamlio.dump({key: value for key, value in body.items() if value not in ("", None, [], {})}).rstrip()
        )
