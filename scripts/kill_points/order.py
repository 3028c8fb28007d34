"""Whether a power cut could lose what a kill cannot: the order of writes, fsyncs and renames in an undisturbed run's log.

A kill leaves what was written in the kernel's memory; a power cut only what was synced. So no object may get its name
before its bytes are synced, and no pointer to objects may be renamed into place before their folders are.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from kill_points.tracing import Call

_PATHS = re.compile(r"\d+<([^>]+)>|\"([^\"]+)\"")
_WRITES = {"write", "pwrite64", "writev", "pwritev", "ftruncate", "fallocate"}
_RENAMES = {"rename", "renameat", "renameat2", "link", "linkat"}
_OBJECT = re.compile(r"/files/md5/[0-9a-f]{2}/[0-9a-f]{30}(\.dir)?$")
#: What names objects: Git commits these.
_POINTERS = ("/weights.lock", "/weights.dvc")


def violations(calls: Sequence[Call], root: Path) -> list[str]:
    return sorted(set(_violations([call for call in calls if not call.failed], root)))


def _violations(calls: Sequence[Call], root: Path) -> Iterator[str]:
    unsynced: set[str] = set()
    named_in: set[str] = set()
    for call in calls:
        paths = [one or other for one, other in _PATHS.findall(call.args)]
        if call.name in _WRITES or call.name == "sendfile":
            unsynced.update(paths[:1])
        elif call.name == "copy_file_range":
            unsynced.update(paths[1:2])
        elif call.name in ("fsync", "fdatasync"):
            unsynced.difference_update(paths[:1])
            named_in.difference_update(paths[:1])
        elif call.name in _RENAMES and len(paths) >= 2:
            source, target = paths[-2], paths[-1]
            where = target.removeprefix(f"{root}/")
            if _OBJECT.search(target):
                if source in unsynced:
                    yield f"an object gets its name before its bytes are synced: {_form(where)}"
                named_in.add(str(Path(target).parent))
            elif target.endswith(_POINTERS):
                if source in unsynced:
                    yield f"{where} is put in place before its bytes are synced"
                for folder in sorted(named_in):
                    yield f"{where} is put in place before the names in {_form(folder.removeprefix(f'{root}/'))} are synced"


def _form(path: str) -> str:
    """The same text for every object."""
    return re.sub(r"/[0-9a-f]{2}(/[0-9a-f]{30}|$)", "/..", path)
