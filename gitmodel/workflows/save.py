"""``save``: files become a bundle. Bytes first, then pointer and YAML, then the commit, the tag last: a crash loses nothing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from gitmodel import registry
from gitmodel.bundle import bundle as bundle_files
from gitmodel.bundle.bundle import ONNX_VIEW, Bundle, graph_files, view_of
from gitmodel.bundle.card import Card
from gitmodel.bundle.folder import DiskFolder
from gitmodel.bundle.golden import SLICE, GoldenCase
from gitmodel.bundle.lock import FileEntry, Lock
from gitmodel.bundle.signature import DEFAULT, Signature, Signatures
from gitmodel.errors import ExitCode, GitmodelError
from gitmodel.files import replace_file, storing
from gitmodel.formats import golden_files, goldens
from gitmodel.formats import signatures as named_signatures
from gitmodel.formats.source import Source
from gitmodel.storage import pointer
from gitmodel.storage.drafts import Drafts
from gitmodel.storage.workspace import Layout, WouldLose, plan, refuse_links
from gitmodel.versions import check_name
from gitmodel.workflows import describe, receipt
from gitmodel.workflows.reading import Given
from gitmodel.workflows.store import lock_before, store_weights
from gitmodel.workflows.workspace import Workspace

if TYPE_CHECKING:
    from gitmodel.formats.memory import Model


#: What helps where somebody writes what is being saved.
QUIET = "save it when nobody writes it"


class ChangedMeanwhile(GitmodelError):
    """A file was written while it was saved."""

    code = "changed-meanwhile"
    exit_code = ExitCode.INCOMPLETE


class Saved(Struct, frozen=True):
    """``changed`` is False when everything was there already; sizes in bytes; ``commit`` is '' when none was made;
    ``stale_goldens`` how many cases recorded earlier the new weights do not keep; ``notes`` what the author may not have
    meant, told once."""

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
    notes: tuple[str, ...] = ()


def save(
    name: str,
    model: Model,
    *,
    repo: Path | str | Workspace = ".",
    weights: Path | str | None = None,
    signatures: Mapping[str, Path | str] | None = None,
    example: object = None,
    params: Path | str | Mapping[str, Any] | None = None,
    metrics: Path | str | Mapping[str, Any] | None = None,
    assets: Sequence[Path | str] = (),
    labels: Path | str | None = None,
    golden: Path | str | None = None,
    description: str = "",
    message: str = "",
) -> Saved:
    """Saves a model as the bundle ``models/<name>``.

    ``model`` is a file (ONNX, HDF5, safetensors, npz), the files of one model (a graph and its weights, shards), an
    ``onnx.ModelProto``, a mapping of names to arrays, or a model of PyTorch, scikit-learn or Keras, which is converted;
    ``example`` are inputs to convert and check it with. ``signatures`` names further graphs over the same weights.

    What is not given stays as it is: params, metrics, labels, golden cases and what a person wrote into the card.
    ``golden`` replaces the recorded cases. ``message`` commits the bundle. Saving the same twice changes nothing.

    Raises InvalidModel, InvalidGolden, InvalidName, LoadFailed, NotARepository, NotInitialised, StorageFailed, and for
    a library's model MissingConverter, ConversionFailed or ConversionDiffers.
    """
    check_name(name)
    place = Workspace.of(repo)
    texts = {
        bundle_files.PARAMS: describe.yaml_text(params, "params"),
        bundle_files.METRICS: describe.yaml_text(metrics, "metrics"),
        **{path: origin.read_bytes() for path, origin in describe.assets_of(assets, labels).items()},
    }
    given = Given.of(model, weights, signatures, example)
    given.convert()  # before others have to wait
    with place.repo.lock(), Drafts.below(place.repo.state_dir / "drafts") as drafts:
        saved = _save(place, name, given, texts, golden, description, message, drafts)
        place.cache.digests.flush()
    return saved


def _save(
    place: Workspace,
    name: str,
    given: Given,
    texts: Mapping[str, bytes | None],
    golden: Path | str | None,
    description: str,
    message: str,
    drafts: Drafts,
) -> Saved:
    folder = place.repo.root / registry.model_path(name)
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="ahead") as ahead:
        # Git is asked while the files are read.
        allowed = ahead.submit(place.repo.check_can_commit) if message else None
        _refuse_own_files(given.paths, folder / bundle_files.WEIGHTS)
        place.cache.sweep()
        refuse_links(folder / bundle_files.WEIGHTS)
        # Until the bundle is written nothing refers to the new objects: a refusal takes them away again.
        with place.cache.undone_on_error():
            content = None if golden or not given.key else _as_before(place, name, given, folder, description)
            parent = lock_before(folder)
            if content is None:
                content = _Reader(place, name, folder, description, golden, allowed, drafts, parent).read(given)
            layout = plan(content.lock, place.cache, folder / bundle_files.WEIGHTS, parent, drafts)
        if allowed:
            allowed.result()
    given_texts = {path: text for path, text in texts.items() if text is not None}
    written = content.described | given_texts | describe.dvc_yaml(folder, texts)
    changed = _write(folder, content.lock, layout, written, content.cases)
    kept = receipt.path_for(place.repo.state_dir, name)
    receipt.write(kept, given.key, content.files, folder, (*content.made, content.stale))
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
        notes=content.notes,
    )


class _Content(Struct, frozen=True):
    """What the given files make; ``made`` are the format and the framework they come from, ``described`` the texts of card and
    signatures. ``files`` are all that were read for it, with the states they had; ``added`` is what was
    not stored before; ``cases`` are newly recorded golden cases, None when those there are stay."""

    made: tuple[str, str]
    signatures: Signatures
    described: dict[str, bytes]
    lock: Lock
    files: dict[str, list[int]]
    added: Sequence[FileEntry] = ()
    cases: list[GoldenCase] | None = None
    stale: int = 0
    notes: tuple[str, ...] = ()


def _as_before(place: Workspace, name: str, given: Given, folder: Path, description: str) -> _Content | None:
    """What the last save made of these very files, if nothing has changed since."""
    found = receipt.find(receipt.path_for(place.repo.state_dir, name), given.key, folder)
    if found is None:
        return None
    bundle = Bundle(name, name, DiskFolder(folder))
    if not all(place.cache.has(entry) for entry in bundle.lock.files):
        return None
    made, card = (found.format, found.framework), describe.card_in(folder, name)
    texts = describe.described(folder, card, made, bundle.signatures, description)
    return _Content(made, bundle.signatures, texts, bundle.lock, found.files, stale=found.stale)


class _Reader(Struct, frozen=True):
    """Reads what is given, stores its tensors, and runs what was stored. ``allowed`` is Git's word on whether a commit
    can be made, ``parent`` what the folder was laid out by."""

    place: Workspace
    name: str
    folder: Path
    description: str
    golden: Path | str | None
    allowed: Future[None] | None
    drafts: Drafts
    parent: Lock | None

    def read(self, given: Given) -> _Content:
        """Raises ChangedMeanwhile when a file was written while it was read: half of it might be another model's."""
        named = receipt.states(given.paths)
        with given.open() as source:
            files = receipt.states(source.files) | named
            settled = receipt.settled(files)
            made = (source.format, source.framework)
            card: Card
            signatures: Signatures
            described: dict[str, bytes]

            def beside() -> None:
                """All that hashing need not wait for."""
                nonlocal card, signatures, described
                if self.allowed:
                    self.allowed.result()
                if source.graph is not None:
                    self.place.sessions.expect(self.parent)
                card = describe.card_in(self.folder, self.name)
                signatures = named_signatures.of(source, card.signatures, given.label)
                described = describe.described(self.folder, card, made, signatures, self.description)
                if source.graph is not None:
                    _load_runtime()
                self.place.idle()

            lock, added = store_weights(source, self.place.cache, self.parent, self.drafts, beside)
            cases, stale = _check_runs(self.place, self.folder, lock, source, self.golden, card, given.label)
        if changed := receipt.changed_since(files):
            raise ChangedMeanwhile(f"{changed} changed while it was saved", hint=QUIET)
        # A file so fresh that it could change again unseen is read again next time.
        kept = files if settled else {}
        return _Content(made, signatures, described, lock, kept, added, cases, stale, source.notes)


