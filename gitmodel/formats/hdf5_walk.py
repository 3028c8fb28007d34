"""Walks an HDF5 file that nobody vouches for: what it must not hold is refused here, and damage gets its name."""

from __future__ import annotations

import contextlib
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any

from gitmodel.formats.source import InvalidModel, UnsafeModel

_GZIP, _SHUFFLE, _FLETCHER32 = 1, 2, 3
_ALLOWED_FILTERS = {_GZIP, _SHUFFLE, _FLETCHER32}
#: More than gzip reaches: what claims more than this many times the bytes it stores is a trap for memory.
_MAX_RATIO = 2000
MAX_DATASETS = 100_000
MAX_LOGICAL_BYTES = 1 << 40


@contextlib.contextmanager
def naming_damage(where: str) -> Iterator[None]:
    """Whatever h5py raises on a damaged or unknown structure, as InvalidModel."""
    try:
        yield
    except (OSError, RuntimeError, KeyError, ValueError, TypeError) as error:
        raise InvalidModel(f"{where} is no whole HDF5 file ({_reason(error)})", hint="save or copy it again") from None


def open_file(path: Path) -> Any:
    """The file, for reading. Raises what h5py raises."""
    import h5py

    # Without a chunk cache: HDF5 2.0 copies wrong bytes out of one, or overruns its buffer. By a driver that nobody takes
    # who has no reason to: where the caller has the same file open, HDF5 would share that one's cache.
    return h5py.File(path, "r", driver="stdio", rdcc_nbytes=0)


def walk(file: Any, linked: Container[str] = ()) -> Iterator[tuple[str, Any]]:
    """Every group, dataset and named type by path, reached over hard links alone. An external link to one of the files
    ``linked`` is given as the link it is.

    Raises InvalidModel for what points elsewhere, and for a group with two paths: it could lie within itself.
    """
    import h5py

    where = file.filename
    seen = total = 0
    todo = [("", file)]
    _check_references(file, where)
    visited = {h5py.h5o.get_info(file.id).addr}
    while todo:
        prefix, group = todo.pop()
        for name in group:  # by name, or as they were made where the file keeps that
            path = prefix + name
            link = group.get(name, getlink=True)
            if isinstance(link, h5py.ExternalLink) and link.filename in linked:
                yield path, link
                continue
            if isinstance(link, h5py.SoftLink):
                raise UnsafeModel(
                    f"{where}: '{path}' is a soft link, to {link.path[:80]!r}",
                    hint="put the dataset itself there, or a hard link to it",
                )
            if not isinstance(link, h5py.HardLink):
                raise UnsafeModel(f"{where}: '{path}' links elsewhere", hint="save it with the data inside")
            item = group[name]
            _check_references(item, f"{where}: '{path}'")
            if isinstance(item, h5py.Group):
                address = h5py.h5o.get_info(item.id).addr
                if address in visited:
                    raise InvalidModel(f"{where}: the group '{path}' has another path as well", hint="save it once")
                visited.add(address)
                todo.append((f"{path}/", item))
            elif isinstance(item, h5py.Dataset) and item.shape is not None:
                check_dataset(item, f"{where}: '{path}'")
                seen, total = seen + 1, total + item.nbytes
                if seen > MAX_DATASETS or total > MAX_LOGICAL_BYTES:
                    raise UnsafeModel(f"{where} claims {total} bytes in {seen} datasets", hint="this is no model file")
            yield path, item


def _check_references(item: Any, where: str) -> None:
    """Raises InvalidModel for a reference to another object of the file, which would lead nowhere in a copy."""
    import h5py

    types = [(f"attribute '{name}' of it", item.attrs.get_id(name).get_type()) for name in item.attrs]
    if isinstance(item, h5py.Dataset):
        types.append(("it", item.id.get_type()))
    for what, kind in types:
        if kind.detect_class(h5py.h5t.REFERENCE):
            raise UnsafeModel(f"{where}: {what} refers to other objects", hint="save it without references or scales")


def check_dataset(dataset: Any, where: str) -> None:
    """Raises InvalidModel for a dataset that is not wholly in its file, or is made to fill the memory."""
    plist = dataset.id.get_create_plist()
    if dataset.is_virtual or plist.get_external_count():
        raise UnsafeModel(f"{where} keeps its data in another file", hint="save it with the data inside")
    filters = {plist.get_filter(i)[0] for i in range(plist.get_nfilters())}
    if filters - _ALLOWED_FILTERS:
        raise UnsafeModel(f"{where} uses an unknown filter", hint="save it with gzip or none")
    stored, whole = dataset.id.get_storage_size(), dataset.file.id.get_filesize()
    if (dataset.id.get_offset() or 0) + stored > whole:
        raise InvalidModel(f"{where} reaches beyond the end of the file", hint="save or copy it again")
    if stored * _MAX_RATIO + (1 << 20) < dataset.nbytes:
        raise UnsafeModel(f"{where} claims {dataset.nbytes} bytes but stores {stored}", hint="this is no model file")


def _reason(error: Exception) -> str:
    """HDF5's own words, which h5py sets in parentheses."""
    text = str(error)
    return text[text.find("(") + 1 :].rstrip(")'") if "(" in text else text
