"""Models, versions and stages as Git holds them, and what a reference means: ``resolve("fraud@v1.2.0") -> Bundle``."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Container, Iterable, Mapping
from functools import partial
from pathlib import Path

from msgspec import Struct
from msgspec.structs import replace

from gitmodel import formats
from gitmodel.bundle import bundle as bundle_files
from gitmodel.bundle.bundle import Bundle
from gitmodel.bundle.folder import DiskFolder, MemoryFolder
from gitmodel.errors import GitmodelError
from gitmodel.formats.source import Description
from gitmodel.git import ListedFolder, Repository, TagRef, folders
from gitmodel.versions import ReleaseTag, StageTag, Version, check_name, parse_tag

#: Reads a bare model file.
Describe = Callable[[Path], Description]
MODELS = "models"
LATEST = "latest"
#: The stage that a server follows as soon as a model has it, and the latest release until then.
PROD = "prod"
_SHORT_ID = 7
#: How many models an error names.
_NAMED = 8
#: What is read as a name and a mark even where a file is called so: who sends a branch names files and revisions.
_REFERENCE = re.compile(r"[A-Za-z0-9_-]+[@#]")
_PARTIAL = re.compile(r"v?(\d+)(?:\.(\d+))?")


class UnknownModel(GitmodelError):
    """No model of that name where it was looked for."""

    code = "unknown-model"


class UnknownVersion(GitmodelError):
    """The model has no such version or stage."""

    code = "unknown-version"


class Release(Struct, frozen=True):
    """A version and the tag it is. ``number`` is its place in the order of release, from 1, withdrawn ones counted: an
    integer for clients that want one, kept for good."""

    tag: ReleaseTag
    ref: TagRef
    number: int = 0

    @property
    def version(self) -> Version:
        return self.tag.version


class Versions(Struct, frozen=True):
    """The versions of a model. ``releases`` are oldest first by SemVer order; withdrawn ones, and tags on commits without the
    model, are left out. ``taken`` is every number that was ever given out, withdrawn ones included: a tag never moves."""

    releases: list[Release] = []
    taken: set[Version] = set()

    @property
    def latest(self) -> Release | None:
        """The highest version, pre-releases only when there is nothing else."""
        finished = [release for release in self.releases if not release.version.pre]
        return next(reversed(finished or self.releases), None)


class StageMove(Struct, frozen=True):
    """A stage put on a version; the move with the highest counter counts."""

    tag: StageTag
    ref: TagRef
    version: Version | None


def model_path(name: str) -> str:
    return f"{MODELS}/{name}"


def models(repo: Repository, commit: str = "") -> list[str]:
    """Names of the models at a commit, or in the working tree without one."""
    if commit:
        names = repo.folder(commit, MODELS).folders()
        return [name for name in names if holds(repo, commit, name)]
    base = repo.root / MODELS
    return sorted(p.parent.name for p in base.glob(f"*/{bundle_files.CARD}")) if base.is_dir() else []


def trees(repo: Repository, commit: str) -> dict[str, str]:
    """The folders of models at a commit and Git's id of each: equal ids are equal models. Some may be no models."""
    return repo.folder(commit, MODELS).trees()


def holds(repo: Repository, commit: str, name: str) -> bool:
    """Whether a commit has the model."""
    return repo.folder(commit, model_path(name)).has_file(bundle_files.CARD)


def versions(repo: Repository, name: str) -> Versions:
    """What the tags say of the versions of one model."""
    return _versions(name, repo.tags(f"{name}@*", _of({name})), partial(holds, repo))


def all_versions(repo: Repository, held: set[tuple[str, str]] | None = None) -> dict[str, Versions]:
    """``versions`` of every model that has a tag of one, by name, with one look at the tags. ``held`` takes the commits, each with a
    model, that were found to have it, and need not be looked into again."""
    refs, known = _by_model(repo.tags("*@*", _of()), ReleaseTag), set() if held is None else held

    def holds_still(commit: str, name: str) -> bool:
        if (commit, name) not in known and holds(repo, commit, name):
            known.add((commit, name))
        return (commit, name) in known

    return {name: _versions(name, refs[name], holds_still) for name in sorted(refs)}


