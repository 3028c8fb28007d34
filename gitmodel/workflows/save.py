"""``save``: files become a bundle. Bytes first, then pointer and YAML, then the commit, the tag last: a crash loses nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gitmodel import formats, registry
from gitmodel.bundle import bundle as bundle_files
from gitmodel.bundle import yamlio
from gitmodel.bundle.bundle import HDF5_VIEW, ONNX_VIEW, Bundle
from gitmodel.bundle.card import Card, Gates
from gitmodel.bundle.folder import DiskFolder
from gitmodel.bundle.golden import GoldenCase
from gitmodel.bundle.lock import FileEntry, Lock
from gitmodel.bundle.signature import DEFAULT, Signature, Signatures
from gitmodel.compat.replay import check_self
from gitmodel.errors import GitmodelError
from gitmodel.formats import goldens
from gitmodel.formats.source import Source
from gitmodel.storage import pointer
from gitmodel.storage.files import replace_file, storing
from gitmodel.storage.workspace import Layout, WouldLose, plan, refuse_links
from gitmodel.versions import check_name
from gitmodel.workflows import receipt
from gitmodel.workflows.store import store_weights
from gitmodel.workflows.workspace import Workspace

_DVC_YAML = "dvc.yaml"
#: The texts written here; a file that says anything else is the user's.
_OUR_DVC_YAML = (
    b"params:\n- params.yaml\n",
    b"metrics:\n- metrics.yaml\n",
    b"params:\n- params.yaml\nmetrics:\n- metrics.yaml\n",
)


class UnclearFiles(GitmodelError):
    """The files given do not make one model."""

    code = "unclear-files"


@dataclass(frozen=True)
class Saved:
    """``changed`` is False when everything was there already; sizes in bytes; ``commit`` is '' when none was made;
    ``stale_goldens`` how many cases recorded earlier the new weights do not keep."""

    name: str
    changed: bool
    tensors: int
    size: int
    added: int
    digest: str
    golden_cases: int
    signature: Signature | None
    commit: str = ""
    stale_goldens: int = 0


def save(
    name: str,
    files: Sequence[Path | str],
    *,
    repo: Path | str | Workspace = ".",
    weights: Path | str | None = None,
    params: Path | str | Mapping[str, Any] | None = None,
    metrics: Path | str | Mapping[str, Any] | None = None,
    assets: Sequence[Path | str] = (),
    labels: Path | str | None = None,
    golden: Path | str | None = None,
    description: str = "",
    message: str = "",
) -> Saved:
    """Saves a model file, or an ONNX graph and its HDF5 weights, as the bundle ``models/<name>``.

    What is not given stays as it is: params, metrics, labels, golden cases and what a person wrote into the card.
    ``golden`` replaces the recorded cases. ``message`` commits the bundle. Saving the same twice changes nothing.

    Raises InvalidModel, InvalidGolden, InvalidName, LoadFailed, NotARepository, NotInitialised, StorageFailed.
    """
    check_name(name)
    place = Workspace.of(repo)
    texts = {
        bundle_files.PARAMS: _yaml_text(params, "params"),
        bundle_files.METRICS: _yaml_text(metrics, "metrics"),
        **{path: origin.read_bytes() for path, origin in _assets(assets, labels).items()},
    }
    given = [Path(file) for file in (*files, *([weights] if weights else []))]
    folder = place.repo.root / registry.model_path(name)
    with place.repo.lock(), ThreadPoolExecutor(max_workers=1, thread_name_prefix="ahead") as ahead:
        # Git is asked, and the runtime imported, while the files are read.
        allowed = ahead.submit(place.repo.check_can_commit) if message else None
        _refuse_own_files(given, folder / bundle_files.WEIGHTS)
        place.cache.sweep()
        refuse_links(folder / bundle_files.WEIGHTS)
        # Until the bundle is written nothing refers to the new objects: a refusal takes them away again.
        with place.cache.undone_on_error():
            content = None if golden else _as_before(place, name, given, folder)
            if content is None:
                content = _read_content(place, folder, given, bool(weights), golden, allowed, ahead)
            texts |= _described(folder, name, content, description)
            layout = plan(content.lock, place.cache, folder / bundle_files.WEIGHTS)
        if allowed:
            allowed.result()
        written = {path: text for path, text in texts.items() if text is not None} | _dvc_yaml(folder, texts)
        changed = _write(folder, content.lock, layout, written, content.cases)
        made = (content.format, content.framework, content.stale)
        receipt.write(receipt.path_for(place.repo.state_dir, name), given, content.files, folder, made)
        commit = _commit(place, name, message, changed=changed) if message else ""
    return Saved(
        name=name,
        changed=changed or bool(commit),
        tensors=len(content.lock.tensors),
        size=content.lock.size,
        added=sum({entry.md5: entry.size for entry in content.added}.values()),
        digest=content.lock.digest,
        golden_cases=len(content.cases) if content.cases is not None else _recorded(folder),
        signature=content.signatures.by_name.get(DEFAULT),
        commit=commit,
        stale_goldens=content.stale,
    )


@dataclass(frozen=True)
class _Content:
    """What the given files make. ``files`` are all that were read for it, ``added`` what was not stored before; ``cases``
    are newly recorded golden cases, None when those there are stay."""

    format: str
    framework: str
    signatures: Signatures
    lock: Lock
    files: tuple[Path, ...]
    added: Sequence[FileEntry] = ()
    cases: list[GoldenCase] | None = None
    stale: int = 0


def _as_before(place: Workspace, name: str, given: Sequence[Path], folder: Path) -> _Content | None:
    """What the last save made of these very files, if nothing has changed since."""
    found = receipt.find(receipt.path_for(place.repo.state_dir, name), given, folder)
    if found is None:
        return None
    bundle = Bundle(name, name, DiskFolder(folder))
    if not all(place.cache.has(entry) for entry in bundle.lock.files):
        return None
    files = tuple(map(Path, found.files))
    return _Content(found.format, found.framework, bundle.signatures, bundle.lock, files, stale=found.stale)


def _read_content(
    place: Workspace,
    folder: Path,
    given: Sequence[Path],
    has_weights: bool,
    golden: Path | str | None,
    allowed: Future[None] | None,
    ahead: ThreadPoolExecutor,
) -> _Content:
    """Reads the files, stores their tensors, and runs what was stored."""
    files, weights = (given[:-1], given[-1]) if has_weights else (given, None)
    with _read(list(files), weights) as source:
        if allowed:
            allowed.result()  # a refusal by Git comes before anything is written
        if source.graph is not None:
            from gitmodel import runtime

            ahead.submit(runtime.preload)
        lock, added = store_weights(source, place.cache, _parent_lock(folder))
        cases, stale = _check_runs(place, folder, lock, source, golden, str(given[0]))
        signatures = Signatures({DEFAULT: source.signature} if source.signature else {})
        return _Content(source.format, source.framework, signatures, lock, source.files, added, cases, stale)


def _refuse_own_files(files: Iterable[Path | str], weights: Path) -> None:
    for file in files:
        if Path(file).resolve().is_relative_to(weights.resolve()):
            raise WouldLose(
                f"{file} lies in the folder that is about to be written", hint="move it out and save it from there"
            )


@contextlib.contextmanager
def _read(files: list[Path], weights: Path | None) -> Iterator[Source]:
    """The one model that these files make; the user's files are let go of at the end."""
    given = [*files, *([weights] if weights else [])]
    with contextlib.ExitStack() as stack:
        sources = [(path, stack.enter_context(contextlib.closing(formats.read(path)))) for path in given]
        graphs = [(path, source) for path, source in sources if source.graph is not None]
        checkpoints = [source for _, source in sources if source.graph is None]
        if len(graphs) > 1 or len(checkpoints) > 1 or not sources:
            raise UnclearFiles(
                f"{len(graphs)} graphs and {len(checkpoints)} weight files do not make one model",
                hint="give one .onnx, one .h5, or one of each",
            )
        yield _join(*graphs[0], checkpoints) if graphs else checkpoints[0]