def _refuse_own_files(files: Iterable[Path], weights: Path) -> None:
    for file in files:
        if file.resolve().is_relative_to(weights.resolve()):
            raise WouldLose(
                f"{file} lies in the folder that is about to be written", hint="move it out and save it from there"
            )


def _load_runtime() -> None:
    from gitmodel import runtime

    runtime.load_library()


def _check_runs(
    place: Workspace, folder: Path, lock: Lock, source: Source, golden: Path | str | None, card: Card, where: str
) -> tuple[list[GoldenCase] | None, int]:
    """Opens what was stored in ONNX Runtime, so that nothing is saved that cannot be served. Records golden cases, or
    counts those recorded earlier that no longer hold."""
    if source.graph is None or source.signature is None:
        if golden:
            raise goldens.InvalidGolden("golden cases need a graph to run", hint="save an ONNX graph with the weights")
        return None, 0
    from gitmodel import runtime

    with place.supply.staged(graph_files(lock), place.repo.state_dir / "staged") as staged:
        session = runtime.open_session(staged / ONNX_VIEW, prepack=False, label=where)
        place.sessions.keep(lock.digest, ONNX_VIEW, session)
        for name in source.named:
            runtime.open_session(staged / view_of(name), prepack=False, label=f"{where}, signature '{name}'")
        if source.cases:
            from gitmodel.formats import frameworks

            frameworks.check(source, session.run, where)
        if golden:
            cases = goldens.from_npz(Path(golden), source.signature, session.run)
            golden_files.check_total(where, len(cases), golden_files.size_of(cases))
            return cases, 0
        recorded = goldens.read(DiskFolder(folder), bundle_files.GOLDEN, source.signature, where)
        if not recorded:
            return None, 0
        from gitmodel.compat.replay import check_self

        return None, len(check_self(session, recorded, source.signature, card.gates).failures)


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
    kept = files.keys() | {f"{group}/{SLICE}" for group in groups}
    changed = False
    for path, data in files.items():
        changed |= replace_file(folder / path, data)
    with storing(str(folder)):
        for path in DiskFolder(folder).files():
            if path not in kept:
                (folder / path).unlink()
                changed = True
    return changed


def _recorded(folder: Path) -> int:
    return len(golden_files.places(DiskFolder(folder), bundle_files.GOLDEN))


def _commit(place: Workspace, name: str, message: str, *, changed: bool) -> str:
    """Commits the whole bundle: a pattern in the user's .gitignore must not leave half of it behind."""
    path = registry.model_path(name)
    if not changed and not place.repo.dirty(path):
        return ""
    but = (f"{path}/{bundle_files.WEIGHTS}", f"{path}/{bundle_files.GOLDEN}/{golden_files.PENDING}")
    return place.repo.commit_folder(path, message, but=but)