def _of(models: Container[str] | None = None) -> Callable[[str], bool]:
    """Tells the tags of these models, or of all, from those that are of none."""
    return lambda name: (tag := parse_tag(name)) is not None and (models is None or tag.model in models)


def _by_model(refs: Iterable[TagRef], kind: type[ReleaseTag | StageTag]) -> dict[str, list[TagRef]]:
    found: dict[str, list[TagRef]] = {}
    for ref in refs:
        if isinstance(tag := parse_tag(ref.name), kind):
            found.setdefault(tag.model, []).append(ref)
    return found


def _versions(name: str, refs: Iterable[TagRef], has: Callable[[str, str], bool]) -> Versions:
    """``has`` says whether a commit has a model."""
    given, withdrawn = _given(name, refs)
    kept = [given[version] for version in sorted(given) if version not in withdrawn]
    return Versions([one for one in kept if has(one.ref.commit, name)], given.keys() | withdrawn)


def _given(name: str, refs: Iterable[TagRef]) -> tuple[dict[Version, Release], set[Version]]:
    found: dict[Version, Release] = {}
    withdrawn = set()
    for ref in refs:
        tag = parse_tag(ref.name)
        if isinstance(tag, ReleaseTag) and tag.model == name:
            if tag.cancelled:
                withdrawn.add(tag.version)
            else:
                found[tag.version] = Release(tag, ref)
    order = sorted(found.values(), key=lambda release: (release.ref.date, release.version))
    return {release.version: replace(release, number=i) for i, release in enumerate(order, 1)}, withdrawn


def withdrawing(tag: str) -> str:
    """What a person types to withdraw the version of a tag, which neither moves nor goes."""
    return f"git tag -a -m WHY '{tag}!' '{tag}^{{}}'"


def standing(repo: Repository, name: str) -> dict[str, str]:
    """The tags of a model's versions and stages, as gitmodel spells them, and the commit each stands on."""
    refs = [(parse_tag(ref.name), ref.commit) for ref in repo.tags(f"{name}[@#]*", _of({name}))]
    return {str(tag): commit for tag, commit in refs if tag is not None and tag.model == name}


def stage_moves(repo: Repository, name: str, known: Iterable[Release] | None = None) -> list[StageMove]:
    """Every move of every stage of a model, oldest first. ``known`` are its releases, if they have been read already."""
    return _moves(name, repo.tags(f"{name}#*", _of({name})), versions(repo, name).releases if known is None else known)


def _moves(name: str, refs: Iterable[TagRef], known: Iterable[Release]) -> list[StageMove]:
    by_commit = {release.ref.commit: release.version for release in known}
    moves = []
    for ref in refs:
        tag = parse_tag(ref.name)
        if isinstance(tag, StageTag) and tag.model == name:
            moves.append(StageMove(tag, ref, by_commit.get(ref.commit)))
    return sorted(moves, key=lambda move: (move.tag.stage, move.tag.counter))


def stages(repo: Repository, name: str, known: Iterable[Release] | None = None) -> dict[str, StageMove]:
    """Where each stage stands now; ``known`` as for ``stage_moves``."""
    return _current(stage_moves(repo, name, known))


def all_stages(repo: Repository, known: Mapping[str, Versions]) -> dict[str, dict[str, StageMove]]:
    """``stages`` of each of these models, with one look at the tags."""
    refs = _by_model(repo.tags("*#*", _of(known)), StageTag)
    return {name: _current(_moves(name, refs.get(name, ()), known[name].releases)) for name in known}


def _current(moves: Iterable[StageMove]) -> dict[str, StageMove]:
    current = {move.tag.stage: move for move in moves}
    return {stage: move for stage, move in current.items() if not move.tag.cancelled}