def _join(path: Path, graph: Source, checkpoints: list[Source]) -> Source:
    from gitmodel.formats import binding

    return binding.bind(graph, checkpoints[0], str(path)) if checkpoints else binding.complete(graph, str(path))


def _check_runs(
    place: Workspace, folder: Path, lock: Lock, source: Source, golden: Path | str | None, where: str
) -> tuple[list[GoldenCase] | None, int]:
    """Opens what was stored in ONNX Runtime, so that nothing is saved that cannot be served. Records golden cases, or
    counts those recorded earlier that no longer hold."""
    if source.graph is None or source.signature is None:
        if golden:
            raise goldens.InvalidGolden("golden cases need a graph to run", hint="save an ONNX graph with the weights")
        return None, 0
    from gitmodel import runtime

    wanted = [entry for entry in lock.files if entry.path != HDF5_VIEW]
    with place.supply.staged(wanted, place.repo.state_dir / "staged") as staged:
        session = runtime.open_session(staged / ONNX_VIEW, prepack=False, label=where)
        if golden:
            return goldens.from_npz(Path(golden), source.signature, session.run), 0
        recorded = goldens.read(DiskFolder(folder), bundle_files.GOLDEN, source.signature, where)
        card = folder / bundle_files.CARD
        gates = Card.from_yaml(card.read_bytes(), str(card)).gates if card.is_file() else Gates()
        return None, len(check_self(session, recorded, source.signature, gates).failures)


