"""``export``: a version joined back into one file of the asked format, or into a folder with what belongs to it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from msgspec import Struct

from gitmodel import formats, registry
from gitmodel.bundle.bundle import ASSETS, HDF5_VIEW, SIGNATURE, Bundle, view_of
from gitmodel.bundle.lock import inside
from gitmodel.bundle.signature import DEFAULT
from gitmodel.errors import GitmodelError
from gitmodel.files import storing
from gitmodel.formats.onnx_export import DATA_SUFFIX, graph_of
from gitmodel.formats.output import replacing
from gitmodel.formats.source import OtherBytes, Seal, Source
from gitmodel.git import NotARepository, Repository
from gitmodel.storage.remote import Progress
from gitmodel.storage.workspace import corrupt
from gitmodel.workflows.transfer import check_tensors
from gitmodel.workflows.workspace import Workspace, weights_of


class UnclearDestination(GitmodelError):
    """The name of the file to write does not say its format, or says another one."""

    code = "unclear-destination"


class WouldOverwrite(GitmodelError):
    """A file is where one was to be written."""

    code = "would-overwrite"


class Exported(Struct, frozen=True):
    """``files`` as written, the model first; ``size`` of them together in bytes; ``left_out``, in words, what the model has
    and the format has no place for."""

    label: str
    files: tuple[Path, ...]
    size: int
    tensors: int
    left_out: tuple[str, ...]


def export(
    reference: str,
    dest: Path | str,
    *,
    repo: Path | str = ".",
    tensors: Sequence[str] = (),
    signature: str = "",
    format: str = "",  # noqa: A002  # the word of the command line
    force: bool = False,
    remote: str = "",
    progress: Progress | None = None,
) -> Exported:
    """Writes the model as one file in the format that ``dest`` ends with (ONNX of 2 GiB and more as two).

    A ``dest`` that ends with '/', or is a folder, gets ``<name>.onnx`` (``.h5`` for a checkpoint, or the ending that
    ``format`` says), the graphs of further signatures, the assets and ``signature.yaml``. ``signature`` takes the graph
    that this one has to itself. ``tensors`` takes these alone and fetches no others. ``reference`` may also be a model
    file: that converts it. ``force`` replaces files that are there.

    Raises UnclearDestination, WouldOverwrite, UnknownTensor, InvalidModel when the format cannot express the model,
    MissingWeights, StorageFailed.
    """
    from gitmodel.formats.left_out import left_out

    place = _place(Path(repo), remote, progress)
    bundle = registry.resolve(place.repo if place else None, reference)
    as_folder = str(dest).endswith(os.sep) or Path(dest).is_dir()
    path = _model_path(bundle, Path(dest), as_folder, format)
    if tensors and path.suffix == ".onnx":
        raise UnclearDestination(
            f"{path} cannot hold single tensors: ONNX needs the whole graph",
            hint="export them as .h5, .safetensors or .npz",
        )
    further = _further(bundle, path) if as_folder and not signature and not tensors else {}
    beside = _beside(bundle, Path(dest)) if as_folder else {}
    _refuse_overwriting([path, *further.values(), *beside], force)
    try:
        with _source(place, bundle, tensors, first=bool(further)) as source:
            chosen = graph_of(source, signature) if signature else source
            left = left_out(chosen, formats.ending(path), further)
            if as_folder:
                _make_folder(Path(dest))
            written = formats.write(chosen, path)
            for name, target in further.items():
                written += formats.write(graph_of(source, name), target)
    except OtherBytes as error:
        entry = bundle.lock.file(error.path)
        raise corrupt(entry, place.cache) if place and entry else error from None
    for target, data in beside.items():
        _make_folder(target.parent)
        with replacing(target) as output:
            output.write(data)
    written += tuple(beside)
    return Exported(bundle.label, written, sum(file.stat().st_size for file in written), len(chosen.tensors), left)


def _make_folder(path: Path) -> None:
    with storing(str(path)):
        path.mkdir(parents=True, exist_ok=True)


def _place(repo: Path, remote: str, progress: Progress | None) -> Workspace | None:
    try:
        return Workspace(Repository.open(repo), remote, progress)
    except NotARepository:
        return None


def _model_path(bundle: Bundle, dest: Path, as_folder: bool, wanted: str) -> Path:
    """The file to write. Raises UnclearDestination before anything is fetched."""
    written = [ending for ending, modules in formats.FORMATS.items() if modules.writer]
    known = f"known: {', '.join(written)}"
    if wanted and f".{wanted.removeprefix('.')}" not in written:
        raise UnclearDestination(f"there is no format '{wanted}' to export to", hint=known)
    if not as_folder:
        if formats.ending(dest) not in written:
            raise UnclearDestination(f"{dest} does not say its format", hint=f"{known}; a folder ends with '/'")
        if wanted and formats.ending(dest) != f".{wanted.removeprefix('.')}":
            raise UnclearDestination(f"{dest} is no name for the format '{wanted}'", hint="leave the format out")
        if not dest.parent.is_dir():
            raise UnclearDestination(f"there is no folder {dest.parent}", hint="make it, or name another")
        return dest
    servable = bool(bundle.signatures.by_name)
    return dest / f"{bundle.name}.{wanted.removeprefix('.') or ('onnx' if servable else 'h5')}"


def _further(bundle: Bundle, path: Path) -> dict[str, Path]:
    """The files of the signatures that have graphs of their own."""
    if bundle.file is not None or path.suffix != ".onnx":
        return {}
    names = [name for name in bundle.signatures.by_name if name != DEFAULT and bundle.lock.file(view_of(name))]
    return {name: path.with_name(f"{bundle.name}.{name}.onnx") for name in names}


def _beside(bundle: Bundle, folder: Path) -> dict[Path, bytes]:
    """The files that belong to the model, by where they go."""
    paths = [SIGNATURE, *bundle.folder.files(ASSETS)]
    found = {folder / inside(path): bundle.folder.read(path) for path in paths}
    return {path: data for path, data in found.items() if data is not None}


def _refuse_overwriting(paths: Sequence[Path], force: bool) -> None:
    data = [path.with_name(path.name + DATA_SUFFIX) for path in paths if path.suffix == ".onnx"]
    for path in (*paths, *data):
        if path.is_dir() or (path.exists() and not force):
            raise WouldOverwrite(f"{path} is there already", hint="choose another name, or --force to replace it")


@contextlib.contextmanager
def _source(place: Workspace | None, bundle: Bundle, names: Sequence[str], *, first: bool) -> Iterator[Source]:
    """The model, whole or these tensors of it, its bytes verified: ``first``, where several files are to be written from them and
    none of those that are there may be replaced for nothing, or as they are read."""
    from gitmodel.formats import binding, stored

    if bundle.file is not None:
        with contextlib.closing(formats.read(bundle.file)) as source:
            if source.graph is not None:
                binding.complete(source, bundle.label)
            check_tensors(names, {tensor.name for tensor in source.tensors}, bundle.label)
            chosen = tuple(tensor for tensor in source.tensors if tensor.name in names)
            yield Source(source.format, source.framework, chosen) if names else source
        return
    lock, card = bundle.lock, bundle.card
    check_tensors(names, {entry.name for entry in lock.tensors}, bundle.label)
    entries = [entry for entry in lock.tensors if not names or entry.name in names]
    needed = {entry.file for entry in entries}
    files = [file for file in lock.files if not names or file.path in needed]
    with weights_of(place, bundle, files) as folder:
        seals = {file.path: Seal(folder, file.path, file.sha256) for file in files}
        # What has a file of its own is hashed as it is written, too.
        hashed_later = set() if first else {entry.file for entry in entries if entry.file != HDF5_VIEW}
        for path in seals.keys() - hashed_later:
            seals[path].check()
        if names:
            found = (stored.tensor(folder, entry, seals[entry.file]) for entry in entries)
            yield Source(card.format, card.framework, tuple(found))
            return
        with contextlib.closing(stored.read(folder, lock)) as source:
            yield replace(source, format=card.format, framework=card.framework)
