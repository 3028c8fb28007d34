"""What ``dvc add`` would write for a weights folder, exactly: the ``.dvc`` pointer, the listing it names, the ``.gitignore`` line."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from msgspec import Struct

from gitmodel.bundle import yamlio
from gitmodel.bundle.lock import FileEntry
from gitmodel.files import replace_file


class Pointer(Struct, frozen=True):
    """``md5`` ends in ``.dir``; ``size`` in bytes over ``nfiles`` files; ``path`` is the folder beside the pointer."""

    md5: str
    size: int
    nfiles: int
    path: str

    def to_yaml(self) -> str:
        return f"outs:\n- md5: {self.md5}\n  size: {self.size}\n  nfiles: {self.nfiles}\n  hash: md5\n  path: {self.path}\n"

    @classmethod
    def from_yaml(cls, data: bytes | str, where: str) -> Pointer:
        """Raises InvalidYaml."""
        outs = yamlio.load_mapping(data, where).get("outs")
        try:
            out = outs[0]  # type: ignore[index]  # anything that is no list of mappings lands in the except
            return cls(str(out["md5"]), int(out["size"]), int(out["nfiles"]), str(out["path"]))
        except (TypeError, KeyError, IndexError, ValueError):
            raise yamlio.InvalidYaml(
                f"{where} is no pointer to a folder", hint="restore it from Git or save again"
            ) from None


def ignore(folder: Path, name: str) -> None:
    """Keeps ``folder/name`` out of Git, by the line DVC itself would add."""
    path = folder / ".gitignore"
    lines = path.read_text().splitlines() if path.exists() else []
    if f"/{name}" not in lines:
        replace_file(path, "".join(f"{line}\n" for line in [*lines, f"/{name}"]).encode())


def listing_of(files: Iterable[FileEntry]) -> tuple[str, bytes]:
    """Name and bytes of DVC's ``.dir`` object for these files."""
    listing = sorted(({"md5": f.md5, "relpath": f.path} for f in files), key=lambda item: item["relpath"])
    data = json.dumps(listing, sort_keys=True).encode()
    return f"{hashlib.md5(data, usedforsecurity=False).hexdigest()}.dir", data
