"""What must hold whenever gitmodel was struck, each rule a function that yields a line for every loss it finds.

Nothing of gitmodel is used here: the rules read Git's objects, the DVC layout and ``weights.lock`` by themselves.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from kill_points.place import Broken, Place

_TEMPORARY = re.compile(r"tmp-gitmodel-.*|.*\.tmp|tmp_obj_.*|staged-.*")
_NAME = re.compile(r"[0-9a-f]{30}(\.dir)?")
_LOCK_FILE = re.compile(r"^file (\S+) (\d+) ([0-9a-f]{64}) ([0-9a-f]{32})$", re.MULTILINE)
_LOCK_PATH = re.compile(r"models/[^/]+/weights\.lock")


@dataclass(frozen=True)
class State:
    """A place as a person would compare it: by contents, without times and ids that differ from run to run.

    ``versions`` are tags with the tree they name, here and in the bare remote; ``bundle`` the files of the working tree.
    """

    log: tuple[str, ...]
    tree: str
    status: str
    versions: tuple[str, ...]
    pushed: tuple[str, ...]
    bundle: dict[str, str]
    stored: frozenset[str]
    cached: frozenset[str]
    own_files: dict[str, str]

    @classmethod
    def of(cls, place: Place) -> State:
        return cls(
            log=tuple(place.git("log", "--format=%s").splitlines()),
            tree=place.git("rev-parse", "HEAD^{tree}"),
            status=place.git("status", "--porcelain", "--untracked-files=all"),
            versions=_refs(place, place.repo, "refs/tags"),
            pushed=_refs(place, place.origin, "refs"),
            bundle=digests(place.repo / "models"),
            stored=frozenset(names(place.storage)),
            cached=frozenset(names(place.cache)),
            own_files=digests(place.files),
        )

    def differences(self, other: State, *, exactly: bool = False) -> Iterator[str]:
        """What ``other`` has otherwise than this one, which is as it should be. More objects are no harm, unless they
        were to go: ``exactly``."""
        for field in ("log", "tree", "status", "versions", "pushed", "bundle", "own_files"):
            right, got = getattr(self, field), getattr(other, field)
            if right != got:
                yield f"{field}: {_short(got, right)} instead of {_short(right, got)}"
        for field in ("stored", "cached"):
            if lacking := getattr(self, field) - getattr(other, field):
                yield f"{field}: {len(lacking)} objects are missing, {min(lacking)} for one"
            if exactly and (more := getattr(other, field) - getattr(self, field)):
                yield f"{field}: {len(more)} objects should be gone, {min(more)} for one"


@dataclass(frozen=True)
class Sight:
    """What a rule looks at: the place as it is now, and how it was before and would be after an undisturbed run."""

    place: Place
    before: State
    after: State
    #: The command is to free bytes: then only versions and the tips of branches must have theirs.
    forgets: bool = False


def git_is_whole(sight: Sight) -> Iterator[str]:
    """``git fsck --strict`` finds nothing, here and in the bare remote, and ``git status`` can read the index."""
    for repo in (sight.place.repo, sight.place.origin):
        try:
            sight.place.git("fsck", "--strict", "--no-dangling", repo=repo)
        except Broken as error:
            yield str(error)
    try:
        sight.place.git("status", "--porcelain")
    except Broken as error:
        yield str(error)


def versions_have_their_bytes(sight: Sight) -> Iterator[str]:
    """Every file of every commit that a tag or branch reaches (that one names, for `gc`) is in the cache or the remote,
    size and sha256 right."""
    yield from _lacking(sight, sight.place.repo, [sight.place.cache, sight.place.storage])


def pushed_versions_have_their_bytes(sight: Sight) -> Iterator[str]:
    """Every version in the bare remote has all its files in the DVC remote: a tag never arrives before its bytes."""
    yield from _lacking(sight, sight.place.origin, [sight.place.storage])


def nothing_went_back(sight: Sight) -> Iterator[str]:
    """Tags and commits that were there are there; what is new is what the command was to make."""
    now, past, future = (
        (set(s.versions), set(s.pushed), s.log) for s in (State.of(sight.place), sight.before, sight.after)
    )
    for what, got, was, wanted in (("here", now[0], past[0], future[0]), ("pushed", now[1], past[1], future[1])):
        for tag in sorted(was - got - {t for t in was if t.startswith("refs/heads/")}):
            yield f"{tag} {what} is gone"
        for tag in sorted(got - was - wanted):
            yield f"{tag} {what} is none that was to be made"
    if now[2] not in (past[2], future[2]):
        yield f"the history is {now[2]}"


def own_files_are_intact(sight: Sight) -> Iterator[str]:
    """The user's model files are byte for byte what they were."""
    if digests(sight.place.files) != sight.before.own_files:
        yield "a file of the user's was changed or is gone"


def objects_are_what_they_are_named(sight: Sight) -> Iterator[str]:
    """No wrong bytes under an object's name, in the cache or the remote; temporary files have no such name."""
    for root in (sight.place.cache, sight.place.storage):
        for name in names(root):
            if _hash(object_path(root, name), "md5") != name.removesuffix(".dir"):
                yield f"{name} in {root.name} holds other bytes"


def listings_are_complete(sight: Sight) -> Iterator[str]:
    """In the remote, a folder's listing is never there without its files: DVC takes the one for the other."""
    stored = set(names(sight.place.storage))
    for listing in (name for name in stored if name.endswith(".dir")):
        listed = re.findall(r'"md5": "([0-9a-f]{32})"', object_path(sight.place.storage, listing).read_text())
        if lacking := set(listed) - stored:
            yield f"{listing} in the remote lists {len(lacking)} objects that are not there"