def resolve(repo: Repository | None, reference: str, describe: Describe | None = None) -> Bundle:
    """The bundle a reference names: a model, ``name@version``, ``name@revision``, ``name#stage``, a file or a folder.
    ``describe`` reads a bare file, in a sandbox for example.

    Raises UnknownModel, UnknownVersion, UnknownRevision, InvalidName or InvalidModel.
    """
    path = Path(reference)
    if (repo is None or not _REFERENCE.match(reference)) and (
        formats.ending(path) or (path / bundle_files.CARD).is_file()
    ):
        return _from_path(path, describe or described)
    if repo is None:
        raise UnknownModel(
            f"'{reference}' is no model file", hint="name a .onnx or .h5 file, or run inside a repository"
        )
    name, mark, rest = re.fullmatch(r"([^@#]*)([@#]?)(.*)", reference, re.DOTALL).groups()  # type: ignore[union-attr]  # it always fits
    check_name(name)
    if mark == "":
        return working_bundle(repo, name)
    if mark == "#":
        move = stages(repo, name).get(rest)
        if move is None:
            refuse_shallow(repo, f"{name} has no stage '{rest}'")
            known = ", ".join(stages(repo, name)) or "none yet"
            raise UnknownVersion(f"{name} has no stage '{rest}'", hint=f"stages: {known}; 'gitmodel promote' sets one")
        return bundle_at(repo, name, move.ref.commit, f"{name}#{rest}")
    release = _find_release(repo, name, rest)
    if release is not None:
        return bundle_at(repo, name, release.ref.commit, str(release.tag))
    return bundle_at(repo, name, repo.commit_of(rest), reference)


def bundle_at(repo: Repository, name: str, commit: str, label: str) -> Bundle:
    """The bundle of ``name`` as committed. Raises UnknownModel."""
    folder = repo.folder(commit, model_path(name))
    if folder.read(bundle_files.CARD) is None:
        raise UnknownModel(f"{label} has no {model_path(name)}/{bundle_files.CARD}", hint=_known(models(repo, commit)))
    return Bundle(name, label, folder, commit)


def bundles_at(repo: Repository, commit: str, names: Iterable[str], revision: str) -> dict[str, Bundle]:
    """Those of these models that a commit has, read together; labelled ``name@revision``. Raises InvalidName."""
    paths = {model_path(check_name(name)): name for name in names}
    found = folders(repo, commit, paths)
    return {
        paths[path]: Bundle(paths[path], f"{paths[path]}@{revision}", folder, commit)
        for path, folder in found.items()
        if folder.has(bundle_files.CARD)
    }


def merged(new: Bundle, old: Bundle, common: Bundle, apart: tuple[str, ...]) -> Bundle:
    """NEW as a merge into OLD's branch would have it; all three from ``bundles_at``. A person mends what clashes, by saving
    the model anew, so then it is NEW's, but for the files ``apart``."""
    mine, theirs, origin = new.folder, old.folder, common.folder
    if isinstance(mine, ListedFolder) and isinstance(theirs, ListedFolder) and isinstance(origin, ListedFolder):
        return replace(new, folder=mine.merged(theirs, origin, apart))
    return new


def current(repo: Repository) -> list[Bundle]:
    """The models of the working tree, by name; in a bare repository, of HEAD."""
    if not repo.bare:
        return [working_bundle(repo, name) for name in models(repo)]
    head = repo.head()
    names = models(repo, head) if head else []
    return [Bundle(check_name(name), name, repo.folder(head, model_path(name)), head) for name in names]


def working_bundle(repo: Repository, name: str) -> Bundle:
    """The bundle as it lies in the working tree (the last commit, in a bare repository). Raises UnknownModel."""
    check_name(name)
    if repo.bare:
        return bundle_at(repo, name, repo.commit_of("HEAD"), name)
    folder = repo.root / model_path(name)
    if folder.is_symlink() or folder.parent.is_symlink():
        raise UnknownModel(f"{model_path(name)} is a symbolic link", hint="a model is a folder of plain files")
    if not (folder / bundle_files.CARD).exists():
        raise UnknownModel(f"there is no model '{name}'", hint=_known(models(repo)))
    return Bundle(name, name, DiskFolder(folder))


