"""What a save was made of, kept in Git's own folder: the same files again, untouched since, need not be read again."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from msgspec import Struct
from msgspec.structs import asdict

from gitmodel.bundle import bundle as bundle_files
from gitmodel.bundle.folder import DiskFolder
from gitmodel.files import StorageFailed, replace_file
from gitmodel.storage.digests import is_settled

_SCHEMA = 1


class Receipt(Struct, frozen=True):
    """``given`` is what the caller asked for; ``files`` maps the absolute paths of all that was read for it to their state;
    ``bundle`` names what was written from them; ``stale`` is how many recorded golden cases did not hold."""

    given: tuple[str, ...]
    files: dict[str, list[int]]
    bundle: str
    format: str
    framework: str
    stale: int
    schema: int = _SCHEMA


def path_for(state_dir: Path, name: str) -> Path:
    return state_dir / "receipts" / f"{name}.json"


def states(files: Iterable[Path]) -> dict[str, list[int]]:
    """The state of each file by its absolute path; one that is not there has none."""
    found = {}
    for file in files:
        with contextlib.suppress(OSError):
            found[str(file.resolve())] = _state(file)
    return found


def settled(files: dict[str, list[int]]) -> bool:
    """Whether none of the files is so fresh that it could change again without a new state."""
    return all(is_settled(changed) for state in files.values() for changed in state[3:])


def changed_since(files: dict[str, list[int]]) -> str:
    """The first of the files whose bytes may be others by now, or ''. Another link to a file changes no bytes."""
    now = states(map(Path, files))
    return next((file for file, state in files.items() if now.get(file, [])[:4] != state[:4]), "")


def write(
    path: Path, given: Iterable[str], files: dict[str, list[int]], folder: Path, made: tuple[str, str, int]
) -> None:
    """Remembers a save of files in these states; of none when there are none. One that cannot be written is a loss of time
    only."""
    format_, framework, stale = made
    with contextlib.suppress(OSError, StorageFailed):
        if not files:
            path.unlink(missing_ok=True)
            return
        receipt = Receipt(tuple(given), files, fingerprint(folder), format_, framework, stale)
        replace_file(path, json.dumps(asdict(receipt)).encode())


def find(path: Path, given: Iterable[str], folder: Path) -> Receipt | None:
    """The receipt of a save of just this, if they and the bundle are still what they were then."""
    with contextlib.suppress(OSError, ValueError, TypeError, AttributeError):
        receipt = Receipt(**json.loads(path.read_bytes()))
        if receipt.schema != _SCHEMA or list(receipt.given) != list(given):
            return None
        if all(_state(Path(file)) == state for file, state in receipt.files.items()):
            return receipt if receipt.bundle == fingerprint(folder) else None
    return None


def fingerprint(folder: Path) -> str:
    """One digest for what a save derives from a model, and for what it is judged by: lock, signatures, card, golden cases."""
    bundle = DiskFolder(folder)
    named = (bundle_files.LOCK, bundle_files.SIGNATURE, bundle_files.CARD)
    whole = hashlib.sha256()
    for path in (*named, *bundle.files(bundle_files.GOLDEN)):
        data = bundle.read(path) or b""
        whole.update(f"{path}\0{len(data)}\0".encode() + data)
    return whole.hexdigest()


def _state(path: Path) -> list[int]:
    """With the time of the last change of any kind: a tool may set the other one back."""
    info = path.stat()
    return [info.st_dev, info.st_ino, info.st_size, info.st_mtime_ns, info.st_ctime_ns]