def no_file_is_torn(sight: Sight) -> Iterator[str]:
    """Every file of the working tree's bundle is whole: what it was before, or what it was to become."""
    now = digests(sight.place.repo / "models")
    for path in sorted({*now, *sight.before.bundle, *sight.after.bundle}):
        allowed = {sight.before.bundle.get(path), sight.after.bundle.get(path)}
        # The weights are copies of the cache's: one that is missing on the way from one version to the next is no loss.
        if now.get(path) not in allowed and not (path not in now and "/weights/" in path):
            yield f"models/{path} is neither the old nor the new one"


def the_working_lock_has_its_bytes(sight: Sight) -> Iterator[str]:
    """What the working tree's own lock names is in the cache or the remote, so that its bundle can be read or fetched."""
    for lock in sorted((sight.place.repo / "models").glob("*/weights.lock")):
        yield from _lock_lacks(lock.read_text(), str(lock.parent.name), [sight.place.cache, sight.place.storage], {})


RULES: tuple[Callable[[Sight], Iterator[str]], ...] = (
    git_is_whole,
    versions_have_their_bytes,
    pushed_versions_have_their_bytes,
    nothing_went_back,
    own_files_are_intact,
    objects_are_what_they_are_named,
    listings_are_complete,
    no_file_is_torn,
    the_working_lock_has_its_bytes,
)


def losses(sight: Sight) -> list[str]:
    """Everything that is wrong, each line with the name of its rule."""
    found = []
    for rule in RULES:
        try:
            found += [f"{rule.__name__}: {line}" for line in rule(sight)]
        except (Broken, OSError) as error:
            found.append(f"{rule.__name__}: {error}")
    return found


def digests(root: Path) -> dict[str, str]:
    """sha256 of every file below ``root`` by its relative path, temporary ones left out."""
    return {
        path.relative_to(root).as_posix(): _hash(path, "sha256")
        for path in sorted(root.rglob("*"))
        if path.is_file() and not _TEMPORARY.fullmatch(path.name)
    }


def names(root: Path) -> list[str]:
    """The objects of a cache or a remote, temporary files left out."""
    found = []
    for folder in sorted((root / "files" / "md5").glob("[0-9a-f][0-9a-f]")):
        found += [f"{folder.name}{path.name}" for path in folder.iterdir() if _NAME.fullmatch(path.name)]
    return found


def left_over(place: Place) -> list[str]:
    """Temporary files and folders that lie about in the repository, the remote and the system's temporary folder."""
    found = [
        path for root in (place.repo, place.storage) for path in root.rglob("*") if _TEMPORARY.fullmatch(path.name)
    ]
    return sorted(
        path.relative_to(place.root).as_posix()
        for path in (*found, *(place.root / "tmp").iterdir())
        if path.name != ".ses"
    )


def object_path(root: Path, name: str) -> Path:
    return root / "files" / "md5" / name[:2] / name[2:]


def _lacking(sight: Sight, repo: Path, stores: list[Path]) -> Iterator[str]:
    known: dict[Path, str] = {}
    seen = set()
    for commit in sight.place.git("rev-list", "--all", *(["--no-walk"] if sight.forgets else []), repo=repo).split():
        for line in sight.place.git("ls-tree", "-r", commit, "models", repo=repo).splitlines():
            about, _, path = line.partition("\t")
            blob = about.split()[2]
            if _LOCK_PATH.fullmatch(path) and blob not in seen:
                seen.add(blob)
                text = sight.place.git("cat-file", "blob", blob, repo=repo)
                yield from _lock_lacks(text, f"{path} of {commit[:8]}", stores, known)


def _lock_lacks(text: str, where: str, stores: list[Path], known: dict[Path, str]) -> Iterator[str]:
    entries = _LOCK_FILE.findall(text)
    if not entries:
        yield f"{where} names no file"
    for path, size, sha256, md5 in entries:
        there = [object_path(store, md5) for store in stores if object_path(store, md5).is_file()]
        for file in there:
            known.setdefault(file, _hash(file, "sha256"))
        if not any(known[file] == sha256 and file.stat().st_size == int(size) for file in there):
            yield f"{where}: {path} is {'damaged' if there else 'nowhere'}"


def _refs(place: Place, repo: Path, below: str) -> tuple[str, ...]:
    """Each ref, its kind and the tree it leads to in the end."""
    listing = place.git("for-each-ref", "--format=%(refname) %(objecttype)", below, repo=repo).split("\n")
    refs = [line.split() for line in listing if line]
    return tuple(f"{ref} {kind} {place.git('rev-parse', f'{ref}^{{tree}}', repo=repo).strip()}" for ref, kind in refs)


def _hash(path: Path, name: str) -> str:
    return hashlib.new(name, path.read_bytes(), usedforsecurity=False).hexdigest()


def _short(value: object, other: object) -> str:
    """The part of a value that the other one does not have."""
    if isinstance(value, dict) and isinstance(other, dict):
        value = {key: item[:8] for key, item in value.items() if other.get(key) != item}
    elif isinstance(value, tuple) and isinstance(other, tuple):
        value = [item for item in value if item not in other]
    text = repr(value)
    return text if len(text) < 200 else f"{text[:200]}..."