def _find_release(repo: Repository, name: str, text: str) -> Release | None:
    if text == LATEST:
        newest = versions(repo, name).latest
        if newest is None:
            refuse_shallow(repo, f"{name} has no version")
            raise UnknownVersion(f"{name} has no version yet", hint=f"run 'gitmodel release {name}'")
        return newest
    partial = _PARTIAL.fullmatch(text)
    known = versions(repo, name).releases
    for release in reversed(known):
        version = release.version
        if text.removeprefix("v") == str(version).removeprefix("v"):
            return release
        fits = (
            partial
            and not version.pre
            and partial[1] == str(version.major)
            and partial[2] in (None, str(version.minor))
        )
        if fits:
            return release
    # Seven digits and more may be an abbreviated commit id as well.
    version_like = partial and ("." in text or len(text) < _SHORT_ID)
    if version_like or re.fullmatch(r"v?\d+\.\d+\.\d+.*", text):
        _refuse_stray(repo, name, text)
        whole = re.fullmatch(r"v?(\d+\.\d+\.\d+.*)", text)
        refuse_shallow(repo, f"{name} has no version '{text}'", f"{name}@v{whole[1]}" if whole else "")
        names = ", ".join(str(release.version) for release in known[-5:]) or "none yet"
        raise UnknownVersion(f"{name} has no version '{text}'", hint=f"versions: {names}")
    return None


def left_out(repo: Repository) -> str:
    """What is to be said of versions in a shallow clone; '' in a whole one."""
    more = "'git fetch --unshallow --tags' brings all there is"
    return f"this clone is shallow, versions may be left out: {more}" if repo.shallow else ""


def refuse_shallow(repo: Repository, fact: str, tag: str = "") -> None:
    """Raises UnknownVersion in a shallow clone, where what is not found may only have been left out."""
    if repo.shallow:
        one = f"'git fetch --depth 1 origin tag {tag}' brings it if it exists, " if tag else ""
        raise UnknownVersion(
            f"{fact} in this shallow clone", hint=f"{one}'git fetch --unshallow --tags' brings all there is"
        )


def _refuse_stray(repo: Repository, name: str, text: str) -> None:
    """Says so when there is a tag of that version, on a commit without the model."""
    for version, release in _given(name, repo.tags(f"{name}@*", _of({name})))[0].items():
        if str(version).removeprefix("v") == text.removeprefix("v") and not holds(repo, release.ref.commit, name):
            raise UnknownVersion(
                f"the commit of {release.ref.name} has no {model_path(name)}", hint="the tag stands on the wrong commit"
            )


def is_file(reference: str) -> bool:
    """Whether a reference is the path of a bare model file."""
    path = Path(reference)
    return bool(formats.ending(path)) and not path.is_dir()


def described(path: Path) -> Description:
    """What a bare file says of itself. Raises InvalidModel."""
    with contextlib.closing(formats.read(path)) as source:
        return Description(source.format, source.framework, source.signature)


def _from_path(path: Path, describe: Describe) -> Bundle:
    if path.is_dir():
        folder = DiskFolder(path)
        return Bundle(path.resolve().name, str(path), folder)
    from gitmodel.bundle.card import Card
    from gitmodel.bundle.signature import DEFAULT, Signatures

    found = describe(path)
    signatures = Signatures({DEFAULT: found.signature} if found.signature else {})
    card = Card(path.stem, format=found.format, framework=found.framework)
    files: Mapping[str, bytes] = {
        bundle_files.CARD: card.to_yaml().encode(),
        bundle_files.SIGNATURE: signatures.to_yaml().encode(),
    }
    return Bundle(path.stem, str(path), MemoryFolder(files), file=path)


def _known(names: list[str]) -> str:
    listed = ", ".join((*names[:_NAMED], *(["…"] if len(names) > _NAMED else [])))
    return f"models here: {listed}" if names else "'gitmodel save NAME FILE' makes one"