def _described(folder: Path, name: str, content: _Content, description: str) -> dict[str, bytes]:
    """The card, with what a person wrote into it kept, and the signatures read from the model."""
    existing = folder / bundle_files.CARD
    card = Card.from_yaml(existing.read_bytes(), str(existing)) if existing.is_file() else Card(name)
    card = card.with_source(content.format, content.framework)
    if description:
        card = card.described(description)
    texts = {bundle_files.SIGNATURE: content.signatures.to_yaml().encode()}
    # A card that says the same is left as the person laid it out, comments and all.
    if not existing.is_file() or Card.from_yaml(existing.read_bytes(), str(existing)) != card:
        texts[bundle_files.CARD] = card.to_yaml().encode()
    return texts


def _yaml_text(value: Path | str | Mapping[str, Any] | None, what: str) -> bytes | None:
    if value is None:
        return None
    if isinstance(value, Mapping):
        return yamlio.dump(dict(value)).encode()
    path = Path(value)
    if not path.is_file():
        raise UnclearFiles(f"there is no {what} file {path}", hint="check the path")
    return yamlio.dump(yamlio.load_mapping(path.read_bytes(), str(path))).encode()


def _dvc_yaml(folder: Path, texts: Mapping[str, bytes | None]) -> dict[str, bytes]:
    """Tells DVC of the params and metrics, so that plain ``dvc params diff`` and ``dvc metrics diff`` show them."""
    files = {"params": bundle_files.PARAMS, "metrics": bundle_files.METRICS}
    listed = {key: [name] for key, name in files.items() if texts.get(name) is not None or (folder / name).is_file()}
    wanted = "".join(f"{key}:\n- {names[0]}\n" for key, names in listed.items()).encode()
    existing = folder / _DVC_YAML
    ours = not existing.exists() or existing.read_bytes() in _OUR_DVC_YAML
    return {_DVC_YAML: wanted} if listed and ours else {}


def _assets(assets: Iterable[Path | str], labels: Path | str | None) -> dict[str, Path]:
    given = [(f"{bundle_files.ASSETS}/{Path(asset).name}", Path(asset)) for asset in assets]
    if labels:
        given.append((bundle_files.LABELS, Path(labels)))
    chosen: dict[str, Path] = {}
    for name, path in given:
        if not path.is_file():
            raise UnclearFiles(f"there is no file {path}", hint="check the path")
        if name in chosen:
            raise UnclearFiles(f"{chosen[name]} and {path} would both be {name}", hint="rename one")
        chosen[name] = path
    return chosen


def _write(
    folder: Path, lock: Lock, layout: Layout, texts: Mapping[str, bytes], cases: list[GoldenCase] | None
) -> bool:
    """Puts the bundle into the working tree, weights first and the lock last; returns whether anything differed."""
    with storing(str(folder)):
        folder.mkdir(parents=True, exist_ok=True)
    for left_over in folder.glob(".*.tmp"):  # of a save that was killed; the lock is held, so nobody writes them
        left_over.unlink()
    changed = layout.apply() > 0
    for path, data in texts.items():
        changed |= replace_file(folder / path, data)
    if cases is not None:
        changed |= _write_goldens(folder / bundle_files.GOLDEN, cases)
    pointer.ignore(folder, bundle_files.WEIGHTS)
    directory = layout.cache.add_directory(lock.files)
    dvc = pointer.Pointer(directory, lock.size, len(lock.files), bundle_files.WEIGHTS)
    changed |= replace_file(folder / f"{bundle_files.WEIGHTS}.dvc", dvc.to_yaml().encode())
    return replace_file(folder / bundle_files.LOCK, lock.to_text().encode()) or changed


def _write_goldens(folder: Path, cases: list[GoldenCase]) -> bool:
    groups: dict[str, list[GoldenCase]] = {}
    for case in cases:
        groups.setdefault(case.name.rpartition("/")[0], []).append(case)
    files = {path: data for group, members in groups.items() for path, data in goldens.write(group, members).items()}
    changed = False
    for path, data in files.items():
        changed |= replace_file(folder / path, data)
    with storing(str(folder)):
        for path in DiskFolder(folder).files():
            if path not in files:
                (folder / path).unlink()
                changed = True
    return changed


def _recorded(folder: Path) -> int:
    return len({path.rpartition("/")[0] for path in DiskFolder(folder).files(bundle_files.GOLDEN)})


def _parent_lock(folder: Path) -> Lock | None:
    existing = folder / bundle_files.LOCK
    return Bundle(folder.name, folder.name, DiskFolder(folder)).lock if existing.is_file() else None


def _commit(place: Workspace, name: str, message: str, *, changed: bool) -> str:
    """Commits the whole bundle: a pattern in the user's .gitignore must not leave half of it behind."""
    path = registry.model_path(name)
    if not changed and not place.repo.dirty(path):
        return ""
    return place.repo.commit_folder(path, message, but=f"{path}/{bundle_files.WEIGHTS}")
